"""A run is read and cancelled through another process than the one it runs in: all they share is the store."""

from __future__ import annotations

import asyncio
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import pytest

from agent_server.http.identity import TENANT
from tests.faults.test_cancel import Waiting, body, newest, terminal_of
from tests.support.exchange import Exchange, ask, frames_of, opened, response_id
from tests.support.faulty import faulty_stores
from tests.support.gates import Gate
from tests.support.scripted import gated_text


@pytest.fixture(params=["sqlite", "postgres"])
def store(request: pytest.FixtureRequest, tmp_path: Path) -> str:
    """A store that two processes can share."""
    return str(request.getfixturevalue("postgres")) if request.param == "postgres" else f"sqlite:///{tmp_path}/runs.db"


async def test_a_run_is_followed_from_any_cursor_through_the_other_process(store: str) -> None:
    gate = Gate()
    agents = {"agent": gated_text(["Hel", "lo"], gate, [" wor", "ld"])}
    async with (
        opened(agents, store) as here,
        opened(agents, store) as there,
        Exchange(here, "POST", "/v1/responses", body(stream=True)) as live,
    ):
        kept = response_id(await live.until(b'"delta":"lo"'))
        half = await (await ask(there, "GET", f"/v1/responses/{kept}")).json()
        assert half == await (await ask(here, "GET", f"/v1/responses/{kept}")).json()
        assert half["status"] == "in_progress"
        readers = [
            Exchange(there, "GET", f"/v1/responses/{kept}?stream=true&starting_after={cursor}") for cursor in range(12)
        ]
        whole = [asyncio.create_task(_whole(each)) for each in readers]
        gate.open()
        frames = frames_of(await live.whole())
        for cursor, read in enumerate(whole):
            assert await read == b"".join([*frames[cursor + 1 : -1], frames[-1]])


async def _whole(exchange: Exchange) -> bytes:
    async with exchange:
        return await exchange.whole()


@pytest.mark.parametrize("options", [{"stream": True}, {"background": True}], ids=["streamed", "background"])
async def test_a_run_is_cancelled_through_the_other_process(store: str, options: dict[str, Any]) -> None:
    waiting = Waiting("tool")
    agents = {"agent": waiting.graph()}
    async with (
        opened(agents, store) as here,
        opened(agents, store) as there,
        Exchange(here, "POST", "/v1/responses", body(**options)),
    ):
        await waiting.gate.reached()
        kept = await newest(here)
        async with Exchange(there, "GET", f"/v1/responses/{kept}?stream=true") as reader:
            async with asyncio.timeout(2):
                first, second = await asyncio.gather(
                    *(ask(app, "POST", f"/v1/responses/{kept}/cancel") for app in (here, there))
                )
            ended = await first.json()
            assert waiting.is_stopped
            assert ended["status"] == "cancelled"
            assert ended == await second.json()
            assert [each["response"] for each in terminal_of(await reader.whole())] == [ended]


async def test_a_run_that_waits_in_line_is_cancelled_through_the_other_process(store: str) -> None:
    waiting = Waiting("model")
    agents = {"agent": waiting.graph()}
    async with (
        opened(agents, store, busy_conversation="enqueue") as here,
        opened(agents, store, busy_conversation="enqueue") as there,
        Exchange(here, "POST", "/v1/responses", body(stream=True)) as first,
    ):
        await first.until(b'"delta":"me "')
        async with Exchange(there, "POST", "/v1/responses", body(stream=True)) as second:
            while (kept := await newest(here)) in first.received.decode():
                await asyncio.sleep(0)
            ended = await (await ask(here, "POST", f"/v1/responses/{kept}/cancel")).json()
            assert ended["status"] == "cancelled"
            assert [each["response"] for each in terminal_of(await second.whole())] == [ended]


async def test_a_run_that_was_taken_from_a_slow_process_ends_for_its_readers_as_the_new_owner_says(store: str) -> None:
    """The slow owner is alive and goes on: nothing of that is seen anywhere, and it is stopped."""
    gate = Gate()
    agents = {"agent": gated_text(["Hel", "lo"], gate, [" wor", "ld"])}
    with faulty_stores() as stores:
        async with opened(agents, store, lease_seconds=1) as here, opened(agents, store, lease_seconds=1) as there:
            stores[0].held["renew"] = Gate()
            async with Exchange(here, "POST", "/v1/responses", body(stream=True, background=True)) as live:
                kept = response_id(await live.until(b'"delta":"lo"'))
                async with Exchange(there, "GET", f"/v1/responses/{kept}?stream=true") as reader:
                    stream = await reader.whole()
                gate.open()
                assert await live.whole() == stream
            (end,) = terminal_of(stream)
            assert end["response"]["error"]["code"] == "server_restarted"
            assert end["response"]["output"][0]["content"][0]["text"] == "Hello"
            assert (await ask(here, "GET", f"/v1/responses/{kept}?stream=true")).received == stream
            await _until_idle([here])


async def _until_idle(apps: Sequence[Any]) -> None:
    async with asyncio.timeout(5):
        while any(len(app.state.engine) for app in apps):
            await asyncio.sleep(0.01)


async def test_a_response_that_is_deleted_by_another_process_while_it_runs_ends_for_its_readers(store: str) -> None:
    gate = Gate()
    agents = {"agent": gated_text(["Hel", "lo"], gate, [" wor", "ld"])}
    async with (
        opened(agents, store) as here,
        opened(agents, store) as there,
        Exchange(here, "POST", "/v1/responses", body(stream=True)) as live,
    ):
        kept = response_id(await live.until(b'"delta":"lo"'))
        async with Exchange(there, "GET", f"/v1/responses/{kept}?stream=true") as reader:
            await reader.until(b'"delta":"lo"')
            await there.state.engine.keeper.store.delete_run(TENANT, kept.removeprefix("resp_"))
            gate.open()
            for each in (live, reader):
                (end,) = terminal_of(await each.whole())
                assert end["response"]["error"]["code"] == "deleted"
        assert (await ask(here, "GET", f"/v1/responses/{kept}")).status == 404
        await _until_idle([here, there])
