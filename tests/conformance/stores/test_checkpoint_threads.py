"""What a store knows of the checkpoints that runs have left elsewhere, and who deletes them."""

from __future__ import annotations

import asyncio
from pathlib import Path

import pytest
from msgspec.structs import replace

from agent_server.events import RunFinished, RunStarted
from agent_server.runs.keeper import Keeper, Keeping
from agent_server.runs.rows import wire_of
from agent_server.runs.stores.port import Store
from agent_server.runs.stores.url import open_store
from tests.conformance.stores.rows import created, row

PATIENCE = 20.0


async def test_a_store_tells_whether_a_run_has_these_checkpoints(store: Store) -> None:
    await created(store, row("r1", checkpoints="a"))
    await created(store, row("r2", "t2", checkpoints="a"))
    assert await store.refers("us", "a")
    assert not await store.refers("them", "a")
    assert not await store.refers("us", "b")
    await store.delete_run("us", "r1")
    assert await store.refers("us", "a")
    await store.delete_thread("us", "t2")
    assert not await store.refers("us", "a")


async def test_no_checkpoints_are_nobodys(store: Store) -> None:
    await created(store, row("r1", checkpoints=""))
    assert not await store.refers("us", "")


async def test_a_store_tells_whose_checkpoints_expire_first_and_deletes_nothing(store: Store) -> None:
    for number, until in enumerate((3000, 1000, 2000, 9000)):
        run = row(f"r{number}", f"t{number}", "completed", checkpoints=f"c{number}", expires_at=until)
        await created(store, run)
    await created(store, row("r5", "t5", checkpoints="c5", expires_at=1000))
    assert await store.expiring(3000, 2) == [("us", "c1"), ("us", "c2")]
    assert await store.expiring(3000, 9) == [("us", "c1"), ("us", "c2"), ("us", "c0")]
    assert await store.run("us", "r1") is not None


@pytest.fixture(params=["memory", "sqlite"])
def closed(request: pytest.FixtureRequest, tmp_path: Path) -> Store:
    """A store that is not open."""
    return open_store("memory" if request.param == "memory" else f"sqlite:///{tmp_path}/runs.db")


async def test_checkpoints_are_forgotten_with_the_last_run_that_has_them(closed: Store) -> None:
    forgotten: list[str] = []

    async def forget(checkpoints: str) -> None:
        forgotten.append(checkpoints)

    keeper = Keeper(closed, forget=forget)
    await keeper.open(lambda *_: None)
    for number, (thread, checkpoints) in enumerate((("t1", "a"), ("t1", "a"), ("t2", "a"), ("t2", "b"), ("t3", ""))):
        started = RunStarted(run_id=f"r{number}", agent="agent", at=1000)
        await keeper.note(started, Keeping("us", thread, checkpoints=checkpoints))
    first = await closed.run("us", "r0")
    assert first is not None
    await keeper.delete_run("us", first)
    assert forgotten == []
    await keeper.delete_thread("us", "t2")
    assert forgotten == ["b"]
    await keeper.delete_thread("us", "t1")
    await keeper.delete_thread("us", "t3")
    assert forgotten == ["b", "a"]
    await keeper.aclose()


async def test_a_run_that_is_only_noted_is_complete_and_leaves_its_thread_free(closed: Store) -> None:
    keeper = Keeper(closed)
    await keeper.open(lambda *_: None)
    for number in range(2):
        await keeper.note(RunStarted(run_id=f"r{number}", agent="", at=1000), Keeping("us", "t1", wire=b'{"a":1}'))
    first = await closed.run("us", "r0")
    assert first is not None
    log = await keeper.read("us", first)
    assert [type(event) for event in log.read(0)] == [RunStarted, RunFinished]
    assert wire_of(first) == b'{"a":1}'
    admitted = await keeper.admit(RunStarted(run_id="r2", agent="agent", at=1000), Keeping("us", "t1"))
    assert admitted.status == "running"
    await keeper.aclose()


async def test_checkpoints_are_forgotten_when_their_runs_expire(closed: Store) -> None:
    forgotten: asyncio.Queue[str] = asyncio.Queue()
    await closed.open()
    for number in range(3):
        run = row(f"r{number}", f"t{number}", "completed", checkpoints="shared" if number else "a", expires_at=1000)
        await created(closed, run if number != 2 else replace(run, expires_at=None))
    keeper = Keeper(closed, forget=forgotten.put)
    await keeper.open(lambda *_: None)
    async with asyncio.timeout(PATIENCE):
        assert await forgotten.get() == "a"
    await keeper.aclose()
    assert forgotten.empty()
