"""A store with faults: verbs that fail or wait while a test says so. Everything else is the store behind it."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any
from unittest.mock import patch

from agent_server import app as app_module
from agent_server.runs.stores.port import Store, StoreError
from agent_server.runs.stores.url import open_store
from tests.support.gates import Gate


class FaultyStore:
    """`failing` verbs raise `StoreError`, `unacknowledged` ones do so when they are done, `held` ones wait."""

    def __init__(self, store: Store) -> None:
        self._store = store
        self.failing: set[str] = set()
        self.unacknowledged: set[str] = set()
        self.held: dict[str, Gate] = {}
        self.failed: list[str] = []

    def go_away(self) -> None:
        """Let every verb fail."""
        self.failing = {name for name in dir(Store) if not name.startswith("_")} - {"open", "aclose"}

    def come_back(self) -> None:
        """No more faults."""
        self.failing, self.unacknowledged = set(), set()

    def __getattr__(self, verb: str) -> Any:
        real = getattr(self._store, verb)

        async def call(*args: Any, **kwargs: Any) -> Any:
            if verb in self.held:
                await self.held[verb].passed()
            if verb in self.failing:
                self._fail(verb)
            result = await real(*args, **kwargs)
            if verb in self.unacknowledged:
                self._fail(verb)
            return result

        return call

    def _fail(self, verb: str) -> None:
        self.failed.append(verb)
        raise StoreError("The store cannot be used now.")


@contextmanager
def faulty_stores(kind: type[FaultyStore] = FaultyStore) -> Iterator[list[FaultyStore]]:
    """The stores of all apps that are made in the block, in their order."""
    made: list[FaultyStore] = []

    def faulty(url: str) -> Any:
        made.append(kind(open_store(url)))
        return made[-1]

    with patch.object(app_module, "open_store", faulty):
        yield made
