"""Session turns over HTTP.

| route | answer |
|---|---|
| `POST /initialize` | 201 a new session with its token, 200 one that was there |
| `POST /invoke_agent` | 200 the turn; 202 with its id when it takes longer than `timeout_seconds` |
| `POST /invoke_agent_stream` | its frames, as Server-Sent Events or as NDJSON |
| `GET /turns/{id}` | the turn as it is, or after `wait` seconds |
| `GET /turns/{id}/events` | its frames, all of them or those after the one numbered `after` |
| `POST /turns/{id}/cancel` | the turn, stopped |
| `GET /client/agent_server.js` | the client for browsers |

Before the first byte: 401 no token, 404 no such session, 409 a turn is in progress, 504 it takes too long and cannot be
deferred. A turn goes on when its client leaves; an equal request joins it while it runs.
"""

from __future__ import annotations

import asyncio
from collections.abc import Mapping
from importlib.resources import files
from typing import Any

from starlette.requests import Request
from starlette.responses import Response
from starlette.routing import Route
from starlette.types import ASGIApp

from agent_server.errors import AgentError, NotFoundError, RequestError
from agent_server.framing import Framing, to_json
from agent_server.http.body import read_json
from agent_server.http.errors import error_response
from agent_server.http.identity import TENANT, Network
from agent_server.http.stream import EventStream, read_to_end
from agent_server.http.typed import typed
from agent_server.protocols.turns.encoder import NDJSON, SSE
from agent_server.protocols.turns.request import Opening, Saying, run_of
from agent_server.protocols.turns.sessions import Session, Sessions
from agent_server.protocols.turns.stream import BoundedStream, TurnTimeoutError, begins_within
from agent_server.protocols.turns.turn import Agents, Turn, Turns
from agent_server.runs.engine import Engine
from agent_server.runs.threads import Threads
from agent_server.settings import Settings

WAIT = 60.0
"""Seconds that `POST /invoke_agent` waits unless told otherwise."""

_NDJSON = ("application/x-ndjson", "application/ndjson", "application/jsonl")


class TurnsApi:
    """The endpoints of one app."""

    def __init__(
        self, agents: Agents, threads: Threads, engine: Engine, settings: Settings, proxies: tuple[Network, ...]
    ) -> None:
        self._agents = agents
        self._threads = threads
        self._sessions = Sessions(engine, settings, proxies)
        self._turns = Turns(agents, threads, engine, settings, proxies)
        self._settings = settings

    def routes(self) -> list[Route]:
        """The routes, for an app's own visible list."""
        return [
            Route("/initialize", self._initialize, methods=["POST"]),
            Route("/invoke_agent", self._invoke, methods=["POST"]),
            Route("/invoke_agent_stream", self._invoke_stream, methods=["POST"]),
            Route("/turns/{id}", self._retrieve, methods=["GET"]),
            Route("/turns/{id}/events", self._events, methods=["GET"]),
            Route("/turns/{id}/cancel", self._cancel, methods=["POST"]),
            Route("/client/agent_server.js", _client, methods=["GET"]),
        ]

    # -- sessions ------------------------------------------------------------------------------------------

    async def _initialize(self, request: Request) -> Response:
        opening = typed(await self._body(request), Opening)
        agent = await self._turns.agent(opening.agent)
        session, is_new = await self._sessions.open(request, opening, agent.name)
        token, seconds = self._sessions.token(session)
        told: dict[str, Any] = {
            "session_id": session.id,
            "channel_id": session.id,
            "user_id": session.user_id or None,
            "agent": session.agent,
            "token": token,
            "access_token": token,
            "token_type": "bearer",
            "expires_in": seconds,
        }
        status = 201 if is_new else 200
        if opening.startup_command is not None:
            turn = await self._turns.begin(request, session, Saying(user_query=opening.startup_command))
            is_over = await _over(turn, request, opening.timeout_seconds)
            body = turn.encoded().whole
            told |= {"startup_turn_key": turn.id, "startup_exec_state": body["exec_state"]}
            told |= {"startup_output": body} if is_over else {}
            status = status if is_over else 202
        return _json(told, status)

    # -- turns ---------------------------------------------------------------------------------------------

    async def _invoke(self, request: Request) -> Response:
        session, saying = await self._asked(request)
        turn = await self._turns.begin(request, session, saying)
        seconds = WAIT if saying.timeout_seconds is None else saying.timeout_seconds
        if await _over(turn, request, seconds):
            return _ended(turn)
        if not saying.defer:
            raise TurnTimeoutError(turn.id, seconds)
        return _json(turn.encoded().whole, 202, {"location": f"/turns/{turn.id}", "retry-after": "1", **_named(turn)})

    async def _invoke_stream(self, request: Request) -> ASGIApp:
        session, saying = await self._asked(request)
        turn = await self._turns.begin(request, session, saying)
        stream = self._stream(request, turn, saying.stream_format or session.stream_format)
        seconds = saying.timeout_seconds
        if seconds is None:
            return stream
        deadline = asyncio.get_running_loop().time() + seconds
        silent = min(seconds, self._settings.heartbeat_seconds)
        if not await begins_within(turn, silent, request.receive) and silent == seconds:
            raise TurnTimeoutError(turn.id, seconds)
        framing = _framing(request, saying.stream_format or session.stream_format)
        return BoundedStream(stream, deadline, TurnTimeoutError(turn.id, seconds), framing)

    async def _retrieve(self, request: Request) -> Response:
        turn = await self._find(request)
        await _over(turn, request, _number(request.query_params, "wait", 3600.0) or 0.0)
        return _json(turn.encoded().whole, headers=_named(turn))

    async def _events(self, request: Request) -> ASGIApp:
        turn = await self._find(request)
        after = _number(request.query_params, "after", 1e15)
        wanted = request.query_params.get("stream_format")
        if wanted not in (None, "sse", "ndjson"):
            raise RequestError("'stream_format' is 'sse' or 'ndjson'.", param="stream_format")
        return self._stream(request, turn, wanted or "", after=-1 if after is None else int(after))

    async def _cancel(self, request: Request) -> Response:
        turn = await self._find(request)
        await self._threads.cancel(TENANT, turn.run_id)
        return _json((await self._find(request)).encoded().whole, headers=_named(turn))

    # -- reading -------------------------------------------------------------------------------------------

    async def _body(self, request: Request) -> Mapping[str, object]:
        await self._threads.open()
        return await read_json(request.receive, request.headers, limit=self._settings.max_body_bytes)

    async def _asked(self, request: Request) -> tuple[Session, Saying]:
        saying = typed(await self._body(request), Saying)
        session = await self._sessions.of(request, saying.session_id, saying.channel_id, user_id=saying.user_id)
        return session, saying.check()

    async def _find(self, request: Request) -> Turn:
        """Any run of the session's thread. Raises `NotFoundError`."""
        await self._threads.open()
        session = await self._sessions.of(request)
        run_id = run_of(request.path_params["id"])
        found = await self._threads.find(TENANT, run_id) if run_id is not None else None
        if found is None or found.row.thread_id != session.id:
            message = f"There is no turn '{request.path_params['id'][:100]}' in this session."
            raise NotFoundError(message, param="id", code="turn_not_found")
        traces = request.query_params.get("show_agent_traces")
        return Turn.of(found, session, traces=None if traces is None else traces == "true")

    def _stream(self, request: Request, turn: Turn, wanted: str, *, after: int = -1) -> EventStream:
        return EventStream(
            turn.log,
            turn.encoder(after),
            _framing(request, wanted),
            headers=_named(turn),
            heartbeat=self._settings.heartbeat_seconds,
            send_timeout=self._settings.send_timeout_seconds,
        )


async def _client(_: Request) -> Response:
    """`GET /client/agent_server.js`: the client for browsers."""
    module = files("agent_server.client").joinpath("agent_server.js").read_bytes()
    return Response(module, headers={"cache-control": "no-cache"}, media_type="text/javascript")


async def _over(turn: Turn, request: Request, seconds: float) -> bool:
    """Wait for the end of a turn. A client that leaves ends the wait and nothing else."""
    try:
        async with asyncio.timeout(seconds if not turn.log.over else None):
            return await read_to_end(turn.log, request.receive)
    except TimeoutError:
        return turn.log.over


def _ended(turn: Turn) -> Response:
    body = turn.encoded().whole
    if body["exec_state"] == "failed":
        error = body["error"]
        response = error_response(AgentError(error["error_id"], code=error["code"]), started=True)
        response.headers.update(_named(turn))
        return response
    return _json(body, headers=_named(turn))


def _framing(request: Request, wanted: str) -> Framing:
    accepted = request.headers.get("accept", "")
    if not wanted and any(kind in accepted for kind in _NDJSON):
        wanted = "ndjson"
    return NDJSON if wanted == "ndjson" else SSE


def _number(params: Mapping[str, str], name: str, most: float) -> float | None:
    value = params.get(name)
    if value is None:
        return None
    try:
        number = float(value)
    except ValueError:
        number = -1.0
    if not 0 <= number <= most:
        raise RequestError(f"'{name}' must be a number from 0 to {most:g}.", param=name)
    return number


def _named(turn: Turn) -> dict[str, str]:
    return {"x-turn-id": turn.id}


def _json(body: object, status: int = 200, headers: Mapping[str, str] | None = None) -> Response:
    return Response(to_json(body), status, dict(headers or {}), media_type="application/json")
