"""Where messages hide in what nodes, tools and Runnables return."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any

import pytest
from langchain_core.messages import AIMessage, BaseMessage, HumanMessage, ToolMessage
from langgraph.types import Command, Send
from pydantic import BaseModel

from agent_server.graph.outputs import messages_in, plain_answer, tool_message_in

HI, ANSWER = HumanMessage("Hi"), AIMessage("Hello")
FOUND, OTHER = ToolMessage("found", tool_call_id="call_1"), ToolMessage("other", tool_call_id="call_2")


@dataclass
class DataState:
    """A state as a dataclass."""

    messages: list[BaseMessage] = field(default_factory=list)
    draft: BaseMessage | None = None


class ModelState(BaseModel):
    """A state as a pydantic model."""

    messages: list[Any] = []
    draft: Any = None


PLACES: dict[str, tuple[Any, list[BaseMessage]]] = {
    "a message": (ANSWER, [ANSWER]),
    "a list": ([HI, ANSWER], [HI, ANSWER]),
    "a tuple": ((HI, ANSWER), [HI, ANSWER]),
    "a state": ({"messages": [HI, ANSWER]}, [HI, ANSWER]),
    "any key of a state": ({"a": [HI], "b": ANSWER, "c": (HI,)}, [HI, ANSWER, HI]),
    "a dataclass": (DataState([HI], ANSWER), [HI, ANSWER]),
    "a pydantic model": (ModelState(messages=[HI], draft=ANSWER), [HI, ANSWER]),
    "a command": (Command(update={"messages": [ANSWER]}), [ANSWER]),
    "a command without an update": (Command(goto="x"), []),
    "a command whose update is a list of pairs": (Command(update=[("messages", [ANSWER])]), [ANSWER]),
    "commands": ([Command(update={"messages": [HI]}), Command(update={"messages": ANSWER})], [HI, ANSWER]),
    "sends, which go to another node": ([Send("x", {"messages": [HI]})], []),
    "deeper, which no reducer of LangGraph's reads": ({"a": {"messages": [HI]}}, []),
    "a list of states": ([{"messages": [HI]}], []),
    "text": ("text", []),
    "bytes": (b"bytes", []),
    "nothing": (None, []),
    "the class itself": (DataState, []),
    "a number": (3, []),
}


@pytest.mark.parametrize("place", PLACES)
def test_messages_are_found(place: str) -> None:
    value, expected = PLACES[place]
    assert list(messages_in(value)) == expected


@pytest.mark.parametrize(
    ("output", "expected"),
    [
        (FOUND, FOUND),
        (OTHER, OTHER),
        ([OTHER, FOUND], FOUND),
        ([OTHER, OTHER], None),
        (Command(update={"messages": [ANSWER, FOUND]}), FOUND),
        ("text", None),
        (None, None),
    ],
)
def test_the_tool_message_of_a_call_is_its_own_or_the_only_one(output: Any, expected: ToolMessage | None) -> None:
    assert tool_message_in(output, "call_1") is expected


ANSWERS: dict[str, tuple[Any, Any]] = {
    "text": ("Hello", "Hello"),
    "a message": (ANSWER, ANSWER),
    "a message of any role": (HI, HI),
    "the last answer of a state": ({"messages": [AIMessage("old"), HI, ANSWER]}, ANSWER),
    "a state without an answer": ({"messages": [HI], "output": "not meant"}, None),
    "the last answer of a list": ([HI, ANSWER, FOUND], ANSWER),
    "an output": ({"output": "a", "text": "b"}, "a"),
    "an answer": ({"answer": "a"}, "a"),
    "a text": ({"text": "a"}, "a"),
    "any other object": ({"score": 1}, {"score": 1}),
    "a list": ([1, 2], [1, 2]),
    "nothing": (None, None),
}


@pytest.mark.parametrize("name", ANSWERS)
def test_the_answer_of_a_runnable_is_found(name: str) -> None:
    output, expected = ANSWERS[name]
    assert plain_answer(output) == expected
