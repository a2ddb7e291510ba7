"""One WebSocket: JSON objects as texts in both directions, a client that is slow or gone, and refusals."""

from __future__ import annotations

import asyncio
from collections.abc import Mapping
from typing import Any

from starlette.types import Message
from starlette.websockets import WebSocket, WebSocketDisconnect

from agent_server import framing
from agent_server.errors import AgentServerError, BodyTooLargeError, RequestError
from agent_server.http.body import parse_json
from agent_server.http.errors import error_response

MAX_MESSAGE_BYTES = 2**20
"""Largest message of a client, in bytes of UTF-8."""

# RFC 6455, section 7.4.1, and its registry
NORMAL, GOING_AWAY, POLICY, TOO_BIG, FAILED, SLOW = 1000, 1001, 1008, 1009, 1011, 1013

LAST_WORD = 30.0
"""Seconds in which a client that took nothing may come back, and still be told why it is let go."""

_LONGEST_REASON = 123  # RFC 6455, section 5.5


class GoneError(Exception):
    """The client is gone, or takes nothing any more."""


class SlowError(GoneError):
    """The client has taken nothing for too long."""


class Connection:
    """One connection. A client that takes nothing for `send_timeout` seconds is taken for gone."""

    def __init__(self, websocket: WebSocket, send_timeout: float) -> None:
        self._websocket = websocket
        self._send_timeout = send_timeout
        self._writing = asyncio.Lock()
        self.gone = False
        self.last_write = asyncio.get_running_loop().time()

    async def receive(self) -> Message:
        """The next message of the client. Raises `GoneError` when it leaves."""
        message = await self._websocket.receive()
        if message["type"] == "websocket.disconnect":
            self.gone = True
            raise GoneError
        return message

    async def send(self, data: Mapping[str, Any]) -> None:
        """One object as one text. Raises `GoneError`, and `SlowError` where the client takes nothing."""
        await self.send_text(framing.to_json(data).decode())

    async def send_text(self, text: str) -> None:
        """One text as it is. Raises as `send` does."""
        await self._write({"type": "websocket.send", "text": text}, self._send_timeout)

    async def close(self, code: int, reason: str = "") -> None:
        """End the connection. Raises `GoneError` where it has ended before."""
        short = reason.encode()[:_LONGEST_REASON].decode(errors="ignore")
        await self._write({"type": "websocket.close", "code": code, "reason": short}, LAST_WORD)
        self.gone = True

    async def _write(self, message: Message, patience: float) -> None:
        """Writers take turns: what one of them has to say is never queued, it stays in the log of its run."""
        async with self._writing:
            if self.gone:
                raise GoneError
            try:
                async with asyncio.timeout(patience):
                    await self._websocket.send(message)
            except TimeoutError as error:
                raise SlowError from error
            except WebSocketDisconnect as error:
                self.gone = True
                raise GoneError from error
            self.last_write = asyncio.get_running_loop().time()


def read_object(message: Message) -> dict[str, Any]:
    """What a client says. Raises `RequestError`, and `BodyTooLargeError` for more than `MAX_MESSAGE_BYTES`."""
    text = message.get("text")
    if text is None:
        raise RequestError("Messages are texts, not bytes.", code="invalid_json")
    if len(text) > MAX_MESSAGE_BYTES or len(text.encode()) > MAX_MESSAGE_BYTES:
        raise BodyTooLargeError(MAX_MESSAGE_BYTES)
    value = parse_json(text)
    if not isinstance(value, dict):
        raise RequestError("A message must be a JSON object.", code="invalid_json")
    return value


async def refuse(websocket: WebSocket, error: AgentServerError, status: int) -> None:
    """An HTTP status in place of the connection; with a body where the server can send one, else 403."""
    if "websocket.http.response" not in websocket.scope.get("extensions", {}):
        await websocket.close()
        return
    response = error_response(error)
    response.status_code = status
    await websocket.send_denial_response(response)


async def refuse_origin(websocket: WebSocket) -> None:
    """403, before the connection is made."""
    message = "A page of another origin may not connect to this server."
    await refuse(websocket, RequestError(message, param="origin", code="origin_not_allowed"), 403)
