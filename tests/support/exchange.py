"""Requests to an ASGI app in the test's own event loop: read write by write, left at any moment, or not read at all."""

from __future__ import annotations

import asyncio
import json
from collections.abc import AsyncIterator, Mapping
from contextlib import asynccontextmanager
from types import TracebackType
from typing import Any

from starlette.applications import Starlette

from agent_server.app import create_app
from agent_server.settings import Settings
from tests.support.gates import PATIENCE, Gate


@asynccontextmanager
async def opened(agents: Mapping[str, Any], store: str = "memory", **settings: Any) -> AsyncIterator[Starlette]:
    """An app that serves these agents, through its lifespan."""
    app = create_app(agents, Settings(store=store, **settings))
    async with app.router.lifespan_context(app):
        yield app


class Exchange:
    """One request and what came of it. Leaving the block is leaving the server, if the answer is not complete.

    A `stalled` client lets no write of the body through before that gate opens.
    """

    def __init__(
        self,
        app: Starlette,
        method: str,
        target: str,
        body: Any = None,
        headers: Mapping[str, str] | None = None,
        stalled: Gate | None = None,
    ) -> None:
        path, _, query = target.partition("?")
        sent = {"content-type": "application/json", **(headers or {})}
        self._app = app
        self._scope = {
            "type": "http",
            "asgi": {"version": "3.0", "spec_version": "2.3"},
            "http_version": "1.1",
            "method": method,
            "scheme": "http",
            "path": path,
            "raw_path": path.encode(),
            "query_string": query.encode(),
            "root_path": "",
            "headers": [(name.lower().encode(), value.encode()) for name, value in sent.items()],
            "client": ("127.0.0.1", 1),
            "server": ("test", 80),
        }
        self._requests = [b"" if body is None else body if isinstance(body, bytes) else json.dumps(body).encode()]
        self._stalled = stalled
        self._gone = asyncio.Event()
        self._grown = asyncio.Event()
        self.status = 0
        self.headers: dict[str, str] = {}
        self._received = bytearray()
        self.is_whole = False
        self.writes: list[int] = []  # their sizes

    async def __aenter__(self) -> Exchange:
        self.task = asyncio.create_task(self._app(self._scope, self._receive, self._send))
        self.task.add_done_callback(lambda _: self._grown.set())
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        self.leave()
        async with asyncio.timeout(PATIENCE):
            await self.task

    async def _receive(self) -> dict[str, Any]:
        if self._requests:
            return {"type": "http.request", "body": self._requests.pop(), "more_body": False}
        await self._gone.wait()
        return {"type": "http.disconnect"}

    async def _send(self, message: Any) -> None:
        if message["type"] == "http.response.start":
            self.status = message["status"]
            self.headers = {name.decode(): value.decode() for name, value in message["headers"]}
        else:
            self.writes.append(len(message.get("body", b"")))
            if self._stalled is not None:
                await self._stalled.passed()
            if not self._gone.is_set():
                self._received += message.get("body", b"")
                self.is_whole = not message.get("more_body", False)
        self._grown.set()

    @property
    def received(self) -> bytes:
        """The body as far as it has come."""
        return bytes(self._received)

    def leave(self) -> None:
        """Hang up."""
        self._gone.set()

    async def until(self, wanted: bytes) -> bytes:
        """All that was received, once `wanted` is in it."""
        async with asyncio.timeout(PATIENCE):
            while wanted not in self._received:
                assert not self.task.done(), f"the answer ended before {wanted!r} came: {self.received[-300:]!r}"
                self._grown.clear()
                await self._grown.wait()
        return self.received

    async def frames(self, count: int) -> bytes:
        """All that was received, once it holds so many frames."""
        async with asyncio.timeout(PATIENCE):
            while self._received.count(b"\n\n") < count:
                assert not self.task.done(), f"the answer ended after {self.received[-300:]!r}"
                self._grown.clear()
                await self._grown.wait()
        return self.received

    async def whole(self) -> bytes:
        """The whole body."""
        async with asyncio.timeout(PATIENCE):
            await asyncio.shield(self.task)
        assert self.is_whole, "the answer was cut short"
        return self.received

    async def json(self) -> Any:
        """The whole body as JSON."""
        return json.loads(await self.whole())


async def ask(
    app: Starlette, method: str, target: str, body: Any = None, headers: Mapping[str, str] | None = None
) -> Exchange:
    """A request whose whole answer has come."""
    async with Exchange(app, method, target, body, headers) as exchange:
        await exchange.whole()
    return exchange


def frames_of(stream: bytes) -> list[bytes]:
    """The frames of an event stream, without heartbeats."""
    return [frame + b"\n\n" for frame in stream.split(b"\n\n")[:-1] if frame != b": ping"]


def response_id(stream: bytes) -> str:
    """The id of the response that a stream tells of."""
    frame = frames_of(stream)[0]
    return str(json.loads(frame.split(b"\ndata: ")[1])["response"]["id"])
