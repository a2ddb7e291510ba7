"""What was said by another protocol, as input items of the Responses API."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from agent_server import framing
from agent_server.graph.inputs import Answer, Call, Media, Message, Part, Reasoning, Text, ToolOutput, Turn


def said_items(turns: Sequence[Turn]) -> list[dict[str, Any]]:
    """The turns as items, the reverse of `read_turns`."""
    return [_item(turn) for turn in turns]


def _item(turn: Turn) -> dict[str, Any]:
    match turn:
        case Message():
            content = [_part(part, "input_text") for part in turn.parts]
            return {"type": "message", "role": turn.role, "content": content}
        case Answer():
            content = [_part(part, "output_text") for part in turn.parts]
            content += [{"type": "refusal", "refusal": turn.refusal}] if turn.refusal else []
            return {"type": "message", "role": "assistant", "content": content}
        case Reasoning():
            summary = [{"type": "summary_text", "text": turn.text}] if turn.text else []
            return {"type": "reasoning", "summary": summary, "encrypted_content": turn.encrypted}
        case Call():
            args = turn.args if isinstance(turn.args, str) else framing.to_json(turn.args).decode()
            status = "completed" if turn.complete else "incomplete"
            return {
                "type": "function_call",
                "call_id": turn.id,
                "name": turn.name,
                "arguments": args,
                "status": status,
            }
        case ToolOutput():
            output = [_part(part, "input_text") for part in turn.parts]
            status = "incomplete" if turn.failed else "completed"
            return {"type": "function_call_output", "call_id": turn.call_id, "output": output, "status": status}


def _part(part: Part, text: str) -> dict[str, Any]:
    if isinstance(part, Text):
        return {"type": text, "text": part.text}
    return _media(part)


def _media(media: Media) -> dict[str, Any]:
    data = f"data:{media.mime_type};base64,{media.base64}" if media.base64 else None
    if media.kind == "image":
        found = {"type": "input_image", "image_url": media.url or data, "file_id": media.file_id}
        return {**_given(found), "detail": media.detail or "auto"}
    found = {"type": "input_file", "file_url": media.url, "file_data": data, "file_id": media.file_id}
    return _given({**found, "filename": media.filename})


def _given(values: dict[str, Any]) -> dict[str, Any]:
    return {name: value for name, value in values.items() if value is not None}
