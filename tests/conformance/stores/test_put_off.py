"""Runs that wait for a time, and keep nobody waiting."""

from __future__ import annotations

from agent_server.runs.stores.port import Store
from tests.conformance.stores.rows import LEASE, add, created, row


async def test_a_run_that_waits_for_a_time_keeps_nobody_waiting_who_came_after_it(store: Store) -> None:
    await created(store, row("later", status="queued", attempt=0))
    await created(store, row("now"))
    await created(store, row("next", status="queued"))
    assert await store.start_run("us", "next", "me", LEASE) is None
    assert await store.start_run("us", "later", "me", LEASE) is None
    assert await store.append([add(b"end", run_id="now", status="completed")]) == [True]
    started = await store.start_run("us", "next", "me", LEASE)
    assert started is not None
    assert started.status == "running"


async def test_when_its_time_has_come_it_waits_for_those_before_it_alone(store: Store) -> None:
    await created(store, row("now"))
    await created(store, row("before", status="queued"))
    await created(store, row("later", status="queued", attempt=0))
    await created(store, row("after", status="queued"))
    await store.append([add(b"end", run_id="now", status="completed")])
    assert await store.start_run("us", "later", "me", LEASE) is None
    assert await store.start_run("us", "before", "me", LEASE) is not None
    await store.append([add(b"end", run_id="before", status="completed")])
    started = await store.start_run("us", "later", "me", LEASE)
    assert started is not None
    assert await store.append([add(b"one", run_id="later", attempt=0, after=started.length)]) == [True]
