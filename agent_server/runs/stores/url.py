"""From what the operator says, `--store` or AGENT_SERVER_STORE, to a store."""

from __future__ import annotations

from pathlib import Path

from agent_server.errors import TargetError
from agent_server.runs.stores.memory import MemoryStore
from agent_server.runs.stores.port import Store

FORMS = "memory, sqlite:///path/to/file or postgresql://user@host/database"


def open_store(url: str) -> Store:
    """A store that is still to be opened: `memory`, `sqlite:///path` (four slashes for an absolute one),
    `postgresql://...`.

    Raises `TargetError` for anything else, and where the extra for it is missing. What it says holds no password.
    """
    scheme, _, rest = url.partition(":")
    match scheme:
        case "memory" if url == "memory":
            return MemoryStore()
        case "sqlite":
            return _sqlite(rest)
        case "postgresql" | "postgres":
            return _postgres(url)
    raise TargetError(f"A store is {FORMS}; {scheme!r} is none of them.")


async def migrate_store(url: str) -> None:
    """Make or update the tables of a store. Raises what `open_store` and `Store.open` raise."""
    store = open_store(url)
    await store.open()
    await store.aclose()


def _sqlite(rest: str) -> Store:
    path = rest.removeprefix("///")
    if path == rest or not path or path.endswith("/"):
        raise TargetError(
            "A store in SQLite names its file: sqlite:///path/to/file (sqlite:////path for an absolute one)."
        )
    if path == ":memory:":
        raise TargetError("SQLite's own memory cannot be shared between threads; the store in memory is called: memory")

    from agent_server.runs.stores.sql import SqlStore
    from agent_server.runs.stores.sqlite import SqliteDatabase

    return SqlStore(SqliteDatabase(Path(path)))


def _postgres(url: str) -> Store:
    try:
        import psycopg

        from agent_server.runs.stores.postgres import PostgresDatabase
    except ImportError as error:
        raise TargetError("A store in Postgres needs an extra: pip install 'agent-server[postgres]'") from error

    from agent_server.runs.stores.sql import SqlStore

    try:
        psycopg.conninfo.conninfo_to_dict(url)
    except psycopg.ProgrammingError:
        raise TargetError(
            "The store's address is not one that Postgres knows: postgresql://user@host/database"
        ) from None
    return SqlStore(PostgresDatabase(url))
