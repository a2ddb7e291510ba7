"""Idempotency keys, and what happens to all that is kept when its time is over."""

from __future__ import annotations

import asyncio

import pytest

from agent_server.runs.stores.port import Claim, RunStatus, Store, Thread
from tests.conformance.stores.rows import LEASE, OVER, add, created, log, row


async def claimed(store: Store, run_id: str, *, tenant: str = "us", route: str = "/r", key: str = "k", now: int = 0):  # type: ignore[no-untyped-def]
    return await store.claim(tenant, route, key, Claim(f"digest of {run_id}", run_id), now=now, expires_at=now + 10)


async def test_a_key_belongs_to_whom_it_was_claimed_for_first(store: Store) -> None:
    assert await claimed(store, "r1") is None
    assert await claimed(store, "r2") == Claim("digest of r1", "r1")
    assert await claimed(store, "r1") == Claim("digest of r1", "r1")


async def test_of_fifty_claims_at_once_one_wins_and_the_others_are_told_who(store: Store) -> None:
    answers = await asyncio.gather(*(claimed(store, f"r{number}") for number in range(50)))
    winner = f"r{answers.index(None)}"
    assert answers.count(None) == 1
    assert answers.count(Claim(f"digest of {winner}", winner)) == 49


async def test_a_key_is_free_again_when_its_time_is_over(store: Store) -> None:
    assert await claimed(store, "r1", now=0) is None
    assert await claimed(store, "r2", now=9) == Claim("digest of r1", "r1")
    assert await claimed(store, "r2", now=10) is None
    assert await claimed(store, "r3", now=19) == Claim("digest of r2", "r2")


async def test_a_key_is_free_again_when_no_run_came_of_it_in_time(store: Store) -> None:
    async def claimed_by(run_id: str, now: int) -> Claim | None:
        return await store.claim("us", "/r", "k", Claim("d", run_id), now=now, expires_at=9000, run_by=now + 5)

    assert await claimed_by("r1", 0) is None
    assert await claimed_by("r2", 4) == Claim("d", "r1")
    assert await claimed_by("r3", 5) is None
    await store.create_run("them", row("r3", status="completed"), LEASE)
    assert await claimed_by("r4", 10) is None, "a run of another tenant is none of this key's"
    await created(store, row("r4", status="completed", expires_at=2000))
    assert await claimed_by("r5", 15) == Claim("d", "r4")
    assert await store.expire(2000, 10) == 1
    assert await claimed_by("r5", 2001) == Claim("d", "r4"), "there was a run, and it is known to have expired"


async def test_a_key_whose_run_is_deleted_is_free_again_in_time(store: Store) -> None:
    async def claimed_by(run_id: str, now: int) -> Claim | None:
        return await store.claim("us", "/r", "k", Claim("d", run_id), now=now, expires_at=99, run_by=5)

    assert await claimed_by("r1", 0) is None
    await created(store, row("r1", status="completed"))
    assert await claimed_by("r2", 5) == Claim("d", "r1")
    await store.delete_run("us", "r1")
    assert await claimed_by("r2", 4) == Claim("d", "r1")
    assert await claimed_by("r2", 5) is None


async def test_a_key_that_waits_for_no_run_is_held_without_one(store: Store) -> None:
    assert await claimed(store, "r1", now=0) is None
    assert await store.claim("us", "/r", "k", Claim("d", "r2"), now=9, expires_at=99, run_by=9) is not None


async def test_a_key_is_of_one_route(store: Store) -> None:
    assert await claimed(store, "r1") is None
    assert await claimed(store, "r2", route="/s") is None
    assert await claimed(store, "r3", key="l") is None


async def test_a_key_is_given_back_by_whom_it_was_taken_for_alone(store: Store) -> None:
    await claimed(store, "r1")
    await store.release("us", "/r", "k", "r2")
    assert await claimed(store, "r2") == Claim("digest of r1", "r1")
    await store.release("us", "/r", "k", "r1")
    assert await claimed(store, "r2") is None
    await store.release("us", "/r", "no such key", "r1")


async def test_keys_may_be_claimed_while_others_give_them_back(store: Store) -> None:
    async def claim_and_release(run_id: str) -> bool:
        won = await claimed(store, run_id) is None
        await store.release("us", "/r", "k", run_id)
        return won

    assert any(await asyncio.gather(*(claim_and_release(f"r{number}") for number in range(50))))
    assert await claimed(store, "last") is None


async def test_a_run_whose_time_is_over_goes_with_its_events_and_is_remembered(store: Store) -> None:
    await created(store, row(expires_at=2000))
    await store.append([add(b"0", status="completed")])
    assert await store.expire(1999, 10) == 0
    assert not await store.expired("us", "r1")
    assert await log(store) == [b"0"]
    assert await store.expire(2000, 10) == 1
    assert await store.run("us", "r1") is None
    assert await log(store) == []
    assert await store.expired("us", "r1")
    assert await store.expire(2000, 10) == 0


async def test_an_expired_run_is_remembered_for_as_long_as_it_was_kept(store: Store) -> None:
    await created(store, row(status="completed", created_at=1000, expires_at=2000))
    await store.expire(2500, 10)
    await store.expire(3499, 10)
    assert await store.expired("us", "r1")
    await store.expire(3500, 10)
    assert not await store.expired("us", "r1")


@pytest.mark.parametrize("status", ["queued", "running"])
async def test_a_run_that_is_not_over_does_not_expire(store: Store, status: RunStatus) -> None:
    run = await created(store, row(status=status, expires_at=2000))
    assert await store.expire(9000, 10) == 0
    assert await store.run("us", "r1") == run
    assert await store.thread("us", "t1") is not None


async def test_what_has_no_time_stays(store: Store) -> None:
    await created(store, row(status="completed"))
    await store.create_thread("us", Thread("t2", 0))
    assert await store.expire(2**60, 10) == 0
    assert await store.run("us", "r1") is not None
    assert await store.thread("us", "t2") is not None


async def test_a_thread_goes_when_its_time_is_over_and_its_last_run_has_gone(store: Store) -> None:
    await created(store, row("r1", status="completed", expires_at=2000))
    await created(store, row("r2", status="completed", expires_at=3000))
    await store.create_thread("us", Thread("t2", 0, expires_at=2000))
    assert await store.expire(2000, 10) == 1
    assert await store.thread("us", "t1") is not None
    assert await store.thread("us", "t2") is None
    assert await store.expire(3000, 10) == 1
    assert await store.thread("us", "t1") is None


async def test_no_more_runs_expire_at_once_than_allowed_the_first_due_first(store: Store) -> None:
    for number in range(5):
        await created(store, row(f"r{number}", status="completed", expires_at=2000 - number))
    assert await store.expire(2000, 2) == 2
    assert [run.id for run in await store.runs("us", "t1")] == ["r0", "r1", "r2"]
    assert await store.expire(2000, 2) == 2
    assert await store.expire(2000, 2) == 1
    assert await store.expire(2000, 2) == 0


async def test_numbers_of_an_expired_run_are_not_used_again(store: Store) -> None:
    await store.create_thread("us", Thread("t1", 0))
    await created(store, row(expires_at=2000))
    await store.append([add(b"0", b"1", status="completed")])
    await store.expire(2000, 10)
    assert (await created(store, row("r2"))).base == 2


async def test_keys_expire(store: Store) -> None:
    await claimed(store, "r1", now=0)
    await store.expire(10, 10)
    assert await claimed(store, "r2", now=5) is None


async def test_upkeep_and_use_do_not_hinder_each_other(store: Store) -> None:
    async def use(number: int) -> None:
        for each in range(5):
            name = f"r{number}-{each}"
            await created(store, row(name, "t1" if each % 2 else name, "completed", expires_at=2000), LEASE)
            await created(store, row(f"{name}-live", f"{name}-live", expires_at=2000), OVER)
            await store.append([add(b"x", run_id=f"{name}-live", status="completed")])
            await store.delete_run("us", name)

    async def expire() -> None:
        for _ in range(20):
            await store.expire(2000, 3)

    await asyncio.gather(*(use(number) for number in range(5)), expire(), expire())
    while await store.expire(2000, 100):
        pass
    assert await store.thread("us", "t1") is None
