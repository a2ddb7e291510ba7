"""The routes of the app, over a real server: what is asked in good order, and what is not."""

from __future__ import annotations

import asyncio
import json
from collections.abc import Iterator
from typing import Any

import httpx
import pytest
from langchain_core.runnables import RunnableConfig, RunnableLambda
from starlette.applications import Starlette
from starlette.routing import Mount

from agent_server import __version__
from agent_server.app import create_app
from agent_server.context import RequestContext
from agent_server.errors import TargetError
from agent_server.settings import Settings
from tests.support.gates import Gate
from tests.support.scripted import SCENARIOS, SECRET
from tests.support.serve import running, serving

PATHS = ("/v1/responses", "/responses", "/invocations")
LIMIT = 20_000


def seen(_: Any, config: RunnableConfig) -> str:
    """What of a request reaches the agent, as JSON."""
    context: RequestContext = config["configurable"]["request"]
    names = ("user", "email", "preferred_username", "access_token", "request_id", "conversation_id", "user_id")
    return json.dumps({name: getattr(context, name) for name in names} | {"inputs": dict(context.custom_inputs)})


AGENTS: dict[str, Any] = {
    "plain": SCENARIOS["plain_text"],
    "seen": RunnableLambda(seen),
    "tool": SCENARIOS["one_tool"],
    "client_tool": SCENARIOS["client_tool"],
    "before": SCENARIOS["model_error_before_first_token"],
}


@pytest.fixture(scope="module")
def client() -> Iterator[httpx.Client]:
    with serving(AGENTS, Settings(max_body_bytes=LIMIT)) as url, httpx.Client(base_url=url, timeout=20) as made:
        yield made


def text_of(response: httpx.Response) -> str:
    return str(response.json()["output"][-1]["content"][0]["text"])


@pytest.mark.parametrize(
    ("path", "expected"),
    [
        ("/health", {"status": "healthy"}),
        ("/ready", {"status": "ready"}),
    ],
)
def test_the_state_of_the_server_is_told_as_json(client: httpx.Client, path: str, expected: dict[str, Any]) -> None:
    response = client.get(path)
    assert (response.status_code, response.json()) == (200, expected)


def test_ping_and_version_answer_as_mlflow_model_servers_do(client: httpx.Client) -> None:
    assert client.get("/ping").text == "\n"
    assert client.get("/version").text == __version__


def test_agent_info_has_the_keys_of_mlflow(client: httpx.Client) -> None:
    info = client.get("/agent/info").json()
    assert {k: info[k] for k in ("name", "use_case", "agent_api")} == {
        "name": "plain",
        "use_case": "agent",
        "agent_api": "responses",
    }
    assert "mlflow_version" in info
    assert info["agents"] == list(AGENTS)


def test_every_agent_is_a_model(client: httpx.Client) -> None:
    models = client.get("/v1/models").json()
    assert models["object"] == "list"
    assert [model["id"] for model in models["data"]] == list(AGENTS)
    assert client.get("/v1/models/tool").json() == models["data"][2]
    missing = client.get("/v1/models/nobody")
    assert (missing.status_code, missing.json()["error"]["code"]) == (404, "model_not_found")


@pytest.mark.parametrize("path", PATHS)
def test_the_first_agent_answers_a_request_that_names_none(client: httpx.Client, path: str) -> None:
    response = client.post(path, json={"input": "hi"})
    assert response.status_code == 200
    assert response.headers["x-should-retry"] == "false"
    assert response.headers["x-request-id"].startswith("req_")
    assert text_of(response) == "Hello, world!"


def test_an_unknown_model_is_not_found_but_invocations_take_it_for_a_label(client: httpx.Client) -> None:
    for path in ("/v1/responses", "/responses"):
        response = client.post(path, json={"model": "gpt-9", "input": "hi"})
        assert response.status_code == 404
        assert response.json()["error"] | {"message": ""} == {
            "message": "",
            "type": "invalid_request_error",
            "param": "model",
            "code": "model_not_found",
        }
    response = client.post("/invocations", json={"model": "gpt-9", "input": "hi"})
    assert (response.status_code, response.json()["model"]) == (200, "gpt-9")


def test_the_default_agent_can_be_set() -> None:
    with serving(AGENTS, Settings(default_agent="seen")) as url:
        assert "request_id" in text_of(httpx.post(f"{url}/v1/responses", json={"input": "hi"}))


@pytest.mark.parametrize("agents", [{}, {"a": RunnableLambda(str)}])
def test_an_app_without_its_default_agent_is_refused(agents: dict[str, Any]) -> None:
    with pytest.raises(TargetError):
        create_app(agents, Settings(default_agent="b"))


IDENTITY = {
    "x-forwarded-user": "u1",
    "x-forwarded-email": "a@b.example",
    "x-forwarded-preferred-username": "ann",
    "x-forwarded-access-token": "token-1",
    "x-request-id": "req-from-proxy",
}


def test_identity_headers_of_a_stranger_reach_nobody(client: httpx.Client) -> None:
    response = client.post("/responses", json={"model": "seen", "input": "hi"}, headers=IDENTITY)
    told = json.loads(text_of(response))
    assert [told[k] for k in ("user", "email", "preferred_username", "access_token")] == [None] * 4
    assert told["request_id"] == response.headers["x-request-id"] != "req-from-proxy"


def test_identity_headers_of_a_trusted_proxy_reach_the_agent() -> None:
    with serving(AGENTS, Settings(trusted_proxies=("127.0.0.0/8",))) as url:
        response = httpx.post(f"{url}/responses", json={"model": "seen", "input": "hi"}, headers=IDENTITY)
    told = json.loads(text_of(response))
    assert (told["user"], told["email"], told["preferred_username"]) == ("u1", "a@b.example", "ann")
    assert (told["access_token"], told["request_id"]) == ("token-1", "req-from-proxy")
    assert response.headers["x-request-id"] == "req-from-proxy"


def test_context_and_custom_inputs_reach_the_agent(client: httpx.Client) -> None:
    body = {
        "model": "seen",
        "input": [{"role": "user", "content": "hi"}],
        "context": {"conversation_id": "c1", "user_id": "u9"},
        "custom_inputs": {"a": [1]},
    }
    told = json.loads(text_of(client.post("/invocations", json=body)))
    assert (told["conversation_id"], told["user_id"], told["inputs"]) == ("c1", "u9", {"a": [1]})


def test_custom_outputs_of_the_graph_are_in_the_response() -> None:
    from langgraph.graph import END, START, MessagesState, StateGraph
    from typing_extensions import TypedDict

    class State(MessagesState):
        custom_outputs: dict[str, Any]

    class Update(TypedDict):
        custom_outputs: dict[str, Any]

    def answer(_: State) -> Update:
        return {"custom_outputs": {"session_id": "s1"}}

    graph = StateGraph(State)
    graph.add_node("answer", answer)
    graph.add_edge(START, "answer")
    graph.add_edge("answer", END)
    with serving({"agent": graph.compile()}) as url:
        response = httpx.post(f"{url}/invocations", json={"input": "hi"}).json()
    assert (response["custom_outputs"], response["output"]) == ({"session_id": "s1"}, [])


def nested(depth: int) -> bytes:
    return b'{"input":' + b"[" * depth + b"]" * depth + b"}"


JSON = "application/json"
BAD: dict[str, tuple[Any, str, int, str | None]] = {
    "not JSON": (b"{input", JSON, 400, None),
    "an empty body": (b"", JSON, 400, None),
    "wrong UTF-8": (b'{"input":"\xff"}', JSON, 400, None),
    "UTF-16": ('{"input":"hi"}'.encode("utf-16"), JSON, 400, None),
    "NaN": (b'{"input":"hi","temperature":NaN}', JSON, 400, None),
    "Infinity": (b'{"input":"hi","temperature":Infinity}', JSON, 400, None),
    "a list as body": (b"[1]", JSON, 400, None),
    "a string as body": (b'"hi"', JSON, 400, None),
    "null as body": (b"null", JSON, 400, None),
    "duplicate keys": (b'{"input":"a","input":"b"}', JSON, 400, None),
    "nesting 1,000 deep": (nested(1000), JSON, 400, None),
    "nesting 9,000 deep": (nested(9_000), JSON, 400, None),
    "a lone surrogate": (b'{"input":"\\ud800"}', JSON, 400, None),
    "a body over the limit": (b'{"input":"' + b"x" * LIMIT + b'"}', JSON, 413, None),
    "text/plain": (b'{"input":"hi"}', "text/plain", 415, "content-type"),
    "form data": (b"input=hi", "application/x-www-form-urlencoded", 415, "content-type"),
    "no input": ({}, JSON, 400, "input"),
    "input of a wrong type": ({"input": 7}, JSON, 400, "input"),
    "an unknown role": ({"input": [{"role": "wizard", "content": "hi"}]}, JSON, 400, "input[0].role"),
    "an unknown item type": ({"input": [{"type": "telepathy"}]}, JSON, 400, "input[0].type"),
    "a tool output without its call": (
        {"input": [{"type": "function_call_output", "call_id": "c", "output": "x"}]},
        JSON,
        400,
        "input",
    ),
    "a call without its output": (
        {"input": [{"type": "function_call", "call_id": "c", "name": "f", "arguments": "{}"}]},
        JSON,
        400,
        "input",
    ),
    "a name clash with a server tool": (
        {"model": "tool", "input": "hi", "tools": [{"type": "function", "name": "get_weather"}]},
        JSON,
        400,
        "tools[0].name",
    ),
    "client tools for an agent that takes none": (
        {"model": "plain", "input": "hi", "tools": [{"type": "function", "name": "mine"}]},
        JSON,
        400,
        "tools",
    ),
    "too much metadata": ({"input": "hi", "metadata": {str(i): "x" for i in range(17)}}, JSON, 400, "metadata"),
    "metadata that is no text": ({"input": "hi", "metadata": {"a": 1}}, JSON, 400, "metadata.a"),
    "a temperature out of range": ({"input": "hi", "temperature": 3}, JSON, 400, "temperature"),
    "top_logprobs out of range": ({"input": "hi", "top_logprobs": 21}, JSON, 400, "top_logprobs"),
    "max_tool_calls out of range": ({"input": "hi", "max_tool_calls": 0}, JSON, 400, "max_tool_calls"),
    "max_output_tokens out of range": ({"input": "hi", "max_output_tokens": 0}, JSON, 400, "max_output_tokens"),
    "stream as text": ({"input": "hi", "stream": "false"}, JSON, 400, "stream"),
    "previous_response_id": (
        {"input": "hi", "previous_response_id": "resp_1"},
        JSON,
        400,
        "previous_response_id",
    ),
    "an unknown conversation": ({"input": "hi", "conversation": "conv_1"}, JSON, 404, "conversation"),
    "a conversation and a response": (
        {"input": "hi", "conversation": "conv_1", "previous_response_id": "resp_1"},
        JSON,
        400,
        "previous_response_id",
    ),
    "conversation as a number": ({"input": "hi", "conversation": 1}, JSON, 400, "conversation"),
    "background as text": ({"input": "hi", "background": "true"}, JSON, 400, "background"),
    "background without a store": ({"input": "hi", "background": True, "store": False}, JSON, 400, "store"),
}


@pytest.mark.parametrize("path", PATHS)
@pytest.mark.parametrize("case", BAD, ids=[name.replace(" ", "-") for name in BAD])
def test_bad_input_gets_a_4xx_that_names_the_parameter(client: httpx.Client, path: str, case: str) -> None:
    body, media_type, status, param = BAD[case]
    content = body if isinstance(body, bytes) else json.dumps(body).encode()
    response = client.post(path, content=content, headers={"content-type": media_type})
    assert response.status_code == status, response.text
    told = response.json()
    assert told["error"]["type"] == "invalid_request_error"
    assert told["error"]["param"] == param
    assert told["detail"] == told["error"]["message"]
    assert client.post(path, json={"input": "hi"}).status_code == 200


def test_a_body_is_counted_while_it_is_read(client: httpx.Client) -> None:
    def endless() -> Iterator[bytes]:
        yield b'{"input":"'
        for _ in range(100):
            yield b"x" * 1000

    response = client.post("/responses", content=endless(), headers={"content-type": JSON})
    assert response.status_code == 413


def test_mlflow_finds_the_words_it_looks_for(client: httpx.Client) -> None:
    response = client.post("/invocations", content=b"{", headers={"content-type": JSON})
    assert "Invalid JSON in request body" in response.json()["detail"]


@pytest.mark.parametrize(
    ("method", "path", "status"),
    [("GET", "/nowhere", 404), ("GET", "/responses", 405), ("DELETE", "/v1/responses", 405), ("POST", "/health", 405)],
)
def test_what_is_not_there_is_told_in_the_same_envelope(
    client: httpx.Client, method: str, path: str, status: int
) -> None:
    response = client.request(method, path)
    assert response.status_code == status
    assert set(response.json()) == {"error", "detail"}


def test_an_unknown_tool_item_style_is_refused(client: httpx.Client) -> None:
    response = client.post("/responses", json={"input": "hi"}, headers={"x-tool-items": "xml"})
    assert (response.status_code, response.json()["error"]["param"]) == (400, "x-tool-items")


def test_an_agent_that_fails_answers_500_with_an_error_id_and_no_more(client: httpx.Client) -> None:
    response = client.post("/v1/responses", json={"model": "before", "input": "hi"})
    assert response.status_code == 500
    assert response.headers["x-should-retry"] == "false"
    assert response.json()["error"]["message"].startswith("The agent failed. Error id: err_")
    assert SECRET not in response.text


def test_more_runs_than_allowed_are_told_to_come_again() -> None:
    gate = Gate()

    async def wait(_: Any) -> str:
        await gate.passed()
        return "done"

    async def ask(url: str) -> None:
        async with httpx.AsyncClient(base_url=url, timeout=20) as client:
            first = asyncio.create_task(client.post("/responses", json={"input": "hi"}))
            await gate.reached()
            refused = await client.post("/responses", json={"input": "hi"})
            assert (refused.status_code, refused.json()["error"]["code"]) == (503, "overloaded")
            assert refused.headers["retry-after"] == "1"
            assert (await client.get("/health")).status_code == 200
            gate.open()
            assert (await first).status_code == 200

    with serving({"agent": RunnableLambda(wait)}, Settings(max_concurrent_runs=1)) as url:
        asyncio.run(ask(url))


def test_a_mounted_app_opens_its_agents_with_the_first_request() -> None:
    host = Starlette(routes=[Mount("/agents", create_app({"plain": SCENARIOS["plain_text"]}))])
    with running(host) as url:
        assert text_of(httpx.post(f"{url}/agents/v1/responses", json={"input": "hi"})) == "Hello, world!"


def test_synchronous_agents_leave_the_event_loop_free() -> None:
    gate = Gate()

    def work(_: Any) -> str:
        gate.wait()
        return "done"

    async def ask(url: str) -> None:
        async with httpx.AsyncClient(base_url=url, timeout=20) as client:
            runs = [asyncio.create_task(client.post("/responses", json={"input": "hi"})) for _ in range(3)]
            await gate.reached()
            assert (await client.get("/health")).status_code == 200
            gate.open()
            assert [(await run).status_code for run in runs] == [200] * 3

    with serving({"agent": RunnableLambda(work)}) as url:
        asyncio.run(ask(url))
