"""What it costs to write events down: `python -m tests.benchmarks.stores URL...`, with `memory`, `sqlite:///path` or
`postgresql://...`, each an empty store.

A commit waits for the disk, whose speed changes from minute to minute. So beside each commit of a file in SQLite the
same rows are committed by bare `sqlite3` into a file next to it, and the medians are given with their ratio.
"""

from __future__ import annotations

import asyncio
import sqlite3
import sys
import time
from collections.abc import Callable
from itertools import count
from statistics import median

from agent_server.runs.stores.port import Append, RunRow, Store
from agent_server.runs.stores.url import open_store

EVENT = b'{"type":"text_delta","message_id":"msg_0123456789abcdef","index":0,"text":"some twenty bytes of text"}'
TIMES = 300


class Writer:
    """Appends to runs of its own."""

    def __init__(self, store: Store) -> None:
        self._store = store
        self._lengths: dict[str, int] = {}

    async def begin(self, runs: int) -> None:
        """Create the runs."""
        for number in range(runs):
            run = RunRow(f"run_{number}", f"thread_{number}", "agent", "running", 0, owner="me")
            assert await self._store.create_run("us", run, 3_600_000) is not None
            self._lengths[run.id] = 0

    async def commit(self, runs: int, events: int) -> float:
        """Seconds that one append takes: so many events for each of so many runs."""
        batch = [
            Append("us", run_id, "me", 1, length, [EVENT] * events)
            for run_id, length in list(self._lengths.items())[:runs]
        ]
        since = time.perf_counter()
        accepted = await self._store.append(batch)
        took = time.perf_counter() - since
        assert all(accepted)
        for each in batch:
            self._lengths[each.run_id] += events
        return took


def bare(path: str) -> Callable[[int], float]:
    """Seconds that bare SQLite takes to commit so many rows."""
    connection = sqlite3.connect(path, isolation_level=None)
    connection.execute("pragma journal_mode = wal")
    connection.execute("pragma synchronous = full")
    connection.execute("create table events (run text, seq integer, data blob, primary key (run, seq)) without rowid")
    numbers = count()

    def commit(events: int) -> float:
        rows = [("run", next(numbers), EVENT) for _ in range(events)]
        since = time.perf_counter()
        connection.execute("begin immediate")
        connection.executemany("insert into events values (?, ?, ?)", rows)
        connection.execute("commit")
        return time.perf_counter() - since

    return commit


async def measure(url: str) -> None:
    """Print a line for each size of a commit."""
    store = open_store(url)
    await store.open()
    writer = Writer(store)
    await writer.begin(50)
    beside = bare(f"{url.removeprefix('sqlite:///')}-bare") if url.startswith("sqlite") else None
    for runs, events in ((1, 10), (10, 1), (1, 100), (50, 20)):
        ours, theirs = [], []
        for _ in range(TIMES):
            ours.append(await writer.commit(runs, events))
            if beside is not None:
                theirs.append(beside(runs * events))
        rate = runs * events / median(ours)
        line = f"{runs:3} runs x {events:3} events: {median(ours) * 1000:.2f} ms, {rate:,.0f} events/s"
        if theirs:
            line += f"; bare sqlite3 {median(theirs) * 1000:.2f} ms, ratio {median(ours) / median(theirs):.2f}"
        print(line)
    await store.aclose()


if __name__ == "__main__":
    for each in sys.argv[1:]:
        print(each.partition(":")[0])
        asyncio.run(measure(each))
