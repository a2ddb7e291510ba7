"""Chunks as real providers send them, for scripts."""

from __future__ import annotations

from typing import Any

from langchain_core.messages import AIMessageChunk, ToolCallChunk
from langchain_core.messages.ai import UsageMetadata
from langchain_core.messages.tool import tool_call_chunk

Block = dict[str, Any]


def text(*pieces: str, id: str | None = None) -> list[AIMessageChunk]:
    """One chunk of plain text for each piece."""
    return [AIMessageChunk(content=piece, id=id) for piece in pieces]


def blocks(*pieces: Block, **fields: Any) -> list[AIMessageChunk]:
    """One chunk for each content block."""
    return [AIMessageChunk(content=[piece], **fields) for piece in pieces]


def piece(
    args: str | None = None, *, name: str | None = None, id: str | None = None, index: int | None = 0
) -> ToolCallChunk:
    """One piece of a tool call."""
    return tool_call_chunk(name=name, args=args, id=id, index=index)


def tools(*pieces: ToolCallChunk, content: str = "", id: str | None = None) -> AIMessageChunk:
    """One chunk with these pieces of tool calls."""
    return AIMessageChunk(content=content, tool_call_chunks=list(pieces), id=id)


def call(name: str, *args: str, id: str, index: int = 0) -> list[AIMessageChunk]:
    """A tool call as OpenAI streams it: name and id first, then the arguments in pieces."""
    head = tools(piece("", name=name, id=id, index=index))
    return [head, *(tools(piece(part, index=index)) for part in args)]


def usage(
    given: int = 10, made: int = 5, *, cached: int = 0, cache_write: int = 0, reasoning: int = 0
) -> UsageMetadata:
    """Token counts of one model call."""
    return UsageMetadata(
        input_tokens=given,
        output_tokens=made,
        total_tokens=given + made,
        input_token_details={"cache_read": cached, "cache_creation": cache_write},
        output_token_details={"reasoning": reasoning},
    )


def finish(
    reason: str = "stop", *, content: str = "", tokens: UsageMetadata | None = None, id: str | None = None
) -> list[AIMessageChunk]:
    """The chunk with the finish reason, then the one with the usage."""
    ending = {"finish_reason": reason, "model_name": "scripted-1"}
    return [
        AIMessageChunk(content=content, response_metadata=ending, id=id),
        AIMessageChunk(content="", usage_metadata=tokens or usage(), id=id),
    ]
