"""The engine: one task per run, and a log that ends whatever happens."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import Any

import pytest
from langchain_core.runnables import RunnableLambda

from agent_server import events as ev
from agent_server import ids
from agent_server.context import ModelOptions, RequestContext
from agent_server.errors import OverloadedError
from agent_server.events import TERMINAL, Event
from agent_server.graph.agent import open_agent
from agent_server.graph.drive import Invocation
from agent_server.graph.inputs import Message, Text
from agent_server.runs import engine as engine_module
from agent_server.runs.engine import Engine, Run
from tests.support.gates import Gate
from tests.support.scripted import SCENARIOS, SECRET, gated_text

TURNS = (Message("user", (Text("Hi"),)),)


@asynccontextmanager
async def invoking(target: Any, **context: Any) -> AsyncIterator[Invocation]:
    """An invocation of an agent that is open as long as the block lasts."""
    async with open_agent("agent", target) as agent:
        yield Invocation(ids.new_run_id(), agent, TURNS, RequestContext(**context))


async def ended(run: Run) -> list[Event]:
    """The events of a run, once it is over."""
    return [event async for batch in run.log.batches() for event in batch]


async def test_a_run_is_told_from_its_start_to_its_end() -> None:
    engine = Engine()
    async with invoking(SCENARIOS["plain_text"]) as invocation:
        run = engine.start(invocation, model="demo", echo={"store": False})
        started, *_, last = await ended(run)
    assert isinstance(started, ev.RunStarted)
    assert (started.run_id, started.agent, started.model, started.echo) == (run.id, "agent", "demo", {"store": False})
    assert isinstance(last, ev.RunFinished)
    assert started.at <= last.at


async def test_the_start_is_in_the_log_before_the_agent_is_called() -> None:
    called: list[str] = []
    async with invoking(RunnableLambda(called.append)) as invocation:
        run = Engine().start(invocation)
        assert [type(event) for event in run.log.read(0)] == [ev.RunStarted]
        assert called == []
        await ended(run)
    assert len(called) == 1


async def test_the_start_names_the_tools_of_the_client() -> None:
    options = ModelOptions(tools=({"name": "look"}, {"name": "ask"}))
    async with invoking(SCENARIOS["plain_text"], options=options) as invocation:
        run = Engine().start(invocation)
        (started, *_) = await ended(run)
    assert isinstance(started, ev.RunStarted)
    assert started.client_tools == ("look", "ask")


async def test_two_readers_each_see_every_event() -> None:
    gate = Gate()
    async with invoking(gated_text(["a"], gate, ["b"])) as invocation:
        run = Engine().start(invocation)
        first = asyncio.create_task(ended(run))
        await gate.reached()
        second = asyncio.create_task(ended(run))
        gate.open()
        assert await first == await second == run.log.read(0)


async def test_more_runs_than_allowed_are_refused_until_one_ends() -> None:
    gate, engine = Gate(), Engine(max_concurrent=1)
    async with invoking(gated_text(["a"], gate, ["b"])) as first, invoking(SCENARIOS["plain_text"]) as second:
        run = engine.start(first)
        assert len(engine) == 1
        with pytest.raises(OverloadedError):
            engine.start(second)
        gate.open()
        await asyncio.wait({run.task})
        await asyncio.sleep(0)
        assert len(engine) == 0
        assert isinstance((await ended(engine.start(second)))[-1], ev.RunFinished)


async def test_a_run_that_is_cancelled_before_it_began_ends_and_calls_nobody() -> None:
    engine, called = Engine(), list[str]()
    async with invoking(RunnableLambda(called.append)) as invocation:
        run = engine.start(invocation)
        await engine.cancel(run, "client disconnected")
        started, cancelled = run.log.read(0)
    assert isinstance(started, ev.RunStarted)
    assert isinstance(cancelled, ev.RunCancelled)
    assert cancelled.reason == "client disconnected"
    assert called == []
    assert len(engine) == 0


async def test_a_cancelled_run_says_why() -> None:
    gate, engine = Gate(), Engine()
    async with invoking(gated_text(["a"], gate, ["b"])) as invocation:
        run = engine.start(invocation)
        await gate.reached()
        await engine.cancel(run, "client disconnected")
        last = run.log.read(0)[-1]
    assert isinstance(last, ev.RunCancelled)
    assert last.reason == "client disconnected"


async def test_what_was_told_before_a_cancel_is_kept_and_closed() -> None:
    gate, engine = Gate(), Engine()
    async with invoking(gated_text(["half"], gate, ["more"])) as invocation:
        run = engine.start(invocation)
        await gate.reached()
        await engine.cancel(run)
    assert run.log.closed
    (block,) = (event for event in run.log.read(0) if isinstance(event, ev.BlockFinished))
    assert (block.text, block.complete) == ("half", False)


async def test_an_agent_may_clean_up_after_a_cancel() -> None:
    gate, cleaned = Gate(), list[str]()

    async def careful(said: str) -> str:
        try:
            await gate.passed()
        finally:
            cleaned.append(said)
        return said

    engine = Engine()
    async with invoking(RunnableLambda(careful)) as invocation:
        run = engine.start(invocation)
        await gate.reached()
        await engine.cancel(run)
        assert cleaned == ["Hi"]
        assert run.task.done()


async def test_an_agent_that_will_not_stop_is_ended_without_it(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(engine_module, "CANCEL_GRACE", 0.01)
    gate, later, engine = Gate(), Gate(), Engine()

    async def stubborn(said: str) -> str:
        try:
            await gate.passed()
        except asyncio.CancelledError:
            await later.passed()
        return "too late"

    async with invoking(RunnableLambda(stubborn)) as invocation:
        run = engine.start(invocation)
        await gate.reached()
        await engine.cancel(run, "client disconnected")
        assert not run.task.done()
        assert len(engine) == 0
        told = list(run.log.read(0))
        assert isinstance(told[-1], ev.RunCancelled)
        later.open()
        await asyncio.wait({run.task})
        assert run.log.read(0) == told


async def test_cancelling_a_run_that_is_over_changes_nothing() -> None:
    engine = Engine()
    async with invoking(SCENARIOS["plain_text"]) as invocation:
        run = engine.start(invocation)
        told = await ended(run)
        await engine.cancel(run)
        await engine.cancel(run)
    assert run.log.read(0) == told


async def test_closing_the_engine_cancels_every_run() -> None:
    engine, gates = Engine(), [Gate(), Gate()]
    async with (
        invoking(gated_text(["a"], gates[0], [])) as first,
        invoking(gated_text(["b"], gates[1], [])) as second,
    ):
        runs = [engine.start(first), engine.start(second)]
        for gate in gates:
            await gate.reached()
        await engine.aclose()
        lasts = [run.log.read(0)[-1] for run in runs]
    assert [last.reason for last in lasts if isinstance(last, ev.RunCancelled)] == ["shutdown", "shutdown"]
    assert len(engine) == 0
    await engine.aclose()


@pytest.mark.parametrize("name", ["failing_runnable", "model_error_after_first_token", "tool_error_fatal"])
async def test_the_text_of_an_exception_is_for_the_log_of_the_server_alone(
    name: str, caplog: pytest.LogCaptureFixture
) -> None:
    async with invoking(SCENARIOS[name]) as invocation:
        events = await ended(Engine().start(invocation))
    last = events[-1]
    assert isinstance(last, ev.RunFailed)
    assert SECRET.encode() not in b"".join(map(ev.encode, events))
    assert last.error_id in last.message
    (record,) = caplog.records
    assert SECRET in record.getMessage()
    assert last.error_id in record.getMessage()


async def test_every_run_has_one_terminal_event_and_it_is_the_last() -> None:
    engine = Engine()
    for name in ("plain_text", "approval", "recursion_limit", "failing_runnable"):
        async with invoking(SCENARIOS[name]) as invocation:
            events = await ended(engine.start(invocation))
        assert [type(event) in TERMINAL for event in events] == [False] * (len(events) - 1) + [True]
