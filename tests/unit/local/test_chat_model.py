"""The real model on this CPU: it streams, calls tools, keeps to a schema, and can be stopped."""

from __future__ import annotations

import asyncio
import json
import threading
from contextlib import aclosing
from typing import Any

import pytest
from langchain_core.messages import AIMessage, AIMessageChunk, HumanMessage, ToolMessage
from langchain_core.tools import tool

from agent_server.demo.agent import calculate, get_current_time
from agent_server.local import LocalChatModel

LONG = "Write a long story about the sea."

pytestmark = [pytest.mark.model, pytest.mark.xdist_group("model")]


@pytest.fixture(scope="module")
def model() -> LocalChatModel:
    return LocalChatModel(max_tokens=2000)


@pytest.mark.parametrize(
    ("question", "name", "arguments"),
    [
        ("What time is it in Tokyo?", "get_current_time", {"timezone": "Asia/Tokyo"}),
        ("What time is it in Paris?", "get_current_time", {"timezone": "Europe/Paris"}),
        ("What is 17 * 23?", "calculate", {"expression": "17 * 23"}),
    ],
)
async def test_the_model_chooses_a_tool_and_its_arguments(
    model: LocalChatModel, question: str, name: str, arguments: dict[str, Any]
) -> None:
    answer = await model.bind_tools([get_current_time, calculate]).ainvoke(question)
    assert [(call["name"], call["args"]) for call in answer.tool_calls] == [(name, arguments)]
    assert answer.response_metadata["finish_reason"] == "tool_calls"
    assert answer.usage_metadata is not None
    assert answer.usage_metadata["output_tokens"] > 0


async def test_a_joke_needs_no_tool(model: LocalChatModel) -> None:
    answer = await model.bind_tools([get_current_time, calculate]).ainvoke("Tell me a joke.")
    assert (answer.tool_calls, bool(answer.text)) == ([], True)


async def test_arguments_and_text_arrive_in_pieces(model: LocalChatModel) -> None:
    chunks = [c async for c in model.bind_tools([get_current_time]).astream("What time is it in Tokyo?")]
    pieces = [piece for c in chunks if isinstance(c, AIMessageChunk) for piece in c.tool_call_chunks]
    assert (pieces[0]["name"], pieces[0]["args"]) == ("get_current_time", "")
    assert len(pieces) > 4
    assert json.loads("".join(piece["args"] or "" for piece in pieces)) == {"timezone": "Asia/Tokyo"}
    texts = [c.text async for c in model.bind(max_tokens=30).astream("Tell me a joke.") if c.text]
    assert len(texts) > 4


async def test_the_answer_is_made_of_what_the_tool_said(model: LocalChatModel) -> None:
    call = await model.bind_tools([calculate]).ainvoke("What is 17 * 23?")
    output = ToolMessage("17 * 23 = 391", tool_call_id=call.tool_calls[0]["id"])
    answer = await model.bind_tools([calculate]).ainvoke([HumanMessage("What is 17 * 23?"), call, output])
    assert "391" in answer.text


@pytest.mark.parametrize("told", ["00:00", "06:25", "09:13", "11:11", "20:11"])
@pytest.mark.parametrize("city", ["Tokyo", "Paris"])
async def test_the_time_of_day_is_told_as_it_is(model: LocalChatModel, city: str, told: str) -> None:
    question = HumanMessage(f"What time is it in {city}?")
    call = AIMessage("", tool_calls=[{"name": "get_current_time", "args": {}, "id": "1"}])
    output = ToolMessage(f"In {city} it is {told} on Saturday, 21 November 2026", tool_call_id="1")
    answer = await model.ainvoke([question, call, output])
    assert f"In {city} it is {told}" in answer.text


def test_a_json_schema_is_kept_to(model: LocalChatModel) -> None:
    schema = {"type": "object", "properties": {"city": {"type": "string", "maxLength": 20}}, "required": ["city"]}
    wanted = {"type": "json_schema", "json_schema": {"name": "place", "schema": schema}}
    answer = model.bind(response_format=wanted).invoke("Name a city in France.")
    assert isinstance(json.loads(answer.text)["city"], str)


def test_a_tool_that_must_be_called_is_called(model: LocalChatModel) -> None:
    @tool
    def greet(name: str) -> str:
        """Greet somebody."""
        return f"Hello {name}"

    answer = model.bind_tools([greet], tool_choice="any").invoke("My name is Bob.")
    assert [call["name"] for call in answer.tool_calls] == ["greet"]


async def stopped() -> bool:
    """Whether the native calls end by themselves now."""
    threads = [thread for thread in threading.enumerate() if thread.name == "llama"]
    for thread in threads:
        await asyncio.to_thread(thread.join, 10)
    return not any(thread.is_alive() for thread in threads)


async def test_leaving_a_stream_stops_the_model_and_leaves_no_thread(model: LocalChatModel) -> None:
    async with aclosing(model.astream(LONG)) as chunks:  # type: ignore[type-var]
        async for chunk in chunks:
            if chunk.text:
                break
    assert await stopped()


async def test_a_cancelled_answer_stops_the_model(model: LocalChatModel) -> None:
    begun = asyncio.Event()

    async def read() -> None:
        async for chunk in model.astream(LONG):
            if chunk.text:
                begun.set()

    task = asyncio.create_task(read())
    await begun.wait()
    task.cancel()
    with pytest.raises(asyncio.CancelledError):
        await task
    assert await stopped()


async def test_two_answers_at_once_both_end_and_the_event_loop_stays_free(model: LocalChatModel) -> None:
    ticks = 0

    async def tick() -> None:
        nonlocal ticks
        while True:
            await asyncio.sleep(0.002)
            ticks += 1

    ticking = asyncio.create_task(tick())
    answers = await asyncio.gather(
        *(model.bind(max_tokens=30).ainvoke(q) for q in ("Tell me a joke.", "What is a dog?"))
    )
    ticking.cancel()
    assert all(answer.text for answer in answers)
    assert ticks > 10
