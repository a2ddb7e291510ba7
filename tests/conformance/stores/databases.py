"""Stores by their address, and what is behind their backs."""

from __future__ import annotations

import sqlite3
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager, closing
from typing import Any

import psycopg

from agent_server.runs.stores.port import Store
from agent_server.runs.stores.url import open_store


@asynccontextmanager
async def opened(url: str) -> AsyncIterator[Store]:
    """The store at an address, while it is open."""
    store = open_store(url)
    await store.open()
    try:
        yield store
    finally:
        await store.aclose()


async def alter(url: str, statement: str) -> list[tuple[Any, ...]]:
    """Do something in the database of a store, and commit it."""
    if url.startswith("sqlite"):
        with closing(sqlite3.connect(url.removeprefix("sqlite:///"))) as connection, connection:
            return connection.execute(statement).fetchall()
    async with await psycopg.AsyncConnection.connect(url) as database:
        cursor = await database.execute(statement.encode())
        return await cursor.fetchall() if cursor.description else []
