"""Gates: the way tests order what runs at the same time, without sleeping."""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from concurrent.futures import Future

PATIENCE = 30.0
"""Seconds after which a gate that nobody opens fails the test instead of hanging it."""


class Gate:
    """Closed until opened, from any thread and any event loop; whoever waits for it goes on then."""

    def __init__(self) -> None:
        self._opened: Future[None] = Future()
        self._reached: Future[None] = Future()

    def open(self) -> None:
        """Let everyone through, now and later."""
        _settle(self._opened)

    def reset(self) -> None:
        """Close again. Only while nobody waits."""
        self._opened, self._reached = Future(), Future()

    @property
    def is_open(self) -> bool:
        """Whether everybody is let through."""
        return self._opened.done()

    @property
    def is_reached(self) -> bool:
        """Whether anybody has come to the gate."""
        return self._reached.done()

    def wait(self) -> None:
        """Block this thread until the gate opens."""
        _settle(self._reached)
        self._opened.result(PATIENCE)

    async def passed(self) -> None:
        """Suspend this task until the gate opens."""
        _settle(self._reached)
        await _outcome(self._opened)

    async def reached(self) -> None:
        """Suspend this task until somebody comes to the gate."""
        await _outcome(self._reached)

    def wait_reached(self) -> None:
        """Block this thread until somebody comes to the gate."""
        self._reached.result(PATIENCE)


def _settle(future: Future[None]) -> None:
    if not future.done():
        future.set_result(None)


async def _outcome(future: Future[None]) -> None:
    async with asyncio.timeout(PATIENCE):
        await asyncio.shield(asyncio.wrap_future(future))


class Opens:
    """A step of a script that opens a gate."""

    def __init__(self, gate: Gate) -> None:
        self.gate = gate


class Calls:
    """A step of a script that calls a function, to note how far the model came."""

    def __init__(self, function: Callable[[], object]) -> None:
        self.function = function
