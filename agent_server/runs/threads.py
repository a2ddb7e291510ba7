"""Threads: conversations that go on from run to run, by whatever protocol each of the runs comes.

A run goes on from the thread's head: its last run that left something to go on from. What the head is is settled when
the run's turn has come, so that no turn is ever lost to two clients that ask at once.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from functools import partial
from typing import Any, NamedTuple

from msgspec import UNSET

from agent_server import ids
from agent_server.context import RequestContext
from agent_server.errors import ConflictError, RequestError
from agent_server.events import Interrupt, RunInterrupted, RunStarted
from agent_server.graph.agent import Agent
from agent_server.graph.checkpoints import Checkpoints, Memory
from agent_server.graph.converter import now_ms
from agent_server.graph.drive import Invocation
from agent_server.graph.history import state_at
from agent_server.graph.inputs import Turn
from agent_server.graph.source import SourceName
from agent_server.graph.state import State, state_of
from agent_server.graph.transcript import messages_json, told
from agent_server.graph.tuning import UNTUNED, Tuning
from agent_server.runs.engine import Engine, Run, Watcher
from agent_server.runs.keeper import Busy, Keeping
from agent_server.runs.log import EventLog
from agent_server.runs.rows import protocol_of, started_of, turns_of, wire_of
from agent_server.runs.stores.port import TERMINAL_STATUSES, RunRow, RunStatus

GOES_ON: frozenset[RunStatus] = frozenset({"completed", "interrupted"})
"""The statuses of runs that others can go on from. One that failed or was cancelled said nothing to the end."""

LONGEST_ID = 512
"""Characters of a thread's id."""


@dataclass(frozen=True, slots=True)
class Ask:
    """One run that is asked for on a thread.

    `turns` are what is new; an agent that remembers nothing is given what was said before along with them. `state`
    are further keys of a graph's input, `value` is its whole input in place of `turns`.
    `resume` answers the questions that the thread waits with, by their ids: all of them, unless it is `partial`.
    `goes_on` are the statuses of runs to go on from; `previous` names the run to go on from, "" for the head.
    `wire` is JSON that the protocol wants back with the run; `model` and `echo` are for `RunStarted`. `tuning` is what
    the client says of how a graph is run, and the checkpoint of the thread that it may begin at. `not_before` is
    a time, in Unix milliseconds, that the run waits for in line. A run that is not `watched` leaves no trace.
    """

    tenant: str
    thread_id: str
    agent: Agent
    run_id: str = field(default_factory=ids.new_run_id)
    turns: Sequence[Turn] = ()
    state: Mapping[str, Any] = field(default_factory=dict)
    value: Any = UNSET
    resume: Mapping[str, Any] | None = None
    partial: bool = False
    context: RequestContext = field(default_factory=RequestContext)
    record: frozenset[str] = frozenset()
    busy: Busy = "reject"
    protocol: str = ""
    wire: bytes = b"{}"
    model: str = ""
    echo: Mapping[str, Any] = field(default_factory=dict)
    at_each_step: bool = False
    goes_on: frozenset[RunStatus] = GOES_ON
    previous: str = ""
    tuning: Tuning = UNTUNED
    not_before: int | None = None
    watched: bool = True


Watch = Callable[[Invocation, str], Watcher | None]
"""Who watches a run of the thread of that id, before it begins; None for nobody."""


class Found(NamedTuple):
    """A run that is kept, with its log."""

    row: RunRow
    log: EventLog

    @property
    def protocol(self) -> str:
        """The protocol that it came by."""
        return protocol_of(self.row)

    @property
    def wire(self) -> bytes:
        """What that protocol wanted back."""
        return wire_of(self.row)

    @property
    def turns(self) -> list[Turn]:
        """What its request said."""
        return turns_of(self.row)

    @property
    def started(self) -> RunStarted:
        """Its first event, also while it waits in line."""
        return started_of(self.row)

    @property
    def is_over(self) -> bool:
        """Whether it has ended, as far as its row tells."""
        return self.row.status in TERMINAL_STATUSES


class Threads:
    """The threads of one app. `retention_days` is how long their runs are kept, 0 for ever; `watch` sees each begin."""

    def __init__(
        self,
        engine: Engine,
        checkpoints: Checkpoints,
        *,
        retention_days: float = 0.0,
        source: SourceName = "tap",
        watch: Watch | None = None,
    ) -> None:
        self._engine = engine
        self._checkpoints = checkpoints
        self._kept_ms = round(retention_days * 86_400_000)
        self._source = source
        self._watch = watch

    async def open(self) -> None:
        """Open the store. It opens with the app's lifespan, or else with the first request."""
        await self._engine.open()
        await self._checkpoints.open()

    # -- running -------------------------------------------------------------------------------------------

    async def begin(self, ask: Ask) -> Run:
        """Accept a run: it is committed when this returns, and goes on whoever leaves.

        Raises `ConflictError` when the thread is busy and the run is not to wait, `RequestError` for what the agent
        cannot take and for answers to questions that nobody asked, and `OverloadedError`.
        """
        await self.open()
        check_id(ask.thread_id)
        ask.agent.context_for(ask.context)  # refuses what the agent cannot be given
        head = await self._origin(ask)
        memory = self._memory(ask, head)
        invocation = await self._invocation(ask, head, memory)
        now = now_ms()
        keeping = Keeping(
            ask.tenant,
            ask.thread_id,
            previous=head.id if head is not None else "",
            checkpoints=memory.thread_id if memory is not None else "",
            wire=ask.wire,
            expires_at=now + self._kept_ms if self._kept_ms else None,
            busy=ask.busy,
            protocol=ask.protocol,
            turns=ask.turns,
            not_before=ask.not_before,
        )
        settle = partial(self._settle, ask, head, invocation)
        watcher = None
        if self._watch is not None and ask.watched:
            watcher = self._watch(replace(invocation, turns=ask.turns), ask.thread_id)
        return await self._engine.keep(
            invocation, keeping, model=ask.model, echo=ask.echo, watcher=watcher, settle=settle
        )

    async def cancel(self, tenant: str, run_id: str, reason: str = "cancelled") -> RunRow | None:
        """Stop a run, wherever it runs. Its row when it is over; None if there is no such run."""
        return await self._engine.cancel_run(tenant, run_id, reason)

    async def _settle(self, ask: Ask, assumed: RunRow | None, invocation: Invocation) -> Invocation:
        """The run's turn has come: what it goes on from is certain now."""
        head = await self._origin(ask)
        if (head.id if head is not None else "") == (assumed.id if assumed is not None else ""):
            return invocation
        memory = self._memory(ask, head)
        checkpoints = memory.thread_id if memory is not None else ""
        store = self._engine.keeper.store
        await store.go_on_from(ask.tenant, ask.run_id, head.id if head is not None else "", checkpoints)
        return await self._invocation(ask, head, memory)

    async def _origin(self, ask: Ask) -> RunRow | None:
        """The run to go on from. Raises `RequestError` for answers that nobody waits for."""
        if ask.previous:
            head = await self._engine.keeper.row(ask.tenant, ask.previous)
        else:
            head = await self._head(await self.rows(ask.tenant, ask.thread_id), ask.goes_on, ask.run_id)
        if ask.resume is not None:
            waiting = await self._questions(ask.tenant, head)
            _check_answers(ask, waiting)
        return head

    def _memory(self, ask: Ask, head: RunRow | None) -> Memory | None:
        if not ask.agent.remembers:
            return None
        if head is None or not _remembered(head, ask.agent):
            return Memory(self._checkpoints, f"{ask.tenant}:{ask.run_id}", at_each_step=ask.at_each_step)
        place = Memory(self._checkpoints, head.checkpoints, after=head.id, at_each_step=ask.at_each_step)
        return replace(place, checkpoint=ask.tuning.checkpoint, continues=ask.tuning.continues)

    async def _invocation(self, ask: Ask, head: RunRow | None, memory: Memory | None) -> Invocation:
        turns = ask.turns
        if head is not None and ask.value is UNSET and ask.resume is None and not _remembered(head, ask.agent):
            turns = [*await self._said(ask.tenant, head), *turns]
        return Invocation(
            ask.run_id,
            ask.agent,
            turns,
            await self._context(ask, head),
            source=self._source,
            record=ask.record,
            memory=memory,
            resume=ask.resume,
            state=ask.state,
            value=ask.value,
            tuning=ask.tuning,
        )

    async def _context(self, ask: Ask, head: RunRow | None) -> RequestContext:
        """Calls that wait are of tools that a client declared; who answers them need not declare them again."""
        if ask.resume is None or not ask.agent.takes_options:
            return ask.context
        options = ask.context.options
        called = [each.value["name"] for each in await self._questions(ask.tenant, head) if each.kind == "client_tool"]
        known = {tool["name"] for tool in options.tools}
        tools = (*options.tools, *({"name": name} for name in dict.fromkeys(called) if name not in known))
        return replace(ask.context, options=replace(options, tools=tools))

    # -- reading -------------------------------------------------------------------------------------------

    async def rows(self, tenant: str, thread_id: str) -> list[RunRow]:
        """The runs of a thread, oldest first."""
        await self.open()
        return await self._engine.keeper.store.runs(tenant, thread_id)

    async def find(self, tenant: str, run_id: str) -> Found | None:
        """A run that is kept. Raises `GoneError` for one that has expired."""
        await self.open()
        found = await self._engine.find(tenant, run_id)
        return None if found is None else Found(*found)

    async def active(self, tenant: str, thread_id: str) -> Found | None:
        """The run of a thread that is running, or else the first that waits."""
        rows = [row for row in await self.rows(tenant, thread_id) if row.status not in TERMINAL_STATUSES]
        first = next((row for row in rows if row.status == "running"), rows[0] if rows else None)
        return None if first is None else await self.find(tenant, first.id)

    async def last(self, tenant: str, thread_id: str) -> Found | None:
        """The newest run of a thread, whatever became of it."""
        rows = [row for row in await self.rows(tenant, thread_id) if row.agent]
        return await self.find(tenant, rows[-1].id) if rows else None

    async def head(self, tenant: str, thread_id: str, goes_on: frozenset[RunStatus] = GOES_ON) -> RunRow | None:
        """The last run of a thread that others can go on from."""
        return await self._head(await self.rows(tenant, thread_id), goes_on)

    async def waiting(self, tenant: str, thread_id: str) -> tuple[Interrupt, ...]:
        """The questions that a thread waits with."""
        return await self._questions(tenant, await self.head(tenant, thread_id))

    async def messages(self, tenant: str, thread_id: str, agent: Agent) -> list[dict[str, Any]]:
        """What was said in a thread so far, as LangChain messages in plain JSON.

        From the agent's state where it has messages, else from what its runs told.
        """
        head = await self.head(tenant, thread_id)
        if head is None:
            return []
        state = await self._state(head, agent)
        said = state.values.get("messages") if state is not None and isinstance(state.values, dict) else None
        return said if isinstance(said, list) else messages_json(await self._said(tenant, head))

    async def state(self, tenant: str, thread_id: str, agent: Agent) -> State | None:
        """The state of a thread's graph, as its head left it; None for an empty thread, and for what is no graph."""
        head = await self.head(tenant, thread_id)
        return None if head is None else await self._state(head, agent)

    async def state_at(self, agent: Agent, head: RunRow, checkpoint: str = "") -> dict[str, Any] | None:
        """The state that a run left, or another one of its thread by its checkpoint's id; None where there is none."""
        if not _remembered(head, agent):
            return None
        return await state_at(agent, Memory(self._checkpoints, head.checkpoints, after=head.id, checkpoint=checkpoint))

    async def _head(self, rows: Sequence[RunRow], goes_on: frozenset[RunStatus], but: str = "") -> RunRow | None:
        """A run that did not end well is one to go on from if it left a checkpoint."""
        for row in sorted(rows, key=lambda each: each.base)[::-1]:  # in the order in which they ran
            may_be = row.agent and row.id != but and row.status in goes_on
            if may_be and (row.status in GOES_ON or await self._checkpoints.has(row.checkpoints, row.id)):
                return row
        return None

    async def _state(self, head: RunRow, agent: Agent) -> State | None:
        if not _remembered(head, agent):
            return None
        return await state_of(agent, Memory(self._checkpoints, head.checkpoints, after=head.id))

    async def _questions(self, tenant: str, head: RunRow | None) -> tuple[Interrupt, ...]:
        if head is None or head.status != "interrupted":
            return ()
        found = await self._engine.find(tenant, head.id)
        last = found[1].read(0)[-1] if found is not None else None
        return last.interrupts if isinstance(last, RunInterrupted) else ()

    async def _said(self, tenant: str, head: RunRow) -> list[Turn]:
        """The turns up to a run and with it, along the runs that each goes on from."""
        turns: list[Turn] = []
        row: RunRow | None = head
        while row is not None:
            found = await self._engine.find(tenant, row.id)
            events = found[1].read(0) if found is not None else []
            turns = [*turns_of(row), *told(events), *turns]
            row = await self._engine.keeper.store.run(tenant, row.previous) if row.previous else None
        return turns


def check_id(thread_id: str, param: str = "thread_id") -> str:
    """Raises `RequestError` for what cannot be a thread's id."""
    if not 1 <= len(thread_id) <= LONGEST_ID or "\0" in thread_id:
        raise RequestError(f"'{param}' must have 1 to {LONGEST_ID} characters, none of them NUL.", param=param)
    return thread_id


def _remembered(head: RunRow, agent: Agent) -> bool:
    """Whether the agent itself knows what came before."""
    return agent.remembers and bool(head.checkpoints) and head.agent == agent.name


def _check_answers(ask: Ask, waiting: Sequence[Interrupt]) -> None:
    known = {each.id for each in waiting}
    given = set(ask.resume or ())
    if unknown := sorted(given - known):
        message = f"Nobody waits for an answer to '{unknown[0][:100]}'."
        raise ConflictError(message, param="resume", code="interrupt_not_pending")
    if (missing := sorted(known - given)) and not ask.partial:
        raise RequestError(f"The question '{missing[0]}' waits for an answer.", param="resume", code="answer_required")
