"""Leases: who owns a run, for how long, and who is next."""

from __future__ import annotations

import asyncio

from agent_server.runs.stores.memory import MemoryStore
from agent_server.runs.stores.port import Abandoned, Store
from tests.conformance.stores.rows import LEASE, OVER, add, created, row


async def test_runs_whose_lease_is_over_are_abandoned(store: Store) -> None:
    over = [await created(store, row("r1"), OVER), await created(store, row("r2", "t2", "queued"), OVER)]
    await created(store, row("r3", "t3"), LEASE)
    await created(store, row("r4", "t4", "queued"), LEASE)
    await created(store, row("r5", "t5", "completed"), OVER)
    found = await store.abandoned(10)
    assert sorted(found, key=lambda each: each.run.id) == [Abandoned("us", run) for run in over]
    assert len(await store.abandoned(1)) == 1


async def test_an_abandoned_run_that_ends_is_not_abandoned_any_more(store: Store) -> None:
    await created(store, row("r1"), OVER)
    await created(store, row("r2", "t2", "queued"), OVER)
    await store.append([add(b"x", status="failed")])
    await store.ask_to_cancel("us", "r2", "why")
    assert await store.abandoned(10) == []


async def test_a_renewed_lease_is_not_over(store: Store) -> None:
    await created(store, row("r1"), OVER)
    await created(store, row("r2", "t2", "queued"), OVER)
    await created(store, row("r3", "t3", owner="you"), OVER)
    assert await store.renew("me", LEASE) == []
    assert [each.run.id for each in await store.abandoned(10)] == ["r3"]


async def test_a_started_run_has_the_lease_of_whoever_started_it(store: Store) -> None:
    await created(store, row("r1", status="queued"), OVER)
    await store.start_run("us", "r1", "you", LEASE)
    assert await store.abandoned(10) == []
    await store.renew("me", OVER)
    assert await store.abandoned(10) == []
    await store.renew("you", OVER)
    assert await store.abandoned(10) == [Abandoned("us", row("r1", owner="you"))]


async def test_renewing_tells_which_runs_are_to_be_stopped_and_why(store: Store) -> None:
    for name in ("r1", "r2", "r3", "r4"):
        await created(store, row(name, name, owner="you" if name == "r4" else "me"))
    await store.create_run("them", row("r1", "r1"), LEASE)
    assert await store.renew("me", LEASE) == []
    await store.ask_to_cancel("us", "r1", "one")
    await store.ask_to_cancel("us", "r2", "two")
    await store.ask_to_cancel("us", "r4", "not mine")
    await store.ask_to_cancel("them", "r1", "theirs")
    await store.append([add(b"x", run_id="r2", status="cancelled")])
    assert sorted(await store.renew("me", LEASE)) == [("them", "r1", "theirs"), ("us", "r1", "one")]


async def test_an_abandoned_run_is_taken_over_by_exactly_one_of_twenty(store: Store) -> None:
    await created(store, row(), OVER)
    await store.append([add(b"0", b"1")])
    ((_, run),) = [(each.tenant, each.run) for each in await store.abandoned(10)]
    takers = await asyncio.gather(*(store.take_over("us", run, f"owner {n}", LEASE) for n in range(20)))
    (taken,) = [each for each in takers if each is not None]
    assert taken == row(owner=f"owner {takers.index(taken)}", attempt=2, length=2)
    assert await store.run("us", "r1") == taken
    assert await store.abandoned(10) == []


async def test_nobody_takes_over_a_run_whose_lease_is_not_over(store: Store) -> None:
    run = await created(store, row(), LEASE)
    assert await store.take_over("us", run, "you", LEASE) is None
    assert await store.run("us", "r1") == run


async def test_nobody_takes_over_a_run_that_is_over(store: Store) -> None:
    run = await created(store, row(), OVER)
    await store.append([add(b"x", status="completed")])
    assert await store.take_over("us", run, "you", LEASE) is None


async def test_a_run_that_was_taken_over_can_be_so_again_but_not_from_the_old_owner(store: Store) -> None:
    first = await created(store, row(), OVER)
    second = await store.take_over("us", first, "me", OVER)
    assert second == row(attempt=2)
    assert await store.take_over("us", first, "you", LEASE) is None
    assert await store.take_over("us", second, "you", LEASE) == row(owner="you", attempt=3)


async def test_a_queued_run_that_was_taken_over_keeps_its_place_in_the_line(store: Store) -> None:
    await created(store, row("r0"))
    run = await created(store, row("r1", status="queued"), OVER)
    await created(store, row("r2", status="queued"))
    assert await store.take_over("us", run, "you", LEASE) == row("r1", status="queued", owner="you", attempt=2)
    await store.append([add(run_id="r0", status="completed")])
    assert await store.start_run("us", "r2", "me", LEASE) is None
    assert await store.start_run("us", "r1", "you", LEASE) == row("r1", owner="you", attempt=2)


async def test_the_store_in_memory_measures_leases_by_its_clock() -> None:
    now = 100.0
    store = MemoryStore(clock=lambda: now)
    await created(store, row(), 5000)
    now = 104.999
    assert await store.abandoned(10) == []
    now = 105.0
    assert await store.abandoned(10) == [Abandoned("us", row())]
