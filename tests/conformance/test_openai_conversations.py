"""openai-python as the judge of conversations, their items, token counts and compaction: every method, both colours."""

from __future__ import annotations

import asyncio
import inspect
from collections.abc import AsyncIterator, Awaitable, Callable, Iterator
from operator import attrgetter
from typing import Any, TypeVar

import pytest
from openai import APIStatusError, AsyncOpenAI, BadRequestError, NotFoundError, OpenAI
from openai._models import validate_type
from openai.types.conversations import Conversation, ConversationDeletedResource, ConversationItem, ConversationItemList
from openai.types.responses import CompactedResponse, ResponseCompactionItem, ResponseUsage
from openai.types.responses.input_token_count_response import InputTokenCountResponse

from agent_server.settings import Settings
from tests.support.listening import Listening
from tests.support.scripted import SCENARIOS
from tests.support.serve import serving
from tests.support.stores import on_every_store, store

__all__ = ["store"]

T = TypeVar("T")

Do = Callable[[Callable[[Any], Any]], Any]
"""Calls a client, and returns what it answers."""


@pytest.fixture(scope="module")
def url(store: str) -> Iterator[str]:
    """Base URL of a server over each store."""
    with serving({**Listening().agents, "tool": SCENARIOS["one_tool"]}, Settings(store=store)) as base_url:
        yield f"{base_url}/v1"


@pytest.fixture(params=["sync", "async"])
def do(request: pytest.FixtureRequest, url: str) -> Iterator[Do]:
    """Calls the client of one colour. Pages are read to their end."""
    if request.param == "sync":
        with OpenAI(base_url=url, api_key="none", max_retries=0) as client:
            yield lambda call: call(client)
        return

    async def answered(call: Callable[[Any], Any]) -> Any:
        async with AsyncOpenAI(base_url=url, api_key="none", max_retries=0) as client:
            found = call(client)
            if not inspect.isawaitable(found):
                return [each async for each in found]
            awaited: Any = await found
            return awaited

    yield lambda call: asyncio.run(answered(call))


def calling(method: str, *args: Any, **kwargs: Any) -> Callable[[Any], Any]:
    """Calls a method of a client, which is given by its dotted name."""
    return lambda client: attrgetter(method)(client)(*args, **kwargs)


def everything(do: Do, conversation: str, **query: Any) -> list[Any]:
    """All items, over as many pages as it takes."""
    pages = do(lambda client: _listed(client, conversation, query))
    return list(pages)


def _listed(client: Any, conversation: str, query: dict[str, Any]) -> Any:
    pages = client.conversations.items.list(conversation, **query)
    if not isinstance(client, AsyncOpenAI):
        return pages

    async def gather(awaitable: Awaitable[Any] | AsyncIterator[Any]) -> list[Any]:
        return [each async for each in awaitable]  # type: ignore[union-attr]

    return gather(pages)


def strict(value: T, kind: Any) -> T:
    """The value, if all of it is what the client's types say: the client itself takes anything."""
    validate_type(type_=kind, value=value.to_dict())  # type: ignore[attr-defined]
    return value


@on_every_store
def test_conversations_are_created_retrieved_updated_and_deleted(do: Do) -> None:
    made = strict(do(lambda c: c.conversations.create(metadata={"a": "b"})), Conversation)
    found = strict(do(lambda c: c.conversations.retrieve(made.id)), Conversation)
    assert found == made
    changed = strict(do(lambda c: c.conversations.update(made.id, metadata={"c": "d"})), Conversation)
    assert (changed.id, changed.created_at, changed.metadata) == (made.id, made.created_at, {"c": "d"})
    gone = strict(do(lambda c: c.conversations.delete(made.id)), ConversationDeletedResource)
    assert (gone.id, gone.object, gone.deleted) == (made.id, "conversation.deleted", True)
    with pytest.raises(NotFoundError) as raised:
        do(lambda c: c.conversations.retrieve(made.id))
    assert raised.value.code == "conversation_not_found"


@on_every_store
def test_items_are_created_listed_retrieved_and_deleted(do: Do) -> None:
    items: list[Any] = [
        {"role": "user", "content": "Add 1 and 2."},
        {"type": "function_call", "call_id": "c1", "name": "add", "arguments": '{"a": 1}'},
        {"type": "function_call_output", "call_id": "c1", "output": "3"},
        {"type": "message", "role": "assistant", "content": "It is 3."},
    ]
    made = do(lambda c: c.conversations.create(items=items[:1]))
    added = strict(do(lambda c: c.conversations.items.create(made.id, items=items[1:])), ConversationItemList)
    assert [item.type for item in added.data] == ["function_call", "function_call_output", "message"]
    assert (added.first_id, added.last_id, added.has_more) == (added.data[0].id, added.data[-1].id, False)
    listed = everything(do, made.id, order="asc")
    assert [item.type for item in listed] == ["message", *(item.type for item in added.data)]
    for item in listed:
        again = do(calling("conversations.items.retrieve", item.id, conversation_id=made.id))
        assert strict(again, ConversationItem) == item
    after = strict(
        do(lambda c: c.conversations.items.delete(listed[0].id, conversation_id=made.id)),
        Conversation,
    )
    assert after.id == made.id
    assert [item.id for item in everything(do, made.id, order="asc")] == [item.id for item in listed[1:]]
    with pytest.raises(NotFoundError):
        do(lambda c: c.conversations.items.retrieve(listed[0].id, conversation_id=made.id))


@pytest.mark.parametrize("order", ["asc", "desc"])
def test_the_client_pages_through_every_item_once(do: Do, order: str) -> None:
    said = [str(number) for number in range(45)]
    made = do(lambda c: c.conversations.create())
    for start in range(0, 45, 20):
        batch = [{"role": "user", "content": text} for text in said[start : start + 20]]
        do(calling("conversations.items.create", made.id, items=batch))
    for limit in (7, 20, 100):
        listed = everything(do, made.id, order=order, limit=limit, include=["message.output_text.logprobs"])
        assert [item.content[0].text for item in listed] == (said if order == "asc" else said[::-1])


@on_every_store
@pytest.mark.parametrize("model", ["graph", "function", "tool"])
def test_responses_of_a_conversation_are_its_items(do: Do, model: str) -> None:
    made = do(lambda c: c.conversations.create(items=[{"role": "user", "content": "I am Ann."}]))
    responses = [
        do(calling("responses.create", model=model, input=text, conversation=made.id)) for text in ("One", "Two")
    ]
    assert {response.conversation.id for response in responses} == {made.id}
    listed = everything(do, made.id, order="asc")
    for item in listed:
        strict(item, ConversationItem)
    outputs = [[item.id for item in response.output] for response in responses]
    places = [[item.id for item in listed].index(ids[0]) for ids in outputs]
    assert [item.id for item in listed] == [
        listed[0].id,
        listed[1].id,
        *outputs[0],
        listed[places[1] - 1].id,
        *outputs[1],
    ]
    assert listed[0].content[0].text == "I am Ann."


def test_tokens_are_counted(do: Do) -> None:
    short = strict(do(lambda c: c.responses.input_tokens.count(model="function", input="Hi")), InputTokenCountResponse)
    long = do(lambda c: c.responses.input_tokens.count(model="function", input="Hi " * 100, instructions="Be kind."))
    assert short.object == "response.input_tokens"
    assert 0 < short.input_tokens < long.input_tokens


def test_a_conversation_is_compacted_and_gone_on_with(do: Do) -> None:
    first = do(lambda c: c.responses.create(model="function", input="One"))
    made = do(lambda c: c.responses.compact(model="function", previous_response_id=first.id, input="Two"))
    strict(made.output[-1], ResponseCompactionItem)
    strict(made.usage, ResponseUsage)
    assert (type(made), made.object, type(made.created_at)) == (CompactedResponse, "response.compaction", int)
    assert [item.type for item in made.output] == ["message", "message", "compaction"]
    assert made.usage.total_tokens == 0
    # The client's type of an output message knows no user's: OpenAI's own answers do not fit it, either.
    history = [*(item.to_dict(warnings=False) for item in made.output), {"role": "user", "content": "Three"}]
    assert do(lambda c: c.responses.create(model="function", input=history)).output_text == "yes"
    history[2]["encrypted_content"] = "A" + history[2]["encrypted_content"][1:-8] + "AAAAAAA="
    with pytest.raises(BadRequestError) as raised:
        do(lambda c: c.responses.create(model="function", input=history))
    assert raised.value.param == "input[2].encrypted_content"


@pytest.mark.parametrize(
    ("call", "status", "param"),
    [
        (lambda c: c.conversations.create(items=[{"role": "user", "content": "Hi"}] * 21), 400, "items"),
        (lambda c: c.conversations.create(metadata={"k" * 65: "v"}), 400, "metadata"),
        (lambda c: c.conversations.update("conv_none", metadata={}), 404, "conversation_id"),
        (lambda c: c.conversations.delete("conv_none"), 404, "conversation_id"),
        (lambda c: c.conversations.items.create("conv_none", items=[]), 404, "conversation_id"),
        (lambda c: c.conversations.items.retrieve("msg_1", conversation_id="conv_none"), 404, "conversation_id"),
        (lambda c: c.conversations.items.delete("msg_1", conversation_id="conv_none"), 404, "conversation_id"),
        (lambda c: c.responses.compact(model=None, input="Hi"), 400, "model"),
        (lambda c: c.responses.input_tokens.count(model="none", input="Hi"), 404, "model"),
    ],
)
def test_what_is_refused_names_its_parameter(do: Do, call: Callable[[Any], Any], status: int, param: str) -> None:
    with pytest.raises(APIStatusError) as raised:
        do(call)
    assert (raised.value.status_code, raised.value.param) == (status, param)
