"""Crons fire once for each time that they are due, by a clock that the test holds."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import httpx
import pytest
from starlette.applications import Starlette

from agent_server.http.identity import TENANT
from agent_server.protocols.langgraph.crons import Crons
from agent_server.protocols.langgraph.routes import LangGraphApi
from tests.support.platform import echo, platform

HI = {"messages": [{"role": "user", "content": "hi"}]}


def at(text: str) -> int:
    return round(datetime.fromisoformat(text).replace(tzinfo=UTC).timestamp() * 1000)


class Clock:
    """Unix milliseconds that only the test moves."""

    def __init__(self, now: str) -> None:
        self.now = at(now)

    def __call__(self) -> int:
        return self.now


def crons_of(app: Starlette, clock: Clock) -> Crons:
    """Another process's crons, as far as crons know processes."""
    api: LangGraphApi = app.state.langgraph
    return Crons(api.assistants, api.beginning, api.notes, api.states, app.state.engine, clock)


@pytest.fixture(params=["memory", "sqlite"])
async def server(request: Any, tmp_path: Path) -> AsyncIterator[tuple[httpx.AsyncClient, Starlette]]:
    store = "memory" if request.param == "memory" else f"sqlite:///{tmp_path}/runs.db"
    async with platform({"agent": echo()}, store=store) as (client, app):
        yield client, app


async def runs_of(client: httpx.AsyncClient, thread: str) -> list[dict[str, Any]]:
    return (await client.get(f"/threads/{thread}/runs?limit=100")).json()


async def test_a_cron_fires_when_it_is_due_and_once(server: Any) -> None:
    client, app = server
    thread = (await client.post("/threads", json={})).json()["thread_id"]
    clock = Clock("2030-01-01T08:59:30")
    crons = crons_of(app, clock)
    made = await crons.create({"assistant_id": "agent", "schedule": "0 9 * * *", "input": HI}, thread)
    assert made.next_run_date == at("2030-01-01T09:00:00")
    await crons.tick()
    assert await runs_of(client, thread) == []
    clock.now = at("2030-01-01T09:00:01")
    await asyncio.gather(*(crons_of(app, clock).tick() for _ in range(5)), crons.tick())
    runs = await runs_of(client, thread)
    assert [each["metadata"]["cron_id"] for each in runs] == [made.cron_id]
    assert (await crons.find(made.cron_id)).next_run_date == at("2030-01-02T09:00:00")


async def test_what_was_due_while_nobody_looked_fires_once(server: Any) -> None:
    client, app = server
    thread = (await client.post("/threads", json={})).json()["thread_id"]
    clock = Clock("2030-01-01T00:00:00")
    crons = crons_of(app, clock)
    await crons.create({"assistant_id": "agent", "schedule": "*/5 * * * *", "input": HI}, thread)
    clock.now = at("2030-01-01T12:01:00")
    await crons.tick()
    await crons.tick()
    assert len(await runs_of(client, thread)) == 1
    assert [each.next_run_date for each in await crons.all()] == [at("2030-01-01T12:05:00")]


async def test_a_cron_knows_its_time_zone_and_its_end(server: Any) -> None:
    _, app = server
    clock = Clock("2030-07-01T00:00:00")
    crons = crons_of(app, clock)
    asked = {"assistant_id": "agent", "schedule": "0 9 * * *", "timezone": "Europe/Berlin", "input": HI}
    made = await crons.create(asked, None)
    assert made.next_run_date == at("2030-07-01T07:00:00")
    ended = await crons.update(made, {"end_time": "2030-07-01T06:00:00Z"})
    assert ended.next_run_date is None
    again = await crons.update(ended, {"end_time": None, "enabled": True})
    assert again.next_run_date == at("2030-07-01T07:00:00")
    assert (await crons.update(again, {"enabled": False})).next_run_date is None


async def test_a_cron_without_a_thread_gets_one_for_each_run(server: Any) -> None:
    _client, app = server
    clock = Clock("2030-01-01T00:00:00")
    crons = crons_of(app, clock)
    asked = {"assistant_id": "agent", "schedule": "* * * * *", "input": HI, "on_run_completed": "keep"}
    await crons.create(asked, None)
    for minute in (1, 2):
        clock.now = at(f"2030-01-01T00:0{minute}:01")
        await crons.tick()
    threads = await app.state.engine.keeper.store.threads(TENANT)
    assert len(threads) == 2


async def test_a_thread_goes_when_its_own_time_is_over(server: Any) -> None:
    client, app = server
    stays = (await client.post("/threads", json={"ttl": 10_000_000})).json()["thread_id"]
    goes = (await client.post("/threads", json={"ttl": {"ttl": 1, "strategy": "delete"}})).json()["thread_id"]
    keeps = (await client.post("/threads", json={"ttl": {"ttl": 1, "strategy": "keep_latest"}})).json()["thread_id"]
    await client.post(f"/threads/{keeps}/runs/wait", json={"assistant_id": "agent", "input": HI})
    await crons_of(app, Clock("2030-01-01T00:00:00")).tick()
    codes = [(await client.get(f"/threads/{each}")).status_code for each in (stays, goes, keeps)]
    assert codes == [200, 404, 200]
    assert len((await client.get(f"/threads/{keeps}/history")).json()) == 1


async def test_crons_are_there_after_a_restart(tmp_path: Path) -> None:
    store = f"sqlite:///{tmp_path}/runs.db"
    async with platform({"agent": echo()}, store=store) as (client, _):
        made = await client.post("/runs/crons", json={"assistant_id": "agent", "schedule": "0 0 1 1 *", "input": HI})
    async with platform({"agent": echo()}, store=store) as (client, _):
        assert (await client.get(f"/runs/crons/{made.json()['cron_id']}")).json() == made.json()
