"""A cancel ends any kind of run wherever it is, within a second; what was said stays, and every reader is told once."""

from __future__ import annotations

import asyncio
import json
import time
from contextlib import AsyncExitStack
from typing import Any

import pytest
from langchain.agents import create_agent
from langchain_core.tools import tool
from langgraph.graph import END, START, MessagesState, StateGraph
from starlette.applications import Starlette

from agent_server.http.identity import TENANT
from tests.support.exchange import Exchange, ask, frames_of, opened
from tests.support.gates import Gate
from tests.support.scenarios.calls import CALLS_END
from tests.support.scripted import ScriptedChatModel, chunks

PLACES = ("model", "tool", "between")
KINDS = {
    "streamed": {"stream": True},
    "not streamed": {},
    "background": {"background": True},
    "streamed in the background": {"stream": True, "background": True},
}


class Waiting:
    """An agent that says something, calls a tool, and waits at one place for a gate that nobody opens."""

    def __init__(self, place: str) -> None:
        self.place = place
        self.gate = Gate()
        self.is_stopped = False

    async def wait(self, place: str) -> None:
        if place == self.place:
            try:
                await self.gate.passed()
            finally:
                self.is_stopped = True

    def graph(self) -> Any:
        @tool
        async def look() -> str:
            """Look."""
            await self.wait("tool")
            return "seen"

        async def rest(state: MessagesState) -> dict[str, Any]:
            await self.wait("between")
            return {}

        at_model = [self.gate] if self.place == "model" else []
        asks = [*chunks.text("Let ", "me "), *at_model, *chunks.call("look", "{}", id="call_1"), *CALLS_END]
        model = ScriptedChatModel(turns=[asks, [*chunks.text("Done."), *chunks.finish()]])
        graph = StateGraph(MessagesState)
        graph.add_node("talk", create_agent(model, tools=[look]))
        graph.add_node("rest", rest)
        graph.add_edge(START, "talk")
        graph.add_edge("talk", "rest")
        graph.add_edge("rest", END)
        return graph.compile()


async def newest(app: Starlette) -> str:
    """The response that came last."""
    rows = await app.state.engine.keeper.store.runs(TENANT, "c1")
    return f"resp_{rows[-1].id}"


def body(**options: Any) -> dict[str, Any]:
    return {"input": "Hello", "context": {"conversation_id": "c1"}, **options}


def terminal_of(stream: bytes) -> list[dict[str, Any]]:
    """The terminal events of a stream."""
    data = [json.loads(frame.split(b"data: ")[1]) for frame in frames_of(stream)[:-1]]
    ends = ("response.completed", "response.incomplete", "response.failed")
    return [each for each in data if each["type"] in ends]


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("place", PLACES)
@pytest.mark.parametrize("store", ["memory", "sqlite"])
async def test_a_run_is_cancelled_wherever_it_waits(store: str, place: str, kind: str, tmp_path: Any) -> None:
    waiting, options = Waiting(place), KINDS[kind]
    url = "memory" if store == "memory" else f"sqlite:///{tmp_path}/runs.db"
    async with opened({"agent": waiting.graph()}, url) as app, AsyncExitStack() as stack:
        caller = await stack.enter_async_context(Exchange(app, "POST", "/v1/responses", body(**options)))
        await waiting.gate.reached()
        kept = await newest(app)
        target = f"/v1/responses/{kept}?stream=true"
        readers = [await stack.enter_async_context(Exchange(app, "GET", target)) for _ in range(2)]
        began = time.monotonic()
        first, second = await asyncio.gather(*(ask(app, "POST", f"/v1/responses/{kept}/cancel") for _ in range(2)))
        assert time.monotonic() - began < 1
        assert waiting.is_stopped or place == "model"
        assert len(app.state.engine) == 0
        streams = [await each.whole() for each in readers] + ([await caller.whole()] if "stream" in options else [])
        ended = await first.json()
        assert ended == await second.json() == await (await ask(app, "POST", f"/v1/responses/{kept}/cancel")).json()
        assert ended["status"] == "cancelled"
        assert ended["output"][0]["content"][0]["text"] == "Let me "
        assert len(set(streams)) == 1
        assert len(terminal_of(streams[0])) == 1
        assert terminal_of(streams[0])[0]["response"] == ended
        assert await (await ask(app, "GET", f"/v1/responses/{kept}")).json() == ended
        assert (await ask(app, "GET", target)).received == streams[0]
        if kind == "not streamed":
            assert (await caller.json())["status"] == "cancelled"


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("store", ["memory", "sqlite"])
async def test_a_run_that_waits_in_line_is_cancelled_and_the_next_one_has_its_turn(
    store: str, kind: str, tmp_path: Any
) -> None:
    waiting = Waiting("model")
    url = "memory" if store == "memory" else f"sqlite:///{tmp_path}/runs.db"
    async with (
        opened({"agent": waiting.graph()}, url, busy_conversation="enqueue") as app,
        Exchange(app, "POST", "/v1/responses", body(stream=True)) as first,
    ):
        await first.until(b'"delta":"me "')
        async with Exchange(app, "POST", "/v1/responses", body(**KINDS[kind])) as caller:
            while (kept := await newest(app)) in first.received.decode():
                await asyncio.sleep(0)
            async with (
                Exchange(app, "GET", f"/v1/responses/{kept}?stream=true") as reader,
                Exchange(app, "POST", "/v1/responses", body(stream=True)) as third,
            ):
                cancels = (ask(app, "POST", f"/v1/responses/{kept}/cancel") for _ in range(2))
                one, other = await asyncio.gather(*cancels)
                assert await one.json() == await other.json()
                ended = await one.json()
                assert (ended["status"], ended["output"]) == ("cancelled", [])
                stream = await reader.whole()
                assert [each["response"] for each in terminal_of(stream)] == [ended]
                if "stream" in KINDS[kind]:
                    assert await caller.whole() == stream
                assert (await ask(app, "GET", f"/v1/responses/{kept}?stream=true")).received == stream
                waiting.gate.open()
                assert terminal_of(await first.whole())[0]["response"]["status"] == "completed"
                assert terminal_of(await third.whole())[0]["response"]["status"] == "completed"


async def test_a_client_that_leaves_while_its_run_waits_in_line_takes_it_out_of_the_line() -> None:
    waiting = Waiting("model")
    async with (
        opened({"agent": waiting.graph()}, busy_conversation="enqueue") as app,
        Exchange(app, "POST", "/v1/responses", body(stream=True)) as first,
    ):
        await first.until(b'"delta":"me "')
        async with Exchange(app, "POST", "/v1/responses", body(stream=True)) as second:
            while (kept := await newest(app)) in first.received.decode():
                await asyncio.sleep(0)
            second.leave()
        assert (await (await ask(app, "GET", f"/v1/responses/{kept}")).json())["status"] == "cancelled"
        waiting.gate.open()
        await first.whole()
        assert len(app.state.engine) == 0


async def test_a_run_that_is_over_cannot_be_cancelled_any_more() -> None:
    waiting = Waiting("nowhere")
    async with opened({"agent": waiting.graph()}) as app:
        done = await (await ask(app, "POST", "/v1/responses", body())).json()
        answer = await ask(app, "POST", f"/v1/responses/{done['id']}/cancel")
        assert answer.status == 400
        assert await (await ask(app, "GET", f"/v1/responses/{done['id']}")).json() == done


@pytest.mark.parametrize("busy", ["interrupt", "rollback"])
async def test_the_newest_run_of_a_conversation_stops_all_before_it(busy: str) -> None:
    waiting = Waiting("model")
    async with opened({"agent": waiting.graph()}, busy_conversation=busy) as app, AsyncExitStack() as stack:
        before = []
        for _ in range(3):
            before.append(await stack.enter_async_context(Exchange(app, "POST", "/v1/responses", body(stream=True))))
            await before[-1].until(b'"delta":"me "')
        for each in before[:-1]:
            assert terminal_of(await each.whole())[0]["response"]["status"] == "cancelled"
        waiting.gate.open()
        assert terminal_of(await before[-1].whole())[0]["response"]["status"] == "completed"
        rows = await app.state.engine.keeper.store.runs(TENANT, "c1")
        statuses = ["completed"] if busy == "rollback" else ["cancelled", "cancelled", "completed"]
        assert [row.status for row in rows] == statuses
