"""Tenants never see, nor change, what is another's: every verb that names a tenant."""

from __future__ import annotations

import inspect
from collections.abc import Awaitable, Callable
from typing import Any

import pytest

from agent_server.runs.stores.port import Append, Claim, Document, Store, Thread
from tests.conformance.stores.rows import LEASE, OVER, add, created, row

Verb = Callable[[Store], Awaitable[Any]]

AS_ANOTHER: dict[str, tuple[Verb, Any]] = {
    "create_thread": (lambda s: s.create_thread("them", Thread("t1", 1, b"theirs")), True),
    "thread": (lambda s: s.thread("them", "t1"), None),
    "update_thread": (lambda s: s.update_thread("them", "t1", b"theirs"), False),
    "delete_thread": (lambda s: s.delete_thread("them", "t1"), False),
    "threads": (lambda s: s.threads("them"), []),
    "put_document": (lambda s: s.put_document("them", Document("cron", "d1", b"theirs")), True),
    "document": (lambda s: s.document("them", "cron", "d1"), None),
    "documents": (lambda s: s.documents("them", "cron"), []),
    "delete_document": (lambda s: s.delete_document("them", "cron", "d1"), False),
    "create_run": (lambda s: s.create_run("them", row("r1"), LEASE), row("r1")),
    "start_run": (lambda s: s.start_run("them", "waiting", "me", LEASE), None),
    "go_on_from": (lambda s: s.go_on_from("them", "r1", "r0", "theirs"), False),
    "run": (lambda s: s.run("them", "r1"), None),
    "runs": (lambda s: s.runs("them", "t1"), []),
    "runs of a status": (lambda s: s.runs("them", "t1", status="running"), []),
    "delete_run": (lambda s: s.delete_run("them", "r1"), False),
    "ask_to_cancel": (lambda s: s.ask_to_cancel("them", "r1", "theirs"), None),
    "ask_to_cancel a queued one": (lambda s: s.ask_to_cancel("them", "waiting", "theirs"), None),
    "append": (lambda s: s.append([add(b"theirs", tenant="them", after=2)]), [False]),
    "events": (lambda s: s.events("them", "r1", 0, 10), []),
    "take_over": (lambda s: s.take_over("them", row("left", "t2"), "they", LEASE), None),
    "claim": (lambda s: s.claim("them", "/r", "k", Claim("theirs", "r9"), now=1, expires_at=9), None),
    "release": (lambda s: s.release("them", "/r", "k", "r1"), None),
    "refers": (lambda s: s.refers("them", "c1"), False),
    "expired": (lambda s: s.expired("them", "gone"), False),
}


async def furnish(store: Store, tenant: str = "us") -> None:
    """One of everything."""
    for run, lease in (
        (row("r1", checkpoints="c1"), LEASE),
        (row("waiting", status="queued"), LEASE),
        (row("left", "t2"), OVER),
        (row("gone", "t3", "completed", expires_at=2000), LEASE),
    ):
        assert await store.create_run(tenant, run, lease) is not None
    await store.append([add(b"0", b"1", tenant=tenant)])
    await store.put_document(tenant, Document("cron", "d1", tenant.encode()))
    await store.claim(tenant, "/r", "k", Claim(f"{tenant} claimed it", "r1"), now=1, expires_at=9)
    await store.expire(2000 if tenant == "us" else 0, 10)
    await store.claim(tenant, "/r", "k", Claim(f"{tenant} claimed it", "r1"), now=1, expires_at=9)


async def all_of(store: Store, tenant: str = "us") -> list[Any]:
    """Everything a tenant can see."""
    runs = [run for thread in ("t1", "t2", "t3") for run in await store.runs(tenant, thread)]
    return [
        runs,
        [await store.thread(tenant, thread) for thread in ("t1", "t2", "t3")],
        [await store.events(tenant, run.id, 0, 10) for run in runs],
        [each.run for each in await store.abandoned(10) if each.tenant == tenant],
        await store.claim(tenant, "/r", "k", Claim("other", "other"), now=1, expires_at=9),
        await store.expired(tenant, "gone"),
        await store.documents(tenant, "cron"),
        await store.threads(tenant),
    ]


def test_the_matrix_names_every_verb_that_names_a_tenant() -> None:
    verbs = {
        name
        for name, verb in inspect.getmembers(Store, inspect.isfunction)
        if "tenant" in inspect.signature(verb).parameters
    }
    assert {name.partition(" ")[0] for name in AS_ANOTHER} == {*verbs, "append"}
    assert "tenant" in Append.__struct_fields__


@pytest.mark.parametrize("verb", AS_ANOTHER)
async def test_nobody_sees_or_changes_what_is_another_tenants(store: Store, verb: str) -> None:
    call, nothing = AS_ANOTHER[verb]
    await furnish(store)
    before = await all_of(store)
    assert await call(store) == nothing
    assert await all_of(store) == before


async def test_two_tenants_may_use_the_same_ids(store: Store) -> None:
    await furnish(store, "us")
    await furnish(store, "them")
    ours = await all_of(store, "us")
    await store.append([add(b"2", tenant="them", after=2, status="completed")])
    await store.start_run("them", "waiting", "they", LEASE)
    await store.update_thread("them", "t1", b"theirs")
    await store.take_over("them", row("left", "t2"), "they", LEASE)
    await store.release("them", "/r", "k", "r1")
    assert await all_of(store, "us") == ours
    await store.claim("them", "/r", "k", Claim("they claimed it", "r1"), now=1, expires_at=9)
    for tenant, digest in (("us", "us claimed it"), ("them", "they claimed it")):
        held = await store.claim(tenant, "/r", "k", Claim("late", "late"), now=1, expires_at=9)
        assert held == Claim(digest, "r1")
    for delete in (
        store.delete_run("them", "r1"),
        store.delete_thread("them", "t1"),
        store.delete_thread("them", "t2"),
    ):
        assert await delete
    assert await all_of(store, "us") == ours


@pytest.mark.parametrize(("one", "other"), [("us", "them"), ("them", "us")])
async def test_numbers_of_one_tenants_thread_leave_anothers_alone(store: Store, one: str, other: str) -> None:
    for tenant, before in ((other, b""), (one, b"01")):
        await store.create_run(tenant, row("r1"), LEASE)
        await store.create_run(tenant, row("r2", status="queued"), LEASE)
        await store.append([add(*(bytes([each]) for each in before), tenant=tenant)])
        await store.delete_run(tenant, "r1")
    assert await store.start_run(other, "r2", "me", LEASE) == row("r2")
    assert await store.start_run(one, "r2", "me", LEASE) == row("r2", base=2)


async def test_expiry_is_remembered_for_the_tenant_whose_run_it_was(store: Store) -> None:
    await created(store, row("gone", status="completed", expires_at=2000))
    theirs = await store.create_run("them", row("gone", status="completed"), LEASE)
    await store.expire(2000, 10)
    assert await store.expired("us", "gone")
    assert not await store.expired("them", "gone")
    assert await store.run("them", "gone") == theirs


async def test_a_thread_that_expires_takes_no_other_tenants_with_it(store: Store) -> None:
    await store.create_thread("us", Thread("t1", 0, expires_at=2000))
    await store.create_thread("them", Thread("t1", 0))
    await store.create_thread("those", Thread("t1", 0, expires_at=2000))
    assert await store.create_run("those", row(), LEASE) is not None
    await store.expire(2000, 10)
    assert await store.thread("us", "t1") is None
    assert await store.thread("them", "t1") is not None
    assert await store.thread("those", "t1") is not None
