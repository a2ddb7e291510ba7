"""The store in a database: each verb is one query, or the steps of one transaction.

Locks are taken in one order, threads before runs and both by tenant and id, so that no two transactions wait for
each other.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any
from zlib import crc32

from msgspec.structs import asdict, replace

from agent_server.graph.savers import Saver
from agent_server.runs.stores.database import Database, Each, Fill, Query, Row, Steps
from agent_server.runs.stores.port import (
    Abandoned,
    Append,
    Claim,
    CorruptError,
    Document,
    Listed,
    RunRow,
    RunStatus,
    StoreError,
    Thread,
)

FURTHEST = 2**53
"""No log is as long as this; larger cursors mean the same and would not fit a column."""


class SqlStore:
    """Keeps everything in a database."""

    def __init__(self, database: Database) -> None:
        self._database = database

    async def open(self) -> None:
        """See `Store`."""
        await self._database.open()

    async def aclose(self) -> None:
        """See `Store`."""
        await self._database.aclose()

    async def checkpointer(self) -> Saver:
        """See `Store`."""
        return await self._database.checkpointer()

    # -- threads

    async def create_thread(self, tenant: str, thread: Thread) -> bool:
        """See `Store`."""
        return bool(await self._write("create_thread", tenant=tenant, **asdict(thread)))

    async def thread(self, tenant: str, thread_id: str) -> Thread | None:
        """See `Store`."""
        rows = await self._read("thread", tenant=tenant, id=thread_id)
        return Thread(*rows[0]) if rows else None

    async def update_thread(self, tenant: str, thread_id: str, metadata: bytes) -> bool:
        """See `Store`."""
        return bool(await self._write("update_thread", tenant=tenant, id=thread_id, metadata=metadata))

    async def delete_thread(self, tenant: str, thread_id: str) -> bool:
        """See `Store`."""
        return await self._database.write(_delete_thread({"tenant": tenant, "id": thread_id}))

    async def threads(self, tenant: str) -> list[Listed]:
        """See `Store`."""
        rows = await self._read("threads", tenant=tenant)
        return [Listed(Thread(*thread), status, at) for *thread, status, at in rows]

    # -- runs

    async def create_run(self, tenant: str, run: RunRow, lease_ms: int, first: bytes | None = None) -> RunRow | None:
        """See `Store`."""
        return await self._database.write(_create_run(tenant, run, lease_ms, first))

    async def start_run(self, tenant: str, run_id: str, owner: str, lease_ms: int) -> RunRow | None:
        """See `Store`."""
        if not await self._read("may_start", tenant=tenant, id=run_id):
            return None  # the usual answer to one that waits: it is to cost no transaction
        return await self._database.write(_start_run(tenant, run_id, owner, lease_ms))

    async def go_on_from(self, tenant: str, run_id: str, previous: str, checkpoints: str) -> bool:
        """See `Store`."""
        place = {"previous": previous, "checkpoints": checkpoints}
        return bool(await self._write("go_on_from", tenant=tenant, id=run_id, **place))

    async def run(self, tenant: str, run_id: str) -> RunRow | None:
        """See `Store`."""
        return _run(await self._read("run", tenant=tenant, id=run_id))

    async def runs(self, tenant: str, thread_id: str, *, status: RunStatus | None = None) -> list[RunRow]:
        """See `Store`."""
        name = "runs_of_status" if status else "runs"
        rows = await self._read(name, tenant=tenant, thread_id=thread_id, **({"status": status} if status else {}))
        return [RunRow(*row) for row in rows]

    async def delete_run(self, tenant: str, run_id: str) -> bool:
        """See `Store`."""
        return bool(await self._database.write(_delete_runs([{"tenant": tenant, "id": run_id}])))

    async def ask_to_cancel(self, tenant: str, run_id: str, reason: str) -> RunStatus | None:
        """See `Store`."""
        return await self._database.write(_ask_to_cancel({"tenant": tenant, "id": run_id, "reason": reason}))

    # -- events

    async def append(self, batch: Sequence[Append]) -> list[bool]:
        """See `Store`."""
        return await self._database.write(_append(batch))

    async def events(self, tenant: str, run_id: str, after: int, limit: int) -> list[bytes]:
        """See `Store`."""
        after, limit = min(after, FURTHEST), min(limit, FURTHEST)
        rows = await self._read("events", tenant=tenant, id=run_id, after=after, limit=limit)
        for number, (found, data, crc) in enumerate(rows, after):
            if found != number or crc32(data) != crc:
                raise CorruptError(f"Event {number} of run {run_id} is not what was written.")
        return [data for _, data, _ in rows]

    # -- ownership

    async def renew(self, owner: str, lease_ms: int) -> list[tuple[str, str, str]]:
        """See `Store`."""
        rows = await self._write("renew", owner=owner, lease_ms=lease_ms)
        return [(tenant, run_id, reason) for tenant, run_id, reason in rows if reason is not None]

    async def abandoned(self, limit: int) -> list[Abandoned]:
        """See `Store`."""
        rows = await self._read("abandoned", limit=limit)
        return [Abandoned(tenant, RunRow(*row)) for tenant, *row in rows]

    async def take_over(self, tenant: str, run: RunRow, owner: str, lease_ms: int) -> RunRow | None:
        """See `Store`."""
        known = {"tenant": tenant, "id": run.id, "from_owner": run.owner, "attempt": run.attempt}
        return _run(await self._write("take_over", **known, owner=owner, lease_ms=lease_ms))

    # -- idempotency keys

    async def claim(
        self, tenant: str, route: str, key: str, claim: Claim, *, now: int, expires_at: int, run_by: int | None = None
    ) -> Claim | None:
        """See `Store`."""
        place = {"tenant": tenant, "route": route, "key": key}
        times = {"now": now, "expires_at": expires_at, "run_by": run_by}
        return await self._database.write(_claim(place, {**asdict(claim), **times}))

    async def release(self, tenant: str, route: str, key: str, run_id: str) -> None:
        """See `Store`."""
        await self._write("release", tenant=tenant, route=route, key=key, run_id=run_id)

    # -- documents

    async def put_document(self, tenant: str, document: Document, *, replace: bool = True) -> bool:
        """See `Store`."""
        return bool(await self._write("put_document" if replace else "add_document", tenant=tenant, **asdict(document)))

    async def document(self, tenant: str, kind: str, document_id: str) -> Document | None:
        """See `Store`."""
        rows = await self._read("document", tenant=tenant, kind=kind, id=document_id)
        return Document(*rows[0]) if rows else None

    async def documents(self, tenant: str, kind: str, prefix: str = "") -> list[Document]:
        """See `Store`."""
        rows = await self._read("documents", tenant=tenant, kind=kind, prefix=prefix)
        return [Document(*row) for row in rows]

    async def delete_document(self, tenant: str, kind: str, document_id: str) -> bool:
        """See `Store`."""
        return bool(await self._write("delete_document", tenant=tenant, kind=kind, id=document_id))

    # -- upkeep

    async def expire(self, now: int, limit: int) -> int:
        """See `Store`."""
        time = {"now": now, "limit": limit}
        count = await self._database.write(_expire_runs(time))
        await self._database.write(_expire_rest(time))  # locks threads anew, in their order
        return count

    async def expiring(self, now: int, limit: int) -> list[tuple[str, str]]:
        """See `Store`."""
        rows = await self._read("over", now=now, limit=limit)
        return [(tenant, checkpoints) for tenant, _, _, _, _, checkpoints in rows]

    async def refers(self, tenant: str, checkpoints: str) -> bool:
        """See `Store`."""
        return bool(await self._read("refers", tenant=tenant, checkpoints=checkpoints))

    async def expired(self, tenant: str, run_id: str) -> bool:
        """See `Store`."""
        return bool(await self._read("expired", tenant=tenant, id=run_id))

    # -- one query

    async def _read(self, name: str, **params: Any) -> list[Row]:
        return await self._database.read(Query(name, params))

    async def _write(self, name: str, **params: Any) -> list[Row]:
        return await self._database.write(_alone(Query(name, params)))


def _alone(query: Query) -> Steps[list[Row]]:
    return (yield query)


def _run(rows: list[Row]) -> RunRow | None:
    return RunRow(*rows[0]) if rows else None


# -- transactions


def _create_run(tenant: str, run: RunRow, lease_ms: int, first: bytes | None) -> Steps[RunRow | None]:
    thread, base, running = yield from _thread_for(tenant, run)
    if running and run.status == "running":
        return None
    created = replace(run, base=base, length=0 if first is None else 1)
    ordinals = yield Query("create_run", asdict(created) | {"tenant": tenant, "thread": thread, "lease_ms": lease_ms})
    if not ordinals:
        raise StoreError("There is a run of this id already.")
    for (ordinal,) in ordinals:
        if first is not None:
            keys = {"tenant": tenant, "thread": thread, "seq": base, "run": ordinal, "attempt": run.attempt}
            yield Query("add_event", {**keys, "data": first, "crc": crc32(first)})
    return created


def _thread_for(tenant: str, run: RunRow) -> Steps[tuple[int, int, int]]:
    """The thread that a run names, be it new or not, locked: its ordinal, where its events end, how many of its runs
    are running."""
    thread = asdict(Thread(run.thread_id, run.created_at, expires_at=run.expires_at)) | {"tenant": tenant}
    while True:
        made = yield Query("create_thread", thread)
        for (ordinal,) in made:
            return ordinal, 0, 0
        locked = yield Query("lock_thread", {"tenant": tenant, "id": run.thread_id})
        for ordinal, length in locked:
            ((end, running),) = yield Query("thread_end", {"tenant": tenant, "thread_id": run.thread_id})
            return ordinal, max(length, end), running
        # It was deleted between the two: try again.


def _start_run(tenant: str, run_id: str, owner: str, lease_ms: int) -> Steps[RunRow | None]:
    run = {"tenant": tenant, "id": run_id}
    threads = yield Query("lock_thread_of_run", run)
    for thread_id, length in threads:
        ((end, _),) = yield Query("thread_end", {"tenant": tenant, "thread_id": thread_id})
        started = {**run, "owner": owner, "base": max(length, end), "lease_ms": lease_ms}
        return _run((yield Query("start_run", started)))
    return None


def _ask_to_cancel(asked: dict[str, Any]) -> Steps[RunStatus | None]:
    rows = yield Query("ask_to_cancel", asked)
    if rows:
        status: RunStatus = rows[0][0]
        return status
    run = _run((yield Query("run", asked)))
    return run.status if run else None


def _append(batch: Sequence[Append]) -> Steps[list[bool]]:
    order = sorted(range(len(batch)), key=lambda place: (batch[place].tenant, batch[place].run_id))
    fences = yield Each("lengthen_run", [_fence(batch[place]) for place in order])
    accepted = [False] * len(batch)
    events: list[Row] = []
    for place, owned in zip(order, fences, strict=True):
        for thread, base, run in owned:
            accepted[place] = True
            each = batch[place]
            events += [
                (each.tenant, thread, seq, run, each.attempt, data, crc32(data))
                for seq, data in enumerate(each.events, base + each.after)
            ]
    if events:
        yield Fill("add_events", events)
    refused = [place for place in order if not accepted[place]]
    written = yield Each("written", [_fence(batch[place]) for place in refused])
    for place, rows in zip(refused, written, strict=True):
        accepted[place] = bool(rows) and [data for (data,) in rows if data is not None] == list(batch[place].events)
    return accepted


def _fence(each: Append) -> dict[str, Any]:
    return {
        "tenant": each.tenant,
        "run_id": each.run_id,
        "owner": each.owner,
        "attempt": each.attempt,
        "after": each.after,
        "count": len(each.events),
        "status": each.status,
    }


def _delete_thread(thread: dict[str, Any]) -> Steps[bool]:
    found = yield Query("lock_thread", thread)
    if not found:
        return False
    # Runs first: their rows are what a writer of events holds.
    for name in ("delete_thread_runs", "delete_thread_events", "delete_thread"):
        yield Query(name, thread)
    return True


def _delete_runs(runs: Sequence[dict[str, Any]]) -> Steps[int]:
    """Delete runs, given by tenant and id and ordered by their threads; how many there were."""
    yield Each("lock_thread_of_run", runs)
    deleted = yield Each("delete_run", runs)
    spans = [
        {"tenant": run["tenant"], "id": thread_id, "thread": thread, "base": base, "length": base + length}
        for run, rows in zip(runs, deleted, strict=True)
        for thread, thread_id, base, length in rows
    ]
    yield Each("delete_run_events", spans)
    yield Each("lengthen_thread", spans)
    return len(spans)


def _claim(place: dict[str, Any], claim: dict[str, Any]) -> Steps[Claim | None]:
    while True:
        taken = yield Query("claim", place | claim)
        if taken:
            return None
        held = yield Query("claimed", place)
        for digest, run_id in held:
            return Claim(digest, run_id)
        # It was released between the two: try again.


def _expire_runs(time: dict[str, Any]) -> Steps[int]:
    over = yield Query("over", time)
    over.sort(key=lambda row: (row[0], row[2], row[1]))
    count = yield from _delete_runs([{"tenant": tenant, "id": run_id} for tenant, run_id, *_ in over])
    yield Each(
        "remember_expired",
        [
            {"tenant": tenant, "id": run_id, "until": time["now"] + expires_at - created_at}
            for tenant, run_id, _, created_at, expires_at, _ in over
        ],
    )
    return count


def _expire_rest(time: dict[str, Any]) -> Steps[None]:
    threads = yield Query("empty_threads", time)
    keys = [{"tenant": tenant, "id": thread_id} for tenant, thread_id in threads]
    yield Each("lock_thread", keys)
    yield Each("delete_empty_thread", keys)
    yield Query("forget_keys", time)
    yield Query("forget_expired", time)
