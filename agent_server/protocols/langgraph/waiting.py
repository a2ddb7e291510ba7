"""The answer to whoever waits for a run: JSON that begins with a line end for every five seconds of waiting.

The status is sent with the first of them, or with the answer: it is 200 whatever becomes of the run.
"""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable, Mapping
from typing import Any

from starlette.types import Receive, Scope, Send

from agent_server.framing import to_json
from agent_server.http.stream import WatchedClient
from agent_server.runs.log import EventLog

HEARTBEAT_SECONDS = 5.0


class WaitedJson:
    """An ASGI response: what `value` tells once a run is over. `left` is called when the client is gone before,
    `delivered` when it has the answer."""

    def __init__(
        self,
        log: EventLog,
        value: Callable[[], Awaitable[Any]],
        *,
        headers: Mapping[str, str],
        left: Callable[[], Awaitable[object]] | None = None,
        delivered: Callable[[], object] = lambda: None,
        heartbeat: float = HEARTBEAT_SECONDS,
    ) -> None:
        self._log = log
        self._value = value
        self._headers = {"content-type": "application/json", **headers}
        self._left = left
        self._delivered = delivered
        self._heartbeat = heartbeat

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        head = [(name.encode("latin-1"), value.encode("latin-1")) for name, value in self._headers.items()]
        await send({"type": "http.response.start", "status": 200, "headers": head})
        body = b""
        async with WatchedClient(receive) as client:
            while not await self._is_over():
                await send({"type": "http.response.body", "body": b"\n", "more_body": True})
            body = to_json(await self._value())
        if client.gone:
            if self._left is not None and not self._log.over:
                await self._left()
            return
        await send({"type": "http.response.body", "body": body, "more_body": False})
        self._delivered()

    async def _is_over(self) -> bool:
        try:
            async with asyncio.timeout(self._heartbeat):
                await self._log.until_over()
        except TimeoutError:
            return self._log.over
        return True
