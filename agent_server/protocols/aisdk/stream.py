"""One message of the assistant as a stream: the logs of its runs, one after the other, and the framing of chunks."""

from __future__ import annotations

import asyncio
from collections.abc import Sequence

from agent_server import framing
from agent_server.events import Event
from agent_server.framing import Framing
from agent_server.runs.log import EventLog

FRAMING = Framing(write=framing.data_only, heartbeat=b": ping\n\n", end=framing.DONE, media_type="text/event-stream")
HEADERS = {"x-vercel-ai-ui-message-stream": "v1"}
"""What `UI_MESSAGE_STREAM_HEADERS` has beside every stream's own."""


class Following(EventLog):
    """The log of a run that goes on in the message of earlier runs, whose events come first."""

    def __init__(self, before: Sequence[Event], log: EventLog) -> None:
        super().__init__()
        self._before = list(before)
        self._log = log

    def __len__(self) -> int:
        return len(self._before) + len(self._log)

    @property
    def over(self) -> bool:
        """Whether the terminal event of the last run is there to be read."""
        return self._log.over

    def read(self, after: int, limit: int | None = None) -> list[Event]:
        """The events from number `after` on, at most `limit` of them."""
        count = len(self._before)
        if after >= count:
            return self._log.read(after - count, limit)
        return self._before[after : None if limit is None else after + limit]

    def waiter(self) -> asyncio.Future[None]:
        """A future that is done once the last run's log has grown."""
        return self._log.waiter()
