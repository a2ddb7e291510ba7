"""Traces as MLflow's own tracking server has them."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
from langchain_core.runnables import RunnableLambda
from mlflow.tracing.constant import SpanAttributeKey

from agent_server.context import RequestContext
from tests.support.sse import post, read_events
from tests.support.traced import QUIET, TIMEOUT, Trace, Traced, root, scenario, sqlite_store, told, tracing, tree
from tests.support.wire import Wire

pytestmark = [pytest.mark.xdist_group("tracing"), TIMEOUT]
ROOT = Path(__file__).parents[3]


def test_a_run_leaves_one_trace_with_what_was_asked_and_answered(traced: Traced) -> None:
    body = scenario("one_tool", context={"conversation_id": "talk-1", "user_id": "ann"}, client_request_id="mine-1")
    response = traced.ask("/responses", **body)
    trace = traced.trace(response["metadata"]["trace_id"])
    span = root(trace)
    assert (span.name, span.parent_id) == ("one_tool", None)
    assert span.inputs == body
    assert span.outputs == {"output": response["output"]}
    assert trace.info.state == "OK"
    assert trace.info.tags["agent_server.run_status"] == "completed"
    assert trace.info.trace_metadata["mlflow.trace.session"] == "talk-1"
    assert trace.info.trace_metadata["mlflow.trace.user"] == "ann"
    assert trace.info.client_request_id == "mine-1"
    usage = span.get_attribute(SpanAttributeKey.CHAT_USAGE)  # the store sums it up for the trace, in its own time
    assert {"input_tokens": 20, "output_tokens": 10, "total_tokens": 30}.items() <= usage.items()


def test_a_streamed_run_is_traced_like_any_other(traced: Traced) -> None:
    response = read_events(post(f"{traced.url}/responses", scenario("one_tool", stream=True)))[-1]["response"]
    trace = traced.trace_of(response)
    assert root(trace).outputs == {"output": response["output"]}
    assert tree(trace) == tree(traced.trace_of(traced.ask(**scenario("one_tool"))))


def test_the_server_tells_what_became_of_its_traces(traced: Traced) -> None:
    before = traced.http.get("/agent/info").json()["traces"]
    traced.trace_of(traced.ask(**scenario("plain_text")))
    after = traced.http.get("/agent/info").json()["traces"]
    assert after["exported"] > before["exported"]
    assert (after["failed"], after["dropped"]) == (0, 0)


# The same spans as MLflow's autologging makes

AUTOLOGGED = """
import asyncio, json, sys
import mlflow
from langchain_core.messages import HumanMessage
from agent_server.graph.agent import open_agent
from tests.support.scripted import SCENARIOS
from tests.support.traced import told, tree

async def trace(name):
    async with open_agent(name, SCENARIOS[name]) as agent:
        value = agent.input_for([HumanMessage("What?")])
        with mlflow.start_span(name, span_type="AGENT") as span:
            async for _ in agent.runnable.astream(value):
                pass
    return span.trace_id

mlflow.langchain.autolog()
made = [asyncio.run(trace(name)) for name in sys.argv[1:]]
mlflow.flush_trace_async_logging()
print(json.dumps([[tree(trace), told(trace)] for trace in map(mlflow.get_trace, made)]))
"""
COMPARED = ("one_tool", "subgraph", "agent_as_tool", "prompt_model_parser", "sync_tools", "chat_model", "image_out")


@pytest.fixture(scope="module")
def autologged(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Any]:
    """What MLflow's own autologging makes of some scenarios, in a process of its own."""
    uri = sqlite_store(tmp_path_factory.mktemp("autolog"))
    environment = {**os.environ, **QUIET, "MLFLOW_TRACKING_URI": uri, "PYTHONPATH": str(ROOT)}
    command = [sys.executable, "-c", AUTOLOGGED, *COMPARED]
    done = subprocess.run(command, env=environment, cwd=ROOT, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    return dict(zip(COMPARED, json.loads(done.stdout.splitlines()[-1]), strict=True))


@pytest.mark.parametrize("name", COMPARED)
def test_the_parts_of_a_graph_are_the_spans_that_autologging_makes(
    traced: Traced, autologged: dict[str, Any], name: str
) -> None:
    trace = traced.trace_of(traced.ask(**scenario(name, input="What?")))
    expected_tree, expected_told = autologged[name]
    assert [list(each) for each in tree(trace)] == expected_tree
    assert _without_ids(told(trace)) == _without_ids(expected_told)


def _without_ids(value: Any) -> Any:
    if isinstance(value, dict):
        return {key: _without_ids(each) for key, each in value.items() if key != "id"}
    return [_without_ids(each) for each in value] if isinstance(value, list) else value


def test_a_model_call_tells_its_model_its_tokens_and_when_it_began_to_answer(traced: Traced) -> None:
    trace = traced.trace_of(traced.ask(**scenario("one_tool")))
    call = next(span for span in trace.data.spans if span.span_type == "CHAT_MODEL")
    assert call.model_name == "scripted-1"
    assert call.get_attribute("mlflow.chat.tokenUsage")["total_tokens"] == 15
    assert call.get_attribute("mlflow.chat.tools")[0]["function"]["name"] == "get_weather"
    (first,) = [event for event in call.events if event.name == "first_token"]
    assert call.start_time_ns <= first.timestamp <= (call.end_time_ns or 0)


def test_a_message_that_is_too_long_for_a_span_is_shown_by_its_beginning(traced: Traced) -> None:
    trace = traced.trace_of(traced.ask(**scenario("plain_text", input="x" * 1_200_000)))
    call = next(span for span in trace.data.spans if span.span_type == "CHAT_MODEL")
    assert str(call.inputs).startswith('{"messages":[[{"content":"xxx')
    assert str(call.inputs).endswith("bytes)")
    assert call.status.status_code == "OK"
    assert len(root(trace).inputs["input"]) == 1_200_000


# How a run ended


@pytest.mark.parametrize(
    ("name", "state", "status"),
    [
        ("approval", "OK", "interrupted"),
        ("length_limit", "OK", "incomplete"),
        ("recursion_limit", "OK", "incomplete"),
    ],
)
def test_a_run_that_was_not_finished_says_so(traced: Traced, name: str, state: str, status: str) -> None:
    trace = traced.trace_of(traced.ask(**scenario(name)))
    assert (trace.info.state, trace.info.tags["agent_server.run_status"]) == (state, status)


def test_a_failed_run_is_an_error_and_its_spans_tell_why(traced: Traced) -> None:
    events = read_events(post(f"{traced.url}/responses", scenario("tool_error_fatal", stream=True)))
    trace = traced.trace_of(events[-1]["response"])
    assert (trace.info.state, trace.info.tags["agent_server.run_status"]) == ("ERROR", "failed")
    assert root(trace).status.description.startswith("The agent failed. Error id: err_")
    tool = next(span for span in trace.data.spans if span.span_type == "TOOL")
    assert tool.status.status_code == "ERROR"
    assert "StationError" in next(event for event in tool.events if event.name == "exception").attributes.values()


def test_a_run_whose_client_left_is_cancelled_and_not_in_progress(traced: Traced) -> None:
    with Wire(traced.url) as wire:
        wire.post("/responses", scenario("gated", stream=True))
        head = wire.read_until(b'"delta":"Never "').decode()
        response = json.loads(head.split("data: ")[1].splitlines()[0])["response"]
    trace = traced.trace_of(response)
    assert (trace.info.state, trace.info.tags["agent_server.run_status"]) == ("ERROR", "cancelled")
    assert root(trace).status.description == "cancelled: client disconnected"
    assert root(trace).outputs["output"][0]["content"][0]["text"] == "Never "
    assert all(span.end_time_ns for span in trace.data.spans)


# Whose it is


@pytest.mark.parametrize(
    ("body", "headers", "session", "user"),
    [
        ({"custom_inputs": {"session_id": "s", "thread_id": "t"}, "prompt_cache_key": "k"}, {}, "s", None),
        ({"custom_inputs": {"thread_id": "t"}, "user": "bob"}, {}, "t", "bob"),
        ({"prompt_cache_key": "k", "context": {"user_id": "ann"}}, {"x-forwarded-user": "eve"}, "k", "eve"),
        ({"context": {"conversation_id": "c" * 512, "user_id": "u" * 512}}, {}, "c" * 250, "u" * 250),
        ({}, {}, None, None),
    ],
)
def test_session_and_user_come_from_where_clients_put_them(
    traced: Traced, body: dict[str, Any], headers: dict[str, str], session: str | None, user: str | None
) -> None:
    answer = traced.http.post("/responses", json=scenario("plain_text", **body), headers=headers)
    trace = traced.trace_of(answer.json())
    assert trace.info.trace_metadata.get("mlflow.trace.session") == session
    assert trace.info.trace_metadata.get("mlflow.trace.user") == user
    assert trace.info.client_request_id == answer.headers["x-request-id"]


def test_an_access_token_is_in_no_trace(tracking_uri: str) -> None:
    def look(_: Any, config: Any) -> str:
        request: RequestContext = config["configurable"]["request"]
        assert request.access_token == "secret-token"
        return "fine"

    with tracing({"looks": RunnableLambda(look)}, tracking_uri, trusted_proxies="127.0.0.0/8") as server:
        headers = {"x-forwarded-access-token": "secret-token"}
        answer = server.http.post("/responses", json={"input": "hi"}, headers=headers).json()
        assert answer["status"] == "completed"
        trace = server.trace_of(answer)
    assert "secret-token" not in trace.to_json()


# The trace's id


@pytest.mark.parametrize("path", ["/v1/responses", "/responses", "/invocations"])
def test_the_id_of_the_trace_comes_back_to_who_asks_for_it(traced: Traced, path: str) -> None:
    answer = traced.ask(path, **scenario("plain_text", metadata={"mine": "1"}))
    assert answer["metadata"] == {"mine": "1", "trace_id": f"tr-{answer['id'].removeprefix('resp_')}"}
    unasked = traced.http.post(path, json=scenario("plain_text")).json()
    assert unasked["metadata"] == {}


@pytest.mark.parametrize(("path", "framed"), [("/invocations", True), ("/responses", False), ("/v1/responses", False)])
def test_a_stream_ends_with_the_id_where_mlflow_clients_read_it(traced: Traced, path: str, framed: bool) -> None:
    headers = {"X-MLflow-Return-Trace-Id": "TRUE"}
    body = post(f"{traced.url}{path}", scenario("plain_text", stream=True, model="plain_text"), headers).body
    frames = body.decode().split("\n\n")
    completed = json.loads(frames[-4 if framed else -3].split("data: ")[1])["response"]
    trace_id = f"tr-{completed['id'].removeprefix('resp_')}"
    assert completed["metadata"] == {"trace_id": trace_id}
    assert (frames[-3] == f'data: {{"trace_id": "{trace_id}"}}') is framed
    assert frames[-2:] == ["data: [DONE]", ""]


def test_the_whole_trace_comes_back_as_databricks_output(traced: Traced) -> None:
    answer = traced.ask("/invocations", **scenario("one_tool", databricks_options={"return_trace": True}))
    returned = Trace.from_dict(answer["databricks_output"]["trace"])
    kept = traced.trace(returned.info.trace_id)
    assert returned.info.trace_id == answer["metadata"]["trace_id"]
    assert returned.info.state == "OK"
    assert tree(returned) == tree(kept)
    assert [(span.inputs, span.outputs) for span in returned.data.spans] == [
        (span.inputs, span.outputs) for span in kept.data.spans
    ]
