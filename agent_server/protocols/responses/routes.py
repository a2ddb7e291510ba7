"""The routes of the OpenAI Responses API and of MLflow's dialect of it.

| route                | framing                        | heartbeat | tool items      | stored unless said otherwise |
|----------------------|--------------------------------|-----------|-----------------|------------------------------|
| `POST /v1/responses` | `event:` and `data:` lines     | `: ping`  | `mcp_call`      | yes                          |
| `POST /responses`    | `event:` and `data:` lines     | `: ping`  | `function_call` | in a conversation            |
| `POST /invocations`  | `data:` lines only             | a newline | `function_call` | in a conversation            |

What is stored is found below `/v1/responses` and `/responses` alike.
"""

from __future__ import annotations

from typing import Any

from starlette.requests import Request
from starlette.responses import Response
from starlette.routing import Route
from starlette.types import ASGIApp, Receive, Scope, Send

from agent_server import framing
from agent_server.errors import RequestError
from agent_server.http.identity import TENANT
from agent_server.protocols.responses.asked import Dialect
from agent_server.protocols.responses.creation import Begun, Creation
from agent_server.protocols.responses.kept import Archive
from agent_server.protocols.responses.pages import page
from agent_server.runs.engine import Engine
from agent_server.runs.stores.port import TERMINAL_STATUSES
from agent_server.settings import Settings


class ResponsesApi:
    """The endpoints of one app."""

    def __init__(self, creation: Creation, engine: Engine, settings: Settings) -> None:
        self._creation = creation
        self._engine = engine
        self._settings = settings
        self._archive = Archive(engine)

    def routes(self) -> list[Route]:
        """The routes, for an app's own visible list."""
        settings = self._settings
        invocations = Dialect(
            "/invocations",
            framing.DATA_ONLY,
            settings.tool_items_invocations,
            names_agent=False,
            ends_with_trace=True,
        )
        mounts = (
            Dialect("/v1/responses", framing.SSE, settings.tool_items_v1, keeps=True),
            Dialect("/responses", framing.SSE, settings.tool_items_responses),
        )
        kept = [
            route
            for dialect in mounts
            for route in (
                Route(f"{dialect.path}/{{id}}", self._retrieve, methods=["GET"]),
                Route(f"{dialect.path}/{{id}}", self._delete, methods=["DELETE"]),
                Route(f"{dialect.path}/{{id}}/cancel", self._cancel, methods=["POST"]),
                Route(f"{dialect.path}/{{id}}/input_items", self._input_items, methods=["GET"]),
            )
        ]
        return [*(Route(d.path, _Create(self._creation, d), methods=["POST"]) for d in (*mounts, invocations)), *kept]

    async def _retrieve(self, request: Request) -> ASGIApp:
        """`GET /v1/responses/{id}`: the object as it is now, or its stream from the beginning or `starting_after`."""
        kept = await self._archive.response(TENANT, request.path_params["id"])
        if not _flag(request, "stream"):
            if request.query_params.get("starting_after") is not None:
                message = "'starting_after' is for streams: add stream=true."
                raise RequestError(message, param="starting_after")
            return _json(kept.response())
        skip = _starting_after(request)
        return self._creation.stream(Begun(kept.log, kept.record.tool_items), framing.SSE, skip=skip)

    async def _delete(self, request: Request) -> Response:
        """`DELETE /v1/responses/{id}`: with its events. One that is in progress is cancelled first."""
        kept = await self._archive.response(TENANT, request.path_params["id"])
        if not kept.log.over:
            await self._engine.cancel_run(TENANT, kept.row.id, "deleted")
        if kept.row.thread_id == kept.row.id:  # a thread of its own goes with it
            await self._engine.keeper.delete_thread(TENANT, kept.row.id)
        else:
            await self._engine.keeper.delete_run(TENANT, kept.row)
        return _json({"id": kept.id, "object": "response", "deleted": True})

    async def _cancel(self, request: Request) -> Response:
        """`POST /v1/responses/{id}/cancel`: what was said is kept. Cancelling twice is the same as once."""
        kept = await self._archive.response(TENANT, request.path_params["id"])
        if kept.row.status in TERMINAL_STATUSES and kept.row.status != "cancelled":
            raise RequestError(f"Cannot cancel a {kept.row.status} response.", param="response_id")
        await self._engine.cancel_run(TENANT, kept.row.id)
        return _json((await self._archive.response(TENANT, kept.id)).response())

    async def _input_items(self, request: Request) -> Response:
        """`GET /v1/responses/{id}/input_items`: what the request itself said."""
        kept = await self._archive.response(TENANT, request.path_params["id"])
        return _json(page(kept.record.input, request.query_params))


class _Create:
    """`POST /v1/responses`: an ASGI app, because Starlette keeps more around a function for as long as it streams."""

    def __init__(self, creation: Creation, dialect: Dialect) -> None:
        self._creation = creation
        self._dialect = dialect

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        answer = await self._creation.create(Request(scope, receive), self._dialect)
        await answer(scope, receive, send)


def _flag(request: Request, name: str) -> bool:
    value = request.query_params.get(name, "false").lower()
    if value not in ("true", "false", "1", "0"):
        raise RequestError(f"'{name}' must be true or false.", param=name)
    return value in ("true", "1")


def _starting_after(request: Request) -> int:
    """How many frames the client has: sequence numbers begin with 0."""
    value = request.query_params.get("starting_after")
    if value is None:
        return 0
    if not value.isascii() or not value.isdecimal() or len(value) > 15:
        raise RequestError("'starting_after' must be a sequence number of the stream.", param="starting_after")
    return int(value) + 1


def _json(body: dict[str, Any]) -> Response:
    return Response(framing.to_json(body), media_type="application/json")
