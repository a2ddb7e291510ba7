"""The body of `POST /responses` -> what to run, and the part of the response object that repeats it.

A parameter of the OpenAI API is honoured, or is a hint that may be passed over, or is refused by name. Keys
that are no parameters of that API are passed over, as MLflow does with what its clients add.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from agent_server.context import ModelOptions, RequestContext
from agent_server.errors import RequestError, UnsupportedError
from agent_server.graph.agent import Agent
from agent_server.graph.inputs import Turn
from agent_server.protocols.responses.fields import Fields, not_among, too_long, wrong_type
from agent_server.protocols.responses.items import read_input
from agent_server.protocols.responses.options import check_choice, check_tools, declared_tools, read_options
from agent_server.protocols.responses.output import HUMAN_INPUT

_NOT_KEPT = "which this server does not keep yet"
_KEPT = {
    "previous_response_id": "needs responses that are kept, which a model does not do; send the whole conversation",
    "conversation": "needs conversations that are kept, which a model does not do; send the whole conversation",
}
_UNSERVED = {
    "prompt": f"needs stored prompts, {_NOT_KEPT}",
    "context_management": "needs compaction within a response, which this server does not do",
    "moderation": "needs a moderation model, which this server does not have",
}
INCLUDABLE = (
    "code_interpreter_call.outputs",
    "computer_call_output.output.image_url",
    "file_search_call.results",
    "message.input_image.image_url",
    "message.output_text.logprobs",
    "reasoning.encrypted_content",
    "web_search_call.action.sources",
    "web_search_call.results",
)
_PENALTIES = ("presence_penalty", "frequency_penalty")  # parameters of Open Responses, not of OpenAI


@dataclass(frozen=True, slots=True)
class ResponsesRequest:
    """A request that can be run.

    `conversation_id` and `user_id` are claims of the client. `return_trace` asks for the trace in
    `databricks_output`. `echo` is what the response object repeats of the request, with the values in effect.
    """

    model: str | None
    turns: tuple[Turn, ...]
    options: ModelOptions
    stream: bool
    metadata: Mapping[str, str]
    custom_inputs: Mapping[str, Any]
    conversation_id: str | None
    user_id: str | None
    return_trace: bool
    store: bool | None
    background: bool
    echo: dict[str, Any]

    def context(self, request_id: str, identity: Mapping[str, str | None]) -> RequestContext:
        """What the agent may know of the request. `identity` is what is known of the caller otherwise."""
        return RequestContext(
            request_id=request_id,
            **identity,
            conversation_id=self.conversation_id,
            user_id=self.user_id,
            custom_inputs=self.custom_inputs,
            metadata=self.metadata,
            options=self.options,
        )


def parse_request(body: Mapping[str, Any], *, keeps: bool = False, goes_on: bool = False) -> ResponsesRequest:
    """A create request, checked in all its parts. A null counts as absent, everywhere.

    Where nobody `keeps` responses, what needs that is refused. What is said of a request that `goes_on` from
    another holds for its input: `read_input`.

    Raises `RequestError` naming the parameter, and `UnsupportedError` for what this server cannot do.
    """
    fields = Fields(body)
    _check_served(fields)
    if not keeps:
        _check_not_kept(fields)
    store, background = fields.flag("store"), fields.flag("background") or False
    if background and store is False:
        raise RequestError("A response in the background has to be stored.", param="store")
    _check_hints(fields)
    options, metadata = read_options(fields), read_metadata(fields)
    context = fields.child("context") or Fields({})
    databricks = fields.child("databricks_options") or Fields({})
    custom_inputs = fields.child("custom_inputs")
    users = (
        context.text("user_id", longest=512),
        fields.text("safety_identifier", longest=64),
        fields.text("user", longest=512),
    )
    return ResponsesRequest(
        model=fields.text("model"),
        turns=read_input(fields, goes_on=goes_on),
        options=options,
        stream=fields.flag("stream") or False,
        metadata=metadata,
        custom_inputs=custom_inputs.values() if custom_inputs else {},
        conversation_id=context.text("conversation_id", longest=512),
        user_id=next((user for user in users if user), None),
        return_trace=databricks.flag("return_trace") or False,
        store=store,
        background=background,
        echo={**_echo(fields, options, metadata), **_memory(custom_inputs)},
    )


def check_served(asked: ResponsesRequest, agent: Agent) -> None:
    """What only an agent with the `RequestOptions` middleware can honour is refused by the others."""
    options = asked.options
    check_tools(asked.echo["tools"], agent)
    check_choice(options, agent)
    if agent.takes_options:
        return
    needs = {
        "tools": any(tool["name"] != HUMAN_INPUT for tool in options.tools),
        "tool_choice": options.tool_choice not in (None, "auto"),
        "text.format": options.response_format is not None,
        "max_tool_calls": options.max_tool_calls is not None,
    }
    for param, needed in needs.items():
        if needed:
            message = f"The agent {agent.name!r} does not take {param}; it lacks the RequestOptions middleware."
            raise UnsupportedError(message, param=param)


def default_echo() -> dict[str, Any]:
    """The echo of a request that sets nothing."""
    return _echo(Fields({}), ModelOptions(), {})


def _check_not_kept(body: Fields) -> None:
    for key, lacking in _KEPT.items():
        if body.get(key) is not None:
            raise UnsupportedError(f"'{key}' {lacking}.", param=key)
    if body.flag("background"):
        message = "'background' needs responses that are kept, which a model does not do; stream the response instead."
        raise UnsupportedError(message, param="background")


def _check_served(body: Fields) -> None:
    for key, lacking in _UNSERVED.items():
        if body.get(key) is not None:
            raise UnsupportedError(f"'{key}' {lacking}.", param=key)
    for key in _PENALTIES:
        if body.number(key, -2, 2):
            raise UnsupportedError(f"'{key}' can only be 0: it is not passed to models.", param=key)


def _check_hints(body: Fields) -> None:
    """Hints may go unheeded; they must still be what they claim to be."""
    body.text("service_tier", longest=64)
    body.text("prompt_cache_key", longest=64)
    for place, value in enumerate(body.array("include")):
        path = f"include[{place}]"
        if not isinstance(value, str):
            raise wrong_type(path, "a string", value)
        if value not in INCLUDABLE:
            raise not_among(path, value, INCLUDABLE)
    stream_options = body.child("stream_options")
    if stream_options:
        stream_options.flag("include_obfuscation")


def read_metadata(body: Fields) -> dict[str, str]:
    """At most 16 pairs, keys of at most 64 characters, values of at most 512."""
    declared = body.child("metadata")
    if declared is None:
        return {}
    pairs = {key: value for key, value in declared.values().items() if value is not None}
    if len(pairs) > 16:
        raise too_long("metadata", "at most 16 pairs", len(pairs), "object")
    for key in pairs:
        if len(key) > 64:
            raise too_long("metadata", "keys of at most 64 characters", len(key), "string")
        declared.required_text(key, empty=True, longest=512)
    return pairs


def _echo(body: Fields, options: ModelOptions, metadata: Mapping[str, str]) -> dict[str, Any]:
    """Every key that Open Responses requires, with defaults where OpenAI's clients want a number."""
    user = body.text("user")
    return {
        "instructions": options.instructions,
        "metadata": dict(metadata),
        "parallel_tool_calls": options.parallel_tool_calls is not False,
        "temperature": 1.0 if options.temperature is None else options.temperature,
        "tool_choice": options.tool_choice or "auto",
        "tools": declared_tools(body),
        "top_p": 1.0 if options.top_p is None else options.top_p,
        "previous_response_id": None,
        "reasoning": {"effort": None, "summary": None, **(options.reasoning or {})},
        "max_output_tokens": options.max_output_tokens,
        "max_tool_calls": options.max_tool_calls,
        "text": _echo_text(options),
        "truncation": options.truncation or "disabled",
        "store": False,
        "background": False,
        "service_tier": "default",
        **({"user": user} if user else {}),
        "safety_identifier": body.text("safety_identifier"),
        "prompt_cache_key": body.text("prompt_cache_key"),
        "presence_penalty": 0.0,
        "frequency_penalty": 0.0,
        "top_logprobs": options.top_logprobs or 0,
    }


def _memory(custom_inputs: Fields | None) -> dict[str, Any]:
    """The memory that a client goes on with: those that name it so look for its name in `custom_outputs`."""
    kept = {key: custom_inputs.get(key) for key in ("thread_id", "session_id")} if custom_inputs else {}
    named = {key: value for key, value in kept.items() if value is not None}
    return {"custom_outputs": named} if named else {}


def _echo_text(options: ModelOptions) -> dict[str, Any]:
    wanted = dict(options.response_format or {"type": "text"})
    if wanted["type"] == "json_schema":
        wanted = {"description": None, **wanted}
    return {"format": wanted, **({"verbosity": options.verbosity} if options.verbosity else {})}
