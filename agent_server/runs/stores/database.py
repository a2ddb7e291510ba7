"""What a database must do to be a store: four verbs, and transactions as steps.

A transaction is a generator. It yields steps, gets back what each finds, and decides what comes next. Each database
takes the steps in its own way: SQLite all of them in one hop to its thread, Postgres one `await` after another.

    def rename(tenant: str, name: str) -> Steps[bool]:
        rows = yield Query("lock", {"tenant": tenant})
        ...
        return True

The SQL is in `queries/`: what is said alike in every dialect, and for each dialect what is not.
"""

from __future__ import annotations

import re
from collections.abc import Generator, Mapping, Sequence
from importlib.resources import files
from importlib.resources.abc import Traversable
from typing import Any, NamedTuple, Protocol, TypeAlias, TypeVar

from agent_server.graph.savers import Saver
from agent_server.runs.stores.port import RunRow, StoreError

T = TypeVar("T")
Row: TypeAlias = tuple[Any, ...]
Params: TypeAlias = Mapping[str, Any]


class Query(NamedTuple):
    """One statement; answered by a list of its rows."""

    name: str
    params: Params


class Each(NamedTuple):
    """One statement for each set of parameters, in their order; answered by a list of rows for each."""

    name: str
    params: Sequence[Params]


class Fill(NamedTuple):
    """Many rows into one table; answered by an empty list."""

    name: str
    rows: Sequence[Row]


Step: TypeAlias = Query | Each | Fill
Steps: TypeAlias = Generator[Step, list[Any], T]


class Database(Protocol):
    """A database with the tables of `migrations/`. Every failure of its driver is a `StoreError`."""

    async def open(self) -> None:
        """Connect and migrate."""
        ...

    async def aclose(self) -> None:
        """Close every connection."""
        ...

    async def checkpointer(self) -> Saver:
        """See `Store`."""
        ...

    async def read(self, query: Query) -> list[Row]:
        """The rows that are committed now. Waits for no writer."""
        ...

    async def write(self, steps: Steps[T]) -> T:
        """Take the steps in one transaction; it is committed when this returns. If it raises, or is cancelled, the
        transaction may still have been committed, as a connection may break just then."""
        ...


class Migration(NamedTuple):
    """One numbered file of `migrations/<dialect>/`."""

    version: int
    sql: str


_HERE = files("agent_server.runs.stores")
_NAMED = re.compile(r"^-- name: (\w+)\n(.*?)(?=^-- name: |\Z)", re.MULTILINE | re.DOTALL)


def queries(dialect: str) -> dict[str, str]:
    """Every named query as this dialect says it. `{run}` stands for the columns of a `RunRow`."""
    text = "".join(_text(_HERE / "queries" / f"{each}.sql") for each in ("common", dialect))
    return {
        name: sql.strip().replace("{run}", ", ".join(RunRow.__struct_fields__)) for name, sql in _NAMED.findall(text)
    }


def migrations(dialect: str) -> list[Migration]:
    """The migrations of a dialect, first to last."""
    found = [each for each in (_HERE / "migrations" / dialect).iterdir() if each.name.endswith(".sql")]
    return sorted(Migration(int(each.name.partition("_")[0]), _text(each)) for each in found)


def outstanding(known: Sequence[Migration], version: int) -> list[Migration]:
    """The migrations that tables of this version (0: there are none) still need. Raises `StoreError` for newer ones."""
    newest = known[-1].version
    if version > newest:
        raise StoreError(
            f"The store's tables are of version {version}, and this agent-server knows them up to {newest}. "
            "Use the newer agent-server that made them, or another store."
        )
    return [each for each in known if each.version > version]


def _text(file: Traversable) -> str:
    return file.read_text(encoding="utf-8")
