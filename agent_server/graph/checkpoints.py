"""Where graphs remember: LangGraph checkpoints, addressed by the run that left them.

A run goes on from the last checkpoint of another run. Two runs that go on from the same one are two branches of one
LangGraph thread and never see each other.
"""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable
from contextlib import suppress
from dataclasses import dataclass
from typing import Any, cast
from weakref import WeakKeyDictionary, WeakSet

from langchain_core.runnables import Runnable, RunnableBinding, RunnableConfig
from langgraph._internal._serde import build_serde_allowlist
from langgraph.checkpoint.base import BaseCheckpointSaver, CheckpointTuple
from langgraph.checkpoint.memory import InMemorySaver
from langgraph.graph.state import CompiledStateGraph
from langgraph.pregel import Pregel

from agent_server.errors import AgentServerError
from agent_server.graph.savers import Saver
from agent_server.graph.shape import unbound

AnyRunnable = Runnable[Any, Any]
AnyGraph = Pregel[Any, Any, Any, Any]


class CheckpointGoneError(AgentServerError):
    """What a run was to go on from was deleted, or never written."""


class Checkpoints:
    """A checkpointer for graphs that were compiled without one of their own: the one that `opened` gives."""

    def __init__(self, opened: Callable[[], Awaitable[Saver]]) -> None:
        self._opened = opened
        self._saver: Saver | None = None
        self._opening = asyncio.Lock()
        self._graphs: WeakKeyDictionary[AnyGraph, AnyGraph] = WeakKeyDictionary()
        self._others: WeakSet[Saver] = WeakSet()  # those that graphs were compiled with

    async def open(self) -> None:
        """Get the checkpointer, once. The store that has it is open."""
        if self._saver is None:
            async with self._opening:
                if self._saver is None:
                    self._saver = await self._opened()

    async def forget(self, thread_id: str) -> None:
        """Delete the checkpoints of a LangGraph thread: here, and in the checkpointers of graphs that have one of
        their own and have run in this process."""
        for saver in (self._saver, *self._others):
            with suppress(NotImplementedError):  # a checkpointer need not be able to
                if saver is not None:
                    await saver.adelete_thread(thread_id)

    async def has(self, thread_id: str, run_id: str) -> bool:
        """Whether a run left a checkpoint: here, or in a checkpointer that a graph has of its own."""
        memory = Memory(self, thread_id, after=run_id)
        savers = [saver for saver in (self._saver, *self._others) if saver is not None]
        return any([await _last_checkpoint(saver, memory) is not None for saver in savers])

    def given_to(self, runnable: AnyRunnable) -> AnyRunnable:
        """The graph with this checkpointer, which rebuilds the types that the graph's state declares."""
        if isinstance(runnable, RunnableBinding):
            return runnable.model_copy(update={"bound": self.given_to(runnable.bound)})
        if not isinstance(runnable, Pregel):
            return runnable
        if (own := saver_of(runnable)) is not None:
            self._others.add(own)
            return runnable
        if self._saver is None:
            raise RuntimeError("the checkpointer is not open")
        graph = self._graphs.get(runnable)
        if graph is None:
            saver = self._saver.with_allowlist(_declared_types(runnable))
            graph = self._graphs[runnable] = runnable.copy({"checkpointer": saver})
        return graph


class Scratch:
    """The checkpoints of one run that is not kept. They last as long as this does."""

    def __init__(self) -> None:
        self.saver: Saver | None = None


@dataclass(frozen=True, slots=True)
class Memory:
    """What a run remembers: the LangGraph thread `thread_id`, as the run `after` left it; "" for an empty one.

    `at_each_step` saves after each step, not only at the end. With a `scratch` the run leaves its checkpoints there
    and nowhere else; `before` is where the run `after` left its own. `checkpoint` is the id of another one to go on
    from, on the same LangGraph thread. A run that `continues` brings nothing new: where it goes on from the thread's
    latest checkpoint it does not name that, for LangGraph would take it to travel in time.
    """

    checkpoints: Checkpoints
    thread_id: str
    after: str = ""
    at_each_step: bool = False
    scratch: Scratch | None = None
    before: Scratch | None = None
    checkpoint: str = ""
    continues: bool = False


def saver_of(runnable: AnyRunnable) -> Saver | None:
    """The checkpointer that a graph was compiled with."""
    saver = getattr(runnable, "checkpointer", None)
    return saver if isinstance(saver, BaseCheckpointSaver) else None


async def remembering(
    runnable: AnyRunnable, config: RunnableConfig, memory: Memory
) -> tuple[AnyRunnable, RunnableConfig]:
    """The graph with a checkpointer, and the config of a run that goes on from where another left it.

    Raises `CheckpointGoneError` where that other left nothing: going on from anything else would mix two branches.
    """
    runnable = memory.checkpoints.given_to(runnable)
    saver = saver_of(unbound(runnable))
    place: dict[str, Any] = {"thread_id": memory.thread_id}
    source = saver if memory.before is None else memory.before.saver
    last = await _last_checkpoint(source, memory) if memory.after and source is not None else None
    if memory.after and source is not None and last is None:
        raise CheckpointGoneError(f"The run {memory.after} has left no checkpoint to go on from.")
    if last is not None and not (memory.continues and await _is_latest(source, last)):
        place |= {"checkpoint_ns": "", "checkpoint_id": last.config["configurable"]["checkpoint_id"]}
    if memory.scratch is not None and saver is not None:
        memory.scratch.saver = saver = InMemorySaver(serde=saver.serde)
        runnable = _with_saver(runnable, saver)
    if saver is not None and saver is not source and last is not None:
        await _copy(last, saver, memory.thread_id)
    return runnable, cast("RunnableConfig", {**config, "configurable": {**config["configurable"], **place}})


async def _last_checkpoint(saver: Saver, memory: Memory) -> CheckpointTuple | None:
    """LangGraph writes a run's id into the metadata of its checkpoints."""
    if memory.checkpoint:
        place = {"thread_id": memory.thread_id, "checkpoint_ns": "", "checkpoint_id": memory.checkpoint}
        return await saver.aget_tuple({"configurable": place})
    thread: RunnableConfig = {"configurable": {"thread_id": memory.thread_id, "checkpoint_ns": ""}}
    async for found in saver.alist(thread, filter={"run_id": memory.after}, limit=1):
        return found
    return None


async def _is_latest(saver: Saver | None, last: CheckpointTuple) -> bool:
    place = {"thread_id": last.config["configurable"]["thread_id"], "checkpoint_ns": ""}
    latest = None if saver is None else await saver.aget_tuple({"configurable": place})
    return latest is not None and latest.checkpoint["id"] == last.checkpoint["id"]


async def _copy(last: CheckpointTuple, saver: Saver, thread_id: str) -> None:
    """One checkpoint, and the writes that wait on it."""
    place: RunnableConfig = {"configurable": {"thread_id": thread_id, "checkpoint_ns": ""}}
    at = await saver.aput(place, last.checkpoint, last.metadata, last.checkpoint["channel_versions"])
    for task_id, channel, value in last.pending_writes or ():
        await saver.aput_writes(at, [(channel, value)], task_id)


def _with_saver(runnable: AnyRunnable, saver: Saver) -> AnyRunnable:
    if isinstance(runnable, RunnableBinding):
        return runnable.model_copy(update={"bound": _with_saver(runnable.bound, saver)})
    return runnable.copy({"checkpointer": saver}) if isinstance(runnable, Pregel) else runnable


def _declared_types(graph: AnyGraph) -> set[tuple[str, ...]]:
    """The types in the state of a graph and of its subgraphs, as LangGraph itself gathers them when it is strict."""
    graphs = [graph, *(each for _, each in graph.get_subgraphs(recurse=True) if isinstance(each, Pregel))]
    return {
        name
        for each in graphs
        for name in build_serde_allowlist(
            schemas=list(each.builder.schemas) if isinstance(each, CompiledStateGraph) else [],
            channels=dict(each.channels),
        )
    }
