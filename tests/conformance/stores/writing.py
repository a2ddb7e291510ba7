"""A process that appends to the SQLite store at argv[1] and prints how many events are acknowledged, for a test to
kill it or, with a largest file size in argv[2], to see it fill the disk and go on when there is space."""

from __future__ import annotations

import asyncio
import resource
import sys

from agent_server.runs.stores.port import Store, StoreError
from agent_server.runs.stores.url import open_store
from tests.conformance.stores.rows import add, created, row

BATCH = 10


def event(number: int) -> bytes:
    """An event that shows its number."""
    return f"{number} ".encode() * 50


async def append(store: Store, length: int) -> int:
    """One batch more; how long the log is then."""
    events = [event(number) for number in range(length, length + BATCH)]
    assert await store.append([add(*events, after=length)]) == [True]
    print(length + BATCH, flush=True)
    return length + BATCH


async def main() -> None:
    """Append until killed, or until the disk is full and then once more."""
    url, *limit = sys.argv[1:]
    store = open_store(url)
    await store.open()
    await created(store, row())
    length = 0
    _, hard = resource.getrlimit(resource.RLIMIT_FSIZE)
    if limit:
        resource.setrlimit(resource.RLIMIT_FSIZE, (int(limit[0]), hard))
    try:
        while True:
            length = await append(store, length)
    except StoreError as error:
        print(error.message, flush=True)
    resource.setrlimit(resource.RLIMIT_FSIZE, (hard, hard))
    await append(store, length)
    await store.aclose()


if __name__ == "__main__":
    asyncio.run(main())
