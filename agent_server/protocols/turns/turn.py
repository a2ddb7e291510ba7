"""A turn: begun on a session's thread, joined by an equal request, told by its encoder."""

from __future__ import annotations

import hashlib
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Protocol

import msgspec
from starlette.requests import Request

from agent_server import ids
from agent_server.context import RequestContext
from agent_server.errors import ConflictError, NotFoundError, RequestError
from agent_server.graph.agent import Agent
from agent_server.graph.converter import now_ms
from agent_server.graph.inputs import Message, Text
from agent_server.graph.inputs import Turn as Said
from agent_server.http.identity import TENANT, Network, identity_of
from agent_server.protocols.turns.encoder import TurnEncoder
from agent_server.protocols.turns.request import Saying, Wire, answers, turn_id, wire_from
from agent_server.protocols.turns.sessions import Session
from agent_server.runs.engine import Engine
from agent_server.runs.log import EventLog
from agent_server.runs.stores.port import Claim
from agent_server.runs.threads import Ask, Found, Threads
from agent_server.settings import Settings

PROTOCOL = "turns"
KEY_HOURS = 24
"""Hours that an Idempotency-Key is remembered."""


class Agents(Protocol):
    """The agents of an app."""

    async def opened(self) -> Mapping[str, Agent]:
        """All agents by name."""
        ...


@dataclass(frozen=True, slots=True)
class Turn:
    """A run as a turn of its session."""

    run_id: str
    log: EventLog
    wire: Wire

    @classmethod
    def of(cls, found: Found, session: Session, *, traces: bool | None = None) -> Turn:
        """Any run of the session's thread, whatever protocol began it."""
        if found.protocol == PROTOCOL:
            wire = wire_from.decode(found.wire)
        else:
            wire = Wire(query=_words(found.turns), user_id=session.user_id)
        return cls(found.row.id, found.log, wire if traces is None else msgspec.structs.replace(wire, traces=traces))

    @property
    def id(self) -> str:
        """The turn's id."""
        return turn_id(self.run_id)

    def encoder(self, after: int = -1) -> TurnEncoder:
        """A new fold of the turn."""
        wire = self.wire
        return TurnEncoder(query=wire.query, user_id=wire.user_id, traces=wire.traces, after=after)

    def encoded(self) -> TurnEncoder:
        """The fold of what there is by now."""
        encoder = self.encoder()
        for event in self.log.read(0):
            encoder.feed(event)
        return encoder


class _KeyReusedError(RequestError):
    """RFC draft "The Idempotency-Key HTTP Header Field", section 2.7."""

    status = 422

    def __init__(self) -> None:
        message = "This Idempotency-Key came with another request before."
        super().__init__(message, param="idempotency-key", code="idempotency_key_reused")


class Turns:
    """Begins the turns of one app: one at a time in a session."""

    def __init__(
        self, agents: Agents, threads: Threads, engine: Engine, settings: Settings, proxies: tuple[Network, ...]
    ) -> None:
        self._agents = agents
        self._threads = threads
        self._engine = engine
        self._default = settings.default_agent
        self._proxies = proxies

    async def agent(self, name: str | None) -> Agent:
        """An agent by name, or the default one. Raises `NotFoundError`."""
        agents = await self._agents.opened()
        name = name or self._default or next(iter(agents))
        if name not in agents:
            raise NotFoundError(f"There is no agent '{name[:100]}'.", param="agent", code="agent_not_found")
        return agents[name]

    async def begin(self, request: Request, session: Session, saying: Saying) -> Turn:
        """A new turn of the session, or the one that an equal request began.

        Raises `ConflictError` while another turn is in progress, and where a decision is asked for or none is.
        """
        key = request.headers.get("idempotency-key")
        run_id = ids.new_run_id()
        if key is None:
            return await self._join(session, saying) or await self._new(request, session, saying, run_id)
        earlier = await self._claim(session, saying, key, run_id)
        if earlier is not None:
            return earlier
        turn = None
        try:
            turn = await self._new(request, session, saying, run_id)
        finally:
            if turn is None or turn.run_id != run_id:  # refused, or joined: the key's own run never began
                await self._engine.keeper.store.release(TENANT, _route(session), key, run_id)
        return turn

    async def _join(self, session: Session, saying: Saying) -> Turn | None:
        """The turn in progress, if it says the same. Raises `ConflictError` if it says something else."""
        active = await self._threads.active(TENANT, session.id)
        if active is None:
            return None
        turn = Turn.of(active, session, traces=saying.show_agent_traces)
        if active.protocol != PROTOCOL or turn.wire.digest != saying.digest:
            raise ConflictError("A turn of this session is in progress.", param="session_id", code="session_busy")
        return turn

    async def _claim(self, session: Session, saying: Saying, key: str, run_id: str) -> Turn | None:
        """None once the key is taken for a new run; else the turn that had it first."""
        now = now_ms()
        claim = Claim(saying.digest, run_id)
        until = now + KEY_HOURS * 3_600_000
        earlier = await self._engine.keeper.store.claim(TENANT, _route(session), key, claim, now=now, expires_at=until)
        if earlier is None:
            return None
        if earlier.digest != saying.digest:
            raise _KeyReusedError
        found = await self._threads.find(TENANT, earlier.run_id)
        if found is None:
            message = "An equal request is just being accepted. Try again."
            raise ConflictError(message, param="idempotency-key", code="idempotency_key_in_use")
        return Turn.of(found, session, traces=saying.show_agent_traces)

    async def _new(self, request: Request, session: Session, saying: Saying, run_id: str) -> Turn:
        waiting = await self._threads.waiting(TENANT, session.id)
        resume = answers(waiting, saying) if waiting or saying.decision is not None else None
        query = saying.user_query or ""
        wire = Wire(saying.digest, query, session.user_id, saying.show_agent_traces)
        said: list[Said] = [] if resume is not None else [Message("user", (Text(query),))]
        ask = Ask(
            TENANT,
            session.id,
            await self.agent(session.agent),
            run_id,
            turns=said,
            resume=resume,
            context=self._context(request, session),
            record=frozenset({"custom"} if saying.show_agent_traces else ()),
            protocol=PROTOCOL,
            wire=msgspec.json.encode(wire),
        )
        try:
            run = await self._threads.begin(ask)
        except ConflictError:  # somebody was quicker, perhaps with the same
            joined = await self._join(session, saying)
            if joined is None:
                raise
            return joined
        return Turn(run.id, run.log, wire)

    def _context(self, request: Request, session: Session) -> RequestContext:
        identity = identity_of(request.scope, self._proxies)
        return RequestContext(
            request_id=request.scope.get("request_id", ""),
            **identity._asdict(),
            conversation_id=session.id,
            user_id=session.user_id or None,
        )


def _route(session: Session) -> str:
    """Keys are a session's own."""
    return f"{PROTOCOL}/{hashlib.sha256(session.id.encode()).hexdigest()}"


def _words(said: list[Said]) -> str:
    """The words of the last message of a request."""
    last = next((turn for turn in reversed(said) if isinstance(turn, Message)), None)
    return "".join(part.text for part in last.parts if isinstance(part, Text)) if last is not None else ""
