"""Group commit: what all runs have to say is written down together, again and again, with no delay of its own.

While one transaction is being committed the next one's events pile up, so that a transaction is as large as the
store is slow. Readers are woken when their events are committed, never before.
"""

from __future__ import annotations

import asyncio
import logging
import time
from collections.abc import Callable
from dataclasses import dataclass
from itertools import islice
from typing import Literal, TypeAlias

from agent_server.events import Event, RunCancelled, RunFailed, RunFinished, RunInterrupted, encode
from agent_server.runs.log import KeptLog
from agent_server.runs.stores.port import Append, RunStatus, Store, StoreError, UnwritableError

logger = logging.getLogger("agent_server.runs")

MAX_BATCH = 5_000
"""Events in one transaction, more or less: a run's own are never split."""

PATIENCE = 30.0
"""Seconds that a store may be away before the runs that wait for it are given up."""

LAST_PATIENCE = 3.0
"""The same for a process that is about to end."""

STATUS: dict[type, RunStatus] = {
    RunFinished: "completed",
    RunInterrupted: "interrupted",
    RunFailed: "failed",
    RunCancelled: "cancelled",
}
"""The status that a terminal event gives its run."""


Outcome: TypeAlias = Literal["written", "refused", "lost"]
"""Of an append: `refused` by the fence, `lost` as the store is away or does not take it."""


@dataclass(frozen=True, slots=True)
class Ownership:
    """By what right a process writes to a run's log."""

    tenant: str
    run_id: str
    owner: str
    attempt: int


class Journal:
    """The one writer of a process. Start it on the event loop of its runs.

    `lost` is called with a log that can be written no further: because its writer does not own the run any more
    (`refused`), or because the store is away or does not take what was to be written.
    """

    def __init__(
        self, store: Store, lost: Callable[[KeptLog, Ownership, bool], object], *, patience: float = PATIENCE
    ) -> None:
        self._store = store
        self._lost = lost
        self._patience = patience
        self._away_since: float | None = None
        self._waiting: dict[KeptLog, Ownership] = {}
        self._wanted = asyncio.Event()
        self._writer: asyncio.Task[None] | None = None
        self._is_closing = False

    def start(self) -> None:
        """Begin to write."""
        self._writer = asyncio.create_task(self._write(), name="journal")
        self._writer.add_done_callback(report)

    def hasten(self) -> None:
        """The process is about to end: wait no longer for the store than it can."""
        self._patience = min(self._patience, LAST_PATIENCE)

    async def aclose(self) -> None:
        """Write what there is, and end."""
        self._is_closing = True
        self._wanted.set()
        if self._writer is not None:
            await asyncio.wait({self._writer})

    def want(self, log: KeptLog, owned: Ownership) -> None:
        """The log has something to be written."""
        self._waiting[log] = owned
        self._wanted.set()

    async def _write(self) -> None:
        while not self._is_closing:
            await self._wanted.wait()
            self._wanted.clear()
            while self._waiting:
                await self._commit(self._batch())

    def _batch(self) -> list[tuple[KeptLog, Ownership]]:
        batch, size = [], 0
        for log, owned in islice(self._waiting.items(), MAX_BATCH):
            batch.append((log, owned))
            size += log.pending
            if size >= MAX_BATCH:
                break
        return batch

    async def _commit(self, batch: list[tuple[KeptLog, Ownership]]) -> None:
        appends = []
        for log, owned in batch:
            del self._waiting[log]
            first, events = log.take()
            appends.append(_append(owned, first, events))
        for (log, owned), outcome in zip(batch, await self._written(appends), strict=True):
            if outcome == "written":
                log.kept()
            else:
                self._waiting.pop(log, None)
                self._lost(log, owned, outcome == "refused")

    async def _written(self, appends: list[Append]) -> list[Outcome]:
        """What became of each. What the store does not take is found by halves, so that it costs no other its place."""
        try:
            accepted = await self._append(appends)
        except UnwritableError:
            if len(appends) == 1:
                return ["lost"]
            half = len(appends) // 2
            return [*await self._written(appends[:half]), *await self._written(appends[half:])]
        if accepted is None:
            return ["lost"] * len(appends)
        return ["written" if each else "refused" for each in accepted]

    async def _append(self, appends: list[Append]) -> list[bool] | None:
        """Try until the store is there, within reason: None when it has been away for too long."""
        pause = 0.01
        while True:
            try:
                accepted = await self._store.append(appends)
            except UnwritableError:
                self._away_since = None
                raise
            except StoreError as error:
                now = time.monotonic()
                self._away_since = now if self._away_since is None else self._away_since
                if now - self._away_since > self._patience:
                    return None
                logger.warning("the store is away: %s", error.message)
                await asyncio.sleep(pause)
                pause = min(2 * pause, 1.0)
            else:
                self._away_since = None
                return accepted


def report(task: asyncio.Task[None]) -> None:
    """Tell what went wrong in the background."""
    error = None if task.cancelled() else task.exception()
    if isinstance(error, StoreError):
        logger.warning("%s: the store is away: %s", task.get_name(), error.message)
    elif error is not None:
        logger.critical("%s has failed", task.get_name(), exc_info=error)


def _append(owned: Ownership, first: int, events: list[Event]) -> Append:
    return Append(
        tenant=owned.tenant,
        run_id=owned.run_id,
        owner=owned.owner,
        attempt=owned.attempt,
        after=first,
        events=[encode(event) for event in events],
        status=STATUS.get(type(events[-1])) if events else None,
    )
