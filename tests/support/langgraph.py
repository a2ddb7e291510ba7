"""LangGraph's streams of scripted conversations: played, encoded, and read as clients read them."""

from __future__ import annotations

import re
from collections.abc import Iterable, Sequence
from typing import Any

import orjson
from langchain_core.messages import AIMessageChunk

from agent_server.events import Event
from agent_server.protocols.langgraph.encoder_v1 import V1Encoder
from agent_server.protocols.langgraph.encoder_v2 import V2Encoder
from agent_server.protocols.langgraph.frames import FRAMING, Cursor, Frame
from agent_server.protocols.langgraph.subscription import CHANNELS, Subscription
from agent_server.runs.thread_log import Placed
from tests.conformance.expected import QUESTION
from tests.golden.conversations import CONVERSATIONS
from tests.support.play import Settled, play

RECORD = frozenset({"values", "updates", "tasks", "checkpoint_refs", "custom", "messages", "subgraphs", "errors"})
"""What a run of the second generation of clients records."""

MODES = ("values", "updates", "messages-tuple", "custom")
ABOUT = {"graph_id": "agent", "assistant_id": "fe096781-5601-53d2-b2f6-0d3403f7e9ca"}

_VERSIONS = re.compile(r',?"lc_versions":\{[^}]*\}')
_TIMES = re.compile(r'"timestamp":"\d{4}-[^"]*"')


async def played(name: str, record: Iterable[str] = RECORD) -> list[Event]:
    """The events of a conversation, with every id and time settled."""
    told = CONVERSATIONS[name]()
    request = {"input": QUESTION, **told.request}
    events = await play(name, told.target, request, record=record, cancel_at=told.cancel_at)
    return _Still().events(events)


class _Still(Settled):
    """Without what differs from day to day, or from one version of a library to the next."""

    def text(self, text: str) -> str:
        return _TIMES.sub('"timestamp":"2026-01-01T00:00:00+00:00"', _VERSIONS.sub("", super().text(text)))


def v1(
    events: Iterable[Event], modes: Sequence[str] = MODES, *, base: int = 0, after: Cursor | None = None
) -> list[Frame]:
    """The frames of the first generation."""
    encoder = V1Encoder(modes, subgraphs=True, base=lambda: base, about=ABOUT, after=after)
    return [frame for event in events for frame in encoder.feed(event)]


def v2(events: Iterable[Event], channels: Iterable[str] = CHANNELS, *, base: int = 0, **wishes: Any) -> list[Frame]:
    """The frames of the second generation."""
    encoder = V2Encoder(Subscription(frozenset(channels), **wishes))
    return [frame for place, event in enumerate(events, base) for frame in encoder.feed(Placed(place, event))]


def text(frames: Iterable[Frame]) -> bytes:
    """The frames as they are sent."""
    return b"".join(map(FRAMING.write, frames))


def chunks(frames: Iterable[Frame]) -> dict[str, AIMessageChunk]:
    """The messages that the chunks of a stream add up to, by their ids, as LangChain adds them."""
    found: dict[str, AIMessageChunk] = {}
    for frame in frames:
        if frame.event.partition("|")[0] != "messages":
            continue
        message, metadata = orjson.loads(frame.data)
        assert metadata["run_id"]
        if message["type"] != "AIMessageChunk":
            continue
        for derived in ("tool_calls", "invalid_tool_calls", "type"):
            del message[derived]
        chunk = AIMessageChunk(**message)
        assert chunk.id is not None
        found[chunk.id] = found[chunk.id] + chunk if chunk.id in found else chunk
    return found


def said(frames: Iterable[Frame]) -> dict[str, dict[str, Any]]:
    """The messages in the values of a stream, by their ids, each as it was told last."""
    values = [orjson.loads(frame.data) for frame in frames if frame.event.partition("|")[0] == "values"]
    return {each["id"]: each for value in values if "messages" in value for each in value["messages"]}
