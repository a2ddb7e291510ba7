"""Each store, empty and open."""

from __future__ import annotations

from collections.abc import AsyncIterator
from pathlib import Path

import pytest

from agent_server.runs.stores.port import Store
from agent_server.runs.stores.url import open_store

DURABLE = ("sqlite", "postgres")


def _url(kind: str, request: pytest.FixtureRequest, tmp_path: Path) -> str:
    match kind:
        case "sqlite":
            return f"sqlite:///{tmp_path}/folder/runs.db"
        case "postgres":
            return str(request.getfixturevalue("postgres"))
    return kind


@pytest.fixture(params=DURABLE)
def url(request: pytest.FixtureRequest, tmp_path: Path) -> str:
    """The address of an empty store that outlives its process."""
    return _url(request.param, request, tmp_path)


@pytest.fixture(params=("memory", *DURABLE))
async def store(request: pytest.FixtureRequest, tmp_path: Path) -> AsyncIterator[Store]:
    """An empty store, open."""
    store = open_store(_url(request.param, request, tmp_path))
    await store.open()
    yield store
    await store.aclose()
