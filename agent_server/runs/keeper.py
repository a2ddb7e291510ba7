"""Runs that are kept: their rows, their logs in a store, and what is done for them while they last.

A process owns the runs that it began, for as long as it renews its lease on them. When it dies, whoever finds the
lease over takes the run and writes its end.
"""

from __future__ import annotations

import asyncio
import contextlib
import logging
import os
import time
from collections.abc import Awaitable, Callable, Coroutine, Iterable, Sequence
from dataclasses import dataclass, replace
from functools import partial
from typing import Any, Literal
from uuid import uuid4
from weakref import WeakValueDictionary, ref

import msgspec

from agent_server import ids
from agent_server.errors import ConflictError, GoneError
from agent_server.events import Event, RunCancelled, RunFinished, RunInterrupted, RunStarted, encode
from agent_server.graph.converter import now_ms
from agent_server.graph.inputs import Turn
from agent_server.runs.ending import failed_end
from agent_server.runs.journal import LAST_PATIENCE, PATIENCE, Journal, Ownership, report
from agent_server.runs.log import EventLog, KeptLog
from agent_server.runs.orphans import UNAVAILABLE, Orphan, Orphans
from agent_server.runs.rows import events_of, request_of, started_of
from agent_server.runs.stores.port import TERMINAL_STATUSES, CorruptError, RunRow, RunStatus, Store, StoreError

logger = logging.getLogger("agent_server.runs")

Busy = Literal["reject", "enqueue", "interrupt", "rollback"]
"""What happens to a run whose thread is busy with another (LangGraph Platform, "multitask strategy")."""

POLL = 0.1
"""Seconds between two looks at a run that another process runs, or at the line of a busy thread."""

EXPIRY_PAGE = 100  # a transaction that deletes more keeps the others waiting
EXPIRY_EVERY = 60.0
"""Seconds between two looks for what has expired."""


@dataclass(frozen=True, slots=True)
class Keeping:
    """How a run is to be kept.

    `protocol` names the protocol it came by, and `turns` are what its request said.
    `previous` is the run it goes on from. `checkpoints` names the LangGraph thread of its checkpoints. `wire` is
    JSON that the protocol wants back with the run. A run that is `not_before` a time waits for it in line.
    """

    tenant: str
    thread_id: str
    previous: str = ""
    checkpoints: str = ""
    wire: bytes = b"{}"
    expires_at: int | None = None
    busy: Busy = "reject"
    protocol: str = ""
    turns: Sequence[Turn] = ()
    not_before: int | None = None


class Keeper:
    """The store as runs see it. `lease` and `patience`, for a store that is away, are in seconds.

    `forget` deletes what a run's `checkpoints` name.
    """

    def __init__(
        self,
        store: Store,
        *,
        lease: float = 10.0,
        patience: float = PATIENCE,
        forget: Callable[[str], Awaitable[object]] | None = None,
    ) -> None:
        self.store = store
        self._forget = forget
        self.owner = f"{os.getpid()}-{uuid4().hex}"
        self._lease = lease
        self._patience = patience
        self._journal = Journal(store, self._lost, patience=patience)
        self._orphans = Orphans(store, self.owner, self._lease_ms)
        self._followed: WeakValueDictionary[tuple[str, str], EventLog] = WeakValueDictionary()
        self._tasks: set[asyncio.Task[None]] = set()
        self._freed = asyncio.Event()
        self._waiting: dict[tuple[str, str], set[asyncio.Future[None]]] = {}  # for a run of a thread to begin
        self._opening = asyncio.Lock()
        self._is_open = False

    async def open(self, cancel: Callable[[str, str], None]) -> None:
        """Open the store, once, and begin to look after it. `cancel(run_id, reason)` stops a run of this process."""
        if self._is_open:
            return
        async with self._opening:
            if not self._is_open:
                await self.store.open()
                self._stop = cancel
                self._journal.start()
                self._begin(self._every(min(self._lease / 4, 0.5), self._look_after, "lease"), "upkeep")
                self._begin(self._every(EXPIRY_EVERY, self._expire, "expiry"), "upkeep")
                self._is_open = True

    def hasten(self) -> None:
        """The process is about to end: wait no longer for the store than it can."""
        self._patience = min(self._patience, LAST_PATIENCE)
        self._journal.hasten()

    async def aclose(self) -> None:
        """Write down what there is, and let go of the store."""
        for task in self._tasks:
            task.cancel()
        if self._tasks:
            await asyncio.wait(self._tasks)
        if self._is_open:
            await self._journal.aclose()
            await self.store.aclose()

    def _begin(self, work: Coroutine[Any, Any, None], name: str) -> asyncio.Task[None]:
        task = asyncio.create_task(work, name=name)
        self._tasks.add(task)
        task.add_done_callback(self._tasks.discard)
        task.add_done_callback(report)
        return task

    # -- runs of this process ------------------------------------------------------------------------------

    async def admit(self, started: RunStarted, keeping: Keeping) -> RunRow:
        """Commit a run. It is `running` and has its first event, or `queued` behind another and has none.

        Raises `ConflictError` for a busy thread.
        """
        first = encode(started)
        row = self._row(started, first, keeping, "running")
        if keeping.not_before is not None:
            row = msgspec.structs.replace(row, status="queued", attempt=0)
        told = first if row.status == "running" else None
        try:
            created = await self.store.create_run(keeping.tenant, row, self._lease_ms, told)
            if created is None and keeping.busy != "reject":
                queued = msgspec.structs.replace(row, status="queued")
                created = await self.store.create_run(keeping.tenant, queued, self._lease_ms)
        except StoreError:  # it may have been committed all the same
            self._orphans.add(keeping.tenant, row.id, replace(UNAVAILABLE, reason="store_unavailable"))
            raise
        if created is None:
            message = "Another response of this conversation is in progress. Try again when it has ended."
            raise ConflictError(message, param="conversation", code="conversation_locked")
        self._tell_of(keeping.tenant, created.thread_id)
        return created

    def news_of(self, tenant: str, thread_id: str) -> asyncio.Future[None]:
        """A future that is done when this process accepts a run of the thread, or lets one begin."""
        waiter: asyncio.Future[None] = asyncio.get_running_loop().create_future()
        waiters = self._waiting.setdefault((tenant, thread_id), set())
        waiters.add(waiter)
        waiter.add_done_callback(lambda _: self._waits_no_more((tenant, thread_id), waiter))
        return waiter

    def _waits_no_more(self, thread: tuple[str, str], waiter: asyncio.Future[None]) -> None:
        waiters = self._waiting.get(thread, set())
        waiters.discard(waiter)
        if not waiters:
            self._waiting.pop(thread, None)

    def _tell_of(self, tenant: str, thread_id: str) -> None:
        for waiter in self._waiting.get((tenant, thread_id), ()):
            if not waiter.done():
                waiter.set_result(None)

    async def note(self, started: RunStarted, keeping: Keeping, status: RunStatus = "completed") -> None:
        """Commit a run that is complete as it is: nothing runs, its request is all there is of it."""
        row = self._row(started, encode(started), keeping, status)
        await self.store.create_run(keeping.tenant, row, self._lease_ms)

    def _row(self, started: RunStarted, first: bytes, keeping: Keeping, status: RunStatus) -> RunRow:
        return RunRow(
            id=started.run_id,
            thread_id=keeping.thread_id,
            agent=started.agent,
            status=status,
            created_at=started.at,
            previous=keeping.previous,
            checkpoints=keeping.checkpoints,
            request=request_of(first, keeping.protocol, keeping.turns, keeping.wire),
            expires_at=keeping.expires_at,
            owner=self.owner,
        )

    async def begins(self, tenant: str, row: RunRow, log: EventLog) -> bool:
        """Whether a queued run begins now. Raises `CancelledError` for one that somebody took out of the line."""
        begun = await self.store.start_run(tenant, row.id, self.owner, self._lease_ms)
        if begun is not None:
            log.base = begun.base
            self._tell_of(tenant, row.thread_id)
            return True
        waiting = await self.store.run(tenant, row.id)
        if waiting is None or waiting.status != "queued":
            raise asyncio.CancelledError("cancelled" if waiting is None else waiting.cancel or "cancelled")
        return False

    async def until_time(self, keeping: Keeping) -> None:
        """Wait for the time before which a run is not to begin."""
        if keeping.not_before is not None:
            await asyncio.sleep(max(0, keeping.not_before - now_ms()) / 1000)

    async def until_freed(self) -> None:
        """Wait until a run of this process is over, or as long as it takes others to end theirs."""
        with contextlib.suppress(TimeoutError):
            async with asyncio.timeout(POLL):
                await self._freed.wait()

    def log(self, tenant: str, row: RunRow, started: RunStarted, on_over: Callable[[], object]) -> KeptLog:
        """The log of a run that this process owns."""

        def over() -> None:
            freed, self._freed = self._freed, asyncio.Event()
            freed.set()
            on_over()

        owned = Ownership(tenant, row.id, self.owner, row.attempt)
        log = KeptLog(partial(self._journal.want, owned=owned), over, [started][: row.length])
        log.base = row.base
        return log

    def withdraw(self, tenant: str, started: RunStarted, log: KeptLog, cancelled: list[Event], reason: str) -> None:
        """End the log of a run that was stopped while it waited in line.

        Its row says so, and has no events, unless its turn came at this very moment: `cancelled` is its end then.
        """
        log.disown()
        end = [started, *cancelled]
        self._orphans.add(tenant, started.run_id, Orphan("cancelled", reason, after=0, end=end, reason=reason))
        self._begin(self._orphans.end(tenant, started.run_id), f"withdraw {started.run_id}")
        self._begin(self._follow(tenant, started, ref(log)), f"follow {started.run_id}")

    def _lost(self, log: KeptLog, owned: Ownership, is_refused: bool) -> None:
        """A log can be written no further. Where somebody else ends the run, its readers see that end."""
        logger.error("run %s could not be written down any further", owned.run_id)
        started = log.first
        log.disown()
        if is_refused:
            self._orphans.add(owned.tenant, owned.run_id, UNAVAILABLE)
            self._begin(self._follow(owned.tenant, started, ref(log)), f"follow {owned.run_id}")
            self._stop(owned.run_id, "lost")
            return
        known = log.read(0)
        end = [*([] if known else [started]), *_unavailable(known)]
        self._orphans.add(owned.tenant, owned.run_id, replace(UNAVAILABLE, after=len(known), end=end))
        log.know(len(known), end)

    @property
    def _lease_ms(self) -> int:
        return round(self._lease * 1000)

    # -- any run -------------------------------------------------------------------------------------------

    async def row(self, tenant: str, run_id: str) -> RunRow | None:
        """A run's row. Raises `GoneError` for one that has expired."""
        row = await self.store.run(tenant, run_id)
        if await self.store.expired(tenant, run_id) if row is None else _is_past(row):
            raise GoneError("It was kept for a time that is over.")
        return row

    async def delete_run(self, tenant: str, row: RunRow) -> None:
        """Delete a run with its events, and its checkpoints unless another run goes on from them or from the same."""
        await self.store.delete_run(tenant, row.id)
        await self._forget_unused([(tenant, row.checkpoints)])

    async def delete_thread(self, tenant: str, thread_id: str) -> bool:
        """Delete a thread with its runs and all that they left, as `delete_run` does. False if there is none."""
        rows = await self.store.runs(tenant, thread_id)
        is_deleted = await self.store.delete_thread(tenant, thread_id)
        await self._forget_unused((tenant, row.checkpoints) for row in rows)
        return is_deleted

    async def _forget_unused(self, places: Iterable[tuple[str, str]]) -> None:
        """What a process that dies in between leaves behind stays: nothing refers to it."""
        for tenant, checkpoints in dict.fromkeys(places):
            if checkpoints and self._forget is not None and not await self.store.refers(tenant, checkpoints):
                await self._forget(checkpoints)

    async def read(self, tenant: str, row: RunRow) -> EventLog:
        """The log of a run that is over, or that another process runs: it grows as that writes it."""
        if row.status in TERMINAL_STATUSES:
            return EventLog(await self._ended(tenant, row), base=row.base)
        log, started = self._followed.get((tenant, row.id)), started_of(row)
        if log is None:
            log = EventLog(base=row.base)
            await self._catch_up(tenant, started, log)
            log = self._followed.setdefault((tenant, row.id), log)
            self._begin(self._follow(tenant, started, ref(log)), f"follow {row.id}")
        return log

    async def _ended(self, tenant: str, row: RunRow) -> list[Event]:
        events = await events_of(self.store, tenant, row.id)
        if not events and row.status == "completed":  # it was only noted
            return [started_of(row), RunFinished(at=row.created_at)]
        if not events and row.status == "interrupted":
            return [started_of(row), RunInterrupted(at=row.created_at, interrupts=())]
        if not events:  # it was cancelled before it began
            return [started_of(row), RunCancelled(at=row.created_at, reason=row.cancel or "cancelled")]
        return events

    async def _follow(self, tenant: str, started: RunStarted, log_of: ref[EventLog]) -> None:
        """Let a log know what the store has, for as long as anybody reads it."""
        seen = time.monotonic()
        while (log := log_of()) is not None and not log.over:
            try:
                await self._catch_up(tenant, started, log)
                seen = time.monotonic()
            except StoreError as error:
                is_ours = isinstance(log, KeptLog) and time.monotonic() - seen > self._patience
                if is_ours or isinstance(error, CorruptError):
                    known = log.read(0)
                    log.know(len(known), [*([] if known else [started]), *_unavailable(known)])
            del log
            await asyncio.sleep(POLL)

    async def _catch_up(self, tenant: str, started: RunStarted, log: EventLog) -> None:
        known = len(log)
        events = await events_of(self.store, tenant, started.run_id, known)
        if not events:
            row = await self.store.run(tenant, started.run_id)
            if row is None:
                events = [*([] if known else [started]), *_deleted(log.read(0))]
            elif row.status in TERMINAL_STATUSES and not known:
                events = await self._ended(tenant, row)
        elif not known and (row := await self.store.run(tenant, started.run_id)) is not None:
            log.base = row.base  # it waited in line when it was found
        log.know(known, events)

    # -- upkeep --------------------------------------------------------------------------------------------

    async def _every(self, seconds: float, work: Callable[[], Coroutine[Any, Any, None]], name: str) -> None:
        """Do something again and again; what goes wrong once is told, and may go well the next time."""
        while True:
            await asyncio.wait({self._begin(work(), name)})
            await asyncio.sleep(seconds)

    async def _look_after(self) -> None:
        """Renew the lease, hear who is to stop, and end what others left."""
        for _, run_id, reason in await self.store.renew(self.owner, self._lease_ms):
            self._stop(run_id, reason)
        await self._orphans.adopt_abandoned()
        await self._orphans.end_all()

    async def _expire(self) -> None:
        count = EXPIRY_PAGE
        while count == EXPIRY_PAGE:
            now = now_ms()
            places = await self.store.expiring(now, EXPIRY_PAGE)
            count = await self.store.expire(now, EXPIRY_PAGE)
            await self._forget_unused(places)


def _is_past(row: RunRow) -> bool:
    """Whether it is only still there because nobody has looked for what has expired."""
    return row.status in TERMINAL_STATUSES and row.expires_at is not None and row.expires_at <= now_ms()


def _unavailable(known: list[Event]) -> list[Event]:
    message = "The server can no longer keep this run."
    return failed_end(known, at=now_ms(), code="store_unavailable", message=message, error_id=ids.new_error_id())


def _deleted(known: list[Event]) -> list[Event]:
    message = "The response was deleted while it was being read."
    return failed_end(known, at=now_ms(), code="deleted", message=message, error_id=ids.new_error_id())
