from __future__ import annotations

import copy
import json
from contextlib import suppress
from typing import Any

import orjson
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from langchain_core.messages import AIMessage, ToolMessage
from starlette.datastructures import Headers
from starlette.types import Message as AsgiMessage

from agent_server.errors import RequestError
from agent_server.graph.inputs import Answer, Call, Media, Message, Reasoning, Text, ToolOutput, Turn, to_messages
from agent_server.http.body import parse_json, read_json
from agent_server.protocols.responses.request import ResponsesRequest, parse_request

PARAMETERS = (
    *("input", "model", "stream", "instructions", "tools", "tool_choice", "text", "reasoning", "metadata"),
    *("temperature", "top_logprobs", "max_tool_calls", "include", "stream_options", "background", "truncation"),
    *("context", "custom_inputs", "databricks_options", "user", "previous_response_id", "store"),
)
KEYS = (
    *("type", "role", "content", "text", "id", "call_id", "name", "arguments", "output", "status", "summary"),
    *("image_url", "file_data", "file_url", "file_id", "input_audio", "data", "format", "function", "parameters"),
    *("schema", "strict", "mode", "encrypted_content", "error", "result", "effort", "json_schema", "refusal"),
)
WORDS = (
    *("message", "function_call", "function_call_output", "reasoning", "mcp_call", "custom_tool_call", "user"),
    *("assistant", "system", "developer", "input_text", "output_text", "input_image", "input_file", "input_audio"),
    *("refusal", "function", "allowed_tools", "json_schema", "auto", "required", "c1", "f", "{}", "incomplete"),
    *("data:image/png;base64,AAAA", "https://example.org/a", "image_generation_call", "item_reference", "wav"),
)
scalars = st.none() | st.booleans() | st.integers() | st.floats() | st.sampled_from(WORDS) | st.text(max_size=8)
json_values = st.recursive(
    scalars,
    lambda inner: (
        st.lists(inner, max_size=4) | st.dictionaries(st.sampled_from(KEYS) | st.text(max_size=4), inner, max_size=5)
    ),
    max_leaves=20,
)
bodies = st.dictionaries(st.sampled_from(PARAMETERS), json_values, max_size=6)

REQUEST: dict[str, Any] = {
    "model": "demo",
    "stream": True,
    "instructions": "Be kind.",
    "metadata": {"topic": "demo"},
    "temperature": 0.5,
    "top_logprobs": 2,
    "max_output_tokens": 100,
    "include": ["reasoning.encrypted_content"],
    "stream_options": {"include_obfuscation": False},
    "reasoning": {"effort": "low", "summary": "auto"},
    "text": {"format": {"type": "json_schema", "name": "a", "schema": {"type": "object"}}, "verbosity": "low"},
    "tools": [{"type": "function", "name": "f", "parameters": {"type": "object"}, "strict": True}],
    "tool_choice": {"type": "allowed_tools", "mode": "auto", "tools": [{"type": "function", "name": "f"}]},
    "custom_inputs": {"region": "north"},
    "context": {"conversation_id": "c", "user_id": "u"},
    "databricks_options": {"return_trace": True},
    "input": [
        {"role": "developer", "content": "Use tools."},
        {
            "role": "user",
            "content": [
                {"type": "input_text", "text": "Look:"},
                {"type": "input_image", "image_url": "data:image/png;base64,AAAA", "detail": "auto"},
                {"type": "input_file", "filename": "a.pdf", "file_data": "AAAA"},
                {"type": "input_audio", "input_audio": {"data": "AAAA", "format": "wav"}},
            ],
        },
        {
            "type": "reasoning",
            "id": "rs_1",
            "summary": [{"type": "summary_text", "text": "hm"}],
            "encrypted_content": "gAAA",
        },
        {"type": "message", "id": "msg_1", "role": "assistant", "content": [{"type": "output_text", "text": "a"}]},
        {"type": "function_call", "id": "fc_1", "call_id": "c1", "name": "f", "arguments": '{"a":1}'},
        {"type": "function_call", "id": "fc_2", "call_id": "c2", "name": "g", "arguments": "{}"},
        {"type": "function_call_output", "call_id": "c2", "output": "a"},
        {"type": "function_call_output", "call_id": "c1", "output": [{"type": "input_text", "text": "a"}]},
        {"type": "mcp_call", "id": "mcp_1", "name": "f", "server_label": "s", "arguments": "{}", "output": "a"},
        {"role": "assistant", "content": [{"type": "refusal", "refusal": "No."}]},
        {"role": "user", "content": "Why?"},
    ],
}


async def post(body: bytes) -> ResponsesRequest | RequestError:
    """What a server makes of a body. Whatever it raises but `RequestError` fails the test."""

    async def receive() -> AsgiMessage:
        return {"type": "http.request", "body": body, "more_body": False}

    try:
        value = await read_json(receive, Headers({"content-type": "application/json"}), limit=10**6)
        request = parse_request(value)
    except RequestError as error:
        return error
    to_messages(request.turns)
    orjson.dumps(request.echo)
    return request


async def check(body: bytes) -> None:
    answer = await post(body)
    if isinstance(answer, RequestError):
        assert 400 <= answer.status < 500
        assert answer.message.endswith(".")
        assert len(answer.message) < 600


def paths(value: Any, path: tuple[Any, ...] = ()) -> list[tuple[Any, ...]]:
    """Where the values inside a JSON value are."""
    inner = value.items() if isinstance(value, dict) else enumerate(value) if isinstance(value, list) else ()
    return [path, *(found for key, each in inner for found in paths(each, (*path, key)))]


PLACES = paths(REQUEST)[1:]
MUTATIONS = st.lists(
    st.tuples(st.sampled_from(PLACES), st.sampled_from(("set", "drop", "twice")), json_values), max_size=3
)


def mutated(mutations: list[tuple[tuple[Any, ...], str, Any]]) -> dict[str, Any]:
    body = copy.deepcopy(REQUEST)
    for (*way, last), kind, value in mutations:
        holder: Any = body
        try:
            for step in way:
                holder = holder[step]
            if kind == "set":
                holder[last] = value
            elif kind == "drop":
                del holder[last]
            else:
                holder.insert(last, holder[last])
        except (KeyError, IndexError, TypeError, AttributeError):
            continue  # an earlier mutation took the place away
    return body


async def test_the_request_that_is_mutated_is_a_good_one() -> None:
    assert isinstance(await post(orjson.dumps(REQUEST)), ResponsesRequest)


@given(st.binary(max_size=40) | json_values.map(lambda value: json.dumps(value).encode()))
async def test_any_bytes_are_a_request_or_are_refused(body: bytes) -> None:
    await check(body)


@given(bodies)
@settings(max_examples=400)
async def test_any_json_object_is_a_request_or_is_refused(body: dict[str, Any]) -> None:
    await check(json.dumps(body).encode())


@given(MUTATIONS)
@settings(max_examples=400)
async def test_any_mutation_of_a_request_is_one_or_is_refused(mutations: list[Any]) -> None:
    await check(json.dumps(mutated(mutations)).encode())


finite = st.none() | st.booleans() | st.integers(-(2**63), 2**64 - 1) | st.floats(allow_nan=False, allow_infinity=False)
strings = st.text(st.characters(exclude_characters="\0", exclude_categories=("Cs",)))
strict_values = st.recursive(
    finite | strings, lambda inner: st.lists(inner) | st.dictionaries(strings, inner), max_leaves=20
)


@given(strict_values)
def test_a_json_value_comes_through_as_it_is(value: Any) -> None:
    assert parse_json(json.dumps(value)) == value


@given(st.dictionaries(strings, strict_values, min_size=1), st.data())
def test_a_key_that_occurs_twice_is_refused_wherever_it_is(value: dict[str, Any], data: st.DataObject) -> None:
    key = data.draw(st.sampled_from(sorted(value)))
    again = json.dumps({key: data.draw(strict_values)})
    text = json.dumps(value)[:-1] + "," + again[1:]
    with pytest.raises(RequestError, match="occurs twice"):
        parse_json(json.dumps([1, {"a": None}])[:-2] + ',"b":' + text + "}]")


names = st.sampled_from(("c1", "c2", "c3"))
texts = st.text(max_size=4).map(Text)
parts = st.lists(texts | st.just(Media("image", url="https://example.org/a")), max_size=3).map(tuple)
ids = st.none() | st.sampled_from(("msg_1", "msg_2", "not an id"))
turns: st.SearchStrategy[Turn] = st.one_of(
    st.builds(Message, st.sampled_from(("user", "system", "developer")), parts, ids),
    st.builds(Answer, parts, st.none() | st.text(max_size=3), ids),
    st.builds(Reasoning, st.text(max_size=4)),
    st.builds(Call, names, st.just("f"), st.just({}) | st.just("a: 1"), st.booleans()),
    st.builds(ToolOutput, names, parts, st.booleans()),
)


@st.composite
def conversations(draw: st.DrawFn) -> list[Turn]:
    """Turns in any order, then the outputs that are still missing, put in anywhere behind their calls."""
    conversation: list[Turn] = []
    waiting: set[str] = set()
    for turn in draw(st.lists(turns, max_size=12)):
        if isinstance(turn, Call):
            if turn.id in waiting:
                continue
            waiting.add(turn.id)
        elif isinstance(turn, ToolOutput):
            if turn.call_id not in waiting:
                continue
            waiting.remove(turn.call_id)
        conversation.append(turn)
    missing = draw(st.permutations(sorted(waiting)))
    return [*conversation, *(ToolOutput(call_id, (Text("late"),)) for call_id in missing)]


def calls_of(message: AIMessage) -> list[str]:
    return [str(call["id"]) for call in (*message.tool_calls, *message.invalid_tool_calls)]


@given(conversations())
@settings(max_examples=300)
def test_every_tool_call_is_followed_by_its_output(conversation: list[Turn]) -> None:
    messages = to_messages(conversation)
    expected: list[str] = []
    for message in messages:
        if isinstance(message, ToolMessage):
            assert message.tool_call_id in expected, "an output without its call"
            expected.remove(message.tool_call_id)
        else:
            assert not expected, "a call without its output"
        if isinstance(message, AIMessage):
            expected = calls_of(message)
            assert len(set(expected)) == len(expected), "two calls of one id cannot be told apart"
    assert not expected
    made = [call_id for message in messages if isinstance(message, AIMessage) for call_id in calls_of(message)]
    assert sorted(made) == sorted(turn.id for turn in conversation if isinstance(turn, Call))


@given(conversations())
def test_no_text_is_lost_and_no_id_is_given_twice(conversation: list[Turn]) -> None:
    messages = to_messages(conversation)
    said = [part.text for turn in conversation for part in getattr(turn, "parts", ()) if isinstance(part, Text)]
    said += [turn.refusal for turn in conversation if isinstance(turn, Answer) and turn.refusal]
    assert sorted("".join(said)) == sorted("".join(message.text for message in messages))
    kept = [message.id for message in messages if message.id is not None]
    assert len(kept) == len(set(kept))
    assert "not an id" not in kept


@given(st.lists(turns, max_size=8))
def test_any_turns_are_messages_or_are_refused(conversation: list[Turn]) -> None:
    open_calls = {turn.id for turn in conversation if isinstance(turn, Call) and turn.complete}
    answered = {turn.call_id for turn in conversation if isinstance(turn, ToolOutput)}
    if open_calls - answered:
        with pytest.raises(RequestError) as raised:
            to_messages(conversation)
        assert raised.value.param == "input"
    else:
        with suppress(RequestError):
            to_messages(conversation)
