"""An agent for a server process that is stopped in the middle of its sentence."""

from __future__ import annotations

from langchain.agents import create_agent
from langchain_core.messages import HumanMessage

from tests.support.gates import Gate
from tests.support.models import Call, Step
from tests.support.scripted import ScriptedChatModel, chunks


def _say(asked: Call) -> list[Step]:
    """Whoever asks it to wait waits for ever."""
    waits = any(isinstance(each, HumanMessage) and each.text == "wait" for each in asked.messages[-1:])
    rest: list[Step] = [Gate()] if waits else []
    return [*chunks.text("Half ", "a "), *rest, *chunks.text("sentence."), *chunks.finish()]


agent = create_agent(ScriptedChatModel(turns=[_say]), tools=[])
