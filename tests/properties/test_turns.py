"""Whatever a run told, its turn is numbered frames with one end, the same in both framings and without traces."""

from __future__ import annotations

import orjson
from hypothesis import given
from hypothesis import strategies as st

from agent_server.events import Event
from agent_server.protocols.turns.encoder import COMMAND, NDJSON, RESULT, SSE, TurnEncoder
from tests.properties.interleavings import runs
from tests.support.turns import frames, read_ndjson, read_sse, told

ENDS = {"command_output", "error"}


@given(runs())
def test_frames_are_numbered_and_the_last_alone_is_an_end(events: list[Event]) -> None:
    seen = read_sse(told(events, SSE))
    assert [data["sequence"] for _, data in seen] == list(range(len(seen)))
    assert [name in ENDS for name, _ in seen] == [False] * (len(seen) - 1) + [True]
    assert {name for name, _ in seen} - ENDS <= {"trace"}


@given(runs())
def test_both_framings_tell_the_same(events: list[Event]) -> None:
    assert read_sse(told(events, SSE)) == read_ndjson(told(events, NDJSON))


@given(runs())
def test_without_traces_the_end_is_the_same(events: list[Event]) -> None:
    assert frames(events, traces=False) == frames(events)[-1:]


@given(runs())
def test_a_frame_owns_its_data(events: list[Event]) -> None:
    encoder = TurnEncoder(query="Hi")
    made = [(frame, orjson.dumps(frame.data)) for event in events for frame in encoder.feed(event)]
    assert all(orjson.dumps(frame.data) == written for frame, written in made)


@given(runs())
def test_the_answer_is_the_fold_of_the_stream(events: list[Event]) -> None:
    encoder = TurnEncoder(query="Hi")
    seen = [frame for event in events for frame in encoder.feed(event)]
    whole = encoder.whole
    assert whole["traces"] == [frame.data for frame in seen[:-1]]
    last = seen[-1].data
    assert {name: last[name] for name in last if name in whole} == {name: whole[name] for name in last if name in whole}
    assert whole["exec_state"] in ("completed", "waiting", "failed", "cancelled")


@given(runs())
def test_a_result_comes_after_its_command(events: list[Event]) -> None:
    open_calls: list[str] = []
    for frame in frames(events)[:-1]:
        if frame.data["direction"] == COMMAND:
            open_calls.append(frame.data["call_id"])
        elif frame.data["direction"] == RESULT:
            assert frame.data["call_id"] in open_calls


@given(runs(), st.data())
def test_a_stream_goes_on_after_any_frame(events: list[Event], data: st.DataObject) -> None:
    whole = frames(events)
    place = data.draw(st.integers(0, len(events)))
    before = frames(events[:place])
    assert whole[: len(before)] == before
    assert frames(events, after=len(before) - 1) == whole[len(before) :]
