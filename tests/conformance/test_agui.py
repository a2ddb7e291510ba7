"""The official AG-UI client as a judge: `HttpAgent` 1.0, which warns of everything that is not as it should be."""

from __future__ import annotations

from collections.abc import Iterator
from itertools import count
from typing import Any

import pytest
from langchain.agents import create_agent

from tests.conformance.expected import EXPECTED, QUESTION
from tests.conformance.judged import BAD, FAILURE
from tests.conformance.node_judges import Task, Verdict, ready, verdicts
from tests.golden.conversations import CONVERSATIONS
from tests.support.agui import in_order
from tests.support.scripted import SCENARIOS, Gate, Opens, ScriptedChatModel, chunks
from tests.support.serve import serving
from tests.support.tools import get_weather

pytestmark = pytest.mark.node

WEATHER = {
    "name": "get_weather",
    "description": "The weather in a city.",
    "parameters": {"type": "object", "properties": {"city": {"type": "string"}}},
}
WAITING = {"approval", "two_approvals", "free_interrupt", "tool_interrupt"}
ENDING = [name for name in CONVERSATIONS if name in SCENARIOS and name not in WAITING]
_numbers = count()


@pytest.fixture(scope="module")
def url() -> Iterator[str]:
    ready()
    with serving({**SCENARIOS, **_gated()}) as base_url:
        yield base_url


def _gated() -> dict[str, Any]:
    """An agent that waits in the middle of its second answer, and one that lets it go on."""
    gate = Gate()
    call = chunks.call("get_weather", '{"city": "Oslo"}', id="call_oslo")
    slow = ScriptedChatModel(
        turns=[
            [*chunks.text("Looking. "), *call, *chunks.finish("tool_calls")],
            [*chunks.text("Clear "), gate, *chunks.text("sky."), *chunks.finish()],
        ]
    )
    opener = ScriptedChatModel(turns=[[Opens(gate), *chunks.text("Open."), *chunks.finish()]])
    return {"slow": create_agent(slow, tools=[get_weather]), "opener": create_agent(opener, tools=[])}


def talk(url: str, agent: str, *steps: Task, **more: Any) -> list[Verdict]:
    """The turns of one thread, in which the client warned of nothing."""
    return talks(url, [{"agent": agent, "steps": list(steps), **more}])[0]


def talks(url: str, tasks: list[Task]) -> list[list[Verdict]]:
    """Several threads in one process of the client."""
    threads = [{"baseURL": url, "threadId": f"thread {next(_numbers)}/ä", **task} for task in tasks]
    found: list[list[Verdict]] = []
    for task, verdict in zip(tasks, verdicts("agui", threads), strict=True):
        assert verdict["ok"], (task, verdict)
        assert [line for line in verdict["noise"] if not line.startswith("error: Agent execution failed")] == [], task
        found.append(verdict["turns"])
    return found


def roles(turn: Verdict) -> list[str]:
    return [message["role"] for message in turn["messages"]]


def test_every_scenario_is_taken_without_a_warning_and_in_order_twice_over(url: str) -> None:
    steps = [{"say": QUESTION}, {"say": "And again?"}]
    tasks = [{"agent": name, "steps": steps} for name in ENDING if "client" not in name]
    for task, (first, second) in zip(tasks, talks(url, tasks), strict=True):
        name = task["agent"]
        for turn in (first, second):
            assert turn["refused"] is None, (name, turn)
            assert turn["outcome"] is not None, name
            in_order(turn["messages"])
        if first["outcome"]["how"] == "error":
            assert FAILURE in first["outcome"]["message"], name
            continue
        kept = [message["id"] for message in first["messages"]]
        if name != "plain_text":  # its model has one id for all its messages, and the graph keeps one of them
            assert [message["id"] for message in second["messages"]][: len(kept)] == kept, name
        if name in EXPECTED and name != "structured_output":  # a format is nothing that AG-UI can ask for
            wanted = EXPECTED[name]
            said = [m for m in first["messages"] if m["role"] == "assistant"]
            calls = {call["id"] for m in said for call in m.get("toolCalls", ())}
            texts = [m.get("content") or "" for m in said if m.get("subagentRunId") not in calls]
            assert wanted.text.partition("![image]")[0] + wanted.refusal in "".join(texts), name


@pytest.mark.parametrize("scenario", BAD)
def test_a_failure_is_told_and_the_thread_goes_on(url: str, scenario: str) -> None:
    first, second = talk(url, scenario, {"say": QUESTION}, {"say": "And now?"})
    assert first["outcome"]["message"].startswith(FAILURE)
    assert second["outcome"] is not None


def test_two_nodes_that_stream_at_once_stay_apart(url: str) -> None:
    (turn,) = talk(url, "two_nodes_streaming_at_once", {"say": QUESTION})
    assert sorted(m["content"] for m in turn["messages"][1:]) == ["Left one.", "Right one."]


@pytest.mark.parametrize(
    ("answer", "result"),
    [
        ({"approved": True}, "Sent to oslo@b.example."),
        ({"approved": False, "reason": "Not now."}, "Not now."),
        (None, "The user abandoned the question."),
    ],
)
def test_an_approval_goes_there_and_back(url: str, answer: Any, result: str) -> None:
    asked, blocked, told, after = talk(
        url, "approval", {"say": QUESTION}, {"continue": True}, {"answer": [answer]}, {"say": "Thanks"}
    )
    assert asked["outcome"]["how"] == "interrupt"
    (pending,) = asked["pending"]
    assert (pending["reason"], pending["toolCallId"]) == ("tool_call", "call_oslo")
    assert "pending interrupt" in blocked["refused"]
    assert told["outcome"] == {"how": "success", "pending": []}
    assert told["pending"] == []
    assert "TOOL_CALL_START" not in told["types"]
    assert roles(told) == ["user", "assistant", "tool", "assistant"]
    (call,) = told["messages"][1]["toolCalls"]
    assert call["function"]["arguments"].count("oslo@b.example") == 1
    assert told["messages"][2]["content"].endswith(result)
    assert [m["id"] for m in after["messages"]][:4] == [m["id"] for m in told["messages"]]


def test_two_approvals_are_answered_together(url: str) -> None:
    asked, told = talk(url, "two_approvals", {"say": QUESTION}, {"answer": [{"approved": True}, {"approved": False}]})
    assert [each["toolCallId"] for each in asked["pending"]] == ["call_oslo", "call_rome"]
    assert roles(told) == ["user", "assistant", "tool", "tool", "assistant"]
    in_order(told["messages"])


@pytest.mark.parametrize("scenario", ["free_interrupt", "tool_interrupt"])
def test_a_free_question_goes_there_and_back(url: str, scenario: str) -> None:
    asked, told = talk(url, scenario, {"say": QUESTION}, {"answer": ["Oslo"]})
    assert asked["outcome"]["how"] == "interrupt"
    assert told["outcome"]["how"] == "success"
    in_order(told["messages"])


@pytest.mark.parametrize("scenario", ["client_tool", "client_and_server_tool"])
def test_a_tool_of_the_client_goes_there_and_back(url: str, scenario: str) -> None:
    asked, told, after = talk(
        url, scenario, {"say": QUESTION}, {"outputs": {"call_oslo": "Sunny!"}}, {"say": "Thanks"}, tools=[WEATHER]
    )
    assert asked["outcome"] == {"how": "success", "pending": ["call_oslo"]}
    assert told["outcome"] == {"how": "success", "pending": []}
    in_order(told["messages"])
    assert [m["id"] for m in after["messages"]][: len(told["messages"])] == [m["id"] for m in told["messages"]]


def test_an_answer_is_made_anew(url: str) -> None:
    first, again, after = talk(url, "one_tool", {"say": QUESTION}, {"regenerate": True}, {"say": "Thanks"})
    assert roles(again) == roles(first)
    assert again["messages"][0] == first["messages"][0]
    assert roles(after)[:4] == roles(first)
    in_order(after["messages"])


def test_a_connection_that_was_lost_is_taken_up_again(url: str) -> None:
    lost, back, after = talk(
        url, "slow", {"say": QUESTION, "leaveAt": "Clear "}, {"attach": True, "opener": "opener"}, {"attach": True}
    )
    assert lost["outcome"] == {"how": "error", "message": "This operation was aborted"}  # the client says so
    assert lost["messages"][-1]["content"] == "Clear "
    assert back["outcome"] == {"how": "success", "pending": []}
    for turn in (back, after):
        assert roles(turn) == ["user", "assistant", "tool", "assistant"]
        assert [m.get("content") for m in turn["messages"] if m["role"] == "assistant"] == ["Looking. ", "Clear sky."]
        assert turn["refused"] is None


def test_a_page_that_is_loaded_anew_has_the_thread_and_its_question(url: str) -> None:
    thread = f"reloaded {next(_numbers)}"
    (asked,) = talk(url, "approval", {"say": QUESTION}, threadId=thread)
    there, told = talk(url, "approval", {"attach": True}, {"answer": [{"approved": True}]}, threadId=thread)
    assert there["messages"] == asked["messages"]
    assert there["pending"] == asked["pending"]
    assert told["outcome"]["how"] == "success"
    in_order(told["messages"])
