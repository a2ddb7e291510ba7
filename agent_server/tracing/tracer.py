"""Which runs are traced, and what is written down of one while it goes on."""

from __future__ import annotations

import os
import random
import re
import sys
import time
from collections import OrderedDict
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from secrets import token_hex
from typing import Any

import msgspec
from msgspec import UNSET

from agent_server import ids
from agent_server.events import (
    TERMINAL,
    ArgsDelta,
    RawEvent,
    ReasoningDelta,
    RefusalDelta,
    RunCancelled,
    StatePart,
    TextDelta,
    encode,
)
from agent_server.graph.agent import RunnableAgent
from agent_server.graph.drive import Invocation, Recorder
from agent_server.graph.jsonable import to_json
from agent_server.graph.source import overhearing
from agent_server.graph.spans import SpanFold
from agent_server.protocols.responses.said import said_items
from agent_server.runs.engine import Drive
from agent_server.runs.log import EventLog
from agent_server.tracing.exporter import PATIENCE, Exporter
from agent_server.tracing.record import Answer, FeedbackRecord, ToolItems, TraceRecord, mlflow_id

MAX_METADATA, MAX_REQUEST_ID = 250, 50
"""Characters that MLflow's tracking server takes of a value of metadata, and of a client's request id."""

MAX_JOINED = 10_000
"""Responses of which it is remembered that their trace is the caller's."""

_LEFT_OUT = (TextDelta, ReasoningDelta, RefusalDelta, ArgsDelta, StatePart, RawEvent)
"""Events that the answer does without."""
_TRACEPARENT = re.compile(r"00-(?!0{32})([0-9a-f]{32})-(?!0{16})[0-9a-f]{16}-[0-9a-f][13579bdf]")
"""W3C Trace Context, section 3.2, of a caller that samples its trace (3.2.2.3.1)."""


class Tracer:
    """Traces the runs of one app.

    A run's trace id is its run id, unless it joins a trace of its caller. `ratio` is the share of runs that are
    traced. `joins` is False where the tracking server takes no parts of traces. `flush_seconds` is how long traces
    have to reach it in the end.
    """

    def __init__(
        self, exporter: Exporter, *, ratio: float = 1.0, joins: bool = True, flush_seconds: float = 5.0
    ) -> None:
        self.exporter = exporter
        self._ratio = ratio
        self._joins = joins
        self._flush_seconds = flush_seconds
        self._joined: OrderedDict[str, tuple[str, str]] = OrderedDict()

    def begin(
        self, invocation: Invocation, body: Mapping[str, Any], headers: Mapping[str, str], *, tool_items: ToolItems
    ) -> RunTrace | None:
        """Trace a run that is about to start. None for one that is left out."""
        if self._ratio < 1 and random.random() >= self._ratio:  # noqa: S311 - a sample, not a secret
            return None
        caller = _TRACEPARENT.fullmatch(headers.get("traceparent", "")) if self._joins else None
        context, conversation = invocation.context, body.get("conversation")
        record = TraceRecord(
            trace_id=caller[1] if caller else invocation.run_id,
            span_id=token_hex(8),
            agent=invocation.agent.name,
            start=time.time_ns(),
            end=0,
            inputs=msgspec.Raw(to_json(body)),
            events=[],
            spans=[],
            tool_items=tool_items,
            parent=caller[0] if caller else "",
            session=_first(
                conversation.get("id") if isinstance(conversation, dict) else conversation,
                context.session,
                body.get("prompt_cache_key"),
            ),
            user=_first(context.user, context.user_id),
            client_request_id=_first(
                body.get("client_request_id"), headers.get("x-request-id"), context.request_id, longest=MAX_REQUEST_ID
            ),
        )
        if caller:
            self._joined[ids.response_id(invocation.run_id)] = (record.trace_id, record.span_id)
            if len(self._joined) > MAX_JOINED:
                self._joined.popitem(last=False)
        foreign = not isinstance(invocation.agent, RunnableAgent)
        return RunTrace(self.exporter, record, attached=self._joins, foreign=foreign)

    def watch(self, invocation: Invocation, thread_id: str) -> RunTrace | None:
        """Trace a run of a thread, whose session it is. Its inputs are what is new, as a Responses request has it."""
        inputs: dict[str, Any] = {"conversation": thread_id}
        if invocation.resume is not None:
            inputs["resume"] = invocation.resume
        elif invocation.value is not UNSET:
            inputs["input"] = invocation.value
        else:
            inputs["input"] = said_items(invocation.turns)
        if invocation.state:
            inputs["state"] = invocation.state
        return self.begin(invocation, inputs, {}, tool_items="function_call")

    async def assess(self, trace_id: str | None, response_id: str | None, **feedback: Any) -> Answer:
        """Log feedback on a trace, or on the trace of a response."""
        span_id = ""
        if trace_id is None:
            response_id = response_id or ""
            found = self._joined.get(response_id, (response_id.removeprefix("resp_"), ""))
            trace_id, span_id = mlflow_id(found[0]), found[1]
        until = time.time_ns() + int(PATIENCE * 1e9)
        return await self.exporter.ask(
            lambda ticket: FeedbackRecord(ticket, until, trace_id, span_id=span_id, **feedback), PATIENCE
        )

    def start(self) -> None:
        """Start the exporter. The agents' code is imported by then."""
        self.exporter.start()
        if "mlflow" in sys.modules:
            _make_room()

    async def aclose(self) -> None:
        """Bring away what there is."""
        await self.exporter.aclose(self._flush_seconds)


class RunTrace:
    """What is written down of one run."""

    def __init__(self, exporter: Exporter, record: TraceRecord, *, attached: bool, foreign: bool) -> None:
        self._exporter = exporter
        self._record = record
        self._attached = attached
        self._foreign = foreign  # what is driven is no Runnable, but may run some
        self._spans = SpanFold()
        self._ended = False

    @property
    def id(self) -> str:
        """MLflow's id of the trace."""
        return mlflow_id(self._record.trace_id)

    def around(self, run: Drive) -> Drive:
        """The same run, watched; spans that the agent's own code makes with MLflow become part of the trace."""

        async def watched(recorder: Recorder) -> None:
            with self._open_to_mlflow():
                if self._foreign:
                    with overhearing(_Overheard(self._spans)):
                        await run(recorder)
                else:
                    await run(_Watched(recorder, self._spans))

        return watched

    def ended(self, log: EventLog) -> None:
        """The run is over: the record goes to the exporter."""
        if not self._ended:
            self._exporter.put(self._finished(log))

    async def finished(self, log: EventLog) -> dict[str, Any] | None:
        """The run is over, and the whole trace is wanted. None where it cannot be had soon."""

        def with_ticket(ticket: int) -> TraceRecord:
            record = self._finished(log)
            record.ticket = ticket
            return record

        trace: dict[str, Any] | None = (await self._exporter.ask(with_ticket)).body
        return trace

    def _finished(self, log: EventLog) -> TraceRecord:
        self._ended = True
        record = self._record
        record.end = time.time_ns()
        events = [event for event in log.read(0) if not isinstance(event, _LEFT_OUT)]
        if not events or type(events[-1]) not in TERMINAL:  # the run is another server's now
            events.append(RunCancelled(at=record.end // 1_000_000, reason="lost"))
        record.events = [msgspec.Raw(encode(event)) for event in events]
        record.spans = self._spans.close("The run was over before.")
        return record

    @contextmanager
    def _open_to_mlflow(self) -> Iterator[None]:
        """MLflow's tracing in this process, if the agent's code uses it, sees our span as the one around it."""
        if not self._attached or "mlflow" not in sys.modules:
            yield
            return
        from mlflow.tracing import set_tracing_context_from_http_request_headers

        record = self._record
        with set_tracing_context_from_http_request_headers(
            {"traceparent": f"00-{record.trace_id}-{record.span_id}-01"}
        ):
            yield


class _Watched(Recorder):
    """A recorder whose stream events are folded into spans as well. Chunks keep their short way."""

    def __init__(self, recorder: Recorder, spans: SpanFold) -> None:
        self._recorder = recorder
        self._spans = spans

    def feed(self, event: Any) -> None:
        self._spans.feed(event)
        self._recorder.feed(event)

    def at_rest(self) -> bool:
        return self._recorder.at_rest()

    def chunks(self, model_run_id: str) -> Callable[[Any], None] | None:
        return self._recorder.chunks(model_run_id)


class _Overheard:
    """A sink for spans alone."""

    def __init__(self, spans: SpanFold) -> None:
        self.feed = spans.feed

    def chunks(self, model_run_id: str) -> Callable[[Any], None]:
        """Nobody asks for chunks."""
        return _nothing


def _nothing(chunk: Any) -> None:
    pass


def _make_room() -> None:
    """MLflow's own tracing in this process: LangChain's spans are made here, and would else be made twice.

    Spans that the agent's own code makes leave at once: MLflow's batches would come after the end of their run, and
    forget what ended (3.17).
    """
    os.environ.setdefault("MLFLOW_USE_BATCH_SPAN_PROCESSOR", "false")
    if "mlflow.langchain" in sys.modules:
        sys.modules["mlflow.langchain"].autolog(disable=True, silent=True)


def _first(*candidates: Any, longest: int = MAX_METADATA) -> str:
    """The first that is a text, as much of it as MLflow takes."""
    return next((each[:longest] for each in candidates if isinstance(each, str) and each), "")
