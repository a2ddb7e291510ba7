"""Checkpoints in SQLite, with one hop to a thread for each of LangGraph's calls.

`langgraph-checkpoint-sqlite` has an asynchronous saver as well; it goes to its thread and back for each statement, and
once more to commit.
"""

from __future__ import annotations

import asyncio
import sqlite3
from collections.abc import AsyncIterator, Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any, ParamSpec, Self, TypeVar, cast

from langchain_core.runnables import RunnableConfig
from langgraph.checkpoint.base import BaseCheckpointSaver, Checkpoint, CheckpointMetadata, CheckpointTuple
from langgraph.checkpoint.serde.base import SerializerProtocol
from langgraph.checkpoint.sqlite import SqliteSaver

BUSY_SECONDS = 10.0

P = ParamSpec("P")
T = TypeVar("T")


class ThreadedSqliteSaver(BaseCheckpointSaver[str]):
    """LangGraph's own synchronous saver, in a thread of its own."""

    def __init__(self, saver: SqliteSaver, thread: ThreadPoolExecutor) -> None:
        super().__init__(serde=saver.serde)
        self._saver = saver
        self._thread = thread

    @classmethod
    @asynccontextmanager
    async def opened(cls, path: Path, serde: SerializerProtocol) -> AsyncIterator[Self]:
        """The saver of a file, whose folder is made; its tables are made, too."""
        with ThreadPoolExecutor(1, thread_name_prefix="sqlite-checkpoints") as thread:
            opened = cls(await asyncio.get_running_loop().run_in_executor(thread, _open, path, serde), thread)
            try:
                yield opened
            finally:
                await opened._call(opened._saver.conn.close)

    def with_allowlist(self, extra_allowlist: Any) -> ThreadedSqliteSaver:
        """A saver of the same file that rebuilds more types."""
        return ThreadedSqliteSaver(cast("SqliteSaver", self._saver.with_allowlist(extra_allowlist)), self._thread)

    async def _call(self, function: Callable[P, T], *args: P.args, **kwargs: P.kwargs) -> T:
        return await asyncio.get_running_loop().run_in_executor(self._thread, lambda: function(*args, **kwargs))

    def get_next_version(self, current: str | None, channel: None) -> str:
        return self._saver.get_next_version(current, channel)

    async def aget_tuple(self, config: RunnableConfig) -> CheckpointTuple | None:
        return await self._call(self._saver.get_tuple, config)

    async def alist(
        self,
        config: RunnableConfig | None,
        *,
        filter: dict[str, Any] | None = None,  # noqa: A002 - LangGraph's name
        before: RunnableConfig | None = None,
        limit: int | None = None,
    ) -> AsyncIterator[CheckpointTuple]:
        found = await self._call(lambda: list(self._saver.list(config, filter=filter, before=before, limit=limit)))
        for each in found:
            yield each

    async def aput(
        self,
        config: RunnableConfig,
        checkpoint: Checkpoint,
        metadata: CheckpointMetadata,
        new_versions: Any,
    ) -> RunnableConfig:
        return await self._call(self._saver.put, config, checkpoint, metadata, new_versions)

    async def aput_writes(
        self, config: RunnableConfig, writes: Sequence[tuple[str, Any]], task_id: str, task_path: str = ""
    ) -> None:
        await self._call(self._saver.put_writes, config, writes, task_id, task_path)

    async def adelete_thread(self, thread_id: str) -> None:
        await self._call(self._saver.delete_thread, thread_id)


def _open(path: Path, serde: SerializerProtocol) -> SqliteSaver:
    path.parent.mkdir(parents=True, exist_ok=True)
    connection = sqlite3.connect(path, timeout=BUSY_SECONDS)
    saver = SqliteSaver(connection, serde=serde)
    saver.setup()
    return saver
