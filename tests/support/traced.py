"""A tracking server with SQLite behind it, and an agent server that traces to it."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import tempfile
import threading
import time
import warnings
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from functools import cache
from pathlib import Path
from typing import Any

import httpx
import pytest

from agent_server.settings import Settings
from tests.conformance.expected import QUESTION, REQUESTS
from tests.support.serve import serving

with warnings.catch_warnings():
    warnings.simplefilter("ignore")  # mlflow's own imports warn
    import mlflow.store.tracking.sqlalchemy_store  # noqa: F401 - warns when it is first imported
    from mlflow import MlflowClient
    from mlflow.entities import Span, Trace

PATIENCE = 240.0
"""Seconds: on a busy machine an exporter has what other processes leave."""
TIMEOUT = pytest.mark.timeout(300)
"""Of tests that wait for one."""
QUIET = {
    "MLFLOW_DISABLE_TELEMETRY": "true",
    "MLFLOW_MODEL_CATALOG_URI": "",
    "MLFLOW_SERVER_ENABLE_JOB_EXECUTION": "false",
}
"""No process is to look for anybody but the tests."""


@cache
def _empty_store() -> bytes:
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "mlflow.db"
        MlflowClient(tracking_uri=f"sqlite:///{path}").search_experiments()
        return path.read_bytes()


def sqlite_store(folder: Path) -> str:
    """A tracking store without a server. MLflow makes one in seconds, so it is made once and copied."""
    path = folder / "mlflow.db"
    path.write_bytes(_empty_store())
    return f"sqlite:///{path}"


@contextmanager
def tracking_server(folder: Path) -> Iterator[str]:
    """`mlflow server` on loopback; yields its address. It is ended with all its processes."""
    mlflow = Path(sys.executable).with_name("mlflow")
    store = ["--backend-store-uri", sqlite_store(folder), "--artifacts-destination", str(folder)]
    process = subprocess.Popen(
        [mlflow, "server", *store, "--host", "127.0.0.1", "--port", "0", "--workers", "1"],
        env={**os.environ, **QUIET},
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
        start_new_session=True,
    )
    assert process.stdout is not None
    try:
        said = ""
        for line in process.stdout:
            said += line
            if "running on http" in line:
                break
        else:
            raise AssertionError(f"the tracking server did not start: {said}")
        threading.Thread(target=process.stdout.read, daemon=True).start()
        yield line.split("running on ")[1].split()[0]
    finally:
        os.killpg(process.pid, signal.SIGKILL)
        process.wait()
        process.stdout.close()


class Traced:
    """An agent server that traces, and what its tracking server has of it."""

    def __init__(self, url: str, tracking_uri: str) -> None:
        self.url = url
        self.client = MlflowClient(tracking_uri=tracking_uri)
        self.http = httpx.Client(base_url=url, timeout=PATIENCE)

    def ask(self, path: str = "/v1/responses", **body: Any) -> dict[str, Any]:
        """A whole answer, with the id of its trace in its metadata."""
        answer = self.http.post(path, json={"input": "hi", **body}, headers={"x-mlflow-return-trace-id": "true"})
        assert answer.status_code == 200, answer.text
        response: dict[str, Any] = answer.json()
        return response

    def trace(self, trace_id: str) -> Trace:
        """A trace as the tracking server has it. Feedback is answered once the traces before it are there.

        It is asked again while the exporter starts, and while a run whose client has left is still ending.
        """
        late = time.monotonic() + PATIENCE
        while time.monotonic() < late:
            answer = self.http.post("/feedback", json={"trace_id": trace_id, "name": "seen", "value": True})
            if answer.status_code == 201:
                return self.client.get_trace(trace_id)
        raise AssertionError(f"no trace {trace_id}: {answer.text}")

    def trace_of(self, response: Mapping[str, Any]) -> Trace:
        """The trace of a response."""
        return self.trace(f"tr-{response['id'].removeprefix('resp_')}")


@contextmanager
def tracing(agents: Mapping[str, Any], tracking_uri: str, **settings: Any) -> Iterator[Traced]:
    """Serve agents, traced; at the end every trace is brought away."""
    with pytest.MonkeyPatch.context() as patch:
        for name, value in {**QUIET, "MLFLOW_TRACKING_URI": tracking_uri}.items():
            patch.setenv(name, value)
        settings = {"tracing": True, "trace_flush_seconds": PATIENCE, **settings}
        with serving(agents, Settings(**settings), 2 * PATIENCE) as url:
            traced = Traced(url, tracking_uri)
            yield traced
            traced.http.close()


def scenario(name: str, **more: Any) -> dict[str, Any]:
    """The request of a scenario."""
    return {"model": name, "input": QUESTION, **REQUESTS.get(name, {}), **more}


def tree(trace: Trace) -> list[tuple[str, str, str]]:
    """Name, type and the parent's name of each span, in order of their starts."""
    spans = sorted(trace.data.spans, key=lambda span: span.start_time_ns)
    names = {span.span_id: span.name for span in spans}
    return [(span.name, span.span_type, names.get(span.parent_id, "")) for span in spans]


def told(trace: Trace) -> list[list[Any]]:
    """Inputs and outputs of all spans but the run's own, in order of their starts."""
    spans = sorted(trace.data.spans, key=lambda span: span.start_time_ns)
    return [[span.inputs, span.outputs] for span in spans if span.span_type != "AGENT"]


def root(trace: Trace) -> Span:
    """The span that the server made for the run."""
    return next(span for span in trace.data.spans if span.span_type == "AGENT")
