"""Chats: a request begun as a run of its thread, and the run found again as the stream of a message."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import replace
from typing import Any, NamedTuple, Protocol

import msgspec

from agent_server.context import RequestContext
from agent_server.errors import NotFoundError, RequestError, UnsupportedError
from agent_server.events import Event
from agent_server.graph.agent import Agent
from agent_server.http.identity import TENANT, Identity
from agent_server.protocols.aisdk.encoder import AiSdkEncoder, SdkVersion, message_id
from agent_server.protocols.aisdk.history import PROTOCOL, History, Plan, Record, kept_events, record_of
from agent_server.protocols.aisdk.request import ChatRequest, parse_chat
from agent_server.protocols.aisdk.stream import Following
from agent_server.runs.engine import Run
from agent_server.runs.log import EventLog
from agent_server.runs.threads import Ask, Found, Threads, check_id
from agent_server.settings import Settings

STOPPED = "stopped"


class Agents(Protocol):
    """The agents of an app."""

    async def opened(self) -> Mapping[str, Agent]:
        """All agents by name."""
        ...


class Telling(NamedTuple):
    """A run as a stream: its log, and a fold that nothing was fed to yet."""

    run_id: str
    log: EventLog
    encoder: AiSdkEncoder


class Chats:
    """The chats of one app. A chat is a thread, its id the thread's."""

    def __init__(self, agents: Agents, threads: Threads, settings: Settings) -> None:
        self._agents = agents
        self._threads = threads
        self._settings = settings

    async def begin(
        self, body: Mapping[str, Any], *, identity: Identity, request_id: str = "", version: SdkVersion | None = None
    ) -> Telling:
        """Begin what a body asks for; it is told from where the client's own message ends.

        `version` is the client's where the body does not name it. Raises `RequestError` and what `Threads` raises.
        """
        request = parse_chat(body)
        version = request.version or version or self._settings.ai_sdk_version
        rows = await self._threads.rows(TENANT, request.chat_id)
        plan = await History(self._threads, rows, request, version).plan()
        agent = await self._agent(request, plan, rows[-1].agent if rows else "")
        _check_tools(request, agent)
        context = RequestContext(
            request_id=request_id,
            **identity._asdict(),
            conversation_id=request.chat_id,
            custom_inputs=request.custom_inputs,
            options=request.options,
        )
        if plan.resume is not None and plan.turns:
            await self._run(request, plan, agent, context, resume=plan.resume)
            run = await self._run(request, plan, agent, context, turns=plan.turns, waits=True)
            return Telling(run.id, run.log, _encoder(plan.after))
        run = await self._run(request, plan, agent, context, resume=plan.resume, turns=plan.turns)
        before = await self._before(plan.record)
        encoder = _encoder(plan.record, len(before))
        encoder.past(event for events in before for event in events)
        return Telling(run.id, run.log, encoder)

    async def _run(
        self,
        request: ChatRequest,
        plan: Plan,
        agent: Agent,
        context: RequestContext,
        *,
        resume: Mapping[str, Any] | None = None,
        turns: Sequence[Any] = (),
        waits: bool = False,
    ) -> Run:
        ask = Ask(
            TENANT,
            request.chat_id,
            agent,
            turns=turns,
            resume=resume,
            context=context,
            record=frozenset({"custom"}),
            busy="enqueue" if waits else self._settings.busy_conversation,
            protocol=PROTOCOL,
            wire=msgspec.json.encode(plan.after if waits else plan.record),
        )
        if plan.previous:
            ask = replace(ask, previous=plan.previous)
        elif plan.previous is not None:
            ask = replace(ask, goes_on=frozenset())
        return await self._threads.begin(ask)

    async def _agent(self, request: ChatRequest, plan: Plan, last: str) -> Agent:
        """The agent that is named, else the one that the chat has been with, else the default one."""
        agents = await self._agents.opened()
        if request.agent is not None and request.agent not in agents:
            raise NotFoundError(f"There is no agent '{request.agent[:100]}'.", param="agent", code="agent_not_found")
        names = (request.agent, request.model, plan.agent, last, self._settings.default_agent)
        return agents[next((name for name in names if name and name in agents), next(iter(agents)))]

    async def _before(self, record: Record) -> list[list[Event]]:
        """The events of a message's earlier runs, as far as they are kept."""
        found = [await kept_events(self._threads, run_id) for run_id in record.before]
        return [events for events in found if events]

    # -- what is going on ----------------------------------------------------------------------------------

    async def active(self, chat_id: str, version: SdkVersion | None = None) -> Telling | None:
        """The message that is being told, from its very beginning; None if there is none."""
        found = await self._threads.active(TENANT, check_id(chat_id, "id"))
        if found is None:
            return None
        record = record_of(found.row, version or self._settings.ai_sdk_version)
        before = await self._before(record)
        log = Following([event for events in before for event in events], found.log) if before else found.log
        return Telling(found.row.id, log, _encoder(record, len(before)))

    async def stop(self, chat_id: str, stream_id: str | None = None) -> None:
        """Stop the run that is going on, if it is the one named: by its id, or by its message's."""
        found = await self._threads.active(TENANT, check_id(chat_id, "id"))
        if found is not None and (stream_id is None or stream_id in _names(found)):
            await self.stop_run(found.row.id)

    async def stop_run(self, run_id: str, reason: str = STOPPED) -> None:
        """Stop a run; what it said is kept."""
        await self._threads.cancel(TENANT, run_id, reason)


def _encoder(record: Record, earlier: int = 0) -> AiSdkEncoder:
    """A fold of a message, `earlier` of whose runs come before the last one."""
    return AiSdkEncoder(record.version, runs=earlier + 1, denied=record.denied, name=record.name)


def _names(found: Found) -> set[str]:
    record = record_of(found.row, 6)
    first = record.before[0] if record.before else found.row.id
    return {found.row.id, message_id(first), record.name}


def _check_tools(request: ChatRequest, agent: Agent) -> None:
    tools = request.options.tools
    if tools and not agent.takes_options:
        message = f"The agent {agent.name!r} takes no tools of clients; it lacks the RequestOptions middleware."
        raise UnsupportedError(message, param="tools")
    for tool in tools:
        if tool["name"] in agent.tool_names:
            message = f"The agent has a tool of its own named {tool['name']!r}; give yours another name."
            raise RequestError(message, param=f"tools.{tool['name']}", code="duplicate_tool")
