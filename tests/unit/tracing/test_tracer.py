"""What is written down of a run, and of which runs."""

from __future__ import annotations

import asyncio
import sys
from concurrent.futures import Future
from typing import Any

import msgspec
import pytest
from langchain_core.runnables import RunnableLambda

from agent_server import ids
from agent_server.context import RequestContext
from agent_server.events import RunCancelled, RunStarted, TextDelta, decode
from agent_server.graph.agent import open_agent
from agent_server.graph.drive import Invocation
from agent_server.protocols.responses.request import parse_request
from agent_server.runs.engine import Engine
from agent_server.runs.log import EventLog
from agent_server.tracing.exporter import Exporter
from agent_server.tracing.record import Answer, Record, TraceRecord
from agent_server.tracing.tracer import Tracer
from tests.support.gates import Gate
from tests.support.scripted import SCENARIOS, gated_text

CALLER = "00-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-01"


class Kept(Exporter):
    """Keeps the records that a process would get."""

    def __init__(self) -> None:
        super().__init__((sys.executable, "-c", ""))
        self.records: list[Record] = []

    def put(self, record: Record, answer: Future[Answer] | None = None) -> bool:
        self.records.append(record)
        return True


class Traced:
    """Runs agents with a tracer."""

    def __init__(self, **options: Any) -> None:
        self.kept = Kept()
        self.tracer = Tracer(self.kept, **options)
        self.engine = Engine()

    async def run(self, target: Any, headers: dict[str, str] | None = None, **body: Any) -> TraceRecord:
        body = {"input": "What?", **body}
        asked = parse_request(body)
        async with open_agent("agent", target) as agent:
            context = RequestContext("req_1", options=asked.options, custom_inputs=asked.custom_inputs)
            invocation = Invocation(ids.new_run_id(), agent, asked.turns, context)
            trace = self.tracer.begin(invocation, body, headers or {}, tool_items="function_call")
            run = self.engine.start(invocation, watcher=trace)
            await run.task
            await asyncio.sleep(0)  # the task's callbacks
        assert trace is not None
        (record,) = self.kept.records
        assert isinstance(record, TraceRecord)
        return record


async def test_a_run_is_written_down_once_without_its_deltas() -> None:
    record = await Traced().run(SCENARIOS["plain_text"])
    events = [decode(raw) for raw in record.events]
    assert isinstance(events[0], RunStarted)
    assert events[0].run_id == record.trace_id
    assert not any(isinstance(event, TextDelta) for event in events)
    assert record.agent == "agent"
    assert record.start < record.spans[0].start < record.spans[0].end < record.end
    assert msgspec.json.decode(record.inputs) == {"input": "What?"}
    assert record.client_request_id == "req_1"


async def test_a_run_that_is_cancelled_before_it_began_is_written_down_too() -> None:
    traced = Traced()
    async with open_agent("agent", RunnableLambda(str)) as agent:
        invocation = Invocation(ids.new_run_id(), agent, ())
        trace = traced.tracer.begin(invocation, {}, {}, tool_items="none")
        run = traced.engine.start(invocation, watcher=trace)
        await traced.engine.cancel(run, "too late")
        await traced.engine.cancel(run, "again")
    (record,) = traced.kept.records
    assert isinstance(record, TraceRecord)
    assert [type(decode(raw)) for raw in record.events] == [RunStarted, RunCancelled]
    assert record.spans == []


async def written(body: dict[str, Any]) -> TraceRecord:
    """The record of a run that only began."""
    traced, log = Traced(), EventLog()
    log.append(RunStarted(run_id="1", agent="agent", at=1))
    async with open_agent("agent", RunnableLambda(str)) as agent:
        invocation = Invocation(ids.new_run_id(), agent, (), RequestContext("req_1", conversation_id="talk"))
        trace = traced.tracer.begin(invocation, body, {}, tool_items="none")
    assert trace is not None
    trace.ended(log)
    (record,) = traced.kept.records
    assert isinstance(record, TraceRecord)
    return record


async def test_a_run_that_has_no_end_in_its_log_is_written_down_as_cancelled() -> None:
    record = await written({})
    assert [type(decode(raw)) for raw in record.events] == [RunStarted, RunCancelled]


@pytest.mark.parametrize(
    ("conversation", "session"),
    [("conv_1", "conv_1"), ({"id": "conv_1"}, "conv_1"), (None, "talk"), ({"id": 1}, "talk")],
)
async def test_a_conversation_that_the_server_keeps_is_the_session(conversation: Any, session: str) -> None:
    assert (await written({"conversation": conversation})).session == session


async def test_a_cancelled_run_closes_the_spans_that_are_open() -> None:
    traced, gate = Traced(), Gate()
    running = asyncio.create_task(traced.run(gated_text(["Never "], gate, ["more"])))
    await gate.reached()
    await traced.engine.aclose()
    record = await running
    assert all(span.end for span in record.spans)
    assert record.spans[0].error is not None


async def test_a_share_of_the_runs_is_traced() -> None:
    for ratio, low, high in ((0.0, 0, 0), (0.5, 40, 160), (1.0, 200, 200)):
        traced = Traced(ratio=ratio)
        async with open_agent("agent", RunnableLambda(str)) as agent:
            begun = [
                traced.tracer.begin(Invocation(ids.new_run_id(), agent, ()), {}, {}, tool_items="none")
                for _ in range(200)
            ]
        assert low <= sum(trace is not None for trace in begun) <= high


async def test_a_caller_that_samples_its_trace_is_joined_where_the_tracking_server_takes_parts() -> None:
    joined = await Traced().run(SCENARIOS["plain_text"], {"traceparent": CALLER})
    assert (joined.parent, joined.trace_id) == (CALLER, CALLER[3:35])
    apart = await Traced(joins=False).run(SCENARIOS["plain_text"], {"traceparent": CALLER})
    assert apart.parent == ""
    assert apart.trace_id != CALLER[3:35]


@pytest.mark.parametrize(
    "header",
    [
        CALLER.removesuffix("1") + "0",  # not sampled
        CALLER.upper(),
        CALLER + "-more",
        "01" + CALLER[2:],
        f"00-{'0' * 32}-b7ad6b7169203331-01",
        f"00-0af7651916cd43dd8448eb211c80319c-{'0' * 16}-01",
        "",
        "junk",
    ],
)
async def test_any_other_header_is_passed_over(header: str) -> None:
    record = await Traced().run(SCENARIOS["plain_text"], {"traceparent": header})
    assert record.parent == ""


@pytest.mark.parametrize("wrong", [7, {"a": 1}, "", None])
async def test_ids_of_the_wrong_type_are_passed_over(wrong: Any) -> None:
    body = {"custom_inputs": {"session_id": wrong, "thread_id": "t"}, "client_request_id": wrong}
    record = await Traced().run(SCENARIOS["plain_text"], {"x-request-id": "theirs"}, **body)
    assert (record.session, record.client_request_id) == ("t", "theirs")
