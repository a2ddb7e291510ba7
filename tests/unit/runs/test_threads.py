"""Threads go on from run to run; nobody's turn is lost, and only what was asked is answered."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import Any

import pytest
from langchain_core.runnables import RunnableLambda
from langgraph.graph import END, START, MessagesState, StateGraph
from langgraph.types import interrupt

from agent_server.errors import ConflictError, RequestError
from agent_server.events import RunCancelled, RunFailed, RunFinished, RunInterrupted
from agent_server.graph.agent import Agent, agent_of
from agent_server.graph.inputs import Message, Text
from agent_server.runs.threads import Ask, Threads
from tests.support.exchange import opened
from tests.support.gates import Gate


class Echo:
    """A graph that repeats how much it knows, and waits at a gate when it is told "wait"."""

    def __init__(self) -> None:
        self.gate = Gate()

    def graph(self) -> Any:
        async def answer(state: MessagesState) -> dict[str, Any]:
            said = [str(each.text) for each in state["messages"] if each.type == "human"]
            if said[-1] == "wait":
                await self.gate.passed()
            if said[-1] == "ask":
                said = [str(interrupt({"question": "which?"}))]
            return {"messages": [("ai", ",".join(said))]}

        return StateGraph(MessagesState).add_node(answer).add_edge(START, "answer").add_edge("answer", END).compile()


@asynccontextmanager
async def threads_of(target: Any) -> AsyncIterator[tuple[Threads, Agent]]:
    async with opened({"agent": target}) as app:
        yield app.state.threads, agent_of("agent", target)


def ask(agent: Agent, text: str, **more: Any) -> Ask:
    return Ask("default", "t1", agent, turns=(Message("user", (Text(text),)),), protocol="test", **more)


async def said(threads: Threads, agent: Agent) -> list[str]:
    return [each["content"] for each in await threads.messages("default", "t1", agent)]


async def test_a_run_goes_on_from_the_one_before() -> None:
    async with threads_of(Echo().graph()) as (threads, agent):
        for text in ("one", "two"):
            await (await threads.begin(ask(agent, text))).log.until_over()
        assert await said(threads, agent) == ["one", "one", "two", "one,two"]


async def test_an_agent_without_memory_is_given_what_was_said_before() -> None:
    agent_without = RunnableLambda(lambda messages: f"{len(messages)} messages")
    async with threads_of(agent_without.with_types(input_type=list)) as (threads, agent):
        for text in ("one", "two"):
            await (await threads.begin(ask(agent, text))).log.until_over()
        assert await said(threads, agent) == ["one", "1 messages", "two", "3 messages"]


@pytest.mark.parametrize("busy", ["enqueue", "interrupt"])
async def test_a_run_that_waited_goes_on_from_what_is_there_when_its_turn_comes(busy: Any) -> None:
    echo = Echo()
    async with threads_of(echo.graph()) as (threads, agent):
        await (await threads.begin(ask(agent, "one"))).log.until_over()
        first = await threads.begin(ask(agent, "wait"))
        await echo.gate.reached()
        second = await threads.begin(ask(agent, "two", busy=busy))
        if busy == "enqueue":
            echo.gate.open()
        await asyncio.gather(first.log.until_over(), second.log.until_over())
        whole = {"enqueue": "one,wait,two", "interrupt": "one,two"}[busy]
        assert (await said(threads, agent))[-1] == whole
        row = (await threads.rows("default", "t1"))[-1]
        assert row.previous == (first.id if busy == "enqueue" else (await threads.rows("default", "t1"))[0].id)


async def test_of_many_that_ask_at_once_each_has_its_turn() -> None:
    async with threads_of(Echo().graph()) as (threads, agent):
        asks = [ask(agent, f"n{number}", busy="enqueue") for number in range(8)]
        runs = await asyncio.gather(*(threads.begin(each) for each in asks))
        await asyncio.gather(*(run.log.until_over() for run in runs))
        assert len((await said(threads, agent))[-1].split(",")) == 8


async def test_a_busy_thread_refuses_unless_told_otherwise() -> None:
    echo = Echo()
    async with threads_of(echo.graph()) as (threads, agent):
        run = await threads.begin(ask(agent, "wait"))
        with pytest.raises(ConflictError):
            await threads.begin(ask(agent, "two"))
        found = await threads.active("default", "t1")
        assert found is not None
        assert (found.row.id, found.protocol) == (run.id, "test")
        await threads.cancel("default", run.id)
        assert isinstance(run.log.read(0)[-1], RunCancelled)
        assert await threads.active("default", "t1") is None


async def test_a_question_is_answered_once() -> None:
    async with threads_of(Echo().graph()) as (threads, agent):
        first = await threads.begin(ask(agent, "ask"))
        await first.log.until_over()
        assert isinstance(first.log.read(0)[-1], RunInterrupted)
        (question,) = await threads.waiting("default", "t1")
        answer = Ask("default", "t1", agent, resume={question.id: "blue"})
        with pytest.raises(ConflictError, match="Nobody waits"):
            await threads.begin(Ask("default", "t1", agent, resume={"other": "blue"}))
        with pytest.raises(RequestError, match="waits for an answer"):
            await threads.begin(Ask("default", "t1", agent, resume={}))
        run = await threads.begin(answer)
        await run.log.until_over()
        assert (await said(threads, agent))[-1] == "blue"
        with pytest.raises(ConflictError):
            await threads.begin(Ask("default", "t1", agent, resume={question.id: "red"}))


async def test_an_answer_that_waited_behind_another_is_refused_in_its_log() -> None:
    echo = Echo()
    async with threads_of(echo.graph()) as (threads, agent):
        await (await threads.begin(ask(agent, "ask"))).log.until_over()
        (question,) = await threads.waiting("default", "t1")
        other = await threads.begin(ask(agent, "wait"))
        await echo.gate.reached()
        late = await threads.begin(Ask("default", "t1", agent, resume={question.id: "blue"}, busy="enqueue"))
        echo.gate.open()
        await asyncio.gather(other.log.until_over(), late.log.until_over())
        end = late.log.read(0)[-1]
        assert isinstance(end, RunFailed)
        assert end.code == "interrupt_not_pending"
        assert isinstance(other.log.read(0)[-1], RunFinished)


@pytest.mark.parametrize("thread_id", ["", "a\0b", "x" * 513])
async def test_what_cannot_be_an_id_is_refused(thread_id: str) -> None:
    async with threads_of(Echo().graph()) as (threads, agent):
        with pytest.raises(RequestError, match="thread_id"):
            await threads.begin(Ask("default", thread_id, agent))


async def test_the_state_of_a_thread_is_that_of_its_head() -> None:
    async with threads_of(Echo().graph()) as (threads, agent):
        assert await threads.state("default", "t1", agent) is None
        await (await threads.begin(ask(agent, "ask"))).log.until_over()
        state = await threads.state("default", "t1", agent)
        assert state is not None
        assert (state.next, state.interrupts[0]["value"]) == (("answer",), {"question": "which?"})
        assert [each["content"] for each in state.values["messages"]] == ["ask"]
