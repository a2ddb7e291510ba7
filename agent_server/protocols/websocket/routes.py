"""`/ws`: the client names its protocol as the WebSocket's subprotocol (RFC 6455, section 1.9).

| close code | why |
|---|---|
| 1008 | a frame that is no JSON object, or not of the protocol |
| 1009 | a frame over `MAX_MESSAGE_BYTES` |
| 1011 | the server failed |
| 1012 | the server goes down or restarts |
| 1013 | the client took nothing for `send_timeout_seconds`; it may come back and resume |
"""

from __future__ import annotations

import asyncio
from collections.abc import Mapping, Sequence
from contextlib import suppress
from functools import partial

from starlette.routing import WebSocketRoute
from starlette.websockets import WebSocket

from agent_server import ids
from agent_server.errors import BodyTooLargeError, RequestError
from agent_server.http.identity import Network, identity_of
from agent_server.http.origin import is_welcome
from agent_server.http.socket import (
    FAILED,
    POLICY,
    SLOW,
    TOO_BIG,
    Connection,
    GoneError,
    SlowError,
    read_object,
    refuse,
    refuse_origin,
)
from agent_server.http.wire import HEARTBEAT, Caller, Wire
from agent_server.protocols.websocket.requests import Requests
from agent_server.settings import Settings

PATH = "/ws"


class SocketApi:
    """The WebSockets of one app: `wires` are what `/ws` speaks, by subprotocol, `plain` what other paths do."""

    def __init__(
        self,
        wires: Mapping[str, Wire],
        settings: Settings,
        proxies: Sequence[Network],
        plain: Mapping[str, Wire] | None = None,
    ) -> None:
        self._wires = dict(wires)
        self._plain = dict(plain or {})
        self._settings = settings
        self._proxies = proxies

    def routes(self) -> list[WebSocketRoute]:
        """The routes, for an app's own visible list."""
        plain = [WebSocketRoute(path, partial(self._serve, wire=wire)) for path, wire in self._plain.items()]
        return [WebSocketRoute(PATH, self._serve), *plain]

    async def _serve(self, websocket: WebSocket, wire: Wire | None = None) -> None:
        """Speak `wire`, whatever subprotocol is offered, or the one that the subprotocol names."""
        if not is_welcome(websocket.headers, self._settings.allowed_origins):
            await refuse_origin(websocket)
            return
        offered = websocket.scope.get("subprotocols", [])
        subprotocol = next((each for each in offered if each in self._wires or wire is not None), None)
        if wire is None and subprotocol is None:
            message = f"Name one of these as subprotocol: {', '.join(self._wires)}."
            error = RequestError(message, param="sec-websocket-protocol", code="unknown_subprotocol")
            await refuse(websocket, error, 400)
            return
        await websocket.accept(subprotocol)
        connection = Connection(websocket, self._settings.send_timeout_seconds)
        caller = Caller(identity_of(websocket.scope, self._proxies), dict(websocket.headers), ids.new_request_id())
        await self._talk(connection, wire or self._wires[subprotocol or ""], caller)

    async def _talk(self, connection: Connection, wire: Wire, caller: Caller) -> None:
        """Take frames until the client leaves, or has to."""
        code, reason = FAILED, "The server failed."
        try:
            async with asyncio.TaskGroup() as tasks:
                requests = Requests(connection, wire, caller, self._settings, tasks)
                tasks.create_task(self._beat(connection, wire), name="heartbeat")
                while True:
                    message = await connection.receive()
                    await requests.take(wire.read(read_object(message)))
        except* SlowError:
            code, reason = SLOW, "You took nothing for too long. Come back and resume."
        except* GoneError:
            connection.gone = True
        except* BodyTooLargeError as errors:
            code, reason = TOO_BIG, _first(errors)
        except* RequestError as errors:
            code, reason = POLICY, _first(errors)
        finally:
            with suppress(GoneError):
                await connection.close(code, reason)

    async def _beat(self, connection: Connection, wire: Wire) -> None:
        """Break every long silence. Raises `GoneError`."""
        loop = asyncio.get_running_loop()
        while wire.beats:
            silent = loop.time() - connection.last_write
            if silent < self._settings.heartbeat_seconds:
                await asyncio.sleep(self._settings.heartbeat_seconds - silent)
            else:
                await connection.send(HEARTBEAT)


def _first(errors: BaseExceptionGroup[RequestError]) -> str:
    first: BaseException = errors
    while isinstance(first, BaseExceptionGroup):
        first = first.exceptions[0]
    return str(first)
