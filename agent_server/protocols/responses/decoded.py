"""Fields of foreign stream events and output items, read into plain values."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import Any

import orjson

from agent_server.events import IncompleteReason, Interrupt, Usage
from agent_server.graph.jsonable import to_jsonable, to_text
from agent_server.protocols.responses.composer import CLIENT_CALLS

Data = Mapping[str, Any]

_REASONS: dict[str, IncompleteReason] = {"content_filter": "content_filter", "max_messages": "recursion_limit"}
_ABOUT = frozenset({"id", "type", "status", "call_id", "output", "outputs", "results", "result"})
_FAILED = frozenset({"failed", "incomplete"})


class BrokenStreamError(Exception):
    """A stream that is no stream of Responses events, or that says itself that its agent failed.

    `status_code` is 429 where it says that the agent's provider is overrun.
    """

    def __init__(self, message: str, code: str = "") -> None:
        super().__init__(message)
        self.status_code = 429 if code == "rate_limit_exceeded" else None


def text(data: Data, key: str, default: str | None = None) -> str:
    """A text; where it is absent the default, if there is one."""
    value = data.get(key)
    if value is None and default is not None:
        return default
    if not isinstance(value, str):
        raise BrokenStreamError(f"{key!r} is no text: {to_jsonable(value)!r:.500}")
    return value


def integer(data: Data, key: str) -> int:
    """An index; 0 where it is absent."""
    value = data.get(key)
    return value if isinstance(value, int) else 0


def mapping(value: Any, what: str) -> Data:
    """An object."""
    if not isinstance(value, Mapping):
        raise BrokenStreamError(f"{what!r} is no object: {to_jsonable(value)!r:.500}")
    return value


def mappings(value: Any, what: str) -> list[Data]:
    """A list of objects; empty where it is absent."""
    if value is None:
        return []
    if not isinstance(value, list | tuple):
        raise BrokenStreamError(f"{what!r} is no list: {to_jsonable(value)!r:.500}")
    return [mapping(each, what) for each in value]


def content(item: Data) -> list[Data]:
    """The parts of a message; content that is plain text is one part."""
    value = item.get("content")
    return [{"type": "output_text", "text": value}] if isinstance(value, str) else mappings(value, "content")


def said(part: Data) -> str:
    """The text of a content part, refusals included."""
    return text(part, "refusal" if part.get("type") == "refusal" else "text", "")


def thoughts(item: Data, told: str) -> list[str]:
    """The paragraphs of a reasoning item: its summary, or the raw text where that was streamed or stands alone."""
    summary = [said(part) for part in mappings(item.get("summary"), "summary")]
    raw = [said(part) for part in mappings(item.get("content"), "content")]
    return raw if raw and (not "".join(summary) or (told and "".join(raw).startswith(told))) else summary


def arguments(item: Data) -> str:
    """The arguments of a call as JSON text."""
    if item["type"] == "custom_tool_call":  # the name that langchain-openai gives to its one argument
        return to_text({"__arg1": text(item, "input", "")})
    if item["type"] in CLIENT_CALLS:
        return to_text(_rest(item))
    value = item.get("arguments")
    return "" if value is None else to_text(value)


def parsed(json: str) -> Any:
    """JSON text as a value, or the text itself where it is none."""
    try:
        return orjson.loads(json)
    except orjson.JSONDecodeError:
        return json


def tool_output(item: Data) -> str | list[dict[str, Any]]:
    """What a tool put out: text, or LangChain v1 content blocks."""
    value = item.get("output")
    if not isinstance(value, list):
        return "" if value is None else to_text(value)
    blocks = [_block(part) if isinstance(part, Mapping) else {"type": "text", "text": to_text(part)} for part in value]
    return to_jsonable(blocks)  # type: ignore[no-any-return]


def _block(part: Data) -> dict[str, Any]:
    kind = str(part.get("type", "")).removeprefix("input_").removeprefix("output_")
    url = part.get("image_url") or part.get("file_url") or part.get("file_data")
    if kind in ("image", "file") and isinstance(url, str):
        name = {"filename": part["filename"]} if part.get("filename") else {}
        head, comma, data = url.partition(";base64,")
        if comma and head.startswith("data:"):
            return {"type": kind, "base64": data, "mime_type": head.removeprefix("data:"), **name}
        return {"type": kind, "url": url, **name}
    return {"type": "text", "text": part["text"] if isinstance(part.get("text"), str) else to_text(dict(part))}


def failed(item: Data) -> bool:
    """Whether a tool's item says that it failed."""
    return item.get("status") in _FAILED or item.get("error") is not None


def mcp_output(item: Data) -> str | None:
    """What an `mcp_call` put out or failed with; None where it has not ended."""
    error = item.get("error")
    if error is None:
        return None if item.get("output") is None else to_text(item["output"])
    if isinstance(error, Mapping):
        blocks = error.get("content")
        if isinstance(blocks, list):
            return "\n".join(text(mapping(block, "content"), "text", "") for block in blocks)
        error = error.get("message") or error
    return to_text(error)


def hosted_input(item: Data) -> dict[str, Any]:
    """What a built-in tool, such as `web_search_call`, was asked."""
    return _rest(item)


def hosted_output(item: Data) -> str:
    """What a built-in tool found, as far as its item tells."""
    found = next((item[key] for key in ("output", "outputs", "results", "result") if item.get(key) is not None), "")
    return to_text(found)


def _rest(item: Data) -> dict[str, Any]:
    return {key: to_jsonable(value) for key, value in item.items() if key not in _ABOUT and value is not None}


def approval(item: Data) -> Interrupt:
    """An `mcp_approval_request` in the form that LangChain's human-in-the-loop middleware gives its questions."""
    name = text(item, "name")
    request = {"name": name, "args": parsed(text(item, "arguments", "{}"))}
    review = {"action_name": name, "allowed_decisions": ["approve", "reject"]}
    value = {"action_requests": [request], "review_configs": [review]}
    return Interrupt(text(item, "id", ""), value, "approval")


def usage(response: Data) -> Usage | None:
    """The usage of a response, if it tells any."""
    counted = response.get("usage")
    if not isinstance(counted, Mapping):
        return None
    given, made = counted.get("input_tokens_details") or {}, counted.get("output_tokens_details") or {}
    return Usage(
        input_tokens=integer(counted, "input_tokens"),
        output_tokens=integer(counted, "output_tokens"),
        total_tokens=integer(counted, "total_tokens"),
        cached_tokens=integer(given, "cached_tokens"),
        cache_write_tokens=integer(given, "cache_write_tokens"),
        reasoning_tokens=integer(made, "reasoning_tokens"),
    )


def incomplete_reason(response: Data) -> IncompleteReason:
    """Why a response is incomplete; for a reason of somebody's own, the commonest."""
    details = response.get("incomplete_details")
    reason = details.get("reason") if isinstance(details, Mapping) else None
    return _REASONS.get(str(reason), "max_output_tokens")


def failure(event: Data) -> BrokenStreamError:
    """What an `error` event, or the response of `response.failed`, says. For the log."""
    error = event.get("error") or event
    code = error.get("code") if isinstance(error, Mapping) else ""
    return BrokenStreamError(f"the stream ended with: {to_jsonable(error)!r:.2000}", str(code))


def gist(item: Data) -> str:
    """What tells an item from others of its type: the text of a message or of reasoning, the id of a call."""
    if item.get("type") == "message":
        return "".join(map(said, content(item)))
    if item.get("type") == "reasoning":
        return "".join(thoughts(item, ""))
    return text(item, "call_id", "") or text(item, "id", "")


def untold(parts: Iterable[Data | str], told: str) -> list[str]:
    """What of each part is not in the text told so far, part by part; nothing where it is another text."""
    whole = [part if isinstance(part, str) else said(part) for part in parts]
    if not "".join(whole).startswith(told):
        return ["" for _ in whole]
    rest, left = [], len(told)
    for part in whole:
        rest.append(part[left:])
        left = max(0, left - len(part))
    return rest
