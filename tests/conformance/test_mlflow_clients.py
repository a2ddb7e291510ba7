"""MLflow as the judge of /invocations: its validators, its converters, and its Databricks client."""

from __future__ import annotations

import warnings
from collections.abc import Iterator
from typing import Any

import pytest
from langchain_core.messages import convert_to_openai_messages

from agent_server.graph.inputs import to_messages
from agent_server.protocols.responses.request import parse_request
from tests.conformance.expected import EXPECTED, QUESTION, seen_in
from tests.conformance.judged import BAD, FAILURE, GOOD, agrees, body
from tests.support.scripted import SCENARIOS
from tests.support.sse import post, read_events

with warnings.catch_warnings():
    warnings.simplefilter("ignore")  # mlflow's own imports warn; ours are judged below
    from mlflow.deployments import get_deploy_client
    from mlflow.types.responses import (
        ResponsesAgentRequest,
        ResponsesAgentResponse,
        ResponsesAgentStreamEvent,
        output_to_responses_items_stream,
        to_chat_completions_input,
    )

USER = {"role": "user", "content": QUESTION}


@pytest.fixture
def client(base_url: str, monkeypatch: pytest.MonkeyPatch) -> Any:
    """The deployment client, told that this server is a workspace."""
    monkeypatch.setenv("DATABRICKS_HOST", base_url)
    monkeypatch.setenv("DATABRICKS_TOKEN", "none")
    monkeypatch.setenv("MLFLOW_ENABLE_DB_SDK", "false")
    return get_deploy_client("databricks")  # type: ignore[no-untyped-call]


def predict_stream(client: Any, scenario: str, **more: Any) -> Iterator[dict[str, Any]]:
    """Endpoint "/" makes the client post to /invocations itself."""
    stream: Iterator[dict[str, Any]] = client.predict_stream(endpoint="/", inputs=body(scenario, input=[USER], **more))
    return stream


@pytest.mark.parametrize("scenario", [*GOOD, *BAD])
def test_every_event_passes_the_validator(base_url: str, scenario: str) -> None:
    answer = post(f"{base_url}/invocations", body(scenario, stream=True))
    events = read_events(answer, "data_only")
    for event in events:
        ResponsesAgentStreamEvent.model_validate(event)
    ResponsesAgentResponse.model_validate(events[-1]["response"])


@pytest.mark.parametrize("scenario", GOOD)
def test_the_answer_without_streaming_passes_the_validator(base_url: str, scenario: str) -> None:
    answer = post(f"{base_url}/invocations", body(scenario))
    assert answer.status == 200
    response = ResponsesAgentResponse.model_validate(answer.json())
    assert response.status == "completed"


CONVERTED = (
    "plain_text",
    "non_streaming_model",
    "length_limit",
    "text_tool_text",
    "one_tool",
    "two_tools_in_turn",
    "two_calls_in_one_chunk",
    "wrong_arguments",
    "unknown_tool",
)
"""Scenarios with the kinds of content that MLflow's own converter takes: text, calls, outputs."""


def gist(item: dict[str, Any]) -> tuple[Any, ...]:
    """An item without the ids that each converter makes."""
    said = "".join(part["text"] for part in item.get("content") or ())
    return (item["type"], said, *(item.get(key) for key in ("call_id", "name", "arguments", "output")))


@pytest.mark.parametrize("scenario", CONVERTED)
def test_the_items_are_those_that_mlflows_converter_makes_of_the_messages(base_url: str, scenario: str) -> None:
    said = SCENARIOS[scenario]().invoke({"messages": [USER]})["messages"][1:]
    wanted = [event.model_dump()["item"] for event in output_to_responses_items_stream(said)]
    told = post(f"{base_url}/invocations", body(scenario)).json()["output"]
    assert list(map(gist, told)) == list(map(gist, wanted))


def test_a_conversation_reaches_the_agent_as_mlflows_converter_has_it() -> None:
    items: list[dict[str, Any]] = [
        {"role": "system", "content": "Be brief."},
        {"role": "user", "content": "What colour?"},
        {"type": "function_call", "id": "fc_1", "call_id": "call_1", "name": "look", "arguments": '{"at": "sky"}'},
        {"type": "function_call_output", "call_id": "call_1", "output": "blue"},
        {"type": "message", "id": "m", "role": "assistant", "content": [{"type": "output_text", "text": "Blue."}]},
        {"role": "user", "content": "And now?"},
    ]
    ours = convert_to_openai_messages(to_messages(parse_request({"input": items}).turns))
    assert list(map(meaning, ours)) == list(map(meaning, to_chat_completions_input(items)))


def meaning(message: dict[str, Any]) -> tuple[Any, ...]:
    """A message of Chat Completions; beside a call its text says nothing: MLflow makes one up."""
    calls = [(call["id"], call["function"]) for call in message.get("tool_calls") or ()]
    return message["role"], message.get("tool_call_id"), calls, "" if calls else message["content"]


@pytest.mark.parametrize("scenario", [name for name in GOOD if name != "client_tool"])
def test_a_second_turn_may_send_back_the_output_as_mlflow_reads_it(base_url: str, scenario: str) -> None:
    first = ResponsesAgentResponse.model_validate(post(f"{base_url}/invocations", body(scenario)).json())
    items = [item.model_dump(exclude_none=True) for item in first.output]
    history = [USER, *items, {"role": "user", "content": "And again?"}]
    ResponsesAgentRequest.model_validate({"input": history})
    second = post(f"{base_url}/invocations", body(scenario, input=history))
    assert second.status == 200, second.body
    agrees(seen_in(second.json()), EXPECTED[scenario])


@pytest.mark.parametrize("scenario", [*GOOD, "unicode_split"])
def test_the_databricks_client_reads_every_line(client: Any, scenario: str) -> None:
    events = list(predict_stream(client, scenario))
    assert events[-1]["type"] == "response.completed"
    agrees(seen_in(events[-1]["response"]), EXPECTED[scenario])
    deltas = [event["delta"] for event in events if event["type"] == "response.output_text.delta"]
    assert "".join(deltas) == EXPECTED[scenario].text


def test_the_databricks_client_gets_the_whole_answer(client: Any) -> None:
    response = client.predict(endpoint="/", inputs=body("one_tool", input=[USER]))
    agrees(seen_in(response), EXPECTED["one_tool"])


@pytest.mark.parametrize("scenario", BAD)
def test_the_databricks_client_is_told_of_a_failure(client: Any, scenario: str) -> None:
    error, failed = list(predict_stream(client, scenario))[-2:]
    assert error["type"] == "error"
    assert error["message"].startswith(FAILURE)
    assert failed["type"] == "response.failed"
