"""The log of one run, in memory: written once, read by any number of cursors.

There are no queues between the writer and its readers. A reader that is slow or gone costs only itself: while
even the fastest reader is `LAG` events behind, deltas that nobody has read yet are merged, so that memory grows
with the text and not with the number of its pieces.
"""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Sequence

import msgspec

from agent_server.events import TERMINAL, ArgsDelta, Event, ReasoningDelta, RefusalDelta, TextDelta

LAG = 4096
_MERGED_CHARS = 4096
_DELTAS = (TextDelta, ReasoningDelta, RefusalDelta, ArgsDelta)


class EventLog:
    """The events of one run, numbered from 0. Append and read on one event loop."""

    def __init__(self) -> None:
        self._events: list[Event] = []
        self._wakers: list[asyncio.Future[None]] = []
        self._merge_from = LAG  # how far the fastest reader is, and as much as it may be behind
        self.closed = False

    def __len__(self) -> int:
        return len(self._events)

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
        if self.closed:
            waker.set_result(None)
        else:
            self._wakers.append(waker)
        return waker

    async def batches(self, after: int = 0) -> AsyncIterator[list[Event]]:
        """A cursor: all events from number `after` on, as many at once as there are, until the terminal one."""
        while True:
            batch = self.read(after)
            if batch:
                after += len(batch)
                yield batch
            elif self.closed:
                return
            else:
                await self.waiter()
