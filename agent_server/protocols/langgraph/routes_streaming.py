"""What streams: runs of the first generation of clients, and threads of the second.

| route                                                   | tells                                             |
|---------------------------------------------------------|---------------------------------------------------|
| `POST /threads/{t}/runs/stream`, `POST /runs/stream`    | a new run                                         |
| `GET /threads/{t}/runs/{r}/stream`, `/runs/{r}/stream`  | a run, from its beginning or after Last-Event-ID  |
| `GET /threads/{t}/stream`                               | the runs of a thread, those to come, too          |
| `POST /threads/{t}/commands`                            | does a command, and answers it                    |
| `POST /threads/{t}/stream/events`, and as a WebSocket   | the events of a thread that were subscribed to    |
"""

from __future__ import annotations

import re
from collections.abc import Collection, Sequence
from functools import partial
from typing import Any

from starlette.requests import Request
from starlette.responses import Response
from starlette.routing import Route, WebSocketRoute
from starlette.types import ASGIApp, Receive, Scope, Send
from starlette.websockets import WebSocket

from agent_server.errors import BodyTooLargeError, NotFoundError, RequestError
from agent_server.events import Event
from agent_server.http.identity import TENANT
from agent_server.http.origin import is_welcome
from agent_server.http.socket import Connection, refuse_origin
from agent_server.http.stream import Encoder, EventStream
from agent_server.protocols.langgraph.beginning import Beginning
from agent_server.protocols.langgraph.commands import Commands, read_command, refusal
from agent_server.protocols.langgraph.encoder_v1 import V1Encoder
from agent_server.protocols.langgraph.encoder_v2 import V2Encoder, place_of
from agent_server.protocols.langgraph.frames import FRAMING, HEADERS, HEARTBEAT_SECONDS, Cursor, Frame
from agent_server.protocols.langgraph.reading import (
    answer,
    query_flag,
    read_object,
    read_value,
    route,
    run_id_of,
    uuid_of,
)
from agent_server.protocols.langgraph.refusals import UnprocessableError, no_run
from agent_server.protocols.langgraph.results import Results
from agent_server.protocols.langgraph.run_body import HARMLESS_MODES, STREAM_MODES, read_run
from agent_server.protocols.langgraph.shown import location
from agent_server.protocols.langgraph.socket import ThreadSocket
from agent_server.protocols.langgraph.subscription import read_subscription
from agent_server.protocols.langgraph.thread_notes import ThreadNotes
from agent_server.protocols.langgraph.thread_stream import THREAD_MODES, ThreadEncoder, about
from agent_server.runs.engine import Engine
from agent_server.runs.log import EventLog
from agent_server.runs.thread_log import Placed, ThreadLog
from agent_server.runs.threads import Found, Threads
from agent_server.settings import Settings

_CURSOR = re.compile(r"([0-9]{1,15})-([0-9]{1,4})", re.ASCII)


class StreamRoutes:
    """The endpoints of one app."""

    def __init__(
        self,
        beginning: Beginning,
        results: Results,
        notes: ThreadNotes,
        threads: Threads,
        engine: Engine,
        settings: Settings,
    ) -> None:
        self._beginning = beginning
        self._results = results
        self._notes = notes
        self._threads = threads
        self._engine = engine
        self._settings = settings
        self._heartbeat = min(HEARTBEAT_SECONDS, settings.heartbeat_seconds)
        self._commands = Commands(beginning, results, threads, engine)

    def routes(self, mount: str) -> Sequence[Route | WebSocketRoute]:
        """The routes below a mount."""
        thread = f"{mount}/threads/{{thread_id}}"
        return [
            route(f"{mount}/runs/stream", self._create, "POST"),
            route(f"{mount}/runs/{{run_id}}/stream", self._join),
            route(f"{thread}/runs/stream", self._create, "POST"),
            route(f"{thread}/runs/{{run_id}}/stream", self._join),
            route(f"{thread}/stream", self._join_thread),
            route(f"{thread}/commands", self._command, "POST"),
            route(f"{thread}/stream/events", self._events, "POST"),
            WebSocketRoute(f"{thread}/stream/events", self._socket),
        ]

    # -- runs ----------------------------------------------------------------------------------------------

    async def _create(self, request: Request) -> ASGIApp:
        """`POST .../runs/stream`."""
        thread = request.path_params.get("thread_id")
        body = read_run(await read_object(request, self._settings.max_body_bytes), stateless=thread is None)
        begun = await self._beginning.begin(request, body, thread)
        encoder = V1Encoder(
            body.stream_mode, subgraphs=body.stream_subgraphs, base=_base(begun.log), about=about(begun.record)
        )
        headers = begun.headers("stream")
        return self._stream(begun.log, encoder, headers, left=begun.left, delivered=begun.delivered)

    async def _join(self, request: Request) -> ASGIApp:
        """`GET .../runs/{r}/stream`: `stream_mode`, `cancel_on_disconnect`, Last-Event-ID."""
        found = await self._found(request)
        record = self._results.record(found.row)
        asked: Any = record.kwargs.get("stream_mode", ("values", "messages-tuple"))
        after = _cursor(request)
        _check(after, found.log)
        encoder = V1Encoder(
            _modes(request, (*STREAM_MODES, *HARMLESS_MODES)) or asked,
            subgraphs=bool(record.kwargs.get("subgraphs", True)),
            base=_base(found.log),
            about=about(record),
            after=after,
        )
        place = location(found.row.thread_id, found.row.id)
        headers = {"content-location": place, "location": f"{place}/stream"}
        leaves = query_flag(request, "cancel_on_disconnect")
        left = partial(self._engine.cancel_run, TENANT, found.row.id, "client disconnected") if leaves else None
        return self._stream(found.log, encoder, headers, left=left)

    async def _found(self, request: Request) -> Found:
        run_id = request.path_params["run_id"]
        if "thread_id" in request.path_params:
            thread, _ = await self._notes.find(request.path_params["thread_id"])
            return await self._results.find(thread.id, run_id)
        found = await self._threads.find(TENANT, run_id_of(run_id))
        if found is None:
            raise no_run()
        return await self._results.find(found.row.thread_id, run_id)

    def _stream(
        self, log: EventLog, encoder: Encoder[Event, Frame], headers: dict[str, str], **more: Any
    ) -> EventStream[Event, Frame]:
        headers = {**HEADERS, **headers}
        timeout = self._settings.send_timeout_seconds
        return EventStream(
            log, encoder, FRAMING, headers=headers, heartbeat=self._heartbeat, send_timeout=timeout, **more
        )

    # -- threads -------------------------------------------------------------------------------------------

    async def _join_thread(self, request: Request) -> ASGIApp:
        """`GET /threads/{t}/stream`: from the run that is active on; with `Last-Event-ID: -1` from the first."""
        thread, _ = await self._notes.find(request.path_params["thread_id"])
        modes = _modes(request, THREAD_MODES) or ("run_modes",)
        after, whole = _cursor(request), request.headers.get("last-event-id") == "-1"
        place = after.event if after is not None else 0
        if after is None and not whole:
            rows = await self._threads.rows(TENANT, thread.id)
            ended = [row for row in rows if row.status not in ("queued", "running")]
            place = max((row.base + row.length for row in ended), default=0)
        return self._follow(thread.id, place, ThreadEncoder(modes, self._results.record, after))

    async def _events(self, request: Request) -> ASGIApp:
        """`POST /threads/{t}/stream/events`. The thread may be one that is yet to be."""
        thread_id = await self._thread_id(request.path_params["thread_id"])
        try:
            subscription = read_subscription(await read_object(request, self._settings.max_body_bytes))
        except BodyTooLargeError:
            raise
        except RequestError as error:
            return answer({"detail": error.message}, 400)
        return self._follow(thread_id, place_of(subscription.since), V2Encoder(subscription))

    async def _thread_id(self, text: str) -> str:
        known = await self._notes.known(text)
        return known.id if known is not None else uuid_of(text, "thread")

    def _follow(self, thread_id: str, place: int, encoder: Encoder[Placed, Frame]) -> ASGIApp:
        log = ThreadLog(self._engine, TENANT, thread_id, after=place)
        timeout = self._settings.send_timeout_seconds
        stream: EventStream[Placed, Frame] = EventStream(
            log, encoder, FRAMING, headers=HEADERS, heartbeat=self._heartbeat, send_timeout=timeout
        )

        async def followed(scope: Scope, receive: Receive, send: Send) -> None:
            async with log:
                await stream(scope, receive, send)

        return followed

    # -- commands ------------------------------------------------------------------------------------------

    async def _command(self, request: Request) -> Response:
        """`POST /threads/{t}/commands`."""
        thread_id = await self._thread_id(request.path_params["thread_id"])
        try:
            command = read_command(await read_value(request, self._settings.max_body_bytes))
        except BodyTooLargeError:
            raise
        except RequestError as error:
            return answer(refusal(None, "invalid_argument", error.message), 400)
        return answer(await self._commands.do(request, thread_id, command))

    async def _socket(self, websocket: WebSocket) -> None:
        """The same two on one connection."""
        if not is_welcome(websocket.headers, self._settings.allowed_origins):
            await refuse_origin(websocket)
            return
        try:
            thread_id = await self._thread_id(websocket.path_params["thread_id"])
        except RequestError:
            await websocket.close()
            return
        await websocket.accept()
        connection = Connection(websocket, self._settings.send_timeout_seconds)
        await ThreadSocket(connection, self._engine, self._commands, thread_id, _asking(websocket)).serve()


def _asking(websocket: WebSocket) -> Request:
    """The connection as the request that each of its commands comes with. A key of it is no command's own."""
    headers = [pair for pair in websocket.scope["headers"] if pair[0] != b"idempotency-key"]
    return Request({**websocket.scope, "type": "http", "method": "POST", "headers": headers})


def _base(log: EventLog) -> Any:
    return lambda: log.base


def _modes(request: Request, allowed: Collection[str]) -> list[str]:
    """The stream modes of an address: named again and again, or in one text with commas."""
    names = ("stream_mode", "stream_modes")
    given = [part for name in names for text in request.query_params.getlist(name) for part in text.split(",")]
    for mode in given:
        if mode not in allowed:
            raise UnprocessableError(f"'stream_mode' has no mode {mode[:50]!r}.", param="stream_mode")
    return given


def _cursor(request: Request) -> Cursor | None:
    """The last frame that the client has; None for one that has nothing."""
    text = request.headers.get("last-event-id", "")
    if text in ("", "-1"):
        return None
    found = _CURSOR.fullmatch(text)
    if found is None:
        raise UnprocessableError("'Last-Event-ID' is no id of this server's streams.", param="last-event-id")
    return Cursor(int(found[1]), int(found[2]))


def _check(after: Cursor | None, log: EventLog) -> None:
    """Refuse a place that is not in the run: nothing is left out in silence."""
    if after is not None and not log.base <= after.event < log.base + len(log):
        raise NotFoundError("'Last-Event-ID' is no place in the stream of this run.", param="last-event-id")
