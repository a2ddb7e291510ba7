"""A message while it streams, as LangGraph's clients put it together from chunks: JSON texts, ready to be sent.

A chunk's content is text for as long as the message is nothing but text. From its first block of another kind on
it is a list of content blocks with their indexes, which clients merge block by block.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import orjson

from agent_server.events import BlockFinished, BlockStarted, MessageStarted, ToolFinished

_EMPTY = b'"additional_kwargs":{},"response_metadata":{}'


class Streamed:
    """One message under construction. `metadata` is the JSON text that goes along with each chunk."""

    __slots__ = ("_blocks", "_calls", "_head", "_lists", "_refusal", "_tail", "_texts", "behind", "id", "metadata")

    def __init__(self, started: MessageStarted, metadata: bytes) -> None:
        self.id = started.source_id
        self.behind = "".join(f"|{each}" for each in started.ns)  # what its frames' names end with
        self.metadata = metadata
        self._lists = False
        self._texts: dict[int, list[str]] = {}
        self._blocks: dict[int, dict[str, Any]] = {}
        self._calls: dict[int, dict[str, Any]] = {}
        self._refusal = ""
        identity = b'"type":"AIMessageChunk","name":null,"id":%b' % orjson.dumps(self.id)
        self._head = b'[{"content":'
        self._tail = (
            b',%b,%b,"tool_calls":[],"invalid_tool_calls":[],"usage_metadata":null,"tool_call_chunks":[],'
            b'"chunk_position":null},%b]' % (_EMPTY, identity, metadata)
        )

    # -- chunks (stream mode `messages-tuple`) -------------------------------------------------------------

    def text(self, index: int, text: str) -> bytes:
        """More text of a text block."""
        if self._lists:
            return self._block({"type": "text", "text": text, "index": index})
        return self._head + orjson.dumps(text) + self._tail

    def reasoning(self, index: int, text: str) -> bytes:
        """More text of a reasoning block."""
        return self._block({"type": "reasoning", "reasoning": text, "index": index})

    def block(self, index: int, block: Mapping[str, Any]) -> bytes:
        """A block that comes in one piece, or something to add to one."""
        return self._block({**block, "index": index})

    def _block(self, block: Mapping[str, Any]) -> bytes:
        self._lists = True
        return self._head + orjson.dumps([block]) + self._tail

    def refusal(self, text: str) -> bytes:
        """More text of a refusal."""
        return self._chunk(additional_kwargs={"refusal": text})

    def call(self, started: BlockStarted) -> bytes:
        """A tool call begins."""
        call = {"name": started.name, "args": {}, "id": started.call_id, "type": "tool_call"}
        piece = {"name": started.name, "args": "", "id": started.call_id, "index": started.index}
        return self._chunk(tool_calls=[call], tool_call_chunks=[{**piece, "type": "tool_call_chunk"}])

    def args(self, index: int, text: str) -> bytes:
        """More of a tool call's arguments."""
        piece = {"name": None, "args": text, "id": None, "index": index, "type": "tool_call_chunk"}
        return self._chunk(tool_call_chunks=[piece])

    def last(self, message: Mapping[str, Any]) -> bytes:
        """The end: what the whole message says beside its content."""
        told = ("additional_kwargs", "response_metadata", "name", "usage_metadata")
        extra = {key: message[key] for key in told if message.get(key)}
        extra.pop("additional_kwargs", None)  # clients would add it to what they have
        return self._chunk(**extra, chunk_position="last")

    def _chunk(self, **fields: Any) -> bytes:
        chunk = {
            "content": [] if self._lists else "",
            "additional_kwargs": {},
            "response_metadata": {},
            "type": "AIMessageChunk",
            "name": None,
            "id": self.id,
            "tool_calls": [],
            "invalid_tool_calls": [],
            "usage_metadata": None,
            "tool_call_chunks": [],
            "chunk_position": None,
            **fields,
        }
        return b"[%b,%b]" % (orjson.dumps(chunk), self.metadata)

    # -- what there is of it (stream mode `messages`) ------------------------------------------------------

    def add_text(self, index: int, text: str) -> None:
        """More text of a text block."""
        self._texts.setdefault(index, []).append(text)

    def add_block(self, index: int, block: Mapping[str, Any]) -> None:
        """A block of another kind, as it is now."""
        self._blocks[index] = {**block, "index": index}

    def add_reasoning(self, index: int, text: str) -> None:
        """More text of a reasoning block."""
        block = self._blocks.setdefault(index, {"type": "reasoning", "reasoning": "", "index": index})
        block["reasoning"] += text

    def add_refusal(self, text: str) -> None:
        """More text of a refusal."""
        self._refusal += text

    def add_call(self, started: BlockStarted) -> None:
        """A tool call begins."""
        call = {"name": started.name, "args": {}, "id": started.call_id, "type": "tool_call"}
        self._calls[started.index] = call

    def end_call(self, finished: BlockFinished) -> None:
        """A tool call is whole."""
        if finished.invalid:
            invalid = {"type": "invalid_tool_call", "args": finished.text, "error": None}
            self._calls[finished.index] = {**self._calls.get(finished.index, {}), **invalid}
        elif finished.index in self._calls:
            self._calls[finished.index]["args"] = orjson.loads(finished.text)

    def partial(self) -> bytes:
        """The message so far, in a list of one."""
        calls = list(self._calls.values())
        message = {
            "content": self._content(),
            "additional_kwargs": {"refusal": self._refusal} if self._refusal else {},
            "response_metadata": {},
            "type": "ai",
            "name": None,
            "id": self.id,
            "tool_calls": [call for call in calls if call["type"] == "tool_call"],
            "invalid_tool_calls": [call for call in calls if call["type"] != "tool_call"],
            "usage_metadata": None,
        }
        return orjson.dumps([message])

    def _content(self) -> str | list[dict[str, Any]]:
        texts = {index: "".join(text) for index, text in self._texts.items()}
        if not self._blocks:
            return "".join(texts[index] for index in sorted(texts))
        blocks = {index: {"type": "text", "text": text, "index": index} for index, text in texts.items()} | self._blocks
        return [blocks[index] for index in sorted(blocks)]


def tool_message(finished: ToolFinished, message_id: str) -> bytes:
    """The message that answers a tool call."""
    return orjson.dumps(
        {
            "content": finished.output,
            "additional_kwargs": {},
            "response_metadata": {},
            "type": "tool",
            "name": finished.name,
            "id": message_id,
            "tool_call_id": finished.call_id,
            "artifact": None,
            "status": "error" if finished.status == "error" else "success",
        }
    )
