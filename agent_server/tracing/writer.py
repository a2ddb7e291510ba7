"""A record -> a trace in MLflow."""

from __future__ import annotations

import os
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from typing import Any, NamedTuple

import msgspec
from mlflow.entities import LiveSpan, SpanStatus, SpanStatusCode, SpanType, Trace, TraceData, TraceInfo, TraceState
from mlflow.exceptions import MlflowException
from mlflow.tracing.client import TracingClient
from mlflow.tracing.constant import SpanAttributeKey, TokenUsageKey, TraceMetadataKey, TraceTagKey
from mlflow.tracing.fluent import start_span_no_context
from mlflow.tracing.trace_manager import InMemoryTraceManager
from opentelemetry import context as otel_context
from opentelemetry import trace as otel_trace
from opentelemetry.sdk.resources import Resource
from opentelemetry.sdk.trace import TracerProvider
from opentelemetry.sdk.trace.id_generator import RandomIdGenerator
from opentelemetry.trace.propagation.tracecontext import TraceContextTextMapPropagator

from agent_server.events import RunCancelled, RunFailed, RunFinished, RunInterrupted, Terminal, Usage, decode
from agent_server.protocols.responses.encoder import ResponsesEncoder
from agent_server.tracing.record import TraceRecord, mlflow_id
from agent_server.tracing.replay import Replay

RUN_STATUS = "agent_server.run_status"
"""Tag of every trace: completed, incomplete, interrupted, failed or cancelled."""
RESPONSE_ID = "agent_server.response_id"
"""Metadata of every trace."""

_PREVIEW = 1000  # characters


class Written(NamedTuple):
    """A trace that MLflow has, if not yet the tracking server. `joined`: it is the caller's, and this a part of it."""

    info: TraceInfo
    spans: list[LiveSpan]
    joined: bool

    @property
    def trace_id(self) -> str:
        """MLflow's id of it."""
        return str(self.info.trace_id)

    def as_trace(self) -> dict[str, Any]:
        """The whole trace, or our part of it, in MLflow's JSON form."""
        trace: dict[str, Any] = Trace(self.info, TraceData([span.to_immutable_span() for span in self.spans])).to_dict()
        return trace


class TraceWriter:
    """Makes MLflow's spans of records, in one thread. Their export is MLflow's own."""

    def __init__(self) -> None:
        self._ids = _Ids()
        resource = Resource({"service.name": os.environ.get("OTEL_SERVICE_NAME", "agent-server")})
        otel_trace.set_tracer_provider(TracerProvider(id_generator=self._ids, resource=resource))
        self._traces: InMemoryTraceManager = InMemoryTraceManager.get_instance()  # type: ignore[no-untyped-call]

    def write(self, record: TraceRecord) -> Written | None:
        """Make the trace of a run. Once the root span has ended, MLflow exports it. None if MLflow cannot make it."""
        response, terminal = _folded(record)
        with self._joined(record):
            self._ids.given = (int(record.trace_id, 16), int(record.span_id, 16))
            root = start_span_no_context(
                record.agent,
                span_type=SpanType.AGENT,
                inputs=msgspec.json.decode(record.inputs),
                attributes=_attributes(terminal.usage),
                metadata=_metadata(record, response),
                tags={RUN_STATUS: _run_status(terminal)},
                start_time_ns=record.start,
            )
        with self._traces.get_trace(root.trace_id) as live:
            if live is None:  # such as without the id of the experiment, which only a server that is away could tell
                return None
            info = live.info
        replay = Replay(root)
        replay.play(record.spans)
        info.client_request_id = record.client_request_id or None
        root.end(outputs=_outputs(response), status=_status(terminal), end_time_ns=record.end)
        if record.parent:  # of other traces MLflow does it
            info.state = TraceState.from_otel_status(root.status.to_otel_status())
            info.request_time = record.start // 1_000_000
            info.execution_duration = (record.end - record.start) // 1_000_000
            info.tags[TraceTagKey.TRACE_NAME] = record.agent
            info.request_preview = bytes(record.inputs).decode()[:_PREVIEW]
        return Written(info, [root, *replay.made], joined=bool(record.parent))

    @contextmanager
    def _joined(self, record: TraceRecord) -> Iterator[None]:
        """Inside, a new span is the child of the caller's, if the caller told of one."""
        if not record.parent:
            yield
            return
        trace_id = mlflow_id(record.trace_id)
        nowhere: Any = None  # as MLflow itself marks a part of a trace
        info = TraceInfo(trace_id=trace_id, trace_location=nowhere, request_time=0, state=TraceState.IN_PROGRESS)
        with self._traces.get_trace(trace_id) as live:  # another part of the same trace may be on its way
            if live is None:
                self._traces.register_trace(int(record.trace_id, 16), info, is_remote_trace=True)
        token = otel_context.attach(TraceContextTextMapPropagator().extract({"traceparent": record.parent}))
        try:
            yield
        finally:
            otel_context.detach(token)

    def forget(self, trace_ids: Iterable[str]) -> None:
        """Callers' traces of which all parts are exported."""
        for trace_id in trace_ids:
            self._traces.pop_trace(int(trace_id.removeprefix("tr-"), 16))

    def complete(self, written: Written) -> None:
        """End a caller's trace of which a part is exported, if its caller has not done so yet.

        A caller that ends it later overrides what is told here.
        """
        info, client = written.info, TracingClient()
        try:
            stored = client.store.get_trace_info(written.trace_id)  # the client's own would be the one in memory
            if stored.state == TraceState.IN_PROGRESS:
                info.trace_location = stored.trace_location
                info.trace_metadata = {**stored.trace_metadata, **info.trace_metadata}
                client.start_trace(info)
        except MlflowException:
            return  # the tracking server is away, and the caller's trace its caller's


class _Ids(RandomIdGenerator):
    """The ids that a root span is to have; chance for all others."""

    given: tuple[int, int] | None = None

    def generate_trace_id(self) -> int:
        return self.given[0] if self.given is not None else super().generate_trace_id()

    def generate_span_id(self) -> int:
        given, self.given = self.given, None
        return given[1] if given is not None else super().generate_span_id()


def _folded(record: TraceRecord) -> tuple[dict[str, Any], Terminal]:
    """The response object, by the encoder of the wire, and the event that ended the run."""
    encoder = ResponsesEncoder(record.tool_items)
    event: Any = None
    for raw in record.events:
        event = decode(raw)
        encoder.feed(event)
    return encoder.response, event


def _outputs(response: dict[str, Any]) -> dict[str, Any]:
    return {key: response[key] for key in ("output", "custom_outputs") if key in response}


def _attributes(usage: Usage | None) -> dict[str, Any]:
    attributes: dict[str, Any] = {SpanAttributeKey.MESSAGE_FORMAT: "openai"}
    if usage is not None:
        tokens = {
            TokenUsageKey.INPUT_TOKENS: usage.input_tokens,
            TokenUsageKey.OUTPUT_TOKENS: usage.output_tokens,
            TokenUsageKey.TOTAL_TOKENS: usage.total_tokens,
            TokenUsageKey.CACHE_READ_INPUT_TOKENS: usage.cached_tokens,
            TokenUsageKey.CACHE_CREATION_INPUT_TOKENS: usage.cache_write_tokens,
        }
        always = (TokenUsageKey.INPUT_TOKENS, TokenUsageKey.OUTPUT_TOKENS, TokenUsageKey.TOTAL_TOKENS)
        attributes[SpanAttributeKey.CHAT_USAGE] = {key: n for key, n in tokens.items() if n or key in always}
    return attributes


def _metadata(record: TraceRecord, response: dict[str, Any]) -> dict[str, str]:
    found = {
        TraceMetadataKey.TRACE_SESSION: record.session,
        TraceMetadataKey.TRACE_USER: record.user,
        RESPONSE_ID: response.get("id", ""),
    }
    return {key: value for key, value in found.items() if value}


def _run_status(terminal: Terminal) -> str:
    match terminal:
        case RunFinished():
            return "completed" if terminal.incomplete is None else "incomplete"
        case RunInterrupted():
            return "interrupted"
        case RunFailed():
            return "failed"
        case RunCancelled():
            return "cancelled"


def _status(terminal: Terminal) -> SpanStatus:
    """MLflow knows OK and ERROR; a run that was cancelled says so in the description, and in the tag."""
    match terminal:
        case RunFailed():
            return SpanStatus(SpanStatusCode.ERROR, terminal.message)
        case RunCancelled():
            return SpanStatus(SpanStatusCode.ERROR, f"cancelled: {terminal.reason}")
        case _:
            return SpanStatus(SpanStatusCode.OK)
