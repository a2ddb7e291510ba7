"""What goes on from what: branches of one response, agents of other kinds, and histories that clients send along."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import pytest
from langchain_core.messages import AIMessage, BaseMessage, HumanMessage
from langchain_openai import ChatOpenAI
from openai import BadRequestError, OpenAI

from agent_server.settings import Settings
from tests.conformance.kept import MODES, Mode, ask, said
from tests.support.asking import ASKING
from tests.support.serve import serving
from tests.support.stores import on_every_store, store

__all__ = ["store"]


@pytest.fixture(scope="module")
def url(store: str) -> Iterator[str]:
    with serving(ASKING, Settings(store=store)) as base_url:
        yield base_url


@pytest.fixture
def client(url: str) -> Iterator[OpenAI]:
    with OpenAI(base_url=f"{url}/v1", api_key="none", max_retries=0) as openai:
        yield openai


def user(text: str) -> dict[str, Any]:
    return {"role": "user", "content": text}


@on_every_store
@pytest.mark.parametrize("mode", MODES)
def test_two_children_of_one_response_never_see_each_other(client: OpenAI, mode: Mode) -> None:
    root = ask(client, mode, model="counting", input="Root.")
    assert said(root) == "Turn 1 after [u:Root.]"
    body = {"model": "counting", "previous_response_id": root["id"]}
    left = ask(client, mode, **body, input="Left.")
    right = ask(client, mode, **body, input="Right.")
    assert said(left) == f"Turn 2 after [u:Root. | a:{said(root)} | u:Left.]"
    assert said(right) == f"Turn 2 after [u:Root. | a:{said(root)} | u:Right.]"
    deeper = ask(client, mode, model="counting", previous_response_id=left["id"], input="On.")
    assert said(deeper) == f"Turn 3 after [u:Root. | a:{said(root)} | u:Left. | a:{said(left)} | u:On.]"


@pytest.mark.parametrize("mode", ["create", "stream"])
def test_a_child_that_is_not_stored_leaves_nothing(client: OpenAI, mode: Mode) -> None:
    root = ask(client, mode, model="counting", input="Root.")
    body = {"model": "counting", "previous_response_id": root["id"]}
    lost = ask(client, mode, **body, input="Lost.", store=False)
    assert said(lost) == f"Turn 2 after [u:Root. | a:{said(root)} | u:Lost.]"
    assert said(ask(client, mode, **body, input="Kept.")) == f"Turn 2 after [u:Root. | a:{said(root)} | u:Kept.]"
    with pytest.raises(BadRequestError) as raised:
        client.responses.create(model="counting", previous_response_id=lost["id"], input="On.")
    assert raised.value.code == "previous_response_not_found"


@pytest.mark.parametrize("mode", MODES)
def test_an_agent_without_memory_is_told_everything(client: OpenAI, mode: Mode) -> None:
    first = ask(client, mode, model="plain", input="One.")
    second = ask(client, mode, model="plain", previous_response_id=first["id"], input="Two.")
    assert said(second) == f"I heard [u:One. | a:{said(first)} | u:Two.]"
    third = ask(client, mode, model="plain", previous_response_id=second["id"], input="Three.")
    assert said(third) == f"I heard [u:One. | a:{said(first)} | u:Two. | a:{said(second)} | u:Three.]"


@pytest.mark.parametrize("other", ["hearing", "plain", "counting"])
@pytest.mark.parametrize("mode", MODES)
def test_another_agent_goes_on_from_the_items(client: OpenAI, mode: Mode, other: str) -> None:
    first = ask(client, mode, model="looking", input="One.")
    told = f"u:One. | t:It is sunny in Oslo. | a:{said(first)} | u:Two."
    second = ask(client, mode, model=other, previous_response_id=first["id"], input="Two.")
    assert f"[{told}]" in said(second)
    back = ask(client, mode, model="looking", previous_response_id=second["id"], input="Three.")
    assert said(back) == f"I heard [{told} | a:{said(second)} | u:Three. | t:It is sunny in Oslo.]"


@on_every_store
@pytest.mark.parametrize("mode", MODES)
def test_another_agent_hears_of_an_approved_call_once(client: OpenAI, mode: Mode) -> None:
    first = ask(client, mode, model="approval", input="Write!")
    answer = {"type": "mcp_approval_response", "approval_request_id": first["output"][-1]["id"], "approve": True}
    second = ask(client, mode, model="approval", previous_response_id=first["id"], input=[answer])
    third = ask(client, mode, model="hearing", previous_response_id=second["id"], input="What?")
    told = f"u:Write! | a:I will write. | t:Sent to oslo@b.example. | a:{said(second)} | u:What?"
    assert said(third).replace("I will write. ", "I will write.") == f"I heard [{told}]"


@pytest.mark.parametrize("model", ["hearing", "looking", "plain", "counting"])
@pytest.mark.parametrize("ids", [True, False], ids=["with ids", "without ids"])
@pytest.mark.parametrize("mode", ["create", "stream"])
def test_an_echoed_history_is_heard_once(client: OpenAI, mode: Mode, model: str, ids: bool) -> None:
    """With `previous_response_id`, and as clients without a memory do it: the answers are the same."""
    history, answers, plain = list[Any](), list[str](), list[str]()
    previous: dict[str, Any] | None = None
    for text in ("One.", "Two.", "Two.", "Three."):
        history.append(user(text))
        body = {"previous_response_id": previous["id"]} if previous is not None else {}
        previous = ask(client, mode, model=model, input=history, **body)
        items = previous["output"]
        history += items if ids else [{key: item[key] for key in item if key != "id"} for item in items]
        answers.append(said(previous))
    previous = None
    for text in ("One.", "Two.", "Two.", "Three."):
        body = {"previous_response_id": previous["id"]} if previous is not None else {}
        previous = ask(client, mode, model=model, input=text, **body)
        plain.append(said(previous))
    assert answers == plain
    assert answers[-1].count("u:Two.") == plain[-1].count("u:Two.")


def chat(url: str, model: str, **more: Any) -> ChatOpenAI:
    return ChatOpenAI(model=model, base_url=f"{url}/v1", api_key=lambda: "none", use_responses_api=True, **more)


@pytest.mark.parametrize("follows", [True, False], ids=["previous response", "whole history"])
@pytest.mark.parametrize("model", ["hearing", "looking", "plain"])
@pytest.mark.parametrize("streamed", [True, False])
def test_langchain_is_heard_once_either_way(url: str, model: str, follows: bool, streamed: bool) -> None:
    asking = chat(url, model, use_previous_response_id=follows, output_version="responses/v1")
    history: list[BaseMessage] = []
    for text in ("One.", "Two.", "Three."):
        history.append(HumanMessage(text))
        history.append(whole(asking, history) if streamed else asking.invoke(history))
    heard = history[-1].text
    outer = heard.removeprefix("I heard [").removesuffix("]")
    tool = " | t:It is sunny in Oslo." if model == "looking" else ""
    first, second = history[1].text, history[3].text
    assert outer == f"u:One.{tool} | a:{first} | u:Two.{tool} | a:{second} | u:Three.{tool}"


def whole(asking: ChatOpenAI, history: list[BaseMessage]) -> AIMessage:
    chunks = list(asking.stream(history))
    total = chunks[0]
    for chunk in chunks[1:]:
        total = total + chunk
    return total


def test_langchain_with_a_named_conversation_and_the_whole_history(url: str, client: OpenAI) -> None:
    named = {"conversation": client.conversations.create().id}
    asking = chat(url, "hearing", extra_body=named, output_version="responses/v1")
    history: list[BaseMessage] = []
    for text in ("One.", "Two.", "Three."):
        history.append(HumanMessage(text))
        history.append(asking.invoke(history))
    assert history[-1].text == f"I heard [u:One. | a:{history[1].text} | u:Two. | a:{history[3].text} | u:Three.]"
    items = list(client.conversations.items.list(named["conversation"], order="asc"))
    assert len(items) == 6
