"""Every way to be wrong, with the parameter and the code that the client is told."""

from __future__ import annotations

from typing import Any

import pytest

from agent_server.errors import RequestError, UnsupportedError
from agent_server.protocols.responses.items import MAX_ITEMS
from agent_server.protocols.responses.request import parse_request

USER = {"role": "user", "content": "Hi"}
CALL = {"type": "function_call", "call_id": "c1", "name": "f", "arguments": "{}"}
OUTPUT = {"type": "function_call_output", "call_id": "c1", "output": "a"}
TOOL = {"type": "function", "name": "f"}
TWICE = [TOOL, TOOL]

Case = tuple[dict[str, Any], str, str]


def part(**fields: Any) -> dict[str, Any]:
    return {"input": [USER, {"role": "user", "content": [{"type": "input_text", "text": "a"}, fields]}]}


def item(**fields: Any) -> dict[str, Any]:
    return {"input": [USER, fields]}


def called(**fields: Any) -> dict[str, Any]:
    return {"input": [{**CALL, **fields}, OUTPUT]}


def answered(**fields: Any) -> dict[str, Any]:
    return {"input": [CALL, {**OUTPUT, **fields}]}


def option(**fields: Any) -> dict[str, Any]:
    return {"input": "Hi", **fields}


def tool(**fields: Any) -> dict[str, Any]:
    return {"input": "Hi", "tools": [TOOL, fields]}


def choice(value: Any) -> dict[str, Any]:
    return {"input": "Hi", "tools": [TOOL], "tool_choice": value}


def text_format(**fields: Any) -> dict[str, Any]:
    return {"input": "Hi", "text": {"format": fields}}


TYPE, VALUE, MISSING, EMPTY = "invalid_type", "invalid_value", "missing_required_parameter", "empty_string"
UNSERVED, NO_TOOL = "unsupported_parameter", "unsupported_tool"
TOO_LONG, TOO_MANY = "string_above_max_length", "object_above_max_length"
LOW, HIGH, BELOW, ABOVE = (
    f"{kind}_{end}_value" for kind in ("integer", "decimal") for end in ("below_min", "above_max")
)
IN, PART = "input[1]", "input[1].content[1]"

CASES: list[Case] = [
    # input
    ({}, "input", MISSING),
    ({"input": None}, "input", MISSING),
    ({"input": 1}, "input", TYPE),
    ({"input": {"role": "user"}}, "input", TYPE),
    ({"input": ""}, "input", "empty_array"),
    ({"input": []}, "input", "empty_array"),
    ({"input": [{"type": "mcp_list_tools"}]}, "input", "empty_array"),
    ({"input": [USER] * (MAX_ITEMS + 1)}, "input", "array_above_max_length"),
    ({"input": ["Hi"]}, "input[0]", TYPE),
    ({"input": [USER, None]}, IN, TYPE),
    # items
    (item(), "input[1].type", MISSING),
    (item(content="Hi"), "input[1].type", MISSING),
    (item(type=1), "input[1].type", TYPE),
    (item(type="hello"), "input[1].type", VALUE),
    (item(type="response.output_item.done"), "input[1].type", VALUE),
    (item(type="message", content="Hi"), "input[1].role", MISSING),
    (item(role="tool", content="Hi"), "input[1].role", VALUE),
    (item(role="User", content="Hi"), "input[1].role", VALUE),
    (item(role=1, content="Hi"), "input[1].role", TYPE),
    (item(role=["user"], content="Hi"), "input[1].role", TYPE),
    (item(role="user"), "input[1].content", MISSING),
    (item(role="user", content=1), "input[1].content", TYPE),
    (item(role="user", content={"type": "input_text", "text": "a"}), "input[1].content", TYPE),
    (item(role="user", content=[]), "input[1].content", "empty_array"),
    (item(role="system", content=[]), "input[1].content", "empty_array"),
    (item(role="user", content="Hi", id=1), "input[1].id", TYPE),
    (item(role="user", content=["Hi"]), "input[1].content[0]", TYPE),
    # content parts
    (part(), f"{PART}.type", MISSING),
    (part(type="image_url", image_url={"url": "https://example.org"}), f"{PART}.type", VALUE),
    (part(type="refusal", refusal="No."), f"{PART}.type", VALUE),
    (part(type=["input_text"]), f"{PART}.type", TYPE),
    (part(type="input_text"), f"{PART}.text", MISSING),
    (part(type="input_text", text=["a"]), f"{PART}.text", TYPE),
    (part(type="input_image"), f"{PART}.image_url", MISSING),
    (part(type="input_image", image_url=""), f"{PART}.image_url", EMPTY),
    (part(type="input_image", image_url={"url": "https://example.org"}), f"{PART}.image_url", TYPE),
    (part(type="input_image", image_url="https://example.org", detail="huge"), f"{PART}.detail", VALUE),
    (part(type="input_image", image_url="https://example.org", file_id="f"), f"{PART}.file_id", VALUE),
    (part(type="input_image", file_id=1), f"{PART}.file_id", TYPE),
    *(
        (part(type="input_image", image_url=url), f"{PART}.image_url", VALUE)
        for url in (
            "file:///etc/passwd",
            "gs://bucket/a.png",
            "blob:text/plain;base64,AAAA",
            "/etc/passwd",
            "a.png",
            "https:/example.org",
            "data:image/png,abc",
            "data:image/png;base64",
            "data:image/png;base64,",
            "data:image/png;base64,???",
            "data:image/png;base64,AAA",
            "data:image/png;base64,AAAA!AAAA",
            "data:image/png;base64,ÄÄÄÄ",
            "data:image;base64,AAAA",
            "data:<b>/png;base64,AAAA",
        )
    ),
    (part(type="input_file"), f"{PART}.file_data", MISSING),
    (part(type="input_file", filename="a.pdf"), f"{PART}.file_data", MISSING),
    (part(type="input_file", file_id="f", filename=1), f"{PART}.filename", TYPE),
    (part(type="input_file", file_data="not base64!"), f"{PART}.file_data", VALUE),
    (part(type="input_file", file_url="file:///etc/passwd"), f"{PART}.file_url", VALUE),
    (part(type="input_file", file_url="https://example.org", file_data="AAAA"), f"{PART}.file_url", VALUE),
    (part(type="input_audio"), f"{PART}.input_audio", MISSING),
    (part(type="input_audio", input_audio="AAAA"), f"{PART}.input_audio", TYPE),
    (part(type="input_audio", input_audio={"data": "AAAA"}), f"{PART}.input_audio.format", MISSING),
    (part(type="input_audio", input_audio={"data": "AAAA", "format": "ogg"}), f"{PART}.input_audio.format", VALUE),
    (part(type="input_audio", input_audio={"format": "wav"}), f"{PART}.input_audio.data", MISSING),
    (part(type="input_audio", input_audio={"data": "?", "format": "wav"}), f"{PART}.input_audio.data", VALUE),
    (item(role="assistant", content=[{"type": "input_image"}]), "input[1].content[0].type", VALUE),
    (item(role="assistant", content=[{"type": "refusal"}]), "input[1].content[0].refusal", MISSING),
    # calls and outputs
    (called(call_id=None), "input[0].call_id", MISSING),
    (called(call_id=""), "input[0].call_id", EMPTY),
    (called(call_id=1), "input[0].call_id", TYPE),
    (called(name=None), "input[0].name", MISSING),
    (called(name=""), "input[0].name", EMPTY),
    (called(status=1), "input[0].status", TYPE),
    (called(arguments=None), "input[0].arguments", MISSING),
    (called(arguments={}), "input[0].arguments", TYPE),
    (answered(call_id=None), "input[1].call_id", MISSING),
    (answered(call_id=["c1"]), "input[1].call_id", TYPE),
    (answered(output=None), "input[1].output", MISSING),
    (answered(output={"a": 1}), "input[1].output", TYPE),
    (answered(output=[{"type": "json"}]), "input[1].output[0].type", VALUE),
    (answered(output=[{"type": "input_image"}]), "input[1].output[0].image_url", MISSING),
    ({"input": [USER, OUTPUT]}, "input", VALUE),
    ({"input": [OUTPUT, CALL]}, "input", VALUE),
    ({"input": [CALL, OUTPUT, OUTPUT]}, "input", VALUE),
    ({"input": [CALL]}, "input", VALUE),
    ({"input": [CALL, USER]}, "input", VALUE),
    ({"input": [CALL, CALL, OUTPUT, OUTPUT]}, "input", VALUE),
    (item(type="custom_tool_call", call_id="c1", name="f"), "input[1].input", MISSING),
    (item(type="custom_tool_call", call_id="c1", name="", input=""), "input[1].name", EMPTY),
    (item(type="custom_tool_call_output", call_id="c1", output=1), "input[1].output", TYPE),
    (item(type="mcp_call", name="f", arguments="{}"), "input", VALUE),
    (item(type="mcp_call", arguments="{}", output="a"), "input[1].name", MISSING),
    (item(type="mcp_call", name="f", arguments="{}", output=1), "input[1].output", TYPE),
    # other items
    (item(type="reasoning", summary="a"), "input[1].summary", TYPE),
    (item(type="reasoning", summary=["a"]), "input[1].summary[0]", TYPE),
    (item(type="reasoning", summary=[{"type": "summary_text"}]), "input[1].summary[0].text", MISSING),
    (item(type="reasoning", content=[{"text": 1}]), "input[1].content[0].text", TYPE),
    (item(type="reasoning", encrypted_content=1), "input[1].encrypted_content", TYPE),
    (item(type="image_generation_call", id="ig_1"), "input[1].result", MISSING),
    (item(type="image_generation_call", result="?"), "input[1].result", VALUE),
    *(
        (item(type=kind, id="x"), "input[1].type", UNSERVED)
        for kind in (
            "item_reference",
            "mcp_approval_response",
            "compaction",
            "compaction_trigger",
            "computer_call_output",
            "web_search_call",
            "file_search_call",
            "code_interpreter_call",
            "local_shell_call",
            "apply_patch_call",
        )
    ),
    (item(id="msg_1"), "input[1].type", UNSERVED),
    # what is not stored, or not done
    (option(previous_response_id="resp_1"), "previous_response_id", UNSERVED),
    (option(conversation="conv_1"), "conversation", UNSERVED),
    (option(conversation={"id": "conv_1"}), "conversation", UNSERVED),
    (option(background=True), "background", UNSERVED),
    (option(background="true"), "background", TYPE),
    (option(prompt={"id": "pmpt_1"}), "prompt", UNSERVED),
    (option(context_management=[{"type": "compaction"}]), "context_management", UNSERVED),
    (option(moderation={"model": "m"}), "moderation", UNSERVED),
    (option(truncation="middle"), "truncation", VALUE),
    (option(truncation=True), "truncation", TYPE),
    (option(presence_penalty=0.5), "presence_penalty", UNSERVED),
    (option(frequency_penalty=3), "frequency_penalty", ABOVE),
    (option(presence_penalty="a"), "presence_penalty", TYPE),
    # plain parameters
    (option(model=1), "model", TYPE),
    (option(stream="false"), "stream", TYPE),
    (option(stream=1), "stream", TYPE),
    (option(store="yes"), "store", TYPE),
    (option(instructions=["a"]), "instructions", TYPE),
    (option(temperature="hot"), "temperature", TYPE),
    (option(temperature=True), "temperature", TYPE),
    (option(temperature=-0.1), "temperature", BELOW),
    (option(temperature=2.1), "temperature", ABOVE),
    (option(temperature=float("nan")), "temperature", BELOW),
    (option(top_p=1.01), "top_p", ABOVE),
    (option(top_p=[]), "top_p", TYPE),
    (option(top_logprobs=21), "top_logprobs", HIGH),
    (option(top_logprobs=-1), "top_logprobs", LOW),
    (option(top_logprobs=1.0), "top_logprobs", TYPE),
    (option(top_logprobs=False), "top_logprobs", TYPE),
    (option(max_output_tokens=0), "max_output_tokens", LOW),
    (option(max_output_tokens="16"), "max_output_tokens", TYPE),
    (option(max_tool_calls=0), "max_tool_calls", LOW),
    (option(max_tool_calls=True), "max_tool_calls", TYPE),
    (option(parallel_tool_calls="no"), "parallel_tool_calls", TYPE),
    (option(user=1), "user", TYPE),
    (option(user="x" * 513), "user", TOO_LONG),
    (option(safety_identifier="x" * 65), "safety_identifier", TOO_LONG),
    (option(prompt_cache_key="x" * 65), "prompt_cache_key", TOO_LONG),
    (option(prompt_cache_key={}), "prompt_cache_key", TYPE),
    (option(service_tier=1), "service_tier", TYPE),
    (option(include="reasoning.encrypted_content"), "include", TYPE),
    (option(include=["reasoning.encrypted_content", "everything"]), "include[1]", VALUE),
    (option(include=[1]), "include[0]", TYPE),
    (option(stream_options=True), "stream_options", TYPE),
    (option(stream_options={"include_obfuscation": 1}), "stream_options.include_obfuscation", TYPE),
    # metadata
    (option(metadata=[]), "metadata", TYPE),
    (option(metadata={str(i): "" for i in range(17)}), "metadata", TOO_MANY),
    (option(metadata={"x" * 65: ""}), "metadata", TOO_LONG),
    (option(metadata={"a": 1}), "metadata.a", TYPE),
    (option(metadata={"a": "x" * 513}), "metadata.a", TOO_LONG),
    # what MLflow and Databricks add
    (option(custom_inputs=[]), "custom_inputs", TYPE),
    (option(context="a"), "context", TYPE),
    (option(context={"conversation_id": 1}), "context.conversation_id", TYPE),
    (option(context={"user_id": "x" * 513}), "context.user_id", TOO_LONG),
    (option(databricks_options=1), "databricks_options", TYPE),
    (option(databricks_options={"return_trace": "yes"}), "databricks_options.return_trace", TYPE),
    # tools
    (option(tools={}), "tools", TYPE),
    (option(tools=["f"]), "tools[0]", TYPE),
    (option(tools=TWICE), "tools[1].name", "duplicate_tool"),
    (tool(), "tools[1].type", MISSING),
    (tool(type=1), "tools[1].type", TYPE),
    (tool(type="fun"), "tools[1].type", VALUE),
    (tool(type="function"), "tools[1].name", MISSING),
    (tool(type="function", name=""), "tools[1].name", EMPTY),
    (tool(type="function", name="get time"), "tools[1].name", VALUE),
    (tool(type="function", name="x" * 65), "tools[1].name", VALUE),
    (tool(type="function", name="f\n"), "tools[1].name", VALUE),
    (tool(type="function", name="g", parameters=[]), "tools[1].parameters", TYPE),
    (tool(type="function", name="g", strict="yes"), "tools[1].strict", TYPE),
    (tool(type="function", name="g", description=1), "tools[1].description", TYPE),
    (tool(type="function", function="g"), "tools[1].function", TYPE),
    (tool(type="function", function={"name": "g!"}), "tools[1].function.name", VALUE),
    *(
        (tool(type=kind), "tools[1].type", NO_TOOL)
        for kind in ("web_search", "file_search", "code_interpreter", "custom", "shell", "namespace")
    ),
    # tool choice
    (choice("any"), "tool_choice", VALUE),
    (choice(1), "tool_choice", TYPE),
    (choice([]), "tool_choice", TYPE),
    (choice({}), "tool_choice.type", MISSING),
    (choice({"type": "tool"}), "tool_choice.type", VALUE),
    (choice({"type": "function"}), "tool_choice.name", MISSING),
    (choice({"type": "function", "name": "g"}), "tool_choice.name", VALUE),
    (choice({"type": "function", "function": {"name": "g"}}), "tool_choice.function.name", VALUE),
    (choice({"type": "file_search"}), "tool_choice.type", NO_TOOL),
    (choice({"type": "mcp"}), "tool_choice.server_label", MISSING),
    (choice({"type": "mcp", "server_label": "x"}), "tool_choice.server_label", VALUE),
    (choice({"type": "allowed_tools", "mode": "auto"}), "tool_choice.tools", MISSING),
    (choice({"type": "allowed_tools", "mode": "auto", "tools": []}), "tool_choice.tools", MISSING),
    (choice({"type": "allowed_tools", "mode": "any", "tools": [TOOL]}), "tool_choice.mode", VALUE),
    (choice({"type": "allowed_tools", "tools": [{**TOOL, "name": "g"}]}), "tool_choice.tools[0].name", VALUE),
    (choice({"type": "allowed_tools", "tools": [{"type": "mcp"}]}), "tool_choice.tools[0].server_label", MISSING),
    # text and reasoning
    (option(text="json"), "text", TYPE),
    (option(text={"verbosity": "loud"}), "text.verbosity", VALUE),
    (option(text={"format": "text"}), "text.format", TYPE),
    (text_format(), "text.format.type", MISSING),
    (text_format(type="xml"), "text.format.type", VALUE),
    (text_format(type="json_schema", schema={}), "text.format.name", MISSING),
    (text_format(type="json_schema", name="a b", schema={}), "text.format.name", VALUE),
    (text_format(type="json_schema", name="a"), "text.format.schema", MISSING),
    (text_format(type="json_schema", name="a", schema="{}"), "text.format.schema", TYPE),
    (text_format(type="json_schema", name="a", schema={}, strict=1), "text.format.strict", TYPE),
    (text_format(type="json_schema", json_schema={"name": "a"}), "text.format.json_schema.schema", MISSING),
    (option(reasoning="low"), "reasoning", TYPE),
    (option(reasoning={"effort": "huge"}), "reasoning.effort", VALUE),
    (option(reasoning={"summary": 1}), "reasoning.summary", TYPE),
]


@pytest.mark.parametrize(("body", "param", "code"), CASES, ids=[f"{param}-{code}" for _, param, code in CASES])
def test_what_is_wrong_is_refused_by_its_path(body: dict[str, Any], param: str, code: str) -> None:
    with pytest.raises(RequestError) as raised:
        parse_request(body)
    error = raised.value
    assert (error.param, error.code) == (param, code)
    assert (error.status, error.type) == (400, "invalid_request_error")
    assert isinstance(error, UnsupportedError) == (code in {UNSERVED, NO_TOOL})


@pytest.mark.parametrize(
    ("body", "message"),
    [
        ({}, "Missing required parameter: 'input'."),
        ({"input": []}, "'input' holds nothing to answer; at least one item is needed."),
        (item(role="tool"), "Invalid value: 'tool'. Supported values are: 'assistant', 'system', 'developer', 'user'."),
        (option(stream="false"), "Invalid type for 'stream': expected a boolean, but got a string instead."),
        (option(temperature=3), "Invalid 'temperature': expected a value <= 2."),
        ({"input": [OUTPUT]}, "No tool call found for function call output with call_id c1."),
        ({"input": [CALL]}, "No tool output found for function call c1."),
        (
            item(id="msg_1"),
            "item_reference needs stored responses, which this server does not keep yet.",
        ),
        (
            option(previous_response_id="resp_1"),
            "'previous_response_id' needs responses that are kept, which a model does not do; "
            "send the whole conversation.",
        ),
        (tool(type="web_search"), "Tools of type 'web_search' are not served; declare a function instead."),
    ],
)
def test_the_message_says_what_is_wrong(body: dict[str, Any], message: str) -> None:
    with pytest.raises(RequestError) as raised:
        parse_request(body)
    assert raised.value.message == message


def test_a_message_repeats_little_of_what_the_client_sent() -> None:
    long = "x" * 10_000
    bodies = [
        option(truncation=long),
        option(include=[long]),
        item(role=long),
        item(type=long),
        part(type=long),
        choice({"type": "function", "name": long}),
        option(metadata={long: ""}),
        {"input": [{**OUTPUT, "call_id": long}]},
        {"input": [{**CALL, "call_id": long}]},
    ]
    for body in bodies:
        with pytest.raises(RequestError) as raised:
            parse_request(body)
        assert len(raised.value.message) + len(raised.value.param or "") < 500


def test_json_inside_the_arguments_is_held_to_the_limit_of_one_body() -> None:
    arguments = '{"a":[' + "{}," * 30_000 + "{}]}"
    calls = [{**CALL, "call_id": f"c{place}", "arguments": arguments} for place in range(4)]
    outputs = [{**OUTPUT, "call_id": f"c{place}"} for place in range(4)]
    assert parse_request({"input": [*calls[:3], *outputs[:3]]})
    with pytest.raises(RequestError, match="more than 100000 objects and arrays") as raised:
        parse_request({"input": [*calls, *outputs]})
    assert raised.value.param == "input"
