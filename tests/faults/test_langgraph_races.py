"""Two clients on one thread, under each strategy: no turn is lost, and nobody is left waiting."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any
from uuid import uuid4

import httpx
import pytest

from tests.support.platform import Gated, hitl, platform
from tests.support.postgres import postgres, postgres_server

__all__ = ["postgres", "postgres_server"]

STORES = ("memory", "sqlite", "postgres")


@pytest.fixture(params=STORES)
async def place(request: pytest.FixtureRequest, tmp_path: Path) -> AsyncIterator[tuple[httpx.AsyncClient, Gated]]:
    """A client of a server with a gated agent and one that asks."""
    gated = Gated()
    store = {"memory": "memory", "sqlite": f"sqlite:///{tmp_path}/runs.db"}.get(request.param)
    store = store or str(request.getfixturevalue("postgres"))
    async with platform({"gated": gated.graph(), "hitl": hitl()}, store=store) as (client, _):
        yield client, gated
        gated.gate.open()


def turn(text: str, **more: Any) -> dict[str, Any]:
    return {"assistant_id": "gated", "input": {"said": [text]}, **more}


async def new_thread(client: httpx.AsyncClient) -> str:
    return (await client.post("/threads", json={})).json()["thread_id"]


async def begin(client: httpx.AsyncClient, thread: str, text: str, **more: Any) -> str:
    response = await client.post(f"/threads/{thread}/runs", json=turn(text, **more))
    assert response.status_code == 200, response.text
    return response.json()["run_id"]


async def join(client: httpx.AsyncClient, thread: str, run: str) -> Any:
    return (await client.get(f"/threads/{thread}/runs/{run}/join")).json()


async def said(client: httpx.AsyncClient, thread: str) -> list[str]:
    return (await client.get(f"/threads/{thread}/state")).json()["values"]["said"]


async def statuses(client: httpx.AsyncClient, thread: str) -> list[str]:
    return [each["status"] for each in (await client.get(f"/threads/{thread}/runs")).json()][::-1]


async def test_runs_that_are_enqueued_come_one_after_the_other_and_all_are_heard(place: Any) -> None:
    client, gated = place
    thread = await new_thread(client)
    first = await begin(client, thread, "wait 0")
    await gated.gate.reached()
    others = await asyncio.gather(*(begin(client, thread, f"{n}", multitask_strategy="enqueue") for n in range(1, 6)))
    assert await statuses(client, thread) == ["running", *["pending"] * 5]
    gated.gate.open()
    for run in (first, *others):
        await join(client, thread, run)
    heard = await said(client, thread)
    assert sorted(heard[::3]) == ["1", "2", "3", "4", "5", "wait 0"]
    for place_, text in enumerate(heard[::3]):
        assert heard[3 * place_ : 3 * place_ + 3] == [text, f"heard {text}", f"did {text}"]
    assert await statuses(client, thread) == ["success"] * 6


async def test_of_two_that_would_rather_be_rejected_one_is(place: Any) -> None:
    client, gated = place
    thread = await new_thread(client)
    asked = (
        client.post(f"/threads/{thread}/runs", json=turn(f"wait {n}", multitask_strategy="reject")) for n in range(8)
    )
    answers = await asyncio.gather(*asked)
    assert sorted(each.status_code for each in answers) == [200] + [409] * 7
    refused = next(each for each in answers if each.status_code == 409)
    assert refused.json()["detail"].startswith("Thread is already running a task.")
    await gated.gate.reached()
    gated.gate.open()
    run = next(each for each in answers if each.status_code == 200).json()["run_id"]
    await join(client, thread, run)
    assert len(await said(client, thread)) == 3


async def test_a_run_that_interrupts_goes_on_from_where_the_other_was(place: Any) -> None:
    client, gated = place
    thread = await new_thread(client)
    first = await begin(client, thread, "wait 1")
    await gated.gate.reached()
    second = await begin(client, thread, "2", multitask_strategy="interrupt")
    await join(client, thread, second)
    assert await statuses(client, thread) == ["interrupted", "success"]
    assert await said(client, thread) == ["wait 1", "heard wait 1", "2", "heard 2", "did 2"]
    assert await join(client, thread, first) == {}


async def test_of_many_that_interrupt_each_other_the_last_one_ends_and_every_turn_that_began_is_kept(
    place: Any,
) -> None:
    client, gated = place
    thread = await new_thread(client)
    await begin(client, thread, "wait 0")
    await gated.gate.reached()
    asked = [begin(client, thread, f"{n}", multitask_strategy="interrupt") for n in range(1, 5)]
    runs = await asyncio.gather(*asked)
    for run in runs:
        await join(client, thread, run)
    heard = await said(client, thread)
    became = await statuses(client, thread)
    lost = [each for each in gated.turns if each not in heard or f"heard {each}" not in heard]
    assert lost == [], (gated.turns, heard, became)
    assert "success" in became


async def test_a_run_that_rolls_back_finds_the_thread_as_if_the_other_had_never_been(place: Any) -> None:
    client, gated = place
    thread = await new_thread(client)
    before = await begin(client, thread, "0")
    await join(client, thread, before)
    first = await begin(client, thread, "wait 1")
    await gated.gate.reached()
    second = await begin(client, thread, "2", multitask_strategy="rollback")
    await join(client, thread, second)
    assert await said(client, thread) == ["0", "heard 0", "did 0", "2", "heard 2", "did 2"]
    assert (await client.get(f"/threads/{thread}/runs/{first}")).status_code == 404
    history = (await client.get(f"/threads/{thread}/history?limit=100")).json()
    assert {each["metadata"]["run_id"] for each in history} == {before, second}


@pytest.mark.parametrize("wait", [0, 1])
async def test_a_run_that_is_cancelled_to_be_rolled_back_leaves_its_thread_idle(place: Any, wait: int) -> None:
    client, gated = place
    thread = await new_thread(client)
    run = await begin(client, thread, "wait 1")
    await gated.gate.reached()
    cancelled = await client.post(f"/threads/{thread}/runs/{run}/cancel?wait={wait}&action=rollback")
    assert cancelled.status_code == (200 if wait else 202)
    async with asyncio.timeout(20):
        while (await client.get(f"/threads/{thread}/runs/{run}")).status_code != 404:
            await asyncio.sleep(0)
    told = (await client.get(f"/threads/{thread}")).json()
    assert (told["status"], told["values"]) == ("idle", None)
    await join(client, thread, await begin(client, thread, "2"))
    assert await said(client, thread) == ["2", "heard 2", "did 2"]


async def test_a_run_that_waits_in_line_can_be_cancelled_and_its_turn_does_not_come(place: Any) -> None:
    client, gated = place
    thread = await new_thread(client)
    first = await begin(client, thread, "wait 1")
    await gated.gate.reached()
    second = await begin(client, thread, "2")
    waiting = asyncio.create_task(join(client, thread, second))
    assert (await client.post(f"/threads/{thread}/runs/{second}/cancel?wait=1")).status_code == 200
    assert await waiting == {}
    assert await statuses(client, thread) == ["running", "interrupted"]
    gated.gate.open()
    await join(client, thread, first)
    assert await said(client, thread) == ["wait 1", "heard wait 1", "did wait 1"]
    assert (await client.post(f"/threads/{thread}/runs/{second}/cancel")).status_code == 404


async def test_a_state_cannot_be_written_while_a_run_is_in_progress(place: Any) -> None:
    client, gated = place
    thread = await new_thread(client)
    run = await begin(client, thread, "wait 1")
    await gated.gate.reached()
    refused = await client.post(f"/threads/{thread}/state", json={"values": {"said": ["x"]}, "as_node": "work"})
    assert refused.status_code == 409
    assert "said" not in refused.text
    gated.gate.open()
    await join(client, thread, run)
    written = await client.post(f"/threads/{thread}/state", json={"values": {"said": ["x"]}, "as_node": "work"})
    assert written.status_code == 200
    await join(client, thread, await begin(client, thread, "2"))
    assert (await said(client, thread))[3:] == ["x", "2", "heard 2", "did 2"]


async def test_an_interrupt_is_answered_once_whoever_is_first(place: Any) -> None:
    client, _ = place
    thread = await new_thread(client)
    asked = {"assistant_id": "hitl", "input": {"said": ["go"]}}
    stopped = (await client.post(f"/threads/{thread}/runs/wait", json=asked)).json()
    question = stopped["__interrupt__"][0]["id"]
    answer = {"assistant_id": "hitl", "command": {"resume": {question: "yes"}}, "multitask_strategy": "enqueue"}
    answers = await asyncio.gather(*(client.post(f"/threads/{thread}/runs/wait", json=answer) for _ in range(4)))
    told = [each.json() for each in answers]
    assert [each.get("said") for each in told].count(["go", "approved=yes"]) == 1
    again = await client.post(f"/threads/{thread}/runs/wait", json=answer)
    assert again.status_code == 409
    assert (await said(client, thread)) == ["go", "approved=yes"]


async def test_an_answer_to_a_question_that_nobody_asked_is_refused(place: Any) -> None:
    client, _ = place
    thread = await new_thread(client)
    asked = {"assistant_id": "hitl", "input": {"said": ["go"]}}
    await client.post(f"/threads/{thread}/runs/wait", json=asked)
    gone = {"assistant_id": "hitl", "command": {"resume": {uuid4().hex: "yes"}}}
    assert (await client.post(f"/threads/{thread}/runs/wait", json=gone)).status_code == 409
    right = await client.post(f"/threads/{thread}/runs/wait", json={"assistant_id": "hitl", "command": {"resume": 1}})
    assert right.json()["said"] == ["go", "approved=1"]


async def test_a_run_and_a_cursor_are_known_on_their_own_thread_alone(place: Any) -> None:
    client, _ = place
    thread, other = await new_thread(client), await new_thread(client)
    run = await begin(client, thread, "1")
    await join(client, thread, run)
    for what in ("", "/join", "/stream"):
        assert (await client.get(f"/threads/{other}/runs/{run}{what}")).status_code == 404
        assert (await client.get(f"/threads/{thread}/runs/{uuid4()}{what}")).status_code == 404
    assert (await client.post(f"/threads/{other}/runs/{run}/cancel")).status_code == 404
    second = await begin(client, other, "2")
    await join(client, other, second)
    stream = await client.get(f"/threads/{thread}/runs/{run}/stream", headers={"last-event-id": "999-0"})
    assert stream.status_code == 404


async def test_a_run_that_is_put_off_waits_and_can_be_cancelled(place: Any) -> None:
    client, gated = place
    thread = await new_thread(client)
    run = await begin(client, thread, "late", after_seconds=3600)
    assert await statuses(client, thread) == ["pending"]
    assert (await client.get(f"/threads/{thread}")).json()["status"] == "busy"
    first = await begin(client, thread, "1")
    second = await begin(client, thread, "2")
    assert (await join(client, thread, second))["said"][-1] == "did 2"
    await client.post(f"/threads/{thread}/runs/{run}/cancel?wait=1")
    assert await statuses(client, thread) == ["interrupted", "success", "success"]
    assert (await join(client, thread, first), gated.turns) != ({}, ["late"])
    thread = await new_thread(client)
    soon = await begin(client, thread, "wait soon", after_seconds=0.05)
    await join(client, thread, await begin(client, thread, "before"))
    gated.gate.open()
    await join(client, thread, soon)
    await join(client, thread, await begin(client, thread, "after"))
    assert (await said(client, thread))[::3] == ["before", "wait soon", "after"]


async def test_fifty_posts_with_one_key_make_one_run(place: Any) -> None:
    client, gated = place
    thread = await new_thread(client)
    key = {"idempotency-key": "k1"}
    posts = (client.post(f"/threads/{thread}/runs", json=turn("once"), headers=key) for _ in range(50))
    answers = await asyncio.gather(*posts)
    made = {each.json()["run_id"] for each in answers if each.status_code == 200}
    assert len(made) == 1
    assert {each.status_code for each in answers} <= {200, 409}
    await join(client, thread, made.pop())
    assert gated.turns == ["once"]
    other = await client.post(f"/threads/{thread}/runs", json=turn("twice"), headers=key)
    assert other.status_code == 422
