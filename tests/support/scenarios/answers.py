"""Scenarios of one model call without tools: texts, reasoning, refusals, citations, limits, failures."""

from __future__ import annotations

from langchain.agents import create_agent
from langchain_core.messages import AIMessageChunk

from tests.support.chunks import Block, blocks, finish, text, usage
from tests.support.models import Call, ModelError, SilentChatModel, Step
from tests.support.scenarios.base import Agent, Factory, agent, client_agent

PLAIN = ("Hello", ", ", "world", "!")
FORECAST = '{"city": "Oslo", "celsius": 21}'
UNICODE = ("Gr", "u", "\u0308", "ße 👩", "\u200d", "👧 ", "🇳", "🇴 e", "\u0301", " \u2028\u2029\x85 مرحبا \U0001f600")
PIXEL = "iVBORw0KGgoAAAANSUhEUgAAAAEAAAABCAYAAAAfFcSJAAAADUlEQVR42mNk+M9QDwADhgGAWjR9awAAAABJRU5ErkJggg=="

CITED = "Oslo is sunny."
URL_CITATION: Block = {
    "type": "citation",
    "url": "https://weather.example/oslo",
    "title": "Oslo today",
    "start_index": 0,
    "end_index": len(CITED),
    "cited_text": CITED,
}
ANTHROPIC_CITATION: Block = {
    "type": "char_location",
    "cited_text": "Sun all day.",
    "document_index": 0,
    "document_title": "Forecast",
    "start_char_index": 4,
    "end_char_index": 16,
}


def _thought(*pieces: str) -> list[AIMessageChunk]:
    return blocks(*({"type": "reasoning", "reasoning": piece, "index": 0} for piece in pieces))


def _said(*pieces: str, index: int = 1) -> list[AIMessageChunk]:
    return blocks(*({"type": "text", "text": piece, "index": index} for piece in pieces))


def _summary(part: int, piece: str) -> Block:
    return {
        "type": "reasoning",
        "id": "rs_scripted",
        "index": 0,
        "summary": [{"type": "summary_text", "text": piece, "index": part}],
    }


def _extra(key: str, *pieces: str) -> list[AIMessageChunk]:
    return [AIMessageChunk(content="", additional_kwargs={key: piece}) for piece in pieces]


def _formatted(call: Call) -> list[Step]:
    """JSON when the request asks for it, prose otherwise."""
    if call.kwargs.get("response_format"):
        return [*text('{"city": ', '"Oslo", ', '"celsius"', ": 21}"), *finish()]
    return [*text("Oslo has ", "21 degrees."), *finish()]


def _silent() -> Agent:
    return create_agent(SilentChatModel(turns=[[*text(*PLAIN), *finish()]]), tools=[])


_REDACTED: Block = {"type": "redacted_thinking", "data": "b3BhcXVl", "index": 1}

ANSWERS: dict[str, Factory] = {
    "plain_text": agent([*text(*PLAIN, id="chatcmpl-plain"), *finish(id="chatcmpl-plain")]),
    "empty_answer": agent([*text(""), *finish()]),
    "unicode_split": agent([*text(*UNICODE), *finish()]),
    "text_in_finish_chunk": agent([*text("Hello "), *finish(content="world")]),
    "reasoning_then_text": agent([*_thought("Hmm, ", "think."), *_said("Done ", "thinking."), *finish()]),
    "reasoning_anthropic": agent(
        [
            *blocks(
                {"type": "thinking", "thinking": "Let me ", "index": 0},
                {"type": "thinking", "thinking": "see.", "index": 0},
                {"type": "thinking", "thinking": "", "signature": "c2lnbmVk", "index": 0},
                _REDACTED,
            ),
            *_said("It is ", "so.", index=2),
            *finish("end_turn"),
        ]
    ),
    "reasoning_openai": agent(
        [
            *blocks(
                {"type": "reasoning", "id": "rs_scripted", "summary": [], "index": 0},
                _summary(0, "First "),
                _summary(0, "part."),
                _summary(1, "Second "),
                _summary(1, "part."),
                {"type": "reasoning", "encrypted_content": "Y2lwaGVy", "index": 0},
            ),
            *_said("There ", "you are."),
            *finish(),
        ]
    ),
    "reasoning_content": agent([*_extra("reasoning_content", "Well, ", "yes."), *text("Yes", "."), *finish()]),
    "refusal": client_agent([*_extra("refusal", "I cannot ", "do that."), *finish()]),
    "refusal_block": agent(
        [
            *blocks(
                {"type": "refusal", "refusal": "I will ", "index": 0},
                {"type": "refusal", "refusal": "not.", "index": 0},
            ),
            *finish(),
        ]
    ),
    "citations": agent(
        [
            *_said("Oslo is ", "sunny.", index=0),
            *blocks({"type": "text", "text": "", "annotations": [URL_CITATION], "index": 0}),
            *finish(),
        ]
    ),
    "citations_anthropic": agent(
        [
            *_said("It is ", "sunny.", index=0),
            *blocks({"type": "text", "text": "", "citations": [ANTHROPIC_CITATION], "index": 0}),
            *finish("end_turn"),
        ]
    ),
    "image_out": agent(
        [
            *_said("A pixel: ", index=0),
            *blocks({"type": "image", "base64": PIXEL, "mime_type": "image/png", "index": 1}),
            *finish(),
        ]
    ),
    "structured_output": client_agent(_formatted),
    "non_streaming_model": _silent,
    "model_error_before_first_token": agent([ModelError]),
    "model_error_after_first_token": agent([*text("Partial ", "answer"), ModelError]),
    "length_limit": agent([*text("Once upon ", "a"), *finish("length")]),
    "content_filter": agent([*text("The "), *finish("content_filter")]),
    "usage_details": agent([*text("Counted."), *finish(tokens=usage(100, 20, cached=60, cache_write=7, reasoning=12))]),
}
