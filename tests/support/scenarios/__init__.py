"""Scripted agents by scenario name. Each factory makes a fresh agent with fresh models."""

from __future__ import annotations

from tests.support.scenarios.answers import ANSWERS
from tests.support.scenarios.base import Agent, Factory
from tests.support.scenarios.calls import CALLS
from tests.support.scenarios.graphs import GRAPHS
from tests.support.scenarios.runnables import RUNNABLES

SCENARIOS: dict[str, Factory] = {**ANSWERS, **CALLS, **GRAPHS, **RUNNABLES}

__all__ = ["ANSWERS", "CALLS", "GRAPHS", "RUNNABLES", "SCENARIOS", "Agent", "Factory"]
