"""The answer to whoever waits: heartbeats, then JSON; and what happens when nobody waits any more."""

from __future__ import annotations

import asyncio
from typing import Any

from agent_server.events import RunFinished, RunStarted
from agent_server.protocols.langgraph.waiting import WaitedJson
from agent_server.runs.log import EventLog


class Client:
    """The other side of an ASGI response."""

    def __init__(self) -> None:
        self.sent: list[dict[str, Any]] = []
        self.leaves = asyncio.Event()
        self.heard = asyncio.Event()

    async def receive(self) -> dict[str, Any]:
        await self.leaves.wait()
        return {"type": "http.disconnect"}

    async def send(self, message: Any) -> None:
        self.sent.append(message)
        if message.get("body"):
            self.heard.set()

    @property
    def body(self) -> bytes:
        return b"".join(each.get("body", b"") for each in self.sent)


def log() -> EventLog:
    return EventLog([RunStarted("r", "agent", 0)])


async def told() -> Any:
    return {"x": 1}


async def test_a_line_end_is_sent_for_every_silence_and_then_the_value() -> None:
    client, events, delivered = Client(), log(), asyncio.Event()
    response = WaitedJson(events, told, headers={"location": "/x"}, delivered=delivered.set, heartbeat=0.001)
    answering = asyncio.create_task(response({}, client.receive, client.send))
    await client.heard.wait()
    assert set(client.body) == set(b"\n")
    events.append(RunFinished(1))
    await answering
    assert client.body.strip() == b'{"x":1}'
    assert (client.sent[0]["status"], client.sent[-1]["more_body"]) == (200, False)
    assert delivered.is_set()


async def test_who_leaves_is_missed_only_where_the_run_is_to_end_with_them() -> None:
    for is_over, expected in ((False, ["left"]), (True, [])):
        client, events, missed, delivered = Client(), log(), [], asyncio.Event()
        held = asyncio.Event()

        async def value(held: asyncio.Event = held) -> Any:
            await held.wait()

        async def left(missed: list[str] = missed) -> None:
            missed.append("left")

        if is_over:
            events.append(RunFinished(1))
        response = WaitedJson(events, value, headers={}, left=left, delivered=delivered.set)
        answering = asyncio.create_task(response({}, client.receive, client.send))
        await asyncio.sleep(0)
        client.leaves.set()
        await answering
        assert (missed, delivered.is_set()) == (expected, False)
