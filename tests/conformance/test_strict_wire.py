"""Every scenario, on every mount, in every tool style: OpenAI's own models and the rules of the stream."""

from __future__ import annotations

import json
import re
from typing import Any, get_args

import pytest
from openai.types.responses import Response, ResponseStreamEvent
from pydantic import BaseModel

from tests.conformance.expected import EXPECTED, QUESTION, REQUESTS, seen_in
from tests.conformance.judged import STYLES, agrees, expected
from tests.conformance.rules import check_response, check_stream
from tests.support.scripted import SECRET
from tests.support.sse import Answer, Dialect, post, read_events

STREAM_EVENTS: dict[str, type[BaseModel]] = {
    get_args(model.model_fields["type"].annotation)[0]: model for model in get_args(get_args(ResponseStreamEvent)[0])
}
MOUNTS: dict[str, Dialect] = {"/v1/responses": "named", "/responses": "named", "/invocations": "data_only"}
DEFAULT_STYLE = {"/v1/responses": "mcp_call", "/responses": "function_call", "/invocations": "function_call"}
TOOL_ITEMS = {
    "function_call": {"function_call", "function_call_output"},
    "mcp_call": {"mcp_call", "image_generation_call"},
    "none": set[str](),
}

every_scenario = pytest.mark.parametrize("scenario", EXPECTED)
every_mount = pytest.mark.parametrize("mount", MOUNTS)
every_style = pytest.mark.parametrize("style", STYLES)


def ask(base_url: str, mount: str, scenario: str, *, stream: bool, style: str | None = None) -> Answer:
    body = {"model": scenario, "input": [{"role": "user", "content": QUESTION}], "stream": stream}
    answer = post(base_url + mount, body | REQUESTS.get(scenario, {}), {"x-tool-items": style} if style else None)
    assert SECRET.encode() not in answer.body
    return answer


def streamed(base_url: str, mount: str, scenario: str, style: str | None = None) -> list[dict[str, Any]]:
    answer = ask(base_url, mount, scenario, stream=True, style=style)
    assert answer.status == 200, answer.body
    return read_events(answer, MOUNTS[mount])


@every_style
@every_mount
@every_scenario
def test_every_stream_is_legal_and_tells_what_the_agent_did(
    base_url: str, scenario: str, mount: str, style: str
) -> None:
    events = streamed(base_url, mount, scenario, style)
    for event in events:
        STREAM_EVENTS[event["type"]].model_validate(event)
    response = check_stream(events)
    Response.model_validate(response)
    agrees(seen_in(response), expected(scenario, style))
    client_calls = {"function_call"} if response["tools"] else set()
    kinds = {item["type"] for item in response["output"]} - {"message", "reasoning", "mcp_approval_request"}
    assert kinds <= TOOL_ITEMS[style] | client_calls


@every_mount
@every_scenario
def test_the_answer_without_streaming_is_the_response_of_the_terminal_event(
    base_url: str, scenario: str, mount: str
) -> None:
    final = streamed(base_url, mount, scenario)[-1]["response"]
    answer = ask(base_url, mount, scenario, stream=False)
    body = answer.json()
    if final["status"] == "failed":
        assert answer.status == 500
        assert body["error"].keys() == {"message", "type", "param", "code"}
        assert body["error"]["code"] == final["error"]["code"]
        assert answer.headers["x-should-retry"] == "false"
        return
    assert answer.status == 200
    check_response(body)
    Response.model_validate(body)
    assert _timeless(body) == _timeless(final)


@every_mount
def test_a_mount_has_its_own_style_of_tool_items(base_url: str, mount: str) -> None:
    final = streamed(base_url, mount, "one_tool")[-1]["response"]
    kinds = {item["type"] for item in final["output"]}
    assert kinds - {"message"} == TOOL_ITEMS[DEFAULT_STYLE[mount]] - {"image_generation_call"}


@every_mount
def test_usage_is_summed_over_all_turns(base_url: str, mount: str) -> None:
    final = streamed(base_url, mount, "usage_over_two_turns")[-1]["response"]
    assert final["usage"] == {
        "input_tokens": 230,
        "input_tokens_details": {"cached_tokens": 160, "cache_write_tokens": 7},
        "output_tokens": 28,
        "output_tokens_details": {"reasoning_tokens": 15},
        "total_tokens": 258,
    }


@pytest.mark.parametrize(
    ("scenario", "reason"),
    [
        ("length_limit", "max_output_tokens"),
        ("content_filter", "content_filter"),
        ("recursion_limit", "max_messages"),
    ],
)
def test_an_incomplete_response_says_why(base_url: str, scenario: str, reason: str) -> None:
    final = streamed(base_url, "/v1/responses", scenario)[-1]["response"]
    assert final["incomplete_details"] == {"reason": reason}


def test_a_citation_becomes_an_annotation_of_its_text(base_url: str) -> None:
    final = streamed(base_url, "/v1/responses", "citations")[-1]["response"]
    (annotation,) = final["output"][0]["content"][0]["annotations"]
    assert annotation == {
        "type": "url_citation",
        "url": "https://weather.example/oslo",
        "title": "Oslo today",
        "start_index": 0,
        "end_index": 14,
    }


@every_mount
def test_an_error_event_is_flat_and_nested_at_once(base_url: str, mount: str) -> None:
    events = streamed(base_url, mount, "model_error_after_first_token")
    error, failed = events[-2:]
    assert error["type"] == "error"
    nested = error["error"]
    assert {key: error[key] for key in ("code", "message", "param")} == {
        key: nested[key] for key in ("code", "message", "param")
    }
    assert nested["type"]
    assert failed["response"]["error"]["message"] == nested["message"]
    assert re.search(r"err_[0-9a-f]{16}", nested["message"])


def _timeless(response: dict[str, Any]) -> Any:
    """The response without what belongs to one run alone: its id, which all its ids hold, and its times."""
    run_id = response["id"].removeprefix("resp_")
    text = json.dumps({**response, "created_at": 0, "completed_at": 0}, sort_keys=True)
    return json.loads(text.replace(run_id, "RUN"))
