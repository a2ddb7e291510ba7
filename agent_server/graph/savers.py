"""The checkpointers of the stores: LangGraph's own, with its strict serializer.

That of SQLite writes along with whatever else is written to its file. `langgraph-checkpoint-sqlite` has an asynchronous
saver as well; it goes to its thread and back for each statement, and once more to commit.
"""

from __future__ import annotations

import sqlite3
import threading
from collections.abc import AsyncIterator, Awaitable, Callable, Sequence
from contextlib import asynccontextmanager
from copy import copy
from typing import Any, Protocol, Self, TypeVar, cast

from langchain_core.runnables import RunnableConfig
from langgraph.checkpoint.base import BaseCheckpointSaver, Checkpoint, CheckpointMetadata, CheckpointTuple
from langgraph.checkpoint.memory import InMemorySaver
from langgraph.checkpoint.serde.jsonplus import JsonPlusSerializer
from langgraph.checkpoint.sqlite import SqliteSaver

T = TypeVar("T")
Saver = BaseCheckpointSaver[Any]


def _serializer() -> JsonPlusSerializer:
    """Rebuilds LangChain's and LangGraph's own types, and no others (CVE-2025-64439, CVE-2026-28277)."""
    return JsonPlusSerializer(pickle_fallback=False, allowed_msgpack_modules=None)


def memory_saver() -> Saver:
    """A checkpointer that keeps everything in this process."""
    return InMemorySaver(serde=_serializer())


@asynccontextmanager
async def postgres_saver(url: str) -> AsyncIterator[Saver]:
    """A checkpointer with connections of its own to a database. Its tables are made."""
    from langgraph.checkpoint.postgres.aio import AsyncPostgresSaver  # an extra
    from psycopg import AsyncConnection
    from psycopg.rows import DictRow, dict_row
    from psycopg_pool import AsyncConnectionPool

    options = {"autocommit": True, "prepare_threshold": 0, "row_factory": dict_row}
    pool: AsyncConnectionPool[AsyncConnection[DictRow]] = AsyncConnectionPool(
        url, kwargs=options, min_size=1, max_size=10, open=False
    )
    async with pool:
        saver = AsyncPostgresSaver(pool, serde=_serializer())
        await saver.setup()
        yield saver


class Lane(Protocol):
    """Does something with a connection, in the thread that it belongs to."""

    def __call__(self, work: Callable[[sqlite3.Connection], T], /) -> Awaitable[T]: ...


class SharedSqliteSaver(BaseCheckpointSaver[str]):
    """LangGraph's own synchronous saver. `read` has a connection for it; `write` one, in a transaction of its own."""

    def __init__(self, saver: SqliteSaver, read: Lane, write: Lane) -> None:
        super().__init__(serde=saver.serde)
        self._saver = saver
        self._read = read
        self._write = write

    @classmethod
    async def opened(cls, read: Lane, write: Lane, alone: Lane) -> Self:
        """The saver of a file. Its tables are made, by `alone`: in no transaction."""
        saver = SqliteSaver(cast("sqlite3.Connection", None), serde=_serializer())
        await alone(lambda connection: _at(saver, connection).setup())
        saver.is_setup = True
        return cls(saver, read, write)

    def with_allowlist(self, extra_allowlist: Any) -> SharedSqliteSaver:
        """A saver of the same file that rebuilds more types."""
        saver = cast("SqliteSaver", self._saver.with_allowlist(extra_allowlist))
        return SharedSqliteSaver(saver, self._read, self._write)

    def get_next_version(self, current: str | None, channel: None) -> str:
        return self._saver.get_next_version(current, channel)

    async def aget_tuple(self, config: RunnableConfig) -> CheckpointTuple | None:
        return await self._read(lambda connection: _at(self._saver, connection).get_tuple(config))

    async def alist(
        self,
        config: RunnableConfig | None,
        *,
        filter: dict[str, Any] | None = None,  # noqa: A002 - LangGraph's name
        before: RunnableConfig | None = None,
        limit: int | None = None,
    ) -> AsyncIterator[CheckpointTuple]:
        found = await self._read(
            lambda connection: list(
                _at(self._saver, connection).list(config, filter=filter, before=before, limit=limit)
            )
        )
        for each in found:
            yield each

    async def aput(
        self,
        config: RunnableConfig,
        checkpoint: Checkpoint,
        metadata: CheckpointMetadata,
        new_versions: Any,
    ) -> RunnableConfig:
        return await self._write(
            lambda connection: _at(self._saver, connection).put(config, checkpoint, metadata, new_versions)
        )

    async def aput_writes(
        self, config: RunnableConfig, writes: Sequence[tuple[str, Any]], task_id: str, task_path: str = ""
    ) -> None:
        await self._write(
            lambda connection: _at(self._saver, connection).put_writes(config, writes, task_id, task_path)
        )

    async def adelete_thread(self, thread_id: str) -> None:
        await self._write(lambda connection: _at(self._saver, connection).delete_thread(thread_id))


class _Within:
    """A connection in the midst of a transaction that somebody else commits."""

    def __init__(self, connection: sqlite3.Connection) -> None:
        self.cursor = connection.cursor
        self.execute = connection.execute
        self.executescript = connection.executescript

    def commit(self) -> None:
        """Not now."""


def _at(saver: SqliteSaver, connection: sqlite3.Connection) -> SqliteSaver:
    """The saver at a connection."""
    at = copy(saver)
    at.conn = cast("sqlite3.Connection", _Within(connection))
    at.lock = threading.Lock()
    return at
