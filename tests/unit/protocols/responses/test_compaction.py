"""`input_tokens` and `compact`: what is counted, what a compacted conversation still says, and whose it is."""

from __future__ import annotations

import base64
from collections.abc import Iterator
from typing import Any

import httpx
import pytest

from agent_server.graph.inputs import Answer, Call, Message, Reasoning, Text, ToolOutput, Turn
from agent_server.protocols.responses.compaction import LONGEST_TRANSCRIPT, LONGEST_TURN, transcript
from agent_server.protocols.responses.sealed import INTRODUCTION, Seal, opened
from agent_server.settings import Settings
from tests.support.listening import Listening
from tests.support.scripted import SCENARIOS
from tests.support.serve import serving

SECRET = "0123456789abcdef"
TOOL = {"type": "function", "name": "add", "description": "Adds two numbers.", "parameters": {"type": "object"}}


@pytest.fixture(scope="module")
def listening() -> Listening:
    """The agents."""
    return Listening()


@pytest.fixture(scope="module")
def client(listening: Listening) -> Iterator[httpx.Client]:
    """A client of a server with these agents."""
    agents = {**listening.agents, "tool": SCENARIOS["one_tool"], "client_tool": SCENARIOS["client_tool"]}
    with (
        serving(agents, Settings(secret=SECRET)) as url,
        httpx.Client(base_url=f"{url}/v1", timeout=20) as made,
    ):
        yield made


def ok(response: httpx.Response) -> Any:
    assert response.status_code == 200, response.text
    return response.json()


def count(client: httpx.Client, **body: Any) -> int:
    answer = ok(client.post("/responses/input_tokens", json={"model": "function", **body}))
    assert answer.keys() == {"object", "input_tokens"}
    assert answer["object"] == "response.input_tokens"
    return int(answer["input_tokens"])


def compacted(client: httpx.Client, **body: Any) -> Any:
    return ok(client.post("/responses/compact", json={"model": "function", **body}))


def respond(client: httpx.Client, model: str = "function", **body: Any) -> Any:
    return ok(client.post("/responses", json={"model": model, **body}))


def said(text: str, role: str = "user") -> dict[str, Any]:
    return {"role": role, "content": text}


# -- input tokens


def test_longer_inputs_count_more_and_nothing_counts_nothing(client: httpx.Client) -> None:
    assert count(client) == 0
    short, long = count(client, input="Hi"), count(client, input="Hi " * 400)
    assert 0 < short < 20
    assert long == pytest.approx(300, abs=20)


@pytest.mark.parametrize("model", ["graph", "function"])
def test_what_comes_before_is_counted_whoever_remembers_it(client: httpx.Client, model: str) -> None:
    first = respond(client, model, input="word " * 200)
    alone = count(client, model=model, input="Hi")
    assert count(client, model=model, input="Hi", previous_response_id=first["id"]) > alone + 200


def test_instructions_and_tools_are_counted(client: httpx.Client) -> None:
    alone = count(client, model="client_tool", input="Hi")
    assert count(client, model="client_tool", input="Hi", instructions="Be kind. " * 40) > alone + 80
    assert count(client, model="client_tool", input="Hi", tools=[TOOL]) > alone + 10


def test_the_agents_own_tools_are_counted(client: httpx.Client) -> None:
    assert count(client, model="tool", input="Hi") > count(client, model="graph", input="Hi") + 10


def test_counting_runs_nobody_and_keeps_nothing(client: httpx.Client, listening: Listening) -> None:
    asked = len(listening.heard)
    body = {"model": "function", "input": "Hi", "stream": True, "background": True}
    assert ok(client.post("/responses/input_tokens", json=body))["input_tokens"] > 0
    assert len(listening.heard) == asked


# -- compact


def test_a_compacted_conversation_is_what_the_user_said_and_one_item(client: httpx.Client) -> None:
    first = respond(client, input="One")
    answer = compacted(client, input=[said("Two"), said("Be brief", "developer")], previous_response_id=first["id"])
    assert answer.keys() == {"id", "object", "created_at", "output", "usage"}
    assert answer["object"] == "response.compaction"
    assert answer["usage"]["total_tokens"] == 0
    *messages, item = answer["output"]
    assert [(each["role"], each["content"][0]["text"]) for each in messages] == [("user", "One"), ("user", "Two")]
    assert item["type"] == "compaction"
    assert len({each["id"] for each in answer["output"]}) == 3
    assert opened(item)["content"] == INTRODUCTION + "user: One\n\nassistant: yes\n\nuser: Two\n\ndeveloper: Be brief"


@pytest.mark.parametrize("model", ["graph", "function"])
def test_it_is_accepted_back_and_read_by_the_agent(client: httpx.Client, listening: Listening, model: str) -> None:
    items = compacted(client, input=[said("One"), said("yes", "assistant")])["output"]
    second = respond(client, model, input=[*items, said("Two")])
    summary = f"human: {INTRODUCTION}user: One\n\nassistant: yes"
    assert listening.heard[-1] == ["human: One", summary, "human: Two"]
    respond(client, model, input="Three", previous_response_id=second["id"])
    assert listening.heard[-1] == ["human: One", summary, "human: Two", "ai: yes", "human: Three"]
    listed = ok(client.get(f"/responses/{second['id']}/input_items"))["data"]
    assert [item["type"] for item in listed] == ["message", "compaction", "message"]


def test_compacting_again_keeps_what_was_compacted(client: httpx.Client) -> None:
    first = compacted(client, input=[said("One"), said("word " * 500, "assistant")])["output"]
    *messages, item = compacted(client, input=[*first, said("Two")])["output"]
    assert [each["content"][0]["text"] for each in messages] == ["One", "Two"]
    text = opened(item)["content"]
    assert text.count(INTRODUCTION) == 1
    assert text.endswith("[...]\n\nuser: Two")
    assert text.count("word") == LONGEST_TURN // 5


def test_compacted_items_may_be_added_to_a_conversation(client: httpx.Client, listening: Listening) -> None:
    items = compacted(client, input=[said("One"), said("yes", "assistant")])["output"]
    url = "/conversations"
    conversation = ok(client.post(url, json={"items": items}))["id"]
    respond(client, input="Two", conversation=conversation)
    assert listening.heard[-1][1:] == [f"human: {INTRODUCTION}user: One\n\nassistant: yes", "human: Two"]
    listed = ok(client.get(f"{url}/{conversation}/items", params={"order": "asc"}))["data"]
    assert listed[1]["encrypted_content"] == items[1]["encrypted_content"]


def test_an_empty_conversation_compacts_to_an_empty_item(client: httpx.Client) -> None:
    (item,) = compacted(client)["output"]
    assert opened(item)["content"] == INTRODUCTION


@pytest.mark.parametrize(
    ("body", "status", "param", "code"),
    [
        ({"input": "Hi"}, 400, "model", "missing_required_parameter"),
        ({"model": "nobody", "input": "Hi"}, 404, "model", "model_not_found"),
        ({"model": "function", "input": 7}, 400, "input", "invalid_type"),
        ({"model": "function", "input": [{"type": "poem"}]}, 400, "input[0].type", "invalid_value"),
        (
            {"model": "function", "previous_response_id": "resp_x"},
            400,
            "previous_response_id",
            "previous_response_not_found",
        ),
        ({"model": "function", "conversation": "conv_x"}, 404, "conversation", "conversation_not_found"),
        ({"model": "function", "truncation": "middle"}, 400, "truncation", "invalid_value"),
        (
            {"model": "function", "input": [{"type": "function_call_output", "call_id": "c", "output": "x"}]},
            400,
            "input",
            "invalid_value",
        ),
    ],
)
def test_bad_requests_name_their_parameter(
    client: httpx.Client, body: dict[str, Any], status: int, param: str, code: str
) -> None:
    for path in ("/responses/compact", "/responses/input_tokens"):
        if path.endswith("input_tokens") and "model" not in body:
            continue
        refused = client.post(path, json=body)
        error = refused.json()["error"]
        assert (refused.status_code, error["param"], error["code"]) == (status, param, code), path


# -- the seal


def test_what_was_changed_or_made_by_another_is_refused(client: httpx.Client) -> None:
    item = compacted(client, input="One")["output"][-1]
    data = base64.b64decode(item["encrypted_content"])
    wrong = [base64.b64encode(data[:at] + bytes([data[at] ^ 1]) + data[at + 1 :]).decode() for at in range(len(data))]
    wrong += ["", "x", "é", base64.b64encode(data[:20]).decode(), item["encrypted_content"] + "\n"]
    wrong += [Seal("another secret!!").close("default", "One"), Seal(SECRET).close("somebody", "One")]
    wrong_bodies = [[{"type": "compaction", "encrypted_content": each}, said("Two")] for each in wrong]
    for body in wrong_bodies:
        refused = client.post("/responses", json={"model": "function", "input": body})
        assert (refused.status_code, refused.json()["error"]["param"]) == (400, "input[0].encrypted_content"), body
    refused = client.post("/responses", json={"model": "function", "input": [{"type": "compaction"}]})
    assert refused.json()["error"]["code"] == "missing_required_parameter"


def test_servers_that_share_a_secret_read_each_others_items(listening: Listening) -> None:
    sealed = Seal(SECRET).close("default", "user: One")
    body = {"model": "function", "input": [{"type": "compaction", "encrypted_content": sealed}]}
    for secret, status in ((SECRET, 200), ("another secret!!", 400)):
        with serving(listening.agents, Settings(secret=secret)) as url:
            assert httpx.post(f"{url}/v1/responses", json=body).status_code == status


def test_each_start_has_a_secret_of_its_own_unless_one_is_set() -> None:
    first, second = Settings(), Settings()
    assert first.secret != second.secret
    assert first.secret.get_secret_value() not in repr(first)


# -- transcripts


def test_a_transcript_tells_who_said_what_and_what_was_called() -> None:
    turns: list[Turn] = [
        Message("user", (Text("Add"),)),
        Reasoning("hm"),
        Call("c1", "add", {"a": 1}),
        Call("c2", "sub", "not json"),
        ToolOutput("c1", (Text("3"),)),
        Answer((Text("It is 3."),)),
        Answer((), "I will not."),
    ]
    assert transcript(turns).split("\n\n") == [
        "user: Add",
        'assistant called add({"a":1})',
        "assistant called sub(not json)",
        "tool: 3",
        "assistant: It is 3.",
        "assistant: I will not.",
    ]


def test_a_transcript_is_bounded_and_loses_its_oldest_first() -> None:
    turns = [Message("user", (Text(f"{number} " + "x" * 990),)) for number in range(100)]
    text = transcript(turns)
    assert LONGEST_TRANSCRIPT - 1_100 < len(text) <= LONGEST_TRANSCRIPT + 10
    assert text.startswith("[...]")
    assert "user: 99 " in text
