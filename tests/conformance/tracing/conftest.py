"""One tracking server and one agent server for all judges of traces."""

from __future__ import annotations

from collections.abc import Iterator

import pytest

from tests.support.scripted import SCENARIOS, Gate, gated_text
from tests.support.traced import Traced, tracing, tracking_server


@pytest.fixture(scope="package")
def tracking_uri(tmp_path_factory: pytest.TempPathFactory) -> Iterator[str]:
    """MLflow's own server."""
    with tracking_server(tmp_path_factory.mktemp("mlflow")) as uri:
        yield uri


@pytest.fixture(scope="package")
def traced(tracking_uri: str) -> Iterator[Traced]:
    """A server of all scenarios, and of an agent that never gets far ("gated"). Its peers are trusted proxies.

    Its exporter has started: feedback is taken.
    """
    agents = {**SCENARIOS, "gated": gated_text(["Never "], Gate(), ["more"])}
    with tracing(agents, tracking_uri, trusted_proxies="127.0.0.0/8") as server:
        server.trace_of(server.ask(model="plain_text"))
        yield server
