"""The part of a create request that says how the model should answer -> `ModelOptions`.

OpenAI API reference, "Create a model response"; Chat Completions' nested forms of tools, tool choice and JSON
schema are accepted beside the flat ones, as Databricks' clients send them.
"""

from __future__ import annotations

import re
from collections.abc import Collection, Mapping, Sequence
from typing import Any

from agent_server.context import ModelOptions
from agent_server.errors import RequestError, UnsupportedError
from agent_server.graph.agent import Agent
from agent_server.protocols.responses.fields import Fields, invalid, missing, not_among, wrong_type

_NAME = re.compile(r"[a-zA-Z0-9_-]{1,64}")
_HOW_NAMES_LOOK = "it must be 1 to 64 letters, digits, underscores or dashes"

_FUNCTION = ("name", "description", "parameters", "strict")
_APPROVALS = ("always", "never")
_TOOL_MODES = ("none", "auto", "required")
_VERBOSITIES = ("low", "medium", "high")
_TRUNCATIONS = ("auto", "disabled")
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

    Raises `RequestError` naming the parameter, and `UnsupportedError` for tools of other kinds than these.
    """
    declared = declared_tools(body)
    tools = tuple({key: tool[key] for key in _FUNCTION} for tool in declared if tool["type"] == "function")
    names = frozenset(tool["name"] for tool in tools)
    references = [tool for tool in declared if tool["type"] == "mcp"]
    text = body.child("text") or Fields({}, "text")
    return ModelOptions(
        instructions=body.text("instructions"),
        tools=tools,
        server_tools=_server_tools(references),
        tool_choice=_read_tool_choice(body, names, {tool["server_label"] for tool in references}),
        parallel_tool_calls=body.flag("parallel_tool_calls"),
        response_format=_read_format(text),
        max_output_tokens=body.integer("max_output_tokens", 1),
        max_tool_calls=body.integer("max_tool_calls", 1),
        temperature=body.number("temperature", 0, 2),
        top_p=body.number("top_p", 0, 1),
        top_logprobs=body.integer("top_logprobs", 0, 20),
        reasoning=_read_reasoning(body),
        verbosity=text.choice("verbosity", _VERBOSITIES),
        truncation="auto" if body.choice("truncation", _TRUNCATIONS) == "auto" else None,
    )


def check_tools(declared: Sequence[Mapping[str, Any]], agent: Agent) -> None:
    """Refuse a client's tool that has the name of one of the agent's own, and references to what it does not have."""
    for place, tool in enumerate(declared):
        path = f"tools[{place}]"
        if tool["type"] == "mcp":
            _check_reference(tool, path, agent)
        elif tool["name"] in agent.tool_names:
            message = f"The agent has a tool of its own named {tool['name']!r}; give yours another name."
            raise RequestError(message, param=f"{path}.name", code="duplicate_tool")


def check_choice(options: ModelOptions, agent: Agent) -> None:
    """Refuse the choice of a tool that the agent does not have, or that the request leaves out."""
    choice = options.tool_choice
    if not isinstance(choice, Mapping):
        return
    places = {f"tool_choice.tools[{place}]": tool for place, tool in enumerate(choice.get("tools", ()))}
    for path, tool in (places or {"tool_choice": choice}).items():
        if tool["type"] != "mcp":
            continue
        if tool["name"] not in agent.tool_names:
            raise invalid(f"{path}.name", f"the agent has no tool '{tool['name'][:64]}'")
        if options.server_tools is not None and tool["name"] not in options.server_tools:
            raise invalid(f"{path}.name", f"'tools' does not allow '{tool['name'][:64]}'")


def _check_reference(tool: Mapping[str, Any], path: str, agent: Agent) -> None:
    """The tools of the agent are there anyhow. A reference may leave some out, where the agent heeds that, and may
    ask for approvals where the agent does."""
    label, allowed, approval = tool["server_label"], tool.get("allowed_tools"), tool.get("require_approval")
    if label != agent.name:
        message = f"There are no tools labelled '{label[:64]}': the agent's own have its name, {agent.name!r}."
        raise UnsupportedError(message, param=f"{path}.server_label", code="unsupported_tool")
    if allowed is not None:
        unknown = [name for name in allowed if name not in agent.tool_names]
        if unknown:
            raise invalid(f"{path}.allowed_tools", f"the agent has no tool '{unknown[0][:64]}'")
        if not agent.takes_options and not agent.tool_names <= set(allowed):
            message = f"The agent {agent.name!r} cannot leave tools out; it lacks the RequestOptions middleware."
            raise UnsupportedError(message, param=f"{path}.allowed_tools")
    wants_approvals = approval == "always" or (isinstance(approval, Mapping) and bool(approval.get("always")))
    if wants_approvals and not agent.asks:
        message = f"The agent {agent.name!r} asks for no approvals."
        raise UnsupportedError(message, param=f"{path}.require_approval")


def declared_tools(body: Fields) -> list[dict[str, Any]]:
    """The tools of a request, as the response repeats them: functions, and references to the agent's own tools, which
    the API knows as those of an MCP server."""
    tools: list[dict[str, Any]] = []
    names: set[str] = set()
    for declared in body.children("tools"):
        kind = declared.required_text("type")
        if kind == "mcp":
            tools.append(_read_reference(declared))
            continue
        _check_function(declared, kind)
        tool = _flat(declared, kind)
        name = tool.required_text("name")
        _check_name(name, tool.at("name"))
        if name in names:
            raise invalid(tool.at("name"), f"two tools are named '{name}'", code="duplicate_tool")
        parameters = tool.child("parameters")
        names.add(name)
        tools.append(
            {
                "type": "function",
                "name": name,
                "description": tool.text("description"),
                "parameters": parameters and parameters.values(),
                "strict": tool.flag("strict"),
            }
        )
    return tools


def _read_reference(declared: Fields) -> dict[str, Any]:
    """`{"type": "mcp", "server_label"}`. No address in it is ever called, and no secret repeated."""
    tool: dict[str, Any] = {"type": "mcp", "server_label": declared.required_text("server_label")}
    if declared.get("allowed_tools") is not None:
        tool["allowed_tools"] = _tool_names(declared, "allowed_tools")
    approval = declared.get("require_approval")
    if isinstance(approval, dict):
        rules = declared.required_child("require_approval")
        named = {key: _tool_names(rules, key) for key in _APPROVALS if rules.get(key) is not None}
        tool["require_approval"] = {key: {"tool_names": names} for key, names in named.items()}
    elif approval is not None:
        tool["require_approval"] = declared.choice("require_approval", _APPROVALS)
    return tool


def _tool_names(owner: Fields, key: str) -> list[str]:
    """Names, as a list or in a filter."""
    if isinstance(owner.get(key), dict):
        owner = owner.required_child(key)
        if owner.get("read_only") is not None:
            raise UnsupportedError("Tools do not tell whether they only read.", param=owner.at("read_only"))
        key = "tool_names"
    names = owner.array(key)
    for place, name in enumerate(names):
        if not isinstance(name, str):
            raise wrong_type(f"{owner.at(key)}[{place}]", "a string", name)
    return list(names)


def _server_tools(references: Sequence[Mapping[str, Any]]) -> tuple[str, ...] | None:
    if not references or any("allowed_tools" not in each for each in references):
        return None
    return tuple(sorted({name for each in references for name in each["allowed_tools"]}))


def _read_tool_choice(body: Fields, names: Collection[str], labels: Collection[str]) -> str | Mapping[str, Any] | None:
    value = body.get("tool_choice")
    if value is None or isinstance(value, str):
        return body.choice("tool_choice", _TOOL_MODES)
    choice = body.required_child("tool_choice")
    kind = choice.required_text("type")
    if kind != "allowed_tools":
        return _read_one_choice(choice, names, labels)
    choice = _flat(choice, kind)
    tools = [_read_one_choice(tool, names, labels) for tool in choice.children("tools")]
    if not tools:
        raise missing(choice.at("tools"))
    return {"type": kind, "mode": choice.choice("mode", _TOOL_MODES) or "auto", "tools": tools}


def _read_one_choice(choice: Fields, names: Collection[str], labels: Collection[str]) -> Mapping[str, Any]:
    """`{"type": "function", "name"}` or `{"type": "mcp", "server_label", "name"}`, which the request must declare."""
    kind = choice.required_text("type")
    if kind == "mcp":
        label = choice.required_text("server_label")
        if label not in labels:
            raise invalid(choice.at("server_label"), f"'tools' declares no MCP server '{label[:64]}'")
        return {"type": kind, "server_label": label, "name": choice.required_text("name")}
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
