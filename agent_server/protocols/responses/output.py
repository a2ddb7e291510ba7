"""Output items and content parts of the Responses API, as plain dictionaries built fresh on each call.

Items leave out optional fields that are null (clients take them for optional, not for nullable); the response
object itself keeps its nulls. Shapes: OpenAI API reference, "The response object".
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any, Literal

from agent_server.events import ToolFinished, Usage

Phase = Literal["commentary", "final_answer"]
ItemStatus = Literal["in_progress", "completed", "incomplete"]


HUMAN_INPUT = "request_human_input"
"""Name of what asks for an answer that is no approval: an approval request, or a call of the client's tool of that name
where it declares one."""


def human_input_call(interrupt_id: str) -> str:
    """The id of the call that asks the question of an interrupt."""
    return f"call_{interrupt_id}"


def message(item_id: str, status: ItemStatus, parts: list[dict[str, Any]], phase: Phase | None) -> dict[str, Any]:
    """An assistant message. `phase` tells text before tool calls from the answer, once that is known."""
    item: dict[str, Any] = {"id": item_id, "type": "message", "role": "assistant", "status": status}
    item["content"] = parts
    return {**item, "phase": phase} if phase else item


def output_text(text: str, annotations: Sequence[Mapping[str, Any]] = ()) -> dict[str, Any]:
    """An `output_text` part; `annotations` are already in the wire's own shape."""
    return {"type": "output_text", "text": text, "annotations": list(annotations), "logprobs": []}


def refusal(text: str) -> dict[str, Any]:
    """A `refusal` part."""
    return {"type": "refusal", "refusal": text}


def reasoning(item_id: str, status: ItemStatus, text: str | None, encrypted: str = "") -> dict[str, Any]:
    """A reasoning item with at most one summary part (the form every client shows)."""
    summary = [] if text is None else [summary_text(text)]
    item: dict[str, Any] = {"id": item_id, "type": "reasoning", "summary": summary, "status": status}
    return {**item, "encrypted_content": encrypted} if encrypted else item


def summary_text(text: str) -> dict[str, Any]:
    """A part of a reasoning item's summary."""
    return {"type": "summary_text", "text": text}


def function_call(item_id: str, status: ItemStatus, call_id: str, name: str, arguments: str) -> dict[str, Any]:
    """A function call, by the agent itself or left to the client."""
    item = {"id": item_id, "type": "function_call", "status": status, "call_id": call_id}
    return {**item, "name": name, "arguments": arguments}


def function_call_output(item_id: str, finished: ToolFinished) -> dict[str, Any]:
    """The output of a tool that ran on the server, beside its function call."""
    status = "completed" if finished.status == "success" else "incomplete"
    item = {"id": item_id, "type": "function_call_output", "status": status, "call_id": finished.call_id}
    return {**item, "output": _tool_output(finished.output)}


def mcp_call(
    item_id: str,
    status: str,
    server_label: str,
    name: str,
    arguments: str,
    finished: ToolFinished | None = None,
    approval_request_id: str = "",
) -> dict[str, Any]:
    """A tool call that runs on the server, with its output in the same item."""
    item = {"id": item_id, "type": "mcp_call", "status": status, "server_label": server_label}
    item |= {"name": name, "arguments": arguments}
    if approval_request_id:
        item["approval_request_id"] = approval_request_id
    if finished is None or finished.status == "pending":
        return item
    text = as_text(finished.output)
    if finished.status == "success":
        return {**item, "output": text}
    return {**item, "error": {"type": "mcp_tool_execution_error", "content": [{"type": "text", "text": text}]}}


def mcp_approval_request(item_id: str, server_label: str, name: str, arguments: str) -> dict[str, Any]:
    """A question to a person, which `mcp_approval_response` answers."""
    item = {"id": item_id, "type": "mcp_approval_request", "server_label": server_label}
    return {**item, "name": name, "arguments": arguments}


def image_generation_call(item_id: str, status: str, result: str | None) -> dict[str, Any]:
    """An image made by the model; `result` is base64."""
    return {"id": item_id, "type": "image_generation_call", "status": status, "result": result}


def as_text(output: str | list[dict[str, Any]]) -> str:
    """A tool output as text: its text blocks joined, other blocks by their URL or type."""
    if isinstance(output, str):
        return output
    return "\n".join(str(b.get("text") or b.get("url") or f"[{b.get('type')}]") for b in output)


def _tool_output(output: str | list[dict[str, Any]]) -> str | list[dict[str, Any]]:
    if isinstance(output, str) or all(block.get("type") == "text" for block in output):
        return as_text(output)
    return [_input_part(block) for block in output]


def _input_part(block: Mapping[str, Any]) -> dict[str, Any]:
    url = media_url(block)
    if block.get("type") == "image" and url:
        return {"type": "input_image", "image_url": url, "detail": "auto"}
    if block.get("type") == "file" and url:
        name = str(block.get("filename") or "file")
        return {
            "type": "input_file",
            "filename": name,
            "file_data" if url.startswith("data:") else "file_url": url,
        }
    return {"type": "input_text", "text": as_text([dict(block)])}


def media_url(block: Mapping[str, Any]) -> str:
    """The URL of a LangChain v1 media block: its own, or a data URL of its base64. "" where it has neither."""
    data = block.get("base64")
    if isinstance(data, str) and data:
        return f"data:{block.get('mime_type') or 'application/octet-stream'};base64,{data}"
    source = block.get("image_url")
    url = block.get("url") or (source.get("url") if isinstance(source, Mapping) else source)
    return str(url or "")


def annotation(block: Mapping[str, Any], text_length: int) -> dict[str, Any] | None:
    """A citation in the wire's shape, or None where the wire has none for it (a citation without an address)."""
    if block.get("type") == "citation" and isinstance(block.get("url"), str):
        start, end = block.get("start_index"), block.get("end_index")
        return {
            "type": "url_citation",
            "url": block["url"],
            "title": str(block.get("title") or block["url"]),
            "start_index": start if isinstance(start, int) else text_length,
            "end_index": end if isinstance(end, int) else text_length,
        }
    value = block.get("value")
    if isinstance(value, Mapping) and value.get("type") == "file_citation" and value.get("file_id"):
        found = {"type": "file_citation", "file_id": str(value["file_id"])}
        return {**found, "filename": str(value.get("filename") or ""), "index": int(value.get("index") or 0)}
    return None


def usage(counted: Usage | None) -> dict[str, Any]:
    """The usage object; never null on a terminal response."""
    counted = counted or Usage()
    return {
        "input_tokens": counted.input_tokens,
        "input_tokens_details": {
            "cached_tokens": counted.cached_tokens,
            "cache_write_tokens": counted.cache_write_tokens,
        },
        "output_tokens": counted.output_tokens,
        "output_tokens_details": {"reasoning_tokens": counted.reasoning_tokens},
        "total_tokens": counted.total_tokens or counted.input_tokens + counted.output_tokens,
    }
