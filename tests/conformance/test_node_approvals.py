"""Chat clients in JavaScript, which keep the history themselves, answer questions and go on talking.

`@ai-sdk/openai` refers to stored items by their ids; `@databricks/ai-sdk-provider` sends everything each time.
"""

from __future__ import annotations

import json
from collections.abc import Iterator
from itertools import count
from typing import Any

import pytest

from agent_server.settings import Settings
from tests.conformance.node_judges import Task, Verdict, ready, verdicts
from tests.support.asking import ASKING
from tests.support.serve import serving
from tests.support.stores import on_every_store, store

__all__ = ["store"]

pytestmark = pytest.mark.node

AI_SDK = {"provider": "openai"}
DATABRICKS = {"provider": "databricks", "path": "/invocations"}
DATABRICKS_RESPONSES = {"provider": "databricks", "path": "/responses"}

CLIENTS: dict[str, Task] = {
    "ai-sdk generate": AI_SDK | {"mode": "generate"},
    "ai-sdk stream": AI_SDK | {"mode": "stream"},
    "ai-sdk following": AI_SDK | {"mode": "stream", "follow": True},
    "databricks": DATABRICKS | {"mode": "stream"},
    "databricks on /responses": DATABRICKS_RESPONSES | {"mode": "stream"},
}
"""Databricks' provider is judged as its chat UI runs it: its `generateText` knows no tools of the server."""

every_client = pytest.mark.parametrize("client", CLIENTS)
_numbers = count()


@pytest.fixture(scope="module")
def url(store: str) -> Iterator[str]:
    ready()
    with serving(ASKING, Settings(store=store)) as base_url:
        yield base_url


def talk(url: str, client: str, model: str, *steps: dict[str, Any], **more: Any) -> list[dict[str, Any]]:
    """The turns of one dialogue."""
    task = {**CLIENTS[client], "baseURL": url, "model": model, "steps": list(steps), **more}
    (verdict,) = verdicts("dialogue", [task])
    return turns_of(verdict)


def turns_of(verdict: Verdict) -> list[dict[str, Any]]:
    assert verdict["ok"], verdict
    errors = [turn["error"] for turn in verdict["turns"] if "error" in turn]
    assert not errors, (errors, json.dumps(verdict["bodies"][-1]))
    turns: list[dict[str, Any]] = verdict["turns"]
    return turns


def say(text: str) -> dict[str, Any]:
    return {"say": text}


@every_client
def test_calls_are_approved_and_rejected_in_one_dialogue(url: str, client: str) -> None:
    steps = (
        say("Write!"),
        {"approve": True},
        say("Again!"),
        {"approve": False, "reason": "Enough."},
        say("Once more!"),
    )
    first, second, third, fourth, fifth = talk(url, client, "approval", *steps)
    for asking in (first, third, fifth):
        assert asking["text"] == "I will write. "
        (request,) = asking["approvals"]
        assert request["name"].endswith("send_email")
        assert request["input"] == {"to": "oslo@b.example", "body": "Hi"}
    assert second["text"] == "Outputs: Sent to oslo@b.example."
    (result,) = second["results"]
    assert "Sent to oslo@b.example." in json.dumps(result["output"])
    assert result["toolCallId"] in [call["toolCallId"] for call in second["calls"]]
    assert "User rejected the tool call" in fourth["text"]
    if "databricks" in client:  # the AI SDK's OpenAI provider drops reasons
        assert fourth["text"].endswith("Enough.")
    assert fourth["approvals"] == fourth["results"] == []


@every_client
def test_two_approvals_are_answered_each_its_own_way(url: str, client: str) -> None:
    first, second = talk(url, client, "two_approvals", say("Write!"), {"approve": [True, False]})
    assert len(first["approvals"]) == 2
    assert "Sent to oslo@b.example." in second["text"]
    assert "User rejected" in second["text"]
    assert "Sent to rome" not in second["text"]


@every_client
def test_two_questions_at_once_are_answered(url: str, client: str) -> None:
    """Nobody knows beforehand that a graph will ask: what is not stored by itself has to be in a conversation."""
    named = {"context": {"conversation_id": f"chat-{next(_numbers)}"}} if "databricks" in client else {}
    first, second = talk(url, client, "two_questions", say("Ask!"), {"approve": True}, body=named)
    assert [request["name"].removeprefix("mcp.") for request in first["approvals"]] == ["request_human_input"] * 2
    assert sorted(second["text"].replace("unit", " unit").split()) == ["city=True", "unit=True"]


@every_client
def test_every_turn_is_heard_once(url: str, client: str) -> None:
    first, second, third = talk(url, client, "hearing", say("One."), say("Two."), say("Three."))
    assert first["text"] == "I heard [u:One.]"
    assert second["text"] == f"I heard [u:One. | a:{first['text']} | u:Two.]"
    assert third["text"] == f"I heard [u:One. | a:{first['text']} | u:Two. | a:{second['text']} | u:Three.]"


@pytest.mark.parametrize("client", ["databricks", "databricks on /responses"])
@pytest.mark.parametrize("model", ["hearing", "looking", "plain"])
def test_a_conversation_takes_from_an_echoed_history_only_what_is_new(url: str, client: str, model: str) -> None:
    """Databricks' apps name the conversation, and its provider sends the whole history all the same."""
    said = [say("One."), say("Two."), say("Three.")]
    named = {"context": {"conversation_id": f"chat-{next(_numbers)}"}}
    echoed = talk(url, client, model, *said, body=named)
    assert [turn["text"] for turn in echoed] == [turn["text"] for turn in talk(url, client, model, *said)]


@on_every_store
@pytest.mark.parametrize("client", ["databricks", "databricks on /responses"])
def test_a_named_conversation_goes_on_through_approvals(url: str, client: str) -> None:
    named = {"context": {"conversation_id": f"chat-{next(_numbers)}"}}
    steps = (say("Write!"), {"approve": True}, say("Again!"), {"approve": False, "reason": "Enough."})
    *_, second, third, fourth = talk(url, client, "approval", *steps, body=named)
    assert second["text"] == "Outputs: Sent to oslo@b.example."
    assert third["approvals"]
    assert fourth["text"].endswith("Enough.")


@pytest.mark.parametrize("client", ["ai-sdk generate", "ai-sdk stream", "ai-sdk following"])
def test_the_ai_sdk_goes_on_in_a_conversation(url: str, client: str) -> None:
    made = {"baseURL": f"{url}/v1", "calls": [["conversations.create", {}]]}
    (verdict,) = verdicts("openai_calls", [made])
    options = {"conversation": verdict["results"][0]["id"]}
    steps = (say("Write!"), {"approve": True}, say("Again!"), {"approve": True})
    _, second, _, fourth = talk(url, client, "approval", *steps, options=options)
    assert second["text"] == fourth["text"] == "Outputs: Sent to oslo@b.example."


def test_databricks_without_streaming_approves_once(url: str) -> None:
    client = DATABRICKS | {"mode": "generate"}
    task = client | {"baseURL": url, "model": "approval", "steps": [say("Write!"), {"approve": True}]}
    (verdict,) = verdicts("dialogue", [task])
    assert turns_of(verdict)[1]["text"] == "Outputs: Sent to oslo@b.example."
