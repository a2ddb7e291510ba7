"""SQLite, from the standard library: one connection that writes and one that reads, each in a thread of its own.

What is written at the same time is committed together: while one transaction waits for the disk, the next one gathers.
"""

from __future__ import annotations

import asyncio
import logging
import os
import sqlite3
import time
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from pathlib import Path
from typing import Any, ParamSpec, Self, TypeAlias, TypeVar

from agent_server.graph.savers import Saver, SharedSqliteSaver
from agent_server.runs.stores.database import Each, Fill, Query, Row, Step, Steps, migrations, outstanding, queries
from agent_server.runs.stores.port import StoreError, UnwritableError

logger = logging.getLogger(__name__)

BUSY_SECONDS = 10.0
"""How long a process waits for another one that writes."""
SIZES = (1000, 100, 10, 1)
"""Rows of one `insert`, at seven values a row (SQLite takes 32,766)."""
OLDEST = (3, 37, 0)
"""`strict` tables; `returning` and upserts are older."""

UNWRITABLE = (sqlite3.IntegrityError, sqlite3.DataError, OverflowError, UnicodeEncodeError)
"""What fails because of what was to be written, and would fail again."""

P = ParamSpec("P")
T = TypeVar("T")
Work: TypeAlias = Callable[[sqlite3.Connection], T]


class SqliteDatabase:
    """A database in a file. Its folder is made; nobody but its owner may read the file."""

    def __init__(self, path: Path) -> None:
        self._path = path
        self._writer = _Lane("writer")
        self._reader = _Lane("reader")
        self._waiting: list[tuple[Work[Any], asyncio.Future[Any]]] = []
        self._writing: asyncio.Task[None] | None = None

    async def open(self) -> None:
        """See `Database`."""
        if sqlite3.sqlite_version_info < OLDEST:
            raise StoreError(f"SQLite {sqlite3.sqlite_version} is too old: {'.'.join(map(str, OLDEST))} is needed.")
        await self._writer.open(self._path)
        try:
            await self._writer.call(self._writer.migrate)
            await self._reader.open(self._path)
        except StoreError:
            await self.aclose()
            raise

    async def aclose(self) -> None:
        """See `Database`."""
        if self._writing is not None:
            await asyncio.wait({self._writing})
        await self._reader.aclose()
        await self._writer.aclose()

    async def checkpointer(self) -> Saver:
        """See `Store`."""
        read, write, alone = self._reader.do, self._write, self._writer.do
        return await SharedSqliteSaver.opened(read, write, alone)

    async def read(self, query: Query) -> list[Row]:
        """See `Database`."""
        return await self._reader.call(self._reader.answer, query)

    async def write(self, steps: Steps[T]) -> T:
        """See `Database`."""
        return await self._write(lambda _: self._writer.follow(steps))

    async def _write(self, work: Work[T]) -> T:
        done: asyncio.Future[T] = asyncio.get_running_loop().create_future()
        self._waiting.append((work, done))
        if self._writing is None or self._writing.done():
            self._writing = asyncio.create_task(self._write_all(), name="sqlite-writer")
        return await done

    async def _write_all(self) -> None:
        while self._waiting:
            batch, self._waiting = self._waiting, []
            transaction = self._writer.call(self._writer.transact, [work for work, _ in batch])
            found = (await asyncio.gather(transaction, return_exceptions=True))[0]
            outcomes = [found] * len(batch) if isinstance(found, BaseException) else found
            for (_, done), outcome in zip(batch, outcomes, strict=True):
                if done.cancelled():
                    continue
                if isinstance(outcome, BaseException):
                    done.set_exception(outcome)
                else:
                    done.set_result(outcome)


class _Lane:
    """A connection and the thread it lives in. What is not `async` runs in that thread."""

    connection: sqlite3.Connection

    def __init__(self, name: str) -> None:
        self._name = name
        self._queries = queries("sqlite")
        self._thread: ThreadPoolExecutor | None = None

    async def open(self, path: Path) -> None:
        self._thread = ThreadPoolExecutor(1, thread_name_prefix=f"sqlite-{self._name}")
        try:
            await self.call(self.connect, path)
        except StoreError:
            self._thread.shutdown()
            self._thread = None
            raise

    async def aclose(self) -> None:
        if self._thread is not None:
            await self.call(self.close)
            self._thread.shutdown()
            self._thread = None

    async def call(self, function: Callable[P, T], *args: P.args, **kwargs: P.kwargs) -> T:
        if self._thread is None:
            raise StoreError("The store is not open.")
        with _store_errors():
            return await asyncio.get_running_loop().run_in_executor(self._thread, lambda: function(*args, **kwargs))

    def connect(self, path: Path) -> None:
        _make_private(path)
        self.connection = connection = sqlite3.connect(path, timeout=BUSY_SECONDS, isolation_level=None)
        connection.create_function("now_ms", 0, lambda: time.time_ns() // 1_000_000)
        try:
            _use_write_ahead_log(connection)
            connection.execute("pragma synchronous = full")
            connection.execute("pragma foreign_keys = on")
        except sqlite3.Error:  # it may be no database
            connection.close()
            raise

    def migrate(self) -> None:
        known = migrations("sqlite")
        with self.connection as connection:
            connection.execute("begin immediate")
            connection.execute("create table if not exists schema_migrations (version integer primary key) strict")
            ((version,),) = connection.execute("select coalesce(max(version), 0) from schema_migrations")
            for migration in outstanding(known, version):
                for statement in _statements(migration.sql):
                    connection.execute(statement)
                connection.execute("insert into schema_migrations values (?)", (migration.version,))

    def answer(self, step: Step) -> list[Any]:
        sql = self._queries[step.name]
        match step:
            case Query(params=params):
                return self.connection.execute(sql, params).fetchall()
            case Each(params=sets):
                return [self.connection.execute(sql, params).fetchall() for params in sets]
            case Fill(rows=rows):
                self.fill(sql, rows)
                return []

    def fill(self, sql: str, rows: Sequence[Row]) -> None:
        """Few statements with many rows each: after each statement this thread has to wait for the interpreter."""
        head, _, values = sql.rpartition("values")
        start = 0
        for size in SIZES:
            statement = f"{head} values {', '.join([values] * size)}"
            while len(rows) - start >= size:
                self.connection.execute(statement, [each for row in rows[start : start + size] for each in row])
                start += size

    async def do(self, work: Work[T]) -> T:
        """Something with the connection, in no transaction of this lane."""
        return await self.call(lambda: work(self.connection))

    def transact(self, batch: Sequence[Work[Any]]) -> list[Any]:
        """One transaction for all; for each what it returned, or the exception that undid it alone."""
        with self.connection as connection:  # commits, or rolls back
            connection.execute("begin immediate")
            if len(batch) == 1:
                return [batch[0](connection)]
            outcomes: list[Any] = []
            for work in batch:
                with _Savepoint(connection) as savepoint:
                    outcomes.append(work(connection))
                if savepoint.error is not None:
                    outcomes.append(savepoint.error)
            return outcomes

    def follow(self, steps: Steps[T]) -> T:
        try:
            step = next(steps)
            while True:
                step = steps.send(self.answer(step))
        except StopIteration as end:
            result: T = end.value
            return result

    def close(self) -> None:
        self.connection.close()


class _Savepoint:
    """A block that is undone alone where it fails; `error` is why. A failure of the database undoes all."""

    def __init__(self, connection: sqlite3.Connection) -> None:
        self._connection = connection
        self.error: Exception | None = None

    def __enter__(self) -> Self:
        self._connection.execute("savepoint one")
        return self

    def __exit__(self, _: object, error: BaseException | None, __: object) -> bool:
        is_lost = isinstance(error, sqlite3.Error) and not isinstance(error, UNWRITABLE)
        if is_lost or not isinstance(error, Exception | None):
            return False
        if error is not None:
            self.error = _store_error(error) if isinstance(error, UNWRITABLE) else error
            self._connection.execute("rollback to one")
        self._connection.execute("release one")
        return True


def _make_private(path: Path) -> None:
    """The file, if it is not there yet. SQLite gives the files beside it the same mode."""
    path.parent.mkdir(parents=True, exist_ok=True)
    os.close(os.open(path, os.O_CREAT | os.O_RDWR, 0o600))


def _use_write_ahead_log(connection: sqlite3.Connection) -> None:
    """The one statement that SQLite's busy timeout does not cover: another process may be doing the same."""
    deadline = time.monotonic() + BUSY_SECONDS
    while True:
        try:
            connection.execute("pragma journal_mode = wal")
        except sqlite3.OperationalError as error:
            if error.sqlite_errorcode & 0xFF != sqlite3.SQLITE_BUSY or time.monotonic() > deadline:
                raise
            time.sleep(0.01)
        else:
            return


def _statements(script: str) -> Iterator[str]:
    statement = ""
    for line in script.splitlines(keepends=True):
        statement += line
        if sqlite3.complete_statement(statement):
            yield statement
            statement = ""


@contextmanager
def _store_errors() -> Iterator[None]:
    try:
        yield
    except (sqlite3.Error, OSError, *UNWRITABLE) as error:
        raise _store_error(error) from error


def _store_error(error: Exception) -> StoreError:
    logger.error("SQLite failed: %s: %s", type(error).__name__, error)
    if isinstance(error, UNWRITABLE):
        return UnwritableError("The store does not take this.")
    return StoreError("The store cannot be used now.")
