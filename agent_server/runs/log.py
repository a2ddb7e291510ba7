"""The log of one run: written once, read by any number of cursors.

There are no queues between the writer and its readers. A reader that is slow or gone costs only itself: while
even the fastest reader is `LAG` events behind, deltas that nobody has read yet are merged, so that memory grows
with the text and not with the number of its pieces.
"""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Callable, Sequence

import msgspec

from agent_server.events import TERMINAL, ArgsDelta, Event, ReasoningDelta, RefusalDelta, RunStarted, TextDelta

LAG = 4096
_MERGED_CHARS = 4096
_WAKERS = 64  # fewer are not worth a look at who has stopped waiting
_DELTAS = (TextDelta, ReasoningDelta, RefusalDelta, ArgsDelta)


class EventLog:
    """The events of one run, numbered from 0, in memory. Append and read on one event loop.

    `closed` says that nothing can be appended any more, `over` that readers may see all of it. `base` is the place of
    its first event in its thread's sequence, once that event is there.
    """

    __slots__ = ("__weakref__", "_events", "_merge_from", "_sweep_at", "_wakers", "base", "closed")

    def __init__(self, events: Sequence[Event] = (), *, base: int = 0) -> None:
        self.base = base
        self._events: list[Event] = list(events)
        self._wakers: list[asyncio.Future[None]] = []
        self._sweep_at = _WAKERS
        self._merge_from = LAG  # how far the fastest reader is, and as much as it may be behind
        self.closed = bool(events) and type(events[-1]) in TERMINAL

    def __len__(self) -> int:
        return len(self._events)

    @property
    def over(self) -> bool:
        """Whether the terminal event is there to be read."""
        return self.closed

    def append(self, event: Event) -> bool:
        """Append one event and wake the readers. After a terminal event every other is refused: False."""
        if self.closed:
            return False
        events = self._events
        if len(events) > self._merge_from and self._merge(event):
            return True
        events.append(event)
        if type(event) in TERMINAL:
            self.closed = True
        if self._wakers:
            self._wake()
        return True

    def extend(self, events: Sequence[Event]) -> None:
        """Append several events in order."""
        for event in events:
            self.append(event)

    def know(self, first: int, events: Sequence[Event]) -> None:
        """Take over what a store has from its event `first` on; some of it may be here already.

        Nothing is merged: the events' numbers are the store's.
        """
        if self.over:
            return
        self._events += events[len(self._events) - first :]
        self.closed = self.closed or (bool(self._events) and type(self._events[-1]) in TERMINAL)
        self._wake()

    def _merge(self, event: Event) -> bool:
        last = self._events[-1]
        if type(event) is not type(last) or not isinstance(event, _DELTAS) or not isinstance(last, _DELTAS):
            return False
        if last.message_id != event.message_id or last.index != event.index:
            return False
        if len(last.text) + len(event.text) > _MERGED_CHARS:
            return False
        self._events[-1] = msgspec.structs.replace(last, text=last.text + event.text)
        return True

    def _wake(self) -> None:
        wakers, self._wakers = self._wakers, []
        for waker in wakers:
            if not waker.done():
                waker.set_result(None)

    def read(self, after: int, limit: int | None = None) -> list[Event]:
        """The events from number `after` on that exist now, at most `limit` of them."""
        events = self._events[after : None if limit is None else after + limit]
        self._merge_from = max(self._merge_from, after + len(events) + LAG)
        return events

    def waiter(self) -> asyncio.Future[None]:
        """A future that is done once the log has grown. Ask for it only after reading all there is."""
        waker: asyncio.Future[None] = asyncio.get_running_loop().create_future()
        if self.over:
            waker.set_result(None)
            return waker
        if len(self._wakers) >= self._sweep_at:  # of readers that left, or had a heartbeat to send
            self._wakers = [each for each in self._wakers if not each.done()]
            self._sweep_at = 2 * len(self._wakers) + _WAKERS
        self._wakers.append(waker)
        return waker

    async def until_over(self) -> None:
        """Wait for the terminal event."""
        while not self.over:
            await self.waiter()

    async def batches(self, after: int = 0) -> AsyncIterator[list[Event]]:
        """A cursor: all events from number `after` on, as many at once as there are, until the terminal one."""
        while True:
            batch = self.read(after)
            if batch:
                after += len(batch)
                yield batch
            elif self.over:
                return
            else:
                await self.waiter()


class KeptLog(EventLog):
    """A log that is written down: readers see of it only what a store has committed.

    `want` is called when there is something to be written; `take` and `kept` are for whoever writes it. What is
    `committed` already begins it.
    """

    __slots__ = ("_kept", "_on_over", "_taken", "_want", "_wanted")

    def __init__(
        self, want: Callable[[KeptLog], object], on_over: Callable[[], object], committed: Sequence[Event] = ()
    ) -> None:
        super().__init__(committed)
        self._want = want
        self._on_over = on_over
        self._wanted = False
        self._taken = self._kept = len(committed)

    @property
    def over(self) -> bool:
        kept = self._kept
        return 0 < kept == len(self._events) and type(self._events[-1]) in TERMINAL

    def append(self, event: Event) -> bool:
        """Append one event, to be seen once it is committed."""
        if self.closed:
            return False
        events = self._events
        if len(events) > self._merge_from and len(events) > self._taken and self._merge(event):
            return True
        events.append(event)
        if type(event) in TERMINAL:
            self.closed = True
        if not self._wanted:
            self._wanted = True
            self._want(self)
        return True

    def read(self, after: int, limit: int | None = None) -> list[Event]:
        """The committed events from number `after` on, at most `limit` of them."""
        until = self._kept if limit is None else min(self._kept, after + limit)
        events = self._events[after:until]
        self._merge_from = max(self._merge_from, after + len(events) + LAG)
        return events

    @property
    def first(self) -> RunStarted:
        """The first event, whether it may be seen or not."""
        first = self._events[0]
        assert isinstance(first, RunStarted)
        return first

    @property
    def pending(self) -> int:
        """How many events are yet to be taken."""
        return len(self._events) - self._taken

    def take(self) -> tuple[int, list[Event]]:
        """What is to be written now, and the number of its first event."""
        first, self._taken, self._wanted = self._taken, len(self._events), False
        return first, self._events[first:]

    def kept(self) -> None:
        """What was taken has been committed."""
        self._kept = self._taken
        self._wake()
        if self.over:
            self._on_over()

    def disown(self) -> None:
        """Nothing of this process is written any more. What is yet to come is known from elsewhere: see `know`."""
        self.closed = True
        del self._events[self._kept :]

    def know(self, first: int, events: Sequence[Event]) -> None:
        """The rest of a log that is disowned."""
        was_over = self.over
        super().know(first, events)
        self._taken = self._kept = len(self._events)
        if self.over and not was_over:
            self._on_over()
