"""Whoever reads a log, from where and in whatever pieces, reads the same: live equals replay, byte for byte."""

from __future__ import annotations

from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from agent_server import events as ev
from agent_server.events import Event
from agent_server.protocols.responses.encoder import ResponsesEncoder
from agent_server.runs import log as log_module
from agent_server.runs.log import EventLog
from tests.conformance.rules import check_stream
from tests.properties.interleavings import runs
from tests.support.play import AT, RUN_ID, frames, sse

LAG = 3
"""Small, so that merging happens within a few events."""

readers = 3
steps = st.lists(st.tuples(st.integers(0, readers), st.integers(1, 4)), max_size=60)
"""Who acts: the writer (0) appends some events, a reader reads at most so many."""


@st.composite
def talks(draw: st.DrawFn) -> list[Event]:
    """Two messages that stream many small pieces side by side."""
    names = ("m0", "m1")
    said = dict.fromkeys(names, "")
    events: list[Event] = [ev.RunStarted(run_id=RUN_ID, agent="agent", at=AT)]
    for name in names:
        events += [ev.MessageStarted(name), ev.BlockStarted(name, 0, "text")]
    for name, letter in draw(st.lists(st.tuples(st.sampled_from(names), st.sampled_from("abc")), max_size=40)):
        said[name] += letter
        events.append(ev.TextDelta(name, 0, letter))
    for name in names:
        events += [ev.BlockFinished(name, 0, "text", said[name]), ev.MessageFinished(name)]
    return [*events, ev.RunFinished(at=AT)]


class Reader:
    """A cursor of its own, folding what it reads."""

    def __init__(self, log: EventLog) -> None:
        self.log = log
        self.events: list[Event] = []

    def read(self, limit: int | None = None) -> None:
        """Read on from where it is."""
        self.events += self.log.read(len(self.events), limit)


@given(runs() | talks(), steps)
def test_every_reader_folds_to_the_bytes_of_a_replay(events: list[Event], order: list[tuple[int, int]]) -> None:
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(log_module, "LAG", LAG)
        log = EventLog()
        cursors = [Reader(log) for _ in range(readers)]
        waiting = list(events)
        for who, count in order:
            if who:
                cursors[who - 1].read(count)
            else:
                log.extend(waiting[:count])
                waiting = waiting[count:]
        for event in waiting:  # the first reader keeps up, the others come back at the end
            log.append(event)
            cursors[0].read()
        for cursor in cursors:
            cursor.read()
    replay = sse(log.read(0))
    assert [sse(cursor.events) for cursor in cursors] == [replay] * readers


@given(runs() | talks(), st.data())
def test_a_stream_may_be_cut_and_carried_on_at_any_event(events: list[Event], data: st.DataObject) -> None:
    """A reader that comes back with the number of the last frame it saw misses nothing and sees nothing twice."""
    place = data.draw(st.integers(0, len(events)))
    before = frames(events[:place])
    again = frames(events)
    assert again[: len(before)] == before
    assert [frame.data["sequence_number"] for frame in again] == list(range(len(again)))


@given(runs() | talks())
def test_merged_deltas_fold_to_the_same_body(events: list[Event]) -> None:
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(log_module, "LAG", 0)
        log = EventLog()
        log.extend(events)
    assert _final(log.read(0)) == _final(events)


@given(runs())
def test_the_answer_without_streaming_is_the_fold_of_the_stream(events: list[Event]) -> None:
    encoder = ResponsesEncoder()
    told = [frame for event in events for frame in encoder.feed(event)]
    assert encoder.response == told[-1].data["response"]


def _final(events: list[Event]) -> dict[str, Any]:
    return check_stream([frame.data for frame in frames(events)])
