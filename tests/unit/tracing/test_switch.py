"""When runs are traced, and what a server that does not trace says to who asks for traces."""

from __future__ import annotations

import httpx
import pytest

from agent_server import app
from agent_server.app import create_app
from agent_server.errors import TargetError
from agent_server.settings import Settings
from tests.support.scripted import SCENARIOS
from tests.support.serve import serving

AGENTS = {"agent": SCENARIOS["plain_text"]}


@pytest.mark.parametrize(
    ("uri", "tracing", "traced"),
    [
        (None, None, False),
        ("sqlite:///traces.db", None, True),
        ("sqlite:///traces.db", False, False),
        (None, True, True),
    ],
)
def test_runs_are_traced_where_a_tracking_server_is_named_unless_the_setting_says_otherwise(
    monkeypatch: pytest.MonkeyPatch, uri: str | None, tracing: bool | None, traced: bool
) -> None:
    monkeypatch.delenv("MLFLOW_TRACKING_URI", raising=False)
    if uri is not None:
        monkeypatch.setenv("MLFLOW_TRACKING_URI", uri)
    assert (create_app(AGENTS, Settings(tracing=tracing)).state.tracer is not None) is traced


def test_without_mlflow_a_server_refuses_to_start_only_if_it_is_told_to_trace(
    monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    monkeypatch.setattr(app, "find_spec", lambda name: None)
    monkeypatch.setenv("MLFLOW_TRACKING_URI", "sqlite:///traces.db")
    with pytest.raises(TargetError, match="pip install"):
        create_app(AGENTS, Settings(tracing=True))
    assert create_app(AGENTS, Settings(tracing=None)).state.tracer is None
    assert "not traced" in caplog.text


@pytest.mark.parametrize("path", ["/responses", "/invocations"])
def test_a_server_that_does_not_trace_answers_who_asks_for_a_trace_without_one(path: str) -> None:
    body = {"input": "hi", "databricks_options": {"return_trace": True}}
    with serving(AGENTS, Settings(tracing=False)) as url, httpx.Client(base_url=url) as client:
        client.headers["x-mlflow-return-trace-id"] = "true"
        answer = client.post(path, json=body).json()
        assert answer["metadata"] == {}
        assert "databricks_output" not in answer
        streamed = client.post(path, json={**body, "stream": True}).text
        assert "trace_id" not in streamed
        assert client.get("/agent/info").json()["traces"] is None
