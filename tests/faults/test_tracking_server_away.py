"""A tracking server that hangs, refuses or dies is nothing that a client could notice."""

from __future__ import annotations

import os
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import httpx
import pytest

from agent_server.app import create_app
from agent_server.settings import Settings
from agent_server.tracing.exporter import Counts
from tests.support.scripted import SCENARIOS, Gate, gated_text, long_answer
from tests.support.serve import running
from tests.support.traced import PATIENCE, QUIET, TIMEOUT, MlflowClient, root, scenario, sqlite_store, tracing
from tests.support.wire import Wire

pytestmark = TIMEOUT
ROOT = Path(__file__).parents[2]
SOON, LATE = 30.0, 600.0
"""Seconds: far more than a scripted answer takes, and how long MLflow is made to wait for a server."""


@contextmanager
def served(tracking_uri: str, agents: dict[str, Any], **settings: Any) -> Iterator[tuple[str, Counts]]:
    """A server that traces, and what became of its traces."""
    with pytest.MonkeyPatch.context() as patch:
        for name, value in {
            **QUIET,
            "MLFLOW_TRACKING_URI": tracking_uri,
            "MLFLOW_HTTP_REQUEST_MAX_RETRIES": "0",
            "MLFLOW_HTTP_REQUEST_TIMEOUT": str(int(LATE)),
        }.items():
            patch.setenv(name, value)
        app = create_app(agents, Settings(tracing=True, **settings))
        with running(app, 2 * PATIENCE) as url:
            yield url, app.state.tracer.exporter.counts


def ask_all(url: str) -> None:
    """Several clients, streaming and not; each is answered soon and in full."""
    with httpx.Client(base_url=url, timeout=SOON) as client, ThreadPoolExecutor(8) as pool:

        def ask(number: int) -> str:
            body = scenario("one_tool", stream=bool(number % 2))
            return client.post("/responses", json=body, headers={"x-mlflow-return-trace-id": "true"}).text

        assert all('"trace_id":"tr-' in said and "It is sunny." in said for said in pool.map(ask, range(24)))


@pytest.fixture
def silent() -> Iterator[str]:
    """The address of a server that takes connections and never says a word."""
    with socket.create_server(("127.0.0.1", 0), backlog=64) as listener:
        yield f"http://127.0.0.1:{listener.getsockname()[1]}"


def test_a_tracking_server_that_hangs_changes_nothing_and_holds_up_no_shutdown(silent: str) -> None:
    with served(silent, SCENARIOS, trace_flush_seconds=0.5) as (url, counts):
        ask_all(url)
        feedback = {"trace_id": f"tr-{'1' * 32}", "value": True}
        with httpx.Client(base_url=url, timeout=PATIENCE) as client:
            assert client.post("/feedback", json=feedback).status_code == 503
            answer = client.post("/responses", json=scenario("one_tool", databricks_options={"return_trace": True}))
            assert answer.json()["status"] == "completed"
            assert "databricks_output" not in answer.json()
        ask_all(url)
        ending = time.monotonic()
    assert time.monotonic() - ending < SOON
    assert (counts.exported, counts.failed + counts.dropped) == (0, 49)


def test_a_tracking_server_that_is_not_there_changes_nothing_and_every_loss_is_counted() -> None:
    with socket.create_server(("127.0.0.1", 0)) as listener:
        port = listener.getsockname()[1]
    with served(f"http://127.0.0.1:{port}", SCENARIOS, trace_flush_seconds=PATIENCE) as (url, counts):
        ask_all(url)
        with httpx.Client(base_url=url, timeout=PATIENCE) as client:
            feedback = {"trace_id": f"tr-{'1' * 32}", "value": True}
            refused = client.post("/feedback", json=feedback)
            assert (refused.status_code, refused.json()["error"]["code"]) == (503, "overloaded")
    assert (counts.exported, counts.failed, counts.dropped) == (0, 24, 0)


def test_an_exporter_that_is_killed_takes_no_more_than_its_traces_along(tmp_path: Path) -> None:
    others = children()
    with served(sqlite_store(tmp_path), SCENARIOS, trace_flush_seconds=PATIENCE) as (url, counts):
        exporter = started(others)
        os.kill(exporter, signal.SIGSTOP)  # what it is sent is in the pipe when it is killed
        ask_all(url)
        os.kill(exporter, signal.SIGKILL)
        ask_all(url)
    assert counts.exported + counts.failed + counts.dropped == 48
    assert counts.dropped


def started(others: set[int]) -> int:
    """The exporter process that is not one of the others, as soon as it runs."""
    late = time.monotonic() + PATIENCE
    while time.monotonic() < late:
        if found := children() - others:
            return found.pop()
    raise AssertionError("no exporter was started")


def children() -> set[int]:
    """The exporter processes of this process."""
    tasks = Path("/proc/self/task").iterdir()
    pids = [pid for task in tasks for pid in _read(task / "children").split()]
    return {int(pid) for pid in pids if b"agent_server.tracing.process" in _read(Path(f"/proc/{pid.decode()}/cmdline"))}


def _read(path: Path) -> bytes:
    """Nothing, where the thread or the process has ended meanwhile."""
    try:
        return path.read_bytes()
    except (FileNotFoundError, ProcessLookupError):
        return b""


def test_of_fifty_runs_at_once_each_leaves_a_trace_and_none_is_in_progress_though_every_other_client_leaves(
    tmp_path: Path,
) -> None:
    uri, gate = sqlite_store(tmp_path), Gate()
    agents = {"long": long_answer(200), "gated": gated_text(["Never "], gate, ["more"])}

    def stay(url: str) -> None:
        body = {"model": "long", "input": "hi", "stream": True}
        assert httpx.post(f"{url}/responses", json=body, timeout=PATIENCE).text.endswith("data: [DONE]\n\n")

    def leave(url: str) -> None:
        with Wire(url) as wire:
            wire.post("/responses", {"model": "gated", "input": "hi", "stream": True})
            wire.read_until(b'"delta":"Never "')

    with tracing(agents, uri) as server, ThreadPoolExecutor(50) as pool:
        list(pool.map(lambda number: (leave if number % 2 else stay)(server.url), range(50)))
    traces = MlflowClient(tracking_uri=uri).search_traces(locations=["0"], max_results=100)
    statuses = [trace.info.tags["agent_server.run_status"] for trace in traces]
    assert sorted(statuses) == ["cancelled"] * 25 + ["completed"] * 25
    assert {str(trace.info.state) for trace in traces} == {"OK", "ERROR"}
    assert all(span.trace_id == trace.info.trace_id for trace in traces for span in trace.data.spans)
    assert all(len(trace.data.spans) == 4 for trace in traces)


AGENT = """
from tests.support.scripted import Gate, gated_text

agent = gated_text(["Never "], Gate(), ["more"])
"""


def test_a_run_that_the_servers_end_cuts_off_is_traced_as_cancelled(tmp_path: Path) -> None:
    (tmp_path / "never.py").write_text(AGENT)
    uri = sqlite_store(tmp_path)
    settings = {"TRACING": "true", "TRACE_FLUSH_SECONDS": str(PATIENCE), "SHUTDOWN_GRACE_SECONDS": "0"}
    process = subprocess.Popen(
        [sys.executable, "-m", "agent_server", "serve", str(tmp_path / "never.py"), "--port", "0"],
        env={
            **os.environ,
            **QUIET,
            **{f"AGENT_SERVER_{name}": value for name, value in settings.items()},
            "MLFLOW_TRACKING_URI": uri,
            "PYTHONPATH": str(ROOT),
        },
        stdout=subprocess.PIPE,
        text=True,
    )
    assert process.stdout is not None
    with process.stdout, Wire(process.stdout.readline().split()[3]) as wire:
        wire.post("/responses", {"input": "hi", "stream": True})
        wire.read_until(b'"delta":"Never "')
        process.terminate()
        assert b'"status":"cancelled"' in wire.read_to_end()
        assert process.wait(PATIENCE) == 0
    (trace,) = MlflowClient(tracking_uri=uri).search_traces(locations=["0"])
    assert trace.info.tags["agent_server.run_status"] == "cancelled"
    assert root(trace).status.description == "cancelled: shutdown"
