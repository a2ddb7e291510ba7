"""`/v1/conversations`: what is listed, what the agents are given, what is deleted with what, and what is refused."""

from __future__ import annotations

import sqlite3
from collections.abc import Iterator
from contextlib import closing
from pathlib import Path
from typing import Any

import httpx
import pytest
from langgraph.checkpoint.memory import InMemorySaver

from agent_server.settings import Settings
from tests.support.gates import Gate
from tests.support.listening import Listening
from tests.support.scripted import SCENARIOS, gated_text
from tests.support.serve import serving
from tests.support.stores import KINDS, address, on_every_store, own_store

__all__ = ["own_store"]

AGENTS = ("graph", "function")
UNKNOWN = "conv_" + 32 * "0"


@pytest.fixture
def saver() -> InMemorySaver:
    """The checkpointer that the graph was compiled with."""
    return InMemorySaver()


@pytest.fixture
def listening(saver: InMemorySaver) -> Listening:
    """The agents."""
    return Listening(saver)


@pytest.fixture
def gate() -> Gate:
    """Where the agent `gated` waits."""
    return Gate()


@pytest.fixture
def client(store: str, listening: Listening, gate: Gate) -> Iterator[httpx.Client]:
    """A client of a server with these agents."""
    agents = {**listening.agents, "gated": gated_text(["one "], gate, ["two"]), "tool": SCENARIOS["one_tool"]}
    with (
        serving(agents, Settings(store=store, on_disconnect="continue")) as url,
        httpx.Client(base_url=url, timeout=20) as made,
    ):
        yield made
        gate.open()


@pytest.fixture(scope="module", params=KINDS)
def lasting(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Iterator[httpx.Client]:
    """A client of one server for many tests, over each store."""
    settings = Settings(store=address(request.param, request, tmp_path_factory))
    with serving(Listening().agents, settings) as url, httpx.Client(base_url=url, timeout=20) as made:
        yield made


def said(text: str, role: str = "user") -> dict[str, Any]:
    return {"role": role, "content": text}


def ok(response: httpx.Response) -> Any:
    assert response.status_code == 200, response.text
    return response.json()


def made(client: httpx.Client, *items: dict[str, Any], **more: Any) -> str:
    """The id of a new conversation."""
    return str(ok(client.post("/v1/conversations", json={"items": items, **more}))["id"])


def ask(client: httpx.Client, conversation: str | None, text: Any, agent: str = "graph", **more: Any) -> Any:
    """A response in a conversation."""
    named = {} if conversation is None else {"conversation": conversation}
    return ok(client.post("/v1/responses", json={"model": agent, "input": text, **named, **more}))


def add(client: httpx.Client, conversation: str, *items: dict[str, Any]) -> list[dict[str, Any]]:
    """Items as they were added."""
    data: list[dict[str, Any]] = ok(client.post(f"/v1/conversations/{conversation}/items", json={"items": items}))[
        "data"
    ]
    return data


def listed(client: httpx.Client, conversation: str) -> list[dict[str, Any]]:
    """All items, oldest first."""
    url = f"/v1/conversations/{conversation}/items"
    data: list[dict[str, Any]] = ok(client.get(url, params={"order": "asc", "limit": 100}))["data"]
    return data


def told(client: httpx.Client, conversation: str) -> list[str]:
    """The messages, as "role: text"."""
    return [f"{item['role']}: {item['content'][0]['text']}" for item in listed(client, conversation)]


# -- conversations


@on_every_store
def test_a_conversation_is_made_found_changed_and_deleted(client: httpx.Client) -> None:
    conversation = ok(client.post("/v1/conversations", json={"metadata": {"topic": "birds"}}))
    url = f"/v1/conversations/{conversation['id']}"
    assert conversation.keys() == {"id", "object", "created_at", "metadata"}
    assert (conversation["object"], conversation["metadata"]) == ("conversation", {"topic": "birds"})
    assert conversation["id"].startswith("conv_")
    assert ok(client.get(url)) == conversation
    changed = ok(client.post(url, json={"metadata": {"topic": "fish"}}))
    assert changed == {**conversation, "metadata": {"topic": "fish"}} == ok(client.get(url))
    assert ok(client.post(url, json={"metadata": None}))["metadata"] == {}
    assert ok(client.delete(url)) == {"id": conversation["id"], "object": "conversation.deleted", "deleted": True}
    assert client.get(url).status_code == 404


def test_a_conversation_can_be_made_of_nothing(client: httpx.Client) -> None:
    conversation = made(client)
    page = ok(client.get(f"/v1/conversations/{conversation}/items"))
    assert page == {"object": "list", "data": [], "first_id": None, "last_id": None, "has_more": False}


@pytest.mark.parametrize(
    "named", [{"context": {"conversation_id": "my talk"}}, {"custom_inputs": {"thread_id": "my talk"}}]
)
def test_a_conversation_that_a_client_named_itself_is_found_by_that_name(
    client: httpx.Client, named: dict[str, Any]
) -> None:
    ok(client.post("/invocations", json={"model": "graph", "input": [said("Hi")], **named}))
    assert ok(client.get("/v1/conversations/my%20talk"))["id"] == "my talk"
    assert told(client, "my talk") == ["user: Hi", "assistant: yes"]
    add(client, "my talk", said("Mind the gap"))
    assert told(client, "my talk")[-1] == "user: Mind the gap"


@on_every_store
def test_the_thread_of_a_response_alone_is_no_conversation(client: httpx.Client) -> None:
    run_id = ask(client, None, "Hi")["id"].removeprefix("resp_")
    assert client.get(f"/v1/conversations/{run_id}").status_code == 404
    refused = client.post("/v1/responses", json={"model": "graph", "input": "Hi", "conversation": run_id})
    assert (refused.status_code, refused.json()["error"]["code"]) == (404, "conversation_not_found")
    ok(client.delete(f"/v1/responses/resp_{run_id}"))
    assert client.get(f"/v1/conversations/{run_id}").status_code == 404


# -- items


@pytest.mark.parametrize("agent", AGENTS)
def test_added_items_reach_the_agent_once_and_before_the_input(
    client: httpx.Client, listening: Listening, agent: str
) -> None:
    conversation = made(client, said("I am Ann"))
    ask(client, conversation, "Who am I?", agent)
    assert listening.heard[-1] == ["human: I am Ann", "human: Who am I?"]
    add(client, conversation, said("I am 30"), said("You are 30", "assistant"))
    add(client, conversation, said("I like tea"))
    ask(client, conversation, "And now?", agent)
    ask(client, conversation, "Still?", agent)
    history = ["user: I am Ann", "user: Who am I?", "assistant: yes", "user: I am 30", "assistant: You are 30"]
    history += ["user: I like tea", "user: And now?", "assistant: yes", "user: Still?", "assistant: yes"]
    assert told(client, conversation) == history
    assert listening.heard[-1] == [
        line.replace("user:", "human:").replace("assistant:", "ai:") for line in history[:-1]
    ]


@pytest.mark.parametrize("agent", AGENTS)
def test_added_items_alone_can_be_answered(client: httpx.Client, listening: Listening, agent: str) -> None:
    conversation = made(client, said("I am Ann"))
    ask(client, conversation, [], agent)
    assert listening.heard[-1] == ["human: I am Ann"]


@on_every_store
def test_added_items_stay_in_a_chain_that_goes_on_from_a_response(client: httpx.Client, listening: Listening) -> None:
    conversation = made(client, said("I am Ann"))
    first = ask(client, conversation, "Who am I?", "function")
    add(client, conversation, said("Not you"))
    ask(client, None, "And here?", "function", previous_response_id=first["id"])
    assert listening.heard[-1] == ["human: I am Ann", "human: Who am I?", "ai: yes", "human: And here?"]


def test_items_added_before_a_response_that_failed_are_given_to_the_next(
    client: httpx.Client, listening: Listening, gate: Gate
) -> None:
    conversation = made(client)
    ask(client, conversation, "One")
    add(client, conversation, said("I am Ann"))
    gated = ask(client, conversation, "Wait", "gated", background=True)
    gate.wait_reached()
    ok(client.post(f"/v1/responses/{gated['id']}/cancel"))
    ask(client, conversation, "Two")
    assert listening.heard[-1] == ["human: One", "ai: yes", "human: I am Ann", "human: Two"]
    assert told(client, conversation) == [
        "user: One",
        "assistant: yes",
        "user: I am Ann",
        "user: Two",
        "assistant: yes",
    ]


def test_items_may_be_added_while_a_response_is_in_progress(client: httpx.Client, gate: Gate) -> None:
    conversation = made(client)
    ask(client, conversation, "Wait", "gated", background=True)
    gate.wait_reached()
    add(client, conversation, said("Hurry"))
    assert told(client, conversation) == ["user: Hurry"]


def test_items_are_no_responses(client: httpx.Client) -> None:
    conversation = made(client, said("Hi"))
    run_id = listed(client, conversation)[0]["id"][4:36]
    assert client.get(f"/v1/responses/resp_{run_id}").status_code == 404
    refused = client.post("/v1/responses", json={"model": "graph", "previous_response_id": f"resp_{run_id}"})
    assert refused.json()["error"]["code"] == "previous_response_not_found"


def test_a_history_that_is_sent_along_is_listed_once(client: httpx.Client, listening: Listening) -> None:
    conversation = made(client)
    ask(client, conversation, "One", "function")
    ask(client, conversation, [said("One"), said("yes", "assistant"), said("Two")], "function")
    ask(client, conversation, "Three", "function")
    assert told(client, conversation)[:-1] == [
        "user: One",
        "assistant: yes",
        "user: Two",
        "assistant: yes",
        "user: Three",
    ]
    assert listening.heard[-1] == ["human: One", "ai: yes", "human: Two", "ai: yes", "human: Three"]


def test_references_are_listed_as_what_they_mean_and_once(client: httpx.Client, listening: Listening) -> None:
    elsewhere = ask(client, None, "Elsewhere", "tool")["output"][-1]["id"]
    conversation = made(client)
    own = ask(client, conversation, "One", "function")["output"][0]["id"]
    references = [{"type": "item_reference", "id": elsewhere}, {"id": own}]
    ask(client, conversation, [*references, said("Two")], "function")
    ask(client, conversation, "Three", "function")
    ids = [item["id"] for item in listed(client, conversation)]
    assert (ids.count(elsewhere), ids.count(own)) == (1, 1)
    assert listening.heard[-1][-1] == "human: Three"


def test_an_item_that_is_sent_again_under_its_id_is_listed_once(client: httpx.Client) -> None:
    conversation = made(client, said("One"), said("Two"))
    first, second = listed(client, conversation)
    again = [{"type": "item_reference", "id": first["id"]}, {**said("Two"), "id": second["id"]}]
    ask(client, conversation, [*again, said("Three")], "function")
    assert told(client, conversation) == ["user: One", "user: Two", "user: Three", "assistant: yes"]


@on_every_store
def test_pages_go_on_from_the_last_item_in_both_orders(client: httpx.Client) -> None:
    conversation = made(client, *(said(str(n)) for n in range(7)))
    url = f"/v1/conversations/{conversation}/items"
    for order, expected in (("desc", "6543210"), ("asc", "0123456")):
        seen, after = "", dict[str, str]()
        while True:
            page = ok(client.get(url, params={"order": order, "limit": 3, **after}))
            assert [page["first_id"], page["last_id"]] == [page["data"][0]["id"], page["data"][-1]["id"]]
            seen += "".join(item["content"][0]["text"] for item in page["data"])
            after = {"after": page["last_id"]}
            if not page["has_more"]:
                break
        assert seen == expected


def test_an_item_is_found_by_its_id_and_keeps_the_one_it_came_with(client: httpx.Client) -> None:
    conversation = made(client, {**said("Hi"), "id": "msg_mine"}, {**said("Ho"), "id": "msg_mine"})
    first, second = listed(client, conversation)
    assert first["id"] == "msg_mine" != second["id"]
    url = f"/v1/conversations/{conversation}/items"
    assert [ok(client.get(f"{url}/{item['id']}")) for item in (first, second)] == [first, second]
    (third,) = add(client, conversation, {**said("Hu"), "id": "msg_mine"})
    assert third["id"] not in (first["id"], second["id"])


def test_the_items_of_a_response_are_shown_as_it_showed_them(client: httpx.Client) -> None:
    conversation = made(client)
    response = ask(client, conversation, "Hi", "tool")
    assert [item["type"] for item in response["output"]] == ["mcp_call", "message"]
    assert listed(client, conversation)[1:] == response["output"]


def test_a_call_may_be_added_with_its_output(client: httpx.Client) -> None:
    call = {"type": "function_call", "call_id": "c1", "name": "add", "arguments": "{}"}
    output = {"type": "function_call_output", "call_id": "c1", "output": "3"}
    items = listed(client, conversation := made(client, said("Add"), call, output))
    assert [item["status"] for item in items] == ["completed"] * 3
    ask(client, conversation, "And?")


# -- deleting items


@on_every_store
def test_a_deleted_item_is_gone_from_lists_and_not_given_any_more(client: httpx.Client, listening: Listening) -> None:
    conversation = made(client, said("Secret"))
    ask(client, conversation, "One", "function")
    url = f"/v1/conversations/{conversation}/items"
    for item in [item for item in listed(client, conversation) if item["role"] == "user"]:
        assert ok(client.delete(f"{url}/{item['id']}"))["object"] == "conversation"
        assert client.get(f"{url}/{item['id']}").status_code == 404
        assert client.delete(f"{url}/{item['id']}").status_code == 404
    assert told(client, conversation) == ["assistant: yes"]
    ask(client, conversation, "Two", "function")
    assert listening.heard[-1] == ["ai: yes", "human: Two"]


@pytest.mark.parametrize("agent", AGENTS)
def test_an_item_deleted_before_it_was_given_reaches_no_agent(
    client: httpx.Client, listening: Listening, agent: str
) -> None:
    conversation = made(client, said("Secret"), said("Open"))
    ok(client.delete(f"/v1/conversations/{conversation}/items/{listed(client, conversation)[0]['id']}"))
    ask(client, conversation, "One", agent)
    ask(client, conversation, "Two", agent)
    assert listening.heard[-1] == ["human: Open", "human: One", "ai: yes", "human: Two"]


def test_a_call_goes_with_its_output_when_one_is_deleted(client: httpx.Client, listening: Listening) -> None:
    call = {"type": "function_call", "id": "fc_1", "call_id": "c1", "name": "add", "arguments": "{}"}
    output = {"type": "function_call_output", "call_id": "c1", "output": "3"}
    conversation = made(client, said("Add"), call, output)
    ask(client, conversation, "One", "function")
    ok(client.delete(f"/v1/conversations/{conversation}/items/fc_1"))
    ask(client, conversation, "Two", "function")
    assert listening.heard[-1] == ["human: Add", "human: One", "ai: yes", "human: Two"]


def test_a_deleted_tool_call_of_the_server_is_not_given_any_more(client: httpx.Client, listening: Listening) -> None:
    conversation = made(client)
    call, _ = ask(client, conversation, "Hi", "tool")["output"]
    ok(client.delete(f"/v1/conversations/{conversation}/items/{call['id']}"))
    ask(client, conversation, "Two", "function")
    assert [line.partition(":")[0] for line in listening.heard[-1]] == ["human", "ai", "human"]


@on_every_store
def test_metadata_and_deleted_items_do_not_overwrite_each_other(client: httpx.Client) -> None:
    conversation = made(client, said("Secret"), metadata={"a": "b"})
    url = f"/v1/conversations/{conversation}"
    (item,) = listed(client, conversation)
    assert ok(client.delete(f"{url}/items/{item['id']}"))["metadata"] == {"a": "b"}
    ok(client.post(url, json={"metadata": {"c": "d"}}))
    assert listed(client, conversation) == []


# -- deleting conversations, responses and checkpoints


@on_every_store
def test_a_conversation_is_deleted_with_its_responses_and_their_checkpoints(
    client: httpx.Client, saver: InMemorySaver
) -> None:
    conversation, other = made(client), made(client)
    responses = [ask(client, conversation, "One"), ask(client, conversation, "Two")]
    kept = ask(client, other, "Three")
    assert len(saver.storage) == 2
    ok(client.delete(f"/v1/conversations/{conversation}"))
    assert {client.get(f"/v1/responses/{each['id']}").status_code for each in responses} == {404}
    assert ok(client.get(f"/v1/responses/{kept['id']}"))["status"] == "completed"
    assert len(saver.storage) == 1


def test_checkpoints_stay_while_a_response_elsewhere_has_them(client: httpx.Client, saver: InMemorySaver) -> None:
    conversation = made(client)
    first = ask(client, conversation, "One")
    fork = ask(client, None, "Fork", previous_response_id=first["id"])
    ok(client.delete(f"/v1/conversations/{conversation}"))
    assert len(saver.storage) == 1
    after = ask(client, None, "After", previous_response_id=fork["id"])
    ok(client.delete(f"/v1/responses/{after['id']}"))
    assert len(saver.storage) == 1
    ok(client.delete(f"/v1/responses/{fork['id']}"))
    assert not saver.storage


@on_every_store
def test_a_response_in_progress_is_cancelled_when_its_conversation_is_deleted(client: httpx.Client, gate: Gate) -> None:
    conversation = made(client)
    body = {"model": "gated", "input": "Hi", "conversation": conversation, "stream": True}
    with client.stream("POST", "/v1/responses", json=body) as stream:
        lines = stream.iter_lines()
        assert next(lines) == "event: response.created"
        gate.wait_reached()
        ok(client.delete(f"/v1/conversations/{conversation}"))
        rest = list(lines)
    assert '"status":"cancelled"' in "".join(rest)
    assert client.get(f"/v1/conversations/{conversation}").status_code == 404


def test_checkpoints_in_the_servers_own_store_go_with_the_conversation(tmp_path: Path) -> None:
    path = tmp_path / "runs.db"
    with serving(Listening().agents, Settings(store=f"sqlite:///{path}")) as url, httpx.Client(base_url=url) as client:
        conversation = made(client)
        ask(client, conversation, "One")
        with closing(sqlite3.connect(path)) as database:
            count = "select count(*) from checkpoints"
            assert database.execute(count).fetchone() > (0,)
            ok(client.delete(f"/v1/conversations/{conversation}"))
            assert database.execute(count).fetchone() == (0,)


def test_a_conversation_outlives_the_process(tmp_path: Path, saver: InMemorySaver) -> None:
    listening, settings = Listening(saver), Settings(store=f"sqlite:///{tmp_path}/runs.db")
    with serving(listening.agents, settings) as url, httpx.Client(base_url=url) as client:
        conversation = made(client, said("I am Ann"), metadata={"a": "b"})
    with serving(listening.agents, settings) as url, httpx.Client(base_url=url) as client:
        assert ok(client.get(f"/v1/conversations/{conversation}"))["metadata"] == {"a": "b"}
        ask(client, conversation, "Who am I?")
    assert listening.heard[-1] == ["human: I am Ann", "human: Who am I?"]


# -- what is refused: nothing of it is kept, so one server does for all


@pytest.mark.parametrize("method", ["GET", "POST", "DELETE"])
@pytest.mark.parametrize("known", [UNKNOWN, "x", "%00", "%ff", "a" * 600, "'; drop table threads; --"])
def test_an_unknown_conversation_is_not_found(lasting: httpx.Client, method: str, known: str) -> None:
    body: dict[str, Any] | None = {"metadata": {}} if method == "POST" else None
    refused = lasting.request(method, f"/v1/conversations/{known}", json=body)
    error = refused.json()["error"]
    assert (refused.status_code, error["code"], error["param"]) == (404, "conversation_not_found", "conversation_id")


@pytest.mark.parametrize(("method", "path"), [("GET", ""), ("POST", ""), ("GET", "/msg_1"), ("DELETE", "/msg_1")])
def test_items_of_an_unknown_conversation_are_not_found(lasting: httpx.Client, method: str, path: str) -> None:
    body = {"items": [said("Hi")]} if method == "POST" else None
    refused = lasting.request(method, f"/v1/conversations/{UNKNOWN}/items{path}", json=body)
    assert (refused.status_code, refused.json()["error"]["code"]) == (404, "conversation_not_found")


@pytest.mark.parametrize("method", ["GET", "DELETE"])
def test_an_unknown_item_is_not_found(lasting: httpx.Client, method: str) -> None:
    other = listed(lasting, made(lasting, said("Ho")))[0]["id"]
    conversation = made(lasting, said("Hi"))
    for item in ("msg_1", other, "%00"):
        refused = lasting.request(method, f"/v1/conversations/{conversation}/items/{item}")
        assert (refused.status_code, refused.json()["error"]["code"]) == (404, "item_not_found")


CALL = {"type": "function_call", "call_id": "c1", "name": "add", "arguments": "{}"}
BAD_BODIES: dict[str, tuple[dict[str, Any], str, str]] = {
    "items that are no list": ({"items": "Hi"}, "items", "invalid_type"),
    "an item that is no object": ({"items": ["Hi"]}, "items[0]", "invalid_type"),
    "too many items": ({"items": [said("Hi")] * 21}, "items", "array_above_max_length"),
    "an unknown kind": ({"items": [said("Hi"), {"type": "poem"}]}, "items[1].type", "invalid_value"),
    "a hosted tool": ({"items": [{"type": "web_search_call"}]}, "items[0].type", "unsupported_parameter"),
    "no content": ({"items": [{"role": "user"}]}, "items[0].content", "missing_required_parameter"),
    "an unknown role": ({"items": [said("Hi", "king")]}, "items[0].role", "invalid_value"),
    "a call alone": ({"items": [CALL]}, "items", "invalid_value"),
    "an output alone": (
        {"items": [{"type": "function_call_output", "call_id": "c1", "output": "3"}]},
        "items",
        "invalid_value",
    ),
    "an unknown reference": ({"items": [{"type": "item_reference", "id": "msg_1"}]}, "items[0].id", "item_not_found"),
    "a seal of nobody": (
        {"items": [{"type": "compaction", "encrypted_content": "eHl6"}]},
        "items[0].encrypted_content",
        "invalid_value",
    ),
}
BAD_METADATA: dict[str, tuple[dict[str, Any], str, str]] = {
    "no object": ({"metadata": "x"}, "metadata", "invalid_type"),
    "a number": ({"metadata": {"a": 1}}, "metadata.a", "invalid_type"),
    "too many pairs": ({"metadata": {str(n): "" for n in range(17)}}, "metadata", "object_above_max_length"),
    "a long key": ({"metadata": {"k" * 65: ""}}, "metadata", "string_above_max_length"),
    "a long value": ({"metadata": {"a": "v" * 513}}, "metadata.a", "string_above_max_length"),
}


def refusal(response: httpx.Response) -> tuple[int, str, str]:
    error = response.json()["error"]
    return response.status_code, error["param"], error["code"]


@pytest.mark.parametrize(("body", "param", "code"), BAD_BODIES.values(), ids=BAD_BODIES)
def test_bad_items_are_refused_and_add_nothing(lasting: httpx.Client, body: Any, param: str, code: str) -> None:
    conversation = made(lasting)
    assert refusal(lasting.post("/v1/conversations", json=body)) == (400, param, code)
    assert refusal(lasting.post(f"/v1/conversations/{conversation}/items", json=body)) == (400, param, code)
    assert listed(lasting, conversation) == []


@pytest.mark.parametrize(("body", "param", "code"), BAD_METADATA.values(), ids=BAD_METADATA)
def test_bad_metadata_is_refused_and_changes_nothing(lasting: httpx.Client, body: Any, param: str, code: str) -> None:
    url = f"/v1/conversations/{made(lasting, metadata={'a': 'b'})}"
    assert refusal(lasting.post("/v1/conversations", json=body)) == (400, param, code)
    assert refusal(lasting.post(url, json=body)) == (400, param, code)
    assert ok(lasting.get(url))["metadata"] == {"a": "b"}


def test_what_must_be_given_is_asked_for(lasting: httpx.Client) -> None:
    url = f"/v1/conversations/{made(lasting)}"
    assert refusal(lasting.post(url, json={})) == (400, "metadata", "missing_required_parameter")
    assert refusal(lasting.post(f"{url}/items", json={})) == (400, "items", "missing_required_parameter")
    assert refusal(lasting.post(f"{url}/items", content=b"{", headers={"content-type": "application/json"}))[0] == 400


@pytest.mark.parametrize(
    ("query", "param"),
    [
        ({"limit": "0"}, "limit"),
        ({"limit": "101"}, "limit"),
        ({"limit": "x"}, "limit"),
        ({"limit": "-1"}, "limit"),
        ({"order": "up"}, "order"),
        ({"after": "msg_1"}, "after"),
        ({"include[]": "everything"}, "include"),
        ({"include": "everything"}, "include"),
    ],
)
def test_bad_pages_are_refused(lasting: httpx.Client, query: dict[str, str], param: str) -> None:
    url = f"/v1/conversations/{made(lasting, said('Hi'))}/items"
    assert refusal(lasting.get(url, params=query))[:2] == (400, param)
    assert ok(lasting.get(url, params={"include[]": "reasoning.encrypted_content"}))["data"]
