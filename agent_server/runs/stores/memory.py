"""The store in memory: plain dictionaries, gone with the process. The twin that shows what the others must do."""

from __future__ import annotations

import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from itertools import takewhile

from msgspec.structs import replace

from agent_server.graph.savers import Saver, memory_saver
from agent_server.runs.stores.port import (
    TERMINAL_STATUSES,
    Abandoned,
    Append,
    Claim,
    Document,
    Listed,
    RunRow,
    RunStatus,
    StoreError,
    Thread,
)

Key = tuple[str, str]
"""Tenant and id."""


@dataclass(slots=True, eq=False)
class _Run:
    row: RunRow
    lease_until: float
    events: list[bytes] = field(default_factory=list)

    def read(self) -> RunRow:
        """The row as it is now. Its length is that of the events."""
        return replace(self.row, length=len(self.events))


@dataclass(slots=True, eq=False)
class _Thread:
    thread: Thread
    length: int = 0
    runs: dict[str, _Run] = field(default_factory=dict)

    def first(self, status: RunStatus) -> _Run | None:
        """The run of that status that came first."""
        return next((run for run in self.runs.values() if run.row.status == status), None)

    def is_free_for(self, run: _Run) -> bool:
        """Whether it is this run's turn."""
        ahead = takewhile(lambda each: each is not run, self.runs.values())
        return not self.first("running") and not any(each.row.status == "queued" and each.row.attempt for each in ahead)

    def listed(self) -> Listed:
        """The thread as a list shows it."""
        active = self.first("running") or self.first("queued")
        last = next(reversed(self.runs.values()), None)
        shown = active or last
        return Listed(
            self.thread, shown.row.status if shown else None, last.row.created_at if last else self.thread.created_at
        )


class MemoryStore:
    """Keeps everything in this process. `clock` measures leases, in seconds."""

    def __init__(self, clock: Callable[[], float] = time.monotonic) -> None:
        self._clock = clock
        self._threads: dict[Key, _Thread] = {}
        self._runs: dict[Key, _Run] = {}
        self._active: dict[Key, _Run] = {}
        self._claims: dict[tuple[str, str, str], tuple[Claim, int, int | None]] = {}
        self._expired: dict[Key, int] = {}
        self._documents: dict[tuple[str, str, str], Document] = {}

    async def open(self) -> None:
        """Nothing to open."""

    async def aclose(self) -> None:
        """Nothing to close: what is here stays as long as this object."""

    async def checkpointer(self) -> Saver:
        """See `Store`."""
        return memory_saver()

    # -- threads

    async def create_thread(self, tenant: str, thread: Thread) -> bool:
        """See `Store`."""
        return self._threads.setdefault((tenant, thread.id), made := _Thread(thread)) is made

    async def thread(self, tenant: str, thread_id: str) -> Thread | None:
        """See `Store`."""
        found = self._threads.get((tenant, thread_id))
        return found.thread if found else None

    async def update_thread(self, tenant: str, thread_id: str, metadata: bytes) -> bool:
        """See `Store`."""
        found = self._threads.get((tenant, thread_id))
        if found is None:
            return False
        found.thread = replace(found.thread, metadata=metadata)
        return True

    async def delete_thread(self, tenant: str, thread_id: str) -> bool:
        """See `Store`."""
        found = self._threads.pop((tenant, thread_id), None)
        for run_id in found.runs if found else ():
            del self._runs[tenant, run_id]
            self._active.pop((tenant, run_id), None)
        return found is not None

    async def threads(self, tenant: str) -> list[Listed]:
        """See `Store`."""
        mine = [each for (whose, _), each in self._threads.items() if whose == tenant]
        shown = [each.listed() for each in mine if (tenant, each.thread.id) not in self._runs]
        return sorted(shown, key=lambda each: (each.thread.created_at, each.thread.id))

    # -- runs

    async def create_run(self, tenant: str, run: RunRow, lease_ms: int, first: bytes | None = None) -> RunRow | None:
        """See `Store`."""
        if (tenant, run.id) in self._runs:
            raise StoreError("There is a run of this id already.")
        made = _Thread(Thread(run.thread_id, run.created_at, expires_at=run.expires_at))
        thread = self._threads.setdefault((tenant, run.thread_id), made)
        if run.status == "running" and thread.first("running"):
            return None
        events = [] if first is None else [first]
        created = _Run(replace(run, base=thread.length, length=0), self._until(lease_ms), events)
        thread.length += len(events)
        self._runs[tenant, run.id] = thread.runs[run.id] = created
        if run.status not in TERMINAL_STATUSES:
            self._active[tenant, run.id] = created
        return created.read()

    async def start_run(self, tenant: str, run_id: str, owner: str, lease_ms: int) -> RunRow | None:
        """See `Store`."""
        run = self._active.get((tenant, run_id))
        if run is None:
            return None
        thread = self._threads[tenant, run.row.thread_id]
        if not thread.is_free_for(run):
            return None
        run.row = replace(run.row, status="running", owner=owner, base=thread.length)
        run.lease_until = self._until(lease_ms)
        return run.row

    async def go_on_from(self, tenant: str, run_id: str, previous: str, checkpoints: str) -> bool:
        """See `Store`."""
        run = self._runs.get((tenant, run_id))
        if run is None:
            return False
        run.row = replace(run.row, previous=previous, checkpoints=checkpoints)
        return True

    async def run(self, tenant: str, run_id: str) -> RunRow | None:
        """See `Store`."""
        found = self._runs.get((tenant, run_id))
        return found.read() if found else None

    async def runs(self, tenant: str, thread_id: str, *, status: RunStatus | None = None) -> list[RunRow]:
        """See `Store`."""
        thread = self._threads.get((tenant, thread_id))
        runs = thread.runs.values() if thread else ()
        return [run.read() for run in runs if status in (None, run.row.status)]

    async def delete_run(self, tenant: str, run_id: str) -> bool:
        """See `Store`."""
        found = self._runs.pop((tenant, run_id), None)
        if found is None:
            return False
        self._active.pop((tenant, run_id), None)
        del self._threads[tenant, found.row.thread_id].runs[run_id]
        return True

    async def ask_to_cancel(self, tenant: str, run_id: str, reason: str) -> RunStatus | None:
        """See `Store`."""
        run = self._runs.get((tenant, run_id))
        if run is None:
            return None
        if run.row.status not in TERMINAL_STATUSES and run.row.cancel is None:
            run.row = replace(run.row, cancel=reason)
        if run.row.status == "queued":
            self._end(tenant, run, "cancelled")
        return run.row.status

    # -- events

    async def append(self, batch: Sequence[Append]) -> list[bool]:
        """See `Store`."""
        return [self._append(each) for each in batch]

    def _append(self, each: Append) -> bool:
        run = self._runs.get((each.tenant, each.run_id))
        if run is None or (run.row.owner, run.row.attempt) != (each.owner, each.attempt):
            return False
        if run.row.status != "running" or len(run.events) != each.after:
            known = run.events[each.after :] if 0 <= each.after <= len(run.events) else None
            return known == list(each.events) and run.row.status == (each.status or "running")
        run.events += each.events
        self._threads[each.tenant, run.row.thread_id].length += len(each.events)
        if each.status in TERMINAL_STATUSES:
            self._end(each.tenant, run, each.status)
        return True

    async def events(self, tenant: str, run_id: str, after: int, limit: int) -> list[bytes]:
        """See `Store`."""
        run = self._runs.get((tenant, run_id))
        return run.events[after : after + limit] if run else []

    # -- ownership

    async def renew(self, owner: str, lease_ms: int) -> list[tuple[str, str, str]]:
        """See `Store`."""
        mine = [(tenant, run) for (tenant, _), run in self._active.items() if run.row.owner == owner]
        for _, run in mine:
            run.lease_until = self._until(lease_ms)
        return [(tenant, run.row.id, run.row.cancel) for tenant, run in mine if run.row.cancel is not None]

    async def abandoned(self, limit: int) -> list[Abandoned]:
        """See `Store`."""
        now = self._clock()
        over = [(tenant, run) for (tenant, _), run in self._active.items() if run.lease_until <= now]
        over.sort(key=lambda each: each[1].lease_until)
        return [Abandoned(tenant, run.read()) for tenant, run in over[:limit]]

    async def take_over(self, tenant: str, run: RunRow, owner: str, lease_ms: int) -> RunRow | None:
        """See `Store`."""
        found = self._active.get((tenant, run.id))
        if found is None or found.lease_until > self._clock():
            return None
        if (found.row.owner, found.row.attempt) != (run.owner, run.attempt):
            return None
        found.row = replace(found.row, owner=owner, attempt=run.attempt + 1)
        found.lease_until = self._until(lease_ms)
        return found.read()

    # -- idempotency keys

    async def claim(
        self, tenant: str, route: str, key: str, claim: Claim, *, now: int, expires_at: int, run_by: int | None = None
    ) -> Claim | None:
        """See `Store`."""
        first, until, first_run_by = self._claims.get((tenant, route, key), (claim, now, None))
        run = tenant, first.run_id
        has_run = run in self._runs or run in self._expired
        if until > now and (has_run or first_run_by is None or first_run_by > now):
            return first
        self._claims[tenant, route, key] = claim, expires_at, run_by
        return None

    async def release(self, tenant: str, route: str, key: str, run_id: str) -> None:
        """See `Store`."""
        held = self._claims.get((tenant, route, key))
        if held is not None and held[0].run_id == run_id:
            del self._claims[tenant, route, key]

    # -- documents

    async def put_document(self, tenant: str, document: Document, *, replace: bool = True) -> bool:
        """See `Store`."""
        key = (tenant, document.kind, document.id)
        if key in self._documents and not replace:
            return False
        self._documents[key] = document
        return True

    async def document(self, tenant: str, kind: str, document_id: str) -> Document | None:
        """See `Store`."""
        return self._documents.get((tenant, kind, document_id))

    async def documents(self, tenant: str, kind: str, prefix: str = "") -> list[Document]:
        """See `Store`."""
        found = (each for (whose, what, _), each in self._documents.items() if (whose, what) == (tenant, kind))
        return [each for each in found if each.id.startswith(prefix)]

    async def delete_document(self, tenant: str, kind: str, document_id: str) -> bool:
        """See `Store`."""
        return self._documents.pop((tenant, kind, document_id), None) is not None

    # -- upkeep

    async def expire(self, now: int, limit: int) -> int:
        """See `Store`."""
        self._claims = {key: held for key, held in self._claims.items() if held[1] > now}
        self._expired = {key: until for key, until in self._expired.items() if until > now}
        over = self._over(now, limit)
        for (tenant, run_id), row in over:
            await self.delete_run(tenant, run_id)
            self._expired[tenant, run_id] = now + (row.expires_at or 0) - row.created_at
        empty = [key for key, each in self._threads.items() if not each.runs and _past(each.thread, now)]
        for key in empty[:limit]:
            del self._threads[key]
        return len(over)

    async def expiring(self, now: int, limit: int) -> list[tuple[str, str]]:
        """See `Store`."""
        return [(tenant, row.checkpoints) for (tenant, _), row in self._over(now, limit)]

    async def refers(self, tenant: str, checkpoints: str) -> bool:
        """See `Store`."""
        kept = (run.row.checkpoints for (whose, _), run in self._runs.items() if whose == tenant)
        return checkpoints != "" and checkpoints in kept

    async def expired(self, tenant: str, run_id: str) -> bool:
        """See `Store`."""
        return (tenant, run_id) in self._expired

    def _over(self, now: int, limit: int) -> list[tuple[Key, RunRow]]:
        over = [(key, run.row) for key, run in self._runs.items() if key not in self._active and _past(run.row, now)]
        return sorted(over, key=lambda each: each[1].expires_at or 0)[:limit]

    def _until(self, lease_ms: int) -> float:
        return self._clock() + lease_ms / 1000

    def _end(self, tenant: str, run: _Run, status: RunStatus) -> None:
        run.row = replace(run.row, status=status)
        self._active.pop((tenant, run.row.id), None)


def _past(kept: RunRow | Thread, now: int) -> bool:
    return kept.expires_at is not None and kept.expires_at <= now
