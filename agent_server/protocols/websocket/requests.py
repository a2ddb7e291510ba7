"""The requests of one connection: each a run that is told, by a task of its own."""

from __future__ import annotations

import asyncio

from agent_server.errors import AgentServerError, NotFoundError, OverloadedError, RequestError
from agent_server.http.socket import Connection
from agent_server.http.wire import HEARTBEAT, Caller, Command, Live, Message, Wire
from agent_server.settings import Settings

MAX_REQUESTS = 32
"""Requests at a time on one connection. Those beyond are refused."""

_BATCH = 64


class SilentError(AgentServerError):
    """A run told nothing for too long, and was stopped."""

    status = 504
    type = "timeout_error"
    code = "timeout"

    def __init__(self, seconds: float) -> None:
        super().__init__(f"The agent told nothing for {seconds:g} seconds, and was stopped.")


class _Request:
    """One request that is being answered."""

    def __init__(self) -> None:
        self.live: Live | None = None
        self.is_cancelled = False


class Requests:
    """All requests of one connection."""

    def __init__(
        self, connection: Connection, wire: Wire, caller: Caller, settings: Settings, tasks: asyncio.TaskGroup
    ) -> None:
        self._connection = connection
        self._wire = wire
        self._caller = caller
        self._timeout = settings.socket_timeout_seconds
        self._tasks = tasks
        self._active: dict[str, _Request] = {}

    async def take(self, command: Command) -> None:
        """Do what a frame says. What it is answered with at once is sent before the next frame is read.

        Raises `RequestError` for one that is out of protocol, and `GoneError`.
        """
        if command.kind == "ping":
            if self._wire.beats:
                await self._connection.send(HEARTBEAT)
            return
        if command.kind == "cancel":
            request = self._active.get(command.request_id)
            if request is not None and not request.is_cancelled:  # else it is over, or never was
                request.is_cancelled = True
                self._tasks.create_task(self._cancel(request), name=f"cancel {command.request_id}")
            return
        if command.request_id in self._active:
            raise RequestError("A request of that requestId is in progress.", param="requestId")
        request = _Request()
        if len(self._active) >= MAX_REQUESTS:
            error = OverloadedError(f"A connection has at most {MAX_REQUESTS} requests at a time.")
            await self._connection.send(self._wire.failed(command.request_id, error))
            return
        self._active[command.request_id] = request
        self._tasks.create_task(self._answer(command, request), name=f"request {command.request_id}")

    async def _cancel(self, request: _Request) -> None:
        if request.live is not None:
            await request.live.cancel("cancelled")

    async def _answer(self, command: Command, request: _Request) -> None:
        """One request from its first frame to its last. Raises `GoneError`."""
        try:
            last = await self._tell(command, request)
        except AgentServerError as error:
            last = self._wire.failed(command.request_id, error)
        finally:
            del self._active[command.request_id]
        if last is not None:
            await self._connection.send(last)

    async def _tell(self, command: Command, request: _Request) -> Message | None:
        """Send a run's frames; what is to be sent after them."""
        wire = self._wire
        asked = wire.begin if command.kind == "run" else wire.find
        live = request.live = await asked(command, self._caller)
        opening = wire.opening(command, live)
        if live is None:
            if opening is None:
                raise NotFoundError("There is no such run to go on with.", param="runId", code="run_not_found")
            return opening
        if request.is_cancelled:
            await live.cancel("cancelled")
        try:
            if opening is not None:
                await self._connection.send(opening)
            sequence, unsent = await self._follow(live, command)
        finally:
            if live.left is not None and not live.log.over:
                await live.left()
        (end,) = live.log.read(len(live.log) - 1)
        return wire.closing(command.request_id, sequence, end) or unsent

    async def _follow(self, live: Live, command: Command) -> tuple[int, Message | None]:
        """Send what a run tells, without what the client has.

        How many frames there are, and the last one, if the client has had that before.
        """
        log, feed, frame_of = live.log, live.encoder.feed, self._wire.frame
        after = sequence = 0
        unsent: Message | None = None
        while True:
            if batch := log.read(after, _BATCH):
                after += len(batch)
                for frame in [frame for event in batch for frame in feed(event)]:
                    message = frame_of(command.request_id, sequence, frame)
                    if message is None:
                        continue
                    if sequence > command.after:
                        await self._connection.send(message)
                    else:
                        unsent = message
                    sequence += 1
                await asyncio.sleep(0)  # a long replay leaves the others their turn
            elif log.over:
                return sequence, unsent if sequence <= command.after + 1 else None
            else:
                await self._more(live, command.timeout or self._timeout)

    async def _more(self, live: Live, seconds: float) -> None:
        """Wait until a run tells more. Raises `SilentError` once it has been stopped for telling nothing."""
        try:
            async with asyncio.timeout(seconds):
                await live.log.waiter()
        except TimeoutError:
            await live.cancel("timeout")
            raise SilentError(seconds) from None
