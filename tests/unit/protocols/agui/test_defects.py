"""Fifteen defects that AG-UI servers have been seen with: the stream here does it right."""

from __future__ import annotations

from typing import Any

import orjson
import pytest

from tests.support.agui import in_order
from tests.support.agui_asking import Agent, body, events_in, user
from tests.support.exchange import Exchange, ask, opened
from tests.support.gates import Gate
from tests.support.scripted import SCENARIOS, gated_text


async def run(scenario: str) -> Agent:
    async with opened({"agent": SCENARIOS[scenario]()}) as app:
        agent = Agent(app)
        await agent.run("What?")
        return agent


def arguments(agent: Agent) -> dict[str, str]:
    """The arguments of each call as they were streamed."""
    joined: dict[str, str] = {}
    for event in agent.of("TOOL_CALL_START", "TOOL_CALL_ARGS"):
        joined[event["toolCallId"]] = joined.get(event["toolCallId"], "") + event.get("delta", "")
    return joined


async def test_b1_name_and_arguments_in_one_chunk_are_both_told() -> None:
    assert arguments(await run("name_and_arguments_in_one_chunk")) == {"call_oslo": '{"city": "Oslo"}'}


async def test_b2_two_calls_in_one_chunk_are_announced_before_a_tool_runs() -> None:
    agent = await run("two_calls_in_one_chunk")
    kinds = [event["type"] for event in agent.of("TOOL_CALL_START", "TOOL_CALL_RESULT")]
    assert kinds == ["TOOL_CALL_START"] * 2 + ["TOOL_CALL_RESULT"] * 2


async def test_b3_interleaved_arguments_go_to_their_own_calls() -> None:
    told = arguments(await run("interleaved_arguments"))
    assert [orjson.loads(each)["city"] for each in told.values()] == ["Oslo", "Rome"]


async def test_b4_text_in_the_last_chunk_is_told() -> None:
    agent = await run("text_in_finish_chunk")
    assert "".join(each["delta"] for each in agent.of("TEXT_MESSAGE_CONTENT")) == "Hello world"


async def test_b5_a_result_has_one_id_in_the_stream_and_in_every_snapshot() -> None:
    agent = await run("text_tool_text")
    (result,) = agent.of("TOOL_CALL_RESULT")
    (snapshot,) = agent.of("MESSAGES_SNAPSHOT")
    assert [m["id"] for m in snapshot["messages"] if m["role"] == "tool"] == [result["messageId"]]
    assert [m["role"] for m in agent.client.messages] == ["user", "assistant", "tool", "assistant"]
    in_order(agent.client.messages)


async def test_b6_no_snapshot_ever_lacks_a_message_that_was_streamed() -> None:
    agent = await run("text_tool_text")
    for snapshot in agent.of("MESSAGES_SNAPSHOT"):
        assert len(snapshot["messages"]) == 4
    assert all("messages" not in event["snapshot"] for event in agent.of("STATE_SNAPSHOT"))


async def test_b7_a_run_names_the_version_of_the_protocol() -> None:
    assert (await run("plain_text")).events[0]["protocolVersion"] == "1.0"


async def test_b8_reasoning_ends_before_the_text_and_stays_where_it_was() -> None:
    agent = await run("reasoning_then_text")
    kinds = [event["type"] for event in agent.events]
    assert kinds.index("REASONING_END") < kinds.index("TEXT_MESSAGE_START")
    assert [m["role"] for m in agent.client.messages] == ["user", "reasoning", "assistant"]
    assert agent.client.text("reasoning") == ["Hmm, think."]


async def test_b9_a_resumed_run_tells_only_the_result_of_the_call() -> None:
    async with opened({"agent": SCENARIOS["approval"]()}) as app:
        agent = Agent(app)
        await agent.run("Write")
        called = arguments(agent)
        (question,) = agent.outcome["interrupts"]
        entry = {"interruptId": question["id"], "status": "resolved", "payload": {"approved": True}}
        await agent.run(resume=[entry])
        assert agent.of("TOOL_CALL_START", "TOOL_CALL_ARGS", "TOOL_CALL_END") == []
        (result,) = agent.of("TOOL_CALL_RESULT")
        assert result["toolCallId"] == question["toolCallId"]
        (message,) = [m for m in agent.client.messages if m.get("toolCalls")]
        assert orjson.loads(message["toolCalls"][0]["function"]["arguments"]) == orjson.loads(called["call_oslo"])
        in_order(agent.client.messages)


async def test_b10_of_two_runs_at_once_on_a_thread_the_second_is_refused() -> None:
    gate = Gate()
    async with opened({"agent": gated_text(["One"], gate, [" two"])}) as app:
        async with Exchange(app, "POST", "/agui", body(user("first"))) as first:
            await gate.reached()
            second = await ask(app, "POST", "/agui", body(user("second", "u2"), run="r2"))
            assert second.status == 409
            gate.open()
            events = events_in(await first.whole())
        assert events[-1]["outcome"] == {"type": "success"}
        assert [m["content"] for m in events[-2]["messages"]] == ["first", "One two"]


@pytest.mark.parametrize(
    ("wrong", "param"), [({"state": [1]}, "state"), ({"messages": []}, "messages"), ({"messages": None}, "messages")]
)
async def test_b11_what_cannot_be_run_is_refused_before_the_stream(wrong: dict[str, Any], param: str) -> None:
    async with opened({"agent": SCENARIOS["plain_text"]()}) as app:
        answer = await ask(app, "POST", "/agui", body(user("Hi")) | wrong)
        assert answer.status == 400
        assert orjson.loads(answer.received)["error"]["param"] == param


async def test_b12_a_run_goes_on_without_its_client_and_keeps_what_it_said() -> None:
    gate = Gate()
    async with opened({"agent": gated_text(["One"], gate, [" two"])}) as app:
        async with Exchange(app, "POST", "/agui", body(user("first"))) as first:
            await first.until(b"One")
            await gate.reached()
        gate.open()
        async with Exchange(app, "GET", "/agui/agent/threads/t1/events") as again:
            events = events_in(await again.whole())
        agent = Agent(app)
        assert agent.client.read(events).text() == ["One two"]
        assert agent.outcome == {"type": "success"}


async def test_b13_langchains_own_events_come_only_when_asked_for() -> None:
    async with opened({"agent": SCENARIOS["plain_text"]()}) as app:
        agent = Agent(app)
        await agent.run("Hi")
        assert agent.of("RAW") == []
        await agent.run("Hi", query="?raw=true")
        assert {event["source"] for event in agent.of("RAW")} == {"langchain"}


@pytest.mark.parametrize("scenario", ["tool_error_fatal", "tool_error_handled", "tool_error_exception"])
async def test_b14_a_tool_that_failed_has_a_result(scenario: str) -> None:
    agent = await run(scenario)
    (result,) = agent.of("TOOL_CALL_RESULT")
    assert result["content"]
    assert result["metadata"] == {"status": "error"}
    assert not any(agent.client.open.values())


async def test_b15_two_nodes_that_stream_at_once_stay_apart() -> None:
    agent = await run("two_nodes_streaming_at_once")
    texts: dict[str, str] = {}
    for event in agent.of("TEXT_MESSAGE_CONTENT"):
        texts[event["messageId"]] = texts.get(event["messageId"], "") + event["delta"]
    assert sorted(texts.values()) == ["Left one.", "Right one."]
    starts = [event["stepName"] for event in agent.of("STEP_STARTED")]
    assert sorted(starts) == ["begin", "left", "right"]
    assert sorted(agent.client.text()) == ["Left one.", "Right one."]
