"""The state of a thread: read, listed, written by hand, copied, pruned.

The head of a thread is its last run that left a state, whatever became of it.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any, NamedTuple

import msgspec

from agent_server import ids
from agent_server.errors import ConflictError, NotFoundError, OverloadedError
from agent_server.events import RunFailed
from agent_server.graph.agent import Agent, RunnableAgent
from agent_server.graph.checkpoints import Checkpoints, Memory
from agent_server.graph.history import Editing, Update, copying, prune, state_at, states, updating
from agent_server.graph.tuning import Tuning
from agent_server.http.identity import TENANT
from agent_server.protocols.langgraph.assistants import Assistants, default_id
from agent_server.protocols.langgraph.refusals import UnprocessableError
from agent_server.protocols.langgraph.shown import EDIT, EMPTY_STATE, RunRecord, state_object
from agent_server.runs.stores.port import TERMINAL_STATUSES, RunRow, RunStatus
from agent_server.runs.threads import Ask, Threads

BUSY = "Thread is busy: its state cannot be changed while a run is in progress."


class Place(NamedTuple):
    """A checkpoint that a client names: its id, or "" for the thread's last one, and its subgraph's namespace."""

    checkpoint_id: str = ""
    namespace: str = ""

    @classmethod
    def read(cls, checkpoint: Any, checkpoint_id: Any = None) -> Place:
        """From `checkpoint` and `checkpoint_id`. Raises `UnprocessableError`."""
        given = {} if checkpoint is None else checkpoint
        if not isinstance(given, Mapping):
            raise UnprocessableError("'checkpoint' must be an object.", param="checkpoint")
        found = given.get("checkpoint_id") or checkpoint_id or ""
        namespace = given.get("checkpoint_ns") or ""
        if not isinstance(found, str) or not isinstance(namespace, str):
            raise UnprocessableError("'checkpoint' must hold texts.", param="checkpoint")
        return cls(found, namespace)


HEAD = Place()
_RUNNING: frozenset[RunStatus] = frozenset({"running"})


class ThreadStates:
    """The states of one app's threads."""

    def __init__(self, assistants: Assistants, threads: Threads, checkpoints: Checkpoints) -> None:
        self._assistants = assistants
        self._threads = threads
        self._checkpoints = checkpoints

    async def head(self, thread_id: str, *, running: bool = False) -> tuple[RunRow, Agent] | None:
        """The run that left a thread's state, and its agent; None for an empty thread. With `running` it may be one
        that is about to leave it."""
        statuses: frozenset[RunStatus] = TERMINAL_STATUSES | _RUNNING if running else TERMINAL_STATUSES
        row = await self._threads.head(TENANT, thread_id, statuses)
        agent = None if row is None else (await self._assistants.agents()).get(row.agent)
        return None if row is None or agent is None else (row, agent)

    async def at(self, thread_id: str, place: Place = HEAD, *, subgraphs: bool = False) -> dict[str, Any] | None:
        """A state as the API shows it; None where there is none at that place."""
        shown = await self._at(thread_id, place, subgraphs=subgraphs)
        if place == HEAD and shown is not None and not shown["next"]:
            # a thread with nothing next is taken for idle, and not followed
            active = await self._threads.active(TENANT, thread_id)
            return shown if active is None else {**shown, "next": ["__start__"]}
        return shown

    async def _at(self, thread_id: str, place: Place, *, subgraphs: bool) -> dict[str, Any] | None:
        found = await self.head(thread_id, running=True)
        if found is None:
            return None if place.checkpoint_id else dict(EMPTY_STATE)
        row, agent = found
        if not agent.remembers or not row.checkpoints:
            said = await self._threads.messages(TENANT, thread_id, agent)
            return None if place.checkpoint_id else {**EMPTY_STATE, "values": {"messages": said}}
        memory = Memory(self._checkpoints, row.checkpoints, after=row.id, checkpoint=place.checkpoint_id)
        state = await state_at(agent, memory, subgraphs=subgraphs, namespace=place.namespace)
        if state is None:
            return None if place.checkpoint_id or place.namespace else dict(EMPTY_STATE)
        return state_object(state, thread_id)

    async def history(
        self, thread_id: str, *, limit: int, before: Place, metadata: Mapping[str, Any], place: Place
    ) -> list[dict[str, Any]]:
        """The states of a thread, newest first. `place` is the first of them, or names a subgraph."""
        found = await self.head(thread_id, running=True)
        if found is None:
            return []
        row, agent = found
        runs = {each.id for each in await self._threads.rows(TENANT, thread_id)}
        memory = Memory(self._checkpoints, row.checkpoints, after=row.id)
        asked = {key: value for key, value in metadata.items() if key != "thread_id"}
        if isinstance(asked.get("run_id"), str):
            asked["run_id"] = asked["run_id"].replace("-", "")
        told = await states(
            agent,
            memory,
            runs,
            limit=limit,
            before=before.checkpoint_id or None,
            metadata=asked,
            namespace=place.namespace,
        )
        shown = [state_object(each, thread_id) for each in told]
        if place.checkpoint_id:
            names = [each["checkpoint_id"] for each in shown]
            shown = shown[names.index(place.checkpoint_id) :] if place.checkpoint_id in names else []
        return shown

    # -- writing -------------------------------------------------------------------------------------------

    async def update(self, thread_id: str, update: Update, place: Place, agent: RunnableAgent | None) -> dict[str, Any]:
        """Write to a thread's state, at its end or at an older place. Where the new checkpoint is.

        `agent` is whose state it is to be if the thread is empty.
        """
        found = await self.head(thread_id)
        chosen = agent if found is None else found[1]
        if not isinstance(chosen, RunnableAgent):
            raise UnprocessableError("This thread has no graph yet: run an assistant on it first.", param="thread_id")
        if place.checkpoint_id and await self.at(thread_id, place) is None:
            raise NotFoundError("Checkpoint not found.", param="checkpoint_id")
        return await self._edit(thread_id, updating(chosen, [[update]]), place.checkpoint_id)

    async def build(self, thread_id: str, agent: RunnableAgent, supersteps: Sequence[Sequence[Update]]) -> None:
        """Give an empty thread a state, step by step."""
        await self._edit(thread_id, updating(agent, supersteps))

    async def copy(self, source_id: str, target_id: str) -> None:
        """Bring all that a thread knows into another, empty one."""
        found = await self.head(source_id)
        if found is None or not isinstance(found[1], RunnableAgent) or not found[0].checkpoints:
            return
        row, agent = found[0], found[1]
        run_id = ids.new_run_id()
        memory = Memory(self._checkpoints, row.checkpoints, after=row.id)
        await self._edit(target_id, copying(agent, memory, run_id), run_id=run_id)

    async def keep_latest(self, thread_id: str) -> bool:
        """Forget all states of a thread but its last."""
        found = await self.head(thread_id)
        if found is None:
            return False
        row, agent = found
        return await prune(agent, Memory(self._checkpoints, row.checkpoints, after=row.id))

    async def _edit(
        self, thread_id: str, editing: Editing, checkpoint: str = "", run_id: str | None = None
    ) -> dict[str, Any]:
        """Change a thread's checkpoints, as a run of its own that nothing else of the thread can overlap."""
        assistant = default_id(editing.name)
        about = {"graph_id": editing.name, "assistant_id": assistant}
        ask = Ask(
            TENANT,
            thread_id,
            editing,
            run_id=run_id or ids.new_run_id(),
            protocol=EDIT,
            wire=msgspec.json.encode(RunRecord(assistant, about)),
            value=None,
            goes_on=TERMINAL_STATUSES,
            tuning=Tuning(metadata=about, checkpoint=checkpoint),
            watched=False,
        )
        try:
            run = await self._threads.begin(ask)
        except ConflictError:
            raise ConflictError(BUSY, param="thread_id", code="thread_busy") from None
        await run.log.until_over()
        last = run.log.read(0)[-1]
        if isinstance(last, RunFailed):
            if last.code == "server_error":
                raise OverloadedError(last.message)
            raise UnprocessableError(last.message)
        if not editing.placed:
            raise OverloadedError("The change was cut short. Try again.")
        return {**editing.placed[0], "thread_id": thread_id}
