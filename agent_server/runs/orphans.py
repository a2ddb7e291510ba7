"""Runs that a process owns and nobody drives: each is given the end that it lacks, as soon as the store lets it."""

from __future__ import annotations

import contextlib
import logging
from collections.abc import Sequence
from dataclasses import dataclass

from agent_server import ids
from agent_server.events import Event, encode
from agent_server.graph.converter import now_ms
from agent_server.runs.ending import failed_end
from agent_server.runs.journal import STATUS
from agent_server.runs.rows import events_of, started_of
from agent_server.runs.stores.port import TERMINAL_STATUSES, Append, CorruptError, RunRow, Store, StoreError

logger = logging.getLogger("agent_server.runs")


@dataclass(frozen=True, slots=True)
class Orphan:
    """How a run ends that nobody drives: it has failed with a code and a message for its client.

    Where its log is `after` events long, it ends with `end` instead: that is what its readers have seen. One that
    waits in line is cancelled, if there is a reason to.
    """

    code: str
    message: str
    after: int = -1
    end: Sequence[Event] = ()
    reason: str | None = None


RESTARTED = Orphan("server_restarted", "The server was restarted while this run was in progress.")
UNAVAILABLE = Orphan("store_unavailable", "The server could not keep this run.")


class Orphans:
    """The orphans of one process, by tenant and run id."""

    def __init__(self, store: Store, owner: str, lease_ms: int) -> None:
        self._store = store
        self._owner = owner
        self._lease_ms = lease_ms
        self._orphans: dict[tuple[str, str], Orphan] = {}

    def add(self, tenant: str, run_id: str, orphan: Orphan) -> None:
        """See to it that the run ends, if it has not."""
        self._orphans[tenant, run_id] = orphan

    async def adopt_abandoned(self) -> None:
        """Take over what other processes left. Raises `StoreError`."""
        for tenant, run in [(each.tenant, each.run) for each in await self._store.abandoned(100)]:
            if run.owner != self._owner and await self._store.take_over(tenant, run, self._owner, self._lease_ms):
                self.add(tenant, run.id, RESTARTED)

    async def end_all(self) -> None:
        """Try to end each of them."""
        for tenant, run_id in list(self._orphans):
            await self.end(tenant, run_id)

    async def end(self, tenant: str, run_id: str) -> None:
        """Try to end one; what fails is for the next time."""
        orphan = self._orphans.get((tenant, run_id))
        try:
            if orphan is not None and await self._end(tenant, run_id, orphan):
                self._orphans.pop((tenant, run_id), None)
        except StoreError as error:
            logger.warning("run %s cannot be ended now: %s", run_id, error.message)

    async def _end(self, tenant: str, run_id: str, orphan: Orphan) -> bool:
        if orphan.reason is not None:
            await self._store.ask_to_cancel(tenant, run_id, orphan.reason)
        row = await self._store.run(tenant, run_id)
        if row is None or row.status in TERMINAL_STATUSES or row.owner != self._owner:
            return True
        if row.status == "queued":
            row = await self._store.start_run(tenant, run_id, self._owner, self._lease_ms)
        return row is not None and await self._append_end(tenant, row, orphan)

    async def _append_end(self, tenant: str, row: RunRow, orphan: Orphan) -> bool:
        end = list(orphan.end)
        if row.length != orphan.after:
            known: list[Event] = []
            with contextlib.suppress(CorruptError):
                known = await events_of(self._store, tenant, row.id)
            error_id = ids.new_error_id()
            end = failed_end(known, at=now_ms(), code=orphan.code, message=orphan.message, error_id=error_id)
            logger.error("run %s has failed: %s, error id %s", row.id, orphan.code, error_id)
            if not row.length:
                end = [started_of(row), *end]
        append = Append(
            tenant=tenant,
            run_id=row.id,
            owner=self._owner,
            attempt=row.attempt,
            after=row.length,
            events=[encode(event) for event in end],
            status=STATUS[type(end[-1])],
        )
        return (await self._store.append([append]))[0]
