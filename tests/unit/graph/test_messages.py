"""One model call while it streams: its blocks, told from chunks of every cut."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import pytest
from langchain_core.messages import AIMessage, AIMessageChunk
from langchain_core.messages.tool import ToolCallChunk, invalid_tool_call, tool_call

from agent_server import events as ev
from agent_server import ids
from agent_server.events import Event
from agent_server.graph.messages import OpenMessage
from tests.support.chunks import blocks, piece, text, tools
from tests.support.play import RUN_ID


def open_message(called: list[tuple[str, str]] | None = None, ordinal: int = 0) -> OpenMessage:
    made = called if called is not None else []
    return OpenMessage(RUN_ID, ordinal, lambda *call: made.append(call), source_id="source", parent_call_id="")


def told(*chunks: AIMessageChunk, whole: AIMessage | None = None) -> list[Event]:
    """The events of these chunks, of the whole message where one is given, and of the end."""
    message = open_message()
    events = [event for chunk in chunks for event in message.add_chunk(chunk)]
    return events + (message.add_whole(whole) if whole is not None else message.close_blocks())


def outline(events: Sequence[Event]) -> list[str]:
    """The events in short: + a block starts, text, - it ends, with its index."""
    lines = []
    for event in events:
        if isinstance(event, ev.BlockStarted):
            lines.append(f"+{event.index} {event.kind} {event.call_id}".rstrip())
        elif isinstance(event, ev.BlockFinished):
            flags = "".join([" cut" * (not event.complete), " invalid" * event.invalid])
            lines.append(f"-{event.index}{flags}")
        elif isinstance(event, ev.Annotated):
            lines.append(f" {event.index} cites")
        elif isinstance(event, ev.TextDelta | ev.ReasoningDelta | ev.RefusalDelta | ev.ArgsDelta):
            lines.append(f" {event.index} {event.text}")
    return lines


def calls(*chunks: Sequence[ToolCallChunk]) -> list[AIMessageChunk]:
    return [tools(*pieces) for pieces in chunks]


def _block(kind: str, said: str, index: int | None = None, **more: Any) -> dict[str, Any]:
    return {"type": kind, kind: said, **({} if index is None else {"index": index}), **more}


CITED = _block("text", "", 0, annotations=[{"type": "citation", "url": "u"}])

STREAMS: dict[str, tuple[list[AIMessageChunk], list[str]]] = {
    "text in one block": (text("a", "", "b"), ["+0 text", " 0 a", " 0 b", "-0"]),
    "nothing": (text("", ""), []),
    "another index is another block": (
        blocks(_block("text", "a", 0), _block("text", "b", 0), _block("text", "c", 1)),
        ["+0 text", " 0 a", " 0 b", "-0", "+1 text", " 1 c", "-1"],
    ),
    "no index goes on with the block": (
        blocks(_block("text", "a", 0), _block("text", "b")),
        ["+0 text", " 0 a", " 0 b", "-0"],
    ),
    "another kind is another block, under the same index too": (
        blocks(_block("reasoning", "a", 0), _block("text", "b", 0), _block("reasoning", "c", 0)),
        ["+0 reasoning", " 0 a", "-0", "+1 text", " 1 b", "-1", "+2 reasoning", " 2 c", "-2"],
    ),
    "a late annotation": (
        [*blocks(_block("text", "a", 0)), *blocks(CITED)],
        ["+0 text", " 0 a", " 0 cites", "-0"],
    ),
    "an annotation after the next block has started": (
        [*blocks(_block("text", "a", 0), _block("reasoning", "b", 1)), *blocks(CITED)],
        ["+0 text", " 0 a", "-0", "+1 reasoning", " 1 b", "-1", "+2 text", " 2 cites", "-2"],
    ),
    "text after a tool call": (
        [*calls([piece('{"a": 1}', name="f", id="x")]), *text("b")],
        ["+0 tool_call x", ' 0 {"a": 1}', "-0", "+1 text", " 1 b", "-1"],
    ),
    "text while arguments are coming": (
        [*calls([piece('{"a"', name="f", id="x")]), *text("b"), *calls([piece(": 1}")])],
        ["+0 tool_call x", ' 0 {"a"', "+1 text", " 1 b", " 0 : 1}", "-0", "-1"],
    ),
    "text and a call in one chunk": (
        [tools(piece("{}", name="f", id="x"), content="a")],
        ["+0 text", " 0 a", "-0", "+1 tool_call x", " 1 {}", "-1"],
    ),
    "two calls that take turns": (
        calls(
            [piece("", name="f", id="x", index=0)],
            [piece("", name="g", id="y", index=1)],
            [piece("{", index=1), piece("{", index=0)],
            [piece("}", index=0), piece("}", index=1)],
        ),
        ["+0 tool_call x", "+1 tool_call y", " 1 {", " 0 {", " 0 }", " 1 }", "-0", "-1"],
    ),
    "every call at index 0, told apart by id": (
        calls(
            [piece('{"a": 1}', name="f", id="x", index=0)],
            [piece('{"a"', name="f", id="y", index=0)],
            [piece(": 2}", index=0)],
        ),
        ["+0 tool_call x", ' 0 {"a": 1}', "-0", "+1 tool_call y", ' 1 {"a"', " 1 : 2}", "-1"],
    ),
    "no index, told apart by id": (
        calls(
            [piece("{", name="f", id="x", index=None), piece("{", name="f", id="y", index=None)],
            [piece("}", id="x", index=None), piece("}", id="y", index=None)],
        ),
        ["+0 tool_call x", " 0 {", "+1 tool_call y", " 1 {", " 0 }", " 1 }", "-0", "-1"],
    ),
    "no index and no id: the last call goes on": (
        calls([piece("{", name="f", id="x", index=None)], [piece("}", index=None)]),
        ["+0 tool_call x", " 0 {", " 0 }", "-0"],
    ),
    "the name comes late": (
        calls([piece('{"a"', id="x")], [piece(": 1", name="f")], [piece("}")]),
        ["+0 tool_call x", ' 0 {"a"', " 0 : 1", " 0 }", "-0"],
    ),
    "the name never comes": (calls([piece("{}", id="x")]), []),
    "no arguments are an empty object": (calls([piece("", name="f", id="x")]), ["+0 tool_call x", " 0 {}", "-0"]),
    "arguments that are no object": (
        calls([piece("[1]", name="f", id="x")]),
        ["+0 tool_call x", " 0 [1]", "-0 invalid"],
    ),
    "an image closes the text before it": (
        [*text("a"), *blocks({"type": "image", "url": "u"}), *text("b")],
        ["+0 text", " 0 a", "-0", "+1 media", "-1", "+2 text", " 2 b", "-2"],
    ),
}


@pytest.mark.parametrize("name", STREAMS)
def test_chunks_are_told_as_blocks(name: str) -> None:
    chunks, expected = STREAMS[name]
    assert outline(told(*chunks)) == expected


def _whole(content: Any = "", **more: Any) -> AIMessage:
    return AIMessage(content=content, **more)


CALL = tool_call(name="f", args={"a": 1}, id="x")

WHOLES: dict[str, tuple[list[AIMessageChunk], AIMessage, list[str]]] = {
    "all of it, where nothing streamed": (
        [],
        _whole([_block("reasoning", "r", 0), _block("text", "t", 1)], tool_calls=[CALL]),
        ["+0 reasoning", " 0 r", "-0", "+1 text", " 1 t", "-1", "+2 tool_call x", ' 2 {"a":1}', "-2"],
    ),
    "nothing, where all streamed": (
        [*text("t"), *calls([piece('{"a": 1}', name="f", id="x")])],
        _whole("t", tool_calls=[CALL]),
        ["+0 text", " 0 t", "-0", "+1 tool_call x", ' 1 {"a": 1}', "-1"],
    ),
    "the calls, where only text streamed": (
        text("t"),
        _whole("t", tool_calls=[CALL]),
        ["+0 text", " 0 t", "-0", "+1 tool_call x", ' 1 {"a":1}', "-1"],
    ),
    "the text, where only reasoning streamed": (
        blocks(_block("reasoning", "r", 0)),
        _whole([_block("reasoning", "r", 0), _block("text", "t", 1)]),
        ["+0 reasoning", " 0 r", "-0", "+1 text", " 1 t", "-1"],
    ),
    "a call that is invalid": (
        [],
        _whole(invalid_tool_calls=[invalid_tool_call(name="f", args="no json", id="x", error=None)]),
        ["+0 tool_call x", " 0 no json", "-0 invalid"],
    ),
    "an invalid call that streamed": (
        calls([piece("no json", name="f", id="x")]),
        _whole(invalid_tool_calls=[invalid_tool_call(name="f", args="no json", id="x", error=None)]),
        ["+0 tool_call x", " 0 no json", "-0 invalid"],
    ),
    "an invalid call without a name": (
        [],
        _whole(invalid_tool_calls=[invalid_tool_call(name=None, args="", id="x", error=None)]),
        ["+0 tool_call x", " 0 {}", "-0"],
    ),
    "calls at index 0 that streamed": (
        calls(
            [piece('{"a": 1}', name="f", id="x", index=0)],
            [piece("{}", name="f", id="y", index=0)],
        ),
        _whole(tool_calls=[CALL, tool_call(name="f", args={}, id="y")]),
        ["+0 tool_call x", ' 0 {"a": 1}', "-0", "+1 tool_call y", " 1 {}", "-1"],
    ),
    "a refusal beside the content": ([], _whole(additional_kwargs={"refusal": "no"}), ["+0 refusal", " 0 no", "-0"]),
}


@pytest.mark.parametrize("name", WHOLES)
def test_the_whole_message_tells_what_never_streamed(name: str) -> None:
    chunks, whole, expected = WHOLES[name]
    assert outline(told(*chunks, whole=whole)) == expected


def test_calls_without_an_id_get_one_from_their_place() -> None:
    message = open_message(ordinal=2)
    events = message.add_chunk(tools(piece("{}", name="f", index=0), piece("{}", name="g", index=1)))
    made = [event.call_id for event in events if isinstance(event, ev.BlockStarted)]
    assert made == [ids.call_id(RUN_ID, 0x200), ids.call_id(RUN_ID, 0x201)]
    whole = AIMessage(content="", tool_calls=[tool_call(name=name, args={}, id=None) for name in "fg"])
    assert outline(message.add_whole(whole)) == ["-1"]


def test_each_call_is_reported_when_it_starts() -> None:
    called: list[tuple[str, str]] = []
    message = open_message(called)
    message.add_chunk(tools(piece("{", id="x")))
    assert called == []
    message.add_chunk(tools(piece("", name="f")))
    assert called == [("x", "f")]


def test_blocks_that_are_cut_short_are_not_complete_and_get_no_arguments() -> None:
    message = open_message()
    message.add_chunk(tools(piece("", name="f", id="x"), piece('{"a"', name="g", id="y", index=1)))
    assert outline(message.close_blocks(complete=False)) == ["-0 cut invalid", "-1 cut invalid"]


def test_a_finished_block_holds_the_whole_of_it() -> None:
    stream = blocks(
        {"type": "thinking", "thinking": "a", "index": 0},
        {"type": "thinking", "thinking": "b", "signature": "c2ln", "index": 0},
        _block("text", "t", 1),
        _block("text", "u", 1, annotations=[{"type": "citation", "url": "u"}]),
    )
    finished = [event for event in told(*stream) if isinstance(event, ev.BlockFinished)]
    assert finished == [
        ev.BlockFinished("m0", 0, "reasoning", "ab", data={"encrypted": "c2ln"}),
        ev.BlockFinished("m0", 1, "text", "tu", annotations=({"type": "citation", "url": "u"},)),
    ]


def test_paragraphs_of_a_summary_are_kept_apart() -> None:
    parts = [
        {"type": "reasoning", "index": 0, "summary": [{"text": said, "index": n}]} for said, n in (("a", 0), ("b", 1))
    ]
    assert outline(told(*blocks(*parts))) == ["+0 reasoning", " 0 a", " 0 \n\nb", "-0"]


@pytest.mark.parametrize(
    "chunk",
    [
        AIMessageChunk(content="a\ud83d"),
        AIMessageChunk(content=[_block("text", "a\ud83d", 0)]),
        AIMessageChunk(content="", additional_kwargs={"refusal": "a\ud83d"}),
        tools(piece("a\ud83d", name="f", id="x")),
    ],
)
def test_lone_surrogates_become_question_marks(chunk: AIMessageChunk) -> None:
    """UTF-8 lacks them, and so does every wire (Unicode, section 3.9, D92)."""
    events = told(*text("b"), chunk, chunk)
    texts = [event.text for event in events if hasattr(event, "text")]
    assert any("a?" in said for said in texts)
    assert "".join(texts).encode()


def test_arguments_are_told_as_the_model_wrote_them() -> None:
    (_, delta, finished) = told(*calls([piece('{ "a" :1.0 }', name="f", id="x")]))
    assert isinstance(delta, ev.ArgsDelta)
    assert isinstance(finished, ev.BlockFinished)
    assert delta.text == finished.text == '{ "a" :1.0 }'
