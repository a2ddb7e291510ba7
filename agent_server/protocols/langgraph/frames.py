"""The frames of both generations of this API, as Server-Sent Events with CRLF line ends and an id each."""

from __future__ import annotations

from functools import cache
from typing import NamedTuple

from agent_server.framing import Framing, one_line

HEARTBEAT_SECONDS = 5.0
"""Clients take a stream for dead that is silent for longer than they are used to."""

HEADERS = {"cache-control": "no-store"}


class Cursor(NamedTuple):
    """A place in a thread's stream: the event's number in its thread, and the frame's among those of its event."""

    event: int
    frame: int


class Frame(NamedTuple):
    """One message: its event name, its JSON text, and its id."""

    event: str
    data: bytes
    id: str


@cache
def _head(event: str) -> bytes:
    return b"event: %b\r\ndata: " % event.encode()


def write(frame: Frame) -> bytes:
    """The frame's lines. Its JSON holds no line end of its own."""
    event, data, place = frame
    head = b"event: %b\r\ndata: " % event.encode() if "|" in event else _head(event)  # namespaces are without number
    return b"".join((head, one_line(data), b"\r\nid: ", place.encode(), b"\r\n\r\n"))


FRAMING: Framing[Frame] = Framing(write=write, heartbeat=b": heartbeat\r\n\r\n", end=b"")
