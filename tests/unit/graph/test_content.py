"""What is inside a message, in every provider's shape."""

from __future__ import annotations

from typing import Any

import pytest
from langchain_core.messages import AIMessage, AIMessageChunk

from agent_server.events import Usage
from agent_server.graph.content import Piece, annotation, finish_reason, pieces, usage
from tests.support.chunks import usage as counted

TEXT, REASONING, REFUSAL = "text", "reasoning", "refusal"

CONTENTS: dict[str, tuple[Any, list[Piece]]] = {
    "plain text": ("hi", [Piece("text", None, "hi")]),
    "nothing": ("", []),
    "an empty list": ([], []),
    "strings among blocks": (
        ["", "a", {"type": "text", "text": "b"}],
        [Piece("text", None, "a"), Piece("text", None, "b")],
    ),
    "a text block": ([{"type": "text", "text": "a", "index": 3}], [Piece("text", 3, "a")]),
    "Bedrock's text delta": ([{"type": "text_delta", "text": "a"}], [Piece("text", None, "a")]),
    "OpenAI's output text": ([{"type": "output_text", "text": "a"}], [Piece("text", None, "a")]),
    "an empty text block": ([{"type": "text", "text": ""}], []),
    "a text block without text": ([{"type": "text", "text": None}], []),
    "LangChain's reasoning": ([{"type": "reasoning", "reasoning": "a", "index": 0}], [Piece("reasoning", 0, "a")]),
    "its signature": (
        [{"type": "reasoning", "reasoning": "a", "extras": {"signature": "c2ln"}}],
        [Piece("reasoning", None, "a", data={"encrypted": "c2ln"})],
    ),
    "Anthropic's thinking": ([{"type": "thinking", "thinking": "a", "index": 0}], [Piece("reasoning", 0, "a")]),
    "its signature alone": (
        [{"type": "thinking", "thinking": "", "signature": "c2ln", "index": 0}],
        [Piece("reasoning", 0, "", data={"encrypted": "c2ln"})],
    ),
    "redacted thinking": (
        [{"type": "redacted_thinking", "data": "eA==", "index": 1}],
        [Piece("reasoning", 1, "", data={"encrypted": "eA=="})],
    ),
    "Bedrock's reasoning": (
        [{"type": "reasoning_content", "reasoning_content": {"text": "a", "signature": "c2ln"}, "index": 0}],
        [Piece("reasoning", 0, "a", data={"encrypted": "c2ln"})],
    ),
    "OpenAI's summary": (
        [{"type": "reasoning", "summary": [{"text": "a", "index": 0}, {"text": "b", "index": 1}], "index": 0}],
        [Piece("reasoning", 0, "a", part=0), Piece("reasoning", 0, "b", part=1)],
    ),
    "an encrypted summary": (
        [{"type": "reasoning", "summary": [], "encrypted_content": "eA==", "index": 0}],
        [Piece("reasoning", 0, "", data={"encrypted": "eA=="})],
    ),
    "reasoning without anything": ([{"type": "reasoning", "index": 0}], []),
    "a refusal": ([{"type": "refusal", "refusal": "no", "index": 0}], [Piece("refusal", 0, "no")]),
    "an image": (
        [{"type": "image", "base64": "aGk=", "id": "i", "index": 1}],
        [Piece("media", (1, "i"), data={"type": "image", "base64": "aGk=", "id": "i", "index": 1})],
    ),
    "OpenAI's image URL": (
        [{"type": "image_url", "image_url": {"url": "https://a.example/i.png"}}],
        [Piece("media", None, data={"type": "image", "url": "https://a.example/i.png"})],
    ),
    "the same without an object": (
        [{"type": "image_url", "image_url": "https://a.example/i.png"}],
        [Piece("media", None, data={"type": "image", "url": "https://a.example/i.png"})],
    ),
    "a tool call, which the message carries apart": ([{"type": "tool_use", "id": "t", "name": "f", "input": {}}], []),
    "its arguments": ([{"type": "input_json_delta", "partial_json": "{", "index": 1}], []),
    "what nobody has heard of": ([{"type": "hologram"}, {"text": "without a type"}], []),
}


@pytest.mark.parametrize("name", CONTENTS)
def test_content_is_read_in_every_shape(name: str) -> None:
    content, expected = CONTENTS[name]
    assert list(pieces(AIMessageChunk(content=content))) == expected


EXTRAS: dict[str, tuple[dict[str, Any], list[Piece]]] = {
    "reasoning before the text": (
        {"reasoning_content": "a"},
        [Piece("reasoning", None, "a"), Piece("text", None, "hi")],
    ),
    "a refusal after the text": ({"refusal": "no"}, [Piece("text", None, "hi"), Piece("refusal", None, "no")]),
    "nulls and empty texts": ({"refusal": None, "reasoning_content": ""}, [Piece("text", None, "hi")]),
    "what is no text": ({"reasoning_content": {"a": 1}, "refusal": 3}, [Piece("text", None, "hi")]),
}


@pytest.mark.parametrize("name", EXTRAS)
def test_what_providers_keep_beside_the_content_is_read(name: str) -> None:
    extra, expected = EXTRAS[name]
    assert list(pieces(AIMessageChunk(content="hi", additional_kwargs=extra))) == expected


ANNOTATIONS: dict[str, tuple[dict[str, Any], dict[str, Any]]] = {
    "LangChain's own": (
        {"type": "citation", "url": "https://a.example"},
        {"type": "citation", "url": "https://a.example"},
    ),
    "OpenAI's URL citation": (
        {"type": "url_citation", "url": "u", "title": "t", "start_index": 0, "end_index": 4, "more": 1},
        {"type": "citation", "url": "u", "title": "t", "start_index": 0, "end_index": 4},
    ),
    "Anthropic's web search": (
        {"type": "web_search_result_location", "url": "u", "title": "t", "cited_text": "c", "encrypted_index": "x"},
        {"type": "citation", "url": "u", "title": "t", "cited_text": "c"},
    ),
    "Anthropic's document": (
        {"type": "char_location", "cited_text": "c", "document_title": "d", "start_char_index": 1},
        {"type": "citation", "title": "d", "cited_text": "c"},
    ),
    "Anthropic's search result": (
        {"type": "search_result_location", "cited_text": "c", "title": "t", "source": "https://a.example"},
        {"type": "citation", "title": "t", "url": "https://a.example", "cited_text": "c"},
    ),
    "a document without a title": (
        {"type": "page_location", "cited_text": "c", "document_title": None},
        {"type": "citation", "cited_text": "c"},
    ),
    "anything else": (
        {"type": "file_citation", "file_id": "f"},
        {"type": "non_standard_annotation", "value": {"type": "file_citation", "file_id": "f"}},
    ),
}


@pytest.mark.parametrize("name", ANNOTATIONS)
def test_a_citation_becomes_an_annotation_of_langchains(name: str) -> None:
    raw, expected = ANNOTATIONS[name]
    assert annotation(raw) == expected


def test_annotations_come_with_their_text_under_either_name() -> None:
    raw = {"type": "citation", "url": "u"}
    for key in ("annotations", "citations"):
        (piece,) = pieces(AIMessage(content=[{"type": "text", "text": "a", key: [raw, "no object"]}]))
        assert piece == Piece("text", None, "a", (raw,))


def test_usage_counts_details_as_parts_of_the_totals() -> None:
    message = AIMessage(content="", usage_metadata=counted(100, 20, cached=60, cache_write=7, reasoning=12))
    assert usage(message) == Usage(100, 20, 120, 60, 7, 12)


def test_usage_is_none_where_the_provider_gave_none() -> None:
    assert usage(AIMessage(content="")) is None
    assert usage(None) is None


REASONS: dict[str, tuple[dict[str, Any], str]] = {
    "OpenAI": ({"finish_reason": "stop"}, "stop"),
    "OpenAI, tools": ({"finish_reason": "tool_calls"}, "tool_calls"),
    "OpenAI, at the limit": ({"finish_reason": "length"}, "length"),
    "OpenAI Responses, at the limit": ({"incomplete_details": {"reason": "max_output_tokens"}}, "length"),
    "OpenAI Responses, whole": ({"incomplete_details": None}, ""),
    "Anthropic": ({"stop_reason": "end_turn"}, "end_turn"),
    "Anthropic, at the limit": ({"stop_reason": "max_tokens"}, "length"),
    "Anthropic, refused": ({"stop_reason": "refusal"}, "content_filter"),
    "Gemini, at the limit": ({"finish_reason": "MAX_TOKENS"}, "length"),
    "Gemini, filtered": ({"finish_reason": "SAFETY"}, "content_filter"),
    "Bedrock": ({"stopReason": "guardrail_intervened"}, "content_filter"),
    "Ollama": ({"done_reason": "length"}, "length"),
    "nobody": ({}, ""),
}


@pytest.mark.parametrize("name", REASONS)
def test_the_finish_reason_is_one_word_for_all_providers(name: str) -> None:
    metadata, expected = REASONS[name]
    assert finish_reason(AIMessage(content="", response_metadata=metadata)) == expected
