"""Postgres, through psycopg and its pool. Needs the extra `postgres`."""

from __future__ import annotations

import logging
import re
from collections.abc import AsyncIterator
from contextlib import AsyncExitStack, asynccontextmanager
from typing import Any, TypeVar

from psycopg import AsyncConnection, AsyncCursor, DataError, Error, IntegrityError, OperationalError
from psycopg_pool import AsyncConnectionPool

from agent_server.graph.savers import Saver, postgres_saver
from agent_server.runs.stores.database import Each, Fill, Query, Row, Step, Steps, migrations, outstanding, queries
from agent_server.runs.stores.port import StoreError, UnwritableError

logger = logging.getLogger(__name__)

CONNECTIONS = 10
"""Per process, at most."""
WAIT_SECONDS = 10.0
"""How long a verb waits for a connection."""
UNWRITABLE = (IntegrityError, DataError, OverflowError, UnicodeEncodeError)
REFUSALS = ("44", "54", "P0")
"""What fails because of what was to be written, and would fail again: by its type, or by the class of its SQLSTATE (a
check of a view, a limit of the program, a trigger)."""
MIGRATING = 0x6167656E74
"""The advisory lock of whoever migrates."""

TYPES = {"add_events": ("text", "int8", "int8", "int8", "int8", "bytea", "int8")}
"""The columns' types of what is copied."""

T = TypeVar("T")
Connection = AsyncConnection[Row]


class PostgresDatabase:
    """A database on a server. Its tables are in the connection's current schema."""

    def __init__(self, url: str) -> None:
        self._url = url
        self._pool: AsyncConnectionPool[Connection] | None = None
        self._savers = AsyncExitStack()
        self._queries = {name: re.sub(r"(?<!:):(\w+)", r"%(\1)s", sql) for name, sql in queries("postgres").items()}

    async def open(self) -> None:
        """See `Database`."""
        async with _store_errors():
            async with await AsyncConnection.connect(self._url, connect_timeout=int(WAIT_SECONDS)) as connection:
                await _migrate(connection)
            pool: AsyncConnectionPool[Connection] = AsyncConnectionPool(
                self._url,
                kwargs={"autocommit": True},
                min_size=1,
                max_size=CONNECTIONS,
                timeout=WAIT_SECONDS,
                reconnect_timeout=WAIT_SECONDS,
                open=False,
            )
            await pool.open()
            self._pool = pool

    async def aclose(self) -> None:
        """See `Database`."""
        await self._savers.aclose()
        pool, self._pool = self._pool, None
        if pool is not None:
            await pool.close()

    async def checkpointer(self) -> Saver:
        """See `Database`."""
        async with _store_errors():
            return await self._savers.enter_async_context(postgres_saver(self._url))

    async def read(self, query: Query) -> list[Row]:
        """See `Database`."""
        async with self._cursor() as cursor:
            return await self._answer(cursor, query)

    async def write(self, steps: Steps[T]) -> T:
        """See `Database`."""
        async with self._cursor() as cursor, cursor.connection.transaction():
            try:
                step = next(steps)
                while True:
                    step = steps.send(await self._answer(cursor, step))
            except StopIteration as end:
                result: T = end.value
        return result

    @asynccontextmanager
    async def _cursor(self) -> AsyncIterator[AsyncCursor[Row]]:
        if self._pool is None:
            raise StoreError("The store is not open.")
        async with _store_errors(), _live(self._pool) as connection, connection.cursor(binary=True) as cursor:
            yield cursor

    async def _answer(self, cursor: AsyncCursor[Row], step: Step) -> list[Any]:
        sql = self._queries[step.name].encode()
        match step:
            case Query(params=params):
                await cursor.execute(sql, params)
                return await _rows(cursor)
            case Each(params=[params]):
                await cursor.execute(sql, params)
                return [await _rows(cursor)]
            case Each(params=sets):
                return await _each(cursor, sql, sets)
            case Fill(rows=rows):
                async with cursor.copy(sql) as copy:
                    copy.set_types(TYPES[step.name])
                    for row in rows:
                        await copy.write_row(row)
                return []


async def _rows(cursor: AsyncCursor[Row]) -> list[Row]:
    return await cursor.fetchall() if cursor.description else []


async def _each(cursor: AsyncCursor[Row], sql: bytes, sets: Any) -> list[list[Row]]:
    """All of them in one round trip."""
    if not sets:
        return []
    await cursor.executemany(sql, sets, returning=True)
    answers = [await _rows(cursor)]
    while cursor.nextset():
        answers.append(await _rows(cursor))
    return answers


async def _migrate(connection: Connection) -> None:
    known = migrations("postgres")
    async with connection.transaction():
        await connection.execute("select pg_advisory_xact_lock(%s)", (MIGRATING,))
        await connection.execute("create table if not exists schema_migrations (version integer primary key)")
        cursor = await connection.execute("select coalesce(max(version), 0) from schema_migrations")
        ((version,),) = await cursor.fetchall()
        for migration in outstanding(known, version):
            await connection.execute(migration.sql.encode())
            await connection.execute("insert into schema_migrations values (%s)", (migration.version,))


@asynccontextmanager
async def _live(pool: AsyncConnectionPool[Connection]) -> AsyncIterator[Connection]:
    """A connection that the server still holds. If it went away since, all that are idle are replaced first."""
    connection = await pool.getconn()
    if _gone(connection):
        await pool.putconn(connection)
        await pool.check()
        connection = await pool.getconn()
    try:
        yield connection
    finally:
        await pool.putconn(connection)


def _gone(connection: Connection) -> bool:
    """Whether the server closed a connection while it was idle. Without asking: that would take a round trip.

    The first look reads what the server said when it went, the second one that it is gone.
    """
    try:
        connection.pgconn.consume_input()
        connection.pgconn.consume_input()
    except OperationalError:
        return True
    return False


@asynccontextmanager
async def _store_errors() -> AsyncIterator[None]:
    try:
        yield
    except (Error, OSError, *UNWRITABLE) as error:
        logger.error("Postgres failed: %s: %s", type(error).__name__, error)
        if isinstance(error, UNWRITABLE) or (isinstance(error, Error) and (error.sqlstate or "")[:2] in REFUSALS):
            raise UnwritableError("The store does not take this.") from error
        raise StoreError("The store cannot be used now.") from error
