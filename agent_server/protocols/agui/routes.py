"""AG-UI over HTTP.

| route | answer |
|---|---|
| `POST /agui`, `POST /agui/{agent}` | a run of the thread, as Server-Sent Events; `?raw=true` adds LangChain's own |
| `GET /agui`, `GET /agui/{agent}` | what the agent can do |
| `GET /agui/{agent}/threads/{thread}/events` | the thread's run: a snapshot of what there is, then the rest |
| `POST /agui/{agent}/threads/{thread}/cancel` | its run is stopped |

A run goes on when its client leaves.
"""

from __future__ import annotations

from starlette.requests import Request
from starlette.responses import Response
from starlette.routing import Route

from agent_server.errors import RequestError
from agent_server.framing import Framing, data_only, to_json
from agent_server.http.body import read_json
from agent_server.http.identity import Network, identity_of
from agent_server.http.stream import EventStream
from agent_server.protocols.agui.capabilities import capabilities_of
from agent_server.protocols.agui.runs import AguiRuns, Begun, Caller
from agent_server.settings import Settings

FRAMING = Framing(write=data_only, heartbeat=b": ping\n\n", end=b"")
"""`data:` lines alone; what comes after the last event is the end of the body."""


class AguiApi:
    """The endpoints of one app."""

    def __init__(self, runs: AguiRuns, settings: Settings, proxies: tuple[Network, ...] = ()) -> None:
        self._runs = runs
        self._settings = settings
        self._proxies = proxies

    def routes(self) -> list[Route]:
        """The routes, for an app's own visible list."""
        return [
            Route("/agui", self._run, methods=["POST"]),
            Route("/agui", self._capabilities, methods=["GET"]),
            Route("/agui/{agent:path}/threads/{thread:path}/events", self._events, methods=["GET"]),
            Route("/agui/{agent:path}/threads/{thread:path}/cancel", self._cancel, methods=["POST"]),
            Route("/agui/{agent:path}", self._run, methods=["POST"]),
            Route("/agui/{agent:path}", self._capabilities, methods=["GET"]),
        ]

    async def _run(self, request: Request) -> EventStream:
        body = await read_json(request.receive, request.headers, limit=self._settings.max_body_bytes)
        identity = identity_of(request.scope, self._proxies)
        caller = Caller(identity, request.scope.get("request_id", ""), raw=_raw(request))
        return self._stream(await self._runs.begin(body, request.path_params.get("agent"), caller))

    async def _events(self, request: Request) -> EventStream:
        path = request.path_params
        return self._stream(await self._runs.attach(path["agent"], path["thread"], raw=_raw(request)))

    async def _cancel(self, request: Request) -> Response:
        path = request.path_params
        stopped = await self._runs.cancel(path["agent"], path["thread"])
        return Response(to_json({"cancelled": stopped}), media_type="application/json")

    async def _capabilities(self, request: Request) -> Response:
        agent = await self._runs.agent(request.path_params.get("agent"))
        return Response(to_json(capabilities_of(agent)), media_type="application/json")

    def _stream(self, begun: Begun) -> EventStream:
        return EventStream(
            begun.log,
            begun.encoder,
            FRAMING,
            headers={"x-run-id": begun.run_id},
            heartbeat=self._settings.heartbeat_seconds,
            send_timeout=self._settings.send_timeout_seconds,
        )


def _raw(request: Request) -> bool:
    value = request.query_params.get("raw", "false").lower()
    if value not in ("true", "false", "1", "0"):
        raise RequestError("'raw' must be true or false.", param="raw")
    return value in ("true", "1")
