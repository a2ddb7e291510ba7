"""The events: a closed union, its codec, and which of them end a run."""

from __future__ import annotations

import typing

import msgspec
import pytest

from agent_server import events as ev
from agent_server.events import TERMINAL, Event, Usage

KINDS: tuple[type[msgspec.Struct], ...] = typing.get_args(Event)


def test_every_event_of_the_module_is_in_the_union() -> None:
    made = {
        kind
        for kind in vars(ev).values()
        if isinstance(kind, type) and issubclass(kind, ev._Event) and kind is not ev._Event
    }
    assert made == set(KINDS)


def test_the_terminal_events_are_the_ends_of_a_run() -> None:
    assert {kind.__name__ for kind in TERMINAL} == {"RunFinished", "RunInterrupted", "RunFailed", "RunCancelled"}
    assert typing.get_args(ev.Terminal) == tuple(kind for kind in KINDS if kind in TERMINAL)


def test_events_are_frozen() -> None:
    event = ev.TextDelta("m0", 0, "a")
    with pytest.raises(AttributeError):
        event.text = "b"  # type: ignore[misc]


@pytest.mark.parametrize(
    ("event", "stored"),
    [
        (ev.TextDelta("m0", 1, "ä"), '{"type":"TextDelta","message_id":"m0","index":1,"text":"ä"}'),
        (ev.StepFinished("node", "1"), '{"type":"StepFinished","step":"node","task_id":"1"}'),
        (ev.BlockStarted("m0", 0, "text"), '{"type":"BlockStarted","message_id":"m0","index":0,"kind":"text"}'),
        (ev.RunCancelled(at=1, reason="gone"), '{"type":"RunCancelled","at":1,"reason":"gone"}'),
    ],
)
def test_an_event_is_stored_as_tagged_json_without_its_defaults(event: Event, stored: str) -> None:
    assert ev.encode(event).decode() == stored
    assert ev.decode(stored.encode()) == event


@pytest.mark.parametrize(
    "data",
    [
        b"{}",
        b"null",
        b'{"type":"Nothing"}',
        b'{"type":"TextDelta","message_id":"m0","index":0}',
        b'{"type":"TextDelta","message_id":"m0","index":"0","text":"a"}',
        b'{"type":"BlockStarted","message_id":"m0","index":0,"kind":"smell"}',
    ],
)
def test_anything_else_is_refused(data: bytes) -> None:
    with pytest.raises(msgspec.ValidationError):
        ev.decode(data)


def test_an_event_of_a_later_version_may_have_more_fields() -> None:
    data = b'{"type":"TextDelta","message_id":"m0","index":0,"text":"a","later":1}'
    assert ev.decode(data) == ev.TextDelta("m0", 0, "a")


def test_usage_adds_up_field_by_field() -> None:
    assert Usage(1, 2, 3, 4, 5, 6) + Usage(10, 20, 30, 40, 50, 60) == Usage(11, 22, 33, 44, 55, 66)


def test_events_do_not_share_their_defaults() -> None:
    assert ev.MessageStarted("m0").metadata is not ev.MessageStarted("m1").metadata
