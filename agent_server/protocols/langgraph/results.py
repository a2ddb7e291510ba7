"""What became of a run: its object, its end, and the values that whoever waits for it gets."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from agent_server.errors import NotFoundError
from agent_server.events import Event, RunCancelled, RunInterrupted, StatePart, decode
from agent_server.graph.agent import Agent
from agent_server.http.identity import TENANT
from agent_server.protocols.langgraph.assistants import Assistants, default_id
from agent_server.protocols.langgraph.reading import run_id_of
from agent_server.protocols.langgraph.refusals import no_run
from agent_server.protocols.langgraph.shown import EDIT, RunRecord, error_of, record_of, run_object
from agent_server.runs.engine import Engine
from agent_server.runs.log import EventLog
from agent_server.runs.rows import protocol_of, wire_of
from agent_server.runs.stores.port import TERMINAL_STATUSES, RunRow
from agent_server.runs.threads import Found, Threads


class Results:
    """The runs of one app, as they are shown."""

    def __init__(self, assistants: Assistants, threads: Threads, engine: Engine) -> None:
        self._assistants = assistants
        self._threads = threads
        self._engine = engine

    async def find(self, thread_id: str, run_id: str) -> Found:
        """A run of a thread, by the id in an address. Raises 404 for one that is not on that thread."""
        found = await self._threads.find(TENANT, run_id_of(run_id))
        if found is None or found.row.thread_id != thread_id or is_edit(found.row):
            raise no_run()
        return found

    async def rows(self, thread_id: str) -> list[RunRow]:
        """The runs of a thread in which an agent ran, oldest first."""
        return [row for row in await self._threads.rows(TENANT, thread_id) if row.agent and not is_edit(row)]

    def record(self, row: RunRow) -> RunRecord:
        """What was asked for."""
        return record_of(protocol_of(row), wire_of(row), row, default_id(row.agent))

    async def shown(self, row: RunRow) -> dict[str, Any]:
        """A run's object."""
        return run_object(row, self.record(row), await self.last_event(row))

    async def last_event(self, row: RunRow) -> Event | None:
        """The event that ended a run; None for one that has not ended, or never began."""
        if row.status not in TERMINAL_STATUSES or row.length == 0:
            return None
        events = await self._engine.keeper.store.events(TENANT, row.id, row.length - 1, 1)
        return decode(events[0]) if events else None

    async def values(self, row: RunRow, log: EventLog) -> Any:
        """What a run that is over came to: the last values it told, else those of its state; with the questions that
        it stopped at, or what went wrong."""
        events = log.read(0)
        last = events[-1]
        if (error := error_of(last)) is not None:
            return {} if isinstance(last, RunCancelled) else {"__error__": error}
        told = _values_told(events)
        if told is None:
            told = await self._state(row)
        if not isinstance(told, dict):
            return told
        if not isinstance(last, RunInterrupted):
            return {key: value for key, value in told.items() if key != "__interrupt__"}
        if last.interrupts and "__interrupt__" not in told:
            questions = [{"value": each.value, "id": each.id} for each in last.interrupts]
            return {**told, "__interrupt__": questions}
        return told

    async def _state(self, row: RunRow) -> Any:
        agent: Agent | None = (await self._assistants.agents()).get(row.agent)
        if agent is None:
            raise NotFoundError("The agent of this run is not served any more.")
        state = await self._threads.state_at(agent, row)
        if state is not None:
            return state["values"]
        return {"messages": await self._threads.messages(TENANT, row.thread_id, agent)}

    async def report(self, run_id: str) -> dict[str, Any] | None:
        """What a webhook tells of a run that is over."""
        found = await self._threads.find(TENANT, run_id)
        if found is None:
            return None
        row = await self._engine.keeper.row(TENANT, run_id) or found.row
        last = found.log.read(0)[-1]
        told = run_object(row, self.record(row), last)
        return {**told, "values": await self.values(row, found.log), "error": error_of(last)}


def _values_told(events: Sequence[Event]) -> Any:
    """The last values of the graph itself, if the run was asked to tell them."""
    for event in reversed(events):
        if isinstance(event, StatePart) and event.mode == "values" and not event.ns:
            return event.data
    return None


def is_edit(row: RunRow) -> bool:
    """Whether a run only changed its thread's state."""
    return protocol_of(row) == EDIT
