"""openai-python as the judge: `create`, streams, its accumulator, `parse`, and second turns."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import pytest
from openai import APIError, InternalServerError, OpenAI
from openai.types.responses import Response

from tests.conformance.expected import QUESTION, REQUESTS, seen_in
from tests.conformance.judged import BAD, FAILURE, GOOD, STYLES, Forecast, agrees, body, expected

pytestmark = pytest.mark.parametrize("style", STYLES)


@pytest.fixture
def client(base_url: str, style: str) -> Iterator[OpenAI]:
    headers = {"x-tool-items": style}
    with OpenAI(base_url=f"{base_url}/v1", api_key="none", default_headers=headers) as openai:
        yield openai


def judge(response: Response, scenario: str, style: str) -> None:
    agrees(seen_in(response.model_dump(mode="json")), expected(scenario, style))
    assert response.output_text == expected(scenario, style).text


@pytest.mark.parametrize("scenario", GOOD)
def test_create_returns_the_answer(client: OpenAI, scenario: str, style: str) -> None:
    judge(client.responses.create(**body(scenario)), scenario, style)


@pytest.mark.parametrize("scenario", GOOD)
def test_a_raw_stream_ends_with_the_completed_answer(client: OpenAI, scenario: str, style: str) -> None:
    with client.responses.create(**body(scenario), stream=True) as stream:
        events = list(stream)
    assert [event.sequence_number for event in events] == list(range(len(events)))
    last = events[-1]
    assert last.type == "response.completed"
    judge(last.response, scenario, style)
    deltas = [event.delta for event in events if event.type == "response.output_text.delta"]
    assert "".join(deltas) == last.response.output_text


@pytest.mark.parametrize("scenario", GOOD)
def test_the_accumulator_follows_the_stream(client: OpenAI, scenario: str, style: str) -> None:
    with client.responses.stream(**body(scenario)) as stream:
        snapshots = [event.snapshot for event in stream if event.type == "response.output_text.delta"]
        final = stream.get_final_response()
    judge(final, scenario, style)
    if len([item for item in final.output if item.type == "message"]) == 1 and snapshots:
        assert snapshots[-1] == final.output_text


def test_parse_reads_structured_output(client: OpenAI) -> None:
    response = client.responses.parse(model="structured_output", input=QUESTION, text_format=Forecast)
    assert response.output_parsed == Forecast(city="Oslo", celsius=21)


def test_a_stream_parses_structured_output(client: OpenAI) -> None:
    with client.responses.stream(model="structured_output", input=QUESTION, text_format=Forecast) as stream:
        final = stream.get_final_response()
    assert final.output_parsed == Forecast(city="Oslo", celsius=21)


def test_parse_of_a_refusal_parses_nothing(client: OpenAI) -> None:
    response = client.responses.parse(model="refusal", input=QUESTION, text_format=Forecast)
    assert response.output_parsed is None
    (message,) = response.output
    assert message.type == "message"
    assert [part.type for part in message.content] == ["refusal"]


@pytest.mark.parametrize("scenario", BAD)
def test_a_failure_without_streaming_is_a_server_error_asked_for_once(
    client: OpenAI, scenario: str, style: str
) -> None:
    with pytest.raises(InternalServerError) as raised:
        client.responses.create(**body(scenario))
    assert raised.value.status_code == 500
    assert raised.value.code == "server_error"
    assert raised.value.body["message"].startswith(FAILURE)  # type: ignore[index]
    assert raised.value.request.headers["x-stainless-retry-count"] == "0"


@pytest.mark.parametrize("scenario", BAD)
def test_a_failure_in_a_stream_raises_its_public_message(client: OpenAI, scenario: str, style: str) -> None:
    with client.responses.create(**body(scenario), stream=True) as stream:
        types = [next(stream).type, next(stream).type]
        with pytest.raises(APIError) as raised:
            list(stream)
    assert types == ["response.created", "response.in_progress"]
    assert raised.value.message.startswith(FAILURE)


@pytest.mark.parametrize("scenario", BAD)
def test_a_failure_reaches_the_accumulator_with_its_message(client: OpenAI, scenario: str, style: str) -> None:
    with pytest.raises(APIError, match=FAILURE), client.responses.stream(**body(scenario)) as stream:
        stream.until_done()


@pytest.mark.parametrize("scenario", [name for name in GOOD if name != "client_tool"])
def test_a_second_turn_may_send_back_every_item_of_the_first(client: OpenAI, scenario: str, style: str) -> None:
    first = client.responses.create(**body(scenario))
    again = {"role": "user", "content": "And again?"}
    history: list[Any] = [{"role": "user", "content": QUESTION}, *first.output, again]
    second = client.responses.create(**body(scenario, input=history))
    judge(second, scenario, style)
    assert {item.id for item in first.output}.isdisjoint(item.id for item in second.output)


def test_the_client_runs_its_own_tool_and_the_agent_goes_on(client: OpenAI, style: str) -> None:
    first = client.responses.create(**body("client_tool"))
    (call,) = first.output
    assert call.type == "function_call"
    output = {"type": "function_call_output", "call_id": call.call_id, "output": "sunny"}
    history: list[Any] = [{"role": "user", "content": QUESTION}, *first.output, output]
    second = client.responses.create(model="client_tool", input=history, tools=REQUESTS["client_tool"]["tools"])
    assert second.output_text == "It is sunny."


@pytest.mark.parametrize("scenario", GOOD)
def test_the_mount_without_a_version_serves_the_same_client(base_url: str, scenario: str, style: str) -> None:
    headers = {"x-tool-items": style}
    with (
        OpenAI(base_url=base_url, api_key="none", default_headers=headers) as client,
        client.responses.stream(**body(scenario)) as stream,
    ):
        judge(stream.get_final_response(), scenario, style)
