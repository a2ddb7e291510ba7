"""`input` of the Responses API -> turns: a string, or every item that this server itself puts out.

Items: OpenAI API reference, "Create a model response", `input`. History may lack ids and statuses, and
messages their type, as Open Responses and MLflow allow.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Iterable, Iterator
from typing import Any, Literal

import msgspec

from agent_server import framing
from agent_server.errors import RequestError, UnsupportedError
from agent_server.graph.inputs import (
    Answer,
    Call,
    Media,
    Message,
    Reasoning,
    Role,
    Text,
    ToolOutput,
    Turn,
    pair_calls,
)
from agent_server.http.body import MAX_CONTAINERS, parse_json
from agent_server.protocols.responses.fields import Fields, invalid, missing, not_among, too_long, wrong_type
from agent_server.protocols.responses.parts import checked_base64, read_parts

MAX_ITEMS = 10_000
"""Items of one request. Each becomes a message of the graph's state, whose cost grows with their number."""

_ROLES: tuple[Role | Literal["assistant"], ...] = ("assistant", "system", "developer", "user")
_NOT_COMPLETE = frozenset({"in_progress", "calling", "incomplete"})
_FAILED = frozenset({"failed", "incomplete"})
_NOTHING_NEW = "'input' holds nothing to answer; at least one item is needed."


def read_turns(items: list[Any], param: str = "input") -> tuple[Turn, ...]:
    """The turns of items, which are those of `param`; calls need not be paired. Raises as `read_input` does."""
    return _read_items(Fields({param: items}).children(param))


def read_input(body: Fields, *, goes_on: bool = False) -> tuple[Turn, ...]:
    """The turns of a request, each call paired with its output, unless the request `goes_on` from another: then it
    may be empty, and answer calls that were made before.

    Raises `RequestError` naming the path, such as `input[3].content[0].type`, and `UnsupportedError` for
    items that need what this server does not have.
    """
    value = body.required("input")
    if isinstance(value, str):
        turns: tuple[Turn, ...] = (Message("user", (Text(value),)),) if value else ()
    elif isinstance(value, list):
        if len(value) > MAX_ITEMS:
            raise too_long("input", f"at most {MAX_ITEMS} items", len(value), "array")
        items = body.children("input")
        _check_size(items)
        turns = _read_items(items)
    else:
        raise wrong_type("input", "a string or an array of items", value)
    if goes_on:
        return turns
    if not turns:
        raise RequestError(_NOTHING_NEW, param="input", code="empty_array")
    pair_calls(turns)
    return turns


def _read_items(items: Iterable[Fields]) -> tuple[Turn, ...]:
    turns: list[Turn] = []
    for item in items:
        turns += _read_item(item)
        if item.get("type") == "mcp_approval_request":
            _hold_back(turns, item.get("name"))
    return tuple(turns)


def _hold_back(turns: list[Turn], name: Any) -> None:
    """A call that was to be approved first never ran by itself: once it is approved, it is told again."""
    waiting: dict[str, int] = {}
    for place, turn in enumerate(turns):
        if isinstance(turn, Call):
            waiting[turn.id] = place
        elif isinstance(turn, ToolOutput):
            waiting.pop(turn.call_id, None)
    for place in waiting.values():
        call = turns[place]
        if isinstance(call, Call) and call.complete and call.name == name:
            turns[place] = msgspec.structs.replace(call, complete=False)
            return


def _check_size(items: list[Fields]) -> None:
    """JSON inside the JSON counts, too: all arguments together are held to the limit of one body."""
    arguments = [text for item in items if isinstance(text := item.get("arguments"), str)]
    if sum(text.count("{") + text.count("[") for text in arguments) > MAX_CONTAINERS:
        raise invalid("input", f"arguments hold more than {MAX_CONTAINERS} objects and arrays")


def _read_item(item: Fields) -> Iterator[Turn]:
    kind = item.text("type") or _untyped(item)
    if kind in _UNSERVED:
        raise UnsupportedError(f"{kind} {_UNSERVED[kind]}", param=item.at("type"))
    if kind not in _READERS:
        raise not_among(item.at("type"), kind, _READERS)
    return _READERS[kind](item)


def _untyped(item: Fields) -> str:
    if item.get("role") is not None:
        return "message"
    if item.get("id") is not None and item.get("content") is None:
        return "item_reference"
    raise missing(item.at("type"))


def _message(item: Fields) -> Iterator[Turn]:
    role = item.required_choice("role", _ROLES)
    parts, refusal = read_parts(item, "content", answer=role == "assistant")
    if role == "assistant":
        if refusal or any(not isinstance(part, Text) or part.text for part in parts):
            yield Answer(parts, refusal, item.text("id"))
    elif not parts:
        raise invalid(item.at("content"), "it must not be empty", code="empty_array")
    else:
        yield Message(role, parts, item.text("id"))


def _function_call(item: Fields) -> Iterator[Turn]:
    yield _call(item, item.required_text("call_id"))


def _call(item: Fields, call_id: str) -> Call:
    args = _arguments(item)
    ran = item.text("status") not in _NOT_COMPLETE and not isinstance(args, str)
    return Call(call_id, item.required_text("name"), args, complete=ran)


def _arguments(item: Fields) -> dict[str, Any] | str:
    """The arguments of a call, or the text that stands for them: models write other things than objects."""
    text = item.required_text("arguments", empty=True) or "{}"
    try:
        value = parse_json(text)
    except RequestError:
        return text
    return value if isinstance(value, dict) else text


def _custom_tool_call(item: Fields) -> Iterator[Turn]:
    text = item.required_text("input", empty=True)
    # The name that langchain-openai gives to the one argument of a custom tool.
    yield Call(item.required_text("call_id"), item.required_text("name"), {"__arg1": text})


def _tool_output(item: Fields) -> Iterator[Turn]:
    parts, _ = read_parts(item, "output", answer=False)
    yield ToolOutput(item.required_text("call_id"), parts, failed=item.text("status") in _FAILED)


def _mcp_call(item: Fields) -> Iterator[Turn]:
    """A call that ran on a server: call and output in one item. Its id is that of the call."""
    call_id = item.text("id") or "mcp_" + re.sub(r"\D", "", item.path)
    yield _call(item, call_id)
    error = item.get("error")
    if error is not None:
        yield ToolOutput(call_id, (Text(_error_text(error)),), failed=True)
    elif item.get("output") is not None:
        parts, _ = read_parts(item, "output", answer=False)
        yield ToolOutput(call_id, parts, failed=item.text("status") in _FAILED)


def _error_text(error: Any) -> str:
    """The error of an `mcp_call`: a text, or an object with a message or with MCP content blocks."""
    if isinstance(error, dict):
        error = error.get("message") or error.get("content") or error
    if isinstance(error, list) and all(isinstance(block, dict) and "text" in block for block in error):
        error = "\n".join(str(block["text"]) for block in error)
    return error if isinstance(error, str) else framing.to_json(error).decode()


def _reasoning(item: Fields) -> Iterator[Turn]:
    """The raw reasoning where it was kept, else its summary."""
    raw = [part.required_text("text", empty=True) for part in item.children("content")]
    summary = [part.required_text("text", empty=True) for part in item.children("summary")]
    text = "\n\n".join(raw or summary)
    encrypted, item_id = item.text("encrypted_content"), item.text("id")
    if text or encrypted:
        yield Reasoning(text, encrypted, item_id)


def _image_generation_call(item: Fields) -> Iterator[Turn]:
    data = checked_base64(item.required_text("result"), item.at("result"))
    yield Answer((Media("image", base64=data, mime_type="image/png", id=item.text("id")),))


def _nothing(item: Fields) -> Iterator[Turn]:
    yield from ()


_READERS: dict[str, Callable[[Fields], Iterator[Turn]]] = {
    "message": _message,
    "function_call": _function_call,
    "function_call_output": _tool_output,
    "custom_tool_call": _custom_tool_call,
    "custom_tool_call_output": _tool_output,
    "mcp_call": _mcp_call,
    "mcp_list_tools": _nothing,
    "mcp_approval_request": _nothing,
    "reasoning": _reasoning,
    "image_generation_call": _image_generation_call,
}

_NOT_STORED = "needs stored responses, which this server does not keep yet."
_HOSTED = "belongs to a hosted tool, which this server does not have."
_UNSERVED = {
    "item_reference": _NOT_STORED,
    "mcp_approval_response": _NOT_STORED,
    "compaction": "items cannot be read by this server.",
    "compaction_trigger": "needs compaction within a response, which this server does not do.",
    "additional_tools": "is not served; declare tools in 'tools'.",
    "configuration_update": "is not served; set options in the request.",
    **dict.fromkeys(
        (
            "apply_patch_call",
            "apply_patch_call_output",
            "code_interpreter_call",
            "computer_call",
            "computer_call_output",
            "file_search_call",
            "local_shell_call",
            "local_shell_call_output",
            "program",
            "program_output",
            "shell_call",
            "shell_call_output",
            "tool_search_call",
            "tool_search_output",
            "web_search_call",
        ),
        _HOSTED,
    ),
}
