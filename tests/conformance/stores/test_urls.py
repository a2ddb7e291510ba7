"""From an address to a store."""

from __future__ import annotations

import sys
from pathlib import Path

import pytest

from agent_server.errors import TargetError
from agent_server.runs.stores.database import migrations, queries
from agent_server.runs.stores.memory import MemoryStore
from agent_server.runs.stores.url import open_store


def test_memory_is_the_store_in_memory() -> None:
    assert isinstance(open_store("memory"), MemoryStore)


async def test_three_slashes_lead_into_this_folder_and_four_to_the_root(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    for url in ("sqlite:///.agent_server/runs.db", f"sqlite:///{tmp_path}/elsewhere/runs.db"):
        store = open_store(url)
        await store.open()
        await store.aclose()
    assert (tmp_path / ".agent_server" / "runs.db").exists()
    assert (tmp_path / "elsewhere" / "runs.db").exists()


@pytest.mark.parametrize(
    ("url", "says"),
    [
        ("sqlite://", "names its file"),
        ("sqlite:///", "names its file"),
        ("sqlite://runs.db", "names its file"),
        ("sqlite:runs.db", "names its file"),
        ("sqlite:///folder/", "names its file"),
        ("sqlite:///:memory:", "is called: memory"),
        ("memory:", "is none of them"),
        ("", "is none of them"),
        ("runs.db", "is none of them"),
        ("mysql://me:secret@host/db", "'mysql' is none of them"),
        ("me:secret@host", "is none of them"),
        ("postgresql://me:secret@host:port:5/db?x", "not one that Postgres knows"),
        ("postgresql://me:secret@host/db?secret=1", "not one that Postgres knows"),
    ],
)
def test_what_is_no_store_is_refused_and_told_what_is(url: str, says: str) -> None:
    with pytest.raises(TargetError) as caught:
        open_store(url)
    assert says in caught.value.message
    assert "secret" not in caught.value.message


def test_postgres_without_its_extra_is_told_which(monkeypatch: pytest.MonkeyPatch) -> None:
    for name in ("psycopg", "psycopg_pool", "agent_server.runs.stores.postgres"):
        monkeypatch.setitem(sys.modules, name, None)
    with pytest.raises(TargetError, match=r"agent-server\[postgres\]"):
        open_store("postgresql://host/db")


def test_both_dialects_say_the_same_things_and_have_the_same_versions() -> None:
    assert queries("sqlite").keys() == queries("postgres").keys()
    versions = [each.version for each in migrations("sqlite")]
    assert versions == [each.version for each in migrations("postgres")] == list(range(1, len(versions) + 1))
