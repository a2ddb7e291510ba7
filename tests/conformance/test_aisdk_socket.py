"""The wire of `WebSocketChatTransport`, frame by frame: numbers, resuming, aborting, and when the server closes."""

from __future__ import annotations

import asyncio
import json
from collections.abc import AsyncIterator, Iterator
from contextlib import asynccontextmanager, suppress
from typing import Any

import httpx
import pytest
from websockets.asyncio.client import ClientConnection, connect
from websockets.exceptions import ConnectionClosed, InvalidStatus

from agent_server.http.socket import MAX_MESSAGE_BYTES
from agent_server.settings import Settings
from tests.support.aisdk import check_chunks, read
from tests.support.gates import PATIENCE, Gate
from tests.support.scripted import SCENARIOS, gated_text
from tests.support.serve import serving

Json = dict[str, Any]


class Served:
    """A server with an agent that waits in the middle of its answer."""

    def __init__(self) -> None:
        self.gate = Gate()
        self.agents = {"slow": gated_text(["Hello"], self.gate, [" world"]), **SCENARIOS}
        self.url = ""


@pytest.fixture
def served() -> Iterator[Served]:
    server = Served()
    with serving(server.agents) as server.url:
        yield server


class Chat:
    """A client on its own connection."""

    def __init__(self, connection: ClientConnection) -> None:
        self.connection = connection

    async def send(self, kind: str = "send", request: str = "r1", chat: str = "c1", **more: Any) -> None:
        said = [{"id": f"u-{request}", "role": "user", "parts": [{"type": "text", "text": "Hi"}]}]
        sent = {"messages": said, "trigger": "submit-message"} if kind == "send" else {}
        frame = {"type": kind, "requestId": request, "id": chat, "headers": {}, "body": {}, **sent, **more}
        await self.connection.send(json.dumps(frame))

    async def frame(self) -> Json:
        async with asyncio.timeout(PATIENCE):
            found: Json = json.loads(await self.connection.recv())
        return found

    async def until(self, kind: str, request: str = "r1") -> list[Json]:
        """The frames of a request up to the first of a kind."""
        frames: list[Json] = []
        while not frames or frames[-1]["type"] != kind:
            frame = await self.frame()
            if frame["requestId"] == request:
                frames.append(frame)
        return frames

    async def until_text(self, text: str) -> None:
        while (await self.frame()).get("chunk", {}).get("delta") != text:
            pass

    async def closed(self) -> int:
        """The code that the server closes with."""
        async with asyncio.timeout(PATIENCE):
            with suppress(ConnectionClosed):
                async for _ in self.connection:
                    pass
        assert self.connection.close_code is not None
        return self.connection.close_code


@asynccontextmanager
async def opened(served: Served, path: str = "/api/chat", **options: Any) -> AsyncIterator[Chat]:
    async with connect(served.url.replace("http", "ws", 1) + path, max_size=None, **options) as connection:
        yield Chat(connection)


def chunks(frames: list[Json]) -> list[Json]:
    """The chunks of a request, numbered from 0 without a gap."""
    found = [frame for frame in frames if frame["type"] == "chunk"]
    assert [frame["sequence"] for frame in found] == list(range(len(found)))
    return [frame["chunk"] for frame in found]


def body(chat: str, agent: str) -> Json:
    said = {"id": "u1", "role": "user", "parts": [{"type": "text", "text": "Hi"}]}
    return {"id": chat, "messages": [said], "agent": agent}


@pytest.mark.parametrize("name", ["plain_text", "text_tool_text", "approval", "model_error_after_first_token"])
async def test_the_chunks_are_those_of_the_stream(served: Served, name: str) -> None:
    async with opened(served) as chat:
        await chat.send(body={"agent": name})
        frames = await chat.until("end")
    assert frames[-1] == {"type": "end", "requestId": "r1"}
    check_chunks(chunks(frames))
    stream = read(httpx.post(f"{served.url}/api/chat", json=body("c2", name)).content)
    assert [chunk["type"] for chunk in chunks(frames)] == [chunk["type"] for chunk in stream]


async def test_ws_speaks_it_too(served: Served) -> None:
    async with opened(served, "/ws", subprotocols=["ai-sdk.v1"]) as chat:
        assert chat.connection.subprotocol == "ai-sdk.v1"
        await chat.send(body={"agent": "plain_text"})
        check_chunks(chunks(await chat.until("end")))


async def test_requests_are_answered_side_by_side(served: Served) -> None:
    async with opened(served) as chat:
        await chat.send(request="slow", chat="c1", body={"agent": "slow"})
        await chat.until_text("Hello")
        await chat.send(request="fast", chat="c2", body={"agent": "plain_text"})
        check_chunks(chunks(await chat.until("end", "fast")))
        served.gate.open()
        await chat.until("end", "slow")


async def test_a_run_outlives_its_connection_and_is_resumed(served: Served) -> None:
    async with opened(served) as chat:
        await chat.send(body={"agent": "slow"})
        await chat.until_text("Hello")
    async with opened(served) as chat:
        await chat.send("resume", "r2")
        assert await chat.frame() == {"type": "start", "requestId": "r2"}
        await chat.send("resume", "r3", lastSequence=2)
        served.gate.open()
        frames: dict[str, list[Json]] = {"r2": [], "r3": []}
        while not all(each and each[-1]["type"] == "end" for each in frames.values()):
            frame = await chat.frame()
            frames[frame["requestId"]].append(frame)
        whole = chunks(frames["r2"])
        check_chunks(whole)
        rest = [frame for frame in frames["r3"] if frame["type"] == "chunk"]
        assert [frame["sequence"] for frame in rest] == list(range(3, len(whole)))
        assert [frame["chunk"] for frame in rest] == whole[3:]
        await chat.send("resume", "r4")
        assert await chat.frame() == {"type": "no-active", "requestId": "r4"}


async def test_who_looks_on_stops_nothing_by_looking_away(served: Served) -> None:
    async with opened(served) as chat, opened(served) as other:
        await chat.send(body={"agent": "slow"})
        await chat.until_text("Hello")
        await other.send("resume", "r2")
        await other.until_text("Hello")
        await other.connection.send(json.dumps({"type": "abort", "requestId": "r2"}))
        await other.send("resume", "r3")
        await other.until("start", "r3")
        served.gate.open()
        assert (await chat.until("end"))[-2]["chunk"]["type"] == "finish"


async def test_aborting_stops_a_run_for_everybody(served: Served) -> None:
    async with opened(served) as chat, opened(served) as other:
        await chat.send(body={"agent": "slow"})
        await chat.until_text("Hello")
        await other.send("resume", "r2")
        await other.until_text("Hello")
        await chat.connection.send(json.dumps({"type": "abort", "requestId": "r1"}))
        frames = await chat.until("end")
        assert frames[-2]["chunk"]["type"] == "abort"
        assert (await other.until("end", "r2"))[-2]["chunk"]["type"] == "abort"
        await chat.connection.send(json.dumps({"type": "abort", "requestId": "nobody"}))
        await chat.send("resume", "r3")
        assert (await chat.frame())["type"] == "no-active"


async def test_what_cannot_be_done_is_an_error_of_its_request(served: Served) -> None:
    async with opened(served) as chat:
        await chat.send(body={"agent": "nobody"})
        refused = await chat.frame()
        assert (refused["type"], refused["status"], refused["param"]) == ("error", 404, "agent")
        assert refused["errorText"] == "There is no agent 'nobody'."
        await chat.send(request="r2", body={"agent": "slow"})
        await chat.until_text("Hello")
        await chat.send(request="r3", body={"agent": "slow"})
        assert (await chat.until("error", "r3"))[-1]["status"] == 409
        served.gate.open()
        await chat.until("end", "r2")


FRAMES: list[tuple[str | bytes, int]] = [
    ("{", 1008),
    ("[]", 1008),
    (b"{}", 1008),
    ("{}", 1008),
    ('{"type": "shout", "requestId": "r"}', 1008),
    ('{"type": "send", "requestId": 7}', 1008),
    ('{"type": "send", "requestId": "r", "id": "c", "headers": {}, "body": {}}', 1008),
    ('{"type": "resume", "requestId": "r", "id": "c", "headers": {"a": 1}, "body": {}}', 1008),
    ('{"type": "resume", "requestId": "r", "id": "c", "headers": {}, "body": []}', 1008),
    ('{"type": "resume", "requestId": "r", "id": "c", "headers": {}, "body": {}, "lastSequence": -1}', 1008),
    (json.dumps({"type": "abort", "requestId": "x" * MAX_MESSAGE_BYTES}), 1009),
]


@pytest.mark.parametrize(("frame", "code"), FRAMES, ids=lambda value: "" if isinstance(value, int) else str(value)[:60])
async def test_a_frame_out_of_protocol_closes_the_connection(served: Served, frame: Any, code: int) -> None:
    async with opened(served) as chat:
        await chat.connection.send(frame)
        assert await chat.closed() == code


async def test_a_request_that_is_sent_twice_closes_the_connection(served: Served) -> None:
    async with opened(served) as chat:
        for _ in range(2):
            await chat.send(body={"agent": "slow"})
        assert await chat.closed() == 1008
    served.gate.open()


async def test_a_page_of_another_origin_is_refused() -> None:
    server = Served()
    with serving(server.agents, Settings(allowed_origins=("https://app.example",))) as server.url:
        async with opened(server, origin="https://app.example") as chat:
            await chat.send(body={"agent": "plain_text"})
            await chat.until("end")
        with pytest.raises(InvalidStatus) as refused:
            async with opened(server, origin="https://evil.example"):
                pass
        assert refused.value.response.status_code == 403
