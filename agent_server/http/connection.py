"""One connection of a client: uvicorn's protocol, without its queue of requests."""

from __future__ import annotations

import asyncio
import socket
from collections import deque
from typing import Any, Literal

from uvicorn.protocols.http.flow_control import FlowControl
from uvicorn.protocols.http.httptools_impl import HttpToolsProtocol, RequestResponseCycle

_NOTHING_WAITS: deque[Any] = deque()


class Flag(asyncio.Event):
    """An `asyncio.Event` of 100 bytes, where that one takes 900 while nobody waits for it."""

    __slots__ = ("_is_set", "_waiting")

    def __init__(self, *, is_set: bool = False) -> None:
        self._is_set = is_set
        self._waiting: list[asyncio.Future[None]] = []

    def is_set(self) -> bool:
        return self._is_set

    def set(self) -> None:
        self._is_set = True
        for waiter in self._waiting:
            if not waiter.done():
                waiter.set_result(None)

    def clear(self) -> None:
        self._is_set = False

    async def wait(self) -> Literal[True]:
        if not self._is_set:
            waiter: asyncio.Future[None] = asyncio.get_running_loop().create_future()
            self._waiting.append(waiter)
            try:
                await waiter
            finally:
                self._waiting.remove(waiter)
        return True


class _Flow(FlowControl):
    def __init__(self, transport: asyncio.Transport) -> None:
        super().__init__(transport)
        self._is_writable_event = Flag(is_set=True)


class OneRequestAtATime(HttpToolsProtocol):
    """Answers one request after the other, and takes no second one before the first is answered.

    uvicorn queues a pipelined request and stops reading, and then never hears that the client has left. Here the
    connection ends with the answer to the first (RFC 9112, section 9.3.2: its client sends the others again).

    What uvicorn keeps ready for each connection and hardly ever needs is smaller here: thousands may be open.
    """

    def __init__(self, *args: Any, **kwargs: Any) -> None:
        super().__init__(*args, **kwargs)
        self._is_deaf = False
        self.pipeline = _NOTHING_WAITS  # and nothing ever does

    def connection_made(self, transport: asyncio.Transport) -> None:  # type: ignore[override]
        """A client."""
        super().connection_made(transport)
        self.flow = _Flow(transport)

    def data_received(self, data: bytes) -> None:
        """Bytes of the client."""
        if not self._is_deaf:
            super().data_received(data)

    def on_message_begin(self) -> None:
        """The first byte of a request."""
        if self._is_answering():
            self._is_deaf = True
            self.cycle.keep_alive = False
        else:
            super().on_message_begin()

    def _is_answering(self) -> bool:
        cycle: RequestResponseCycle | None = self.cycle  # None before the first request, whatever its type says
        return cycle is not None and not cycle.response_complete

    def on_url(self, url: bytes) -> None:
        """A part of its address."""
        if not self._is_deaf:
            super().on_url(url)

    def on_header(self, name: bytes, value: bytes) -> None:
        """A header."""
        if not self._is_deaf:
            super().on_header(name, value)

    def on_headers_complete(self) -> None:
        """The end of the headers: the request begins."""
        if self._is_deaf:
            return
        super().on_headers_complete()
        if self._is_answering():
            self.cycle.message_event = Flag()

    def on_body(self, body: bytes) -> None:
        """A part of the body."""
        if not self._is_deaf:
            super().on_body(body)

    def on_message_complete(self) -> None:
        """The last byte of a request."""
        if not self._is_deaf:
            super().on_message_complete()


def limit_silence(listener: socket.socket, seconds: float) -> None:
    """Let the connections of a listener end when their peer has taken nothing for so long, where the system can.

    A peer that vanished never says so, and one that stopped reading never lets go. What is on its way to it has a
    time limit; where nothing is, the system asks whether it is still there (Linux, tcp(7)).
    """
    if listener.family not in (socket.AF_INET, socket.AF_INET6):
        return
    listener.setsockopt(socket.SOL_SOCKET, socket.SO_KEEPALIVE, 1)
    options = {
        "TCP_USER_TIMEOUT": round(seconds * 1000),
        "TCP_KEEPIDLE": max(1, round(seconds / 2)),
        "TCP_KEEPINTVL": max(1, round(seconds / 4)),
        "TCP_KEEPCNT": 2,
    }
    for name, value in options.items():
        if hasattr(socket, name):
            listener.setsockopt(socket.IPPROTO_TCP, getattr(socket, name), value)
