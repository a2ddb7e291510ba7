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
from starlette.types import Message
from starlette.websockets import WebSocket, WebSocketDisconnect

from agent_server import framing
from agent_server.errors import AgentServerError, BodyTooLargeError, RequestError
from agent_server.http.body import parse_json
from agent_server.http.errors import error_response
from agent_server.http.identity import Network, identity_of
from agent_server.http.origin import is_welcome
from agent_server.protocols.responses.asked import Dialect
from agent_server.protocols.responses.creation import Creation
from agent_server.protocols.responses.fields import Fields
from agent_server.protocols.responses.lanes import Lanes, error_event
from agent_server.settings import Settings

MAX_MESSAGE_BYTES = 2**20
"""Largest message of a client, in bytes of UTF-8."""

MAX_LANES = 32
"""Names of lanes on one connection. The lane without a name does not count."""

LIFETIME = 3600.0
"""Seconds that a connection lasts."""

_STREAM_ID = re.compile(r"[A-Za-z0-9_.-]{1,256}")
_EVENTS = ("response.create", "response.steer")
_PASSED_ON = ("x-tool-items", "x-mlflow-return-trace-id")  # a key or a trace of the connection is no request's own
_GOING_AWAY = 1001  # RFC 6455, section 7.4.1


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
            await _refuse(websocket)
            return
        await websocket.accept()
        connection = _Connection(websocket, self._settings.send_timeout_seconds)
        headers = {name: websocket.headers[name] for name in _PASSED_ON if name in websocket.headers}
        identity = identity_of(websocket.scope, self._proxies)
        try:
            async with asyncio.TaskGroup() as tasks:
                lanes = Lanes(self._creation, self._dialect, headers, identity, connection.send, tasks)
                await self._last(connection, lanes)
        except* _GoneError:
            pass  # with all that it had going on

    async def _last(self, connection: _Connection, lanes: Lanes) -> None:
        """Take messages until the client leaves, or for as long as a connection lasts. Raises `_GoneError`."""
        try:
            async with asyncio.timeout(LIFETIME):
                await connection.read(lanes)
        except TimeoutError:
            message = f"A connection lasts at most {LIFETIME / 60:.0f} minutes. Open another one."
            await connection.send(error_event(RequestError(message, code="websocket_connection_limit_reached")), None)
            await connection.close(_GOING_AWAY)
        raise _GoneError


class _GoneError(Exception):
    """The client is gone, or takes nothing any more."""


class _Connection:
    """One connection. A client that takes nothing for `send_timeout` seconds is taken for gone."""

    def __init__(self, websocket: WebSocket, send_timeout: float) -> None:
        self._websocket = websocket
        self._send_timeout = send_timeout
        self._writing = asyncio.Lock()
        self._names: set[str] = set()
        self._gone = False

    async def read(self, lanes: Lanes) -> None:
        """Hand on what the client says, until it leaves."""
        while (message := await self._websocket.receive())["type"] != "websocket.disconnect":
            stream_id = None
            try:
                event = Fields(_read(message))
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
        """One event as one message. Raises `_GoneError`."""
        data = event if stream_id is None else {**event, "stream_id": stream_id}
        await self._write({"type": "websocket.send", "text": framing.to_json(data).decode()})

    async def close(self, code: int) -> None:
        """End the connection. Raises `_GoneError` where it has ended before."""
        await self._write({"type": "websocket.close", "code": code})
        self._gone = True

    async def _write(self, message: Message) -> None:
        """The lanes take turns: what one of them has to say is never queued, it stays in the log of its run."""
        async with self._writing:
            if self._gone:
                raise _GoneError
            try:
                async with asyncio.timeout(self._send_timeout):
                    await self._websocket.send(message)
            except (TimeoutError, WebSocketDisconnect) as error:
                self._gone = True
                raise _GoneError from error


def _read(message: Message) -> dict[str, Any]:
    text = message.get("text")
    if text is None:
        raise RequestError("Messages are texts, not bytes.", code="invalid_json")
    if len(text) > MAX_MESSAGE_BYTES or len(text.encode()) > MAX_MESSAGE_BYTES:
        raise BodyTooLargeError(MAX_MESSAGE_BYTES)
    value = parse_json(text)
    if not isinstance(value, dict):
        raise RequestError("A message must be a JSON object.", code="invalid_json")
    return value


async def _refuse(websocket: WebSocket) -> None:
    """403, before the connection is made; with a body where the server can send one."""
    message = "A page of another origin may not connect to this server."
    if "websocket.http.response" not in websocket.scope.get("extensions", {}):
        await websocket.close()
        return
    response = error_response(RequestError(message, param="origin", code="origin_not_allowed"))
    response.status_code = 403
    await websocket.send_denial_response(response)
