"""A request's wishes, applied to the model calls of a `create_agent` agent.

    agent = create_agent(model, tools, middleware=[RequestOptions()])

Instructions, client tools, tool choice, structured output and sampling settings of a request reach the model
in the run that the request started, and nothing of them reaches the graph's state. A request without options
costs one look-up per model call.

A call to a tool of the client stops the run with an interrupt,
`{"type": "client_tool_call", "tool_call_id", "name", "args"}`, when the server's own tools of the same turn
have run. Without a checkpointer the run ends there, its interrupts in the output, and the client sends the
whole conversation back. With one, `Command(resume={interrupt id: output})` continues it.
"""

from __future__ import annotations

import json
from collections.abc import Awaitable, Callable, Mapping
from functools import lru_cache
from inspect import signature
from typing import Annotated, Any, NotRequired

from langchain.agents.middleware import AgentMiddleware, AgentState, ModelRequest, ModelResponse
from langchain.agents.middleware.types import ExtendedModelResponse, PrivateStateAttr
from langchain_core.messages import AIMessage, SystemMessage, ToolMessage
from langchain_core.messages.utils import count_tokens_approximately
from langchain_core.runnables.config import var_child_runnable_config
from langgraph.channels import UntrackedValue
from langgraph.prebuilt.tool_node import ToolCallRequest
from langgraph.types import Command, interrupt

from agent_server.context import ModelOptions, RequestContext
from agent_server.graph.agent import OPTIONS_CHANNEL
from agent_server.graph.interrupts import CLIENT_TOOL
from agent_server.graph.tokens import newest_turns

ROOM = 0.9
"""Share of a model's window that a conversation may fill: its tokens are an estimate."""

_NO_OPTIONS = ModelOptions()

ModelHandler = Callable[[ModelRequest[Any]], ModelResponse[Any]]
AsyncModelHandler = Callable[[ModelRequest[Any]], Awaitable[ModelResponse[Any]]]
ToolResult = ToolMessage | Command[Any]


class RequestOptionsState(AgentState[Any]):
    """`request_options` counts the server's tool calls that the model asked for in this run.

    It is private and never checkpointed, and unset until a request has need of it. That the channel exists
    tells the server that the agent takes options.
    """

    request_options: NotRequired[Annotated[int, UntrackedValue, PrivateStateAttr]]


class RequestOptions(AgentMiddleware[RequestOptionsState, Any, Any]):
    """Applies the `ModelOptions` of `config["configurable"]["request"]` to every model call of the run."""

    state_schema = RequestOptionsState

    def wrap_model_call(
        self, request: ModelRequest[Any], handler: ModelHandler
    ) -> ModelResponse[Any] | ExtendedModelResponse[Any]:
        options = current_options()
        if options is None:
            return handler(request)
        return _counted(request, options, handler(applied(request, options)))

    async def awrap_model_call(
        self, request: ModelRequest[Any], handler: AsyncModelHandler
    ) -> ModelResponse[Any] | ExtendedModelResponse[Any]:
        options = current_options()
        if options is None:
            return await handler(request)
        return _counted(request, options, await handler(applied(request, options)))

    def wrap_tool_call(self, request: ToolCallRequest, handler: Callable[[ToolCallRequest], ToolResult]) -> ToolResult:
        options = current_options()
        answer = None if options is None else _answer(request, options)
        return handler(request) if answer is None else answer

    async def awrap_tool_call(
        self, request: ToolCallRequest, handler: Callable[[ToolCallRequest], Awaitable[ToolResult]]
    ) -> ToolResult:
        options = current_options()
        answer = None if options is None else _answer(request, options)
        return await handler(request) if answer is None else answer


def current_options() -> ModelOptions | None:
    """The options of the request behind the current run; None if there are none."""
    config = var_child_runnable_config.get()
    request = config and config.get("configurable", {}).get("request")
    if not isinstance(request, RequestContext) or request.options == _NO_OPTIONS:
        return None
    return request.options


def applied(request: ModelRequest[Any], options: ModelOptions) -> ModelRequest[Any]:
    """The model call as the client wants it."""
    tools, choice = _tools(request, options)
    changes: dict[str, Any] = {"tools": tools, "tool_choice": choice}
    settings = _settings(options)
    if options.parallel_tool_calls is not None and tools:
        settings["parallel_tool_calls"] = options.parallel_tool_calls
    known = _known_settings(type(request.model))
    if known is not None:
        settings = {name: value for name, value in settings.items() if name in known}
    if options.response_format is not None:
        changes["response_format"] = None
        settings["response_format"] = _response_format(options.response_format, bool(tools))
    if settings:
        changes["model_settings"] = {**request.model_settings, **settings}
    if options.instructions:
        changes["system_message"] = _instructed(request.system_message, options.instructions)
    wanted = request.override(**changes)
    return _fitted(wanted) if options.truncation == "auto" else wanted


def _fitted(request: ModelRequest[Any]) -> ModelRequest[Any]:
    """The model call without the oldest turns, if the model's profile tells its window and they do not fit in."""
    window = (request.model.profile or {}).get("max_input_tokens")
    if not window:
        return request
    system = [request.system_message] if request.system_message else []
    fixed = count_tokens_approximately(system, tools=request.tools or None)
    return request.override(messages=newest_turns(request.messages, round(ROOM * window) - fixed))


def _instructed(system: SystemMessage | None, instructions: str) -> SystemMessage:
    """The agent's own system prompt first, then the client's instructions."""
    if system is None:
        return SystemMessage(content=instructions)
    own = system.content
    content = f"{own}\n\n{instructions}" if isinstance(own, str) else [*own, {"type": "text", "text": instructions}]
    return system.model_copy(update={"content": content})


# Tools


def _tools(request: ModelRequest[Any], options: ModelOptions) -> tuple[list[Any], Any]:
    """The tools the model may call now, and its tool choice in LangChain's words: None, "any" or a name.

    What the client rules out is not shown to the model at all. A call is forced once per run: after it the
    model must be able to answer.
    """
    asked = _asked(request.state)
    spent = options.max_tool_calls is not None and (asked or 0) >= options.max_tool_calls
    own = [] if spent else [tool for tool in request.tools if _may_run(_name(tool), options)]
    names = {_name(tool) for tool in request.tools}
    tools = [*own, *(_function(tool) for tool in options.tools if tool["name"] not in names)]
    if options.tool_choice is None:
        return tools, request.tool_choice
    forced = _forced(options.tool_choice) if asked is None else None
    allowed = _allowed(options.tool_choice)
    if forced not in (None, "any"):
        allowed = frozenset({forced})
    if allowed is not None:
        tools = [tool for tool in tools if _name(tool) in allowed]
    return tools, forced if tools else None


def _forced(choice: str | Mapping[str, Any]) -> str | None:
    """The call that the first turn must make: a tool's name, "any", or None."""
    if isinstance(choice, str):
        return "any" if choice == "required" else None
    if choice["type"] == "allowed_tools":
        return "any" if choice.get("mode") == "required" else None
    return str(choice["name"])


def _allowed(choice: str | Mapping[str, Any] | None) -> frozenset[str] | None:
    """The names of the only tools that may be called in the run; None for all of them."""
    if choice == "none":
        return frozenset()
    if isinstance(choice, Mapping) and choice["type"] == "allowed_tools":
        return frozenset(tool["name"] for tool in choice["tools"] if "name" in tool)
    return None


def _may_run(name: str, options: ModelOptions) -> bool:
    """Whether a tool of the agent's own may be called."""
    return options.server_tools is None or name in options.server_tools


def _function(tool: Mapping[str, Any]) -> dict[str, Any]:
    """A client's tool as every LangChain provider takes it: OpenAI's nested form."""
    function = {key: tool[key] for key in ("name", "description", "parameters", "strict") if tool.get(key) is not None}
    return {"type": "function", "function": {"parameters": {"type": "object", "properties": {}}, **function}}


def _name(tool: Any) -> str:
    if isinstance(tool, Mapping):
        return str(tool.get("name") or tool.get("function", {}).get("name") or tool.get("type"))
    return str(tool.name)


def _asked(state: Mapping[str, Any]) -> int | None:
    count: int | None = state.get(OPTIONS_CHANNEL)
    return count


def _counted(
    request: ModelRequest[Any], options: ModelOptions, response: ModelResponse[Any]
) -> ModelResponse[Any] | ExtendedModelResponse[Any]:
    """Notes the server's tool calls of this turn, if a later one depends on it."""
    if options.max_tool_calls is None and (options.tool_choice is None or _forced(options.tool_choice) is None):
        return response
    calls = [name for message in response.result for name in _server_calls(message, options)]
    count = (_asked(request.state) or 0) + len(calls)
    return ExtendedModelResponse(response, Command(update={OPTIONS_CHANNEL: count}))


def _server_calls(message: Any, options: ModelOptions) -> list[str]:
    """The ids of the calls in a message that are not for the client."""
    client = {tool["name"] for tool in options.tools}
    calls = message.tool_calls if isinstance(message, AIMessage) else []
    return [call["id"] or "" for call in calls if call["name"] not in client]


def _answer(request: ToolCallRequest, options: ModelOptions) -> ToolMessage | None:
    """What a call gets instead of being run here; None if it is to be run."""
    call = request.tool_call
    allowed = _allowed(options.tool_choice)
    is_refused = request.tool is not None and not _may_run(call["name"], options)
    if is_refused or (allowed is not None and call["name"] not in allowed):
        return _message(call, f"{call['name']} may not be called.", status="error")
    if request.tool is None and any(tool["name"] == call["name"] for tool in options.tools):
        output = interrupt(
            {"type": CLIENT_TOOL, "tool_call_id": call["id"], "name": call["name"], "args": call["args"]}
        )
        return output if isinstance(output, ToolMessage) else _message(call, output)
    if options.max_tool_calls is not None and _place(request, options) >= options.max_tool_calls:
        return _message(call, "Tool call limit reached. Answer without further tool calls.", status="error")
    return None


def _place(request: ToolCallRequest, options: ModelOptions) -> int:
    """How many server tool calls of the run come before this one."""
    last = next((each for each in reversed(request.state["messages"]) if isinstance(each, AIMessage)), None)
    calls = _server_calls(last, options)
    place = calls.index(request.tool_call["id"]) if request.tool_call["id"] in calls else 0
    return max((_asked(request.state) or 0) - len(calls), 0) + place


def _message(call: Mapping[str, Any], output: Any, **more: Any) -> ToolMessage:
    content = output if isinstance(output, str | list) else json.dumps(output, default=str)
    return ToolMessage(content=content, name=call["name"], tool_call_id=call["id"], **more)


# Settings


def _settings(options: ModelOptions) -> dict[str, Any]:
    """Only what was asked for, by the names that LangChain's models share."""
    wishes: dict[str, Any] = {
        "max_tokens": options.max_output_tokens,
        "temperature": options.temperature,
        "top_p": options.top_p,
        "top_logprobs": options.top_logprobs,
        "logprobs": True if options.top_logprobs is not None else None,
        "verbosity": options.verbosity,
    }
    reasoning = {key: value for key, value in (options.reasoning or {}).items() if value is not None}
    if reasoning.keys() == {"effort"}:
        wishes["reasoning_effort"] = reasoning["effort"]
    elif reasoning:
        wishes["reasoning"] = reasoning
    return {name: value for name, value in wishes.items() if value is not None}


@lru_cache(maxsize=64)
def _known_settings(model: Any) -> frozenset[str] | None:
    """The settings a model takes with a call; None for a model that does not tell.

    A provider's model declares its settings as fields, and hands any other name to its HTTP client, which
    fails on it. A model without declared settings reads, or ignores, what it is given.
    """
    fields: Mapping[str, Any] = getattr(model, "model_fields", {})
    if "temperature" not in fields:
        return None
    aliases = {field.alias for field in fields.values() if field.alias}
    return frozenset(fields) | aliases | frozenset(signature(model.bind_tools).parameters)


def _response_format(wanted: Mapping[str, Any], has_tools: bool) -> dict[str, Any]:
    """`text.format` in the form that LangChain's models take as `response_format`.

    Their `bind_tools` takes only schemas, of objects, and names them by their title.
    """
    if wanted["type"] != "json_schema":
        if not has_tools:
            return {"type": wanted["type"]}
        wanted = {"name": "json_object", "schema": {"type": "object", "additionalProperties": True}}
    schema = {"properties": {}, **wanted["schema"], "title": wanted["name"]}
    strict = {} if wanted.get("strict") is None else {"strict": wanted["strict"]}
    return {"type": "json_schema", "json_schema": {"name": wanted["name"], "schema": schema, **strict}}
