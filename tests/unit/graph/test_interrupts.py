"""The questions that a run stopped at."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import pytest
from langgraph.errors import GraphInterrupt
from langgraph.types import Interrupt

from agent_server import events as ev
from agent_server.events import Event
from agent_server.graph.interrupts import Interrupts
from tests.support.chunks import call
from tests.support.play import AT
from tests.support.told import Told, converted, model, root, tool

CALLING = model(*call("search", '{"a": 1}', id="call_1"), run="calling")


def of(kind: type[Any], events: Sequence[Event]) -> list[Any]:
    return [event for event in events if isinstance(event, kind)]


def _stopped(*interrupts: Interrupt, ns: tuple[str, ...] = ()) -> Told:
    return root({"messages": []}, None, chunks=[(ns, "updates", {"__interrupt__": interrupts})])


def test_an_interrupt_ends_the_run_with_its_question() -> None:
    events = converted(_stopped(Interrupt(value="Which?", id="i")))
    assert events == [ev.RunInterrupted(at=AT, interrupts=(ev.Interrupt("i", "Which?"),))]


def test_an_interrupt_of_a_subgraph_counts_when_the_root_tells_it() -> None:
    (ended,) = converted(_stopped(Interrupt(value="Which?", id="i"), ns=("inner:1",)))
    assert isinstance(ended, ev.RunFinished)


def test_a_static_breakpoint_asks_nothing() -> None:
    assert converted(_stopped()) == [ev.RunInterrupted(at=AT, interrupts=())]


def test_a_tool_that_interrupts_is_pending_and_named_by_the_question() -> None:
    interrupt = Interrupt(value="Which?", id="i")
    events = converted(CALLING, tool("search", GraphInterrupt((interrupt,)), call_id="call_1"), _stopped(interrupt))
    assert of(ev.ToolFinished, events) == [ev.ToolFinished("call_1", "search", "", "pending")]
    assert events[-1] == ev.RunInterrupted(at=AT, interrupts=(ev.Interrupt("i", "Which?", call_ids=("call_1",)),))


def test_an_interrupted_run_has_no_plain_answer() -> None:
    stopped = root("Hi", "half", chunks=[((), "updates", {"__interrupt__": (Interrupt(value="?", id="i"),)})])
    assert of(ev.MessageStarted, converted(stopped)) == []


# Their meaning

APPROVAL = {
    "action_requests": [{"name": "send", "args": {"to": "a"}}, {"name": "send", "args": {"to": "b"}}, {"name": "look"}],
    "review_configs": [],
}
MEANINGS: dict[str, tuple[Any, list[tuple[str, str]], ev.Interrupt]] = {
    "an approval is about the calls in their order": (
        APPROVAL,
        [("call_1", "send"), ("call_2", "look"), ("call_3", "send")],
        ev.Interrupt("i", APPROVAL, "approval", ("call_1", "call_3", "call_2")),
    ),
    "an approval of a call that nobody knows": (APPROVAL, [], ev.Interrupt("i", APPROVAL, "approval")),
    "a call for the client": (
        {"type": "client_tool_call", "tool_call_id": "call_1"},
        [("call_1", "ask")],
        ev.Interrupt("i", {"type": "client_tool_call", "tool_call_id": "call_1"}, "client_tool", ("call_1",)),
    ),
    "any other object": ({"question": "?"}, [("call_1", "ask")], ev.Interrupt("i", {"question": "?"})),
    "a text": ("?", [], ev.Interrupt("i", "?")),
    "what JSON has no form for": ({1}, [], ev.Interrupt("i", [1])),
    **{
        f"requests that are {requests!r}": (
            {"action_requests": requests},
            [("call_1", "send")],
            ev.Interrupt("i", {"action_requests": requests}),
        )
        for requests in (None, [], "send", ["send"], {"name": "send"})
    },
}


@pytest.mark.parametrize("name", MEANINGS)
def test_an_interrupt_is_read_for_what_it_asks(name: str) -> None:
    value, unanswered, expected = MEANINGS[name]
    interrupts = Interrupts()
    interrupts.seen([Interrupt(value=value, id="i")])
    assert interrupts.resolve(unanswered) == (expected,)


def test_an_interrupt_that_is_told_twice_is_one_question() -> None:
    interrupts = Interrupts()
    for value in ("first", "again"):
        interrupts.seen([Interrupt(value=value, id="i")])
    assert interrupts.resolve([]) == (ev.Interrupt("i", "again"),)


@pytest.mark.parametrize("error", [GraphInterrupt(), GraphInterrupt(()), RuntimeError("no sequence"), RuntimeError(3)])
def test_an_error_that_holds_no_interrupt_links_nothing(error: BaseException) -> None:
    interrupts = Interrupts()
    interrupts.raised_by("call_1", error)
    interrupts.seen([Interrupt(value="?", id="i")])
    assert interrupts.resolve([]) == (ev.Interrupt("i", "?"),)


def test_nothing_is_pending_before_anything_was_seen() -> None:
    assert not Interrupts().pending
    assert Interrupts().resolve([("call_1", "send")]) == ()
