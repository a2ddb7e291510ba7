"""An event loop for synchronous callers: items in turn, contexts left by who entered them, an end to all of it."""

from __future__ import annotations

import asyncio
import signal
import threading
from collections.abc import AsyncGenerator, AsyncIterator, Iterator
from contextlib import asynccontextmanager
from typing import Any

import pytest

from agent_server.runs.loop_thread import LoopThread
from tests.support.gates import Gate


@pytest.fixture
def loop() -> Iterator[LoopThread]:
    made = LoopThread()
    yield made
    made.close()


def test_an_item_is_asked_for_when_the_one_before_it_has_been_taken(loop: LoopThread) -> None:
    made: list[int] = []

    async def count() -> AsyncGenerator[int]:
        for number in range(1, 4):
            made.append(number)
            yield number

    taken = []
    for item in loop.iterate(count()):
        taken.append(item)
        assert made == taken
    assert taken == [1, 2, 3]


class Keyboard:
    """Interrupts the thread that made it, which must be the main one, exactly once."""

    def __init__(self) -> None:
        self._thread = threading.get_ident()
        self._heard = threading.Event()

    def hear(self, *_: object) -> None:
        """The signal's handler."""
        if not self._heard.is_set():
            self._heard.set()
            raise KeyboardInterrupt

    def interrupt(self) -> None:
        """Return when it has been heard: a signal that comes just before a thread blocks does not wake it."""
        while not self._heard.is_set():
            signal.pthread_kill(self._thread, signal.SIGINT)
            self._heard.wait(0.01)


@pytest.fixture
def keyboard() -> Iterator[Keyboard]:
    made = Keyboard()
    before = signal.signal(signal.SIGINT, made.hear)
    yield made
    signal.signal(signal.SIGINT, before)


@pytest.mark.parametrize("turns", [0, 20])
def test_a_caller_that_is_interrupted_waits_until_the_generator_has_ended(
    loop: LoopThread, keyboard: Keyboard, turns: int
) -> None:
    reached, ended = Gate(), []

    async def talk() -> AsyncGenerator[int]:
        try:
            yield 1
            reached.open()
            await asyncio.Event().wait()
        finally:
            for _ in range(turns):  # of the loop, that cleaning up takes
                await asyncio.sleep(0)
            ended.append("talk")

    def interrupt() -> None:
        reached.wait()
        keyboard.interrupt()

    interrupting = threading.Thread(target=interrupt)
    interrupting.start()
    with pytest.raises(KeyboardInterrupt):
        list(loop.iterate(talk()))
    assert ended == ["talk"]
    interrupting.join()


def test_a_context_is_left_by_the_task_that_entered_it_when_the_loop_ends() -> None:
    tasks: list[Any] = []

    @asynccontextmanager
    async def connection() -> AsyncIterator[str]:
        tasks.append(asyncio.current_task())
        yield "open"
        tasks.append(asyncio.current_task())

    loop = LoopThread()
    assert loop.enter(connection()) == "open"
    assert len(tasks) == 1
    loop.close()
    assert tasks[0] is tasks[1]


def test_a_context_that_cannot_be_entered_raises_its_own_exception(loop: LoopThread) -> None:
    @asynccontextmanager
    async def broken() -> AsyncIterator[float]:
        yield 1 / 0

    with pytest.raises(ZeroDivisionError):
        loop.enter(broken())


def test_a_loop_that_nobody_refers_to_ends_its_thread() -> None:
    before = set(threading.enumerate())
    loop = LoopThread()
    (thread,) = set(threading.enumerate()) - before
    del loop
    assert not thread.is_alive()
