"""What the AI SDK's chunks hold, made from what events hold: files, sources, data, usage, questions."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from agent_server import events as ev

_REASONS = {"max_output_tokens": "length", "content_filter": "content-filter"}
_KINDS = {"image": "image/*", "audio": "audio/*", "video": "video/*"}


def usage(counted: ev.Usage) -> dict[str, int]:
    """Tokens under the names of `LanguageModelUsage`."""
    told = {
        "inputTokens": counted.input_tokens,
        "outputTokens": counted.output_tokens,
        "totalTokens": counted.total_tokens,
    }
    more = {"reasoningTokens": counted.reasoning_tokens, "cachedInputTokens": counted.cached_tokens}
    return told | {name: count for name, count in more.items() if count}


def finish_reason(event: ev.RunFinished) -> str:
    """Why a run that ended by itself ended, in words that every version knows."""
    return "stop" if event.incomplete is None else _REASONS.get(event.incomplete, "other")


def file(data: Mapping[str, Any]) -> dict[str, str] | None:
    """A LangChain v1 media block as a file; None where it is only known to the model's provider."""
    media_type = str(data.get("mime_type") or _KINDS.get(str(data.get("type")), "application/octet-stream"))
    if data.get("base64"):
        return {"url": f"data:{media_type};base64,{data['base64']}", "mediaType": media_type}
    return {"url": str(data["url"]), "mediaType": media_type} if data.get("url") else None


def source(annotation: Mapping[str, Any]) -> dict[str, str] | None:
    """A citation as a source: a page by its address, else a document by its title."""
    if annotation.get("type") != "citation":
        return None
    title = {"title": str(annotation["title"])} if annotation.get("title") else {}
    if annotation.get("url"):
        return {"type": "source-url", "url": str(annotation["url"]), **title}
    return {"type": "source-document", "mediaType": "text/plain", **title} if title else None


def data_part(event: ev.Custom) -> dict[str, Any]:
    """Custom data, named and kept as `@ai-sdk/langchain` does it: `type` in it names the part, `id` lets the part
    stay in the message, where later data of that id replaces it."""
    data, name = event.data, event.name
    told: Mapping[str, Any] = data if isinstance(data, Mapping) else {}
    if name == "custom" and isinstance(told.get("type"), str) and told["type"]:
        name = told["type"]
    kept = told.get("id")
    if isinstance(kept, str) and kept:
        return {"type": f"data-{name}", "id": kept, "data": data}
    return {"type": f"data-{name}", "data": data, "transient": True}


def questions(interrupt: ev.Interrupt) -> list[tuple[str, Any]]:
    """(tool name, arguments) of each call that an interrupt is about; none for a question that stands alone."""
    value = interrupt.value
    if interrupt.kind == "approval":
        requests = value["action_requests"]
        return [(str(each.get("name", "")), each.get("args", each.get("arguments", {}))) for each in requests]
    if interrupt.kind == "client_tool":
        return [(str(value.get("name", "")), value.get("args", {}))]
    return [("question", value)] * len(interrupt.call_ids)


def reason(interrupt: ev.Interrupt, place: int) -> str:
    """What people are told of a question, where the agent says something."""
    value = interrupt.value
    if interrupt.kind == "approval":
        value = value["action_requests"][place]
    if isinstance(value, str):
        return value
    told: Mapping[str, Any] = value if isinstance(value, Mapping) else {}
    names = ("description", "message", "question")
    return next((told[name] for name in names if isinstance(told.get(name), str)), "")


def question(interrupt: ev.Interrupt, calls: list[str]) -> dict[str, Any]:
    """The data of a `data-interrupt` part."""
    asked = {"id": interrupt.id, "kind": interrupt.kind, "value": interrupt.value}
    return {**asked, "toolCallIds": calls} if calls else asked


def text_of(output: str | list[dict[str, Any]]) -> str:
    """The text of a tool's output."""
    if isinstance(output, str):
        return output
    return "".join(str(block.get("text", "")) for block in output if block.get("type") == "text")
