"""What was acknowledged is there afterwards, whatever happens to the process, the disk or the server."""

from __future__ import annotations

import asyncio
import subprocess
import sys
from collections.abc import Iterator
from contextlib import AsyncExitStack
from pathlib import Path

import psycopg
import pytest
from click.testing import CliRunner

from agent_server.cli import cli
from agent_server.runs.stores.database import migrations
from agent_server.runs.stores.port import Claim, StoreError, Thread
from agent_server.runs.stores.url import open_store
from tests.conformance.stores import writing
from tests.conformance.stores.databases import alter, opened
from tests.conformance.stores.rows import LEASE, add, created, log, row
from tests.conformance.stores.test_tenants import all_of, furnish
from tests.support.postgres import Cluster, cluster, schema

ROOT = Path(__file__).parents[3]
NEWEST = migrations("sqlite")[-1].version


async def test_a_store_opened_again_still_has_everything(url: str) -> None:
    store = open_store(url)
    await store.open()
    await furnish(store)
    await store.create_thread("us", Thread("t4", 7, b"x", 9))
    before = await all_of(store)
    await store.aclose()
    await store.open()
    assert await all_of(store) == before
    await store.aclose()
    another = open_store(url)
    await another.open()
    assert await all_of(another) == before
    assert await another.thread("us", "t4") == Thread("t4", 7, b"x", 9)
    await another.aclose()


async def test_two_processes_with_one_store_see_what_the_other_one_did(url: str) -> None:
    one, two = open_store(url), open_store(url)
    await asyncio.gather(one.open(), two.open())
    await created(one, row())
    assert await two.create_run("us", row("r2"), LEASE) is None
    assert await one.append([add(b"0")]) == [True]
    assert await log(two) == [b"0"]
    assert await two.claim("us", "/r", "k", Claim("d", "r1"), now=0, expires_at=9) is None
    assert await one.claim("us", "/r", "k", Claim("d", "r2"), now=0, expires_at=9) == Claim("d", "r1")
    await asyncio.gather(one.aclose(), two.aclose())


async def test_a_store_that_is_not_open_says_so(url: str) -> None:
    store = open_store(url)
    with pytest.raises(StoreError, match="not open"):
        await store.run("us", "r1")
    await store.open()
    await store.aclose()
    with pytest.raises(StoreError, match="not open"):
        await store.run("us", "r1")
    await store.aclose()


@pytest.mark.parametrize("way", ["delete_run", "delete_thread", "expire"])
async def test_no_event_is_left_of_what_is_deleted_or_has_expired(url: str, way: str) -> None:
    async with opened(url) as store:
        await created(store, row(expires_at=2000))
        await store.append([add(b"0", b"1", status="completed")])
        match way:
            case "delete_run":
                await store.delete_run("us", "r1")
            case "delete_thread":
                await store.delete_thread("us", "t1")
            case "expire":
                await store.expire(2000, 10)
        assert await alter(url, "select (select count(*) from runs), (select count(*) from events)") == [(0, 0)]


async def test_tables_of_a_newer_version_are_refused_and_left_alone(url: str) -> None:
    store = open_store(url)
    await store.open()
    await created(store, row())
    await store.aclose()
    await alter(url, f"insert into schema_migrations values ({NEWEST + 1})")
    with pytest.raises(StoreError, match=f"version {NEWEST + 1}"):
        await store.open()
    with pytest.raises(StoreError, match="not open"):
        await store.run("us", "r1")
    assert await alter(url, "select id from runs") == [("r1",)]


async def test_an_empty_store_is_migrated_once_however_many_open_it(url: str) -> None:
    async with AsyncExitStack() as closing:
        stores = [open_store(url) for _ in range(8)]
        for store in stores:
            closing.push_async_callback(store.aclose)
        await asyncio.gather(*(store.open() for store in stores))
        assert await alter(url, "select version from schema_migrations") == [(n + 1,) for n in range(NEWEST)]


def test_several_processes_may_migrate_one_store_at_once(url: str) -> None:
    command = [sys.executable, "-m", "agent_server", "migrate", "--store", url]
    processes = [subprocess.Popen(command, cwd=ROOT, stdout=subprocess.PIPE, text=True) for _ in range(4)]
    said = [process.communicate(timeout=60)[0] for process in processes]
    assert [process.returncode for process in processes] == [0] * 4
    assert said == ["the store is up to date\n"] * 4


async def test_migrating_a_newer_store_ends_with_a_clear_line(url: str) -> None:
    store = open_store(url)
    await store.open()
    await store.aclose()
    await alter(url, f"insert into schema_migrations values ({NEWEST + 1})")
    done = await asyncio.to_thread(CliRunner().invoke, cli, ["migrate", "--store", url])
    assert done.exit_code == 1
    assert f"version {NEWEST + 1}" in done.stderr


@pytest.mark.parametrize("moment", [1, 7, 40])
async def test_a_killed_process_loses_nothing_that_was_acknowledged(tmp_path: Path, moment: int) -> None:
    url = f"sqlite:///{tmp_path}/runs.db"
    command = [sys.executable, "-m", writing.__name__, url]
    with subprocess.Popen(command, cwd=ROOT, stdout=subprocess.PIPE, text=True) as process:
        assert process.stdout is not None
        for _ in range(moment):
            process.stdout.readline()
        process.kill()
        acknowledged = [int(line) for line in process.stdout]
    async with opened(url) as store:
        run = await store.run("us", "r1")
        assert run is not None
        assert run.length >= max(acknowledged, default=moment * writing.BATCH)
        assert await log(store) == [writing.event(number) for number in range(run.length)]


@pytest.mark.skipif(sys.platform == "win32", reason="needs a limit on file sizes")
async def test_a_full_disk_loses_nothing_that_was_acknowledged_and_space_heals_it(tmp_path: Path) -> None:
    url = f"sqlite:///{tmp_path}/runs.db"
    command = [sys.executable, "-m", writing.__name__, url, str(500_000)]
    done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, timeout=60, check=True)
    *acknowledged, refusal, healed = done.stdout.splitlines()
    assert refusal == "The store cannot be used now."
    assert int(healed) == int(acknowledged[-1]) + writing.BATCH > 100
    async with opened(url) as store:
        assert await log(store) == [writing.event(number) for number in range(int(healed))]


async def test_the_file_of_a_store_is_its_owners_alone(tmp_path: Path) -> None:
    async with opened(f"sqlite:///{tmp_path}/a/b/runs.db") as store:
        await created(store, row())
        assert {file.stat().st_mode & 0o777 for file in (tmp_path / "a" / "b").iterdir()} == {0o600}


async def test_a_file_that_is_no_database_is_refused_and_left_alone(tmp_path: Path) -> None:
    file = tmp_path / "notes.txt"
    file.write_text("these are notes, " * 1000)
    with pytest.raises(StoreError):
        await open_store(f"sqlite:///{file}").open()
    assert file.read_text() == "these are notes, " * 1000


async def test_a_store_that_cannot_be_reached_says_nothing_of_the_driver(tmp_path: Path) -> None:
    for url in (f"sqlite:///{tmp_path}", f"postgresql://me:secret@/db?host={tmp_path}"):
        with pytest.raises(StoreError) as caught:
            await open_store(url).open()
        assert caught.value.message == "The store cannot be used now."


@pytest.fixture
def own_cluster() -> Iterator[Cluster]:
    """A cluster to stop."""
    with cluster() as made:
        yield made


@pytest.mark.parametrize("mode", ["fast", "immediate"])
async def test_after_postgres_was_away_everything_is_there_and_verbs_work_again(
    own_cluster: Cluster, mode: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("agent_server.runs.stores.postgres.WAIT_SECONDS", 2.0)
    async with opened(own_cluster.url) as store:
        await asyncio.gather(*(created(store, row(f"r{n}", f"t{n}")) for n in range(20)))
        assert await store.append([add(b"0", run_id=f"r{n}") for n in range(20)]) == [True] * 20
        await asyncio.to_thread(own_cluster.stop, mode)
        await asyncio.to_thread(own_cluster.start)
        assert await store.append([add(b"1", after=1, run_id="r0")]) == [True], "the first verb after it works"
        await asyncio.to_thread(own_cluster.stop, mode)
        with pytest.raises(StoreError, match="cannot be used now"):
            await store.append([add(b"2", after=2, run_id="r0")])
        await asyncio.to_thread(own_cluster.start)
        assert await asyncio.gather(*(log(store, f"r{n}") for n in range(20))) == [[b"0", b"1"]] + [[b"0"]] * 19


async def test_a_verb_whose_connection_is_cut_leaves_the_store_usable(postgres: str) -> None:
    async with opened(postgres) as store:
        await created(store, row())
        async with await psycopg.AsyncConnection.connect(postgres, autocommit=True) as other, other.transaction():
            await other.execute("lock table events")
            waiting = asyncio.create_task(store.append([add(b"0")]))
            cut = b"select pg_terminate_backend(pid) from pg_locks where not granted and relation = 'events'::regclass"
            while not await (await other.execute(cut)).fetchall():
                pass
            with pytest.raises(StoreError, match="cannot be used now"):
                await waiting
        assert await log(store) == []
        assert await store.append([add(b"0")]) == [True]


async def test_a_schema_of_ones_own_is_respected(postgres_server: str) -> None:
    with schema(postgres_server) as one, schema(postgres_server) as two:
        stores = [open_store(one), open_store(two)]
        for store in stores:
            await store.open()
            await created(store, row())
        await stores[0].append([add(b"0")])
        assert [await log(store) for store in stores] == [[b"0"], []]
        for store in stores:
            await store.aclose()


async def test_what_is_written_at_once_is_committed_together_and_what_fails_undoes_only_itself(tmp_path: Path) -> None:
    store = open_store(f"sqlite:///{tmp_path}/runs.db")
    await store.open()
    first = await store.create_run("t", row("taken", "taken"), 1000)
    assert first is not None
    ids = ["a", "taken", "b", "taken", "c"]
    made = await asyncio.gather(
        *(store.create_run("t", row(run_id, f"t{place}"), 1000) for place, run_id in enumerate(ids)),
        return_exceptions=True,
    )
    assert [isinstance(each, StoreError) for each in made] == [False, True, False, True, False]
    assert [each is not None for each in [await store.run("t", run_id) for run_id in "abc"]] == [True] * 3
    await store.aclose()
