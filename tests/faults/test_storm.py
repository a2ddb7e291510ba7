"""Hundreds of clients that vanish together leave nothing in the server: no run, no task, no descriptor."""

from __future__ import annotations

import sys

import httpx
import pytest

from tests.benchmarks.storm import MANNERS, held, more_than, served, storm

STREAMS = 200
KIB_PER_STREAM = 120
"""The agent's own included, and room for what a process allocates once."""

pytestmark = pytest.mark.skipif(sys.platform != "linux", reason="reads /proc")


@pytest.mark.parametrize("store", ["memory", "sqlite"])
def test_streams_whose_clients_vanish_together_leave_nothing_behind(
    store: str, tmp_path_factory: pytest.TempPathFactory
) -> None:
    url = f"sqlite:///{tmp_path_factory.mktemp('store')}/runs.db" if store == "sqlite" else store
    with served(url, STREAMS) as (pid, port), httpx.Client(base_url=f"http://127.0.0.1:{port}", timeout=60) as http:
        storm(port, pid, http, 20, MANNERS[0], stored=True)  # starts threads, opens files
        start = held(http, "tidy")
        for manner in MANNERS:
            each, seconds = storm(port, pid, http, STREAMS, manner, stored=True)
            assert each < KIB_PER_STREAM
            assert seconds < 10
        assert not more_than(start, held(http, "tidy"))
