"""A module written for MLflow's AgentServer is served as it is."""

from __future__ import annotations

import os
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import httpx
import pytest
from openai import OpenAI

from tests.support.traced import QUIET, TIMEOUT, Traced, root, sqlite_store, tree

pytestmark = TIMEOUT
ROOT = Path(__file__).parents[2]

STREAMING = '''
"""As Databricks' templates write one."""
import mlflow
from mlflow.genai.agent_server import get_request_headers, invoke, stream
from mlflow.types.responses import (
    ResponsesAgentRequest,
    ResponsesAgentResponse,
    ResponsesAgentStreamEvent,
    create_text_delta,
    output_to_responses_items_stream,
    to_chat_completions_input,
)
from langchain_core.messages import AIMessageChunk
from tests.support.scripted import SCENARIOS

mlflow.langchain.autolog()
agent = SCENARIOS["one_tool"]()


@invoke()
async def non_streaming(request: ResponsesAgentRequest) -> ResponsesAgentResponse:
    done = "response.output_item.done"
    outputs = [event.item async for event in streaming(request) if event.type == done]
    return ResponsesAgentResponse(output=outputs)


@stream()
async def streaming(request: ResponsesAgentRequest):
    """Tells the weather.

    And more.
    """
    mlflow.update_current_trace(metadata={"mine": request.custom_inputs["who"]})
    assert get_request_headers().get("x-forwarded-access-token") == "token-1"
    messages = {"messages": to_chat_completions_input([i.model_dump() for i in request.input])}
    async for mode, data in agent.astream(messages, stream_mode=["updates", "messages"]):
        if mode == "updates":
            for node_data in data.values():
                for item in output_to_responses_items_stream(node_data["messages"]):
                    yield item
        elif isinstance(data[0], AIMessageChunk) and data[0].content:
            yield ResponsesAgentStreamEvent(**create_text_delta(delta=data[0].content, item_id=data[0].id))
'''

SYNCHRONOUS = """
from mlflow.genai.agent_server import invoke

@invoke()
def answer(request):
    item = {"type": "message", "id": "m", "role": "assistant", "content": [{"type": "output_text", "text": "Hi."}]}
    return {"output": [item], "custom_outputs": {"asked": request.input[0].content}}
"""

FAILING = """
from mlflow.genai.agent_server import stream

@stream()
def half(request):
    yield {"type": "response.output_text.delta", "item_id": "m", "delta": "Half"}
    raise ValueError("station password SECRET")
"""


@contextmanager
def served(folder: Path, code: str, target: str = "service", **environment: str) -> Iterator[str]:
    """`agent-server serve module`, in the folder of the module."""
    (folder / "service.py").write_text(code)
    process = subprocess.Popen(
        [Path(sys.executable).with_name("agent-server"), "serve", target, "--port", "0"],
        env={
            **os.environ,
            **QUIET,
            "PYTHONPATH": str(ROOT),
            "AGENT_SERVER_TRUSTED_PROXIES": "127.0.0.0/8",
            "AGENT_SERVER_SHUTDOWN_GRACE_SECONDS": "0",
            **environment,
        },
        cwd=folder,
        stdout=subprocess.PIPE,
        text=True,
    )
    assert process.stdout is not None
    try:
        yield process.stdout.readline().split()[3]
    finally:
        process.terminate()
        process.wait()
        process.stdout.close()


@pytest.fixture(scope="module")
def traced(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Traced]:
    """The module of the templates, traced."""
    folder = tmp_path_factory.mktemp("service")
    uri = sqlite_store(folder)
    with served(folder, STREAMING, MLFLOW_TRACKING_URI=uri, AGENT_SERVER_TRACING="true") as url:
        server = Traced(url, uri)
        server.http.headers["x-forwarded-access-token"] = "token-1"
        yield server
        server.http.close()


def test_its_stream_is_a_stream_of_the_specification(traced: Traced) -> None:
    client = OpenAI(base_url=f"{traced.url}/v1", api_key="none", default_headers=dict(traced.http.headers))
    with client.responses.stream(
        model="service",
        input="What?",
        extra_body={"custom_inputs": {"who": "ann"}},
        extra_headers={"x-tool-items": "function_call"},
    ) as stream:
        kinds = [event.type for event in stream]
        final = stream.get_final_response()
    assert kinds[0] == "response.created"
    assert kinds[-1] == "response.completed"
    assert [item.type for item in final.output] == ["function_call", "function_call_output", "message"]
    assert final.output_text == "It is sunny."


def test_it_is_asked_whole_as_well_and_described_by_its_docstring(traced: Traced) -> None:
    answer = traced.ask("/invocations", custom_inputs={"who": "ann", "thread_id": "t"})
    assert answer["output"][-1]["content"][0]["text"] == "It is sunny."
    assert answer["custom_outputs"] == {"thread_id": "t"}
    about = traced.http.get("/agent/info").json()
    assert (about["name"], about["description"]) == ("service", "Tells the weather.")


def test_its_own_spans_are_in_the_trace_of_the_run(traced: Traced) -> None:
    response = traced.ask("/invocations", custom_inputs={"who": "ann"})
    trace = traced.trace_of(response)
    assert root(trace).name == "service"
    parents = {name: parent for name, _, parent in tree(trace)}
    assert parents["streaming"] == "service"
    assert parents["LangGraph"] == "service"
    assert parents["get_weather"] == "tools"
    assert trace.info.state == "OK"
    traces = traced.client.search_traces(locations=["0"])
    runs = [each.info.trace_metadata.get("agent_server.response_id") for each in traces]
    assert runs.count(response["id"]) == 1
    assert None not in runs, "no trace is but a run's"


def test_a_synchronous_function_that_only_answers_whole_is_streamed_too(tmp_path: Path) -> None:
    with served(tmp_path, SYNCHRONOUS) as url:
        answer: dict[str, Any] = httpx.post(f"{url}/invocations", json={"input": "yo"}).json()
        assert answer["output"][0]["content"][0]["text"] == "Hi."
        assert answer["custom_outputs"] == {"asked": "yo"}
        streamed = httpx.post(f"{url}/v1/responses", json={"input": "yo", "stream": True}).text
        assert '"type":"response.output_text.done"' in streamed
        assert streamed.endswith("data: [DONE]\n\n")


@pytest.mark.parametrize("target", ["agent_server/agent.py", "agent_server.agent"])
def test_a_package_named_as_this_one_is_found_beside_it(target: str, tmp_path: Path) -> None:
    """Databricks' templates name theirs `agent_server`, and import from it by that name."""
    package = tmp_path / "agent_server"
    package.mkdir()
    (package / "__init__.py").touch()
    (package / "utils.py").write_text('GREETING = "Hi from utils."\n')
    code = SYNCHRONOUS.replace('"Hi."', "GREETING")
    (package / "agent.py").write_text(f"from agent_server.utils import GREETING\n{code}")
    with served(tmp_path, "", target) as url:
        answer = httpx.post(f"{url}/invocations", json={"input": "yo"}).json()
        assert answer["output"][0]["content"][0]["text"] == "Hi from utils."
        assert answer["model"] == "agent"


def test_a_function_that_fails_ends_its_stream_legally_and_says_nothing_of_why(tmp_path: Path) -> None:
    with served(tmp_path, FAILING) as url:
        streamed = httpx.post(f"{url}/responses", json={"input": "yo", "stream": True}).text
    assert '"delta":"Half"' in streamed
    assert '"type":"response.failed"' in streamed
    assert "SECRET" not in streamed
