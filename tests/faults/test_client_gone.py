"""A client that leaves ends its run, whether it was streaming or waiting, and nothing of it goes on."""

from __future__ import annotations

import asyncio
import time
from collections.abc import AsyncIterator, Iterator
from concurrent.futures import Future
from typing import Any

import httpx
import pytest
from langchain_core.messages import AIMessage
from langchain_core.runnables import Runnable, RunnableConfig, RunnableGenerator, RunnableLambda
from langgraph.graph import END, START, MessagesState, StateGraph

from agent_server.settings import Settings
from tests.support.gates import Gate
from tests.support.scripted import ScriptedChatModel, chunks
from tests.support.serve import serving
from tests.support.wire import Wire

SOON = 0.05
"""Seconds from the client's leaving to the end of its run."""
PATIENCE = 10.0


class Watched:
    """Agents that tell when they began to wait and when they were stopped."""

    def __init__(self) -> None:
        self.began: Future[None] = Future()
        self.stopped: Future[float] = Future()
        self.never = Gate()

    async def wait(self, _: Any) -> Any:
        self.began.set_result(None)
        try:
            await self.never.passed()
        finally:
            self.stopped.set_result(time.monotonic())

    def streaming(self) -> Runnable[Any, Any]:
        """Says something, then waits for ever."""

        async def say(state: MessagesState) -> dict[str, Any]:
            model = ScriptedChatModel(turns=[[*chunks.text("Hel", "lo"), *chunks.finish()]])
            return {"messages": [await model.ainvoke(state["messages"])]}

        graph = StateGraph(MessagesState)
        graph.add_node("say", say)
        graph.add_node("wait", self.wait)
        graph.add_edge(START, "say")
        graph.add_edge("say", "wait")
        graph.add_edge("wait", END)
        return graph.compile()


@pytest.fixture
def watched() -> Watched:
    return Watched()


@pytest.mark.parametrize("path", ["/v1/responses", "/responses", "/invocations"])
def test_a_stream_whose_client_leaves_is_cancelled_at_once(watched: Watched, path: str) -> None:
    with serving({"agent": watched.streaming()}) as url, Wire(url) as wire:
        wire.post(path, {"input": "hi", "stream": True})
        wire.read_until(b'"delta":"lo"')
        watched.began.result(PATIENCE)
        left = time.monotonic()
        wire.leave()
        assert watched.stopped.result(PATIENCE) - left < SOON


def test_an_answer_that_nobody_waits_for_any_more_is_cancelled_at_once(watched: Watched) -> None:
    with serving({"agent": RunnableLambda(watched.wait)}) as url, Wire(url) as wire:
        wire.post("/v1/responses", {"input": "hi"})
        watched.began.result(PATIENCE)
        left = time.monotonic()
        wire.leave()
        assert watched.stopped.result(PATIENCE) - left < SOON


def test_a_client_that_stops_sending_has_left(watched: Watched) -> None:
    with serving({"agent": watched.streaming()}) as url, Wire(url) as wire:
        wire.post("/v1/responses", {"input": "hi", "stream": True})
        watched.began.result(PATIENCE)
        left = time.monotonic()
        wire.socket.shutdown(1)
        assert watched.stopped.result(PATIENCE) - left < SOON


def test_a_synchronous_node_is_stopped_at_its_next_callback() -> None:
    go_on = Gate()
    ended: Future[str] = Future()

    def talk(state: MessagesState) -> dict[str, Any]:
        model = ScriptedChatModel(
            turns=[[*chunks.text("one "), go_on, *chunks.text("two ", "three"), *chunks.finish()]]
        )
        try:
            message = model.invoke(state["messages"])
        except BaseException as stopped:
            ended.set_result(type(stopped).__name__)
            raise
        ended.set_result("ran to its end")
        return {"messages": [message]}

    graph = StateGraph(MessagesState)
    graph.add_node("talk", talk)
    graph.add_edge(START, "talk")
    graph.add_edge("talk", END)
    with serving({"agent": graph.compile()}) as url, Wire(url) as wire:
        wire.post("/v1/responses", {"input": "hi", "stream": True})
        wire.read_until(b'"delta":"one "')
        go_on.wait_reached()
        wire.leave()
        with httpx.Client(base_url=url) as client:
            assert client.get("/health").status_code == 200  # the loop has seen the disconnect by now
        go_on.open()
        assert ended.result(PATIENCE) == "CancelledError"


def test_the_first_two_events_leave_before_the_agent_is_even_made() -> None:
    made = Gate()

    async def factory(config: RunnableConfig) -> Runnable[Any, Any]:
        if config.get("run_id") is not None:
            await made.passed()
        return RunnableLambda(lambda _: "done")

    with serving({"agent": factory}) as url, Wire(url) as wire:
        wire.post("/v1/responses", {"input": "hi", "stream": True}, connection="close")
        head = wire.read_until(b'"type":"response.in_progress"')
        assert b'"type":"response.created"' in head
        assert b"output_item" not in head
        made.open()
        assert b"data: [DONE]\n\n" in wire.read_to_end()


@pytest.fixture
def quiet() -> Iterator[tuple[str, Gate]]:
    gate = Gate()

    async def wait(_: Any) -> AIMessage:
        await gate.passed()
        return AIMessage("done")

    with serving({"agent": RunnableLambda(wait)}, Settings(heartbeat_seconds=0.05)) as url:
        yield url, gate
        gate.open()


@pytest.mark.parametrize(
    ("path", "heartbeat"),
    [("/v1/responses", b": ping\n\n"), ("/responses", b": ping\n\n"), ("/invocations", b"\r\n1\r\n\n\r\n")],
)
def test_silence_is_broken_by_the_heartbeat_of_the_route(quiet: tuple[str, Gate], path: str, heartbeat: bytes) -> None:
    url, gate = quiet
    with Wire(url) as wire:
        wire.post(path, {"input": "hi", "stream": True}, connection="close")
        wire.read_until(heartbeat)
        gate.open()
        assert b"[DONE]" in wire.read_to_end()


def test_a_client_that_never_reads_is_dropped_and_harms_nobody() -> None:
    piece = "x" * 10_000
    ended: Future[str] = Future()

    async def flood(_: Any) -> AsyncIterator[str]:
        try:
            while True:
                yield piece
                await asyncio.sleep(0)
        except BaseException as stopped:
            ended.set_result(type(stopped).__name__)
            raise

    agents = {"flood": RunnableGenerator(flood), "other": RunnableLambda(lambda _: "fine")}
    with serving(agents, Settings(send_timeout_seconds=0.5)) as url, Wire(url, receive_buffer=4096) as wire:
        wire.post("/v1/responses", {"model": "flood", "input": "hi", "stream": True})
        answer = httpx.post(f"{url}/v1/responses", json={"model": "other", "input": "hi"}, timeout=PATIENCE)
        assert answer.json()["output"][0]["content"][0]["text"] == "fine"
        assert ended.result(PATIENCE) in ("CancelledError", "GeneratorExit")
