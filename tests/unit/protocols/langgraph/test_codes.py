"""Statuses, headers and shapes of the LangGraph API, as its clients know them."""

from __future__ import annotations

import asyncio
import json
from collections.abc import AsyncIterator
from typing import Any
from uuid import uuid4

import httpx
import pytest

from agent_server.protocols.langgraph.assistants import default_id
from tests.support.asking import ASKING
from tests.support.platform import echo, hitl, platform

HI = {"messages": [{"role": "user", "content": "hi"}]}
SOME = str(uuid4())

CODES: dict[str, tuple[str, str, Any, int]] = {
    "ok": ("GET", "/ok", None, 200),
    "info": ("GET", "/info", None, 200),
    "an assistant by its graph's name": ("GET", "/assistants/agent", None, 422),
    "an unknown assistant": ("GET", f"/assistants/{SOME}", None, 404),
    "a default assistant cannot go": ("DELETE", f"/assistants/{default_id('agent')}", None, 409),
    "a thread whose id is none": ("GET", "/threads/not-a-uuid", None, 422),
    "an unknown thread": ("GET", f"/threads/{SOME}", None, 404),
    "an unknown thread to be deleted": ("DELETE", f"/threads/{SOME}", None, 404),
    "a run on an unknown thread": ("POST", f"/threads/{SOME}/runs/wait", {"assistant_id": "agent"}, 404),
    "a run of an unknown graph": ("POST", "/threads/{t}/runs/wait", {"assistant_id": "nope"}, 422),
    "a run of an unknown assistant": ("POST", "/threads/{t}/runs/wait", {"assistant_id": SOME}, 404),
    "a run of nobody": ("POST", "/threads/{t}/runs", {"input": HI}, 422),
    "an unknown mode": ("POST", "/runs", {"assistant_id": "agent", "stream_mode": ["nope"]}, 422),
    "a newer mode": ("POST", "/runs/wait", {"assistant_id": "agent", "input": HI, "stream_mode": ["tools"]}, 200),
    "no JSON": ("POST", "/threads/{t}/runs", "{nope", 422),
    "no object": ("POST", "/threads/{t}/runs", [1], 422),
    "both context and configurable": (
        "POST",
        "/runs/wait",
        {"assistant_id": "agent", "config": {"configurable": {"a": 1}}, "context": {"b": 1}},
        400,
    ),
    "a stateless answer": ("POST", "/runs/wait", {"assistant_id": "hitl", "command": {"resume": 1}}, 400),
    "an answer that nobody waits for": (
        "POST",
        "/threads/{t}/runs",
        {"assistant_id": "hitl", "command": {"resume": 1}},
        409,
    ),
    "a run whose id is none": ("GET", "/threads/{t}/runs/xyz", None, 422),
    "an unknown run": ("GET", f"/threads/{{t}}/runs/{SOME}", None, 404),
    "an unknown run to be joined": ("GET", f"/threads/{{t}}/runs/{SOME}/join", None, 404),
    "an unknown run to be cancelled": ("POST", f"/threads/{{t}}/runs/{SOME}/cancel", None, 404),
    "an unknown checkpoint": ("GET", f"/threads/{{t}}/state/{SOME}", None, 404),
    "a run from an unknown checkpoint": (
        "POST",
        "/threads/{t}/runs",
        {"assistant_id": "agent", "checkpoint_id": SOME},
        404,
    ),
    "a webhook that is off": ("POST", "/runs", {"assistant_id": "agent", "webhook": "https://x.example/"}, 422),
    "a search by nothing known": ("POST", "/threads/search", {"colour": "red"}, 422),
    "a page of no size": ("POST", "/threads/search", {"limit": 0}, 422),
    "nothing to prune": ("POST", "/threads/prune", {"thread_ids": []}, 422),
    "a state that nobody's graph has": ("POST", "/threads/{t}/state", {"values": {"x": 1}}, 422),
    "an item without a namespace": ("PUT", "/store/items", {"namespace": [], "key": "k", "value": {}}, 400),
    "an item that is not there": ("GET", "/store/items?namespace=a&key=k", None, 200),
    "items by their meaning": ("POST", "/store/items/search", {"namespace_prefix": ["a"], "query": "cats"}, 422),
    "an item for a time, in memory": (
        "PUT",
        "/store/items",
        {"namespace": ["a"], "key": "k", "value": {}, "ttl": 1},
        400,
    ),
    "an unknown cron": ("DELETE", f"/runs/crons/{SOME}", None, 404),
    "a cron without a schedule": ("POST", "/runs/crons", {"assistant_id": "agent"}, 422),
    "a cron of a run that cannot be": (
        "POST",
        "/runs/crons",
        {"assistant_id": "agent", "schedule": "* * * * *", "durability": "never"},
        422,
    ),
    "cancel none": ("POST", "/runs/cancel", {"status": "running"}, 404),
    "an empty batch": ("POST", "/runs/batch", [], 422),
}


@pytest.fixture
async def client() -> AsyncIterator[httpx.AsyncClient]:
    async with platform({"agent": echo(), "hitl": hitl()}, allowed_origins=("*",)) as (opened, _):
        yield opened


@pytest.mark.parametrize("mount", ["", "/api"])
@pytest.mark.parametrize(("method", "path", "body", "status"), CODES.values(), ids=CODES)
async def test_a_request_is_answered_with_the_status_that_clients_expect(
    client: httpx.AsyncClient, mount: str, method: str, path: str, body: Any, status: int
) -> None:
    thread = (await client.post(f"{mount}/threads", json={})).json()["thread_id"]
    content = body if isinstance(body, str) else None if body is None else json.dumps(body)
    answer = await client.request(method, mount + path.replace("{t}", thread), content=content)
    assert answer.status_code == status, answer.text
    if status >= 400:
        assert isinstance(answer.json()["detail"], str)
        assert answer.json().keys() == {"detail"}


async def test_a_body_that_says_it_is_text_is_read_all_the_same(client: httpx.AsyncClient) -> None:
    said = json.dumps({"assistant_id": "agent", "input": HI})
    answer = await client.post("/runs/wait", content=said, headers={"content-type": "text/plain;charset=UTF-8"})
    assert answer.json()["messages"][-1]["content"] == "You said: hi"


async def test_headers_tell_where_a_run_is_without_the_mount(client: httpx.AsyncClient) -> None:
    thread = (await client.post("/api/threads", json={})).json()["thread_id"]
    said = {"assistant_id": "agent", "input": HI}
    run = await client.post(f"/api/threads/{thread}/runs", json=said)
    assert run.headers["content-location"] == f"/threads/{thread}/runs/{run.json()['run_id']}"
    waited = await client.post(f"/api/threads/{thread}/runs/wait", json=said)
    assert waited.headers["location"] == f"{waited.headers['content-location']}/join"
    assert (await client.get("/api" + waited.headers["location"])).json() == waited.json()
    stateless = await client.post("/runs/stream", json={**said, "on_completion": "keep"})
    assert stateless.headers["location"] == f"{stateless.headers['content-location']}/stream"
    assert (await client.get(stateless.headers["location"])).status_code == 200


async def test_pages_of_other_origins_may_read_where_things_are(client: httpx.AsyncClient) -> None:
    answer = await client.post("/threads/search", json={}, headers={"origin": "https://chat.example"})
    assert answer.headers["access-control-allow-origin"] == "*"
    exposed = {each.strip().lower() for each in answer.headers["access-control-expose-headers"].split(",")}
    assert exposed >= {"content-location", "location", "x-pagination-total", "x-pagination-next"}


async def test_a_search_tells_how_many_there_are_and_where_it_goes_on(client: httpx.AsyncClient) -> None:
    made = [(await client.post("/threads", json={"metadata": {"n": n}})).json()["thread_id"] for n in range(5)]
    first = await client.post("/threads/search", json={"limit": 2, "sort_by": "created_at", "sort_order": "asc"})
    assert (first.headers["x-pagination-total"], first.headers["x-pagination-next"]) == ("5", "2")
    assert {each["thread_id"] for each in first.json()} <= set(made)
    last = await client.post("/threads/search", json={"limit": 2, "offset": 4})
    assert "x-pagination-next" not in last.headers
    assert len(last.json()) == 1


async def test_a_thread_of_its_own_goes_with_its_run_unless_it_is_to_be_kept(client: httpx.AsyncClient) -> None:
    said = {"assistant_id": "agent", "input": HI}
    kept = await client.post("/runs/wait", json={**said, "on_completion": "keep"})
    gone = await client.post("/runs/wait", json=said)
    threads = [each.headers["content-location"].split("/")[2] for each in (kept, gone)]
    assert (await client.get(f"/threads/{threads[0]}")).status_code == 200
    async with asyncio.timeout(10):
        while (await client.get(f"/threads/{threads[1]}")).status_code != 404:
            await asyncio.sleep(0)


async def test_a_conversation_of_the_responses_api_is_a_thread_and_the_other_way_round(
    client: httpx.AsyncClient,
) -> None:
    conversation = (await client.post("/v1/conversations", json={"metadata": {"topic": "a"}})).json()["id"]
    said = {"model": "agent", "input": "one", "conversation": conversation}
    assert (await client.post("/v1/responses", json=said)).status_code == 200
    thread = (await client.get(f"/threads/{conversation}")).json()
    assert (thread["metadata"]["topic"], len(thread["values"]["messages"])) == ("a", 2)
    waited = await client.post(f"/threads/{conversation}/runs/wait", json={"assistant_id": "agent", "input": HI})
    assert len(waited.json()["messages"]) == 4
    await client.patch(f"/threads/{conversation}", json={"metadata": {"n": 1, "title": "b"}})
    shown = (await client.get(f"/v1/conversations/{conversation}")).json()["metadata"]
    assert (shown["topic"], shown["title"]) == ("a", "b")
    await client.post(f"/v1/conversations/{conversation}", json={"metadata": {"topic": "c"}})
    merged = (await client.get(f"/threads/{conversation}")).json()["metadata"]
    assert (merged["topic"], merged["n"]) == ("c", 1)
    run = (await client.get(f"/threads/{conversation}/runs")).json()
    assert [each["status"] for each in run] == ["success", "success"]
    response = await client.get(f"/v1/responses/resp_{run[0]['run_id'].replace('-', '')}")
    assert response.json()["output"][-1]["content"][0]["text"] == "You said: hi"


async def test_an_agent_that_is_no_graph_is_told_the_whole_thread() -> None:
    async with platform({"plain": ASKING["plain"]()}) as (client, _):
        thread = (await client.post("/threads", json={})).json()["thread_id"]
        asked = {"assistant_id": "plain", "input": HI}
        for _ in range(2):
            told = (await client.post(f"/threads/{thread}/runs/wait", json=asked)).json()
        said = [each["content"] for each in told["messages"]]
        assert said == ["hi", "I heard [u:hi]", "hi", "I heard [u:hi | a:I heard [u:hi] | u:hi]"]
        assert (await client.get(f"/threads/{thread}/state")).json()["values"] == told
        assert (await client.get(f"/threads/{thread}/history")).json() == []
        schemas = await client.get(f"/assistants/{default_id('plain')}/schemas")
        assert (schemas.status_code, schemas.json()["context_schema"]) == (200, None)
        refused = await client.post(f"/threads/{thread}/state", json={"values": {"messages": []}})
        assert refused.status_code == 422


async def test_a_configuration_reaches_the_graph_and_its_checkpoints(client: httpx.AsyncClient) -> None:
    thread = (await client.post("/threads", json={})).json()["thread_id"]
    config = {"configurable": {"thread_id": "forged", "tone": "low"}, "metadata": {"by": "config"}}
    asked = {"assistant_id": "agent", "input": HI, "config": config, "metadata": {"m": 1}}
    run = (await client.post(f"/threads/{thread}/runs", json=asked)).json()
    await client.get(f"/threads/{thread}/runs/{run['run_id']}/join")
    metadata = (await client.get(f"/threads/{thread}/state")).json()["metadata"]
    assert (metadata["m"], metadata["by"], metadata["graph_id"]) == (1, "config", "agent")
    assert (metadata["thread_id"], metadata["run_id"]) == (thread, run["run_id"])
    found = (await client.post(f"/threads/{thread}/history", json={"metadata": {"run_id": run["run_id"]}})).json()
    assert len(found) == 3
    assert (await client.post(f"/threads/{thread}/history", json={"metadata": {"m": 2}})).json() == []


async def test_the_calls_of_agent_chat_ui(client: httpx.AsyncClient) -> None:
    """github.com/langchain-ai/agent-chat-ui: info, the list of threads, a run, its history, an answer, an end."""
    assert (await client.get("/info")).status_code == 200
    thread = (await client.post("/threads", json={"metadata": {}})).json()["thread_id"]
    said = {"messages": [{"id": str(uuid4()), "type": "human", "content": [{"type": "text", "text": "hi"}]}]}
    asked = {
        "input": said,
        "config": {},
        "assistant_id": "agent",
        "stream_mode": ["values", "messages-tuple", "custom"],
        "stream_subgraphs": True,
        "stream_resumable": True,
        "on_disconnect": "continue",
    }
    streamed = await client.post(f"/threads/{thread}/runs/stream", json=asked)
    assert "event: values" in streamed.text
    history = (await client.post(f"/threads/{thread}/history", json={"limit": 10})).json()
    assert history[0]["values"]["messages"][-1]["content"] == "You said: hi"
    assert all(each.keys() >= {"tasks", "checkpoint", "parent_checkpoint", "next", "metadata"} for each in history)
    for wanted in ({"graph_id": "agent"}, {"assistant_id": default_id("agent")}):
        found = (await client.post("/threads/search", json={"metadata": wanted, "limit": 100})).json()
        assert [each["values"]["messages"][0]["content"][0]["text"] for each in found] == ["hi"]
    asking = (await client.post("/threads", json={})).json()["thread_id"]
    await client.post(f"/threads/{asking}/runs/stream", json={"assistant_id": "hitl", "input": {"said": ["go"]}})
    resolved = await client.post(
        f"/threads/{asking}/runs/stream", json={"assistant_id": "hitl", "input": {}, "command": {"goto": "__end__"}}
    )
    assert resolved.status_code == 200
