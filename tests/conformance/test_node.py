"""JavaScript clients as judges: openai-node, the AI SDK with OpenAI's provider and with Databricks' provider."""

from __future__ import annotations

import json
from collections.abc import Callable
from functools import cache
from typing import Any

import pytest

from tests.conformance.expected import EXPECTED, QUESTION, REQUESTS, seen_in
from tests.conformance.judged import BAD, FAILURE, GOOD, agrees, body, expected
from tests.conformance.node_judges import Task, Verdict, ready, verdicts
from tests.conformance.rules import check_stream

pytestmark = pytest.mark.node

USER = {"role": "user", "content": QUESTION}
AGAIN = {"role": "user", "content": "And again?"}
SECOND_TURN = ("plain_text", "one_tool", "two_parallel_tools", "reasoning_then_text", "tool_error_handled")

Ask = Callable[..., Verdict]


@pytest.fixture(scope="module")
def openai_node(node_url: str) -> Ask:
    """The verdict of openai-node on a scenario; one process judges all scenarios of a mode and a style."""

    @cache
    def all_of(mode: str, style: str) -> dict[str, Verdict]:
        return _each("openai_node", {"baseURL": f"{node_url}/v1", "mode": mode, "headers": _styled(style)}, _body)

    return lambda mode, style, scenario: all_of(mode, style)[scenario]


@pytest.fixture(scope="module")
def ai_sdk(node_url: str) -> Ask:
    """The verdict of `@ai-sdk/openai` on a scenario, at the default style of /v1/responses."""

    @cache
    def all_of(mode: str) -> dict[str, Verdict]:
        return _each("ai_sdk_openai", {"baseURL": f"{node_url}/v1", "mode": mode}, _messages)

    return lambda mode, scenario: all_of(mode)[scenario]


@pytest.fixture(scope="module")
def databricks(node_url: str) -> Ask:
    """The verdict of `@databricks/ai-sdk-provider` on a scenario, at the default style of /invocations."""

    @cache
    def all_of(mode: str) -> dict[str, Verdict]:
        return _each("databricks", {"baseURL": node_url, "mode": mode}, _messages)

    return lambda mode, scenario: all_of(mode)[scenario]


def _each(judge: str, base: Task, fields: Callable[[str], Task]) -> dict[str, Verdict]:
    names = (*GOOD, *BAD)
    return dict(zip(names, verdicts(judge, [base | fields(name) for name in names]), strict=True))


def _styled(style: str) -> dict[str, str]:
    return {"x-tool-items": style}


def _body(scenario: str) -> Task:
    return {"body": body(scenario)}


def _messages(scenario: str) -> Task:
    asked = REQUESTS.get(scenario, {})
    task: Task = {"model": scenario, "messages": [USER], "tools": asked.get("tools", [])}
    return task | ({"format": asked["text"]["format"]} if "text" in asked else {})


def _calls(scenario: str) -> list[tuple[str, Any]]:
    return [(name, json.loads(arguments)) for name, arguments, _ in EXPECTED[scenario].calls]


def test_without_node_the_judges_skip_and_in_ci_they_fail(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("PATH", "")
    monkeypatch.delenv("CI", raising=False)
    with pytest.raises(pytest.skip.Exception, match="node and npm not found"):
        ready()
    monkeypatch.setenv("CI", "true")
    with pytest.raises(pytest.fail.Exception, match="node and npm not found"):
        ready()


# openai-node


@pytest.mark.parametrize("mode", ["create", "accumulate"])
@pytest.mark.parametrize("style", ["mcp_call", "function_call"])
@pytest.mark.parametrize("scenario", GOOD)
def test_openai_node_reads_the_answer(openai_node: Ask, scenario: str, style: str, mode: str) -> None:
    verdict = openai_node(mode, style, scenario)
    assert verdict["ok"], verdict
    agrees(seen_in(verdict["response"]), expected(scenario, style))
    assert verdict["text"] == EXPECTED[scenario].text


@pytest.mark.parametrize("style", ["mcp_call", "function_call"])
@pytest.mark.parametrize("scenario", GOOD)
def test_openai_node_passes_every_event_on(openai_node: Ask, scenario: str, style: str) -> None:
    verdict = openai_node("stream", style, scenario)
    assert verdict["ok"], verdict
    agrees(seen_in(check_stream(verdict["events"])), expected(scenario, style))


@pytest.mark.parametrize("mode", ["create", "stream", "accumulate"])
@pytest.mark.parametrize("scenario", BAD)
def test_openai_node_throws_the_public_message_of_a_failure(openai_node: Ask, scenario: str, mode: str) -> None:
    verdict = openai_node(mode, "mcp_call", scenario)
    assert not verdict["ok"]
    assert FAILURE in verdict["error"]["message"]
    assert verdict["error"]["status"] == (500 if mode == "create" else None)


@pytest.mark.parametrize("style", ["mcp_call", "function_call"])
def test_openai_node_sends_back_what_it_got(openai_node: Ask, node_url: str, style: str) -> None:
    tasks: list[Task] = []
    for scenario in SECOND_TURN:
        first = openai_node("accumulate", style, scenario)["response"]
        history = [USER, *first["output"], AGAIN]
        url = {"baseURL": f"{node_url}/v1", "mode": "accumulate", "headers": _styled(style)}
        tasks.append(url | {"body": body(scenario, input=history)})
    for scenario, verdict in zip(SECOND_TURN, verdicts("openai_node", tasks), strict=True):
        assert verdict["ok"], (scenario, verdict)
        agrees(seen_in(verdict["response"]), expected(scenario, style))


# AI SDK, @ai-sdk/openai


@pytest.mark.parametrize("mode", ["generate", "stream"])
@pytest.mark.parametrize("scenario", GOOD)
def test_the_ai_sdk_reads_the_answer_and_its_hosted_calls(ai_sdk: Ask, scenario: str, mode: str) -> None:
    verdict, wanted = ai_sdk(mode, scenario), EXPECTED[scenario]
    assert verdict["ok"], verdict
    assert verdict["text"] == wanted.text + wanted.refusal
    assert verdict["reasoning"] == wanted.reasoning
    hosted = [call for call in verdict["toolCalls"] if call["providerExecuted"]]
    assert [(call["toolName"], call["input"]) for call in hosted] == [
        (f"mcp.{name}", arguments) for name, arguments in _calls(scenario)
    ]
    for result, (_, _, output) in zip(verdict["toolResults"], wanted.calls, strict=True):
        said = result["output"]
        assert (said["output"] if "output" in said else said["error"]["content"][0]["text"]) == output
    assert verdict["usage"]["output"] > 0
    own = [call for call in verdict["toolCalls"] if not call["providerExecuted"]]
    assert [(call["toolName"], call["input"], call["invalid"]) for call in own] == [
        (name, json.loads(arguments), False) for name, arguments in wanted.client_calls
    ]
    reasons = {"client_tool": "tool-calls", "refusal": "content-filter"}
    assert verdict["finishReason"] == reasons.get(scenario, "stop")


@pytest.mark.parametrize("mode", ["generate", "stream"])
def test_the_ai_sdk_parses_structured_output(ai_sdk: Ask, mode: str) -> None:
    assert ai_sdk(mode, "structured_output")["output"] == {"city": "Oslo", "celsius": 21}


@pytest.mark.parametrize("scenario", BAD)
def test_the_ai_sdk_is_told_of_a_failure(ai_sdk: Ask, scenario: str) -> None:
    failed = ai_sdk("generate", scenario)
    assert not failed["ok"]
    assert failed["error"]["status"] == 500
    assert failed["error"]["message"].startswith(FAILURE)
    parts = ai_sdk("stream", scenario)["parts"]
    (error,) = [part for part in parts if part["type"] == "error"]
    assert error["message"].startswith(FAILURE)
    assert {part["finishReason"] for part in parts if part["type"] == "finish"} <= {"error"}


@pytest.mark.parametrize("mode", ["generate", "stream"])
def test_the_ai_sdk_without_storage_sends_back_what_it_got(ai_sdk: Ask, node_url: str, mode: str) -> None:
    base = {"baseURL": f"{node_url}/v1", "mode": mode, "store": False}
    histories = [[USER, *ai_sdk(mode, scenario)["messages"], AGAIN] for scenario in SECOND_TURN]
    tasks = [base | {"model": name, "messages": said} for name, said in zip(SECOND_TURN, histories, strict=True)]
    for scenario, verdict in zip(SECOND_TURN, verdicts("ai_sdk_openai", tasks), strict=True):
        assert verdict["ok"], (scenario, verdict)
        assert verdict["text"] == EXPECTED[scenario].text


@pytest.mark.parametrize("mode", ["generate", "stream"])
def test_the_ai_sdk_brings_back_the_result_of_its_own_tool(ai_sdk: Ask, node_url: str, mode: str) -> None:
    (call,) = ai_sdk(mode, "client_tool")["toolCalls"]
    result = {
        "type": "tool-result",
        "toolCallId": call["toolCallId"],
        "toolName": call["toolName"],
        "output": {"type": "text", "value": "sunny"},
    }
    history = [USER, *ai_sdk(mode, "client_tool")["messages"], {"role": "tool", "content": [result]}]
    task = {"baseURL": f"{node_url}/v1", "mode": mode, "store": False, **_messages("client_tool")}
    (verdict,) = verdicts("ai_sdk_openai", [task | {"messages": history}])
    assert verdict["ok"], verdict
    assert verdict["text"] == "It is sunny."


def test_the_ai_sdk_knows_no_answered_function_calls(node_url: str) -> None:
    """Why `mcp_call` is the default on /v1/responses."""
    base = {"baseURL": f"{node_url}/v1", "headers": _styled("function_call"), **_messages("one_tool")}
    generated, streamed = verdicts("ai_sdk_openai", [base | {"mode": mode} for mode in ("generate", "stream")])
    assert generated["error"]["message"] == "Invalid JSON response"
    assert [call["invalid"] for call in streamed["toolCalls"]] == [True]
    assert streamed["finishReason"] == "tool-calls"


# AI SDK, @databricks/ai-sdk-provider


@pytest.mark.parametrize("mode", ["generate", "stream"])
@pytest.mark.parametrize("scenario", [name for name in GOOD if name not in ("refusal", "client_tool")])
def test_databricks_reads_the_answer_and_the_results_of_calls(databricks: Ask, scenario: str, mode: str) -> None:
    verdict, wanted = databricks(mode, scenario), EXPECTED[scenario]
    assert verdict["ok"], verdict
    assert verdict["text"] == wanted.text
    assert verdict["reasoning"] == wanted.reasoning
    calls = [part for part in verdict["parts"] if part["type"] == "tool-call"]
    assert [(call["toolName"], call["input"]) for call in calls] == _calls(scenario)
    results = [part for part in verdict["parts"] if part["type"] == "tool-result"]
    assert [(part["toolCallId"], part["output"]) for part in results] == [
        (call["toolCallId"], output) for call, (_, _, output) in zip(calls, wanted.calls, strict=True)
    ]


@pytest.mark.parametrize("scenario", ["one_tool", "two_parallel_tools", "tool_error_handled"])
def test_databricks_takes_streamed_calls_as_run_by_the_server(databricks: Ask, scenario: str) -> None:
    """Its `generateText` cannot: there it asks for a tool of the client with that name."""
    for mode, hosted in (("stream", True), ("generate", False)):
        calls = [part for part in databricks(mode, scenario)["parts"] if part["type"] == "tool-call"]
        assert {bool(call.get("providerExecuted")) for call in calls} == {hosted}


@pytest.mark.parametrize("mode", ["generate", "stream"])
def test_databricks_parses_structured_output(databricks: Ask, mode: str) -> None:
    assert databricks(mode, "structured_output")["output"] == {"city": "Oslo", "celsius": 21}


@pytest.mark.parametrize("mode", ["generate", "stream"])
def test_databricks_gets_the_call_of_a_client_tool(databricks: Ask, mode: str) -> None:
    verdict = databricks(mode, "client_tool")
    assert verdict["ok"], verdict
    call = next(part for part in verdict["parts"] if part["type"] == "tool-call")
    assert (call["toolName"], call["input"]) == ("get_weather", {"city": "Oslo"})
    assert not call.get("providerExecuted")


def test_databricks_cannot_read_refusals(databricks: Ask) -> None:
    """Its schema knows no refusal parts, whoever sends them."""
    assert databricks("generate", "refusal")["error"]["message"] == "Invalid JSON response"
    assert databricks("stream", "refusal")["error"]["name"] == "TypeError"


@pytest.mark.parametrize("scenario", BAD)
def test_databricks_is_told_of_a_failure(databricks: Ask, scenario: str) -> None:
    failed = databricks("generate", scenario)
    assert failed["error"]["status"] == 500
    assert FAILURE in failed["error"]["message"]
    (error,) = [part for part in databricks("stream", scenario)["parts"] if part["type"] == "error"]
    assert error["message"].startswith(FAILURE)


def test_databricks_sends_back_what_it_got(databricks: Ask, node_url: str) -> None:
    base = {"baseURL": node_url, "mode": "stream"}
    tasks = [
        base | {"model": name, "messages": [USER, *databricks("stream", name)["messages"], AGAIN]}
        for name in SECOND_TURN
    ]
    for scenario, verdict in zip(SECOND_TURN, verdicts("databricks", tasks), strict=True):
        assert verdict["ok"], (scenario, verdict)
        assert verdict["text"] == EXPECTED[scenario].text
