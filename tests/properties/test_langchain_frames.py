"""`langchain.v2` over any run: raw events alone, of the kinds wanted, in their order, as JSON that is read back."""

from __future__ import annotations

from typing import Any

import orjson
from hypothesis import given
from hypothesis import strategies as st

from agent_server import events as ev
from agent_server.events import TERMINAL, Event
from agent_server.http.wire import Message
from agent_server.protocols.websocket.envelope import Envelope
from agent_server.protocols.websocket.langchain import LangChainEncoder
from tests.properties.interleavings import runs

KINDS = ("on_chat_model_stream", "on_tool_start", "on_chain_end")

whole_numbers = st.integers(-(2**63), 2**64 - 1)
raw = st.builds(
    lambda kind, data: ev.RawEvent({"event": kind, "data": data}),
    st.sampled_from([*KINDS, "on_chain_start"]),
    st.dictionaries(
        st.text(max_size=3), st.none() | st.integers(-(2**63), 2**64 - 1) | st.text(max_size=5), max_size=2
    ),
)


@st.composite
def recorded(draw: st.DrawFn) -> list[Event]:
    """A run with raw events anywhere between its first and its last event."""
    events = draw(runs())
    for event in draw(st.lists(raw, max_size=6)):
        events.insert(draw(st.integers(1, len(events) - 1)), event)
    return events


def told(events: list[Event], kinds: tuple[str, ...]) -> list[Message]:
    """All messages of a request."""
    encoder, envelope = LangChainEncoder(kinds), Envelope()
    frames = [frame for event in events for frame in encoder.feed(event)]
    messages = [envelope.frame("r", sequence, frame) for sequence, frame in enumerate(frames)]
    return [each for each in (*messages, envelope.closing("r", len(frames), events[-1])) if each is not None]


@given(recorded(), st.sets(st.sampled_from(KINDS)))
def test_raw_events_are_told_in_their_order_and_no_others(events: list[Event], kinds: set[str]) -> None:
    messages = told(events, tuple(kinds))
    wanted = [e.event for e in events if isinstance(e, ev.RawEvent) and e.event["event"] in kinds]
    assert [message["event"] for message in messages[:-1]] == wanted
    assert [message["sequence"] for message in messages] == list(range(len(messages)))


@given(recorded())
def test_a_request_has_one_end_and_it_says_how_the_run_ended(events: list[Event]) -> None:
    messages = told(events, KINDS)
    assert [message["type"] in ("end", "error") for message in messages] == [False] * (len(messages) - 1) + [True]
    last: dict[str, Any] = messages[-1]
    statuses = {
        ev.RunFinished: {"completed", "incomplete"},
        ev.RunInterrupted: {"interrupted"},
        ev.RunCancelled: {"cancelled"},
        ev.RunFailed: {500},
    }
    assert last["status"] in statuses[type(events[-1])]
    assert type(events[-1]) in TERMINAL


@given(recorded())
def test_every_message_is_json(events: list[Event]) -> None:
    for message in told(events, KINDS):
        assert orjson.loads(orjson.dumps(message)) == message
