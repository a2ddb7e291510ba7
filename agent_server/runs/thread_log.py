"""The log of a thread: the events of its runs one after the other, numbered through, with no end.

It is for one reader. A run is loaded when the reader has come to it, and those that are over and read already are
passed by.
"""

from __future__ import annotations

import asyncio
import contextlib
import logging
from types import TracebackType
from typing import NamedTuple, Self

from agent_server.errors import GoneError
from agent_server.events import Event
from agent_server.runs.engine import Engine
from agent_server.runs.log import EventLog
from agent_server.runs.stores.port import RunRow, StoreError

logger = logging.getLogger("agent_server.runs")

POLL = 0.5
"""Seconds between two looks for a run that another process began."""


class Placed(NamedTuple):
    """An event, its place in its thread's sequence, and the run it is of."""

    place: int
    event: Event
    run: RunRow | None = None


class ThreadLog:
    """The events of a thread from place `after` on, for as long as the block lasts."""

    over = False

    def __init__(self, engine: Engine, tenant: str, thread_id: str, *, after: int = 0) -> None:
        self._engine = engine
        self._tenant = tenant
        self._thread_id = thread_id
        self._next = after  # the place from which on runs are looked for
        self._current: EventLog | None = None
        self._run: RunRow | None = None
        self._before = 0  # how many events the runs before had
        self._read_up = asyncio.Event()
        self._waker: asyncio.Future[None] | None = None

    async def __aenter__(self) -> Self:
        self._task = asyncio.create_task(self._lead(), name=f"follow thread {self._thread_id}")
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._task.cancel()
        await asyncio.wait({self._task})

    def read(self, after: int, limit: int | None = None) -> list[Placed]:
        """The events from number `after` of those that were told to this reader, as many as there are now."""
        log = self._current
        if log is None:
            return []
        number = after - self._before
        events = log.read(number, limit)
        if not events and log.over:
            self._current, self._before = None, after
            self._next = max(self._next, log.base + len(log))
            self._read_up.set()
        first = log.base + number
        return [Placed(first + place, event, self._run) for place, event in enumerate(events)]

    def waiter(self) -> asyncio.Future[None]:
        """A future that is done once there may be more. Ask for it only after reading all there is."""
        if self._current is not None:
            return self._current.waiter()
        self._waker = asyncio.get_running_loop().create_future()
        return self._waker

    async def _lead(self) -> None:
        """Bring one run after the other."""
        while True:
            news = self._engine.keeper.news_of(self._tenant, self._thread_id)
            try:
                found = await self._following()
            except (StoreError, GoneError) as error:
                logger.warning("thread %s cannot be followed now: %s", self._thread_id, error.message)
                found = None
            if found is None:
                with contextlib.suppress(TimeoutError):
                    await asyncio.wait_for(news, POLL)
                continue
            news.cancel()
            self._read_up.clear()
            self._run, self._current = found
            if self._waker is not None and not self._waker.done():
                self._waker.set_result(None)
            await self._read_up.wait()

    async def _following(self) -> tuple[RunRow, EventLog] | None:
        """The first run that has something from the next place on."""
        rows = await self._engine.keeper.store.runs(self._tenant, self._thread_id)
        begun = sorted((row for row in rows if _is_after(row, self._next)), key=lambda row: row.base)
        return await self._engine.find(self._tenant, begun[0].id) if begun else None


def _is_after(row: RunRow, place: int) -> bool:
    """Whether a run has begun, and is not read up."""
    if row.status == "queued":
        return False
    return row.status == "running" or (row.length > 0 and row.base + row.length > place)
