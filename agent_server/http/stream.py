"""Run -> HTTP: an event stream that a cursor feeds, and the wait for a whole answer.

Both end the run when its client is gone, and neither is ever in the run's way: they read its log.
"""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import Awaitable, Callable, Mapping, Sequence
from typing import Generic, Protocol

from starlette.types import Receive, Scope, Send
from typing_extensions import TypeVar

from agent_server.events import Event
from agent_server.framing import Frame, Framing
from agent_server.runs.log import EventLog

_BATCH = 1024
_WRITE = 65_536
"""Bytes in one write, or as many as one event has: what waits for a reader that does not read is no more."""


E = TypeVar("E", default=Event)
E_co = TypeVar("E_co", covariant=True, default=Event)
E_contra = TypeVar("E_contra", contravariant=True, default=Event)
F = TypeVar("F", default=Frame)
F_co = TypeVar("F_co", covariant=True, default=Frame)


class Log(Protocol[E_co]):
    """What an event stream reads: `EventLog`, or whatever else can be read by a cursor."""

    @property
    def over(self) -> bool:
        """Whether its last event is there to be read."""
        ...

    def read(self, after: int, limit: int | None = None) -> Sequence[E_co]:
        """The events from number `after` on that exist now."""
        ...

    def waiter(self) -> asyncio.Future[None]:
        """A future that is done once there is more."""
        ...


class Encoder(Protocol[E_contra, F_co]):
    """A synchronous fold of events into frames."""

    def feed(self, event: E_contra, /) -> Sequence[F_co]:
        """The frames that one event causes."""
        ...


class EventStream(Generic[E, F]):
    """An ASGI response: a run's log through an encoder and a framing, from its first event to its last.

    Frames that are ready together leave in one write; the first `skip` frames are left out. A silence of `heartbeat`
    seconds is broken by a heartbeat; a client that takes nothing for `send_timeout` seconds is dropped. `left` is
    called when the client is gone before the end, `delivered` when it has all.
    """

    __slots__ = (
        "_delivered",
        "_encoder",
        "_framing",
        "_headers",
        "_heartbeat",
        "_left",
        "_log",
        "_send_timeout",
        "_skip",
    )

    def __init__(
        self,
        log: Log[E],
        encoder: Encoder[E, F],
        framing: Framing[F],
        *,
        headers: Mapping[str, str],
        heartbeat: float = 15.0,
        send_timeout: float = 30.0,
        skip: int = 0,
        left: Callable[[], Awaitable[object]] | None = None,
        delivered: Callable[[], object] | None = None,
    ) -> None:
        self._log = log
        self._skip = skip
        self._left = left
        self._delivered = delivered
        self._encoder = encoder
        self._framing = framing
        self._headers = headers
        self._heartbeat = heartbeat
        self._send_timeout = send_timeout

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        try:
            await send({"type": "http.response.start", "status": 200, "headers": self._head()})
            async with WatchedClient(receive) as client:
                with _Pulse(client, self._heartbeat, self._send_timeout) as pulse:
                    await self._pump(send, pulse)
            if not client.gone:
                await send({"type": "http.response.body", "body": self._framing.end, "more_body": False})
                if self._delivered is not None:
                    self._delivered()
        finally:
            if self._left is not None and not self._log.over:
                await self._left()

    def _head(self) -> list[tuple[bytes, bytes]]:
        headers = {
            "content-type": self._framing.media_type,
            "cache-control": "no-cache",
            "x-accel-buffering": "no",
            **self._headers,
        }
        return [(name.encode("latin-1"), value.encode("latin-1")) for name, value in headers.items()]

    async def _pump(self, send: Send, pulse: _Pulse) -> None:
        """Write what the log has, wait for more, until it is closed and read.

        The first write waits for nothing: `created` leaves before the graph starts. While it waits it holds nothing
        that was written.
        """
        log, after = self._log, 0
        while True:
            if batch := log.read(after, _BATCH):
                count, body = self._encoded(batch)
                after += count
                if not body:
                    await asyncio.sleep(0)  # there may be much to be left out
            elif log.over:
                return
            elif await pulse.outlasts(log.waiter()):
                body = self._framing.heartbeat
            else:
                continue
            if body:
                pulse.begin_write()
                await send({"type": "http.response.body", "body": body, "more_body": True})
                pulse.end_write()
                body = b""

    def _encoded(self, batch: Sequence[E]) -> tuple[int, bytes]:
        """As many of the events as one write takes, and what is to be written."""
        write, feed = self._framing.write, self._encoder.feed
        pieces: list[bytes] = []
        size = count = 0
        for event in batch:
            count += 1
            for frame in feed(event):
                if self._skip:
                    self._skip -= 1
                    continue
                pieces.append(write(frame))
                size += len(pieces[-1])
            if size >= _WRITE:
                break
        return count, b"".join(pieces)


async def read_to_end(log: EventLog, receive: Receive) -> bool:
    """Wait until a run is over. False when the client left first."""
    async with WatchedClient(receive) as client:
        await log.until_over()
    return not client.gone


class WatchedClient:
    """A block that is left as soon as the client is gone, whatever it awaits; `gone` tells whether it was."""

    __slots__ = ("_owner", "_receive", "_watch", "gone")

    def __init__(self, receive: Receive) -> None:
        self._receive = receive
        self.gone = False

    async def __aenter__(self) -> WatchedClient:
        self._owner = asyncio.current_task()
        self._watch = asyncio.create_task(self._until_gone())
        return self

    async def _until_gone(self) -> None:
        while (await self._receive())["type"] != "http.disconnect":
            pass
        self.give_up()

    def give_up(self) -> None:
        """Take the client for gone."""
        if not self.gone and self._owner is not None:
            self.gone = True
            self._owner.cancel()

    async def __aexit__(self, kind: type[BaseException] | None, *_: object) -> bool:
        self._watch.cancel()
        if not self.gone or self._owner is None:
            return False
        if kind is None:  # the cancellation is on its way and must not reach the code behind the block
            with contextlib.suppress(asyncio.CancelledError):
                await asyncio.sleep(0)
        return self._owner.uncancel() == 0 and kind in (None, asyncio.CancelledError)


class _Pulse:
    """The one timer of a stream: it ends waits that are due for a heartbeat, and writes that nobody takes.

    It looks four times in the shorter of its two periods, so that a write costs no timer of its own.
    """

    __slots__ = (
        "_client",
        "_heartbeat",
        "_interval",
        "_is_due",
        "_loop",
        "_send_timeout",
        "_since",
        "_timer",
        "_waiter",
        "_writing",
    )

    def __init__(self, client: WatchedClient, heartbeat: float, send_timeout: float) -> None:
        self._client = client
        self._heartbeat = heartbeat
        self._send_timeout = send_timeout
        self._interval = min(heartbeat, send_timeout) / 4
        self._loop = asyncio.get_running_loop()
        self._since = self._loop.time()  # the last write's beginning or end
        self._writing = False
        self._waiter: asyncio.Future[None] | None = None
        self._is_due = False

    def __enter__(self) -> _Pulse:
        self._timer = self._loop.call_later(self._interval, self._look)
        return self

    def __exit__(self, *_: object) -> None:
        self._timer.cancel()

    def begin_write(self) -> None:
        """A write begins."""
        self._since = self._loop.time()
        self._writing = True

    def end_write(self) -> None:
        """The client took what was written, or there is room for it on the way."""
        self._writing = False

    async def outlasts(self, waiter: asyncio.Future[None]) -> bool:
        """Wait for the future; True when a heartbeat was due before it was done."""
        self._waiter = waiter
        await waiter
        self._waiter, due, self._is_due = None, self._is_due, False
        return due

    def _look(self) -> None:
        silent = self._loop.time() - self._since
        if self._writing and silent >= self._send_timeout:
            self._client.give_up()
            return
        if self._waiter is not None and not self._waiter.done() and silent >= self._heartbeat:
            self._is_due = True
            self._waiter.set_result(None)
        self._timer = self._loop.call_later(self._interval, self._look)
