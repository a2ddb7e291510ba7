"""`/threads/{t}/stream/events` as a WebSocket: commands and subscriptions on one connection.

Each subscription is told by itself, from the thread's beginning or `since` on: clients know an event that two of
theirs want by its `event_id`.
"""

from __future__ import annotations

import asyncio
from uuid import uuid4

from starlette.requests import Request

from agent_server.errors import AgentServerError, RequestError
from agent_server.http.identity import TENANT
from agent_server.http.socket import Connection, GoneError, read_object
from agent_server.protocols.langgraph.commands import Command, Commands, read_command, refusal, success
from agent_server.protocols.langgraph.encoder_v2 import V2Encoder, place_of
from agent_server.protocols.langgraph.subscription import Subscription, read_subscription
from agent_server.runs.engine import Engine
from agent_server.runs.thread_log import ThreadLog

MOST = 32
"""Subscriptions of one connection."""
_BATCH = 256


class ThreadSocket:
    """One connection."""

    def __init__(
        self, connection: Connection, engine: Engine, commands: Commands, thread_id: str, asking: Request
    ) -> None:
        self._connection = connection
        self._engine = engine
        self._commands = commands
        self._thread_id = thread_id
        self._asking = asking
        self._told: dict[str, asyncio.Task[None]] = {}

    async def serve(self) -> None:
        """Until the client leaves."""
        try:
            async with asyncio.TaskGroup() as tasks:
                await self._read(tasks)
        except* GoneError:
            pass  # with all that it had subscribed to

    async def _read(self, tasks: asyncio.TaskGroup) -> None:
        while True:
            message = await self._connection.receive()
            try:
                command = read_command(read_object(message))
            except RequestError as error:
                await self._connection.send(refusal(None, "invalid_argument", error.message))
                continue
            try:
                answer = await self._do(command, tasks)
            except AgentServerError as error:
                code = "invalid_argument" if isinstance(error, RequestError) else "unknown_error"
                answer = refusal(command.id, code, error.message)
            await self._connection.send(answer)

    async def _do(self, command: Command, tasks: asyncio.TaskGroup) -> dict[str, object]:
        match command.method:
            case "subscription.subscribe":
                return self._subscribe(command, tasks)
            case "subscription.unsubscribe":
                told = self._told.pop(str(command.params.get("subscription_id")), None)
                if told is None:
                    return refusal(command.id, "no_such_subscription", "There is no such subscription.")
                told.cancel()
                return success(command.id, {}, 0)
            case "subscription.reconnect":  # a connection's subscriptions go with it
                return success(command.id, {"restored": False}, 0)
            case _:
                return await self._commands.do(self._asking, self._thread_id, command)

    def _subscribe(self, command: Command, tasks: asyncio.TaskGroup) -> dict[str, object]:
        if len(self._told) >= MOST:
            raise RequestError(f"A connection has at most {MOST} subscriptions.")
        subscription = read_subscription(command.params)
        subscription_id = uuid4().hex
        self._told[subscription_id] = tasks.create_task(self._tell(subscription))
        return success(command.id, {"subscription_id": subscription_id, "replayed_events": 0}, subscription.since)

    async def _tell(self, subscription: Subscription) -> None:
        encoder, count = V2Encoder(subscription), 0
        async with ThreadLog(self._engine, TENANT, self._thread_id, after=place_of(subscription.since)) as log:
            while True:
                if batch := log.read(count, _BATCH):
                    count += len(batch)
                    for frame in (frame for placed in batch for frame in encoder.feed(placed)):
                        await self._connection.send_text(frame.data.decode())
                else:
                    await log.waiter()
