"""What was said in a run, read off its events: the turns of the agent and of its tools."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from typing import Any

import msgspec
import orjson

from agent_server.events import BlockFinished, Event, MessageFinished, MessageStarted, ToolFinished
from agent_server.graph.inputs import Answer, Call, Media, Part, Reasoning, Text, ToolOutput, Turn, to_messages
from agent_server.graph.jsonable import to_jsonable

_MEDIA = {"image": "image", "file": "file", "audio": "audio"}


def told(events: Iterable[Event]) -> list[Turn]:
    """The turns of a run's own messages and tools. What a tool's inner agent said stays inside the tool.

    A call that has no output did not run, and says so.
    """
    turns: list[Turn] = []
    inner: set[str] = set()
    sources: dict[str, str] = {}
    blocks: dict[str, list[BlockFinished]] = {}
    for event in events:
        match event:
            case MessageStarted():
                sources[event.message_id] = event.source_id
                if event.parent_call_id:
                    inner.add(event.message_id)
            case BlockFinished() if event.message_id not in inner:
                blocks.setdefault(event.message_id, []).append(event)
            case MessageFinished():
                turns += _message(blocks.pop(event.message_id, []), sources.get(event.message_id, ""))
            case ToolFinished() if event.status != "pending":
                turns.append(ToolOutput(event.call_id, _parts(event.output), failed=event.status == "error"))
            case _:
                pass
    return _paired(turns)


def messages_json(turns: Sequence[Turn]) -> list[dict[str, Any]]:
    """The turns as LangChain messages in plain JSON."""
    return [to_jsonable(message) for message in to_messages(turns)]


def _message(blocks: list[BlockFinished], source_id: str) -> list[Turn]:
    parts: list[Part] = []
    refusal: str | None = None
    thoughts: list[Turn] = []
    calls: list[Turn] = []
    for block in blocks:
        match block.kind:
            case "text":
                parts.append(Text(block.text))
            case "refusal":
                refusal = (refusal or "") + block.text
            case "reasoning":
                thoughts.append(Reasoning(block.text, encrypted=block.data.get("encrypted")))
            case "media":
                parts += _media(block.data)
            case "tool_call":
                calls.append(_call(block))
    said: list[Turn] = [Answer(tuple(parts), refusal, source_id or None)] if parts or refusal else []
    return [*thoughts, *said, *calls]


def _call(block: BlockFinished) -> Call:
    args = block.text if block.invalid else orjson.loads(block.text or "{}")
    return Call(block.call_id, block.name, args, complete=block.complete and not block.invalid)


def _media(data: dict[str, Any]) -> list[Part]:
    kind = _MEDIA.get(str(data.get("type")))
    fields = ("url", "base64", "mime_type", "file_id", "id")
    return [Media(kind, **{name: data[name] for name in fields if data.get(name)})] if kind else []  # type: ignore[arg-type]


def _parts(output: str | list[dict[str, Any]]) -> tuple[Part, ...]:
    if isinstance(output, str):
        return (Text(output),)
    parts: list[Part] = []
    for block in output:
        parts += [Text(str(block["text"]))] if block.get("type") == "text" else _media(block)
    return tuple(parts)


def _paired(turns: list[Turn]) -> list[Turn]:
    """Calls that nothing answers are marked, answers that no call asked for are left out."""
    answered = {turn.call_id for turn in turns if isinstance(turn, ToolOutput)}
    called = {turn.id for turn in turns if isinstance(turn, Call)}
    return [
        msgspec.structs.replace(turn, complete=False) if isinstance(turn, Call) and turn.id not in answered else turn
        for turn in turns
        if not isinstance(turn, ToolOutput) or turn.call_id in called
    ]
