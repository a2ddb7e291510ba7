"""Agents that note what they are given: one remembers by itself, the other is told everything each time."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from langchain.agents import create_agent
from langchain_core.messages import BaseMessage
from langchain_core.runnables import RunnableLambda

from tests.support import chunks
from tests.support.models import Call, ScriptedChatModel, Step


class Listening:
    """`heard` holds a list of "role: text" for each time an agent was asked. Every answer is "yes"."""

    def __init__(self, checkpointer: Any = None) -> None:
        self.heard: list[list[str]] = []
        model = ScriptedChatModel(turns=[self._answer])
        self.agents = {
            "graph": create_agent(model, tools=[], checkpointer=checkpointer),
            "function": RunnableLambda(self._function),
        }

    def _answer(self, call: Call) -> list[Step]:
        self._note(call.messages)
        return [*chunks.text("yes"), *chunks.finish()]

    def _function(self, given: Any) -> str:
        self._note(given["messages"] if isinstance(given, dict) else given)
        return "yes"

    def _note(self, messages: Sequence[BaseMessage]) -> None:
        self.heard.append([f"{message.type}: {message.text}" for message in messages])
