"""The stores that tests of clients run on: SQLite, and where a test says so every one."""

from __future__ import annotations

from collections.abc import Iterator

import pytest

from tests.support.postgres import schema

__all__ = ["KINDS", "address", "on_every_store", "own_store", "shared_postgres", "store"]

KINDS = ("memory", "sqlite", "postgres")

on_every_store = pytest.mark.parametrize("store", KINDS, indirect=True)
"""Marks the tests of a file that stand for all of it; the kit in `conformance/stores` says the rest of a store."""


@pytest.fixture(scope="session")
def shared_postgres(postgres_server: str) -> Iterator[str]:
    """The address of a schema for all: to make its tables takes a second."""
    with schema(postgres_server) as url:
        yield url


def address(kind: str, request: pytest.FixtureRequest, factory: pytest.TempPathFactory) -> str:
    """The address of a store that nobody minds: an empty one, or what is shared."""
    if kind == "postgres":
        return str(request.getfixturevalue("shared_postgres"))
    return "memory" if kind == "memory" else f"sqlite:///{factory.mktemp('store')}/runs.db"


@pytest.fixture(scope="module")
def store(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> str:
    """One for a whole file."""
    return address(getattr(request, "param", "sqlite"), request, tmp_path_factory)


@pytest.fixture(name="store")
def own_store(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> str:
    """One for each test."""
    return address(getattr(request, "param", "sqlite"), request, tmp_path_factory)
