"""What graphs remember across threads: LangGraph's own store, for graphs that were compiled without one."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from contextlib import AbstractAsyncContextManager, AsyncExitStack, asynccontextmanager
from dataclasses import replace
from pathlib import Path
from typing import Any
from weakref import WeakKeyDictionary

from langchain_core.runnables import RunnableBinding, RunnableConfig
from langgraph.pregel import Pregel
from langgraph.store.base import BaseStore, NamespacePath
from langgraph.store.memory import InMemoryStore

from agent_server.errors import RequestError, UnsupportedError
from agent_server.graph.agent import Agent, RunnableAgent
from agent_server.graph.checkpoints import AnyGraph, AnyRunnable
from agent_server.graph.jsonable import to_jsonable

Namespace = tuple[str, ...]
Json = dict[str, Any]

_TTL: Any = {"refresh_on_read": True, "default_ttl": None, "sweep_interval_minutes": 5}


class Items:
    """The items of one app, in the store at `url`."""

    def __init__(self, url: str = "memory") -> None:
        self._url = url
        self._store: BaseStore | None = None
        self._opening = asyncio.Lock()
        self._stack = AsyncExitStack()
        self._graphs: WeakKeyDictionary[AnyGraph, AnyGraph] = WeakKeyDictionary()

    async def open(self) -> None:
        """Connect, and make the tables; once."""
        if self._store is None:
            async with self._opening:
                if self._store is None:
                    self._store = await self._stack.enter_async_context(open_items(self._url))

    async def aclose(self) -> None:
        """Let go of the database."""
        await self._stack.aclose()

    async def opened(self) -> BaseStore:
        """LangGraph's store."""
        await self.open()
        if self._store is None:
            raise RuntimeError("the items are not open")
        return self._store

    def given_to(self, agent: Agent) -> Agent:
        """The agent, whose graph has these items unless it was compiled with a store of its own."""
        if not isinstance(agent, RunnableAgent) or not agent.is_graph:
            return agent
        opener = agent.for_run

        @asynccontextmanager
        async def opened(config: RunnableConfig) -> AsyncIterator[AnyRunnable]:
            await self.open()
            async with opener(config) as runnable:
                yield self._with_store(runnable)

        def open_for_run(config: RunnableConfig) -> AbstractAsyncContextManager[AnyRunnable]:
            return opened(config)

        return replace(agent, _open=open_for_run)

    def _with_store(self, runnable: AnyRunnable) -> AnyRunnable:
        if isinstance(runnable, RunnableBinding):
            return runnable.model_copy(update={"bound": self._with_store(runnable.bound)})
        if not isinstance(runnable, Pregel) or runnable.store is not None:
            return runnable
        graph = self._graphs.get(runnable)
        if graph is None:
            graph = self._graphs[runnable] = runnable.copy({"store": self._store})
        return graph

    # -- one item ------------------------------------------------------------------------------------------

    async def put(self, namespace: Namespace, key: str, value: Json, *, ttl: float | None, index: Any = None) -> None:
        """Keep an item, for `ttl` minutes if that is given. Raises `RequestError`."""
        store = await self.opened()
        _check(namespace)
        if ttl is not None and not store.supports_ttl:
            raise UnsupportedError("'ttl' needs a store that outlives the server: this one is in memory.", param="ttl")
        await store.aput(namespace, key, value, index, ttl=ttl)

    async def get(self, namespace: Namespace, key: str, *, refresh_ttl: bool | None = None) -> Json | None:
        """An item as JSON; None if there is none."""
        found = await (await self.opened()).aget(namespace, key, refresh_ttl=refresh_ttl)
        return None if found is None else to_jsonable(found.dict())

    async def delete(self, namespace: Namespace, key: str) -> None:
        """Let an item go, if it is there."""
        await (await self.opened()).adelete(namespace, key)

    async def search(
        self, prefix: Namespace, *, filters: Json | None, limit: int, offset: int, refresh_ttl: bool | None
    ) -> list[Json]:
        """The items below a namespace whose values have these fields."""
        store = await self.opened()
        found = await store.asearch(prefix, filter=filters, limit=limit, offset=offset, refresh_ttl=refresh_ttl)
        return [to_jsonable(each.dict()) for each in found]

    async def namespaces(
        self,
        *,
        prefix: NamespacePath | None,
        suffix: NamespacePath | None,
        max_depth: int | None,
        limit: int,
        offset: int,
    ) -> list[list[str]]:
        """Namespaces that have items; `*` in a prefix or suffix stands for any label."""
        store = await self.opened()
        found = await store.alist_namespaces(
            prefix=prefix, suffix=suffix, max_depth=max_depth, limit=limit, offset=offset
        )
        return [list(each) for each in found]


def _check(namespace: Namespace) -> None:
    """What LangGraph's stores take (`langgraph.store.base`): labels without periods, the first not its own."""
    if not namespace or any(not label or "." in label for label in namespace) or namespace[0] == "langgraph":
        message = "'namespace' must have labels that are not empty and hold no periods, the first not 'langgraph'."
        raise RequestError(message, param="namespace")


@asynccontextmanager
async def open_items(url: str) -> AsyncIterator[BaseStore]:
    """The store at `memory`, `sqlite:///path` or `postgresql://...`. Its tables are made."""
    if url.startswith("sqlite:///"):
        from langgraph.store.sqlite.aio import AsyncSqliteStore

        path = Path(url.removeprefix("sqlite:///"))
        path.parent.mkdir(parents=True, exist_ok=True)
        async with AsyncSqliteStore.from_conn_string(str(path), ttl=_TTL) as sqlite:
            await sqlite.setup()
            await sqlite.start_ttl_sweeper()
            yield sqlite
            await sqlite.stop_ttl_sweeper()
    elif url.startswith("postgres"):
        from langgraph.store.postgres.aio import AsyncPostgresStore  # an extra

        pool: Any = {"min_size": 1, "max_size": 5}
        async with AsyncPostgresStore.from_conn_string(url, pool_config=pool, ttl=_TTL) as postgres:
            await postgres.setup()
            await postgres.start_ttl_sweeper()
            yield postgres
            await postgres.stop_ttl_sweeper()
    else:
        yield InMemoryStore()
