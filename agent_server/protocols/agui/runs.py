"""Runs of AG-UI: a request becomes a run of its thread, and any run of a thread can be told in AG-UI."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass, field
from typing import Any, NamedTuple, Protocol

import msgspec
from msgspec import UNSET

from agent_server.context import ModelOptions, RequestContext
from agent_server.errors import GoneError, NotFoundError, RequestError
from agent_server.events import TERMINAL, BlockFinished, Event, Interrupt, MessageStarted
from agent_server.graph.agent import Agent
from agent_server.graph.inputs import Message, Text, Turn, content_of
from agent_server.http.identity import TENANT, Identity
from agent_server.http.stream import Encoder
from agent_server.protocols.agui.encoder import AguiEncoder
from agent_server.protocols.agui.history import News, news_of, seen_of, state_id, turn_of
from agent_server.protocols.agui.input import RunInput, UserMessage, logger, parse
from agent_server.protocols.agui.messages import Seen, content, seen_in
from agent_server.protocols.agui.questions import BREAKPOINT, answers
from agent_server.protocols.agui.reattach import Reattached
from agent_server.runs.log import EventLog
from agent_server.runs.rows import turns_of
from agent_server.runs.stores.port import RunRow, RunStatus
from agent_server.runs.threads import GOES_ON, Ask, Found, Threads
from agent_server.settings import Settings

PROTOCOL = "agui"
RECORD = frozenset({"values", "custom"})

Json = dict[str, Any]


class Agents(Protocol):
    """The agents of an app."""

    async def opened(self) -> Mapping[str, Agent]:
        """All agents by name."""
        ...


class Wire(msgspec.Struct, frozen=True, omit_defaults=True):
    """What is kept with a run: the client's own id of it, and what it had of the thread."""

    run_id: str
    parent_run_id: str = ""
    raw: bool = False
    seen: Seen = Seen()


class Begun(NamedTuple):
    """A run that can be told."""

    run_id: str
    thread_id: str
    log: EventLog
    encoder: Encoder


@dataclass(frozen=True, slots=True)
class Caller:
    """Who asks. `raw` asks for LangChain's own events as well."""

    identity: Identity = field(default_factory=Identity)
    request_id: str = ""
    raw: bool = False


_wire = msgspec.json.Decoder(Wire)


class AguiRuns:
    """The runs of one app."""

    def __init__(self, agents: Agents, threads: Threads, settings: Settings) -> None:
        self._agents = agents
        self._threads = threads
        self._settings = settings

    async def agent(self, name: str | None) -> Agent:
        """An agent by name, or the default one. Raises `NotFoundError`."""
        agents = await self._agents.opened()
        name = name or self._settings.default_agent or next(iter(agents))
        if name not in agents:
            raise NotFoundError(f"There is no agent '{name[:100]}'.", param="agent", code="agent_not_found")
        return agents[name]

    # -- beginning -----------------------------------------------------------------------------------------

    async def begin(self, body: Mapping[str, Any], agent_name: str | None, caller: Caller) -> Begun:
        """Begin the run that a body asks for. Raises `RequestError` naming the parameter."""
        asked = parse(body)
        agent = await self.agent(agent_name)
        wire = Wire(asked.run_id, asked.parent_run_id or "", caller.raw, seen_of(asked))
        run = await self._threads.begin(await self._ask(asked, agent, caller, wire))
        return Begun(run.id, asked.thread_id, run.log, encoder_of(asked.thread_id, wire))

    async def _ask(self, asked: RunInput, agent: Agent, caller: Caller, wire: Wire) -> Ask:
        threads, thread_id = self._threads, asked.thread_id
        head = await threads.head(TENANT, thread_id)
        is_stopped = head is not None and head.status == "interrupted"
        waiting = await threads.waiting(TENANT, thread_id) if is_stopped else ()
        said = await threads.messages(TENANT, thread_id, agent) if head is not None else []
        news = news_of(asked, {str(each.get("id")) for each in said}, _wanted(waiting))
        if is_stopped or asked.resume:
            rest = _resumed(asked, news, waiting)
        else:
            rest = await self._news(asked, news, agent)
        return Ask(
            TENANT,
            thread_id,
            agent,
            context=_context(asked, agent, caller),
            record=RECORD | {"events"} if caller.raw else RECORD,
            busy=self._settings.busy_conversation,
            protocol=PROTOCOL,
            wire=msgspec.json.encode(wire),
            **rest,
        )

    async def _news(self, asked: RunInput, news: News, agent: Agent) -> dict[str, Any]:
        """What a run that answers nothing is to be asked with."""
        state = _state(asked)
        context = _context_turns(asked, agent)
        if news.again is not None:
            again = await self._again(asked, news.again)
            return {**again, "state": state, "turns": [*context, *again["turns"]]}
        turns = news.turns(asked, await self._told(asked, news) if news.unknown and news.said else {})
        if not turns and not state:
            message = "'messages' holds nothing that is new, and 'state' nothing to go on with."
            raise RequestError(message, param="messages", code="empty_array")
        if state and agent.remembers and (now := await self._threads.state(TENANT, asked.thread_id, agent)) is not None:
            values = now.values if isinstance(now.values, dict) else {}
            state = {key: value for key, value in state.items() if key not in values or values[key] != value}
        return {"turns": [*context, *turns], "state": state}

    async def _again(self, asked: RunInput, message: UserMessage) -> dict[str, Any]:
        """Regenerate: go on from before the run that answered this message, which may have been edited."""
        rows = await self._threads.rows(TENANT, asked.thread_id)
        for row in reversed(rows):
            own = {turn.id for turn in turns_of(row) if isinstance(turn, Message)} if row.agent else set()
            if state_id(message.id) in own:
                places = [(p, m) for p, m in enumerate(asked.messages) if isinstance(m, UserMessage)]
                turns = [turn_of(each, place) for place, each in places if state_id(each.id) in own]
                goes_on: frozenset[RunStatus] = GOES_ON if row.previous else frozenset()
                return {"turns": turns, "previous": row.previous, "goes_on": goes_on}
        raise RequestError("The last message is not from a run of this thread.", param="messages", code="empty_array")

    async def _told(self, asked: RunInput, news: News) -> dict[str, str]:
        """The texts of messages of the agent that the thread's state lacks.

        They are this server's own words for runs that failed or were cancelled; in a thread without any run, such as
        one that has expired, they are the client's.
        """
        rows = await self._threads.rows(TENANT, asked.thread_id)
        if not rows:
            return {key: message.content or "" for key, message in news.unknown.items()}
        texts: dict[str, list[str]] = {}
        for row in rows:
            sources: dict[str, str] = {}
            for event in await self._events(row) if row.status in ("failed", "cancelled") else ():
                if isinstance(event, MessageStarted) and event.source_id in news.unknown:
                    sources[event.message_id] = event.source_id
                elif isinstance(event, BlockFinished) and event.message_id in sources and event.kind == "text":
                    texts.setdefault(sources[event.message_id], []).append(event.text)
        return {key: "".join(pieces) for key, pieces in texts.items()}

    async def _events(self, row: RunRow) -> Sequence[Event]:
        """The events of a run; none of one that has expired."""
        with suppress(GoneError):
            if (found := await self._threads.find(TENANT, row.id)) is not None:
                return found.log.read(0)
        return ()

    # -- coming back ---------------------------------------------------------------------------------------

    async def attach(self, agent_name: str, thread_id: str, *, raw: bool = False) -> Begun:
        """The run of a thread that goes on, or else its last: what there is by now, and then the rest.

        Raises `NotFoundError` where there is none.
        """
        agent, found = await self._find(agent_name, thread_id)
        said = await self._threads.messages(TENANT, thread_id, agent)
        state = await self._threads.state(TENANT, thread_id, agent)
        wire = wire_of(found)
        events = found.log.read(0)
        if not wire.seen.ids:
            own = {event.source_id for event in events if isinstance(event, MessageStarted)}
            wire = msgspec.structs.replace(wire, seen=seen_in(each for each in said if each.get("id") not in own))
        encoder = encoder_of(thread_id, msgspec.structs.replace(wire, raw=raw))
        upto = len(events) - 1 if events and type(events[-1]) in TERMINAL else len(events)
        names = {state_id(name): name for name in wire.seen.ids}
        asked = [
            {"id": names.get(turn.id or "", turn.id), "role": "user", "content": content(content_of(turn.parts))}
            for turn in found.turns
            if isinstance(turn, Message) and turn.role == "user" and turn.id
        ]
        told = Reattached(encoder, said, asked, None if state is None else state.values, upto)
        return Begun(found.row.id, thread_id, found.log, told)

    async def cancel(self, agent_name: str, thread_id: str) -> bool:
        """Stop the run of a thread that goes on. Whether there was one."""
        agent = await self.agent(agent_name)
        found = await self._threads.active(TENANT, thread_id)
        if found is None or found.row.agent != agent.name:
            return False
        await self._threads.cancel(TENANT, found.row.id)
        return True

    async def _find(self, agent_name: str, thread_id: str) -> tuple[Agent, Found]:
        agent = await self.agent(agent_name)
        found = await self._threads.active(TENANT, thread_id) or await self._threads.last(TENANT, thread_id)
        if found is None or found.row.agent != agent.name:
            message = f"The agent '{agent.name}' has no thread '{thread_id[:100]}'."
            raise NotFoundError(message, param="thread", code="thread_not_found")
        return agent, found


def wire_of(found: Found) -> Wire:
    """What AG-UI keeps with a run; of another protocol's run, only its id."""
    return _wire.decode(found.wire) if found.protocol == PROTOCOL else Wire(found.row.id)


def encoder_of(thread_id: str, wire: Wire) -> AguiEncoder:
    """A new fold of a run."""
    return AguiEncoder(thread_id, wire.run_id, parent_run_id=wire.parent_run_id, seen=wire.seen, raw=wire.raw)


def _wanted(waiting: Sequence[Interrupt]) -> dict[str, str]:
    """Wire ids of the calls that wait for the client -> their own ids. A call id that was used again is numbered."""
    calls = [call for interrupt in waiting if interrupt.kind == "client_tool" for call in interrupt.call_ids]
    return {name: call for call in calls for name in (call, *(f"{call}:{count}" for count in range(2, 100)))}


def _resumed(asked: RunInput, news: News, waiting: Sequence[Interrupt]) -> dict[str, Any]:
    """What a run that answers questions is to be asked with. Raises `RequestError`."""
    entries = asked.resume or ()
    if not waiting and entries and all(entry.interrupt_id.startswith(BREAKPOINT) for entry in entries):
        return {"value": None}
    resume = answers(waiting, entries, news.outputs)
    if not waiting:
        raise RequestError("The thread is interrupted: 'resume' must say so.", param="resume", code="answer_required")
    if news.said:
        message = "The thread waits for answers; it takes no new message along with them."
        raise RequestError(message, param=f"messages[{news.said[0][0]}]", code="answer_required")
    return {"resume": resume}


def _state(asked: RunInput) -> Json:
    """Keys of the graph's input beside its messages. Raises `RequestError` for what is no object."""
    if asked.state is UNSET or asked.state is None:
        return {}
    if not isinstance(asked.state, dict):
        raise RequestError("'state' must be an object: its keys are the graph's.", param="state", code="invalid_type")
    return {key: value for key, value in asked.state.items() if key != "messages"}


def _context_text(asked: RunInput) -> str:
    """What the application tells the agent of itself."""
    told = [f"- {each.description}: {each.value}" for each in asked.context or ()]
    return "\n".join(["Context from the application:", *told]) if told else ""


def _keeps_context(agent: Agent) -> bool:
    """Whether the context has to be a message of the agent's state, for want of another way to its model."""
    return agent.remembers and not agent.takes_options


def _context_turns(asked: RunInput, agent: Agent) -> list[Turn]:
    """The context as a message that the next one replaces."""
    told = _context_text(asked)
    return [Message("system", (Text(told),), _CONTEXT_ID)] if told and _keeps_context(agent) else []


def _context(asked: RunInput, agent: Agent, caller: Caller) -> RequestContext:
    """What the agent may know of the request. The application's context reaches the model with its instructions."""
    tools: tuple[Json, ...] = ()
    if asked.tools and agent.takes_options:
        tools = tuple(
            {"name": tool.name, "description": tool.description, "parameters": tool.parameters or _NO_PARAMETERS}
            for tool in asked.tools
        )
    elif asked.tools:
        logger.warning("the agent %s takes no tools of a client: %d are left out", agent.name, len(asked.tools))
    told = "" if _keeps_context(agent) else _context_text(asked)
    props = asked.forwarded_props
    return RequestContext(
        request_id=caller.request_id,
        **caller.identity._asdict(),
        conversation_id=asked.thread_id,
        custom_inputs=props if isinstance(props, dict) else {} if props is None else {"forwarded_props": props},
        options=ModelOptions(instructions=told or None, tools=tools),
    )


_CONTEXT_ID = "agui-context"
_NO_PARAMETERS: Json = {"type": "object", "properties": {}}
