"""Runs of LangGraph's API as they stream, read by langgraph_sdk for Python and byte for byte."""

from __future__ import annotations

import asyncio
from uuid import uuid4

import httpx
import pytest
from langgraph_sdk import get_sync_client
from langgraph_sdk.client import LangGraphClient

from tests.support.gates import PATIENCE
from tests.support.platform_streams import EVERY_MODE, HI, Gated, client, frames, gated, streamed, thread_of, url

__all__ = ["client", "gated", "url"]


async def test_several_modes_at_once_come_in_langgraphs_order(client: LangGraphClient) -> None:
    parts = [part async for part in client.runs.stream(
        await thread_of(client), "one_tool", input=HI, stream_mode=["values", "updates", "messages-tuple"]
    )]  # fmt: skip
    assert parts[0].event == "metadata"
    names = [part.event for part in parts[1:]]
    turns = [name for place, name in enumerate(names) if name != "messages" or names[place - 1] != "messages"]
    assert turns == ["values", *("messages", "updates", "values") * 3, "end"]
    assert parts[-1].data == {"status": "success"}


async def test_the_headers_say_where_the_run_is(url: str, client: LangGraphClient) -> None:
    thread = await thread_of(client)
    answer = await streamed(url, f"/threads/{thread}/runs/stream", assistant_id="one_tool", input=HI)
    run = frames(answer.text)[0][1]["run_id"]
    assert answer.headers["content-location"] == f"/threads/{thread}/runs/{run}"
    assert answer.headers["location"] == f"/threads/{thread}/runs/{run}/stream"
    assert answer.headers["cache-control"] == "no-store"
    assert answer.headers["x-accel-buffering"] == "no"
    assert (await client.runs.get(thread, run))["status"] == "success"


async def test_a_stream_goes_on_after_each_of_its_ids(url: str, client: LangGraphClient) -> None:
    thread = await thread_of(client)
    for _ in range(2):  # the second run's places are behind those of the first
        answer = await streamed(
            url, f"/threads/{thread}/runs/stream", assistant_id="one_tool", input=HI,
            stream_mode=["values", "messages-tuple", "messages"],
        )  # fmt: skip
        whole = frames(answer.text)
        place = answer.headers["location"]
        assert frames((await streamed(url, place)).text) == whole
        assert frames((await streamed(url, place, {"Last-Event-ID": "-1"})).text) == whole
        for number, (_, _, frame_id) in enumerate(whole):
            assert frames((await streamed(url, place, {"Last-Event-ID": frame_id})).text) == whole[number + 1 :]


@pytest.mark.parametrize(("cursor", "status"), [("nonsense", 422), ("1795230708356-0", 404), ("99999-0", 404)])
async def test_a_place_that_is_not_in_the_run_is_refused(
    url: str, client: LangGraphClient, cursor: str, status: int
) -> None:
    answer = await streamed(url, f"/threads/{await thread_of(client)}/runs/stream", assistant_id="one_tool", input=HI)
    joined = await streamed(url, answer.headers["location"], {"Last-Event-ID": cursor})
    assert joined.status_code == status
    assert "Last-Event-ID" in joined.json()["detail"]


async def test_a_client_that_is_cut_off_gets_each_token_once(url: str, client: LangGraphClient, gated: Gated) -> None:
    thread = await thread_of(client)
    body = {"assistant_id": "gated", "input": HI, "stream_mode": ["messages-tuple"], "on_disconnect": "continue"}
    got = ""
    async with httpx.AsyncClient(base_url=url, timeout=PATIENCE) as http:
        async with http.stream("POST", f"/threads/{thread}/runs/stream", json=body) as first:
            async for part in first.aiter_text():
                got += part
                if "two " in got:
                    break
            place = first.headers["location"]
        had = frames(got)
        gated.gate.open()
        rest = frames((await http.get(place, headers={"Last-Event-ID": had[-1][2]})).text)
    texts = [data[0]["content"] for name, data, _ in [*had, *rest] if name == "messages"]
    assert "".join(texts) == "One two three four."
    assert rest[-1][:2] == ("end", {"status": "success"})


async def test_a_client_that_leaves_takes_its_run_with_it_where_it_said_so(
    url: str, client: LangGraphClient, gated: Gated
) -> None:
    thread = await thread_of(client)
    body = {"assistant_id": "gated", "input": HI, "stream_mode": ["messages-tuple"], "on_disconnect": "cancel"}
    async with httpx.AsyncClient(base_url=url, timeout=PATIENCE) as http:
        async with http.stream("POST", f"/threads/{thread}/runs/stream", json=body) as left:
            async for part in left.aiter_text():
                if "two " in part:
                    break
            place = left.headers["location"]
        end = frames((await http.get(place)).text)[-1]
    assert end[:2] == ("end", {"status": "interrupted"})


async def test_a_stream_without_a_thread_can_be_joined_where_it_says_it_is(url: str, gated: Gated) -> None:
    gated.gate.open()
    answer = await streamed(url, "/runs/stream", assistant_id="gated", input=HI, on_completion="keep")
    assert answer.status_code == 200, answer.text
    run = frames(answer.text)[0][1]["run_id"]
    assert frames((await streamed(url, answer.headers["location"])).text) == frames(answer.text)
    assert frames((await streamed(url, f"/runs/{run}/stream")).text) == frames(answer.text)


async def test_every_mode_alone_and_all_of_them(client: LangGraphClient) -> None:
    for modes in (*([mode] for mode in EVERY_MODE), EVERY_MODE):
        names = {
            part.event.partition("|")[0].partition("/")[0]
            async for part in client.runs.stream(
                None,
                "custom_events",
                input=HI,
                stream_mode=modes,
                stream_subgraphs=True,
            )
        }
        wanted = {"messages" if mode == "messages-tuple" else mode for mode in modes}
        assert names == {"metadata", "end", *wanted}, modes


async def test_subgraphs_are_told_where_they_are_asked_for(client: LangGraphClient) -> None:
    for asked in (True, False):
        parts = [part async for part in client.runs.stream(
            None, "subgraph", input=HI, stream_mode=["updates", "messages-tuple"], stream_subgraphs=asked
        )]  # fmt: skip
        nested = {part.event.partition("|")[0] for part in parts if "|" in part.event}
        assert nested == ({"updates", "messages"} if asked else set())


async def test_modes_that_nobody_knows_are_refused_and_newer_ones_ignored(url: str, client: LangGraphClient) -> None:
    thread = await thread_of(client)
    refused = await streamed(url, f"/threads/{thread}/runs/stream", assistant_id="one_tool", stream_mode=["nope"])
    assert refused.status_code == 422
    ignored = await streamed(
        url, f"/threads/{thread}/runs/stream", assistant_id="one_tool", input=HI, stream_mode=["tools", "lifecycle"]
    )
    assert [name for name, _, _ in frames(ignored.text)] == ["metadata", "end"]


async def test_a_failure_is_told_in_words_for_clients(client: LangGraphClient) -> None:
    for agent, error in (("failing_runnable", "ValueError"), ("model_error_before_first_token", "ModelError")):
        parts = [part async for part in client.runs.stream(None, agent, input=HI, stream_mode="values")]
        assert [part.event for part in parts[-2:]] == ["error", "end"]
        assert parts[-2].data["error"] == error
        assert parts[-1].data == {"status": "error"}
        if error != "ValueError":
            assert parts[-2].data["message"] == "An internal error occurred"


async def test_a_run_that_is_cancelled_while_it_waits_ends_its_stream(
    url: str, client: LangGraphClient, gated: Gated
) -> None:
    thread = await thread_of(client)
    running = await client.runs.create(thread, "gated", input=HI)
    waiting = await client.runs.create(thread, "one_tool", input=HI, multitask_strategy="enqueue")
    joined = asyncio.create_task(streamed(url, f"/threads/{thread}/runs/{waiting['run_id']}/stream"))
    await client.runs.cancel(thread, waiting["run_id"], wait=True)
    told = frames((await joined).text)
    assert [(name, data.get("status")) for name, data, _ in told] == [("metadata", None), ("end", "interrupted")]
    gated.gate.open()
    await client.runs.join(thread, running["run_id"])


async def test_a_run_that_waits_in_line_is_placed_behind_the_one_before(
    url: str, client: LangGraphClient, gated: Gated
) -> None:
    thread = await thread_of(client)
    running = await client.runs.create(thread, "gated", input=HI)
    path = f"/threads/{thread}/runs/stream"
    waits = asyncio.create_task(streamed(url, path, assistant_id="one_tool", input=HI, multitask_strategy="enqueue"))
    async with asyncio.timeout(PATIENCE):
        while len(await client.runs.list(thread)) < 2:
            await asyncio.sleep(0)
    gated.gate.open()
    answer = await waits
    first = frames((await streamed(url, f"/threads/{thread}/runs/{running['run_id']}/stream")).text)
    then = frames(answer.text)
    assert int(first[-1][2].partition("-")[0]) + 1 == int(then[0][2].partition("-")[0])
    rest = await streamed(url, answer.headers["location"], {"Last-Event-ID": then[1][2]})
    assert frames(rest.text) == then[2:]


async def test_a_silence_is_broken_by_heartbeats(url: str, client: LangGraphClient, gated: Gated) -> None:
    body = {"assistant_id": "gated", "input": HI, "stream_mode": ["values"]}
    async with (
        httpx.AsyncClient(base_url=url, timeout=PATIENCE) as http,
        http.stream("POST", "/runs/stream", json=body) as told,
    ):
        got = ""
        async for part in told.aiter_text():
            got += part
            if got.count(": heartbeat\r\n\r\n") == 2:
                gated.gate.open()
    assert got.endswith('data: {"status":"success"}\r\nid: ' + frames(got)[-1][2] + "\r\n\r\n")


async def test_an_unknown_run_is_not_found(url: str, client: LangGraphClient) -> None:
    thread = await thread_of(client)
    for path in (f"/threads/{thread}/runs/{uuid4()}/stream", f"/runs/{uuid4()}/stream", f"/threads/{uuid4()}/stream"):
        assert (await streamed(url, path)).status_code == 404
    assert (await streamed(url, f"/threads/{thread}/runs/stream?", assistant_id=str(uuid4()))).status_code == 404


async def test_a_question_is_told_and_answered(client: LangGraphClient) -> None:
    thread = await thread_of(client)
    asked = [part async for part in client.runs.stream(
        thread, "question", input=HI, stream_mode=["values", "updates"]
    )]  # fmt: skip
    (question,) = asked[-2].data["__interrupt__"]
    assert (asked[-2].event, question["value"]) == ("values", {"question": "city"})
    assert any(part.event == "updates" and "__interrupt__" in part.data for part in asked)
    said = [part async for part in client.runs.stream(
        thread, "question", command={"resume": "Oslo"}, stream_mode="values"
    )]  # fmt: skip
    assert said[-2].data["messages"][-1]["content"] == "city=Oslo"


def test_the_synchronous_client_reads_the_same(url: str) -> None:
    with get_sync_client(url=url, api_key=None) as client:
        parts = list(client.runs.stream(None, "one_tool", input=HI, stream_mode=["messages-tuple"]))
    assert [part.event for part in parts] == ["metadata", *["messages"] * (len(parts) - 2), "end"]
