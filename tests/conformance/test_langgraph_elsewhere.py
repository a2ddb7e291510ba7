"""An agent on another LangGraph server, served here with the protocols of this one."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Iterator
from typing import Any

import httpx
import pytest
from starlette.types import ASGIApp, Receive, Scope, Send

from agent_server.app import create_app
from agent_server.errors import TargetError
from agent_server.graph.elsewhere import Elsewhere
from agent_server.loader import load_targets
from agent_server.settings import Settings
from tests.support.asking import ASKING
from tests.support.platform import Gated, platform, steps
from tests.support.serve import running


class Heard:
    """An app that remembers the headers of what it is asked."""

    def __init__(self, app: ASGIApp) -> None:
        self._app = app
        self.headers: list[dict[str, str]] = []

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] == "http":
            self.headers.append({name.decode(): value.decode() for name, value in scope["headers"]})
        await self._app(scope, receive, send)


@pytest.fixture(scope="module")
def gated() -> Gated:
    return Gated()


@pytest.fixture(scope="module")
def there(gated: Gated) -> Iterator[tuple[str, Heard]]:
    """The other server."""
    agents = {name: ASKING[name]() for name in ("looking", "approval", "counting")}
    heard = Heard(create_app({**agents, "steps": steps(), "gated": gated.graph()}, Settings()))
    with running(heard) as url:
        yield url, heard


@pytest.fixture
async def client(there: tuple[str, Heard]) -> AsyncIterator[httpx.AsyncClient]:
    """This server, whose agents are all there."""
    names = ("looking", "approval", "counting", "steps", "gated", "nobody")
    agents = {name: Elsewhere.at(f"langgraph+{there[0]}/{name}") for name in names}
    async with platform(agents, trusted_proxies=("127.0.0.1",)) as (opened, _):
        yield opened


async def respond(client: httpx.AsyncClient, **asked: Any) -> dict[str, Any]:
    answer = await client.post("/v1/responses", json=asked)
    assert answer.status_code == 200, answer.text
    return answer.json()


def text_of(response: dict[str, Any]) -> str:
    return "".join(part["text"] for item in response["output"] if item["type"] == "message" for part in item["content"])


async def test_what_the_agent_says_and_does_there_is_told_here(client: httpx.AsyncClient) -> None:
    response = await respond(client, model="looking", input="Weather?")
    assert response["status"] == "completed"
    assert [item["type"] for item in response["output"]] == ["mcp_call", "message"]
    assert response["output"][0]["arguments"] == '{"city": "Oslo"}'
    assert text_of(response).startswith("I heard [u:Weather?")


async def test_tokens_come_one_by_one(client: httpx.AsyncClient) -> None:
    answer = await client.post("/v1/responses", json={"model": "looking", "input": "Weather?", "stream": True})
    assert answer.text.count("event: response.output_text.delta") > 1
    assert answer.text.count("event: response.function_call_arguments.delta") + answer.text.count(
        "event: response.mcp_call_arguments.delta"
    )


async def test_the_agent_remembers_there_and_branches_do_not_see_each_other(client: httpx.AsyncClient) -> None:
    first = await respond(client, model="counting", input="a")
    second = await respond(client, model="counting", input="b", previous_response_id=first["id"])
    other = await respond(client, model="counting", input="c", previous_response_id=first["id"])
    assert text_of(first).startswith("Turn 1")
    assert text_of(second).startswith("Turn 2")
    assert text_of(other).startswith("Turn 2")
    assert "b" not in text_of(other).split("after")[1]


async def test_an_approval_is_asked_for_here_and_given_there(client: httpx.AsyncClient) -> None:
    asked = await respond(client, model="approval", input="Write")
    request = next(item for item in asked["output"] if item["type"] == "mcp_approval_request")
    assert request["name"] == "send_email"
    answer = {"type": "mcp_approval_response", "approval_request_id": request["id"], "approve": True}
    done = await respond(client, model="approval", input=[answer], previous_response_id=asked["id"])
    assert done["status"] == "completed"
    assert "Outputs:" in text_of(done)


async def test_the_langgraph_api_here_passes_inputs_that_hold_no_messages(client: httpx.AsyncClient) -> None:
    asked = {"assistant_id": "steps", "input": {"said": ["go"]}, "stream_mode": ["values", "updates"]}
    told = (await client.post("/runs/wait", json=asked)).json()
    assert told == {"said": ["go", "first", "second", "third"]}


async def test_who_asks_here_asks_there(client: httpx.AsyncClient, there: tuple[str, Heard]) -> None:
    headers = {"x-forwarded-access-token": "abc", "x-forwarded-user": "u"}
    await client.post("/v1/responses", json={"model": "counting", "input": "a"}, headers=headers)
    assert there[1].headers[-1]["authorization"] == "Bearer abc"
    await client.post("/v1/responses", json={"model": "counting", "input": "a"})
    assert "authorization" not in there[1].headers[-1]


async def test_what_goes_wrong_there_is_told_without_its_text(client: httpx.AsyncClient) -> None:
    failed = await client.post("/runs/wait", json={"assistant_id": "steps", "input": {"said": ["boom"]}})
    assert failed.json()["__error__"] == {"error": "server_error", "message": "The agent failed on its own server."}
    nobody = await client.post("/runs/wait", json={"assistant_id": "nobody", "input": {}})
    assert nobody.json()["__error__"]["error"] == "remote_refused"
    limited = {"assistant_id": "steps", "input": {"said": ["go"]}, "config": {"recursion_limit": 1}}
    assert (await client.post("/runs/wait", json=limited)).json()["__error__"]["error"] == "GraphRecursionError"


async def test_a_server_that_is_away_is_an_error_and_no_hang() -> None:
    async with platform({"away": Elsewhere.at("langgraph+http://127.0.0.1:9/agent")}) as (client, _):
        told = (await client.post("/runs/wait", json={"assistant_id": "away", "input": {}})).json()
        assert told["__error__"]["error"] == "remote_unavailable"


async def test_a_cancel_is_passed_on(client: httpx.AsyncClient, gated: Gated, there: tuple[str, Heard]) -> None:
    thread = (await client.post("/threads", json={})).json()["thread_id"]
    asked = {"assistant_id": "gated", "input": {"said": ["wait 1"]}}
    run = (await client.post(f"/threads/{thread}/runs", json=asked)).json()["run_id"]
    await asyncio.to_thread(gated.gate.wait_reached)
    assert (await client.post(f"/threads/{thread}/runs/{run}/cancel?wait=1")).status_code == 200
    async with httpx.AsyncClient(base_url=there[0]) as other, asyncio.timeout(10):
        found = (await other.post("/threads/search", json={"metadata": {"graph_id": "gated"}})).json()
        while found[0]["status"] == "busy":
            found = (await other.post("/threads/search", json={"metadata": {"graph_id": "gated"}})).json()
        runs = (await other.get(f"/threads/{found[0]['thread_id']}/runs")).json()
    assert runs[0]["status"] == "interrupted"


TARGETS = {
    "langgraph+https://host/agent": ("agent", "https://host", "agent"),
    "mine=langgraph+https://host:8123/base/agent": ("mine", "https://host:8123/base", "agent"),
    "langgraph+http://127.0.0.1:8000/some%20one": ("some-one", "http://127.0.0.1:8000", "some one"),
}


@pytest.mark.parametrize(("target", "expected"), TARGETS.items(), ids=TARGETS)
def test_a_target_names_a_server_and_an_assistant(
    tmp_path: Any, target: str, expected: tuple[str, str, str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("LANGGRAPH_API_KEY", "k")
    ((name, found),) = load_targets([target], tmp_path).items()
    assert (name, found.url, found.assistant, found.headers) == (*expected, {"x-api-key": "k"})


@pytest.mark.parametrize(
    "target", ["a=langgraph+https://host", "a=langgraph+https://u:p@host/x", "a=langgraph+https://h/x?y=1"]
)
def test_a_target_that_is_none_is_refused(tmp_path: Any, target: str) -> None:
    with pytest.raises(TargetError, match="langgraph\\+https://host/assistant"):
        load_targets([target], tmp_path)
