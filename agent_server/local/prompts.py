"""How a model too small to choose tools by itself is asked to choose them: one narrow question after the other.

First the topic of the message, under a grammar that allows nothing but known topics, one or none of them a tool's;
then the tool's arguments, under its own JSON schema. Every token of both comes from the model. Examples make the
questions clear to it: those of a tool are in its metadata (`{"topic": ..., "examples": [(question, arguments),
...]}`; a tool without them stands for itself by its description), those of other topics are here.
"""

from __future__ import annotations

import json
import random
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

Chat = list[dict[str, str]]
_OTHER = (
    ("Hello!", "greeting"),
    ("Tell me a joke.", "humor"),
    ("Who wrote Hamlet?", "literature"),
    ("What can you do?", "small talk"),
    ("Write a poem about rain.", "writing"),
    ("What is a dog?", "animals"),
    ("Thank you.", "small talk"),
    ("What is the capital of Italy?", "geography"),
    ("Why do cats sleep so much?", "animals"),
    ("Translate good night into Spanish.", "languages"),
)
_ANSWERS = (
    ("What is the weather in Lima?", "rain, 18 degrees", "In Lima it rains, at 18 degrees."),
    ("How many people live in Oslo?", "717,710 people", "717,710 people live in Oslo."),
    ("What is 12 times 7?", "12 * 7 = 84", "12 times 7 is 84."),
    ("Is the shop open?", "closed until 9:00 on Monday", "No, the shop is closed until 9:00 on Monday."),
    (
        "time in Cairo",
        "In Cairo it is 09:17 on Monday, 5 January 2026",
        "In Cairo it is 09:17 on Monday, 5 January 2026.",
    ),
    (
        "What day is it in Vienna?",
        "In Vienna it is 08:05 on Sunday, 1 March 2026",
        "In Vienna it is Sunday, 1 March 2026.",
    ),
    (
        "What time is it in Quito?",
        "In Quito it is 20:40 on Friday, 3 April 2026",
        "In Quito it is 20:40 on Friday, 3 April 2026.",
    ),
)


@dataclass(frozen=True, slots=True)
class Tool:
    """A tool as the model is told of it."""

    name: str
    description: str
    schema: Mapping[str, Any]
    topic: str = ""
    examples: Sequence[tuple[str, Mapping[str, Any]]] = field(default=())


def topic(tools: Sequence[Tool], question: str) -> tuple[Chat, str, dict[str, Tool]]:
    """The question what a message is about, the grammar (GBNF) of its answer, and the tool of each tool's topic."""
    by_topic = {tool.topic or tool.name: tool for tool in tools}
    examples: list[tuple[str, str]] = []
    for name, tool in by_topic.items():
        examples += [(asked, name) for asked, _ in tool.examples] or [(tool.description, name)]
    examples += _OTHER
    random.Random(1).shuffle(examples)  # noqa: S311 - a fixed order; rows of one topic would draw the answer after them
    chat = [_said("system", "Name the topic of each message.")]
    for asked, name in examples:
        chat += [_said("user", asked), _said("assistant", name)]
    names = sorted({name for _, name in examples})
    grammar = "root ::= " + " | ".join(json.dumps(name) for name in names)
    return [*chat, _said("user", question)], grammar, by_topic


def arguments(tool: Tool, question: str) -> Chat:
    """The question for a tool's arguments."""
    chat = [_said("system", f"You call {tool.name}: {tool.description}.")]
    for asked, given in tool.examples:
        chat += [_said("user", asked), _said("assistant", json.dumps(given))]
    return [*chat, _said("user", question)]


def answer(question: str, outputs: Sequence[str]) -> Chat:
    """The question for an answer in words, once the tools have run."""
    chat = [_said("system", "Answer the question with the facts.")]
    for asked, facts, told in _ANSWERS:
        chat += [_said("user", f"{asked}\nFacts: {facts}"), _said("assistant", told)]
    return [*chat, _said("user", f"{question}\nFacts: {'; '.join(outputs)}")]


def _said(role: str, content: str) -> dict[str, str]:
    return {"role": role, "content": content}
