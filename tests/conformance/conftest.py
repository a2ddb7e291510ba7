"""One server with every scenario, for all judges of a session."""

from __future__ import annotations

from collections.abc import Iterator

import pytest

from tests.conformance.node_judges import ready
from tests.support.scripted import SCENARIOS
from tests.support.serve import serving


@pytest.fixture(scope="session")
def base_url() -> Iterator[str]:
    """Base URL of a server whose models are the scenarios."""
    with serving(SCENARIOS) as url:
        yield url


@pytest.fixture(scope="session")
def node_url(base_url: str) -> str:
    """The same server, for JavaScript clients, which are installed first where need be."""
    ready()
    return base_url
