"""A WebSocket client for tests: events are read one by one, or up to the end of a response."""

from __future__ import annotations

import asyncio
import json
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import Any

from websockets.asyncio.client import ClientConnection, connect

from tests.support.gates import PATIENCE

Event = dict[str, Any]
CLOSING = 1.0
"""Seconds that a server has to answer the end of a connection; one that has gone already does not."""

ENDS = frozenset({"response.completed", "response.incomplete", "response.failed", "error"})


class Socket:
    """One connection to `/v1/responses`."""

    def __init__(self, connection: ClientConnection) -> None:
        self.connection = connection

    async def send(self, kind: str = "response.create", **event: Any) -> None:
        """Send one event; the agent is the first unless `model` says otherwise."""
        await self.connection.send(json.dumps({"type": kind, **event}))

    async def event(self) -> Event:
        """The next event."""
        async with asyncio.timeout(PATIENCE):
            text = await self.connection.recv()
        assert isinstance(text, str)
        found: Event = json.loads(text)
        return found

    async def until(self, *kinds: str) -> list[Event]:
        """The events up to the first of these kinds."""
        events = [await self.event()]
        while events[-1]["type"] not in kinds:
            events.append(await self.event())
        return events

    async def ask(self, **event: Any) -> Event:
        """Create a response; its last event, or the error."""
        await self.send(**event)
        return (await self.until(*ENDS))[-1]

    async def response(self, **event: Any) -> Any:
        """Create a response that completes: the response object."""
        last = await self.ask(**event)
        assert last["type"] == "response.completed", last
        return last["response"]


@asynccontextmanager
async def opened(base_url: str, **headers: str) -> AsyncIterator[Socket]:
    """A connection, closed with the block. Underscores in the names of headers stand for hyphens."""
    given = {name.replace("_", "-"): value for name, value in headers.items()}
    url = base_url.replace("http", "ws", 1) + "/v1/responses"
    async with connect(url, additional_headers=given, close_timeout=CLOSING) as connection:
        yield Socket(connection)
