"""The server's side of the pipe: the exporter process, the bounded queue before it, and the count of what is lost.

Nothing here makes the event loop wait. One thread owns the process: it starts it, writes to it and clears it away. A
second one reads what the process answers. While the process is busy with a slow tracking server the queue fills; once
it is full, records are dropped.
"""

from __future__ import annotations

import asyncio
import logging
import subprocess
import sys
import threading
import time
from collections import deque
from collections.abc import Callable
from concurrent.futures import Future
from contextlib import suppress
from itertools import count
from pathlib import Path
from typing import IO, NamedTuple, cast

import msgspec

from agent_server.tracing.record import Answer, Progress, Record, Reply, TraceRecord, pack, replies

logger = logging.getLogger("agent_server.tracing")

MAX_RECORDS = 1000
MAX_BYTES = 64 * 2**20
PATIENCE = 5.0
"""Seconds that an answer may take."""
RESTART_SECONDS = 10.0
"""Seconds between two starts of the process, should it die."""
WARN_SECONDS = 30.0

_ROOT = str(Path(__file__).parents[2])
_SCRIPT = (
    f"import sys; sys.path.insert(0, {_ROOT!r}); import agent_server; del sys.path[0]; "  # this very package
    "from agent_server.tracing.process import main; main()"
)
COMMAND = (sys.executable, "-P", "-c", _SCRIPT)


class Counts(msgspec.Struct):
    """What became of traces: at the tracking server, refused by it, lost before it."""

    exported: int = 0
    failed: int = 0
    dropped: int = 0


class _Message(NamedTuple):
    """A record, packed."""

    data: bytes
    traces: int  # 1 for a trace, 0 for anything else
    ticket: int
    answer: Future[Answer] | None


class Exporter:
    """The exporter process. It starts with the first record, or when told to."""

    def __init__(
        self,
        command: tuple[str, ...] = COMMAND,
        *,
        max_records: int = MAX_RECORDS,
        max_bytes: int = MAX_BYTES,
        restart_seconds: float = RESTART_SECONDS,
    ) -> None:
        self.counts = Counts()
        self._command = command
        self._max_records = max_records
        self._max_bytes = max_bytes
        self._restart_seconds = restart_seconds
        self._restart_at = 0.0
        self._warn_at = 0.0
        self._tickets = count(1)
        self._changed = threading.Condition()  # guards the counts and all that follows
        self._queue: deque[_Message] = deque()
        self._bytes = 0  # in the queue
        self._away = 0  # traces that have left the queue, and of which nothing was heard
        self._asked: dict[int, Future[Answer]] = {}  # questions of which the same is true
        self._closed = False
        self._given_up = False
        self._link: _Link | None = None
        self._writer: threading.Thread | None = None

    def start(self) -> None:
        """Start the process, in a thread."""
        with self._changed:
            if self._writer is None and not self._closed:
                self._writer = threading.Thread(target=self._write, name="trace-writer", daemon=True)
                self._writer.start()

    def put(self, record: Record, answer: Future[Answer] | None = None) -> bool:
        """Queue a record. False when there is no room for it; a trace is then counted as dropped."""
        message = _Message(pack(record), int(isinstance(record, TraceRecord)), record.ticket, answer)
        self.start()
        with self._changed:
            full = len(self._queue) >= self._max_records or self._bytes + len(message.data) > self._max_bytes
            if full or self._closed:
                self._drop(message.traces)
                return False
            self._queue.append(message)
            self._bytes += len(message.data)
            self._changed.notify()
            return True

    async def ask(self, make: Callable[[int], Record], patience: float = PATIENCE) -> Answer:
        """Queue the record made for a ticket, and wait for its answer. One that does not come is "unavailable"."""
        ticket, answer = next(self._tickets), Future[Answer]()
        if self.put(make(ticket), answer):
            with suppress(TimeoutError):
                return await asyncio.wait_for(asyncio.wrap_future(answer), patience)
        return Answer(ticket, error="unavailable")

    async def aclose(self, patience: float) -> None:
        """Let the process bring away what there is, for so many seconds; what is left then is dropped."""
        with self._changed:
            self._closed = True
            self._changed.notify()
            writer = self._writer
        if writer is not None:
            await asyncio.to_thread(writer.join, patience)
            self._give_up()
            await asyncio.to_thread(writer.join)

    def _give_up(self) -> None:
        with self._changed:
            self._given_up = True
            while self._queue:
                self._take()
            if self._link is not None:
                self._link.process.kill()

    # -- what becomes of records; with the lock held ------------------------------------------------------------

    def _take(self) -> bytes:
        """The next message. From now on it is on its way, and lost if the process is."""
        message = self._queue.popleft()
        self._bytes -= len(message.data)
        self._away += message.traces
        if message.answer is not None:
            self._asked[message.ticket] = message.answer
        return message.data

    def _answer(self, answer: Answer) -> None:
        future = self._asked.pop(answer.ticket, None)
        if future is not None and future.set_running_or_notify_cancel():
            future.set_result(answer)

    def _lose(self) -> None:
        """Nothing will be heard of what is on its way."""
        self._drop(self._away)
        self._away = 0
        for ticket in list(self._asked):
            self._answer(Answer(ticket, error="unavailable"))

    def _drop(self, traces: int) -> None:
        self.counts.dropped += traces
        if traces and time.monotonic() >= self._warn_at:
            self._warn_at = time.monotonic() + WARN_SECONDS
            logger.warning("Traces are lost, %d so far: their exporter does not keep up.", self.counts.dropped)

    # -- the reading thread ----------------------------------------------------------------------------------------

    def _hear(self, reply: Reply | None) -> None:
        """What the process said; None when it will say no more."""
        with self._changed:
            if isinstance(reply, Progress):
                self.counts.exported += reply.exported
                self.counts.failed += reply.failed
                self._away -= reply.exported + reply.failed
            elif reply is not None:
                self._answer(reply)
            else:
                self._changed.notify()

    # -- the writing thread ----------------------------------------------------------------------------------------

    def _write(self) -> None:
        self._linked()
        while (data := self._next()) is not None:
            link = self._linked()
            if link is not None:
                link.send(data)
            else:
                with self._changed:
                    self._lose()
        self._unlink()

    def _next(self) -> bytes | None:
        """The next message, None after the last. A process that ends meanwhile is cleared away at once."""
        while True:
            with self._changed:
                self._changed.wait_for(lambda: self._queue or self._closed or self._ended())
                if not self._ended():
                    return self._take() if self._queue else None
            self._unlink()

    def _ended(self) -> bool:
        return self._link is not None and self._link.ended.is_set()

    def _linked(self) -> _Link | None:
        """The process; a new one where there is none, unless one has only just been started."""
        if self._link is None and time.monotonic() >= self._restart_at:
            self._restart_at = time.monotonic() + self._restart_seconds
            try:
                link = _Link(self._command, self._hear)
            except OSError as error:
                logger.warning("The exporter of traces does not start: %s", error)
                return None
            with self._changed:
                self._link = link
                if self._given_up:
                    link.process.kill()
        return self._link

    def _unlink(self) -> None:
        """Wait until the process has read what it was sent and has ended; what it took along is lost."""
        code = self._link.end() if self._link is not None else 0
        with self._changed:
            self._link = None
            self._lose()
        if code and not self._given_up:
            logger.warning("The exporter of traces ended with %s.", code)


class _Link:
    """One exporter process. `ended` is set when it will say no more."""

    def __init__(self, command: tuple[str, ...], hear: Callable[[Reply | None], None]) -> None:
        self.ended = threading.Event()
        self.process = subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE)  # noqa: S603 - our own
        self._stdin, self._stdout = cast("IO[bytes]", self.process.stdin), cast("IO[bytes]", self.process.stdout)
        self._hear = hear
        self._reader = threading.Thread(target=self._read, name="trace-reader", daemon=True)
        self._reader.start()

    def send(self, data: bytes) -> None:
        """Write one message, as soon as there is room in the pipe. A process that is gone does not get it."""
        with suppress(OSError):
            self._stdin.write(data)
            self._stdin.flush()

    def end(self) -> int:
        """Close the pipe and wait until the process has ended. Its exit code."""
        with suppress(OSError):
            self._stdin.close()
        code = self.process.wait()
        self._reader.join()
        return code

    def _read(self) -> None:
        with self._stdout:
            for reply in replies(self._stdout):
                self._hear(reply)
        self.ended.set()
        self._hear(None)
