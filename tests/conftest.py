"""The flags of this test suite, and what its tests share in a session."""

from __future__ import annotations

import os

import pytest

from tests.support.postgres import postgres, postgres_server
from tests.support.stores import shared_postgres

__all__ = ["postgres", "postgres_server", "shared_postgres"]  # here alone: each module that had them would make its own

os.environ["AGENT_SERVER_TRACING"] = "false"  # a tracking store that one test uses is to be no other's


def pytest_addoption(parser: pytest.Parser) -> None:
    """`--update-golden` writes what the golden tests see instead of comparing it; review the diff."""
    parser.addoption("--update-golden", action="store_true", help="write the golden files anew")


@pytest.fixture
def update_golden(request: pytest.FixtureRequest) -> bool:
    """Whether golden files are written instead of read."""
    return bool(request.config.getoption("--update-golden"))
