"""However a provider cuts a message into chunks, the same answer reaches the client."""

from __future__ import annotations

import json
from dataclasses import dataclass
from typing import Any

from hypothesis import given
from hypothesis import strategies as st
from langchain_core.messages import AIMessageChunk
from langchain_core.messages.tool import tool_call_chunk

from agent_server import events as ev
from agent_server.events import Event
from agent_server.protocols.responses.encoder import TOOL_ITEMS, ToolItems
from tests.conformance.rules import check_stream
from tests.properties.nesting import check_nesting
from tests.support.play import AT, RUN_ID, frames
from tests.support.told import converted, model


@dataclass(frozen=True)
class Said:
    """One message of a model: `plain` content is a string, other content a list of indexed blocks."""

    reasoning: str
    text: str
    calls: tuple[tuple[str, str], ...]
    plain: bool

    @property
    def first_call(self) -> int:
        """The provider's index of the first call: behind the blocks."""
        return 0 if self.plain else 2


unicode = st.text(st.characters(exclude_categories=["Cs"]), max_size=12)
arguments = st.dictionaries(unicode, unicode | st.integers(-9, 9) | st.lists(st.booleans(), max_size=2), max_size=2)
names = st.sampled_from(["get_weather", "send_email"])
calls = st.lists(st.tuples(names, arguments.map(json.dumps)), max_size=3)
said = st.builds(Said, unicode, unicode, calls.map(tuple), st.booleans())


def _cut(draw: st.DrawFn, text: str) -> list[str]:
    places = sorted(draw(st.sets(st.integers(1, len(text) - 1), max_size=4))) if len(text) > 1 else []
    return [text[start:end] for start, end in zip([0, *places], [*places, len(text)], strict=True)]


def _content_chunk(message: Said, kind: str, piece: str) -> AIMessageChunk:
    if not message.plain:
        index = 0 if kind == "reasoning" else 1
        return AIMessageChunk(content=[{"type": kind, kind: piece, "index": index}])
    if kind == "reasoning":
        return AIMessageChunk(content="", additional_kwargs={"reasoning_content": piece})
    return AIMessageChunk(content=piece)


def _whole_chunks(message: Said) -> list[AIMessageChunk]:
    """Each part in one piece: the chunking that the others are compared with."""
    content = [(kind, text) for kind, text in (("reasoning", message.reasoning), ("text", message.text)) if text]
    parts = [_content_chunk(message, kind, text) for kind, text in content]
    for number, (name, args) in enumerate(message.calls):
        call = tool_call_chunk(name=name, args=args, id=f"call_{number}", index=message.first_call + number)
        parts.append(AIMessageChunk(content="", tool_call_chunks=[call]))
    return parts


def _call_pieces(draw: st.DrawFn, message: Said, number: int) -> list[Any]:
    """The pieces of one call: the id comes first, the name with it or with a later piece, as providers have it."""
    name, args = message.calls[number]
    texts = _cut(draw, args)
    if draw(st.booleans()):
        texts = ["", *texts]
    named = draw(st.integers(0, len(texts) - 1))
    index = message.first_call + number
    return [
        tool_call_chunk(
            name=name if place == named else None,
            args=text,
            id=f"call_{number}" if place == 0 else None,
            index=index,
        )
        for place, text in enumerate(texts)
    ]


@st.composite
def chunkings(draw: st.DrawFn, message: Said) -> list[AIMessageChunk]:
    """One way to stream the message: pieces cut anywhere, calls interleaved, several pieces in one chunk.

    Names come in the order of the calls: the order of their names is the order of the items.
    """
    chunks = [_content_chunk(message, "reasoning", piece) for piece in _cut(draw, message.reasoning) if piece]
    chunks += [_content_chunk(message, "text", piece) for piece in _cut(draw, message.text) if piece]
    waiting = [_call_pieces(draw, message, number) for number in range(len(message.calls))]
    named = 0
    pieces = []
    while any(waiting):
        free = [n for n, left in enumerate(waiting) if left and (n <= named or not left[0]["name"])]
        number = draw(st.sampled_from(free))
        piece = waiting[number].pop(0)
        named += bool(piece["name"])
        pieces.append(piece)
    while pieces:
        size = draw(st.integers(1, 3))
        together, pieces = pieces[:size], pieces[size:]
        chunks.append(AIMessageChunk(content="", tool_call_chunks=together))
    return chunks


def run(chunks: list[AIMessageChunk]) -> list[Event]:
    """The events of a run in which one model streams these chunks and ends with their sum."""
    started = ev.RunStarted(run_id=RUN_ID, agent="agent", at=AT)
    return [started, *converted(model(AIMessageChunk(content=""), *chunks))]


def body(events: list[Event], style: ToolItems) -> dict[str, Any]:
    """The final response object, its stream checked against every rule."""
    return check_stream([frame.data for frame in frames(events, style)])


@given(said.flatmap(lambda message: st.tuples(st.just(message), chunkings(message))))
def test_any_chunking_of_a_message_gives_the_same_final_body(streamed: tuple[Said, list[AIMessageChunk]]) -> None:
    message, chunks = streamed
    events = run(chunks)
    check_nesting(events)
    expected = run(_whole_chunks(message))
    for style in TOOL_ITEMS:
        assert body(events, style) == body(expected, style)


@given(said)
def test_the_final_body_holds_what_the_model_said(message: Said) -> None:
    items = body(run(_whole_chunks(message)), "function_call")["output"]
    found = [
        *(("reasoning", item["summary"][0]["text"]) for item in items if item["type"] == "reasoning"),
        *(("text", item["content"][0]["text"]) for item in items if item["type"] == "message"),
        *((item["name"], item["arguments"]) for item in items if item["type"] == "function_call"),
    ]
    parts = [("reasoning", message.reasoning), ("text", message.text)]
    assert found == [*(part for part in parts if part[1]), *message.calls]


@given(said.flatmap(lambda message: st.tuples(st.just(message), chunkings(message))))
def test_the_deltas_joined_are_the_whole(streamed: tuple[Said, list[AIMessageChunk]]) -> None:
    message, chunks = streamed
    told = {ev.ReasoningDelta: "", ev.TextDelta: ""}
    calls: dict[int, str] = {}
    args: dict[str, str] = {}
    for event in run(chunks):
        if isinstance(event, ev.ReasoningDelta | ev.TextDelta):
            told[type(event)] += event.text
        elif isinstance(event, ev.BlockStarted):
            calls[event.index] = event.call_id
        elif isinstance(event, ev.ArgsDelta):
            args[calls[event.index]] = args.get(calls[event.index], "") + event.text
    assert told == {ev.ReasoningDelta: message.reasoning, ev.TextDelta: message.text}
    assert args == {f"call_{number}": text for number, (_, text) in enumerate(message.calls)}
