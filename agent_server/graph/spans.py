"""LangChain stream events -> spans: which runs of LangChain's went on inside a run, from when to when, on what.

A fold like the converter, over the same stream events, for whoever traces runs. Its values are rendered where
they are told, for what a graph lends may change later. Chunks of model calls do not pass through here.
"""

from __future__ import annotations

import time
import traceback
from collections.abc import Callable
from typing import Any

import msgspec
from langgraph.errors import GraphBubbleUp

from agent_server.graph.jsonable import to_json

MAX_BYTES = 2**20
"""Longest JSON text that a span keeps of one value; a longer one is shown by its beginning."""

_SHOWN = 10_000
_NULL = msgspec.Raw(b"null")
_UNTOLD = (_NULL, msgspec.Raw(b'{"input":""}'), msgspec.Raw(b'""'))
"""Inputs of a chain that is given a stream: what there was of it is told in the end."""


class SpanError(msgspec.Struct, frozen=True):
    """What ended a span early. `interrupted` marks a graph that waits for an answer: no failure."""

    type: str
    message: str
    stack: str = ""
    interrupted: bool = False


class Span(msgspec.Struct, omit_defaults=True):
    """One run of LangChain's. Times are Unix nanoseconds, values are JSON.

    `kind` is LangChain's run type: chain, chat_model, llm, tool, retriever, prompt, parser... `parent` is the
    nearest span around it, "" for none. `first_token` is when a model began to answer.
    """

    id: str
    name: str
    kind: str
    start: int
    parent: str = ""
    end: int = 0
    first_token: int = 0
    input: msgspec.Raw = _NULL
    output: msgspec.Raw = _NULL
    metadata: msgspec.Raw = _NULL
    params: msgspec.Raw = _NULL
    error: SpanError | None = None


class SpanFold:
    """The spans of one run, in order of their starts."""

    def __init__(self, clock: Callable[[], int] = time.time_ns) -> None:
        self.spans: list[Span] = []
        self._clock = clock
        self._by_id: dict[str, Span] = {}

    def feed(self, event: Any) -> None:
        """One stream event. What is none is passed over: agents that are no Runnables tell in other ways."""
        name = event.get("event") if isinstance(event, dict) else None
        if not isinstance(name, str):
            return
        kind, _, phase = name.removeprefix("on_").rpartition("_")
        if phase == "start":
            self._start(kind, event)
        elif (span := self._by_id.get(event["run_id"])) is None or span.end:
            return
        elif phase == "stream":
            span.first_token = span.first_token or self._clock()
        elif phase == "end":
            span.end = self._clock()
            span.output = _raw(event["data"].get("output"))
            if span.input in _UNTOLD:
                span.input = _raw(event["data"].get("input"))
        elif phase == "error":
            span.end = self._clock()
            span.error = _error(event["data"].get("error"))

    def close(self, reason: str) -> list[Span]:
        """All spans. Those still open end now: the run was over before they were."""
        now = self._clock()
        for span in self.spans:
            if not span.end:
                span.end, span.error = now, SpanError(type="", message=reason)
        return self.spans

    def _start(self, kind: str, event: Any) -> None:
        if event["run_id"] == "root":  # a Runnable that calls no callbacks: the run itself is all there is
            return
        data = event["data"]
        span = Span(
            id=event["run_id"],
            name=event["name"],
            kind=kind,
            start=self._clock(),
            parent=next((each for each in reversed(event["parent_ids"]) if each in self._by_id), ""),
            input=_raw(data.get("input")),
            metadata=_raw(event["metadata"]),
            params=_raw(data.get("params")),
        )
        self.spans.append(span)
        self._by_id[span.id] = span


def _raw(value: Any) -> msgspec.Raw:
    if value is None:
        return _NULL
    text = to_json(value)
    if len(text) > MAX_BYTES:
        text = to_json(f"{text[:_SHOWN].decode(errors='replace')}... ({len(text)} bytes)")
    return msgspec.Raw(text)


def _error(error: Any) -> SpanError:
    if not isinstance(error, BaseException):
        return SpanError(type="", message="")
    stack = "".join(traceback.format_exception(error))
    return SpanError(type(error).__name__, str(error), stack, interrupted=isinstance(error, GraphBubbleUp))
