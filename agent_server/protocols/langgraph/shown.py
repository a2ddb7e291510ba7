"""What this API shows: times, ids and the objects that are made of them. Pure."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from datetime import UTC, datetime
from typing import Any, Literal
from uuid import UUID

import msgspec

from agent_server.events import Event, RunCancelled, RunFailed, RunFinished, RunInterrupted
from agent_server.runs.stores.port import RunRow, RunStatus

PROTOCOL = "langgraph"
"""How runs that came by this protocol are marked."""
EDIT = "langgraph.edit"
"""How changes of a thread's state are marked: runs in which no agent ran."""

RUN_STATUS: Mapping[RunStatus, str] = {
    "queued": "pending",
    "running": "running",
    "completed": "success",
    "interrupted": "success",  # the run did all it could; it is the thread that waits
    "failed": "error",
    "cancelled": "interrupted",
}
THREAD_STATUS: Mapping[RunStatus | None, str] = {
    None: "idle",
    "queued": "busy",
    "running": "busy",
    "completed": "idle",
    "interrupted": "interrupted",
    "failed": "error",
    "cancelled": "interrupted",
}
CANCELLED: Mapping[str, str] = {"rollback": "UserRollback"}
"""What a client is told was raised in a run that was stopped, by the reason; else `UserInterrupt`."""


class RunRecord(msgspec.Struct, frozen=True, omit_defaults=True):
    """What is stored of a request for a run beside its input's turns. `kwargs` hold what the client said, and nothing
    of the server's own."""

    assistant_id: str
    metadata: dict[str, Any] = {}
    kwargs: dict[str, Any] = {}
    multitask_strategy: str = "enqueue"
    temporary: bool = False


_record_of: msgspec.json.Decoder[RunRecord] = msgspec.json.Decoder(RunRecord)


def record_of(protocol: str, wire: bytes, row: RunRow, default: str) -> RunRecord:
    """The record of a run; for one that came by another protocol, what there is to be said. `default` is the assistant
    of its agent."""
    if protocol == PROTOCOL:
        return _record_of.decode(wire)
    return RunRecord(default, {"created_by": "system", "graph_id": row.agent, "assistant_id": default})


def iso(ms: int) -> str:
    """A time as this API writes it."""
    return datetime.fromtimestamp(ms / 1000, UTC).isoformat(timespec="microseconds")


def shown_run_id(run_id: str) -> str:
    """A run's id as a UUID."""
    return str(UUID(run_id)) if len(run_id) == 32 else run_id


def run_status(row: RunRow, last: Event | None) -> str:
    """The status of a run. A limit that the graph ran into is an error here, as in LangGraph itself."""
    if isinstance(last, RunFinished) and last.incomplete == "recursion_limit":
        return "error"
    return RUN_STATUS[row.status]


def ended_at(last: Event | None, default: int) -> int:
    """When a run ended, or else when it was asked for."""
    return last.at if isinstance(last, RunFinished | RunInterrupted | RunFailed | RunCancelled) else default


def error_of(last: Event | None) -> dict[str, str] | None:
    """What went wrong in a run, in words that are for clients."""
    match last:
        case RunFailed():
            return {"error": last.error or last.code, "message": last.detail or last.message}
        case RunFinished(incomplete="recursion_limit"):
            return {"error": "GraphRecursionError", "message": "The recursion limit was reached."}
        case RunCancelled():
            name = CANCELLED.get(last.reason, "UserInterrupt")
            return {"error": name, "message": "The run was cancelled."}
    return None


def run_object(row: RunRow, record: RunRecord, last: Event | None) -> dict[str, Any]:
    """A run. `last` is its last event, if it has ended."""
    return {
        "run_id": shown_run_id(row.id),
        "thread_id": row.thread_id,
        "assistant_id": record.assistant_id,
        "metadata": record.metadata,
        "status": run_status(row, last),
        "kwargs": record.kwargs,
        "multitask_strategy": record.multitask_strategy,
        "created_at": iso(row.created_at),
        "updated_at": iso(ended_at(last, row.created_at)),
    }


def location(thread_id: str, run_id: str, what: Literal["", "stream", "join"] = "") -> str:
    """Where a run is, without whatever the API is mounted at: clients put that before it."""
    place = f"/threads/{thread_id}/runs/{shown_run_id(run_id)}"
    return f"{place}/{what}" if what else place


def state_object(state: Mapping[str, Any], thread_id: str) -> dict[str, Any]:
    """A state as the graph's room tells it, with the thread's own id and the runs' ids as UUIDs."""

    def place(checkpoint: Mapping[str, Any] | None) -> dict[str, Any] | None:
        return None if checkpoint is None else {**checkpoint, "thread_id": thread_id}

    def task(each: Mapping[str, Any]) -> dict[str, Any]:
        inner = each.get("state")
        return {
            **each,
            "checkpoint": place(each.get("checkpoint")),
            "state": None if inner is None else state_object(inner, thread_id),
        }

    metadata = dict(state["metadata"] or {})
    if isinstance(metadata.get("run_id"), str):
        metadata["run_id"] = shown_run_id(metadata["run_id"])
    checkpoint, parent = place(state["checkpoint"]), place(state["parent_checkpoint"])
    return {
        **state,
        "tasks": [task(each) for each in state["tasks"]],
        "metadata": {**metadata, "thread_id": thread_id},
        "checkpoint": checkpoint,
        "parent_checkpoint": parent,
        "checkpoint_id": (checkpoint or {}).get("checkpoint_id"),
        "parent_checkpoint_id": (parent or {}).get("checkpoint_id"),
    }


EMPTY_STATE: Mapping[str, Any] = {
    "values": {},
    "next": [],
    "tasks": [],
    "metadata": None,
    "created_at": None,
    "checkpoint": None,
    "parent_checkpoint": None,
    "interrupts": [],
    "checkpoint_id": None,
    "parent_checkpoint_id": None,
}
"""The state of a thread in which nothing was said."""


def interrupts_of(tasks: Sequence[Mapping[str, Any]]) -> dict[str, Any]:
    """The questions of a thread, by the task that asks."""
    return {task["id"]: task["interrupts"] for task in tasks if task.get("interrupts")}
