"""The part of a create request that says how the model should answer -> `ModelOptions`.

OpenAI API reference, "Create a model response"; Chat Completions' nested forms of tools, tool choice and JSON
schema are accepted beside the flat ones, as Databricks' clients send them.
"""

from __future__ import annotations

import re
from collections.abc import Collection, Mapping
from typing import Any

from agent_server.context import ModelOptions
from agent_server.errors import RequestError, UnsupportedError
from agent_server.protocols.responses.fields import Fields, invalid, missing, not_among

_NAME = re.compile(r"[a-zA-Z0-9_-]{1,64}")
_HOW_NAMES_LOOK = "it must be 1 to 64 letters, digits, underscores or dashes"

_TOOL_MODES = ("none", "auto", "required")
_VERBOSITIES = ("low", "medium", "high")
_FORMATS = ("text", "json_schema", "json_object")
_SUMMARIES = ("auto", "concise", "detailed")
_REASONING = {
    "effort": ("none", "minimal", "low", "medium", "high", "xhigh", "max"),
    "summary": _SUMMARIES,
    "generate_summary": _SUMMARIES,
    "context": ("auto", "current_turn", "all_turns"),
    "mode": ("standard", "pro"),
}
_OTHER_TOOLS = frozenset(
    {
        "apply_patch",
        "code_interpreter",
        "computer",
        "computer_use",
        "computer_use_preview",
        "custom",
        "file_search",
        "image_generation",
        "local_shell",
        "mcp",
        "namespace",
        "programmatic_tool_calling",
        "shell",
        "tool_search",
        "web_search",
        "web_search_2025_08_26",
        "web_search_preview",
        "web_search_preview_2025_03_11",
    }
)


def read_options(body: Fields) -> ModelOptions:
    """The model options of a request.

    Raises `RequestError` naming the parameter, and `UnsupportedError` for tools other than functions.
    """
    tools = _read_tools(body)
    names = frozenset(tool["name"] for tool in tools)
    text = body.child("text") or Fields({}, "text")
    return ModelOptions(
        instructions=body.text("instructions"),
        tools=tools,
        tool_choice=_read_tool_choice(body, names),
        parallel_tool_calls=body.flag("parallel_tool_calls"),
        response_format=_read_format(text),
        max_output_tokens=body.integer("max_output_tokens", 1),
        max_tool_calls=body.integer("max_tool_calls", 1),
        temperature=body.number("temperature", 0, 2),
        top_p=body.number("top_p", 0, 1),
        top_logprobs=body.integer("top_logprobs", 0, 20),
        reasoning=_read_reasoning(body),
        verbosity=text.choice("verbosity", _VERBOSITIES),
    )


def check_tools(options: ModelOptions, server_tools: Collection[str]) -> None:
    """Refuse a client's tool that has the name of one of the agent's own."""
    for place, tool in enumerate(options.tools):
        if tool["name"] in server_tools:
            message = f"The agent has a tool of its own named {tool['name']!r}; give yours another name."
            raise RequestError(message, param=f"tools[{place}].name", code="duplicate_tool")


def _read_tools(body: Fields) -> tuple[Mapping[str, Any], ...]:
    tools: dict[str, Mapping[str, Any]] = {}
    for declared in body.children("tools"):
        kind = declared.required_text("type")
        _check_function(declared, kind)
        tool = _flat(declared, kind)
        name = tool.required_text("name")
        _check_name(name, tool.at("name"))
        if name in tools:
            raise invalid(tool.at("name"), f"two tools are named '{name}'", code="duplicate_tool")
        parameters = tool.child("parameters")
        tools[name] = {
            "name": name,
            "description": tool.text("description"),
            "parameters": parameters and parameters.values(),
            "strict": tool.flag("strict"),
        }
    return tuple(tools.values())


def _read_tool_choice(body: Fields, names: Collection[str]) -> str | Mapping[str, Any] | None:
    value = body.get("tool_choice")
    if value is None or isinstance(value, str):
        return body.choice("tool_choice", _TOOL_MODES)
    choice = body.required_child("tool_choice")
    kind = choice.required_text("type")
    if kind != "allowed_tools":
        return _read_function_choice(choice, names)
    choice = _flat(choice, kind)
    tools = [_read_function_choice(tool, names) for tool in choice.children("tools")]
    if not tools:
        raise missing(choice.at("tools"))
    return {"type": kind, "mode": choice.choice("mode", _TOOL_MODES) or "auto", "tools": tools}


def _read_function_choice(choice: Fields, names: Collection[str]) -> Mapping[str, Any]:
    """`{"type": "function", "name"}`, whose tool the request must declare."""
    kind = choice.required_text("type")
    _check_function(choice, kind)
    function = _flat(choice, kind)
    name = function.required_text("name")
    if name not in names:
        raise invalid(function.at("name"), f"'tools' declares no function '{name[:64]}'")
    return {"type": kind, "name": name}


def _read_format(text: Fields) -> Mapping[str, Any] | None:
    """The `text.format` object, flat; None for plain text."""
    declared = text.child("format")
    if declared is None:
        return None
    kind = declared.required_choice("type", _FORMATS)
    if kind == "text":
        return None
    if kind == "json_object":
        return {"type": kind}
    wanted = _flat(declared, kind)
    name = wanted.required_text("name")
    _check_name(name, wanted.at("name"))
    described = {"description": about} if (about := wanted.text("description")) else {}
    schema = wanted.required_child("schema").values()
    return {
        "type": kind,
        "name": name,
        **described,
        "schema": schema,
        "strict": wanted.flag("strict") or False,
    }


def _read_reasoning(body: Fields) -> Mapping[str, Any] | None:
    reasoning = body.child("reasoning")
    if reasoning is None:
        return None
    return {key: word for key, words in _REASONING.items() if (word := reasoning.choice(key, words))} or None


def _check_function(declared: Fields, kind: str) -> None:
    if kind in _OTHER_TOOLS:
        message = f"Tools of type '{kind}' are not served; declare a function instead."
        raise UnsupportedError(message, param=declared.at("type"), code="unsupported_tool")
    if kind != "function":
        raise not_among(declared.at("type"), kind, ("function",))


def _check_name(name: str, path: str) -> None:
    if not _NAME.fullmatch(name):
        raise invalid(path, _HOW_NAMES_LOOK)


def _flat(declared: Fields, key: str) -> Fields:
    """The fields of a definition, which Chat Completions nests under the name of its type."""
    return declared.child(key) or declared
