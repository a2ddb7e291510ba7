"""The state that a graph's run left behind, as plain JSON."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

from langchain_core.runnables import RunnableConfig
from langgraph.pregel import Pregel
from langgraph.types import StateSnapshot

from agent_server.graph.agent import Agent, RunnableAgent
from agent_server.graph.checkpoints import Memory, remembering
from agent_server.graph.jsonable import to_jsonable
from agent_server.graph.shape import unbound


@dataclass(frozen=True, slots=True)
class State:
    """LangGraph's `StateSnapshot`. `tasks` have id, name, path, error, interrupts, state and result.

    `checkpoint` and `parent` hold thread_id, checkpoint_ns and checkpoint_id; `parent` is None for the first one.
    """

    values: Any
    next: tuple[str, ...]
    tasks: list[dict[str, Any]]
    interrupts: list[dict[str, Any]]
    metadata: dict[str, Any]
    created_at: str | None
    checkpoint: dict[str, Any]
    parent: dict[str, Any] | None


async def state_of(agent: Agent, memory: Memory) -> State | None:
    """The state that a run of the agent left; None for what is no graph.

    Raises `CheckpointGoneError` where it left none.
    """
    if not isinstance(agent, RunnableAgent) or not agent.is_graph:
        return None
    config: RunnableConfig = {"configurable": {}}
    async with agent.for_run(config) as opened:
        runnable, config = await remembering(opened, config, memory)
        graph = unbound(runnable)
        return state_json(await graph.aget_state(config)) if isinstance(graph, Pregel) else None


def state_json(snapshot: StateSnapshot) -> State:
    """A snapshot as plain JSON."""
    return State(
        values=to_jsonable(snapshot.values),
        next=tuple(snapshot.next),
        tasks=[_task(task) for task in snapshot.tasks],
        interrupts=[_interrupt(each) for each in snapshot.interrupts],
        metadata=to_jsonable(snapshot.metadata or {}),
        created_at=snapshot.created_at,
        checkpoint=_place(snapshot.config) or {},
        parent=_place(snapshot.parent_config),
    )


def _task(task: Any) -> dict[str, Any]:
    return {
        "id": task.id,
        "name": task.name,
        "path": to_jsonable(task.path),
        "error": type(task.error).__name__ if task.error is not None else None,
        "interrupts": [_interrupt(each) for each in task.interrupts],
        "result": to_jsonable(task.result),
    }


def _interrupt(interrupt: Any) -> dict[str, Any]:
    return {"id": interrupt.id, "value": to_jsonable(interrupt.value)}


def _place(config: Any) -> dict[str, Any] | None:
    if not config:
        return None
    place = config.get("configurable") or {}
    return {name: place.get(name, "") for name in ("thread_id", "checkpoint_ns", "checkpoint_id")}
