"""The routes of the AI SDK's chat transports, below `/api/chat` unless `ai_sdk_path` says otherwise.

| route | answer |
|---|---|
| `POST /api/chat` | the message's stream; the run goes on when its client leaves |
| `GET /api/chat/{id}/stream` | the message that is being told, from its `start`; 204 if there is none |
| `POST /api/chat/{id}/stop` | `{"success": true}`, once nothing runs |

Whatever is wrong with a request is an error before the stream. The client's `stop()` only closes its connection: what
is to end is stopped by its route.
"""

from __future__ import annotations

from typing import Any

import msgspec
from starlette.requests import Request
from starlette.responses import Response
from starlette.routing import Route
from starlette.types import ASGIApp

from agent_server.errors import RequestError
from agent_server.framing import to_json
from agent_server.http.body import parse_json, read_body, read_json
from agent_server.http.identity import Network, identity_of
from agent_server.http.stream import EventStream
from agent_server.http.typed import typed
from agent_server.protocols.aisdk.chats import Chats, Telling
from agent_server.protocols.aisdk.encoder import SdkVersion
from agent_server.protocols.aisdk.stream import FRAMING, HEADERS
from agent_server.settings import Settings

DEFAULT_PATH = "/api/chat"
VERSION_HEADER = "x-ai-sdk-version"


def paths_of(settings: Settings) -> list[str]:
    """Where the chats are: as set, else at the transports' own default. A chat UI that is served here has that path
    itself, and keeps it."""
    if settings.ai_sdk_path is not None:
        return [settings.ai_sdk_path]
    return [] if settings.chat_proxy else [DEFAULT_PATH]


class _Stop(msgspec.Struct, frozen=True):
    """What the client has of the message is in the run's log, too."""

    activeStreamId: str | None = None  # noqa: N815
    assistantMessage: dict[str, Any] | None = None  # noqa: N815


class AiSdkApi:
    """The endpoints of one app; none where it has no path."""

    def __init__(self, chats: Chats, settings: Settings, proxies: tuple[Network, ...]) -> None:
        self._chats = chats
        self._settings = settings
        self._proxies = proxies

    def routes(self) -> list[Route]:
        """The routes, for an app's own visible list. Ids may hold slashes."""
        return [
            route
            for path in paths_of(self._settings)
            for route in (
                Route(path, self._chat, methods=["POST"]),
                Route(f"{path}/{{id:path}}/stream", self._resume, methods=["GET"]),
                Route(f"{path}/{{id:path}}/stop", self._stop, methods=["POST"]),
            )
        ]

    async def _chat(self, request: Request) -> ASGIApp:
        body = await read_json(request.receive, request.headers, limit=self._settings.max_body_bytes)
        identity, request_id = identity_of(request.scope, self._proxies), request.scope.get("request_id", "")
        begun = await self._chats.begin(body, identity=identity, request_id=request_id, version=_version(request))
        return self._stream(begun)

    async def _resume(self, request: Request) -> ASGIApp:
        found = await self._chats.active(request.path_params["id"], _version(request))
        return Response(status_code=204) if found is None else self._stream(found)

    async def _stop(self, request: Request) -> Response:
        body = await read_body(request.receive, request.headers, limit=self._settings.max_body_bytes)
        stop = typed(parse_json(body.decode(errors="replace")), _Stop) if body else _Stop()
        await self._chats.stop(request.path_params["id"], stop.activeStreamId)
        return Response(to_json({"success": True}), media_type="application/json")

    def _stream(self, telling: Telling) -> EventStream:
        return EventStream(
            telling.log,
            telling.encoder,
            FRAMING,
            headers=HEADERS,
            heartbeat=self._settings.heartbeat_seconds,
            send_timeout=self._settings.send_timeout_seconds,
        )


def _version(request: Request) -> SdkVersion | None:
    """The client's version, where a header names it."""
    named = request.headers.get(VERSION_HEADER)
    versions: dict[str, SdkVersion] = {"5": 5, "6": 6, "7": 7}
    if named is not None and named not in versions:
        raise RequestError(f"{VERSION_HEADER} must be 5, 6 or 7.", param=VERSION_HEADER)
    return versions[named] if named is not None else None
