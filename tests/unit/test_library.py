"""The converter as a library."""

from __future__ import annotations

from contextlib import aclosing

import agent_server
from agent_server import responses_events
from tests.support.gates import Gate
from tests.support.scripted import SCENARIOS, SECRET, gated_text

QUESTION = {"messages": [{"role": "user", "content": "hi"}]}


async def test_two_lines_convert_a_stream_of_langchain_to_responses_events() -> None:
    agent = SCENARIOS["one_tool"]()
    events = [event async for event in responses_events(agent.astream_events(QUESTION, version="v2"))]
    assert [e["sequence_number"] for e in events] == list(range(len(events)))
    assert (events[0]["type"], events[-1]["type"]) == ("response.created", "response.completed")
    kinds = [item["type"] for item in events[-1]["response"]["output"]]
    assert kinds == ["function_call", "function_call_output", "message"]


async def test_an_agent_that_raises_ends_the_events_as_failed() -> None:
    agent = SCENARIOS["model_error_after_first_token"]()
    events = [event async for event in responses_events(agent.astream_events(QUESTION, version="v2"))]
    assert [e["type"] for e in events[-2:]] == ["error", "response.failed"]
    assert SECRET not in str(events)


async def test_leaving_the_loop_stops_the_agent() -> None:
    gate = Gate()
    agent = gated_text(["one "], gate, ["two"])
    async with aclosing(responses_events(agent.astream_events(QUESTION, version="v2"))) as events:  # type: ignore[type-var]
        async for event in events:
            if event["type"] == "response.output_text.delta":
                break
    assert gate.is_reached


def test_everything_the_package_names_can_be_imported() -> None:
    assert all(getattr(agent_server, name) for name in agent_server.__all__)
