"""Run -> HTTP: an event stream that a cursor feeds, and the wait for a whole answer.

Both end the run when its client is gone, and neither is ever in the run's way: they read its log.
"""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import Mapping
from typing import Protocol

from starlette.types import Receive, Scope, Send

from agent_server.events import Event
from agent_server.framing import Frame, Framing
from agent_server.runs.engine import Engine, Run

_BATCH = 1024


class Encoder(Protocol):
    """A synchronous fold of events into frames."""

    def feed(self, event: Event) -> list[Frame]:
        """The frames that one event causes."""
        ...


class EventStream:
    """An ASGI response: the run's log through an encoder and a framing, from its first event to its last.

    Frames that are ready together leave in one write. Silence is broken by a heartbeat every `heartbeat`
    seconds; a client that takes nothing for `send_timeout` seconds is dropped. The run is cancelled when its
    client is gone.
    """

    def __init__(
        self,
        engine: Engine,
        run: Run,
        encoder: Encoder,
        framing: Framing,
        *,
        headers: Mapping[str, str],
        heartbeat: float = 15.0,
        send_timeout: float = 30.0,
    ) -> None:
        self._engine = engine
        self._run = run
        self._encoder = encoder
        self._framing = framing
        self._headers = {
            "content-type": framing.media_type,
            "cache-control": "no-cache",
            "x-accel-buffering": "no",
            **headers,
        }
        self._heartbeat = heartbeat
        self._send_timeout = send_timeout

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        try:
            head = [
                (name.encode("latin-1"), value.encode("latin-1")) for name, value in self._headers.items()
            ]
            await send({"type": "http.response.start", "status": 200, "headers": head})
            after = await self._write_from(0, send)  # `created` leaves before the graph starts
            async with _WatchedClient(receive) as client:
                await self._pump(after, send)
            if not client.gone:
                await send({"type": "http.response.body", "body": self._framing.end, "more_body": False})
        except TimeoutError:
            pass  # a client that accepts nothing is as good as gone
        finally:
            if not self._run.log.closed:
                await self._engine.cancel(self._run, "client disconnected")

    async def _pump(self, after: int, send: Send) -> None:
        log = self._run.log
        while not (log.closed and after == len(log)):
            if after == len(log):
                await self._wait(after, send)
            after = await self._write_from(after, send)

    async def _wait(self, after: int, send: Send) -> None:
        while True:
            try:
                async with asyncio.timeout(self._heartbeat):
                    return await self._run.log.grown(after)
            except TimeoutError:
                await self._send(send, self._framing.heartbeat)

    async def _write_from(self, after: int, send: Send) -> int:
        batch = self._run.log.read(after, _BATCH)
        write, feed = self._framing.write, self._encoder.feed
        body = b"".join([write(frame) for event in batch for frame in feed(event)])
        if body:
            await self._send(send, body)
        return after + len(batch)

    async def _send(self, send: Send, body: bytes) -> None:
        async with asyncio.timeout(self._send_timeout):
            await send({"type": "http.response.body", "body": body, "more_body": True})


async def run_to_end(engine: Engine, run: Run, receive: Receive) -> bool:
    """Wait until the run is over. False when the client left first; the run is then cancelled."""
    async with _WatchedClient(receive) as client:
        while not run.log.closed:
            await run.log.grown(len(run.log))
    if client.gone:
        await engine.cancel(run, "client disconnected")
    return not client.gone


class _WatchedClient:
    """A block that is left as soon as the client is gone, whatever it awaits; `gone` tells whether it was."""

    def __init__(self, receive: Receive) -> None:
        self._receive = receive
        self.gone = False

    async def __aenter__(self) -> _WatchedClient:
        self._owner = asyncio.current_task()
        self._watch = asyncio.create_task(self._until_gone())
        return self

    async def _until_gone(self) -> None:
        while (await self._receive())["type"] != "http.disconnect":
            pass
        self.gone = True
        if self._owner is not None:
            self._owner.cancel()

    async def __aexit__(self, kind: type[BaseException] | None, *_: object) -> bool:
        self._watch.cancel()
        if not self.gone or self._owner is None:
            return False
        if kind is None:  # the cancellation is on its way and must not reach the code behind the block
            with contextlib.suppress(asyncio.CancelledError):
                await asyncio.sleep(0)
        return self._owner.uncancel() == 0 and kind in (None, asyncio.CancelledError)
