"""Runs of graphs go on from the checkpoints that other runs left, in every store."""

from __future__ import annotations

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import dataclass
from operator import add
from pathlib import Path
from typing import Annotated, Any, TypedDict
from uuid import uuid4

import pytest
from langchain_core.runnables import RunnableConfig
from langgraph.checkpoint.memory import InMemorySaver
from langgraph.graph import END, START, StateGraph
from langgraph.types import Command, interrupt

from agent_server.graph.checkpoints import CheckpointGoneError, Checkpoints, Memory, Scratch, remembering
from agent_server.runs.stores.url import open_store


@dataclass
class Mark:
    """A type of the agent's own, in its state."""

    text: str


class State(TypedDict):
    said: Annotated[list[str], add]
    marks: Annotated[list[Mark], add]


def note(state: State) -> State:
    count = len(state["said"])
    return {"said": [f"noted {count}"], "marks": [Mark(f"m{count}")]}


def ask(state: State) -> State:
    answer = interrupt("Go on?") if state["said"][-2] == "ask" else "unasked"
    return {"said": [str(answer)], "marks": []}


def builder() -> StateGraph[State]:
    graph = StateGraph(State)
    graph.add_node("note", note)
    graph.add_node("ask", ask)
    graph.add_edge(START, "note")
    graph.add_edge("note", "ask")
    graph.add_edge("ask", END)
    return graph


GRAPH = builder().compile()


@asynccontextmanager
async def opened(url: str) -> AsyncIterator[Checkpoints]:
    """The checkpoints in the store at an address, while that is open."""
    store = open_store(url)
    await store.open()
    checkpoints = Checkpoints(store.checkpointer)
    await checkpoints.open()
    yield checkpoints
    await store.aclose()


@pytest.fixture(params=["memory", "sqlite"])
async def checkpoints(request: pytest.FixtureRequest, tmp_path: Path) -> AsyncIterator[Checkpoints]:
    async with opened("memory" if request.param == "memory" else f"sqlite:///{tmp_path}/deep/runs.db") as made:
        yield made


async def run(memory: Memory, value: Any, graph: Any = GRAPH) -> tuple[str, dict[str, Any]]:
    """One run; its id, and the state it ended with."""
    run_id = uuid4().hex
    given: RunnableConfig = {"metadata": {"run_id": run_id}, "configurable": {"thread_id": "other"}}
    attached, config = await remembering(graph, given, memory)
    state = await attached.ainvoke(value, config, durability="exit")
    return run_id, state


def said(text: str) -> dict[str, Any]:
    return {"said": [text], "marks": []}


async def test_a_run_goes_on_from_the_run_before_it(checkpoints: Checkpoints) -> None:
    first, _ = await run(Memory(checkpoints, "t"), said("a"))
    _, state = await run(Memory(checkpoints, "t", after=first), said("b"))
    assert state["said"] == ["a", "noted 1", "unasked", "b", "noted 4", "unasked"]


async def test_two_that_go_on_from_one_never_see_each_other(checkpoints: Checkpoints) -> None:
    first, _ = await run(Memory(checkpoints, "t"), said("a"))
    left, _ = await run(Memory(checkpoints, "t", after=first), said("left"))
    right, _ = await run(Memory(checkpoints, "t", after=first), said("right"))
    _, state = await run(Memory(checkpoints, "t", after=left), said("more"))
    assert "right" not in state["said"]
    _, state = await run(Memory(checkpoints, "t", after=right), said("more"))
    assert "left" not in state["said"]


async def test_a_type_of_the_agents_state_comes_back_as_it_was(checkpoints: Checkpoints) -> None:
    first, _ = await run(Memory(checkpoints, "t"), said("a"))
    _, state = await run(Memory(checkpoints, "t", after=first), said("b"))
    assert state["marks"] == [Mark("m1"), Mark("m4")]


async def test_an_interrupted_run_is_resumed_where_it_stopped(checkpoints: Checkpoints) -> None:
    first, state = await run(Memory(checkpoints, "t"), said("ask"))
    (question,) = state["__interrupt__"]
    _, state = await run(Memory(checkpoints, "t", after=first), Command(resume={question.id: "yes"}))
    assert state["said"] == ["ask", "noted 1", "yes"]
    assert len(state["marks"]) == 1, "the node before the question did not run again"


async def test_a_scratch_goes_on_from_what_is_kept_and_leaves_nothing_there(checkpoints: Checkpoints) -> None:
    first, _ = await run(Memory(checkpoints, "t"), said("a"))
    scratch = Scratch()
    unkept, state = await run(Memory(checkpoints, "t", after=first, scratch=scratch), said("b"))
    assert state["said"][3:] == ["b", "noted 4", "unasked"]
    with pytest.raises(CheckpointGoneError):
        await run(Memory(checkpoints, "t", after=unkept), said("c"))
    again = Memory(checkpoints, "t", after=unkept, scratch=Scratch(), before=scratch)
    _, state = await run(again, said("c"))
    assert state["said"][3:] == ["b", "noted 4", "unasked", "c", "noted 7", "unasked"]


async def test_a_graph_keeps_the_checkpointer_it_was_compiled_with(checkpoints: Checkpoints) -> None:
    own = InMemorySaver()
    graph = builder().compile(checkpointer=own)
    first, _ = await run(Memory(checkpoints, "t"), said("a"), graph)
    assert [each async for each in own.alist({"configurable": {"thread_id": "t"}})]
    _, state = await run(Memory(checkpoints, "t", after=first), said("b"), graph)
    assert len(state["said"]) == 6


async def test_what_is_forgotten_is_gone(checkpoints: Checkpoints) -> None:
    first, _ = await run(Memory(checkpoints, "t"), said("a"))
    await checkpoints.forget("t")
    with pytest.raises(CheckpointGoneError):
        await run(Memory(checkpoints, "t", after=first), said("b"))
    _, state = await run(Memory(checkpoints, "t"), said("b"))
    assert state["said"] == ["b", "noted 1", "unasked"]


async def test_checkpoints_in_a_file_outlive_the_process_that_wrote_them(tmp_path: Path) -> None:
    url = f"sqlite:///{tmp_path}/runs.db"
    async with opened(url) as before:
        first, _ = await run(Memory(before, "t"), said("a"))
    async with opened(url) as after:
        _, state = await run(Memory(after, "t", after=first), said("b"))
    assert state["said"][:3] == ["a", "noted 1", "unasked"]
