"""Scripted models and agents: the one module a test imports."""

from __future__ import annotations

from collections.abc import Sequence

from langchain.agents import create_agent

from tests.support import chunks
from tests.support.gates import Calls, Gate, Opens
from tests.support.models import SECRET, Call, ModelError, ScriptedChatModel, SilentChatModel, Step, Turn
from tests.support.scenarios import SCENARIOS, Agent, Factory


def gated_text(before: Sequence[str], gate: Gate, after: Sequence[str]) -> Agent:
    """An agent that stops in the middle of its answer until the gate opens."""
    steps: list[Step] = [*chunks.text(*before), gate, *chunks.text(*after), *chunks.finish()]
    return create_agent(ScriptedChatModel(turns=[steps]), tools=[])


def long_answer(tokens: int) -> Agent:
    """An agent that answers with so many chunks."""
    steps = [*chunks.text(*(f"tok{i} " for i in range(tokens))), *chunks.finish()]
    return create_agent(ScriptedChatModel(turns=[steps]), tools=[])


__all__ = [
    "SCENARIOS",
    "SECRET",
    "Agent",
    "Call",
    "Calls",
    "Factory",
    "Gate",
    "ModelError",
    "Opens",
    "ScriptedChatModel",
    "SilentChatModel",
    "Step",
    "Turn",
    "chunks",
    "gated_text",
    "long_answer",
]
