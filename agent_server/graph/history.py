"""The checkpoints of a thread, as states: read one by one, listed, written by hand, copied.

What is written by hand is written by a run of its own, in which nothing of the graph runs: so nobody else can change
the thread meanwhile, and what comes next goes on from it.
"""

from __future__ import annotations

from collections.abc import AsyncIterator, Awaitable, Callable, Collection, Mapping, Sequence
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from typing import Any, NamedTuple, cast

from langchain_core.runnables import RunnableConfig
from langgraph.errors import EmptyInputError, InvalidUpdateError
from langgraph.pregel import Pregel
from langgraph.types import Command, StateSnapshot, StateUpdate

from agent_server.errors import RunRefusedError
from agent_server.events import Event, IncompleteReason, RunCancelled, RunFailed, RunFinished, RunInterrupted
from agent_server.graph.agent import Agent, RunnableAgent
from agent_server.graph.checkpoints import AnyGraph, CheckpointGoneError, Memory, remembering, saver_of
from agent_server.graph.converter import now_ms
from agent_server.graph.drive import ForeignAgent, Invocation, Recorder
from agent_server.graph.jsonable import to_jsonable
from agent_server.graph.shape import unbound

Json = dict[str, Any]


class Update(NamedTuple):
    """One write to a state, as if a node had made it."""

    values: Any
    as_node: str | None = None
    command: Mapping[str, Any] | None = None


# -- reading


@asynccontextmanager
async def _opened(agent: Agent, memory: Memory) -> AsyncIterator[tuple[AnyGraph, RunnableConfig] | None]:
    if not isinstance(agent, RunnableAgent) or not agent.is_graph:
        yield None
        return
    config: RunnableConfig = {"configurable": {}}
    async with agent.for_run(config) as opened:
        try:
            runnable, config = await remembering(opened, config, memory)
        except CheckpointGoneError:
            yield None
            return
        graph = unbound(runnable)
        yield (graph, config) if isinstance(graph, Pregel) else None


async def state_at(agent: Agent, memory: Memory, *, subgraphs: bool = False, namespace: str = "") -> Json | None:
    """The state at a place of a thread; None where there is none, and for what is no graph.

    With a `namespace` it is that of a subgraph, at the same place.
    """
    async with _opened(agent, memory) as found:
        if found is None:
            return None
        graph, config = found
        if namespace:
            config["configurable"]["checkpoint_ns"] = namespace
            if not memory.checkpoint:
                config["configurable"].pop("checkpoint_id", None)
        try:
            snapshot = await graph.aget_state(config, subgraphs=subgraphs)
        except ValueError:  # no such subgraph
            return None
        return _state(snapshot) if snapshot.created_at is not None else None


async def states(
    agent: Agent,
    memory: Memory,
    runs: Collection[str],
    *,
    limit: int,
    before: str | None = None,
    metadata: Mapping[str, Any] | None = None,
    namespace: str = "",
) -> list[Json]:
    """The states that `runs` left on a thread, newest first, with all branches."""
    async with _opened(agent, memory) as found:
        if found is None:
            return []
        graph, _ = found
        thread: Json = {"thread_id": memory.thread_id, "checkpoint_ns": namespace}
        place = {"configurable": {**thread, "checkpoint_id": before}} if before else None
        told: list[Json] = []
        history = graph.aget_state_history(
            cast("RunnableConfig", {"configurable": thread}),
            filter=dict(metadata) if metadata else None,
            before=cast("RunnableConfig | None", place),
        )
        async for snapshot in history:
            if (snapshot.metadata or {}).get("run_id") in runs:
                told.append(_state(snapshot))
            if len(told) >= limit:
                break
        return told


def _state(snapshot: StateSnapshot) -> Json:
    return {
        "values": to_jsonable(snapshot.values),
        "next": list(snapshot.next),
        "tasks": [_task(task) for task in snapshot.tasks],
        "metadata": to_jsonable(snapshot.metadata),
        "created_at": snapshot.created_at,
        "checkpoint": _place(snapshot.config),
        "parent_checkpoint": _place(snapshot.parent_config),
        "interrupts": [_interrupt(each) for each in snapshot.interrupts],
    }


def _task(task: Any) -> Json:
    is_state = isinstance(task.state, StateSnapshot)
    return {
        "id": task.id,
        "name": task.name,
        "path": to_jsonable(task.path),
        "error": type(task.error).__name__ if task.error is not None else None,
        "interrupts": [_interrupt(each) for each in task.interrupts],
        "checkpoint": _place(task.state.config if is_state else task.state),
        "state": _state(task.state) if is_state else None,
        "result": to_jsonable(task.result),
    }


def _interrupt(interrupt: Any) -> Json:
    return {"id": interrupt.id, "value": to_jsonable(interrupt.value)}


def _place(config: Any) -> Json | None:
    place = (config or {}).get("configurable")
    if not place:
        return None
    shown = {"checkpoint_id": place.get("checkpoint_id"), "checkpoint_ns": place.get("checkpoint_ns", "")}
    return {**shown, **({"checkpoint_map": place["checkpoint_map"]} if "checkpoint_map" in place else {})}


# -- writing


Edit = Callable[[AnyGraph, RunnableConfig], Awaitable[RunnableConfig]]


@dataclass(frozen=True, slots=True)
class Editing(ForeignAgent):
    """A graph whose checkpoints are changed by `edit`, which tells where the last one is: see `placed`."""

    edited: RunnableAgent
    edit: Edit
    placed: list[Json] = field(default_factory=list)

    @property
    def remembers(self) -> bool:
        return True

    def fold(self, run_id: str) -> _EditFold:
        """Nothing happens in it that anybody could follow."""
        return _EditFold(run_id)

    async def drive(self, invocation: Invocation, recorder: Recorder) -> None:
        """Change the checkpoints. Raises `RunRefusedError` for what the graph does not take."""
        memory = invocation.memory
        if memory is None:
            raise TypeError("what is to be changed is a memory")
        config: RunnableConfig = {
            "metadata": {**invocation.tuning.metadata, "run_id": invocation.run_id},
            "configurable": {},
        }
        async with self.edited.for_run(config) as opened:
            runnable, config = await remembering(opened, config, memory)
            graph = unbound(runnable)
            if not isinstance(graph, Pregel):
                raise RunRefusedError("This agent keeps no state.", code="no_state")
            try:
                placed = await self.edit(graph, config)
            except (InvalidUpdateError, EmptyInputError, ValueError, KeyError) as error:
                message = "The graph does not take this update: see its values, and 'as_node'."
                raise RunRefusedError(message, code="invalid_update") from error
            snapshot = await graph.aget_state(placed)
        self.placed.append(_place(placed) or {})
        recorder.feed(snapshot.next)


class _EditFold:
    """The fold of a run in which no agent ran: it ends, or waits where the graph has something to do next."""

    def __init__(self, run_id: str) -> None:
        self.run_id = run_id
        self._next: Sequence[str] = ()

    def feed(self, event: Any, /) -> list[Event]:
        self._next = event
        return []

    def finish(self, *, incomplete: IncompleteReason | None = None) -> list[Event]:
        at = now_ms()
        return [RunInterrupted(at, ())] if self._next else [RunFinished(at, incomplete=incomplete)]

    def fail(self, *, code: str, message: str, error_id: str, raised: BaseException | None = None) -> list[Event]:
        return [RunFailed(now_ms(), code, message, error_id)]

    def cancel(self, reason: str) -> list[Event]:
        return [RunCancelled(now_ms(), reason)]


def editing(agent: RunnableAgent, edit: Edit) -> Editing:
    """The agent whose run is the edit."""
    return Editing(agent.name, agent.description, frozenset(), takes_options=False, edited=agent, edit=edit)


def updating(agent: RunnableAgent, supersteps: Sequence[Sequence[Update]]) -> Editing:
    """The agent whose run writes to the state, step by step."""

    async def edit(graph: AnyGraph, config: RunnableConfig) -> RunnableConfig:
        for step in supersteps:  # one by one: LangGraph forgets a config's metadata after the first
            placed = await graph.abulk_update_state(config, [[_written(each) for each in step]])
            config = cast("RunnableConfig", {**config, "configurable": placed["configurable"]})
        return config

    return editing(agent, edit)


def _written(update: Update) -> StateUpdate:
    if update.command:
        return StateUpdate(cast("Any", Command(**update.command)), update.as_node)
    return StateUpdate(update.values, update.as_node)


def copying(agent: RunnableAgent, source: Memory, run_id: str) -> Editing:
    """The agent whose run brings the checkpoints of another thread into its own.

    All of them become those of the run `run_id`, so that the newest of them is where the next one goes on.
    """

    async def edit(graph: AnyGraph, config: RunnableConfig) -> RunnableConfig:
        saver = saver_of(graph)
        if saver is None:
            raise ValueError("no checkpointer")
        target = config["configurable"]["thread_id"]
        place: RunnableConfig = {"configurable": {"thread_id": source.thread_id}}
        for each in reversed([found async for found in saver.alist(place)]):
            at = {"thread_id": target, "checkpoint_ns": each.config["configurable"].get("checkpoint_ns", "")}
            if each.parent_config:
                at["checkpoint_id"] = each.parent_config["configurable"]["checkpoint_id"]
            metadata = cast("Any", {**each.metadata, "run_id": run_id})
            put = await saver.aput({"configurable": at}, each.checkpoint, metadata, each.checkpoint["channel_versions"])
            for task_id, channel, value in each.pending_writes or ():
                await saver.aput_writes(put, [(channel, value)], task_id)
        newest = await saver.aget_tuple({"configurable": {"thread_id": target, "checkpoint_ns": ""}})
        if newest is None:
            raise ValueError("nothing to copy")
        return newest.config

    return editing(agent, edit)


async def prune(agent: Agent, memory: Memory) -> bool:
    """Leave of a thread's checkpoints only the one at a place, and its subgraphs'. False where there is none."""
    async with _opened(agent, memory) as found:
        saver = None if found is None else saver_of(found[0])
        if found is None or saver is None:
            return False
        last = await saver.aget_tuple(found[1])
        if last is None:
            return False
        await saver.adelete_thread(memory.thread_id)
        place: RunnableConfig = {"configurable": {"thread_id": memory.thread_id, "checkpoint_ns": ""}}
        put = await saver.aput(place, last.checkpoint, last.metadata, last.checkpoint["channel_versions"])
        for task_id, channel, value in last.pending_writes or ():
            await saver.aput_writes(put, [(channel, value)], task_id)
        return True
