"""The strict checks themselves: they pass a legal stream and catch each way to break it."""

from __future__ import annotations

import copy
import json
from collections.abc import Callable
from typing import Any

import pytest

from tests.conformance.rules import RuleError, check_stream
from tests.support.sse import Answer, Dialect, WireError, read_events

Events = list[dict[str, Any]]
SKELETON: dict[str, Any] = {
    "id": "resp_1",
    "object": "response",
    "created_at": 1,
    "completed_at": None,
    "status": "in_progress",
    "error": None,
    "incomplete_details": None,
    "instructions": None,
    "metadata": {},
    "model": "m",
    "output": [],
    "parallel_tool_calls": True,
    "temperature": 1.0,
    "tool_choice": "auto",
    "tools": [],
    "top_p": 1.0,
    "previous_response_id": None,
    "truncation": "disabled",
    "text": {"format": {"type": "text"}},
    "presence_penalty": 0.0,
    "frequency_penalty": 0.0,
    "top_logprobs": 0,
    "reasoning": None,
    "usage": None,
    "max_output_tokens": None,
    "max_tool_calls": None,
    "store": False,
    "background": False,
    "service_tier": "default",
    "safety_identifier": None,
    "prompt_cache_key": None,
}
MESSAGE = {"id": "msg_1", "type": "message", "role": "assistant", "status": "in_progress", "content": []}
CALL = {
    "id": "fc_1",
    "type": "function_call",
    "status": "in_progress",
    "call_id": "c",
    "name": "f",
    "arguments": "",
}
PART = {"type": "output_text", "text": "", "annotations": [], "logprobs": []}
WHOLE_PART = {**PART, "text": "Hello"}
WHOLE_MESSAGE = {**MESSAGE, "status": "completed", "content": [WHOLE_PART]}
WHOLE_CALL = {**CALL, "status": "completed", "arguments": "{}"}
FINAL = {
    **SKELETON,
    "status": "completed",
    "completed_at": 2,
    "output": [WHOLE_MESSAGE, WHOLE_CALL],
    "usage": {},
}


def event(kind: str, **fields: Any) -> dict[str, Any]:
    return {"type": f"response.{kind}", **fields}


def legal() -> Events:
    """A message and a function call."""
    text = {"item_id": "msg_1", "output_index": 0, "content_index": 0}
    arguments = {"item_id": "fc_1", "output_index": 1}
    events = [
        event("created", response=SKELETON),
        event("in_progress", response=SKELETON),
        event("output_item.added", output_index=0, item=MESSAGE),
        event("content_part.added", part=PART, **text),
        event("output_text.delta", delta="Hel", logprobs=[], **text),
        event("output_text.delta", delta="lo", logprobs=[], **text),
        event("output_text.done", text="Hello", logprobs=[], **text),
        event("content_part.done", part=WHOLE_PART, **text),
        event("output_item.done", output_index=0, item=WHOLE_MESSAGE),
        event("output_item.added", output_index=1, item=CALL),
        event("function_call_arguments.delta", delta="{}", **arguments),
        event("function_call_arguments.done", arguments="{}", name="f", **arguments),
        event("output_item.done", output_index=1, item=WHOLE_CALL),
        event("completed", response=FINAL),
    ]
    return [copy.deepcopy(each) | {"sequence_number": i} for i, each in enumerate(events)]


def renumbered(events: Events) -> Events:
    return [each | {"sequence_number": i} for i, each in enumerate(events)]


def changed(place: int, **fields: Any) -> Callable[[Events], Events]:
    return lambda events: [*events[:place], events[place] | fields, *events[place + 1 :]]


def without(*places: int) -> Callable[[Events], Events]:
    return lambda events: renumbered([each for i, each in enumerate(events) if i not in places])


def within(place: int, key: str, **fields: Any) -> Callable[[Events], Events]:
    return lambda events: changed(place, **{key: events[place][key] | fields})(events)


BROKEN: dict[str, Callable[[Events], Events]] = {
    "no created": without(0),
    "no in_progress": without(1),
    "created with output": within(0, "response", output=[WHOLE_MESSAGE]),
    "a field of the response is missing": changed(0, response={"id": "resp_1"}),
    "a number of the response is null": within(0, "response", temperature=None),
    "a gap in the sequence": changed(4, sequence_number=9),
    "a reused output index": changed(9, output_index=0),
    "a reused item id": within(9, "item", id="msg_1"),
    "a null in an item": within(2, "item", phase=None),
    "an item added with content": within(9, "item", arguments="{}"),
    "a second item while the first is open": without(8),
    "a delta for another item id": changed(4, item_id="msg_2"),
    "a delta for a part that was never added": without(3),
    "an empty delta": changed(4, delta=""),
    "done text that is not the deltas": changed(6, text="Help"),
    "a part without its done event": without(6),
    "a part that is not its deltas": within(7, "part", text="Help"),
    "an annotation that was never added": within(7, "part", annotations=[{}]),
    "an item that is not its parts": within(8, "item", content=[]),
    "an item whose id changed": within(8, "item", id="msg_2"),
    "a call whose call_id changed": within(12, "item", call_id="d"),
    "arguments that are not the deltas": changed(11, arguments="[]"),
    "a call without arguments.done": without(11),
    "final output that is not the items": within(13, "response", output=[WHOLE_MESSAGE]),
    "an item never done": without(12),
    "no terminal event": without(13),
    "two terminal events": lambda events: renumbered([*events, events[-1]]),
    "a terminal status that is not the event's": within(13, "response", status="failed"),
    "no usage at the end": within(13, "response", usage=None),
    "another response id": within(13, "response", id="resp_2"),
    "an error before completed": lambda events: renumbered([*events[:-1], {"type": "error"}, events[-1]]),
    "an event without a rule": changed(4, type="response.audio.delta"),
}


def test_a_legal_stream_passes() -> None:
    assert check_stream(legal())["status"] == "completed"


@pytest.mark.parametrize("how", BROKEN)
def test_a_broken_stream_is_caught(how: str) -> None:
    with pytest.raises(RuleError):
        check_stream(BROKEN[how](legal()))


def answer(*sends: bytes, content_type: str = "text/event-stream; charset=utf-8") -> Answer:
    return Answer(200, {"content-type": content_type}, sends)


NAMED = b'event: a\ndata: {"type":"a"}\n\n'
DATA = b'data: {"type":"a"}\n\n'
DONE = b"data: [DONE]\n\n"


@pytest.mark.parametrize(
    ("dialect", "sends"),
    [
        ("named", (NAMED, b": ping\n\n", NAMED + NAMED, DONE)),
        ("data_only", (DATA, b"\n", DATA + DATA + DONE)),
    ],
)
def test_legal_frames_are_read(dialect: Dialect, sends: tuple[bytes, ...]) -> None:
    assert read_events(answer(*sends), dialect) == [{"type": "a"}] * 3


@pytest.mark.parametrize(
    ("dialect", "sends"),
    [
        ("named", (NAMED,)),
        ("named", (NAMED, DONE, DONE)),
        ("named", (DONE, NAMED)),
        ("named", (NAMED[:10], NAMED[10:], DONE)),
        ("named", (NAMED.replace(b"\n", b"\r\n"), DONE)),
        ("named", (b"id: 1\n" + NAMED, DONE)),
        ("named", (b"retry: 1\n\n", NAMED, DONE)),
        ("named", (DATA, DONE)),
        ("named", (b'event: b\ndata: {"type":"a"}\n\n', DONE)),
        ("named", (b'event: a\ndata: {"type":"a","x":NaN}\n\n', DONE)),
        ("named", (b'event: a\ndata: {"type":"a","type":"a"}\n\n', DONE)),
        ("named", (b'event: a\ndata: ["a"]\n\n', DONE)),
        ("data_only", (NAMED, DONE)),
        ("data_only", (DATA, b": ping\n\n", DONE)),
    ],
)
def test_broken_frames_are_caught(dialect: Dialect, sends: tuple[bytes, ...]) -> None:
    with pytest.raises(WireError):
        read_events(answer(*sends), dialect)


def test_an_answer_that_is_no_event_stream_is_caught() -> None:
    with pytest.raises(WireError):
        read_events(answer(NAMED, DONE, content_type="text/plain"), "named")


def test_json_of_the_legal_stream_survives_its_frames() -> None:
    sends = [b"data: %b\n\n" % json.dumps(each).encode() for each in legal()]
    assert check_stream(read_events(answer(*sends, DONE), "data_only"))["id"] == "resp_1"
