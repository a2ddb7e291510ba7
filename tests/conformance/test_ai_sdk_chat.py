"""The AI SDK's own chat clients as judges: `ai` 5, 6 and 7 over HTTP, and 7 over its WebSocket transport."""

from __future__ import annotations

from collections.abc import Iterator
from itertools import count
from typing import Any
from urllib.parse import quote

import pytest
from langchain.agents import create_agent

from agent_server.settings import Settings
from tests.conformance.expected import EXPECTED, QUESTION
from tests.conformance.judged import BAD, FAILURE, GOOD
from tests.conformance.node_judges import Task, ready, verdicts
from tests.support.asking import ASKING, transcript
from tests.support.scripted import SCENARIOS, Call, Gate, Opens, ScriptedChatModel, Step, chunks, gated_text
from tests.support.serve import serving

pytestmark = pytest.mark.node

CLIENTS: dict[str, Task] = {
    "ai 5": {"version": 5},
    "ai 6": {"version": 6},
    "ai 7": {"version": 7},
    "ai 7 socket": {"version": 7, "socket": True},
}
every_client = pytest.mark.parametrize("client", CLIENTS)
every_asking_client = pytest.mark.parametrize("client", [name for name in CLIENTS if name != "ai 5"])
APPROVALS = {"auto": "lastAssistantMessageIsCompleteWithApprovalResponses"}
TOOLS = {"auto": "lastAssistantMessageIsCompleteWithToolCalls"}
WEATHER = {"get_weather": {"description": "The weather.", "parameters": {"type": "object", "properties": {}}}}
_numbers = count()

Turn = dict[str, Any]


@pytest.fixture(scope="module")
def url(tmp_path_factory: pytest.TempPathFactory) -> Iterator[str]:
    ready()
    store = f"sqlite:///{tmp_path_factory.mktemp('chats') / 'runs.db'}"
    agents = {**SCENARIOS, **_apart(ASKING), **_gated(), "stoppable": _stoppable()}
    with serving(agents, Settings(store=store)) as base_url:
        yield base_url


def _apart(agents: dict[str, Any]) -> dict[str, Any]:
    """Their names are those of scenarios, too."""
    return {f"asking_{name}": agent for name, agent in agents.items()}


def _gated() -> dict[str, Any]:
    """Pairs of agents: one that waits in the middle of its answer, one that lets it go on."""
    agents: dict[str, Any] = {}
    for client in CLIENTS:
        gate = Gate()
        opens = [Opens(gate), *chunks.text("Open."), *chunks.finish()]
        agents[f"slow for {client}"] = gated_text(["Hel", "lo"], gate, [" wor", "ld"])
        agents[f"opener for {client}"] = ScriptedChatModel(turns=[opens])
    return agents


def _stoppable() -> Any:
    """Waits for ever in its first answer, and tells what it heard in its second."""

    def answers(asked: Call) -> list[Step]:
        if len(asked.messages) == 1:
            return [*chunks.text("Hello"), Gate(), *chunks.text(" world"), *chunks.finish()]
        return [*chunks.text(f"I heard [{transcript(asked.messages)}]"), *chunks.finish()]

    return create_agent(ScriptedChatModel(turns=[answers]), tools=[])


def talk(url: str, client: str, agent: str, *steps: dict[str, Any], **more: Any) -> list[Turn]:
    """The chat after each of the steps."""
    (verdict,) = verdicts("ai_sdk_chat", [task(url, client, agent, *steps, **more)])
    assert verdict["ok"], verdict
    turns: list[Turn] = verdict["turns"]
    return turns


def task(url: str, client: str, agent: str, *steps: dict[str, Any], body: Any = None, **more: Any) -> Task:
    sent = {"agent": agent, "sdkVersion": CLIENTS[client]["version"], **(body or {})}
    return {
        **CLIENTS[client],
        "baseURL": url,
        "id": f"chat/{next(_numbers)} ä",
        "body": sent,
        "steps": list(steps),
        **more,
    }


def say(text: str, **more: Any) -> dict[str, Any]:
    return {"say": text, **more}


def answer(turn: Turn) -> dict[str, Any]:
    """The last message, which is the assistant's."""
    last: dict[str, Any] = turn["messages"][-1]
    assert last["role"] == "assistant"
    return last


def text(turn: Turn) -> str:
    return "".join(part["text"] for part in answer(turn)["parts"] if part["type"] == "text")


def calls(turn: Turn) -> list[dict[str, Any]]:
    return [part for part in answer(turn)["parts"] if "toolCallId" in part]


def well(turn: Turn) -> None:
    assert (turn["status"], turn["errors"]) == ("ready", []), turn


@every_client
def test_every_good_scenario_is_read(url: str, client: str) -> None:
    names = [name for name in GOOD if name not in ("client_tool", "structured_output")]
    found = verdicts("ai_sdk_chat", [task(url, client, name, say(QUESTION)) for name in names])
    for name, verdict in zip(names, found, strict=True):
        wanted, (turn,) = EXPECTED[name], verdict["turns"]
        well(turn)
        assert text(turn) == wanted.text + wanted.refusal
        reasoning = [part["text"] for part in answer(turn)["parts"] if part["type"] == "reasoning"]
        assert "".join(reasoning) == wanted.reasoning
        assert [(part["toolName"], part["type"]) for part in calls(turn)] == [
            (called, "dynamic-tool") for called, _, _ in wanted.calls
        ]
        for part, (_, _, output) in zip(calls(turn), wanted.calls, strict=True):
            assert (part["output"] if part["state"] == "output-available" else part["errorText"]) == output
        assert turn["called"] == [], "the client was to run a tool of the server"
        assert answer(turn)["metadata"]["usage"]["totalTokens"] > 0
        for exchange in turn["exchanges"]:
            assert exchange == {"method": "POST", "status": 200, "protocol": "v1", "contentType": "text/event-stream"}


@every_client
def test_a_failure_is_an_error_with_the_public_message(url: str, client: str) -> None:
    for verdict in verdicts("ai_sdk_chat", [task(url, client, name, say(QUESTION)) for name in BAD]):
        (turn,) = verdict["turns"]
        assert turn["status"] == "error"
        (error,) = turn["errors"]
        assert error.startswith(FAILURE)


@every_client
def test_models_that_speak_at_once_stay_apart(url: str, client: str) -> None:
    (turn,) = talk(url, client, "two_nodes_streaming_at_once", say("Go!"))
    well(turn)
    assert [part["text"] for part in answer(turn)["parts"] if part["type"] == "text"] == ["Left one.", "Right one."]


@every_client
def test_files_sources_and_data_arrive(url: str, client: str) -> None:
    (image,) = talk(url, client, "image_out", say("Draw!"))
    (file,) = [part for part in answer(image)["parts"] if part["type"] == "file"]
    assert file["mediaType"] == "image/png"
    assert file["url"].startswith("data:image/png;base64,")
    (cited,) = talk(url, client, "citations", say("Why?"))
    (source,) = [part for part in answer(cited)["parts"] if part["type"] == "source-url"]
    assert source["url"] == "https://weather.example/oslo"
    (custom,) = talk(url, client, "custom_events", say("Search!"))
    assert {part["type"] for part in custom["data"]} == {"data-noted", "data-custom", "data-progress"}
    well(custom)


@every_client
def test_every_turn_is_heard_once(url: str, client: str) -> None:
    for agent in ("asking_hearing", "asking_plain"):
        first, second, third = talk(url, client, agent, say("One."), say("Two."), say("Three."))
        assert text(first) == "I heard [u:One.]"
        assert text(second) == f"I heard [u:One. | a:{text(first)} | u:Two.]"
        assert text(third) == f"I heard [u:One. | a:{text(first)} | u:Two. | a:{text(second)} | u:Three.]"


@pytest.mark.parametrize("client", ["ai 5", "ai 6", "ai 7"])
def test_one_message_is_as_good_as_all_of_them(url: str, client: str) -> None:
    first, second = talk(url, client, "asking_hearing", say("One."), say("Two."), short=True)
    assert text(second) == f"I heard [u:One. | a:{text(first)} | u:Two.]"


@every_client
def test_another_answer_takes_the_place_of_the_last(url: str, client: str) -> None:
    steps = (say("One."), say("Two."), {"regenerate": ""}, say("Three."))
    first, _, again, third = talk(url, client, "asking_hearing", *steps)
    well(third)
    assert text(again) == f"I heard [u:One. | a:{text(first)} | u:Two.]"
    assert text(third) == f"I heard [u:One. | a:{text(first)} | u:Two. | a:{text(again)} | u:Three.]"
    first, again, second = talk(url, client, "asking_hearing", say("One."), {"regenerate": ""}, say("Two."))
    assert text(again) == "I heard [u:One.]"
    assert text(second) == f"I heard [u:One. | a:{text(again)} | u:Two.]"
    assert answer(first)["id"] != answer(again)["id"]


@every_asking_client
@pytest.mark.parametrize("auto", [{}, APPROVALS], ids=["by hand", "automatically"])
def test_a_call_is_approved_in_the_same_message(url: str, client: str, auto: Task) -> None:
    first, second, third = talk(url, client, "asking_approval", say("Write!"), {"approve": True}, say("Again!"), **auto)
    (asked,) = calls(first)
    assert (asked["toolName"], asked["state"]) == ("send_email", "approval-requested")
    assert asked["input"] == {"to": "oslo@b.example", "body": "Hi"}
    well(second)
    assert answer(first)["id"] == answer(second)["id"]
    assert len(second["messages"]) == 2
    (done,) = calls(second)
    assert (done["state"], done["output"]) == ("output-available", "Sent to oslo@b.example.")
    assert done["approval"]["approved"] is True
    assert text(second) == "I will write. Outputs: Sent to oslo@b.example."
    well(third)
    assert calls(third)[0]["state"] == "approval-requested"


@every_asking_client
def test_a_call_is_denied(url: str, client: str) -> None:
    steps = (say("Write!"), {"approve": False, "reason": "Enough."})
    _, denied = talk(url, client, "asking_approval", *steps, **APPROVALS)
    well(denied)
    assert calls(denied)[0]["state"] == "output-denied"
    assert text(denied).endswith("Enough.")


@every_asking_client
def test_two_approvals_are_answered_each_its_own_way(url: str, client: str) -> None:
    _, second = talk(url, client, "asking_two_approvals", say("Write!"), {"approve": [True, False]}, **APPROVALS)
    well(second)
    assert [part["state"] for part in calls(second)] == ["output-available", "output-denied"]
    assert "Sent to oslo@b.example." in text(second)
    assert "Sent to rome" not in text(second)


@every_asking_client
def test_a_tool_that_asks_is_answered_by_an_output(url: str, client: str) -> None:
    steps = (say("Weather?"), {"output": {"get_weather_here": "Oslo"}})
    first, second = talk(url, client, "tool_interrupt", *steps)
    assert calls(first)[0]["approval"]["id"]
    well(second)
    assert calls(second)[0]["output"] == "It is sunny in Oslo (C)."


def test_ai_5_is_told_of_a_question_as_data(url: str) -> None:
    (first,) = talk(url, "ai 5", "asking_approval", say("Write!"))
    well(first)
    (asked,) = [part for part in answer(first)["parts"] if part["type"] == "data-interrupt"]
    assert asked["data"]["kind"] == "approval"


@every_client
def test_a_plain_question_is_answered_by_a_message(url: str, client: str) -> None:
    first, second, third = talk(url, client, "asking_question", say("Ask!"), say("Oslo"), say("Ask!"))
    for turn in (first, third):
        (asked,) = [part for part in answer(turn)["parts"] if part["type"] == "data-interrupt"]
        assert asked["data"]["value"] == {"question": "city"}
    well(second)
    assert text(second) == "city=Oslo"
    assert len(second["messages"]) == 4


@every_client
def test_a_tool_of_the_client_is_run_by_the_client(url: str, client: str) -> None:
    body = {"tools": WEATHER}
    steps = (say("Weather?"), {"output": {"get_weather": "sunny"}})
    first, second = talk(url, client, "asking_client_tool", *steps, body=body, **TOOLS)
    (asked,) = calls(first)
    assert (asked["type"], asked["state"], asked["input"]) == ("tool-get_weather", "input-available", {"city": "Oslo"})
    assert first["called"] == ["get_weather"]
    well(second)
    assert len(second["messages"]) == 2
    assert calls(second)[0]["output"] == "sunny"
    assert text(second) == "Outputs: sunny"


@every_client
def test_tools_of_the_client_and_of_the_server_are_called_at_once(url: str, client: str) -> None:
    steps = (say("Both!"), {"output": {"get_weather": "sunny"}})
    first, second = talk(url, client, "asking_client_and_server_tool", *steps, body={"tools": WEATHER}, **TOOLS)
    assert [(part["type"], part["state"]) for part in calls(first)] == [
        ("dynamic-tool", "output-available"),
        ("tool-get_weather", "input-available"),
    ]
    assert first["called"] == ["get_weather"]
    well(second)
    assert text(second) == "Outputs: Sent to a@b.example. & sunny"


@every_client
def test_a_file_is_taken(url: str, client: str) -> None:
    image = {"type": "file", "mediaType": "image/png", "url": "data:image/png;base64,aGk="}
    (turn,) = talk(url, client, "asking_hearing", say("Look!", files=[image]))
    well(turn)
    assert text(turn) == "I heard [u:Look!]"


@every_client
def test_a_chat_without_a_stream_has_nothing_to_resume(url: str, client: str) -> None:
    first, resumed = talk(url, client, "plain_text", say("Hi"), {"resume": True})
    well(resumed)
    assert resumed["messages"] == first["messages"]
    if "socket" not in client:
        assert resumed["exchanges"][-1]["status"] == 204


@every_client
def test_a_stream_that_was_left_is_resumed_from_its_start(url: str, client: str) -> None:
    leave = {"dropAt" if "socket" in client else "leaveAt": "Hello"}
    back = {"resume": True, "openAt": "Hello", "opener": f"opener for {client}"}
    first, second = talk(url, client, f"slow for {client}", say("Hi", **leave), back)
    assert text(first) == "Hello"
    assert second["status"] == "ready"
    assert answer(second)["id"] == answer(first)["id"]
    assert text(second) == "Hello world"
    if "socket" not in client:
        assert second["exchanges"][-1]["status"] == 200


@every_client
def test_what_is_stopped_is_over_and_is_remembered(url: str, client: str) -> None:
    """Over HTTP leaving stops nothing, the route does; over a socket the client says that it aborts."""
    asked = task(url, client, "stoppable", say("Hi", leaveAt="Hello"))
    stop = {"post": {"path": f"/api/chat/{quote(asked['id'], safe='')}/stop"}}
    asked["steps"] += [*([] if "socket" in client else [stop]), {"resume": True}, say("More")]
    (verdict,) = verdicts("ai_sdk_chat", [asked])
    assert verdict["ok"], verdict
    left, *stopped, resumed, more = verdict["turns"]
    assert text(left) == "Hello"
    assert stopped == ([] if "socket" in client else [{"status": 200, "body": {"success": True}}])
    well(resumed)
    assert resumed["messages"] == left["messages"]
    assert text(more) == "I heard [u:Hi | a:Hello | u:More]"
