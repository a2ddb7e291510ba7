"""Frame -> bytes: Server-Sent Events, data-only SSE, NDJSON, and their heartbeats.

Every framing writes a frame in one piece, with LF line ends, and never writes `id:` or `retry:` lines
(openai-python's decoder takes an empty event after them for data).
"""

from __future__ import annotations

from collections.abc import Callable
from functools import cache
from typing import Any

import msgspec
import orjson

_OPTIONS = orjson.OPT_NON_STR_KEYS


class Frame(msgspec.Struct, frozen=True):
    """One message of a wire: its event name and its JSON body, owned by the frame."""

    event: str
    data: dict[str, Any]


def to_json(value: Any) -> bytes:
    """JSON bytes of a value that is already JSON-safe."""
    return orjson.dumps(value, option=_OPTIONS)


def sse(frame: Frame) -> bytes:
    """`event:` and `data:` lines and the blank line (WHATWG HTML, section 9.2.6)."""
    return b"event: %b\ndata: %b\n\n" % (_name(frame.event), orjson.dumps(frame.data, option=_OPTIONS))


@cache
def _name(event: str) -> bytes:
    return event.encode()


def data_only(frame: Frame) -> bytes:
    """A `data:` line and the blank line. MLflow's deployment client accepts no other field name."""
    return b"data: %b\n\n" % orjson.dumps(frame.data, option=_OPTIONS)


def ndjson(frame: Frame) -> bytes:
    """One JSON value a line."""
    return orjson.dumps(frame.data, option=_OPTIONS | orjson.OPT_APPEND_NEWLINE)


class Framing(msgspec.Struct, frozen=True):
    """How frames become bytes on one route."""

    write: Callable[[Frame], bytes]
    heartbeat: bytes
    end: bytes
    media_type: str = "text/event-stream; charset=utf-8"


DONE = b"data: [DONE]\n\n"
SSE = Framing(write=sse, heartbeat=b": ping\n\n", end=DONE)
DATA_ONLY = Framing(write=data_only, heartbeat=b"\n", end=DONE)
