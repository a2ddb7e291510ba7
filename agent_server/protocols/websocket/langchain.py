"""`langchain.v2`: the events of LangChain's `astream_events(version="v2")`, as they are.

Of a `run` frame: `message` is a text for the agent, `input` a graph's whole input in its place, `resume` answers to
questions by their ids; `threadId` names the conversation, `agent` the agent, `events` the kinds of events wanted.
"""

from __future__ import annotations

from collections.abc import Collection, Mapping
from functools import partial
from typing import Annotated, Any, Protocol, assert_never

import msgspec
from msgspec import UNSET, Meta, Struct, UnsetType

from agent_server import events as ev
from agent_server import ids
from agent_server.context import RequestContext
from agent_server.errors import NotFoundError, RequestError
from agent_server.framing import Frame
from agent_server.graph.agent import Agent
from agent_server.graph.inputs import Message, Text, Turn
from agent_server.http.identity import TENANT
from agent_server.http.typed import typed
from agent_server.http.wire import Caller, Command, Live
from agent_server.protocols.websocket.envelope import Envelope
from agent_server.runs.log import EventLog
from agent_server.runs.threads import Ask, Found, Threads
from agent_server.settings import Settings

PROTOCOL = "langchain"

_THREAD = Annotated[str, Meta(min_length=1, max_length=512)]


class Agents(Protocol):
    """The agents of an app."""

    async def opened(self) -> Mapping[str, Agent]:
        """All agents by name."""
        ...


class _Run(Struct, frozen=True, rename="camel"):
    message: Annotated[str, Meta(min_length=1)] | None = None
    input: Any = UNSET
    resume: dict[str, Any] | UnsetType = UNSET
    thread_id: _THREAD | None = None
    agent: str | None = None
    events: list[str] | None = None
    user_id: str | None = None


class _Resume(Struct, frozen=True, rename="camel"):
    run_id: str | None = None
    thread_id: _THREAD | None = None
    events: list[str] | None = None


class _Wire(Struct, frozen=True):
    """What is kept with a run, to tell it again."""

    events: list[str] = []


_wire_of: msgspec.json.Decoder[_Wire] = msgspec.json.Decoder(_Wire)


class LangChainEncoder:
    """A fold of a run's events into the raw ones among them, of the kinds that are wanted."""

    def __init__(self, kinds: Collection[str]) -> None:
        self._kinds = frozenset(kinds)

    def feed(self, event: ev.Event) -> list[Frame]:
        """The frame of a raw event; every other event is told by raw ones, too."""
        match event:
            case ev.RawEvent():
                kind = str(event.event.get("event", ""))
                return [Frame(kind, event.event)] if kind in self._kinds else []
            case ev.TextDelta() | ev.ReasoningDelta() | ev.RefusalDelta() | ev.ArgsDelta() | ev.Annotated():
                return []
            case ev.MessageStarted() | ev.BlockStarted() | ev.BlockFinished() | ev.MessageFinished():
                return []
            case ev.ToolStarted() | ev.ToolProgress() | ev.ToolFinished() | ev.StepStarted() | ev.StepFinished():
                return []
            case ev.StatePart() | ev.Custom() | ev.RunStarted() | ev.RunRetried():
                return []
            case ev.RunFinished() | ev.RunInterrupted() | ev.RunFailed() | ev.RunCancelled():
                return []  # the envelope tells the end
            case _:
                assert_never(event)


class LangChainWire(Envelope):
    """The wire of one app."""

    def __init__(self, agents: Agents, threads: Threads, settings: Settings) -> None:
        self._agents = agents
        self._threads = threads
        self._default = settings.default_agent
        self._allowed = settings.socket_events

    async def begin(self, command: Command, caller: Caller) -> Live:
        """Begin a run that records raw events. Raises `RequestError`."""
        run = typed(command.body, _Run)
        given = [name for name in ("message", "input", "resume") if getattr(run, name) not in (None, UNSET)]
        if len(given) != 1:
            message = "A run is a 'message', an 'input' or a 'resume': give one of them."
            raise RequestError(message, param="message", code="missing_required_parameter")
        kinds = self._kinds(run.events)
        said: list[Turn] = [] if run.message is None else [Message("user", (Text(run.message),))]
        thread_id = run.thread_id or ids.new_conversation_id()
        ask = Ask(
            TENANT,
            thread_id,
            await self._agent(run.agent),
            turns=said,
            value=run.input,
            resume=None if isinstance(run.resume, UnsetType) else run.resume,
            context=RequestContext(
                request_id=caller.request_id,
                **caller.identity._asdict(),
                conversation_id=thread_id,
                user_id=run.user_id,
            ),
            record=frozenset({"events"}),
            protocol=PROTOCOL,
            wire=msgspec.json.encode(_Wire(sorted(kinds))),
        )
        begun = await self._threads.begin(ask)
        return self._live(begun.id, thread_id, begun.log, kinds)

    async def find(self, command: Command, caller: Caller) -> Live | None:
        """The run of that id, or the last of that thread. Raises `RequestError`."""
        resume = typed(command.body, _Resume)
        found = await found_by(self._threads, resume.run_id, resume.thread_id)
        if found is None:
            return None
        kept = _wire_of.decode(found.wire).events if found.protocol == PROTOCOL else None
        return self._live(found.row.id, found.row.thread_id, found.log, self._kinds(resume.events or kept))

    def _live(self, run_id: str, thread_id: str, log: EventLog, kinds: Collection[str]) -> Live:
        cancel = partial(self._threads.cancel, TENANT, run_id)
        return Live(run_id, thread_id, log, LangChainEncoder(kinds), cancel)

    def _kinds(self, wanted: list[str] | None) -> Collection[str]:
        if wanted is None:
            return self._allowed
        if unknown := sorted(set(wanted) - set(self._allowed)):
            message = f"Events {unknown[0][:64]!r} are not served. These are: {', '.join(self._allowed)}."
            raise RequestError(message, param="events")
        return wanted

    async def _agent(self, name: str | None) -> Agent:
        agents = await self._agents.opened()
        name = name or self._default or next(iter(agents))
        if name not in agents:
            raise NotFoundError(f"There is no agent '{name[:100]}'.", param="agent", code="agent_not_found")
        return agents[name]


async def found_by(threads: Threads, run_id: str | None, thread_id: str | None) -> Found | None:
    """The run of an id; else the one that is active on a thread, or its last one. Raises `RequestError`."""
    if run_id is not None:
        return await threads.find(TENANT, run_id)
    if thread_id is None:
        raise RequestError("Name a 'runId' or a 'threadId' to resume.", param="runId")
    return await threads.active(TENANT, thread_id) or await threads.last(TENANT, thread_id)
