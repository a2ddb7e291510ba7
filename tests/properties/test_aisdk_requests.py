"""Whatever is sent as a chat request is read, or refused by name."""

from __future__ import annotations

from typing import Any

from hypothesis import given
from hypothesis import strategies as st

from agent_server.errors import RequestError
from agent_server.protocols.aisdk.request import parse_chat

scalars: st.SearchStrategy[Any] = st.none() | st.booleans() | st.integers(-2, 8) | st.text(max_size=5)
junk = st.recursive(
    scalars, lambda inner: st.lists(inner, max_size=2) | st.dictionaries(st.text(max_size=3), inner, max_size=2)
)


def _like(fields: dict[str, st.SearchStrategy[Any]]) -> st.SearchStrategy[Any]:
    """An object with some of these fields, some of them wrong."""
    return st.fixed_dictionaries({}, optional={name: value | junk for name, value in fields.items()}) | junk


urls = st.sampled_from(
    ["data:,a", "data:image/png;base64,aGk=", "data:;base64,?", "https://x.example/", "ftp://x", "data:"]
)
parts = _like(
    {
        "type": st.sampled_from(["text", "file", "tool-x", "dynamic-tool", "data-x"]),
        "text": st.text(max_size=3),
        "url": urls,
        "mediaType": st.sampled_from(["image/png", "image", "text/plain"]),
        "toolCallId": st.just("c1"),
        "state": st.sampled_from(["output-available", "output-error", "approval-responded"]),
        "approval": _like({"id": st.just("q.0"), "approved": st.booleans()}),
    }
)
messages = _like(
    {
        "role": st.sampled_from(["user", "assistant", "system"]),
        "id": st.just("u1"),
        "parts": st.lists(parts, max_size=3),
    }
)
tools = st.dictionaries(st.sampled_from(["a", "b c"]), _like({"parameters": st.just({}), "inputSchema": st.just({})}))
bodies = st.fixed_dictionaries(
    {"id": st.just("c1") | junk},
    optional={
        "messages": st.lists(messages, max_size=3) | junk,
        "message": messages,
        "trigger": st.sampled_from(["submit-message", "regenerate-message"]) | junk,
        "messageId": st.just("u1") | junk,
        "tools": tools | st.lists(_like({"name": st.just("a")}), max_size=2) | junk,
        "resume": st.dictionaries(st.text(max_size=2), junk, max_size=1) | junk,
        "sdkVersion": st.integers(4, 8) | junk,
    },
)


def _refusal(body: dict[str, Any]) -> RequestError | None:
    """Why a body is refused, if it is."""
    try:
        request = parse_chat(body)
        request.new_messages(set())
    except RequestError as refused:
        return refused
    assert request.answered is None or request.answered.role == "assistant"
    return None


@given(bodies)
def test_every_body_is_read_or_refused_by_name(body: dict[str, Any]) -> None:
    refused = _refusal(body)
    assert refused is None or (refused.status == 400 and refused.param and refused.message)
