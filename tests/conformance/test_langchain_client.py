"""LangChain's `ChatOpenAI(use_responses_api=True)` as the judge: `invoke`, `stream`, and second turns."""

from __future__ import annotations

import json
from typing import Any

import pytest
from langchain_core.messages import AIMessage, AIMessageChunk, BaseMessage, HumanMessage, ToolMessage
from langchain_openai import ChatOpenAI
from openai import APIError, InternalServerError

from tests.conformance.expected import EXPECTED, QUESTION, Seen
from tests.conformance.judged import BAD, FAILURE, GOOD, Forecast
from tests.support.tools import get_weather

ANSWERED = [name for name in GOOD if name not in ("structured_output", "client_tool")]
MODES = ("invoke", "stream")


def chat(base_url: str, scenario: str, style: str = "mcp_call") -> ChatOpenAI:
    return ChatOpenAI(
        model=scenario,
        base_url=f"{base_url}/v1",
        api_key=lambda: "none",
        use_responses_api=True,
        default_headers={"x-tool-items": style},
    )


def ask(model: Any, mode: str, messages: list[BaseMessage] | None = None) -> AIMessage:
    messages = messages or [HumanMessage(QUESTION)]
    if mode == "invoke":
        answer: AIMessage = model.invoke(messages)
        return answer
    whole: AIMessageChunk | None = None
    for chunk in model.stream(messages):
        whole = chunk if whole is None else whole + chunk
    assert whole is not None
    return whole


def judge(answer: AIMessage, wanted: Seen) -> None:
    """Hosted calls arrive as LangChain's server tools, refusals as blocks without a standard form."""
    blocks: list[dict[str, Any]] = [dict(block) for block in answer.content_blocks]
    calls = [block for block in blocks if block["type"] == "server_tool_call"]
    results = {block["tool_call_id"]: block for block in blocks if block["type"] == "server_tool_result"}
    assert [(call["extras"]["tool_name"], call["args"]) for call in calls] == [
        (name, json.loads(args)) for name, args, _ in wanted.calls
    ]
    for call, (_, _, output) in zip(calls, wanted.calls, strict=True):
        result = results[call["id"]]
        assert (output or "") in str(result.get("output") or result["extras"]["error"])
    assert answer.text == wanted.text
    assert _joined(blocks, "reasoning") == wanted.reasoning
    strange = [block["value"] for block in blocks if block["type"] == "non_standard"]
    assert _joined(strange, "refusal") == wanted.refusal
    assert answer.tool_calls == []
    assert answer.usage_metadata is not None
    assert answer.usage_metadata["total_tokens"] > 0


def _joined(blocks: list[dict[str, Any]], kind: str) -> str:
    return "".join(block[kind] for block in blocks if block["type"] == kind)


@pytest.mark.parametrize("mode", MODES)
@pytest.mark.parametrize("scenario", ANSWERED)
def test_the_answer_arrives_with_hosted_tool_calls_as_server_tools(base_url: str, scenario: str, mode: str) -> None:
    judge(ask(chat(base_url, scenario), mode), EXPECTED[scenario])


@pytest.mark.parametrize("mode", MODES)
@pytest.mark.parametrize("scenario", ANSWERED)
def test_a_second_turn_may_send_back_the_first_answer(base_url: str, scenario: str, mode: str) -> None:
    model = chat(base_url, scenario)
    first = ask(model, mode)
    second = ask(model, mode, [HumanMessage(QUESTION), first, HumanMessage("And again?")])
    judge(second, EXPECTED[scenario])


@pytest.mark.parametrize("mode", MODES)
def test_function_call_items_look_like_calls_that_wait_for_the_client(base_url: str, mode: str) -> None:
    """Why `mcp_call` is the default on /v1/responses: this client cannot tell that the call was answered."""
    answer = ask(chat(base_url, "one_tool", "function_call"), mode)
    assert [call["name"] for call in answer.tool_calls] == ["get_weather"]
    assert answer.text == "It is sunny."


@pytest.mark.parametrize("mode", MODES)
def test_a_tool_of_the_client_goes_round(base_url: str, mode: str) -> None:
    model = chat(base_url, "client_tool").bind_tools([get_weather])
    first = ask(model, mode)
    (call,) = first.tool_calls
    assert (call["name"], call["args"]) == ("get_weather", {"city": "Oslo"})
    result = ToolMessage("It is sunny in Oslo.", tool_call_id=call["id"])
    second = ask(model, mode, [HumanMessage(QUESTION), first, result])
    assert second.text == "It is sunny."


def test_structured_output_parses(base_url: str) -> None:
    model = chat(base_url, "structured_output").with_structured_output(Forecast, method="json_schema")
    assert model.invoke(QUESTION) == Forecast(city="Oslo", celsius=21)


@pytest.mark.parametrize("scenario", BAD)
def test_a_failure_without_streaming_is_a_server_error(base_url: str, scenario: str) -> None:
    with pytest.raises(InternalServerError, match=FAILURE):
        ask(chat(base_url, scenario), "invoke")


@pytest.mark.parametrize("scenario", BAD)
def test_a_failure_in_a_stream_raises_its_public_message(base_url: str, scenario: str) -> None:
    with pytest.raises(APIError, match=FAILURE):
        ask(chat(base_url, scenario), "stream")
