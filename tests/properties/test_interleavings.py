"""Whatever a run tells, in whatever order, and wherever it ends: its events and its streams keep their rules."""

from __future__ import annotations

import msgspec
from hypothesis import given

from agent_server import events as ev
from agent_server.events import TERMINAL, Event
from agent_server.framing import sse
from agent_server.protocols.responses.encoder import TOOL_ITEMS, ResponsesEncoder
from tests.conformance.rules import check_response, check_stream
from tests.properties.interleavings import runs
from tests.properties.nesting import check_nesting
from tests.support.play import frames


@given(runs())
def test_every_list_of_events_is_well_nested_and_ends_once(events: list[Event]) -> None:
    check_nesting(events)
    assert [type(event) in TERMINAL for event in events] == [False] * (len(events) - 1) + [True]


@given(runs())
def test_every_responses_stream_keeps_the_rules_in_every_style(events: list[Event]) -> None:
    for style in TOOL_ITEMS:
        response = check_stream([frame.data for frame in frames(events, style)])
        check_response(response)


@given(runs())
def test_every_event_and_every_frame_can_be_written(events: list[Event]) -> None:
    for event in events:
        assert ev.decode(ev.encode(event)) == msgspec.json.decode(msgspec.json.encode(event), type=ev.Event)
    for frame in frames(events):
        assert sse(frame)


@given(runs())
def test_a_client_never_sees_what_an_exception_says(events: list[Event]) -> None:
    assert b"secret" not in b"".join(map(ev.encode, events))


@given(runs())
def test_frames_own_their_data(events: list[Event]) -> None:
    encoder = ResponsesEncoder("mcp_call")
    told = [(frame, sse(frame)) for event in events for frame in encoder.feed(event)]
    for frame, written in told:
        assert sse(frame) == written, "a frame shows what came after it"
