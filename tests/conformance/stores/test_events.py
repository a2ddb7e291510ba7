"""Events: bytes in, the same bytes out, and only from whoever owns the run."""

from __future__ import annotations

import asyncio
from collections.abc import Iterator
from typing import Any

import pytest

from agent_server.runs.stores.port import CorruptError, RunStatus, Store
from tests.conformance.stores.databases import alter, opened
from tests.conformance.stores.rows import LEASE, OVER, add, created, log, row

ODD = [
    b"",
    b"{}",
    "Zoë 🦊 \u2028 \U0010ffff".encode(),
    b'{"text": "line\\nline"}',
    b"\\x00 \\N \\.",
    b"'; drop table events; --",
    bytes(range(256)),
    b"x" * 2**20,
]


async def test_events_come_back_byte_for_byte(store: Store) -> None:
    await created(store, row())
    assert await store.append([add(*ODD)]) == [True]
    assert await log(store) == ODD


async def test_a_log_can_be_read_from_each_of_its_events_on(store: Store) -> None:
    await created(store, row("r0"))
    await store.append([add(b"other", run_id="r0", status="completed")])
    await created(store, row())
    events = [str(number).encode() for number in range(20)]
    await store.append([add(*events)])
    for after in range(22):
        assert await store.events("us", "r1", after, 100) == events[after:]
        assert await store.events("us", "r1", after, 3) == events[after : after + 3]
    assert await store.events("us", "r1", 0, 0) == []
    assert await store.events("us", "r1", 2**70, 2**70) == []


async def test_appending_lengthens_the_run(store: Store) -> None:
    await created(store, row())
    assert await store.append([add(b"0", b"1")]) == [True]
    assert await store.append([add(b"2", after=2)]) == [True]
    assert await store.run("us", "r1") == row(length=3)
    assert await log(store) == [b"0", b"1", b"2"]


@pytest.mark.parametrize("status", ["completed", "interrupted", "failed", "cancelled"])
async def test_the_last_events_end_the_run_and_nothing_follows_them(store: Store, status: RunStatus) -> None:
    await created(store, row())
    assert await store.append([add(b"0", status=status)]) == [True]
    assert await store.run("us", "r1") == row(status=status, length=1)
    assert await store.append([add(b"1", after=1), add(b"1", after=1, status="completed")]) == [False, False]
    assert await store.run("us", "r1") == row(status=status, length=1)
    assert await log(store) == [b"0"]


async def test_a_run_can_end_without_a_further_event(store: Store) -> None:
    await created(store, row())
    assert await store.append([add(status="cancelled")]) == [True]
    assert await store.run("us", "r1") == row(status="cancelled")


@pytest.mark.parametrize(
    "wrong",
    [
        {"owner": "you"},
        {"owner": ""},
        {"attempt": 0},
        {"attempt": 2},
        {"after": 0},
        {"after": 2},
        {"after": -1},
        {"run_id": "r2"},
        {"tenant": "them"},
    ],
    ids=str,
)
async def test_who_does_not_own_the_log_as_it_is_writes_nothing(store: Store, wrong: dict[str, Any]) -> None:
    await created(store, row())
    await store.append([add(b"0")])
    assert await store.append([add(b"x", **{"after": 1, "status": "failed", **wrong})]) == [False]
    assert await store.run("us", "r1") == row(length=1)
    assert await log(store) == [b"0"]
    assert await store.append([add(b"1", after=1)]) == [True]


async def test_an_append_that_is_repeated_is_acknowledged_again_and_not_added_twice(store: Store) -> None:
    await created(store, row("r1"))
    await created(store, row("r2", "t2"))
    for again in [
        add(b"0", b"0"),
        add(b"1", after=2),
        add(b"2", after=3, status="failed"),
        add(after=4, status="failed"),
    ]:
        assert await store.append([again]) == [True]
        assert await store.append([add(b"x", run_id="r2"), again]) == [True, True]
    assert await log(store) == [b"0", b"0", b"1", b"2"]
    assert await log(store, "r2") == [b"x"]
    assert await store.run("us", "r1") == row(status="failed", length=4)


async def test_an_append_is_no_repetition_if_anything_of_it_is_different(store: Store) -> None:
    run = await created(store, row(), OVER)
    await store.append([add(b"0", b"1")])
    others = [add(b"0"), add(b"0", b"2"), add(b"1", after=0), add(b"0", b"1", b"2"), add(b"1", after=-1), add(after=7)]
    assert await store.append([*others, add(b"0", b"1", status="completed")]) == [False] * 7
    assert await store.append([add(b"1", after=1)]) == [True]
    await store.take_over("us", run, "you", LEASE)
    assert await store.append([add(b"0", b"1"), add(b"0", b"1", attempt=2)]) == [False, False]
    assert await log(store) == [b"0", b"1"]


async def test_a_queued_run_has_no_events(store: Store) -> None:
    await created(store, row(status="queued"))
    assert await store.append([add(b"x")]) == [False]


async def test_the_former_owner_of_a_run_writes_nothing(store: Store) -> None:
    run = await created(store, row(), OVER)
    await store.append([add(b"0")])
    assert await store.take_over("us", run, "you", LEASE) == row(owner="you", attempt=2, length=1)
    assert await store.append([add(b"x", after=1), add(b"x", after=1, attempt=2)]) == [False, False]
    assert await store.append([add(b"1", after=1, owner="you", attempt=2)]) == [True]
    assert await log(store) == [b"0", b"1"]


async def test_a_batch_serves_many_runs_and_the_refused_ones_keep_nobody_up(store: Store) -> None:
    for number in range(30):
        await created(store, row(f"r{number}", f"t{number}"))
    batch = [
        add(f"{number} a".encode(), f"{number} b".encode(), run_id=f"r{number}", attempt=2 if number % 3 == 1 else 1)
        for number in reversed(range(30))
    ]
    assert await store.append(batch) == [number % 3 != 1 for number in reversed(range(30))]
    for number in range(30):
        expected = [] if number % 3 == 1 else [f"{number} a".encode(), f"{number} b".encode()]
        assert await log(store, f"r{number}") == expected


async def test_a_batch_may_hold_a_run_more_than_once(store: Store) -> None:
    await created(store, row("r1"))
    await created(store, row("r2", "t2"))
    batch = [
        add(b"0", run_id="r2"),
        add(b"0"),
        add(b"1", after=1, run_id="r2"),
        add(b"x", after=5),
        add(b"1", after=1, status="completed"),
        add(b"x", after=2),
    ]
    assert await store.append(batch) == [True, True, True, False, True, False]
    assert await log(store, "r1") == await log(store, "r2") == [b"0", b"1"]


async def test_an_empty_batch_is_nothing(store: Store) -> None:
    assert await store.append([]) == []


async def test_of_twenty_writers_at_one_place_one_wins(store: Store) -> None:
    await created(store, row())
    events = [str(number).encode() for number in range(20)]
    wins = await asyncio.gather(*(store.append([add(event)]) for event in events))
    assert sorted(wins) == [[False]] * 19 + [[True]]
    assert await log(store) == [events[wins.index([True])]]


async def test_batches_that_cross_each_other_all_come_to_an_end(store: Store) -> None:
    names = [f"r{number}" for number in range(100)]
    for name in names:
        await created(store, row(name, name))

    async def write(order: list[str], after: Iterator[int]) -> None:
        for length in after:
            await store.append([add(b"x", run_id=name, after=length) for name in order])
            await store.renew("me", LEASE)

    async with asyncio.TaskGroup() as writers:
        writers.create_task(write(names, iter(range(10))))
        writers.create_task(write(names[::-1], iter(range(10))))
    assert {run.length for name in names for run in await store.runs("us", name)} == {10}


@pytest.mark.parametrize(
    "damage",
    [
        "update events set data = {flipped} where seq = 1",
        "update events set crc = crc + 1 where seq = 1",
        "update events set seq = seq + 10 where seq = 1",
        "delete from events where seq = 1",
    ],
    ids=["flipped bit", "other checksum", "other place", "gone"],
)
async def test_a_damaged_event_is_noticed_and_never_served(url: str, damage: str) -> None:
    async with opened(url) as store:
        await created(store, row())
        await store.append([add(b"one", b"two", b"three", b"four")])
        await alter(url, damage.replace("{flipped}", "x'75776f'" if url.startswith("sqlite") else r"'\x75776f'"))
        assert await store.events("us", "r1", 0, 1) == [b"one"]
        for after in (0, 1):
            with pytest.raises(CorruptError):
                await store.events("us", "r1", after, 10)
