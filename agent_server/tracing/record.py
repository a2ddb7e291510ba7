"""What goes through the pipe between the server and its exporter: JSON messages, each after its length.

Ids are those of OpenTelemetry in hexadecimal: 32 digits for a trace, 16 for a span. Times are Unix nanoseconds.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import IO, Any, Literal

import msgspec

from agent_server.graph.spans import Span

ToolItems = Literal["function_call", "mcp_call", "none"]

_LENGTH = 4


class TraceRecord(msgspec.Struct, tag="trace", omit_defaults=True):
    """A run that is over.

    `parent` is the caller's `traceparent`, "" for a trace of its own. `events` are the stored forms of the run's
    events, deltas left out. A record with a `ticket` is answered with the finished trace.
    """

    trace_id: str
    span_id: str
    agent: str
    start: int
    end: int
    inputs: msgspec.Raw
    events: list[msgspec.Raw]
    spans: list[Span]
    tool_items: ToolItems = "function_call"
    parent: str = ""
    session: str = ""
    user: str = ""
    client_request_id: str = ""
    ticket: int = 0


class FeedbackRecord(msgspec.Struct, tag="feedback", omit_defaults=True):
    """An assessment of a trace by a person; `span_id` is set where the run is only a part of the trace.

    It is answered with the assessment that MLflow made of it, if that is possible until then.
    """

    ticket: int
    until: int
    trace_id: str
    name: str
    value: Any
    span_id: str = ""
    rationale: str = ""
    user: str = ""


class Answer(msgspec.Struct, tag="answer", omit_defaults=True):
    """What became of a record with a ticket. `error` is "" for a success, "not_found", "invalid" or "unavailable"."""

    ticket: int
    body: Any = None
    error: str = ""


class Progress(msgspec.Struct, tag="progress"):
    """What became of traces since the last message of this kind."""

    exported: int
    failed: int


Record = TraceRecord | FeedbackRecord
Reply = Answer | Progress


def mlflow_id(trace_id: str) -> str:
    """MLflow's id of a trace."""
    return f"tr-{trace_id}"


_encoder = msgspec.json.Encoder()
_records: msgspec.json.Decoder[Record] = msgspec.json.Decoder(Record)
_replies: msgspec.json.Decoder[Reply] = msgspec.json.Decoder(Reply)


def pack(message: Record | Reply) -> bytes:
    """A message as it is written to the pipe."""
    data = _encoder.encode(message)
    return len(data).to_bytes(_LENGTH, "big") + data


def records(pipe: IO[bytes]) -> Iterator[Record]:
    """The records that come through a pipe, until its other end is closed."""
    return (_records.decode(data) for data in _messages(pipe))


def replies(pipe: IO[bytes]) -> Iterator[Reply]:
    """The replies that come through a pipe, until its other end is closed."""
    return (_replies.decode(data) for data in _messages(pipe))


def _messages(pipe: IO[bytes]) -> Iterator[bytes]:
    while len(head := pipe.read(_LENGTH)) == _LENGTH:
        data = pipe.read(length := int.from_bytes(head, "big"))
        if len(data) < length:
            return
        yield data
