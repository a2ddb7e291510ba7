"""Turns -> `input` of the Responses API: the way back from `items.read_input`, for agents behind the same API."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from agent_server import framing
from agent_server.graph.inputs import Answer, Call, Media, Message, Part, Reasoning, Text, Turn

_ANY_FILE = "application/octet-stream"


def write_input(turns: Sequence[Turn]) -> list[dict[str, Any]]:
    """One item for each turn; an image that the agent made is an item of its own. Fields without a value are left
    out. A call that was cut short is left out, too: it may have no output, which every agent asks for."""
    answered = {turn.call_id for turn in turns if not isinstance(turn, Message | Answer | Reasoning | Call)}
    return [
        item
        for turn in turns
        if not isinstance(turn, Call) or turn.complete or turn.id in answered
        for item in _items(turn)
    ]


def _items(turn: Turn) -> list[dict[str, Any]]:
    if isinstance(turn, Message):
        return [{"type": "message", "role": turn.role, "content": _content(turn.parts)}]
    if isinstance(turn, Answer):
        return _answer(turn)
    if isinstance(turn, Reasoning):
        item = {"type": "reasoning", "id": turn.id or "rs_0", "summary": _summary(turn.text)}
        return [{**item, "encrypted_content": turn.encrypted} if turn.encrypted else item]
    if isinstance(turn, Call):
        arguments = turn.args if isinstance(turn.args, str) else framing.to_json(dict(turn.args)).decode()
        call = {"type": "function_call", "call_id": turn.id, "name": turn.name, "arguments": arguments}
        return [{**call, "status": "completed" if turn.complete else "incomplete"}]
    status = "incomplete" if turn.failed else "completed"
    return [{"type": "function_call_output", "call_id": turn.call_id, "output": _content(turn.parts), "status": status}]


def _summary(text: str) -> list[dict[str, Any]]:
    return [{"type": "summary_text", "text": text}] if text else []


def _answer(turn: Answer) -> list[dict[str, Any]]:
    texts = [
        {"type": "output_text", "text": part.text, "annotations": []} for part in turn.parts if isinstance(part, Text)
    ]
    refusals = [{"type": "refusal", "refusal": turn.refusal}] if turn.refusal else []
    images = [
        {"type": "image_generation_call", "id": part.id or "ig_0", "status": "completed", "result": part.base64}
        for part in turn.parts
        if isinstance(part, Media) and part.base64
    ]
    if not texts and not refusals:
        return images
    message = {"type": "message", "id": turn.id or "msg_0", "role": "assistant", "status": "completed"}
    return [{**message, "content": [*texts, *refusals]}, *images]


def _content(parts: Sequence[Part]) -> str | list[dict[str, Any]]:
    """Text alone is plain text, which every agent takes."""
    if len(parts) == 1 and isinstance(parts[0], Text):
        return parts[0].text
    return [_part(part) for part in parts]


def _part(part: Part) -> dict[str, Any]:
    if isinstance(part, Text):
        return {"type": "input_text", "text": part.text}
    if part.kind == "audio":
        kind = (part.mime_type or "").removeprefix("audio/")
        return {"type": "input_audio", "input_audio": {"data": part.base64, "format": kind}}
    name = {"filename": part.filename} if part.filename else {}
    if part.file_id:
        return {"type": f"input_{part.kind}", "file_id": part.file_id, **name}
    data = f"data:{part.mime_type or _ANY_FILE};base64,{part.base64}" if part.base64 else None
    if part.kind == "image":
        return {
            "type": "input_image",
            "image_url": data or part.url,
            **({"detail": part.detail} if part.detail else {}),
        }
    return {"type": "input_file", "file_data" if data else "file_url": data or part.url, **name}
