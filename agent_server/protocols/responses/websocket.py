"""`/v1/responses` as a WebSocket: many responses over one connection (OpenAI API, "WebSocket mode").

The client sends `response.create`, the body of `POST /v1/responses` without `stream` and `background`, or
`response.steer`. The server sends the events of the stream, each as a text message of its own.

| key of the client | meaning |
|---|---|
| `stream_id` | names a lane; every event that the request causes repeats it |
| `generate`: false | prepares a response that can be gone on from; no agent is called |
| `store`: false | the response can be gone on from on this connection alone |

Whatever is wrong with a message is answered by an `error` event, and the connection stays as it is.
"""

from __future__ import annotations

import asyncio
import re
from collections.abc import Mapping, Sequence
from typing import Any

from starlette.routing import WebSocketRoute
from starlette.websockets import WebSocket

from agent_server import framing
from agent_server.errors import AgentServerError, RequestError
from agent_server.http.identity import Network, identity_of
from agent_server.http.origin import is_welcome
from agent_server.http.socket import GOING_AWAY, Connection, GoneError, read_object, refuse_origin
from agent_server.protocols.responses.asked import Dialect
from agent_server.protocols.responses.creation import Creation
from agent_server.protocols.responses.fields import Fields
from agent_server.protocols.responses.lanes import Lanes, error_event
from agent_server.settings import Settings

MAX_LANES = 32
"""Names of lanes on one connection. The lane without a name does not count."""

LIFETIME = 3600.0
"""Seconds that a connection lasts."""

_STREAM_ID = re.compile(r"[A-Za-z0-9_.-]{1,256}")
_EVENTS = ("response.create", "response.steer")
_PASSED_ON = ("x-tool-items", "x-mlflow-return-trace-id")  # a key or a trace of the connection is no request's own


class ResponsesSocket:
    """The WebSocket of one app."""

    def __init__(self, creation: Creation, settings: Settings, proxies: Sequence[Network]) -> None:
        self._creation = creation
        self._settings = settings
        self._proxies = proxies
        self._dialect = Dialect("/v1/responses", framing.SSE, settings.tool_items_v1, keeps=True)

    def routes(self) -> list[WebSocketRoute]:
        """The routes, for an app's own visible list."""
        return [WebSocketRoute(self._dialect.path, self._serve)]

    async def _serve(self, websocket: WebSocket) -> None:
        if not is_welcome(websocket.headers, self._settings.allowed_origins):
            await refuse_origin(websocket)
            return
        await websocket.accept()
        connection = Connection(websocket, self._settings.send_timeout_seconds)
        conversation = _Conversation(connection)
        headers = {name: websocket.headers[name] for name in _PASSED_ON if name in websocket.headers}
        identity = identity_of(websocket.scope, self._proxies)
        try:
            async with asyncio.TaskGroup() as tasks:
                lanes = Lanes(self._creation, self._dialect, headers, identity, conversation.send, tasks)
                await self._last(connection, conversation, lanes)
        except* GoneError:
            pass  # with all that it had going on

    async def _last(self, connection: Connection, conversation: _Conversation, lanes: Lanes) -> None:
        """Take messages until the client leaves, or for as long as a connection lasts. Raises `GoneError`."""
        try:
            async with asyncio.timeout(LIFETIME):
                await conversation.read(lanes)
        except TimeoutError:
            message = f"A connection lasts at most {LIFETIME / 60:.0f} minutes. Open another one."
            await connection.send(error_event(RequestError(message, code="websocket_connection_limit_reached")))
            await connection.close(GOING_AWAY)
        raise GoneError


class _Conversation:
    """What is said on one connection, handed on to its lanes."""

    def __init__(self, connection: Connection) -> None:
        self._connection = connection
        self._names: set[str] = set()

    async def read(self, lanes: Lanes) -> None:
        """Hand on what the client says, until it leaves. Raises `GoneError`."""
        while True:
            message = await self._connection.receive()
            stream_id = None
            try:
                event = Fields(read_object(message))
                kind = event.required_choice("type", _EVENTS)
                if kind == "response.create":
                    stream_id = self._stream_id(event)
                    lanes.create(event.values(), stream_id)
                else:
                    await lanes.steer(event)
            except AgentServerError as error:
                await self.send(error_event(error), stream_id)

    def _stream_id(self, event: Fields) -> str | None:
        value = event.get("stream_id")
        if value is None:
            return None
        if not isinstance(value, str) or not _STREAM_ID.fullmatch(value):
            message = "A stream_id has 1 to 256 letters, digits, underscores, hyphens or periods."
            raise RequestError(message, param="stream_id", code="invalid_stream_id")
        if value not in self._names and len(self._names) >= MAX_LANES:
            message = f"A connection has at most {MAX_LANES} lanes with a name."
            raise RequestError(message, param="stream_id", code="websocket_stream_limit_reached")
        self._names.add(value)
        return value

    async def send(self, event: Mapping[str, Any], stream_id: str | None) -> None:
        """One event as one message. Raises `GoneError`."""
        await self._connection.send(event if stream_id is None else {**event, "stream_id": stream_id})
