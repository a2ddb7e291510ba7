"""Messages as LangChain writes them, and as the turns that every protocol knows."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from langchain_core.messages import AIMessage, BaseMessage, SystemMessage, ToolMessage, convert_to_messages

from agent_server.graph.inputs import Answer, Call, Media, Message, Part, Reasoning, Text, ToolOutput, Turn

_MEDIA = {"image": "image", "file": "file", "audio": "audio"}
_NO_MESSAGE = (ValueError, TypeError, NotImplementedError, KeyError)


def turns_in(value: Any) -> list[Turn] | None:
    """The turns of an input that is a list of messages, or has one under `messages`; None for any other input."""
    said = value.get("messages") if isinstance(value, Mapping) else value
    if isinstance(said, Mapping | str):
        said = [said]
    if not isinstance(said, Sequence) or not said:
        return None
    try:
        messages = convert_to_messages(said)
    except _NO_MESSAGE:
        return None
    return [turn for message in messages for turn in _turns(message)]


def _turns(message: BaseMessage) -> list[Turn]:
    if isinstance(message, ToolMessage):
        return [ToolOutput(message.tool_call_id, _parts(message), failed=message.status == "error")]
    if isinstance(message, AIMessage):
        said: list[Turn] = [
            Reasoning(str(block.get("reasoning", ""))) for block in _blocks(message) if block["type"] == "reasoning"
        ]
        if parts := _parts(message):
            said.append(Answer(parts, id=message.id))
        return [*said, *(Call(str(call["id"]), call["name"], call["args"]) for call in message.tool_calls)]
    return [Message("system" if isinstance(message, SystemMessage) else "user", _parts(message), id=message.id)]


def _parts(message: BaseMessage) -> tuple[Part, ...]:
    return tuple(part for block in _blocks(message) if (part := _part(block)) is not None)


def _blocks(message: BaseMessage) -> list[Mapping[str, Any]]:
    blocks: list[Any] = list(message.content_blocks)
    return blocks


def _part(block: Mapping[str, Any]) -> Part | None:
    if block["type"] == "text":
        return Text(str(block["text"])) if block["text"] else None
    kind = _MEDIA.get(str(block["type"]))
    if kind is None:
        return None
    named = {name: block[name] for name in ("url", "base64", "mime_type", "file_id") if block.get(name)}
    return Media(kind, **named)  # type: ignore[arg-type]
