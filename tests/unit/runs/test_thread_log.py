"""A thread's log: its runs one after the other, numbered through, also those that another process begins."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import pytest
from langgraph.graph import START, MessagesState, StateGraph

from agent_server.events import RunFinished, RunStarted
from agent_server.graph.agent import Agent, agent_of
from agent_server.graph.inputs import Message, Text
from agent_server.runs import thread_log
from agent_server.runs.thread_log import Placed, ThreadLog
from agent_server.runs.threads import Ask, Threads
from tests.support.exchange import opened
from tests.support.gates import PATIENCE, Gate

GATE = Gate()


def echo() -> Any:
    """Repeats what it was told, and waits at the gate when that is "wait"."""

    async def answer(state: MessagesState) -> dict[str, Any]:
        said = state["messages"][-1].text
        if said == "wait":
            await GATE.passed()
        return {"messages": [("ai", said)]}

    return StateGraph(MessagesState).add_node(answer).add_edge(START, "answer").compile()


@asynccontextmanager
async def app(store: str = "memory") -> AsyncIterator[tuple[Any, Threads, Agent]]:
    async with opened({"agent": echo()}, store) as served:
        yield served.state.engine, served.state.threads, agent_of("agent", echo())


async def say(threads: Threads, agent: Agent, text: str, thread: str = "t1", **more: Any) -> Any:
    ask = Ask("default", thread, agent, turns=(Message("user", (Text(text),)),), protocol="test", **more)
    return await threads.begin(ask)


async def read(log: ThreadLog, runs: int) -> list[Placed]:
    """The events up to the end of so many runs."""
    told: list[Placed] = []
    async with asyncio.timeout(PATIENCE):
        while sum(isinstance(each.event, RunFinished) for each in told) < runs:
            if batch := log.read(len(told), 3):
                told += batch
            else:
                await log.waiter()
    return told


async def test_runs_come_one_after_the_other_and_are_numbered_through() -> None:
    async with app() as (engine, threads, agent):
        for text in ("one", "two"):
            await (await say(threads, agent, text)).log.until_over()
        async with ThreadLog(engine, "default", "t1") as log:
            told = await read(log, 2)
        assert [each.place for each in told] == list(range(len(told)))
        starts = [(each.run, each.event) for each in told if isinstance(each.event, RunStarted)]
        assert [run and run.id for run, _ in starts] == [event.run_id for _, event in starts]


async def test_a_run_that_begins_later_is_heard_of_at_once(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(thread_log, "POLL", PATIENCE)
    async with app() as (engine, threads, agent), ThreadLog(engine, "default", "t1") as log:
        assert log.read(0) == []
        waiter = log.waiter()
        await say(threads, agent, "one")
        await say(threads, agent, "other", thread="t2")
        async with asyncio.timeout(PATIENCE / 2):
            await waiter
            told = await read(log, 1)
        assert {each.run.thread_id for each in told if each.run} == {"t1"}


async def test_runs_that_are_over_before_a_place_are_passed_by() -> None:
    async with app() as (engine, threads, agent):
        for text in ("one", "two"):
            await (await say(threads, agent, text)).log.until_over()
        async with ThreadLog(engine, "default", "t1") as log:
            whole = await read(log, 2)
        second = next(each.place for each in whole[1:] if isinstance(each.event, RunStarted))
        for after in (second, second + 1, len(whole) - 1):  # a run is told from its beginning
            async with ThreadLog(engine, "default", "t1", after=after) as log:
                assert await read(log, 1) == whole[second:]


async def test_a_run_that_waits_in_line_is_told_when_its_turn_comes() -> None:
    GATE.reset()
    async with app() as (engine, threads, agent), ThreadLog(engine, "default", "t1") as log:
        await say(threads, agent, "wait")
        await say(threads, agent, "two", busy="enqueue")
        await GATE.reached()
        GATE.open()
        told = await read(log, 2)
        assert [each.place for each in told] == list(range(len(told)))


async def test_a_run_of_another_process_is_told(tmp_path: Path) -> None:
    store = f"sqlite:///{tmp_path}/runs.db"
    async with app(store) as (engine, _, _), app(store) as (_, there, agent):
        async with ThreadLog(engine, "default", "t1") as log:
            await say(there, agent, "one")
            told = await read(log, 1)
        assert [each.place for each in told] == list(range(len(told)))


async def test_a_reader_that_leaves_leaves_nothing_behind() -> None:
    async with app() as (engine, _, _):
        before = asyncio.all_tasks()
        async with ThreadLog(engine, "default", "t1") as log:
            log.waiter()
            await asyncio.sleep(0)
        assert asyncio.all_tasks() == before
