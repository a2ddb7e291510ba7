"""The lanes of one WebSocket: on each, responses are created one after the other, in the order asked for."""

from __future__ import annotations

import asyncio
from collections import deque
from collections.abc import Awaitable, Callable, Mapping, Sequence
from typing import Any

from agent_server import ids
from agent_server.errors import AgentServerError, RequestError
from agent_server.graph.steering import Steering
from agent_server.http.identity import Identity
from agent_server.protocols.responses.asked import Dialect, Said
from agent_server.protocols.responses.creation import Begun, Creation
from agent_server.protocols.responses.encoder import ResponsesEncoder
from agent_server.protocols.responses.fields import Fields
from agent_server.protocols.responses.recent import LIMIT
from agent_server.protocols.responses.steers import Steer, Steers, Target, required_input

MAX_ACTIVE = 16
"""Responses in progress on one connection. Those beyond wait."""

MAX_WAITING = 64
"""Requests that wait on one connection. Those beyond are refused."""

_BATCH = 64
_ENVELOPE = frozenset({"type", "stream_id", "stream", "generate", "background"})

Send = Callable[[Mapping[str, Any], str | None], Awaitable[None]]
"""Sends one event on a lane. Raises when the client is gone."""


class Lanes:
    """All lanes of one connection, and what they share."""

    def __init__(
        self,
        creation: Creation,
        dialect: Dialect,
        headers: Mapping[str, str],
        identity: Identity,
        send: Send,
        tasks: asyncio.TaskGroup,
    ) -> None:
        self._creation, self._recent = creation.on_connection()
        self._dialect = dialect
        self._headers = headers
        self._identity = identity
        self._send = send
        self._tasks = tasks
        self._active = asyncio.Semaphore(MAX_ACTIVE)
        self._waiting: dict[str | None, deque[Mapping[str, Any]]] = {}  # of the lanes that are at work
        self._made: dict[str, str | None] = {}  # response id -> its lane, for those that are not stored
        self._steers = Steers()
        self._told = 0

    # -- creating ------------------------------------------------------------------------------------------

    def create(self, event: Mapping[str, Any], stream_id: str | None) -> None:
        """Take a request. Raises `RequestError` when too many wait."""
        if Fields(event).flag("background"):
            message = "A response over a WebSocket cannot be in the background."
            raise RequestError(message, param="background", code="unsupported_parameter")
        if sum(map(len, self._waiting.values())) >= MAX_WAITING:
            raise _TooManyError
        if stream_id in self._waiting:
            self._waiting[stream_id].append(event)
            return
        self._waiting[stream_id] = deque([event])
        self._tasks.create_task(self._work(stream_id), name=f"lane {stream_id}")

    async def _work(self, stream_id: str | None) -> None:
        """The life of a lane: until nothing waits on it."""
        waiting = self._waiting[stream_id]
        while waiting:
            async with self._active:
                event = waiting.popleft()
                body = {key: value for key, value in event.items() if key not in _ENVELOPE}
                await self._respond(body, stream_id, event)
        del self._waiting[stream_id]

    async def _respond(self, body: Mapping[str, Any], stream_id: str | None, event: Mapping[str, Any]) -> None:
        """One response, and its successors as often as it is steered."""
        steering = Steering()
        try:
            generate = Fields(event).flag("generate")
            following: tuple[Begun, Target] | None = await self._begin(
                body, stream_id, steering, generate=generate is not False
            )
        except AgentServerError as error:
            await self._send(error_event(error), stream_id)
            await self._forget_parent(body, stream_id)
            return
        while following is not None:
            begun, target = following
            response = await self._follow(begun, target)
            self._steers.end(target)
            following = await self._succeed(target, response)

    async def _begin(
        self, body: Mapping[str, Any], stream_id: str | None, steering: Steering, *, generate: bool = True
    ) -> tuple[Begun, Target]:
        said = Said(body, self._headers, self._identity, ids.new_request_id(), generate, steering)
        asked = await self._creation.understand(said, self._dialect)
        begun = await self._creation.begin(asked)
        response_id = ids.response_id(begun.run_id)
        if not asked.keeps:
            self._made[response_id] = stream_id
            if len(self._made) > LIMIT:
                del self._made[next(iter(self._made))]
        target = Target(response_id, stream_id, body, steering, bool(asked.origin.conversation))
        self._steers.begin(target, body.get("previous_response_id"))
        return begun, target

    async def _forget_parent(self, body: Mapping[str, Any], stream_id: str | None) -> None:
        """A lane that failed to go on from its own response lost it; one that failed to fork another's did not."""
        parent = body.get("previous_response_id")
        if isinstance(parent, str) and parent in self._made and self._made[parent] == stream_id:
            self._recent.forget(parent)
            gone = RequestError("The response cannot be gone on from any more.", code="response_not_active")
            await self._fail(self._steers.drop(parent), stream_id, gone)

    async def _follow(self, begun: Begun, target: Target) -> dict[str, Any]:
        """Send a response's events as they come; the response object of the last one.

        The event `error` is left out: on this wire it is the end of a request that never became a response.
        """
        log, encoder, after = begun.log, ResponsesEncoder(begun.tool_items), 0
        try:
            while True:
                if batch := log.read(after, _BATCH):
                    after += len(batch)
                    for frame in [frame for event in batch for frame in encoder.feed(event)]:
                        if frame.event != "error":
                            await self._send(frame.data, target.stream_id)
                elif log.over:
                    return encoder.response
                else:
                    await log.waiter()
        finally:
            if begun.left is not None and not log.over:
                await begun.left()

    # -- steering ------------------------------------------------------------------------------------------

    async def steer(self, event: Fields) -> None:
        """Take input for a response in progress, or tell why not."""
        response_id, given = event.get("previous_response_id"), event.get("input")
        try:
            target, steer = self._steers.take(event.required_text("previous_response_id"), given)
        except RequestError as error:
            told = {"previous_response_id": response_id if isinstance(response_id, str) else "", "input": given}
            lane = self._steers.lane_of(response_id)
            await self._tell("failed", lane, steer=told, error=_steer_error(error))
            return
        await self._tell("accepted", target.stream_id, steer=steer.told())

    async def _succeed(self, target: Target, response: Mapping[str, Any]) -> tuple[Begun, Target] | None:
        """What comes after a response that was steered: its successor, if there can be one."""
        stream_id = target.stream_id
        if not target.steers:
            return None
        if required := required_input(response):
            self._steers.wait(target)
            for steer in target.steers:
                reason = {"reason": "waiting_for_required_input", "required_input": required}
                await self._tell("pending", stream_id, steer=steer.told(), **reason)
            return None
        if response["status"] in ("failed", "cancelled"):
            message = f"The response has {response['status']}."
            await self._fail(target.steers, stream_id, RequestError(message, code="response_not_active"))
            return None
        try:
            return await self._begin(target.successor(), stream_id, Steering())
        except AgentServerError as error:
            failed = RequestError(error.message, code="successor_creation_failed")
            await self._fail(target.steers, stream_id, failed)
            return None

    async def _fail(self, steers: Sequence[Steer], stream_id: str | None, error: RequestError) -> None:
        for steer in steers:
            told = {**steer.told(), "input": steer.input}
            await self._tell("failed", stream_id, steer=told, error=_steer_error(error))

    async def _tell(self, what: str, stream_id: str | None, **data: Any) -> None:
        """These events belong to no response's stream; they are numbered by connection."""
        number, self._told = self._told, self._told + 1
        await self._send({"type": f"response.steer.{what}", "sequence_number": number, **data}, stream_id)


class _TooManyError(RequestError):
    status = 429

    def __init__(self) -> None:
        super().__init__(f"{MAX_WAITING} requests wait on this connection already.", code="rate_limit_exceeded")


def error_event(error: AgentServerError) -> dict[str, Any]:
    """A request that was refused: with the status that it would have had over HTTP."""
    told = {"type": error.type, "code": error.code, "message": error.message, "param": error.param}
    return {"type": "error", "status": error.status, "error": told}


_STEER_CODES = frozenset(
    {
        "response_not_found",
        "steering_not_supported",
        "too_many_pending_steers",
        "response_already_completed",
        "response_not_active",
        "successor_creation_failed",
    }
)


def _steer_error(error: RequestError) -> dict[str, Any]:
    code = error.code if error.code in _STEER_CODES else "invalid_input"
    return {"type": "invalid_request_error", "code": code, "message": error.message}
