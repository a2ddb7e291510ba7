"""One connection of a client: uvicorn's protocol, without its queue of requests."""

from __future__ import annotations

import socket
from typing import Any

from uvicorn.protocols.http.httptools_impl import HttpToolsProtocol, RequestResponseCycle


class OneRequestAtATime(HttpToolsProtocol):
    """Answers one request after the other, and takes no second one before the first is answered.

    uvicorn queues a pipelined request and stops reading, and then never hears that the client has left. Here the
    connection ends with the answer to the first (RFC 9112, section 9.3.2: its client sends the others again).
    """

    def __init__(self, *args: Any, **kwargs: Any) -> None:
        super().__init__(*args, **kwargs)
        self._is_deaf = False

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
        if not self._is_deaf:
            super().on_headers_complete()

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

    A peer that vanished never says so, and one that stopped reading never lets go (Linux, tcp(7)).
    """
    if hasattr(socket, "TCP_USER_TIMEOUT") and listener.family in (socket.AF_INET, socket.AF_INET6):
        listener.setsockopt(socket.IPPROTO_TCP, socket.TCP_USER_TIMEOUT, round(seconds * 1000))
