"""Frame -> bytes: Server-Sent Events, data-only SSE, NDJSON, and their heartbeats.

Every framing writes a frame in one piece, with LF line ends, and never writes `id:` or `retry:` lines
(openai-python's decoder takes an empty event after them for data).
"""

from __future__ import annotations

from collections.abc import Callable
from functools import cache
from typing import Any, Generic

import msgspec
import orjson
from typing_extensions import TypeVar


class Frame(msgspec.Struct, frozen=True):
    """One message of a wire: its event name and its JSON body, owned by the frame."""

    event: str
    data: dict[str, Any]


F = TypeVar("F", default=Frame)


def to_json(value: Any) -> bytes:
    """JSON bytes of a value that is already JSON-safe."""
    return orjson.dumps(value)


def _one_line(value: Any) -> bytes:
    return one_line(orjson.dumps(value))


def one_line(data: bytes) -> bytes:
    """JSON text without the line separators that some clients split lines at and JSON leaves as they are."""
    if not data.isascii():
        for separator, escaped in _SEPARATORS:
            data = data.replace(separator, escaped)
    return data


_SEPARATORS = ((b"\xe2\x80\xa8", b"\\u2028"), (b"\xe2\x80\xa9", b"\\u2029"), (b"\xc2\x85", b"\\u0085"))


@cache
def _head(event: str) -> bytes:
    return b"event: %b\ndata: " % event.encode()


def sse(frame: Frame) -> bytes:
    """`event:` and `data:` lines and the blank line (WHATWG HTML, section 9.2.6)."""
    return _head(frame.event) + _one_line(frame.data) + b"\n\n"


def data_only(frame: Frame) -> bytes:
    """A `data:` line and the blank line. MLflow's deployment client accepts no other field name."""
    return b"data: %b\n\n" % _one_line(frame.data)


def ndjson(frame: Frame) -> bytes:
    """One JSON value a line."""
    return _one_line(frame.data) + b"\n"


class Framing(msgspec.Struct, Generic[F], frozen=True):
    """How frames become bytes on one route."""

    write: Callable[[F], bytes]
    heartbeat: bytes
    end: bytes
    media_type: str = "text/event-stream; charset=utf-8"


DONE = b"data: [DONE]\n\n"
SSE = Framing(write=sse, heartbeat=b": ping\n\n", end=DONE)
DATA_ONLY = Framing(write=data_only, heartbeat=b"\n", end=DONE)
