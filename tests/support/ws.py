"""A client of `/ws` for tests."""

from __future__ import annotations

import asyncio
import json
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager, suppress
from typing import Any

from websockets.asyncio.client import ClientConnection, connect
from websockets.exceptions import ConnectionClosed

from tests.support.gates import PATIENCE

Message = dict[str, Any]
ENDS = frozenset({"end", "error", "response.completed", "response.incomplete", "response.failed"})


class Ws:
    """One connection to `/ws`."""

    def __init__(self, connection: ClientConnection) -> None:
        self.connection = connection
        self._count = 0

    async def send(self, kind: str, **body: Any) -> str:
        """Send one frame; the id of its request, a new one unless it is given."""
        self._count += 1
        body = {"requestId": f"r{self._count}", **body}
        await self.connection.send(json.dumps({"type": kind, **body}))
        return str(body["requestId"])

    async def message(self) -> Message:
        """The next message that is no heartbeat."""
        async with asyncio.timeout(PATIENCE):
            while (found := json.loads(await self.connection.recv()))["type"] == "heartbeat":
                pass
        return dict(found)

    async def until(self, *kinds: str) -> list[Message]:
        """The messages up to the first of these kinds."""
        messages = [await self.message()]
        while messages[-1]["type"] not in kinds:
            messages.append(await self.message())
        return messages

    async def ask(self, kind: str = "run", **body: Any) -> list[Message]:
        """All messages of a request on a connection that has no other."""
        await self.send(kind, **body)
        return await self.until(*ENDS)

    async def closed(self) -> int:
        """The code that the server closes the connection with."""
        async with asyncio.timeout(PATIENCE):
            with suppress(ConnectionClosed):
                while True:
                    await self.connection.recv()
        code = self.connection.close_code
        assert code is not None
        return code


@asynccontextmanager
async def opened(base_url: str, protocol: str = "langchain.v2", **options: Any) -> AsyncIterator[Ws]:
    """A connection, closed with the block."""
    url = base_url.replace("http", "ws", 1) + "/ws"
    async with connect(url, subprotocols=[protocol], **options) as connection:  # type: ignore[list-item]
        yield Ws(connection)


def text_of(messages: list[Message]) -> str:
    """The text that the chunks among some `langchain.v2` messages bring."""
    events = [each["event"] for each in messages if each["type"] == "event"]
    return "".join(e["data"]["chunk"]["content"] for e in events if e["event"] == "on_chat_model_stream")
