"""Documents that protocols keep beside their runs, and threads in a list."""

from __future__ import annotations

import asyncio

from agent_server.runs.stores.port import Document, Store, Thread
from tests.conformance.stores.rows import LEASE, row


def document(name: str, value: bytes = b"{}", kind: str = "assistant") -> Document:
    return Document(kind, name, value)


async def test_a_document_is_read_as_it_was_put(store: Store) -> None:
    value = '{"name": "Gr\u00fc\u00dfe"}'.encode()
    assert await store.put_document("us", document("a", value))
    assert await store.document("us", "assistant", "a") == document("a", value)
    assert await store.document("us", "assistant", "b") is None
    assert await store.document("us", "cron", "a") is None
    assert await store.document("them", "assistant", "a") is None


async def test_a_document_replaces_the_one_of_its_id_and_keeps_its_place(store: Store) -> None:
    for name in ("b", "a", "c"):
        await store.put_document("us", document(name))
    await store.put_document("us", document("b", b"[2]"))
    assert await store.documents("us", "assistant") == [document("b", b"[2]"), document("a"), document("c")]


async def test_a_document_that_is_not_to_replace_another_leaves_it_alone(store: Store) -> None:
    assert await store.put_document("us", document("a", b"1"), replace=False)
    assert not await store.put_document("us", document("a", b"2"), replace=False)
    assert await store.document("us", "assistant", "a") == document("a", b"1")


async def test_of_twenty_that_add_one_document_at_once_one_does(store: Store) -> None:
    puts = (store.put_document("us", document("a", b"%d" % each), replace=False) for each in range(20))
    outcomes = await asyncio.gather(*puts)
    assert outcomes.count(True) == 1
    assert await store.document("us", "assistant", "a") == document("a", b"%d" % outcomes.index(True))


async def test_documents_are_listed_by_kind_and_by_the_beginning_of_their_ids(store: Store) -> None:
    for each in (document("a/1"), document("b/1"), document("a/2"), document("a%2"), document("a/1", kind="cron")):
        await store.put_document("us", each)
    await store.put_document("them", document("a/3"))
    assert await store.documents("us", "assistant", "a/") == [document("a/1"), document("a/2")]
    assert await store.documents("us", "assistant", "a%") == [document("a%2")]
    assert await store.documents("us", "cron") == [document("a/1", kind="cron")]


async def test_a_document_that_is_deleted_is_gone(store: Store) -> None:
    await store.put_document("us", document("a"))
    assert not await store.delete_document("them", "assistant", "a")
    assert await store.delete_document("us", "assistant", "a")
    assert not await store.delete_document("us", "assistant", "a")
    assert await store.documents("us", "assistant") == []


async def test_threads_are_listed_with_the_status_of_their_runs(store: Store) -> None:
    for number, name in enumerate(("empty", "over", "busy", "waits")):
        await store.create_thread("us", Thread(name, number, b'{"n": %d}' % number))
    await store.create_thread("them", Thread("theirs", 0))
    await store.create_run("us", row("r1", "over", status="completed", created_at=10), LEASE)
    await store.create_run("us", row("r2", "over", status="failed", created_at=11), LEASE)
    await store.create_run("us", row("r3", "busy", status="running", created_at=12), LEASE)
    await store.create_run("us", row("r4", "busy", status="cancelled", created_at=13), LEASE)
    await store.create_run("us", row("r5", "waits", status="queued", created_at=14), LEASE)
    listed = [(each.thread.id, each.status, each.at, each.thread.metadata) for each in await store.threads("us")]
    assert listed == [
        ("empty", None, 0, b'{"n": 0}'),
        ("over", "failed", 11, b'{"n": 1}'),
        ("busy", "running", 13, b'{"n": 2}'),
        ("waits", "queued", 14, b'{"n": 3}'),
    ]


async def test_a_thread_that_a_run_has_for_itself_is_not_listed(store: Store) -> None:
    await store.create_run("us", row("r1", "r1"), LEASE)
    await store.create_run("us", row("r2", "t"), LEASE)
    assert [each.thread.id for each in await store.threads("us")] == ["t"]
