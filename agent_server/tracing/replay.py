"""The spans of a graph's parts, as MLflow's own LangChain autologging makes them, made after the fact.

MLflow's tracer is a callback handler. Here it hears of callbacks that are over, each at its own time.
"""

from __future__ import annotations

from typing import Any
from uuid import UUID

import msgspec
from langchain_core.documents import Document
from langchain_core.messages import BaseMessage, messages_from_dict
from langchain_core.outputs import ChatGeneration, Generation, LLMResult
from mlflow.entities import LiveSpan, SpanEvent, SpanStatus, SpanStatusCode, SpanType
from mlflow.langchain.langchain_tracer import MlflowLangchainTracer
from mlflow.tracing.fluent import start_span_no_context
from mlflow.tracing.utils.token import SpanWithToken

from agent_server.graph.spans import Span, SpanError

_OK = SpanStatus(SpanStatusCode.OK)
_TYPES = {"chat_model": SpanType.CHAT_MODEL, "llm": SpanType.LLM, "retriever": SpanType.RETRIEVER}
"""Of spans whose inputs have a form that MLflow reads."""


class Replay(MlflowLangchainTracer):
    """Makes the spans of one run below `root`; `made` are all of them."""

    def __init__(self, root: LiveSpan) -> None:
        super().__init__(run_inline=True)
        self.made: list[LiveSpan] = []
        self._root = root
        self._now = 0

    def play(self, spans: list[Span]) -> None:
        """Make the spans; each comes after the one around it. Of a value that MLflow cannot read it has the text."""
        for span in spans:
            self._now, inputs = span.start, _value(span.input)
            self._begin(span, inputs)
            if span.id not in self._run_span_mapping:
                self._start_span(
                    span.name, _uuid(span.parent), _TYPES.get(span.kind, SpanType.UNKNOWN), UUID(span.id), inputs
                )
        for span in reversed(spans):
            self._now, outputs = span.end, _value(span.output)
            made = self._run_span_mapping[span.id].span
            self._finish(span, made, outputs)
            if span.id in self._run_span_mapping:
                self._end_span(UUID(span.id), made, outputs)

    def _begin(self, span: Span, inputs: Any) -> None:
        about: dict[str, Any] = {
            "run_id": UUID(span.id),
            "parent_run_id": _uuid(span.parent),
            "name": span.name,
            "metadata": _value(span.metadata) or {},
        }
        params = _value(span.params) or {}
        match span.kind:
            case "chat_model":
                self.on_chat_model_start({}, _conversations(inputs), **about, invocation_params=params)
            case "llm":
                self.on_llm_start({}, inputs["prompts"], **about, invocation_params=params)
            case "tool":
                self.on_tool_start({}, str(inputs), **about)
            case "retriever":
                self.on_retriever_start({}, inputs["query"], **about)
            case _:
                self.on_chain_start({}, inputs, **about)

    def _finish(self, span: Span, made: LiveSpan, output: Any) -> None:
        run_id = UUID(span.id)
        if span.first_token:
            made.add_event(_event("first_token", span.first_token))
        if span.error is not None:
            self._fail(run_id, made, span.error)
            return
        match span.kind:
            case "chat_model":
                chat = [[ChatGeneration(message=_message(output))]] if output else []
                self.on_llm_end(LLMResult(generations=chat), run_id=run_id)
            case "llm":
                texts = [[Generation(text=each["text"]) for each in row] for row in output["generations"]]
                self.on_llm_end(LLMResult(generations=texts), run_id=run_id)
            case "tool":
                self.on_tool_end(output, run_id=run_id)
            case "retriever":
                self.on_retriever_end([Document(**each) for each in output or ()], run_id=run_id)
            case _:
                self.on_chain_end(output, run_id=run_id)

    def _fail(self, run_id: UUID, made: LiveSpan, error: SpanError) -> None:
        if error.interrupted:
            made.add_event(_event("interrupt", self._now))
            self._end_span(run_id, made)
            return
        if error.type:
            told = {"message": error.message, "type": error.type, "stacktrace": error.stack}
            made.add_event(_event("exception", self._now, {f"exception.{key}": told[key] for key in told}))
        self._end_span(run_id, made, status=SpanStatus(SpanStatusCode.ERROR, error.message))

    # -- in place of MLflow's own, which take the present time and the present context --------------------------

    def _start_span(
        self,
        span_name: str,
        parent_run_id: UUID | None,
        span_type: str,
        run_id: UUID,
        inputs: Any = None,
        attributes: dict[str, Any] | None = None,
    ) -> LiveSpan:
        parent = self._run_span_mapping.get(str(parent_run_id))
        span = start_span_no_context(
            span_name,
            span_type=span_type,
            parent_span=parent.span if parent is not None else self._root,
            inputs=inputs,
            attributes=attributes,
            start_time_ns=self._now,
        )
        self._run_span_mapping[str(run_id)] = SpanWithToken(span, None)
        self.made.append(span)
        return span

    def _end_span(
        self, run_id: UUID, span: LiveSpan, outputs: Any = None, attributes: Any = None, status: SpanStatus = _OK
    ) -> None:
        span.end(outputs=outputs, attributes=attributes, status=status, end_time_ns=self._now)
        del self._run_span_mapping[str(run_id)]


def _event(name: str, at: int, attributes: dict[str, Any] | None = None) -> SpanEvent:
    return SpanEvent(name, timestamp=at, attributes=attributes or {})  # type: ignore[abstract]


def _uuid(text: str) -> UUID | None:
    return UUID(text) if text else None


def _value(raw: msgspec.Raw) -> Any:
    return msgspec.json.decode(raw)


def _conversations(inputs: Any) -> list[list[Any]]:
    """What a chat model is called with: one conversation, or several at once."""
    return [[_message(each) for each in conversation] for conversation in inputs["messages"]]


def _message(data: dict[str, Any]) -> BaseMessage:
    (message,) = messages_from_dict([{"type": data["type"], "data": data}])
    return message
