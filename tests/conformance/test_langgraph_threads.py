"""Threads of LangGraph's API as they stream, over HTTP and WebSocket, to both generations of clients."""

from __future__ import annotations

import asyncio
import json
from typing import Any
from uuid import uuid4

import httpx
import pytest
from langchain_core.messages import AIMessage
from langgraph.graph import START, MessagesState, StateGraph
from langgraph.runtime import Runtime
from langgraph_sdk.client import LangGraphClient
from websockets.asyncio.client import connect
from websockets.exceptions import InvalidStatus

from agent_server.context import RequestContext
from agent_server.protocols.langgraph.encoder_v2 import STRIDE
from agent_server.settings import Settings
from tests.support.gates import PATIENCE
from tests.support.platform_streams import HI, client, frames, gated, streamed, thread_of, url
from tests.support.serve import serving

__all__ = ["client", "gated", "url"]

# Threads, first generation


async def test_a_thread_that_is_joined_tells_its_runs_one_after_the_other(url: str, client: LangGraphClient) -> None:
    thread = await thread_of(client)
    for _ in range(2):
        await client.runs.wait(thread, "one_tool", input=HI)
    got: list[Any] = []
    async for part in await client.threads.join_stream(thread, last_event_id="-1"):
        got.append(part)
        if [each.data.get("status") for each in got if each.event == "metadata"].count("run_done") == 2:
            break
    assert [part.event for part in got if part.event == "metadata"] == ["metadata"] * 4
    assert not [part for part in got if part.event == "end"]
    again: list[Any] = []
    async for part in await client.threads.join_stream(thread, last_event_id=got[3].id):
        again.append(part)
        if len(again) == len(got) - 4:
            break
    assert again == got[4:]


# Threads, second generation


async def test_a_thread_is_followed_through_a_question_and_its_answer(client: LangGraphClient) -> None:
    async with client.threads.stream(assistant_id="question") as thread:
        await thread.run.start(input=HI)
        async with asyncio.timeout(PATIENCE):
            while not thread.interrupted:
                await asyncio.sleep(0)
        assert thread.interrupts[0]["value"] == {"question": "city"}
        await thread.run.respond("Oslo")
        said = await thread.output
        assert said["messages"][-1]["content"] == "city=Oslo"


@pytest.mark.parametrize("transport", ["sse", "websocket"])
async def test_messages_and_tools_are_assembled_by_the_client(client: LangGraphClient, transport: Any) -> None:
    async with client.threads.stream(assistant_id="one_tool", transport=transport) as thread:
        await thread.run.start(input=HI)
        async with asyncio.timeout(PATIENCE):
            messages = [message async for message in thread.messages]
            texts = [await message.text for message in messages]
            said = await thread.output
    assert texts[-1] == said["messages"][-1]["content"]


async def read_events(url: str, thread: str, until: str, **body: Any) -> list[dict[str, Any]]:
    """The events of a thread up to the first lifecycle event of this name."""
    events: list[dict[str, Any]] = []
    text = ""
    place = f"/threads/{thread}/stream/events"
    async with (
        httpx.AsyncClient(base_url=url, timeout=PATIENCE) as http,
        http.stream("POST", place, json=body) as told,
    ):
        assert told.status_code == 200
        async for part in told.aiter_text():
            text += part
            *whole, text = text.split("\r\n\r\n")
            events += [data for _, data, _ in frames("".join(f"{each}\r\n\r\n" for each in whole))]
            if any(each["params"]["data"].get("event") == until for each in events if each["method"] == "lifecycle"):
                return events
    raise AssertionError("the stream ended")


async def command(url: str, thread: str, method: str, **params: Any) -> dict[str, Any]:
    answer = await streamed(url, f"/threads/{thread}/commands", id=1, method=method, params=params)
    assert answer.status_code == 200, answer.text
    return dict(answer.json())


async def test_a_thread_that_is_yet_to_be_can_be_subscribed_to(url: str) -> None:
    thread = str(uuid4())
    reading = asyncio.create_task(read_events(url, thread, "completed", channels=["lifecycle", "tools"]))
    started = await command(url, thread, "run.start", assistant_id="one_tool", input=HI)
    assert started["type"] == "success"
    assert started["meta"] == {"applied_through_seq": 0}
    told = [(each["method"], each["params"]["data"]["event"]) for each in await reading]
    assert told == [
        ("lifecycle", "running"),
        ("tools", "tool-started"),
        ("tools", "tool-finished"),
        ("lifecycle", "completed"),
    ]


async def test_events_are_numbered_through_from_run_to_run(url: str, client: LangGraphClient) -> None:
    thread = await thread_of(client)
    channels = ["values", "messages", "lifecycle"]
    await command(url, thread, "run.start", assistant_id="one_tool", input=HI)
    first = await read_events(url, thread, "completed", channels=channels)
    second = await command(url, thread, "run.start", assistant_id="one_tool", input=HI)
    through = second["meta"]["applied_through_seq"]
    assert first[-1]["seq"] < through <= first[-1]["seq"] + STRIDE
    after = await read_events(url, thread, "completed", channels=channels, since=through)
    seqs = [each["seq"] for each in [*first, *after]]
    assert seqs == sorted(set(seqs))
    middle = first[len(first) // 2]["seq"]
    assert await read_events(url, thread, "completed", channels=channels, since=middle) == first[len(first) // 2 + 1 :]


async def test_a_run_of_another_protocol_is_told_on_its_thread(url: str) -> None:
    async with httpx.AsyncClient(base_url=url, timeout=PATIENCE) as http:
        made = (await http.post("/v1/conversations", json={})).json()
        said = await http.post("/v1/responses", json={"model": "one_tool", "input": "hi", "conversation": made["id"]})
        assert said.status_code == 200, said.text
    events = await read_events(url, made["id"], "completed", channels=["lifecycle", "messages"])
    texts = [each["params"]["data"]["delta"]["text"] for each in events if "delta" in each["params"]["data"]
             and "text" in each["params"]["data"]["delta"]]  # fmt: skip
    assert "".join(texts) == "It is sunny."


async def test_commands_that_cannot_be_done_are_answered(url: str, client: LangGraphClient) -> None:
    thread = await thread_of(client)
    unknown = await command(url, thread, "foo.bar")
    assert (unknown["type"], unknown["error"]) == ("error", "unknown_command")
    stale = await command(url, thread, "input.respond", namespace=[], interrupt_id="nope", response="yes")
    assert (stale["error"], stale["message"]) == ("no_such_interrupt", "Unknown or already-consumed interrupt: nope")
    missing = await command(url, thread, "run.start", input=HI)
    assert missing["error"] == "invalid_argument"
    assert (await command(url, thread, "agent.getTree"))["error"] == "no_such_run"
    for body in ({"method": "foo.bar"}, {"id": "1", "method": "run.start"}, {"id": 1, "method": "x", "params": []}):
        refused = await streamed(url, f"/threads/{thread}/commands", **body)
        assert (refused.status_code, refused.json()["error"]) == (400, "invalid_argument")
    bad = await streamed(url, f"/threads/{thread}/stream/events", channels=["debug"])
    assert (bad.status_code, bad.json()["detail"].partition(". ")[0]) == (
        400,
        "channels contains unsupported entries: debug",
    )
    assert (await streamed(url, "/threads/none/stream/events", channels=["values"])).status_code == 422


async def test_the_tree_of_a_run_has_its_subgraphs(url: str, client: LangGraphClient) -> None:
    thread = await thread_of(client)
    await command(url, thread, "run.start", assistant_id="subgraph", input=HI)
    await read_events(url, thread, "completed", channels=["lifecycle"], namespaces=[[]], depth=0)
    tree = (await command(url, thread, "agent.getTree"))["result"]["tree"]
    assert (tree["graph_name"], tree["status"]) == ("subgraph", "completed")
    assert [(each["graph_name"], each["status"]) for each in tree["children"]] == [("expert", "completed")]


async def test_one_socket_takes_commands_and_subscriptions(url: str) -> None:
    thread = str(uuid4())
    async with connect(f"{url.replace('http', 'ws')}/threads/{thread}/stream/events") as socket:

        async def ask(number: int, method: str, **params: Any) -> None:
            await socket.send(json.dumps({"id": number, "method": method, "params": params}))

        async def hear() -> dict[str, Any]:
            async with asyncio.timeout(PATIENCE):
                heard: dict[str, Any] = json.loads(await socket.recv())
            return heard

        await ask(1, "subscription.subscribe", channels=["lifecycle"])
        subscribed = await hear()
        await ask(2, "run.start", assistant_id="one_tool", input=HI)
        heard = [await hear() for _ in range(3)]
        assert [each["result"]["run_id"] for each in heard if each.get("id") == 2]
        assert [e["params"]["data"]["event"] for e in heard if e["type"] == "event"] == ["running", "completed"]
        await ask(3, "subscription.unsubscribe", subscription_id=subscribed["result"]["subscription_id"])
        assert (await hear())["type"] == "success"
        await ask(4, "subscription.unsubscribe", subscription_id="nope")
        assert (await hear())["error"] == "no_such_subscription"
        await ask(5, "subscription.subscribe", channels=["nope"])
        assert (await hear())["error"] == "invalid_argument"
        await socket.send("no json")
        assert await hear() == {"type": "error", "id": None, "error": "invalid_argument"} | {
            "message": "Invalid JSON in request body: not JSON at line 1, column 1."
        }


async def test_a_page_of_another_origin_may_not_connect(url: str) -> None:
    place = f"{url.replace('http', 'ws')}/threads/{uuid4()}/stream/events"
    with pytest.raises(InvalidStatus):
        await connect(place, origin="https://other.example")  # type: ignore[arg-type]
    async with connect(place, origin="https://page.example"):  # type: ignore[arg-type]
        pass


def whose() -> Any:
    """Tells on whose behalf it runs."""

    async def tell(state: MessagesState, runtime: Runtime[RequestContext]) -> dict[str, Any]:
        return {"messages": [AIMessage(f"for {runtime.context.user}")]}

    return StateGraph(MessagesState, context_schema=RequestContext).add_node(tell).add_edge(START, "tell").compile()


async def test_a_command_on_a_socket_is_its_users() -> None:
    thread = str(uuid4())
    with serving({"whose": whose()}, Settings(store="memory", trusted_proxies=("127.0.0.1",))) as url:
        place = f"{url.replace('http', 'ws')}/threads/{thread}/stream/events"
        async with connect(place, additional_headers={"x-forwarded-user": "ann"}) as socket:
            params = {"assistant_id": "whose", "input": HI}
            await socket.send(json.dumps({"id": 1, "method": "run.start", "params": params}))
            async with asyncio.timeout(PATIENCE):
                assert json.loads(await socket.recv())["type"] == "success"
        told = await read_events(url, thread, "completed", channels=["values", "lifecycle"])
    assert told[-2]["params"]["data"]["messages"][-1]["content"] == "for ann"
