"""A store that is away: what it missed is written when it is back, and what cannot wait ends with one clear event."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from pathlib import Path

import pytest
from starlette.applications import Starlette

from agent_server.http.identity import TENANT
from tests.faults.test_cancel import Waiting, body, newest, terminal_of
from tests.support.exchange import Exchange, ask, frames_of, opened, response_id
from tests.support.faulty import FaultyStore, faulty_stores
from tests.support.gates import Gate
from tests.support.scripted import gated_text


@pytest.fixture(params=["memory", "sqlite"])
def url(request: pytest.FixtureRequest, tmp_path: Path) -> str:
    return "memory" if request.param == "memory" else f"sqlite:///{tmp_path}/runs.db"


@pytest.fixture
def gate() -> Gate:
    return Gate()


@pytest.fixture
async def served(url: str, gate: Gate) -> AsyncIterator[tuple[Starlette, FaultyStore]]:
    """An app whose agent stops at the gate, and its store."""
    with faulty_stores() as stores:
        agents = {"agent": gated_text(["Hel", "lo"], gate, [" wor", "ld"])}
        async with opened(agents, url, lease_seconds=1, busy_conversation="enqueue") as app:
            yield app, stores[0]


async def _until_failed(store: FaultyStore, verb: str, times: int = 1) -> None:
    async with asyncio.timeout(10):
        while store.failed.count(verb) < times:
            await asyncio.sleep(0.001)


@pytest.mark.parametrize("fault", ["failing", "unacknowledged"])
async def test_a_store_that_is_away_for_a_while_loses_nothing_and_repeats_nothing(
    served: tuple[Starlette, FaultyStore], gate: Gate, fault: str
) -> None:
    app, store = served
    async with Exchange(app, "POST", "/v1/responses", body(stream=True)) as live:
        kept = response_id(await live.until(b'"delta":"lo"'))
        getattr(store, fault).add("append")
        gate.open()
        await _until_failed(store, "append", 3)
        assert b'"delta":" wor"' not in live.received
        store.come_back()
        stream = await live.whole()
    assert terminal_of(stream)[0]["response"]["output"][0]["content"][0]["text"] == "Hello world"
    assert (await ask(app, "GET", f"/v1/responses/{kept}?stream=true")).received == stream


async def test_a_store_that_stays_away_fails_the_run_and_the_server_lives_on(
    served: tuple[Starlette, FaultyStore], gate: Gate
) -> None:
    app, store = served
    app.state.engine.keeper.hasten()  # patience of a few seconds
    async with Exchange(app, "POST", "/v1/responses", body(stream=True)) as live:
        kept = response_id(await live.until(b'"delta":"lo"'))
        async with Exchange(app, "GET", f"/v1/responses/{kept}?stream=true") as reader:
            await reader.until(b'"delta":"lo"')
            store.go_away()
            gate.open()
            stream = await live.whole()
            assert await reader.whole() == stream
        (end,) = terminal_of(stream)
        assert end["response"]["error"]["code"] == "store_unavailable"
        assert end["response"]["output"][0]["content"][0]["text"] == "Hello"
    assert len(app.state.engine) == 0
    for method, target in (("POST", "/v1/responses"), ("GET", f"/v1/responses/{kept}")):
        away = await ask(app, method, target, body() if method == "POST" else None)
        assert away.status == 503
        assert (await away.json())["error"]["code"] == "store_unavailable"
    assert (await ask(app, "POST", "/v1/responses", {"input": "Hello", "store": False})).status == 200
    assert (await ask(app, "GET", "/health")).status == 200
    store.come_back()
    await _until_ended(app, kept)
    assert (await ask(app, "GET", f"/v1/responses/{kept}?stream=true")).received == stream
    assert (await ask(app, "POST", "/v1/responses", body())).status == 200


async def _until_ended(app: Starlette, kept: str) -> None:
    """The row is given the end that readers saw, and frees its thread."""
    async with asyncio.timeout(10):
        while (row := await app.state.engine.keeper.row(TENANT, kept.removeprefix("resp_"))).status == "running":
            await asyncio.sleep(0.01)
    assert row.status == "failed"


async def test_a_run_whose_acceptance_was_not_acknowledged_does_not_hold_its_conversation(
    served: tuple[Starlette, FaultyStore], gate: Gate
) -> None:
    app, store = served
    gate.open()
    store.unacknowledged.add("create_run")
    assert (await ask(app, "POST", "/v1/responses", body())).status == 503
    store.come_back()
    kept = await newest(app)
    assert (await (await ask(app, "POST", "/v1/responses", body())).json())["status"] == "completed"
    (end,) = terminal_of((await ask(app, "GET", f"/v1/responses/{kept}?stream=true")).received)
    assert end["response"]["error"]["code"] == "store_unavailable"


async def test_a_run_in_line_outlasts_a_store_that_is_away(url: str) -> None:
    waiting = Waiting("model")
    with faulty_stores() as stores:
        async with (
            opened({"agent": waiting.graph()}, url, busy_conversation="enqueue") as app,
            Exchange(app, "POST", "/v1/responses", body(stream=True)) as first,
        ):
            await first.until(b'"delta":"me "')
            async with Exchange(app, "POST", "/v1/responses", body(stream=True)) as second:
                while await newest(app) in first.received.decode():
                    await asyncio.sleep(0)
                stores[0].failing = {"start_run", "run", "ask_to_cancel"}
                await _until_failed(stores[0], "start_run", 2)
                stores[0].come_back()
                waiting.gate.open()
                assert terminal_of(await second.whole())[0]["response"]["status"] == "completed"


async def test_a_run_in_line_is_cancelled_as_soon_as_the_store_is_back(url: str) -> None:
    waiting = Waiting("model")
    with faulty_stores() as stores:
        async with (
            opened({"agent": waiting.graph()}, url, busy_conversation="enqueue") as app,
            Exchange(app, "POST", "/v1/responses", body(stream=True)) as first,
        ):
            await first.until(b'"delta":"me "')
            async with Exchange(app, "POST", "/v1/responses", body(stream=True)) as second:
                while (kept := await newest(app)) in first.received.decode():
                    await asyncio.sleep(0)
                stores[0].failing = {"start_run", "ask_to_cancel"}
                cancel = asyncio.create_task(ask(app, "POST", f"/v1/responses/{kept}/cancel"))
                await _until_failed(stores[0], "ask_to_cancel")
                stores[0].come_back()
                assert (await (await cancel).json())["status"] == "cancelled"
                assert len(terminal_of(await second.whole())) == 1


async def test_one_who_follows_a_run_of_another_process_hears_of_its_end_after_the_store_was_away(
    tmp_path: Path, gate: Gate
) -> None:
    agents = {"agent": gated_text(["Hel", "lo"], gate, [" wor", "ld"])}
    url = f"sqlite:///{tmp_path}/runs.db"
    with faulty_stores() as stores:
        async with (
            opened(agents, url) as here,
            opened(agents, url) as there,
            Exchange(here, "POST", "/v1/responses", body(stream=True)) as live,
        ):
            kept = response_id(await live.until(b'"delta":"lo"'))
            async with Exchange(there, "GET", f"/v1/responses/{kept}?stream=true") as reader:
                await reader.until(b'"delta":"lo"')
                stores[1].go_away()
                await _until_failed(stores[1], "events")
                gate.open()
                stream = await live.whole()
                stores[1].come_back()
                assert frames_of(await reader.whole()) == frames_of(stream)


async def test_a_server_whose_store_is_away_ends_within_seconds(url: str, gate: Gate) -> None:
    with faulty_stores() as stores:
        async with opened({"agent": gated_text(["Hel", "lo"], gate, [" wor", "ld"])}, url) as app:
            live = Exchange(app, "POST", "/v1/responses", body(stream=True, background=True))
            async with live:
                await live.until(b'"delta":"lo"')
                stores[0].go_away()
                async with asyncio.timeout(10):
                    await app.state.engine.aclose()
                (end,) = terminal_of(await live.whole())
                assert end["response"]["error"]["code"] == "store_unavailable"
