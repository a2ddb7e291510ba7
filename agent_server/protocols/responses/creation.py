"""`POST /responses`, or the same over a WebSocket: from what a client says to a run, and from the run to an answer."""

from __future__ import annotations

from collections.abc import Awaitable, Callable
from dataclasses import replace
from functools import partial
from typing import NamedTuple

import msgspec
from starlette.requests import Request
from starlette.responses import Response
from starlette.types import ASGIApp

from agent_server import framing, ids
from agent_server.errors import AgentError, AgentServerError
from agent_server.events import RunFailed
from agent_server.graph.agent import Agent
from agent_server.graph.checkpoints import Checkpoints, Memory, Scratch
from agent_server.graph.converter import Converter, now_ms
from agent_server.graph.drive import Fold, ForeignAgent, Invocation, Recorder
from agent_server.graph.inputs import Turn
from agent_server.http.body import read_json
from agent_server.http.errors import error_response
from agent_server.http.identity import TENANT, Network, identity_of
from agent_server.http.stream import EventStream, read_to_end
from agent_server.protocols.responses.asked import (
    Agents,
    Asked,
    Dialect,
    RunTrace,
    Said,
    Tracer,
    check_key,
    choose,
    conversation_of,
    remembers,
    tool_items_of,
)
from agent_server.protocols.responses.claims import Claims, claims_of
from agent_server.protocols.responses.encoder import ResponsesEncoder, ToolItems
from agent_server.protocols.responses.fields import Fields
from agent_server.protocols.responses.kept import PROTOCOL, Archive, Kept, Record, input_items
from agent_server.protocols.responses.origin import Origins
from agent_server.protocols.responses.recent import Recent
from agent_server.protocols.responses.request import check_served, parse_request
from agent_server.protocols.responses.sealed import Seal
from agent_server.runs.engine import Engine, Run
from agent_server.runs.keeper import Keeping
from agent_server.runs.log import EventLog
from agent_server.runs.stores.port import RunRow
from agent_server.settings import Settings

_STARTED = {"x-should-retry": "false"}


class Begun(NamedTuple):
    """A run that answers a request: just begun, or found to be the answer to an equal one."""

    log: EventLog
    tool_items: ToolItems
    trace: RunTrace | None = None
    left: Callable[[], Awaitable[object]] | None = None  # what is done when the client leaves
    run_id: str = ""


class Creation:
    """Creates the responses of one app, or with `recent` those of one of its connections."""

    def __init__(
        self,
        agents: Agents,
        engine: Engine,
        checkpoints: Checkpoints,
        settings: Settings,
        proxies: tuple[Network, ...],
        tracer: Tracer | None = None,
        recent: Recent | None = None,
    ) -> None:
        self._agents = agents
        self._engine = engine
        self._checkpoints = checkpoints
        self._archive = recent or Archive(engine)
        self._recent = recent
        self.origins = Origins(self._archive, engine.keeper.store, Seal(settings.secret.get_secret_value()))
        self._claims = Claims(engine.keeper.store, self._archive, settings.retention_days, settings.lease_seconds)
        self._settings = settings
        self._proxies = proxies
        self._tracer = tracer

    def on_connection(self) -> tuple[Creation, Recent]:
        """The same for one connection, and what that connection remembers."""
        recent = Recent(self._engine)
        args = (self._agents, self._engine, self._checkpoints, self._settings, self._proxies, self._tracer)
        return Creation(*args, recent), recent

    async def create(self, request: Request, dialect: Dialect) -> ASGIApp:
        """Answer a request over HTTP."""
        body = await read_json(request.receive, request.headers, limit=self._settings.max_body_bytes)
        identity = identity_of(request.scope, self._proxies)
        said = Said(body, request.headers, identity, request.scope.get("request_id", ""))
        asked = await self.understand(said, dialect)
        begun = await self.begin(asked)
        told = begun.trace if asked.asks_for_trace else None
        if asked.request.stream:
            return self.stream(begun, asked.framing(told))
        if asked.request.background:
            return await self._accepted(asked.run_id, begun)
        return await self._answer(request, begun, told if asked.request.return_trace else None)

    # -- understanding -------------------------------------------------------------------------------------

    async def understand(self, said: Said, dialect: Dialect) -> Asked:
        """Read all that is asked for. Raises `RequestError` for whatever cannot be done."""
        await self._engine.open()
        await self._checkpoints.open()
        fields = Fields(said.body)
        conversation, is_made = conversation_of(fields)
        origin = await self.origins.of(TENANT, fields, conversation, is_made=is_made)
        goes_on = origin.goes_on or not said.generate
        given = [] if origin.input is None and not said.generate else origin.input
        body = {**said.body, "input": given, **origin.needed(said.body)}
        asked = parse_request(body, keeps=True, goes_on=goes_on)
        agents = await self._agents.opened()
        agent = choose(agents, asked.model, dialect, origin.agent(agents) or self._settings.default_agent)
        origin.check_agent(agent.name)
        check_served(asked, agent)
        context = asked.context(said.request_id, said.identity._asdict())
        agent.context_for(context)  # refuses what the agent's context schema lacks
        new: tuple[Turn, ...] = ()
        if origin.resume is None:
            whole = origin.goes_on and not remembers(agent, origin)
            new, given = await self.origins.new_turns(TENANT, asked.turns, origin, whole=whole)
            asked = replace(asked, turns=given)
        named = dialect.keeps or bool(conversation) or asked.background or origin.resume is not None
        keeps = asked.store if asked.store is not None else named or agent.asks
        if (key := said.headers.get("idempotency-key")) is not None:
            keeps = check_key(key, asked.store)
        items = tool_items_of(said.headers, dialect)
        return Asked(dialect, said, asked, context, origin, agent, items, ids.new_run_id(), keeps, new)

    # -- beginning -----------------------------------------------------------------------------------------

    async def begin(self, asked: Asked) -> Begun:
        """Start the run, unless an equal request has done so already."""
        previous = asked.origin.previous
        is_local = self._recent is not None and previous is not None and previous in self._recent
        claims = [] if is_local else claims_of(asked)  # what is not stored leaves no row
        earlier = await self._claims.take(claims, asked.run_id)
        if earlier is not None:
            return Begun(earlier.log, earlier.record.tool_items, run_id=earlier.row.id)
        try:
            asked.origin.check_time()
            return await self._start(asked)
        except AgentServerError:
            await self._claims.release(claims, asked.run_id)
            raise

    async def _start(self, asked: Asked) -> Begun:
        memory = self._memory(asked) if asked.said.generate else None
        invocation = Invocation(
            asked.run_id,
            asked.agent if asked.said.generate else _spared(asked.agent),
            asked.request.turns,
            asked.context,
            source=self._settings.event_source,
            memory=memory,
            resume=asked.origin.resume,
            approvals=asked.origin.approvals,
            steering=asked.said.steering,
        )
        trace = None
        if self._tracer is not None and asked.said.generate:
            body, headers = asked.said.body, asked.said.headers
            trace = self._tracer.begin(invocation, body, headers, tool_items=asked.tool_items)
        model, echo = asked.request.model or asked.agent.name, asked.echo(trace if asked.asks_for_trace else None)
        if not asked.keeps:
            run = self._engine.start(invocation, model=model, echo=echo, watcher=trace)
            if self._recent is not None:
                self._recent.add(_unstored(asked, run, memory), memory.scratch if memory is not None else None)
            left = partial(self._engine.cancel, run, "client disconnected")
            return Begun(run.log, asked.tool_items, trace, left, run.id)
        keeping = self._keeping(asked, memory)
        settle = partial(self._settle, asked, invocation) if asked.follows else None
        run = await self._engine.keep(invocation, keeping, model=model, echo=echo, watcher=trace, settle=settle)
        outlives = asked.request.background or self._settings.on_disconnect == "continue"
        cancel = partial(self._engine.cancel, run, "client disconnected")
        return Begun(run.log, asked.tool_items, trace, None if outlives else cancel, run.id)

    async def _settle(self, asked: Asked, invocation: Invocation) -> Invocation:
        """A conversation may have gone on before the run's turn came: then the request means what comes after that."""
        if await self.origins.is_head(TENANT, asked.origin):
            return invocation
        again = await self.understand(asked.said, asked.dialect)
        again.origin.check_time()
        again = again._replace(run_id=asked.run_id, keeps=True)
        memory, previous = self._memory(again), again.origin.previous
        checkpoints = memory.thread_id if memory is not None else ""
        store = self._engine.keeper.store
        await store.go_on_from(TENANT, asked.run_id, previous.row.id if previous is not None else "", checkpoints)
        origin = again.origin
        return replace(
            invocation, turns=again.request.turns, memory=memory, resume=origin.resume, approvals=origin.approvals
        )

    def _memory(self, asked: Asked) -> Memory | None:
        """What is not stored has a memory only where it goes on from something, or can be gone on from."""
        previous = asked.origin.previous
        if not asked.agent.remembers or not (asked.keeps or previous is not None or self._recent is not None):
            return None
        scratch = None if asked.keeps else Scratch()
        if previous is None or not remembers(asked.agent, asked.origin):
            thread_id = f"{TENANT}:{asked.run_id}"
            return Memory(self._checkpoints, thread_id, at_each_step=asked.request.background, scratch=scratch)
        return Memory(
            self._checkpoints,
            previous.row.checkpoints,
            after=previous.row.id,
            at_each_step=asked.request.background,
            scratch=scratch,
            before=self._recent.scratch_of(previous) if self._recent is not None else None,
        )

    def _keeping(self, asked: Asked, memory: Memory | None) -> Keeping:
        conversation, days = asked.origin.conversation, self._settings.retention_days
        return Keeping(
            TENANT,
            thread_id=conversation or asked.run_id,
            previous=asked.origin.previous.row.id if asked.origin.previous is not None else "",
            checkpoints=memory.thread_id if memory is not None else "",
            wire=msgspec.json.encode(_record(asked)),
            expires_at=now_ms() + round(days * 86_400_000) if days else None,
            busy=self._settings.busy_conversation,
            protocol=PROTOCOL,
            turns=asked.new,
        )

    # -- answering -----------------------------------------------------------------------------------------

    def stream(self, begun: Begun, framed: framing.Framing, *, skip: int = 0) -> EventStream:
        """The run's events, from the beginning or without its first `skip` frames."""
        return EventStream(
            begun.log,
            ResponsesEncoder(begun.tool_items),
            framed,
            headers=_STARTED,
            heartbeat=self._settings.heartbeat_seconds,
            send_timeout=self._settings.send_timeout_seconds,
            skip=skip,
            left=begun.left,
        )

    async def _accepted(self, run_id: str, begun: Begun) -> Response:
        """A response in the background, as it is now."""
        kept = await self._archive.run(TENANT, run_id)
        response = kept.response() if kept is not None else _folded(begun).response_so_far()
        return Response(framing.to_json(response), headers=_STARTED, media_type="application/json")

    async def _answer(self, request: Request, begun: Begun, trace: RunTrace | None) -> Response:
        """The stream's fold: the response object of its terminal event, with the trace if it is given."""
        if not await read_to_end(begun.log, request.receive) and begun.left is not None:
            await begun.left()
        for event in begun.log.read(0):
            if isinstance(event, RunFailed):
                return error_response(AgentError(event.error_id, code=event.code), started=True)
        response = _folded(begun).response
        if trace is not None and (finished := await trace.finished(begun.log)) is not None:
            response = {**response, "databricks_output": {"trace": finished}}
        return Response(framing.to_json(response), headers=_STARTED, media_type="application/json")


class _SparedAgent(ForeignAgent):
    """Stands for an agent that is not to be called: its run ends where it begins."""

    def fold(self, run_id: str) -> Fold:
        return Converter(run_id)

    async def drive(self, invocation: Invocation, recorder: Recorder) -> None:
        return None


def _spared(agent: Agent) -> Agent:
    return _SparedAgent(agent.name, agent.description, agent.tool_names, agent.takes_options)


def _record(asked: Asked) -> Record:
    return Record(
        asked.tool_items,
        input_items(asked.run_id, asked.said.body.get("input") or []),
        asked.origin.conversation,
        asked.request.background,
        [run_id for run_id, items in asked.origin.added.items() if items],
    )


def _unstored(asked: Asked, run: Run, memory: Memory | None) -> Kept:
    row = RunRow(
        id=run.id,
        thread_id=run.id,
        agent=asked.agent.name,
        status="running",
        created_at=now_ms(),
        previous=asked.origin.previous.row.id if asked.origin.previous is not None else "",
        checkpoints=memory.thread_id if memory is not None else "",
    )
    return Kept(row, _record(asked), run.log)


def _folded(begun: Begun) -> ResponsesEncoder:
    encoder = ResponsesEncoder(begun.tool_items)
    for event in begun.log.read(0):
        encoder.feed(event)
    return encoder
