"""What a store does not take, now or later, costs whoever wrote it, and nobody who was to be written along with it."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Sequence
from functools import partial
from pathlib import Path

import pytest

from agent_server.events import RunFinished, RunStarted, TextDelta, encode
from agent_server.runs.journal import Journal, Ownership
from agent_server.runs.log import KeptLog
from agent_server.runs.stores.memory import MemoryStore
from agent_server.runs.stores.port import Append, Store, UnwritableError
from agent_server.runs.stores.url import open_store
from tests.conformance.stores.conftest import DURABLE
from tests.conformance.stores.databases import alter
from tests.conformance.stores.rows import add, created, log, row

REFUSALS = {
    "sqlite": """create trigger picky before insert on events when instr(new.data, 'poison') > 0
                 begin select raise(abort, 'poison'); end""",
    "postgres": "alter table events add check (position('poison'::bytea in data) = 0)",
}


class PickyMemory(MemoryStore):
    """A store in memory that does not take everything."""

    async def append(self, batch: Sequence[Append]) -> list[bool]:
        if any(b"poison" in event for each in batch for event in each.events):
            raise UnwritableError("The store does not take this.")
        return await super().append(batch)


@pytest.fixture(params=("memory", *DURABLE))
async def picky(request: pytest.FixtureRequest, tmp_path: Path) -> AsyncIterator[Store]:
    """A store that takes no event with `poison` in it."""
    if request.param == "memory":
        yield PickyMemory()
        return
    url = f"sqlite:///{tmp_path}/runs.db" if request.param == "sqlite" else request.getfixturevalue("postgres")
    store = open_store(url)
    await store.open()
    await alter(url, REFUSALS[request.param])
    yield store
    await store.aclose()


async def test_what_cannot_be_written_is_told_from_a_store_that_is_away(picky: Store) -> None:
    await created(picky, row("r1", "t1"))
    await created(picky, row("r2", "t2"))
    with pytest.raises(UnwritableError):
        await picky.append([add(b"good", run_id="r1"), add(b"poison", run_id="r2")])
    assert await log(picky, "r1") == await log(picky, "r2") == []
    refused, written = await asyncio.gather(
        picky.append([add(b"poison", run_id="r2")]), picky.append([add(b"good", run_id="r1")]), return_exceptions=True
    )
    assert isinstance(refused, UnwritableError)
    assert written == [True]
    assert (await log(picky, "r1"), await log(picky, "r2")) == ([b"good"], [])


async def test_an_append_that_cannot_be_written_ends_its_own_run_alone(picky: Store) -> None:
    lost: list[tuple[str, bool]] = []
    journal = Journal(picky, lambda _, owned, is_refused: lost.append((owned.run_id, is_refused)))
    logs: dict[str, KeptLog] = {}
    for number in range(5):
        run_id = f"r{number}"
        await created(picky, row(run_id, f"t{number}"))
        want = partial(journal.want, owned=Ownership("us", run_id, "me", 1))
        logs[run_id] = KeptLog(want, lambda: None)
        logs[run_id].append(RunStarted(run_id=run_id, agent="agent", at=1000))
        text = "poison" if number == 3 else "good"
        logs[run_id].append(TextDelta(message_id="m", index=0, text=text))
        logs[run_id].append(RunFinished(at=1000))
    journal.start()
    await asyncio.gather(*(kept.until_over() for run_id, kept in logs.items() if run_id != "r3"))
    await journal.aclose()
    assert lost == [("r3", False)]
    for run_id, kept in logs.items():
        assert await log(picky, run_id) == [encode(event) for event in kept.read(0)]
        assert len(kept.read(0)) == (0 if run_id == "r3" else 3)
