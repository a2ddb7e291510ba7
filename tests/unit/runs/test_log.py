"""The log of a run: written once, read by any number of cursors."""

from __future__ import annotations

import asyncio

import pytest

from agent_server import events as ev
from agent_server.events import Event
from agent_server.runs import log as log_module
from agent_server.runs.log import EventLog

END = ev.RunFinished(at=0)
LAG = 3


@pytest.fixture
def small_lag(monkeypatch: pytest.MonkeyPatch) -> None:
    """A log that merges within a few events."""
    monkeypatch.setattr(log_module, "LAG", LAG)


def delta(text: str, index: int = 0, message: str = "m0") -> ev.TextDelta:
    return ev.TextDelta(message, index, text)


def letters(log: EventLog, text: str) -> None:
    for letter in text:
        log.append(delta(letter))


def read(log: EventLog) -> list[str]:
    return [event.text if isinstance(event, ev.TextDelta) else type(event).__name__ for event in log.read(0)]


async def everything(log: EventLog, after: int = 0) -> list[Event]:
    return [event async for batch in log.batches(after) for event in batch]


def test_events_are_numbered_in_the_order_in_which_they_were_appended() -> None:
    log = EventLog()
    log.extend([delta("a"), delta("b"), END])
    assert len(log) == 3
    assert log.read(0) == [delta("a"), delta("b"), END]
    assert log.read(1) == [delta("b"), END]
    assert log.read(0, limit=2) == [delta("a"), delta("b")]
    assert log.read(3) == log.read(9) == []


@pytest.mark.parametrize(
    "terminal",
    [
        ev.RunFinished(at=0),
        ev.RunInterrupted(at=0, interrupts=()),
        ev.RunFailed(at=0, code="server_error", message="", error_id=""),
        ev.RunCancelled(at=0, reason=""),
    ],
)
def test_nothing_follows_the_terminal_event(terminal: Event) -> None:
    log = EventLog()
    assert log.append(delta("a"))
    assert log.append(terminal)
    assert log.closed
    assert not log.append(delta("b"))
    assert not log.append(terminal)
    log.extend([delta("c"), END])
    assert log.read(0) == [delta("a"), terminal]


# Merging


@pytest.mark.usefixtures("small_lag")
def test_nothing_is_merged_while_a_reader_keeps_up() -> None:
    log = EventLog()
    for letter in "abcdefgh":
        log.append(delta(letter))
        log.read(0)
    assert read(log) == list("abcdefgh")


@pytest.mark.usefixtures("small_lag")
def test_deltas_are_merged_beyond_the_lag_alone() -> None:
    log = EventLog()
    letters(log, "abcdefgh")
    assert read(log) == ["a", "b", "c", "defgh"]


@pytest.mark.usefixtures("small_lag")
def test_what_somebody_has_read_is_never_changed() -> None:
    log = EventLog()
    letters(log, "abcdef")
    seen = log.read(0)
    letters(log, "ghijkl")
    assert log.read(0)[: len(seen)] == seen
    assert read(log) == ["a", "b", "c", "def", "g", "h", "i", "jkl"]


@pytest.mark.usefixtures("small_lag")
def test_the_fastest_reader_counts_and_a_slow_one_reads_the_same() -> None:
    log = EventLog()
    fast: list[Event] = []
    slow: list[Event] = []
    for letter in "abcdefghijkl":
        log.append(delta(letter))
        fast += log.read(len(fast))
        if letter in "bf":
            slow += log.read(len(slow), limit=1)
    slow += log.read(len(slow))
    assert slow == fast == [delta(letter) for letter in "abcdefghijkl"]


@pytest.mark.usefixtures("small_lag")
@pytest.mark.parametrize(
    "other",
    [
        delta("x", index=1),
        delta("x", message="m1"),
        ev.ReasoningDelta("m0", 0, "x"),
        ev.BlockFinished("m0", 0, "text", "x"),
        ev.Custom("x", 1),
    ],
)
def test_only_deltas_of_the_same_kind_and_block_are_merged(other: Event) -> None:
    log = EventLog()
    letters(log, "abcd")
    log.append(other)
    letters(log, "e")
    assert log.read(0)[-2:] == [other, delta("e")]


@pytest.mark.usefixtures("small_lag")
@pytest.mark.parametrize("kind", [ev.TextDelta, ev.ReasoningDelta, ev.RefusalDelta, ev.ArgsDelta])
def test_every_kind_of_delta_is_merged(kind: type[ev.TextDelta]) -> None:
    log = EventLog()
    for letter in "abcdef":
        log.append(kind("m0", 0, letter))
    assert log.read(0)[-1] == kind("m0", 0, "def")


@pytest.mark.usefixtures("small_lag")
def test_a_merged_delta_has_a_bounded_length() -> None:
    log = EventLog()
    for _ in range(100):
        log.append(delta("x" * 1000))
    lengths = [len(event.text) for event in log.read(LAG) if isinstance(event, ev.TextDelta)]
    assert max(lengths) == 4000
    assert len(log) < 30


def test_a_log_that_nobody_reads_grows_with_the_text_and_not_with_its_pieces() -> None:
    log = EventLog()
    for _ in range(100_000):
        log.append(delta("x"))
    log.append(END)
    assert len(log) < log_module.LAG + 100_000 / 1000
    assert sum(len(event.text) for event in log.read(0) if isinstance(event, ev.TextDelta)) == 100_000


# Waiting


async def test_a_cursor_ends_with_the_terminal_event() -> None:
    log = EventLog()
    log.extend([delta("a"), END])
    assert await everything(log) == [delta("a"), END]
    assert await everything(log, after=1) == [END]
    assert await everything(log, after=2) == []


async def test_every_reader_that_waits_is_woken() -> None:
    log = EventLog()
    readers = [asyncio.create_task(everything(log)) for _ in range(3)]
    await asyncio.sleep(0)
    for letter in "ab":
        log.append(delta(letter))
        await asyncio.sleep(0)
    log.append(END)
    assert await asyncio.gather(*readers) == [[delta("a"), delta("b"), END]] * 3


async def test_two_cursors_each_see_every_event_whenever_they_come() -> None:
    log = EventLog()
    letters(log, "ab")
    early = asyncio.create_task(everything(log))
    await asyncio.sleep(0)
    letters(log, "cd")
    late = asyncio.create_task(everything(log, after=3))
    await asyncio.sleep(0)
    log.append(END)
    whole = [*(delta(letter) for letter in "abcd"), END]
    assert await early == whole
    assert await late == whole[3:]


async def test_events_that_are_there_together_come_in_one_batch() -> None:
    log = EventLog()
    letters(log, "abc")
    batches = log.batches()
    assert len(await anext(batches)) == 3
    letters(log, "de")
    log.append(END)
    assert len(await anext(batches)) == 3
    with pytest.raises(StopAsyncIteration):
        await anext(batches)


async def test_a_reader_that_is_gone_costs_the_others_nothing() -> None:
    log = EventLog()
    gone, stays = asyncio.create_task(everything(log)), asyncio.create_task(everything(log))
    await asyncio.sleep(0)
    gone.cancel()
    await asyncio.wait({gone})
    log.append(END)
    assert await stays == [END]


async def test_waiting_for_a_log_that_has_ended_is_over_at_once() -> None:
    log = EventLog()
    log.append(END)
    assert log.waiter().done()


@pytest.mark.usefixtures("small_lag")
def test_what_a_log_knows_from_a_store_is_never_merged() -> None:
    log = EventLog()
    events = [delta(letter) for letter in "abcdefgh"]
    log.know(0, events)
    log.know(5, [*events[5:], delta("i"), END])  # some of it is known already
    assert log.read(0) == [*events, delta("i"), END]
    assert log.over
    log.know(10, [delta("late")])
    assert len(log) == 10


async def test_readers_that_left_leave_nothing_in_the_log_they_waited_for() -> None:
    log = EventLog()
    staying = log.waiter()
    for _ in range(10_000):
        log.waiter().cancel()
    assert len(log._wakers) < 200
    log.append(END)
    await staying
