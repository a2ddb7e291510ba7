"""What clients of MLflow's AgentServer rely on, asked of it and of this server: both serve the same module.

The behaviours are those of MLflow's own tests of its server over HTTP. Tracing, feedback and the chat UI have tests
of their own.
"""

from __future__ import annotations

import json
import sys
from collections.abc import Iterator, Mapping
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import httpx
import pytest

from tests.support.processes import PATIENCE, running
from tests.support.tracking import ROOT, store, tracking_uri

__all__ = ["store", "tracking_uri"]

pytestmark = [
    pytest.mark.xdist_group("mlflow"),
    pytest.mark.filterwarnings("ignore"),
]  # mlflow's store warns of its own

MODULE = "tests.support.decorated"
AGENT_SERVER = f"""
import {MODULE}, uvicorn
from mlflow.genai.agent_server import AgentServer
uvicorn.run(AgentServer("ResponsesAgent").app, port=0)
"""
COMMANDS = {
    "mlflow": ((sys.executable, "-c", AGENT_SERVER), "running on"),
    "ours": (("agent-server", "serve", MODULE, "--port", "0"), "listening on"),
}
SAID = {"input": [{"role": "user", "content": "Hello"}]}
PATHS = ("/invocations", "/responses")


@pytest.fixture(scope="module", params=COMMANDS)
def server(request: pytest.FixtureRequest, store: Mapping[str, str]) -> Iterator[httpx.Client]:
    """A client of either server."""
    command, ready = COMMANDS[request.param]
    environment = {
        **store,
        "DATABRICKS_APP_NAME": "my-app",
        "AGENT_SERVER_TRACING": "true",
        "AGENT_SERVER_TRUSTED_PROXIES": "127.0.0.0/8",
    }
    with running(command, environment, ROOT) as program:
        url = program.line_with(ready).partition(f"{ready} ")[2].split()[0]
        with httpx.Client(base_url=url, timeout=PATIENCE) as client:
            yield client
        program.stop()


def text(response: Mapping[str, Any]) -> str:
    """What the one message of a response says."""
    (item,) = response["output"]
    return str(item["content"][0]["text"])


def frames(answer: httpx.Response) -> list[dict[str, Any]]:
    """The JSON of the `data:` lines of a stream that ended well."""
    *data, last = [line.removeprefix("data: ") for line in answer.text.splitlines() if line.startswith("data: ")]
    assert last == "[DONE]"
    return [json.loads(each) for each in data]


@pytest.mark.parametrize("path", PATHS)
def test_an_answer_is_json(server: httpx.Client, path: str) -> None:
    answer = server.post(path, json=SAID)
    assert (answer.status_code, answer.headers["content-type"]) == (200, "application/json")
    body = answer.json()
    assert (body["object"], text(body)) == ("response", "Hello ")


@pytest.mark.parametrize("path", PATHS)
def test_a_stream_is_data_lines_up_to_done(server: httpx.Client, path: str) -> None:
    answer = server.post(path, json={**SAID, "stream": True})
    assert (answer.status_code, answer.headers["content-type"]) == (200, "text/event-stream; charset=utf-8")
    events = frames(answer)
    (delta,) = [event for event in events if event["type"] == "response.output_text.delta"]
    (done,) = [event for event in events if event["type"] == "response.output_item.done"]
    assert delta["delta"] == "Hello "
    assert delta["item_id"] == done["item"]["id"]
    assert text({"output": [done["item"]]}) == "Hello "


@pytest.mark.parametrize("path", PATHS)
@pytest.mark.parametrize("streamed", [False, True])
def test_custom_inputs_and_context_reach_the_functions(server: httpx.Client, path: str, streamed: bool) -> None:
    more = {"custom_inputs": {"thread_id": "t1"}, "context": {"conversation_id": "c1", "user_id": "u1"}}
    answer = server.post(path, json={**SAID, **more, "stream": streamed})
    if streamed:
        (item,) = [each["item"] for each in frames(answer) if each["type"] == "response.output_item.done"]
        assert text({"output": [item]}) == "Hello c1 u1 "
    else:
        assert (text(answer.json()), answer.json()["custom_outputs"]) == ("Hello c1 u1 ", {"thread_id": "t1"})


@pytest.mark.parametrize("path", PATHS)
def test_a_body_that_is_no_json_is_refused_as_such(server: httpx.Client, path: str) -> None:
    answer = server.post(path, content=b'{"input": ', headers={"content-type": "application/json"})
    assert answer.status_code == 400
    assert "Invalid JSON in request body" in answer.json()["detail"]


@pytest.mark.parametrize("path", PATHS)
@pytest.mark.parametrize("body", [{}, {"input": 7}, {"input": [{"role": "user"}]}, {**SAID, "temperature": "hot"}])
def test_a_bad_parameter_is_named(server: httpx.Client, path: str, body: dict[str, Any]) -> None:
    answer = server.post(path, json=body)
    assert answer.status_code == 400
    assert ("temperature" if "temperature" in body else "input") in answer.json()["detail"]


def test_it_tells_its_state_and_its_name(server: httpx.Client) -> None:
    assert server.get("/health").json() == {"status": "healthy"}
    about = server.get("/agent/info").json()
    assert (about["name"], about["use_case"], about["agent_api"]) == ("my-app", "agent", "responses")
    assert about["mlflow_version"]


@pytest.mark.parametrize("asked", ["true", "TRUE"])
def test_who_asks_for_the_trace_is_told_its_id(server: httpx.Client, asked: str) -> None:
    headers = {"x-mlflow-return-trace-id": asked}
    metadata = server.post("/invocations", json=SAID, headers=headers).json()["metadata"]
    assert metadata.keys() == {"trace_id"}
    assert metadata["trace_id"].startswith("tr-")
    last = frames(server.post("/invocations", json={**SAID, "stream": True}, headers=headers))[-1]
    assert last.keys() == {"trace_id"}
    assert last["trace_id"].startswith("tr-")


@pytest.mark.parametrize("headers", [{}, {"x-mlflow-return-trace-id": "false"}])
def test_nobody_else_is(server: httpx.Client, headers: dict[str, str]) -> None:
    assert "trace_id" not in server.post("/invocations", json=SAID, headers=headers).text
    assert "trace_id" not in server.post("/invocations", json={**SAID, "stream": True}, headers=headers).text


def test_requests_at_the_same_time_have_each_its_own_headers(server: httpx.Client) -> None:
    def ask(token: str) -> str:
        body = {**SAID, "custom_inputs": {"meet": True}}
        return text(server.post("/responses", json=body, headers={"x-forwarded-access-token": token}).json())

    with ThreadPoolExecutor(2) as pool:
        assert list(pool.map(ask, ["token-1", "token-2"])) == ["Hello token-1 ", "Hello token-2 "]


def test_a_function_that_fails_is_a_500_and_breaks_no_stream(server: httpx.Client) -> None:
    failing = {**SAID, "custom_inputs": {"fail": True}}
    assert server.post("/invocations", json=failing).status_code == 500
    streamed = server.post("/invocations", json={**failing, "stream": True})
    events = frames(streamed)
    assert streamed.status_code == 200
    assert any(event.get("delta") == "Hello " for event in events)
    assert any("error" in event or event.get("type") == "error" for event in events)
    assert server.get("/health").status_code == 200
