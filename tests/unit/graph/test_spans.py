"""Which spans come of the stream events of a run."""

from __future__ import annotations

import contextlib
import itertools
from typing import Any

import msgspec
import pytest
from langchain_core.messages import HumanMessage
from langchain_core.runnables import RunnableLambda

from agent_server.events import Event
from agent_server.graph.agent import open_agent
from agent_server.graph.drive import Invocation, Recorder, drive
from agent_server.graph.source import SourceName
from agent_server.graph.spans import MAX_BYTES, Span, SpanFold
from agent_server.protocols.responses.request import parse_request
from tests.conformance.expected import QUESTION, REQUESTS
from tests.support.play import RUN_ID, fixed_converter
from tests.support.scripted import SCENARIOS


class Watched(Recorder):
    """A recorder that folds spans as well."""

    def __init__(self, spans: SpanFold) -> None:
        self.spans = spans
        self.events: list[Event] = []
        super().__init__(fixed_converter(), self.events.append)

    def feed(self, event: Any) -> None:
        self.spans.feed(event)
        super().feed(event)


async def spans_of(target: Any, request: dict[str, Any] | None = None, source: SourceName = "tap") -> list[Span]:
    """All spans of one run, by a clock that ticks once each time it is asked."""
    asked = parse_request({"input": QUESTION, **(request or {})})
    fold = SpanFold(clock=itertools.count(1).__next__)
    async with open_agent("agent", target) as agent:
        with contextlib.suppress(RuntimeError, ValueError):
            await drive(Invocation(RUN_ID, agent, asked.turns, source=source), Watched(fold))
    return fold.close("over")


def named(spans: list[Span], name: str) -> Span:
    return next(span for span in spans if span.name == name)


@pytest.mark.parametrize("name", SCENARIOS)
async def test_spans_are_nested_and_every_one_of_them_ends(name: str) -> None:
    spans = await spans_of(SCENARIOS[name], REQUESTS.get(name))
    by_id = {span.id: span for span in spans}
    assert len(by_id) == len(spans)
    for span in spans:
        assert 0 < span.start < span.end
        if span.parent:
            around = by_id[span.parent]
            assert around.start < span.start
            assert spans.index(around) < spans.index(span)
        for value in (span.input, span.output, span.metadata, span.params):
            msgspec.json.decode(value)


async def test_both_sources_tell_of_the_same_spans() -> None:
    for name in ("one_tool", "subgraph", "prompt_model_parser"):
        tap = await spans_of(SCENARIOS[name])
        plain = await spans_of(SCENARIOS[name], source="astream_events")
        assert [(span.name, span.kind) for span in tap] == [(span.name, span.kind) for span in plain]


async def test_a_model_call_keeps_when_it_began_to_answer() -> None:
    (call,) = [span for span in await spans_of(SCENARIOS["plain_text"]) if span.kind == "chat_model"]
    assert call.start < call.first_token < call.end
    assert b"scripted-1" in bytes(call.metadata)


async def test_what_failed_says_why_and_what_waits_does_not_count_as_failed() -> None:
    failed = named(await spans_of(SCENARIOS["tool_error_fatal"]), "broken_weather")
    assert failed.error is not None
    assert (failed.error.type, failed.error.interrupted) == ("StationError", False)
    assert "broken_weather" in failed.error.stack
    waiting = [span for span in await spans_of(SCENARIOS["tool_interrupt"]) if span.error is not None]
    assert waiting
    assert all(span.error.interrupted for span in waiting if span.error)


async def test_what_is_open_when_the_run_is_over_ends_with_it() -> None:
    fold = SpanFold()
    start = {"run_id": "1", "name": "node", "tags": [], "metadata": {}, "parent_ids": [], "data": {"input": 1}}
    fold.feed({**start, "event": "on_chain_start"})
    (span,) = fold.close("cancelled")
    assert span.end
    assert span.error is not None
    assert span.error.message == "cancelled"


async def test_a_value_is_kept_as_it_was_when_it_was_told() -> None:
    message = HumanMessage("before")
    fold = SpanFold()
    start = {"run_id": "1", "name": "node", "tags": [], "metadata": {}, "parent_ids": [], "data": {"input": message}}
    fold.feed({**start, "event": "on_chain_start"})
    message.content = "after"
    assert b"before" in bytes(fold.spans[0].input)


async def test_a_huge_value_is_shown_by_its_beginning() -> None:
    spans = await spans_of(RunnableLambda(lambda _: "x" * (MAX_BYTES + 1)))
    shown = msgspec.json.decode(spans[0].output)
    assert shown.startswith('"xxx')
    assert shown.endswith("bytes)")
    assert len(shown) < MAX_BYTES / 10


@pytest.mark.parametrize("event", [{"type": "response.created"}, "text", None, {"event": 1}])
def test_what_is_no_stream_event_is_passed_over(event: Any) -> None:
    fold = SpanFold()
    fold.feed(event)
    assert fold.close("over") == []
