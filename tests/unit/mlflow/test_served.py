"""Any `ResponsesAgent` is an agent of the server: streamed, mended, stopped when nobody listens any more."""

from __future__ import annotations

import itertools
import threading
import warnings
from collections.abc import Generator, Iterable, Iterator
from concurrent.futures import Future
from contextlib import AbstractContextManager
from typing import Any

import httpx
import pytest

from agent_server.settings import Settings
from tests.conformance.rules import check_stream
from tests.support import serve
from tests.support.gates import Gate
from tests.support.models import SECRET
from tests.support.scripted import SCENARIOS
from tests.support.sse import Dialect, post, read_events
from tests.support.wire import Wire

with warnings.catch_warnings():
    warnings.simplefilter("ignore")  # mlflow's own imports warn
    from mlflow.pyfunc.model import ResponsesAgent
    from mlflow.types.responses import ResponsesAgentRequest, ResponsesAgentResponse, ResponsesAgentStreamEvent

    from agent_server.mlflow_agent import AgentModel
    from agent_server.mlflow_served import ServedModel

pytestmark = [
    pytest.mark.xdist_group("mlflow"),
    pytest.mark.filterwarnings("ignore"),  # mlflow's store warns of its own use of SQLAlchemy
    pytest.mark.usefixtures("store"),  # MLflow traces every ResponsesAgent
]

PATIENCE = 20.0
UNTRACED = Settings(tracing=False)
MOUNTS: dict[str, Dialect] = {"/invocations": "data_only", "/responses": "named", "/v1/responses": "named"}


class Scripted(ResponsesAgent):
    """Streams what it was made of; an exception among it is raised. It remembers its requests."""

    def __init__(self, *steps: Any) -> None:
        self.steps: Iterable[Any] = steps
        self.requests: list[ResponsesAgentRequest] = []

    def predict(self, request: ResponsesAgentRequest) -> ResponsesAgentResponse:
        raise NotImplementedError

    def predict_stream(self, request: ResponsesAgentRequest) -> Generator[Any]:
        self.requests.append(request)
        for step in self.steps:
            if isinstance(step, Exception):
                raise step
            yield step


def delta(text: str) -> ResponsesAgentStreamEvent:
    return ResponsesAgentStreamEvent(**ResponsesAgent.create_text_delta(text, "msg_1"))


def done(text: str) -> ResponsesAgentStreamEvent:
    item = ResponsesAgent.create_text_output_item(text, "msg_1")
    return ResponsesAgentStreamEvent(type="response.output_item.done", item=item)


def whole(*items: dict[str, Any]) -> list[ResponsesAgentStreamEvent]:
    return [ResponsesAgentStreamEvent(type="response.output_item.done", item=item) for item in items]


def serving(**agents: Any) -> AbstractContextManager[str]:
    return serve.serving(agents, UNTRACED)


def ask(url: str, path: str = "/invocations", **more: Any) -> dict[str, Any]:
    """The response at the end of a stream, every rule of which is kept."""
    answer = post(f"{url}{path}", {"input": "Hello", "stream": True, **more})
    assert answer.status == 200, answer.body
    return check_stream(read_events(answer, MOUNTS[path]))


def said(response: dict[str, Any]) -> str:
    return "".join(part["text"] for item in response["output"] if item["type"] == "message" for part in item["content"])


# Streams


@pytest.mark.parametrize("path", MOUNTS)
@pytest.mark.parametrize(
    "steps",
    [
        [delta("Hel"), delta("lo"), done("Hello")],
        [done("Hello")],
        [delta("Hello")],
        [{"type": "response.output_text.delta", "item_id": "a", "delta": "Hello"}],
        [
            {
                "type": "response.completed",
                "response": {"output": [ResponsesAgent.create_text_output_item("Hello", "m")]},
            }
        ],
    ],
    ids=["deltas and item", "item", "deltas", "dictionaries", "response"],
)
def test_every_route_streams_a_foreign_model_legally(steps: list[Any], path: str) -> None:
    with serving(foreign=ServedModel(Scripted(*steps))) as url:
        assert said(ask(url, path)) == "Hello"
        body = httpx.post(f"{url}{path}", json={"input": "Hello"}, timeout=60).json()
        assert (said(body), body["status"], body["model"]) == ("Hello", "completed", "foreign")


def test_tool_items_have_the_style_of_the_route() -> None:
    tools = whole(
        ResponsesAgent.create_function_call_item("fc_1", "call_1", "look", '{"at": "sky"}'),
        ResponsesAgent.create_function_call_output_item("call_1", "blue"),
    )
    wanted = {
        "/invocations": ["function_call", "function_call_output", "message"],
        "/responses": ["function_call", "function_call_output", "message"],
        "/v1/responses": ["mcp_call", "message"],
    }
    with serving(foreign=ServedModel(Scripted(*tools, done("Blue.")))) as url:
        for path, kinds in wanted.items():
            assert [item["type"] for item in ask(url, path)["output"]] == kinds


def test_a_model_that_cannot_stream_is_streamed_all_the_same() -> None:
    class Whole(ResponsesAgent):
        def predict(self, request: ResponsesAgentRequest) -> ResponsesAgentResponse:
            items = [self.create_text_output_item("Hello", "msg_1")]
            return ResponsesAgentResponse(output=items, custom_outputs={"thread_id": "t1"})

    with serving(whole=ServedModel(Whole())) as url:
        response = ask(url)
        assert (said(response), response["custom_outputs"]) == ("Hello", {"thread_id": "t1"})


def test_tokens_are_sent_while_the_model_still_talks() -> None:
    gate = Gate()

    def steps() -> Iterator[Any]:
        yield delta("one ")
        gate.wait()
        yield delta("two")

    model = Scripted()
    model.steps = steps()
    with serving(foreign=ServedModel(model)) as url, Wire(url) as wire:
        wire.post("/v1/responses", {"input": "Hello", "stream": True}, connection="close")
        wire.read_until(b'"delta":"one "')
        assert httpx.get(f"{url}/health").status_code == 200
        gate.open()
        assert b'"delta":"two"' in wire.read_to_end()


# Failures


class Broken(RuntimeError):
    def __init__(self) -> None:
        super().__init__(SECRET)


@pytest.mark.parametrize("path", MOUNTS)
@pytest.mark.parametrize(
    ("steps", "text"),
    [
        ([Broken()], ""),
        ([delta("Hel"), Broken(), delta("lo")], "Hel"),
        ([delta("Hel"), done("Hello"), Broken()], "Hello"),
        ([7], ""),
        ([delta("Hel"), {"type": 7}], "Hel"),
        ([{"type": "error", "message": SECRET}], ""),
        ([delta("Hel"), {"type": "response.failed", "response": {"error": {"message": SECRET}}}], "Hel"),
    ],
    ids=["raises first", "raises in the middle", "raises last", "junk", "junk in the middle", "error", "failed"],
)
def test_a_model_that_raises_or_yields_junk_ends_a_legal_stream_as_failed(
    steps: list[Any], text: str, path: str
) -> None:
    with serving(foreign=ServedModel(Scripted(*steps))) as url:
        answer = post(f"{url}{path}", {"input": "Hello", "stream": True})
        response = check_stream(read_events(answer, MOUNTS[path]))
        assert (response["status"], said(response)) == ("failed", text)
        whole_answer = httpx.post(f"{url}{path}", json={"input": "Hello"}, timeout=60)
        assert whole_answer.status_code == 500
        for body in (answer.body.decode(), whole_answer.text):
            assert "Error id: err_" in body
            assert SECRET not in body
            assert "Traceback" not in body


def test_a_model_whose_client_leaves_is_closed_at_its_next_event_in_its_own_thread() -> None:
    closed: Future[bool] = Future()
    go_on = Gate()

    class Endless(Scripted):
        def predict_stream(self, request: ResponsesAgentRequest) -> Generator[Any]:
            thread = threading.current_thread()
            try:
                yield delta("one ")
                go_on.wait()
                yield from itertools.repeat(delta("more "))
            finally:
                closed.set_result(threading.current_thread() is thread)

    with serving(endless=ServedModel(Endless())) as url, Wire(url) as wire:
        wire.post("/v1/responses", {"input": "Hello", "stream": True, "store": False})
        wire.read_until(b'"delta":"one "')
        go_on.wait_reached()
        wire.leave()
        assert httpx.get(f"{url}/health").status_code == 200  # the loop has seen the disconnect by now
        go_on.open()
        assert closed.result(PATIENCE)


# Requests


def test_what_the_client_asks_reaches_the_model() -> None:
    model = Scripted(done("Hello"))
    body = {
        "instructions": "Be brief.",
        "input": [
            {"role": "user", "content": "What colour?"},
            {"type": "function_call", "call_id": "call_1", "name": "look", "arguments": '{"at":"sky"}'},
            {"type": "function_call_output", "call_id": "call_1", "output": "blue"},
            {
                "type": "message",
                "id": "msg_1",
                "role": "assistant",
                "content": [{"type": "output_text", "text": "Blue."}],
            },
            {"role": "user", "content": [{"type": "input_text", "text": "And now?"}]},
        ],
        "custom_inputs": {"x": 1},
        "context": {"conversation_id": "c1", "user_id": "u1"},
        "metadata": {"k": "v"},
        "temperature": 0.5,
        "max_output_tokens": 100,
        "tools": [{"type": "function", "name": "mine", "parameters": {"type": "object", "properties": {}}}],
        "tool_choice": {"type": "function", "name": "mine"},
        "text": {"format": {"type": "json_object"}},
        "reasoning": {"effort": "low"},
    }
    with serving(foreign=ServedModel(model)) as url:
        assert ask(url, **body)["status"] == "completed"
    (request,) = model.requests
    kinds = [(item.type, getattr(item, "role", None)) for item in request.input]
    assert kinds == [
        ("message", "system"),
        ("message", "user"),
        ("function_call", None),
        ("function_call_output", None),
        ("message", "assistant"),
        ("message", "user"),
    ]
    assert request.input[0].content == "Be brief."
    assert request.input[-1].content == "And now?"
    assert (request.custom_inputs, request.metadata) == ({"x": 1}, {"k": "v"})
    assert request.context is not None
    assert (request.context.conversation_id, request.context.user_id) == ("c1", "u1")
    assert (request.temperature, request.max_output_tokens) == (0.5, 100)
    assert request.tools is not None
    assert [tool.name for tool in request.tools] == ["mine"]
    assert request.tool_choice.name == "mine"
    assert request.text == {"format": {"type": "json_object"}}
    assert request.reasoning.effort == "low"


ALLOWED = {"type": "allowed_tools", "mode": "auto", "tools": [{"type": "function", "name": "mine"}]}


@pytest.mark.parametrize(("param", "value"), [("max_tool_calls", 1), ("tool_choice", ALLOWED)])
def test_what_has_no_place_in_mlflows_request_is_refused_by_name(param: str, value: Any) -> None:
    tools = [{"type": "function", "name": "mine", "parameters": {"type": "object", "properties": {}}}]
    with serving(foreign=ServedModel(Scripted(done("Hello")))) as url:
        answer = httpx.post(f"{url}/v1/responses", json={"input": "Hello", "tools": tools, param: value})
    assert (answer.status_code, answer.json()["error"]["param"]) == (400, param)


# Models of this package


@pytest.mark.parametrize("scenario", ["text_tool_text", "subgraph"])
def test_a_model_made_of_an_agent_is_that_agent(scenario: str) -> None:
    agent = SCENARIOS[scenario]()
    with serving(agent=AgentModel(agent).target) as url:
        assert ask(url)["status"] == "completed"
