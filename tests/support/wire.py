"""A client made of a bare socket, for what HTTP libraries hide: leaving, not reading, and the bytes themselves."""

from __future__ import annotations

import ctypes
import json
import socket
import struct
from contextlib import AbstractContextManager
from types import TracebackType
from typing import Any
from urllib.parse import urlsplit

PATIENCE = 20.0
_ATTACH_FILTER = 26  # SO_ATTACH_FILTER (Linux, socket(7)), which Python does not name
_RETURN = 0x06  # BPF_RET | BPF_K


class Wire(AbstractContextManager["Wire"]):
    """One connection."""

    def __init__(self, base_url: str, *, receive_buffer: int | None = None) -> None:
        address = urlsplit(base_url)
        assert address.hostname is not None
        self.socket = socket.socket()
        if receive_buffer is not None:
            self.socket.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, receive_buffer)
        self.socket.settimeout(PATIENCE)
        self.socket.connect((address.hostname, address.port or 80))
        self.received = b""

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        self.socket.close()

    def post(self, path: str, body: Any, **headers: str) -> None:
        """Send a JSON request, or the bytes as they are."""
        content = body if isinstance(body, bytes) else json.dumps(body).encode()
        lines = [f"POST {path} HTTP/1.1", "host: test", "content-type: application/json"]
        lines += [f"content-length: {len(content)}", *(f"{name}: {value}" for name, value in headers.items())]
        self.socket.sendall("\r\n".join([*lines, "", ""]).encode() + content)

    def read_until(self, wanted: bytes) -> bytes:
        """Everything received so far, once `wanted` is in it."""
        while wanted not in self.received:
            piece = self.socket.recv(65536)
            assert piece, f"the connection ended before {wanted!r} came: {self.received[-300:]!r}"
            self.received += piece
        return self.received

    def read_to_end(self) -> bytes:
        """Everything until the server closes the connection."""
        while piece := self.socket.recv(65536):
            self.received += piece
        return self.received

    def vanish(self) -> None:
        """Be gone without a word (Linux): what comes from now on is dropped unseen and never acknowledged."""
        instruction = ctypes.create_string_buffer(struct.pack("=HBBI", _RETURN, 0, 0, 0))  # keep no byte of a packet
        program = struct.pack("@HP", 1, ctypes.addressof(instruction))
        self.socket.setsockopt(socket.SOL_SOCKET, _ATTACH_FILTER, program)

    def leave(self) -> None:
        """Close the connection at once."""
        self.socket.close()
