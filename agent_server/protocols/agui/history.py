"""What a client's list of messages holds, against what its thread knows.

The server's thread is the authority on what was said. Of the messages that a client sends, only what comes after the
last one that the thread knows is new, and of that only the user's own words and the results of the client's own tools
are taken.
"""

from __future__ import annotations

import hashlib
import re
from collections.abc import Collection, Mapping
from dataclasses import dataclass, field
from typing import Any

import msgspec

from agent_server.graph.inputs import Answer, Message, Text, Turn
from agent_server.protocols.agui.input import AnyMessage, AssistantMessage, RunInput, ToolMessage, UserMessage, logger
from agent_server.protocols.agui.messages import Seen
from agent_server.protocols.agui.parts import output_of, parts_of

Json = dict[str, Any]

_STATE_ID = re.compile(r"[\w.:-]{1,128}", re.ASCII)  # what the graph keeps as a message's id


def state_id(message_id: str) -> str:
    """The id that a client's message has in the agent's state."""
    if _STATE_ID.fullmatch(message_id):
        return message_id
    return f"agui-{hashlib.sha256(message_id.encode()).hexdigest()[:32]}"


def seen_of(asked: RunInput) -> Seen:
    """What the client has, as its messages show it."""
    results: dict[str, tuple[str, ...]] = {}
    calls: dict[str, tuple[str, ...]] = {}
    owners: dict[str, str] = {}
    asides: list[tuple[str, Json]] = []
    before = ""
    for message in asked.messages:
        if isinstance(message, ToolMessage):
            results[message.tool_call_id] = (*results.get(message.tool_call_id, ()), message.id)
        if isinstance(message, AssistantMessage) and message.tool_calls:
            calls[message.id] = tuple(call.id for call in message.tool_calls)
        if isinstance(message, AssistantMessage | ToolMessage) and message.subagent_run_id:
            owners[message.id] = message.subagent_run_id
            asides.append((before, _plain(message)))
        before = message.id
    names = {state_id(each.id): each.id for each in asked.messages if state_id(each.id) != each.id}
    ids = tuple(dict.fromkeys(each.id for each in asked.messages))
    return Seen(ids, names, results, calls, owners, tuple(asides))


def _plain(message: AnyMessage) -> Json:
    made: Json = msgspec.to_builtins(message)
    return {key: value for key, value in made.items() if value is not None}


@dataclass
class News:
    """What is new of a request.

    `again` is the user's last message where the thread knows it: it is to be answered once more. `outputs` are the
    results of tools that were asked for, by call. `unknown` are messages that the agent is said to have said.
    """

    said: list[tuple[int, UserMessage]] = field(default_factory=list)
    again: UserMessage | None = None
    outputs: dict[str, Any] = field(default_factory=dict)
    unknown: dict[str, AssistantMessage] = field(default_factory=dict)

    def turns(self, order: RunInput, texts: Mapping[str, str]) -> list[Turn]:
        """The new turns, with those of the agent's whose `texts` are known to be its own."""
        places = {message.id: place for place, message in self.said}
        turns: list[Turn] = []
        for message in order.messages:
            if isinstance(message, UserMessage) and message.id in places:
                turns.append(turn_of(message, places[message.id]))
            elif message.id in self.unknown and texts.get(message.id):
                turns.append(Answer((Text(texts[message.id]),), id=state_id(message.id)))
        return turns


def turn_of(message: UserMessage, place: int) -> Message:
    """A user's message as a turn. Raises `RequestError`."""
    return Message("user", parts_of(message.content, f"messages[{place}].content"), state_id(message.id))


def news_of(asked: RunInput, known: Collection[str], wanted: Mapping[str, str]) -> News:
    """What of the client's messages is new.

    `known` are the ids of the messages in the state; `wanted` maps the wire ids of calls that wait for the client to
    the calls' own. What is dropped is told in the log.
    """
    news = News()
    told = [place for place, each in enumerate(asked.messages) if _is_said(each) and state_id(each.id) in known]
    last = told[-1] if told else -1
    dropped: list[str] = []
    for place, message in enumerate(asked.messages):
        if isinstance(message, ToolMessage):
            if message.tool_call_id in wanted:
                content = message.content or message.error or ""
                news.outputs[wanted[message.tool_call_id]] = output_of(content, f"messages[{place}].content")
            elif place > last:
                dropped.append(f"messages[{place}] ({_role(message)})")
        elif place <= last or not _is_said(message):
            if _role(message) in ("system", "developer"):
                dropped.append(f"messages[{place}] ({_role(message)})")
        elif isinstance(message, UserMessage):
            news.said.append((place, message))
        elif isinstance(message, AssistantMessage):
            news.unknown[message.id] = message
    if dropped:
        logger.warning("messages that are not a client's to send are dropped: %s", ", ".join(dropped[:10]))
    spoken = [each for each in asked.messages if _is_said(each)]
    if not news.said and spoken and isinstance(spoken[-1], UserMessage):
        news.again = spoken[-1]
    return news


def _role(message: AnyMessage) -> str:
    return str(type(message).__struct_config__.tag)


def _is_said(message: AnyMessage) -> bool:
    """Whether it is a part of the conversation between the user and the agent itself."""
    return isinstance(message, UserMessage | AssistantMessage) and not message.subagent_run_id
