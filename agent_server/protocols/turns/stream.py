"""Streams of turns that may last only so long: the client's wait is bounded, the turn is not."""

from __future__ import annotations

import asyncio

from starlette.types import ASGIApp, Receive, Scope, Send

from agent_server.errors import AgentServerError
from agent_server.framing import Frame, Framing
from agent_server.http.stream import WatchedClient
from agent_server.protocols.turns.turn import Turn


class TurnTimeoutError(AgentServerError):
    """The turn takes longer than its client wants to wait. It goes on."""

    status = 504
    type = "timeout_error"
    code = "timeout"

    def __init__(self, turn_id: str, seconds: float) -> None:
        super().__init__(f"The turn takes longer than {seconds:g} seconds. It goes on: GET /turns/{turn_id}")
        self.turn_id = turn_id


async def begins_within(turn: Turn, seconds: float, receive: Receive) -> bool:
    """Whether a turn has a frame to show within so many seconds. A client that leaves ends the wait."""
    encoder, after = turn.encoder(), 0
    try:
        async with asyncio.timeout(seconds):
            async with WatchedClient(receive):
                while True:
                    batch = turn.log.read(after)
                    after += len(batch)
                    if turn.log.over or any(encoder.feed(event) for event in batch):
                        return True
                    await turn.log.waiter()
    except TimeoutError:
        pass
    return False


class BoundedStream:
    """A stream that ends with an `error` frame at its deadline, a time of the event loop."""

    def __init__(self, stream: ASGIApp, deadline: float, late: TurnTimeoutError, framing: Framing) -> None:
        self._stream = stream
        self._deadline = deadline
        told = {"turn_id": late.turn_id, "code": late.code, "message": late.message, "exec_state": "running"}
        self._last = framing.write(Frame("error", told)) + framing.end

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        try:
            async with asyncio.timeout_at(self._deadline):
                await self._stream(scope, receive, send)
        except TimeoutError:
            await send({"type": "http.response.body", "body": self._last, "more_body": False})
