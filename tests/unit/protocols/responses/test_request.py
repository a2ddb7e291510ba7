from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import pytest
from openai.types.responses import Response

from agent_server.context import ModelOptions
from agent_server.errors import RequestError
from agent_server.graph.agent import Agent
from agent_server.graph.inputs import Message, Text
from agent_server.protocols.responses.options import check_choice, check_tools
from agent_server.protocols.responses.request import default_echo, parse_request

SCHEMA = {"type": "object", "properties": {"zone": {"type": "string"}}}
TOOL = {"type": "function", "name": "get_time", "parameters": SCHEMA, "strict": True, "description": "The time."}
FLAT = {"name": "get_time", "description": "The time.", "parameters": SCHEMA, "strict": True}
ANSWER_SCHEMA = {"type": "object", "properties": {"answer": {"type": "string"}}}
JSON_SCHEMA = {"type": "json_schema", "name": "answer", "schema": ANSWER_SCHEMA, "strict": True}

DEFAULTS: dict[str, Any] = {
    "instructions": None,
    "metadata": {},
    "parallel_tool_calls": True,
    "temperature": 1.0,
    "tool_choice": "auto",
    "tools": [],
    "top_p": 1.0,
    "previous_response_id": None,
    "reasoning": {"effort": None, "summary": None},
    "max_output_tokens": None,
    "max_tool_calls": None,
    "text": {"format": {"type": "text"}},
    "truncation": "disabled",
    "store": False,
    "background": False,
    "service_tier": "default",
    "safety_identifier": None,
    "prompt_cache_key": None,
    "presence_penalty": 0.0,
    "frequency_penalty": 0.0,
    "top_logprobs": 0,
}
# What the encoder puts around the echo.
REST: dict[str, Any] = {
    "id": "resp_1",
    "object": "response",
    "created_at": 1,
    "completed_at": None,
    "status": "in_progress",
    "error": None,
    "incomplete_details": None,
    "model": "demo",
    "output": [],
    "usage": None,
}


def agent(*tools: str, takes_options: bool = True) -> Agent:
    return Agent("weather", "", frozenset(tools), takes_options)


def asked(**body: Any) -> Any:
    return parse_request({"input": "Hi", **body})


def test_a_request_that_sets_nothing_gets_the_defaults() -> None:
    request = asked()
    assert (request.model, request.stream, request.return_trace) == (None, False, False)
    assert (request.conversation_id, request.user_id) == (None, None)
    assert (request.metadata, request.custom_inputs) == ({}, {})
    assert request.turns == (Message("user", (Text("Hi"),)),)
    assert request.options == ModelOptions()
    assert request.echo == default_echo() == DEFAULTS
    assert list(request.echo) == list(DEFAULTS)


def test_nulls_are_the_same_as_nothing() -> None:
    nulls = dict.fromkeys(
        [
            *DEFAULTS,
            *("model", "stream", "include", "stream_options", "conversation", "prompt", "context_management"),
            *("moderation", "user", "custom_inputs", "context", "databricks_options", "client_request_id"),
            *("image", "access_programs", "prompt_cache_options", "prompt_cache_retention"),
        ]
    )
    assert asked(**nulls) == asked()
    inner = asked(
        text={"format": None, "verbosity": None},
        reasoning={"effort": None, "summary": None},
        metadata={"a": None},
        context={"conversation_id": None, "user_id": None},
        databricks_options={"return_trace": None},
        stream_options={"include_obfuscation": None},
    )
    assert inner == asked()


OPTIONS: dict[str, tuple[dict[str, Any], ModelOptions, dict[str, Any]]] = {
    "instructions": ({"instructions": "Be kind."}, ModelOptions(instructions="Be kind."), {"instructions": "Be kind."}),
    "numbers": (
        {
            "temperature": 0,
            "top_p": 0.5,
            "top_logprobs": 20,
            "max_output_tokens": 1,
            "max_tool_calls": 3,
            "parallel_tool_calls": False,
        },
        ModelOptions(
            temperature=0.0,
            top_p=0.5,
            top_logprobs=20,
            max_output_tokens=1,
            max_tool_calls=3,
            parallel_tool_calls=False,
        ),
        {
            "temperature": 0.0,
            "top_p": 0.5,
            "top_logprobs": 20,
            "max_output_tokens": 1,
            "max_tool_calls": 3,
            "parallel_tool_calls": False,
        },
    ),
    "a tool": ({"tools": [TOOL]}, ModelOptions(tools=(FLAT,)), {"tools": [TOOL]}),
    "a tool with a name alone": (
        {"tools": [{"type": "function", "name": "f"}]},
        ModelOptions(tools=({"name": "f", "description": None, "parameters": None, "strict": None},)),
        {"tools": [{"type": "function", "name": "f", "description": None, "parameters": None, "strict": None}]},
    ),
    "a tool as Chat Completions nests it": (
        {"tools": [{"type": "function", "function": FLAT}]},
        ModelOptions(tools=(FLAT,)),
        {"tools": [TOOL]},
    ),
    **{
        f"tool choice {mode}": ({"tool_choice": mode}, ModelOptions(tool_choice=mode), {"tool_choice": mode})
        for mode in ("auto", "none", "required")
    },
    **{
        f"tool choice {name}": (
            {"tools": [TOOL], "tool_choice": choice},
            ModelOptions(tools=(FLAT,), tool_choice={"type": "function", "name": "get_time"}),
            {"tools": [TOOL], "tool_choice": {"type": "function", "name": "get_time"}},
        )
        for name, choice in {
            "flat": {"type": "function", "name": "get_time"},
            "nested": {"type": "function", "function": {"name": "get_time"}},
        }.items()
    },
    **{
        f"allowed tools {name}": (
            {"tools": [TOOL], "tool_choice": {"type": "allowed_tools", **choice}},
            ModelOptions(
                tools=(FLAT,),
                tool_choice={
                    "type": "allowed_tools",
                    "mode": "required",
                    "tools": [{"type": "function", "name": "get_time"}],
                },
            ),
            {
                "tools": [TOOL],
                "tool_choice": {
                    "type": "allowed_tools",
                    "mode": "required",
                    "tools": [{"type": "function", "name": "get_time"}],
                },
            },
        )
        for name, choice in {
            "flat": {"mode": "required", "tools": [{"type": "function", "name": "get_time"}]},
            "nested": {
                "allowed_tools": {
                    "mode": "required",
                    "tools": [{"type": "function", "function": {"name": "get_time"}}],
                }
            },
        }.items()
    },
    "plain text": ({"text": {"format": {"type": "text"}}}, ModelOptions(), {}),
    "any JSON": (
        {"text": {"format": {"type": "json_object"}}},
        ModelOptions(response_format={"type": "json_object"}),
        {"text": {"format": {"type": "json_object"}}},
    ),
    **{
        f"a JSON schema {name}": (
            {"text": {"format": wanted, "verbosity": "low"}},
            ModelOptions(response_format=JSON_SCHEMA, verbosity="low"),
            {"text": {"format": {"description": None, **JSON_SCHEMA}, "verbosity": "low"}},
        )
        for name, wanted in {
            "flat": JSON_SCHEMA,
            "nested": {
                "type": "json_schema",
                "json_schema": {"name": "answer", "schema": ANSWER_SCHEMA, "strict": True},
            },
        }.items()
    },
    "a JSON schema with a description": (
        {
            "text": {
                "format": {"type": "json_schema", "name": "answer", "schema": ANSWER_SCHEMA, "description": "What."}
            }
        },
        ModelOptions(response_format={**JSON_SCHEMA, "description": "What.", "strict": False}),
        {"text": {"format": {**JSON_SCHEMA, "description": "What.", "strict": False}}},
    ),
    "reasoning": (
        {"reasoning": {"effort": "low", "summary": "auto", "context": "auto"}},
        ModelOptions(reasoning={"effort": "low", "summary": "auto", "context": "auto"}),
        {"reasoning": {"effort": "low", "summary": "auto", "context": "auto"}},
    ),
    "reasoning without wishes": ({"reasoning": {}}, ModelOptions(), {}),
    "truncation": ({"truncation": "auto"}, ModelOptions(truncation="auto"), {"truncation": "auto"}),
    "repeated only": (
        {
            "metadata": {"topic": "demo", "empty": ""},
            "user": "u",
            "safety_identifier": "s",
            "prompt_cache_key": "p",
            "service_tier": "flex",
            "store": True,
            "truncation": "disabled",
            "background": False,
            "presence_penalty": 0,
            "frequency_penalty": 0.0,
            "stream_options": {"include_obfuscation": True},
            "include": ["reasoning.encrypted_content", "web_search_call.action.sources"],
        },
        ModelOptions(),
        {
            "metadata": {"topic": "demo", "empty": ""},
            "user": "u",
            "safety_identifier": "s",
            "prompt_cache_key": "p",
        },
    ),
}


@pytest.mark.parametrize(("body", "options", "echo"), OPTIONS.values(), ids=OPTIONS.keys())
def test_options_are_read_and_repeated_in_the_response(
    body: dict[str, Any], options: ModelOptions, echo: dict[str, Any]
) -> None:
    request = asked(**body)
    assert request.options == options
    assert request.echo == {**DEFAULTS, **echo}


def open_responses_refuses(response: Mapping[str, Any]) -> list[str]:
    """The keys of a response object that break the schema of Open Responses (`ResponseResource`)."""
    text, number, integer, flag, null = (str,), (int, float), (int,), (bool,), (type(None),)
    required: dict[str, tuple[type, ...]] = {
        **dict.fromkeys(("id", "object", "status", "model", "truncation", "service_tier"), text),
        **dict.fromkeys(("previous_response_id", "instructions", "safety_identifier", "prompt_cache_key"), text + null),
        **dict.fromkeys(("temperature", "top_p", "presence_penalty", "frequency_penalty"), number),
        **dict.fromkeys(("created_at", "top_logprobs"), integer),
        **dict.fromkeys(("completed_at", "max_output_tokens", "max_tool_calls"), integer + null),
        **dict.fromkeys(("parallel_tool_calls", "store", "background"), flag),
        **dict.fromkeys(("output", "tools"), (list,)),
        **dict.fromkeys(("text", "metadata"), (dict,)),
        **dict.fromkeys(("error", "incomplete_details", "reasoning", "usage"), (dict, *null)),
        "tool_choice": (str, dict),
    }
    wrong = [key for key, types in required.items() if key not in response or type(response[key]) not in types]
    tools = [tool for tool in response["tools"] if set(tool) != {"type", "name", "description", "parameters", "strict"}]
    wrong += ["tools"] if tools else []
    wrong += [] if {"effort", "summary"} <= set(response["reasoning"]) else ["reasoning"]
    wanted = response["text"]["format"]
    if wanted["type"] == "json_schema":
        wrong += [] if {"name", "description", "schema"} <= set(wanted) else ["text"]
        wrong += [] if type(wanted["strict"]) is bool else ["text"]
    return wrong


@pytest.mark.parametrize("body", [body for body, _, _ in OPTIONS.values()], ids=OPTIONS.keys())
def test_the_response_object_is_complete_for_openai_and_for_open_responses(body: dict[str, Any]) -> None:
    response = {**REST, **asked(**body).echo}
    parsed = Response.model_validate(response, strict=True)
    assert parsed.to_dict(exclude_unset=True) == response
    assert open_responses_refuses(response) == []
    assert set(REST).isdisjoint(DEFAULTS)


def test_every_echo_is_its_own() -> None:
    default_echo()["metadata"]["a"] = "b"
    assert default_echo() == DEFAULTS


def test_what_mlflow_and_databricks_add_is_understood() -> None:
    request = asked(
        model="demo",
        stream=True,
        custom_inputs={"region": {"name": "north"}},
        context={"conversation_id": "conv-1", "user_id": "ada"},
        databricks_options={"return_trace": True, "databricks_other": 1},
        client_request_id="r-1",
        params={"any": "thing"},
        max_tokens="not a parameter of this API",
    )
    assert (request.model, request.stream, request.return_trace) == ("demo", True, True)
    assert request.custom_inputs == {"region": {"name": "north"}}
    assert (request.conversation_id, request.user_id) == ("conv-1", "ada")


@pytest.mark.parametrize(
    ("body", "user_id"),
    [
        ({"user": "u"}, "u"),
        ({"user": "u", "safety_identifier": "s"}, "s"),
        ({"user": "u", "safety_identifier": "s", "context": {"user_id": "c"}}, "c"),
        ({"user": "u", "context": {"conversation_id": "x"}}, "u"),
    ],
)
def test_the_user_is_the_one_named_most_closely(body: dict[str, Any], user_id: str) -> None:
    assert asked(**body).user_id == user_id


def test_a_tool_that_clashes_with_one_of_the_agents_own_is_refused() -> None:
    declared = asked(tools=[{"type": "function", "name": "mine"}, TOOL]).echo["tools"]
    check_tools(declared, agent("other"))
    with pytest.raises(RequestError) as raised:
        check_tools(declared, agent("get_time"))
    assert (raised.value.param, raised.value.status) == ("tools[1].name", 400)
    assert "get_time" in raised.value.message


@pytest.mark.parametrize(
    ("more", "server_tools"),
    [
        ({}, None),
        ({"server_url": "https://example.invalid/mcp", "authorization": "secret", "require_approval": "never"}, None),
        ({"allowed_tools": ["get_time"]}, ("get_time",)),
        ({"allowed_tools": {"tool_names": ["get_time"]}}, ("get_time",)),
        ({"allowed_tools": []}, ()),
        ({"require_approval": {"never": {"tool_names": ["get_time"]}}}, None),
    ],
)
def test_a_reference_to_the_agents_own_tools_is_taken_and_repeated_without_secrets(
    more: dict[str, Any], server_tools: tuple[str, ...] | None
) -> None:
    request = asked(tools=[{"type": "mcp", "server_label": "weather", **more}])
    check_tools(request.echo["tools"], agent("get_time", "get_weather"))
    assert request.options.server_tools == server_tools
    assert request.options.tools == ()
    (told,) = request.echo["tools"]
    assert (told["type"], told["server_label"]) == ("mcp", "weather")
    assert told.keys() <= {"type", "server_label", "allowed_tools", "require_approval"}


@pytest.mark.parametrize(
    ("more", "takes_options", "param"),
    [
        ({"server_label": "other"}, True, "tools[0].server_label"),
        ({"allowed_tools": ["get_tides"]}, True, "tools[0].allowed_tools"),
        ({"allowed_tools": ["get_time"]}, False, "tools[0].allowed_tools"),
        ({"require_approval": "always"}, True, "tools[0].require_approval"),
        ({"require_approval": {"always": {"tool_names": ["get_time"]}}}, True, "tools[0].require_approval"),
    ],
)
def test_a_reference_to_what_the_agent_does_not_have_is_refused(
    more: dict[str, Any], takes_options: bool, param: str
) -> None:
    declared = asked(tools=[{"type": "mcp", "server_label": "weather", **more}]).echo["tools"]
    with pytest.raises(RequestError) as raised:
        check_tools(declared, agent("get_time", "get_weather", takes_options=takes_options))
    assert (raised.value.param, raised.value.status) == (param, 400)


OWN = {"type": "mcp", "server_label": "weather"}


@pytest.mark.parametrize(
    "choice",
    [
        {**OWN, "name": "get_time"},
        {"type": "allowed_tools", "mode": "required", "tools": [{**OWN, "name": "get_time"}]},
    ],
    ids=["one", "allowed"],
)
def test_the_agents_own_tool_may_be_chosen(choice: dict[str, Any]) -> None:
    request = asked(tools=[OWN], tool_choice=choice)
    assert request.options.tool_choice == request.echo["tool_choice"] == choice
    check_choice(request.options, agent("get_time", "get_weather"))


@pytest.mark.parametrize(
    ("own", "name", "why"),
    [(OWN, "get_tides", "the agent has no tool"), ({**OWN, "allowed_tools": ["get_weather"]}, "get_time", "allow")],
)
def test_the_choice_of_a_tool_that_is_not_there_is_refused(own: dict[str, Any], name: str, why: str) -> None:
    chosen = {**OWN, "name": name}
    for choice, path in (
        (chosen, "tool_choice.name"),
        ({"type": "allowed_tools", "mode": "auto", "tools": [chosen]}, "tool_choice.tools[0].name"),
    ):
        request = asked(tools=[own], tool_choice=choice)
        with pytest.raises(RequestError, match=why) as raised:
            check_choice(request.options, agent("get_time", "get_weather"))
        assert (raised.value.param, raised.value.status) == (path, 400)
