"""What a client must see of each scenario, whatever the wire's style; and what it must ask."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from tests.support.scenarios import SCENARIOS
from tests.support.scenarios.answers import FORECAST, PIXEL, UNICODE
from tests.support.tools import weather_schema

QUESTION = "What?"

FORECAST_FORMAT: dict[str, Any] = {
    "type": "json_schema",
    "name": "forecast",
    "strict": True,
    "schema": {
        "type": "object",
        "properties": {"city": {"type": "string"}, "celsius": {"type": "integer"}},
        "required": ["city", "celsius"],
        "additionalProperties": False,
    },
}

REQUESTS: dict[str, dict[str, Any]] = {
    "client_tool": {"tools": [weather_schema()]},
    "client_and_server_tool": {"tools": [weather_schema()]},
    "structured_output": {"text": {"format": FORECAST_FORMAT}},
}
"""What the request of a scenario says beside its input."""


@dataclass(frozen=True)
class Seen:
    """One answer in a client's eyes.

    `calls` are (name, arguments, output) of the calls made on the server, the output None where the call
    never ended; `client_calls` are (name, arguments) of those that the client must make.
    """

    text: str = ""
    status: str = "completed"
    calls: tuple[tuple[str, str, str | None], ...] = ()
    client_calls: tuple[tuple[str, str], ...] = ()
    reasoning: str = ""
    refusal: str = ""
    approvals: int = 0


OSLO = '{"city": "Oslo"}'
ROME = '{"city": "Rome"}'
IN_OSLO = ("get_weather", OSLO, "It is sunny in Oslo.")
IN_ROME = ("get_weather", ROME, "It is sunny in Rome.")
MAIL = '{"to": "%s@b.example", "body": "Hi"}'
SUNNY = "It is sunny."

EXPECTED: dict[str, Seen] = {
    "plain_text": Seen("Hello, world!"),
    "empty_answer": Seen(""),
    "unicode_split": Seen("".join(UNICODE)),
    "text_in_finish_chunk": Seen("Hello world"),
    "reasoning_then_text": Seen("Done thinking.", reasoning="Hmm, think."),
    "reasoning_anthropic": Seen("It is so.", reasoning="Let me see."),
    "reasoning_openai": Seen("There you are.", reasoning="First part.\n\nSecond part."),
    "reasoning_content": Seen("Yes.", reasoning="Well, yes."),
    "refusal": Seen(refusal="I cannot do that."),
    "refusal_block": Seen(refusal="I will not."),
    "citations": Seen("Oslo is sunny."),
    "citations_anthropic": Seen(SUNNY),
    "image_out": Seen(f"A pixel: ![image](data:image/png;base64,{PIXEL})"),
    "structured_output": Seen(FORECAST),
    "non_streaming_model": Seen("Hello, world!"),
    "model_error_before_first_token": Seen(status="failed"),
    "model_error_after_first_token": Seen("Partial answer", status="failed"),
    "length_limit": Seen("Once upon a", status="incomplete"),
    "content_filter": Seen("The ", status="incomplete"),
    "usage_details": Seen("Counted."),
    "text_tool_text": Seen("Let me look. It is sunny in Oslo.", calls=(IN_OSLO,)),
    "one_tool": Seen(SUNNY, calls=(IN_OSLO,)),
    "two_tools_in_turn": Seen(SUNNY, calls=(IN_OSLO, IN_ROME)),
    "two_parallel_tools": Seen(SUNNY, calls=(IN_OSLO, IN_ROME)),
    "interleaved_arguments": Seen(SUNNY, calls=(IN_OSLO, IN_ROME)),
    "two_calls_in_one_chunk": Seen(SUNNY, calls=(IN_OSLO, IN_ROME)),
    "calls_without_index": Seen(SUNNY, calls=(IN_OSLO, IN_ROME)),
    "name_and_arguments_in_one_chunk": Seen(SUNNY, calls=(IN_OSLO,)),
    "tool_call_in_content": Seen("Let me look.It is sunny.", calls=(IN_OSLO,)),
    "arguments_never_streamed": Seen(SUNNY, calls=(IN_OSLO,)),
    "empty_arguments": Seen(SUNNY, calls=(("get_status", "{}", "The station works."),)),
    "invalid_arguments": Seen("Trying. ", calls=(("get_weather", "city: Oslo", None),)),
    "valid_and_invalid_arguments": Seen(
        SUNNY, calls=(IN_OSLO, ("get_weather", "city: Rome", "Tool call get_weather with id call_bad"))
    ),
    "wrong_arguments": Seen("I cannot tell.", calls=(("get_weather", '{"town": "Oslo"}', "Error invoking tool"),)),
    "unknown_tool": Seen("I cannot tell.", calls=(("get_tides", OSLO, "Error: get_tides is not a valid tool"),)),
    "non_streaming_model_with_tool": Seen("Looking. It is sunny.", calls=(IN_OSLO,)),
    "tool_error_handled": Seen("The station is down.", calls=(("broken_weather", OSLO, "The station is down."),)),
    "tool_error_exception": Seen("It is closed.", calls=(("closed_weather", OSLO, "The station is closed."),)),
    "tool_error_middleware": Seen("No answer.", calls=(("broken_weather", OSLO, "The station does not answer."),)),
    "tool_error_fatal": Seen("Asking. ", status="failed", calls=(("broken_weather", OSLO, "The tool failed."),)),
    "client_tool": Seen(client_calls=(("get_weather", OSLO),)),
    "client_and_server_tool": Seen(
        calls=(("send_email", MAIL % "a", "Sent to a@b.example."),), client_calls=(("get_weather", OSLO),)
    ),
    "usage_over_two_turns": Seen("Sunny.", calls=(IN_OSLO,)),
    "recursion_limit": Seen(status="incomplete", calls=(IN_OSLO, IN_OSLO, ("get_weather", OSLO, None))),
    "approval": Seen("I will write. ", calls=(("send_email", MAIL % "oslo", None),), approvals=1),
    "two_approvals": Seen(
        "I will write. ",
        calls=(("send_email", MAIL % "oslo", None), ("send_email", MAIL % "rome", None)),
        approvals=2,
    ),
    "free_interrupt": Seen("One question.", approvals=1),
    "tool_interrupt": Seen(calls=(("get_weather_here", '{"unit": "C"}', None),), approvals=1),
    "subgraph": Seen("Inner answer. Outer answer.", calls=(IN_OSLO,)),
    "two_nodes_streaming_at_once": Seen("Left one.Right one."),
    "agent_as_tool": Seen(
        "Asking. The expert knows.", calls=(("ask_expert", '{"question": "Rome?"}', "Hidden expertise."),)
    ),
    "custom_events": Seen(SUNNY, calls=(("slow_search", '{"query": "sun"}', "Found it."),)),
    "node_returns_message": Seen("Written by hand."),
    "sync_node": Seen("From a thread."),
    "sync_tools": Seen("Looking. It is sunny.", calls=(IN_OSLO,)),
    "nostream_tag": Seen("Routed answer."),
    "no_messages": Seen(""),
    "plain_runnable": Seen(QUESTION[::-1]),
    "failing_runnable": Seen(status="failed"),
    "runnable_generator": Seen(QUESTION),
    "prompt_model_parser": Seen("Very brief."),
    "chat_model": Seen("Just a model."),
}

assert EXPECTED.keys() == SCENARIOS.keys(), EXPECTED.keys() ^ SCENARIOS.keys()


def seen_in(response: Mapping[str, Any]) -> Seen:
    """What a response object tells, its tool items in any style."""
    items = response["output"]
    outputs = {item["call_id"]: _text(item["output"]) for item in _of(items, "function_call_output")}
    client = {tool["name"] for tool in response["tools"] if tool["type"] == "function"}
    calls: list[tuple[str, str, str | None]] = []
    for item in items:
        if item["type"] == "mcp_call":
            calls.append((item["name"], item["arguments"], _ended(item)))
        elif item["type"] == "function_call" and item["name"] not in client:
            calls.append((item["name"], item["arguments"], outputs.get(item["call_id"])))
    parts = [part for item in _of(items, "message") for part in item["content"]]
    thoughts = [part["text"] for item in _of(items, "reasoning") for part in item["summary"]]
    return Seen(
        text="".join(part["text"] for part in parts if part["type"] == "output_text"),
        status=response["status"],
        calls=tuple(calls),
        client_calls=tuple((i["name"], i["arguments"]) for i in _of(items, "function_call") if i["name"] in client),
        reasoning="|".join(thoughts),
        refusal="".join(part["refusal"] for part in parts if part["type"] == "refusal"),
        approvals=len(_of(items, "mcp_approval_request")),
    )


def _of(items: list[dict[str, Any]], kind: str) -> list[dict[str, Any]]:
    return [item for item in items if item["type"] == kind]


def _ended(item: Mapping[str, Any]) -> str | None:
    """The output of an `mcp_call`, or what its `mcp_tool_execution_error` holds."""
    error = item.get("error")
    return _text(error["content"] if error else item.get("output"))


def _text(output: Any) -> str | None:
    if isinstance(output, list):
        return "".join(part.get("text", "") for part in output)
    return output if output is None else str(output)
