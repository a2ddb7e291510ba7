"""Threads, their runs, and the line in which runs wait."""

from __future__ import annotations

import asyncio

import pytest

from agent_server.runs.stores.port import RunRow, RunStatus, Store, StoreError, Thread
from tests.conformance.stores.rows import LEASE, add, created, log, row

ENDS: list[RunStatus] = ["completed", "interrupted", "failed", "cancelled"]


async def test_a_thread_comes_back_as_it_was_given(store: Store) -> None:
    thread = Thread("t1", 17, '{"who": "Zoë 🦊"}'.encode(), expires_at=99)
    assert await store.create_thread("us", thread)
    assert await store.thread("us", "t1") == thread


async def test_a_second_thread_of_an_id_leaves_the_first_as_it_is(store: Store) -> None:
    first = Thread("t1", 17)
    await store.create_thread("us", first)
    assert not await store.create_thread("us", Thread("t1", 18, b"[]"))
    assert await store.thread("us", "t1") == first


async def test_the_metadata_of_a_thread_can_be_replaced(store: Store) -> None:
    await store.create_thread("us", Thread("t1", 17, b"old", expires_at=3))
    assert await store.update_thread("us", "t1", b"new")
    assert await store.thread("us", "t1") == Thread("t1", 17, b"new", expires_at=3)


async def test_what_is_not_there_is_told_so(store: Store) -> None:
    assert await store.thread("us", "t1") is None
    assert not await store.update_thread("us", "t1", b"new")
    assert not await store.delete_thread("us", "t1")
    assert await store.run("us", "r1") is None
    assert await store.runs("us", "t1") == []
    assert not await store.delete_run("us", "r1")
    assert await store.start_run("us", "r1", "me", LEASE) is None
    assert not await store.go_on_from("us", "r1", "r0", "c0")
    assert await store.ask_to_cancel("us", "r1", "why") is None
    assert await store.events("us", "r1", 0, 10) == []
    assert await store.take_over("us", row(), "you", LEASE) is None
    assert not await store.expired("us", "r1")


async def test_a_run_comes_back_as_it_was_given(store: Store) -> None:
    run = RunRow(
        "r1", "t1", "agent 🦊", "running", 1000, 0, 0, "r0", "c1", b'{"input": "\xc3\xab"}', 2000, "me", 3, "why"
    )
    assert await created(store, run) == run
    assert await store.run("us", "r1") == run
    assert await store.runs("us", "t1") == [run]


async def test_what_a_run_goes_on_from_can_be_replaced(store: Store) -> None:
    await created(store, row(previous="r0"))
    assert await store.go_on_from("us", "r1", "r9", "c9")
    found = await store.run("us", "r1")
    assert found is not None
    assert (found.previous, found.checkpoints) == ("r9", "c9")


async def test_a_run_brings_the_thread_that_it_names(store: Store) -> None:
    await created(store, row(expires_at=5000))
    assert await store.thread("us", "t1") == Thread("t1", 1000, expires_at=5000)


async def test_a_run_leaves_a_thread_as_it_is(store: Store) -> None:
    thread = Thread("t1", 17, b"mine")
    await store.create_thread("us", thread)
    await created(store, row())
    assert await store.thread("us", "t1") == thread


async def test_a_second_run_of_an_id_is_an_error_and_changes_nothing(store: Store) -> None:
    run = await created(store, row())
    with pytest.raises(StoreError):
        await store.create_run("us", row(thread_id="t2"), LEASE)
    assert await store.run("us", "r1") == run
    assert await store.thread("us", "t2") is None


async def test_a_second_running_run_of_a_thread_is_refused(store: Store) -> None:
    await created(store, row("r1"))
    assert await store.create_run("us", row("r2"), LEASE) is None
    assert await store.run("us", "r2") is None
    assert await store.create_run("us", row("r3", "t2"), LEASE) is not None


async def test_of_twenty_runs_created_at_once_on_a_thread_one_is_running(store: Store) -> None:
    made = await asyncio.gather(*(store.create_run("us", row(f"r{n}"), LEASE) for n in range(20)))
    won = [run for run in made if run is not None]
    assert len(won) == 1
    assert await store.runs("us", "t1") == won


async def test_the_place_and_the_length_of_a_run_are_the_stores_to_set(store: Store) -> None:
    assert await created(store, row(base=70, length=7)) == row(base=0, length=0)
    assert await store.run("us", "r1") == row()


async def test_runs_of_a_thread_are_numbered_one_after_the_other(store: Store) -> None:
    await created(store, row("r1"))
    await store.append([add(b"0", b"1", b"2", status="completed")])
    assert (await created(store, row("r2"))).base == 3
    await store.append([add(b"3", run_id="r2", status="failed")])
    assert (await created(store, row("r3"))).base == 4
    assert [(run.id, run.base, run.length) for run in await store.runs("us", "t1")] == [
        ("r1", 0, 3),
        ("r2", 3, 1),
        ("r3", 4, 0),
    ]


async def test_numbers_of_a_deleted_run_are_not_used_again(store: Store) -> None:
    await created(store, row("r1"))
    await store.append([add(b"0", b"1")])
    assert await store.delete_run("us", "r1")
    assert (await created(store, row("r2"))).base == 2


@pytest.mark.parametrize("status", ENDS)
async def test_a_run_given_with_a_terminal_status_is_kept_and_holds_nobody_up(store: Store, status: RunStatus) -> None:
    await created(store, row("r1", status=status))
    assert await store.run("us", "r1") == row("r1", status=status)
    assert await store.append([add(b"x")]) == [False]
    assert (await created(store, row("r2"))).base == 0


async def test_runs_are_listed_oldest_first_and_by_status(store: Store) -> None:
    for name in ("z", "a", "m"):
        await created(store, row(name, status="queued", created_at=5))
    await store.start_run("us", "z", "me", LEASE)
    assert [run.id for run in await store.runs("us", "t1")] == ["z", "a", "m"]
    assert [run.id for run in await store.runs("us", "t1", status="queued")] == ["a", "m"]
    assert [run.id for run in await store.runs("us", "t1", status="running")] == ["z"]
    assert await store.runs("us", "t1", status="failed") == []


async def test_queued_runs_begin_one_at_a_time_in_the_order_in_which_they_came(store: Store) -> None:
    await created(store, row("r1"))
    for name in ("z", "a"):
        await created(store, row(name, status="queued", owner="first"))
    await store.append([add(b"0", b"1")])
    assert await store.start_run("us", "z", "me", LEASE) is None, "another one is running"
    await store.append([add(b"2", after=2, status="completed")])
    assert await store.start_run("us", "a", "me", LEASE) is None, "it is not the first"
    started = await store.start_run("us", "z", "me", LEASE)
    assert started == row("z", base=3)
    assert await store.run("us", "z") == started
    assert await store.start_run("us", "z", "me", LEASE) is None, "it has begun"
    assert await store.append([add(b"3", run_id="z", status="failed")]) == [True]
    assert await store.start_run("us", "a", "me", LEASE) == row("a", base=4)


async def test_a_queued_run_begins_once_of_twenty_attempts_at_once(store: Store) -> None:
    await created(store, row("r1", status="queued"))
    started = await asyncio.gather(*(store.start_run("us", "r1", f"owner {n}", LEASE) for n in range(20)))
    won = [run for run in started if run is not None]
    assert won == [await store.run("us", "r1")]


async def test_whoever_waits_moves_up_when_a_run_before_it_is_cancelled_or_deleted(store: Store) -> None:
    for name in ("r1", "r2", "r3"):
        await created(store, row(name, status="queued"))
    assert await store.ask_to_cancel("us", "r1", "why") == "cancelled"
    assert await store.delete_run("us", "r2")
    assert await store.start_run("us", "r1", "me", LEASE) is None
    assert await store.start_run("us", "r3", "me", LEASE) == row("r3")


async def test_asking_a_running_run_to_cancel_leaves_word_and_the_first_reason_stands(store: Store) -> None:
    await created(store, row())
    assert await store.ask_to_cancel("us", "r1", "first") == "running"
    assert await store.ask_to_cancel("us", "r1", "second") == "running"
    assert await store.run("us", "r1") == row(cancel="first")
    assert await store.append([add(b"x", status="cancelled")]) == [True]


async def test_asking_a_queued_run_to_cancel_ends_it(store: Store) -> None:
    await created(store, row(status="queued"))
    assert await store.ask_to_cancel("us", "r1", "why") == "cancelled"
    assert await store.ask_to_cancel("us", "r1", "again") == "cancelled"
    assert await store.run("us", "r1") == row(status="cancelled", cancel="why")


@pytest.mark.parametrize("status", ENDS)
async def test_asking_a_run_that_is_over_to_cancel_changes_nothing(store: Store, status: RunStatus) -> None:
    await created(store, row())
    await store.append([add(b"x", status=status)])
    assert await store.ask_to_cancel("us", "r1", "why") == status
    assert await store.run("us", "r1") == row(status=status, length=1)


async def test_deleting_a_run_takes_its_events_and_leaves_the_others(store: Store) -> None:
    await created(store, row("r1"))
    await store.append([add(b"0", b"1", status="completed")])
    await created(store, row("r2"))
    await store.append([add(b"2", b"3", run_id="r2", status="completed")])
    assert await store.delete_run("us", "r1")
    assert await store.run("us", "r1") is None
    assert await log(store, "r1") == []
    assert await log(store, "r2") == [b"2", b"3"]
    assert not await store.delete_run("us", "r1")
    assert not await store.expired("us", "r1")


async def test_whoever_writes_for_a_deleted_run_is_refused(store: Store) -> None:
    await created(store, row())
    await store.delete_run("us", "r1")
    assert await store.append([add(b"x")]) == [False]


async def test_deleting_a_thread_takes_its_runs_and_their_events(store: Store) -> None:
    await created(store, row("r1"))
    await created(store, row("r2", status="queued"))
    await created(store, row("r3", "t2"))
    await store.append([add(b"0"), add(b"x", run_id="r3")])
    assert await store.delete_thread("us", "t1")
    assert await store.thread("us", "t1") is None
    assert await store.runs("us", "t1") == []
    assert await store.run("us", "r1") is None
    assert await store.run("us", "r2") is None
    assert await store.append([add(b"1", after=1)]) == [False]
    assert await log(store, "r3") == [b"x"]
    await created(store, row("r1"))
    assert await log(store, "r1") == [], "a new run of the same id and place has no old events"
    assert await store.append([add(b"new")]) == [True]
    assert await log(store, "r1") == [b"new"]
