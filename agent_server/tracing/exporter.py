"""The server's side of the pipe: the exporter process, the bounded queue before it, and the count of what is lost.

Nothing here makes the event loop wait. A thread starts the process and writes to it; a second one reads what it
answers. While the process is busy with a slow tracking server the queue fills; once it is full, records are dropped.
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

import msgspec

from agent_server.tracing.record import Answer, Progress, Record, TraceRecord, pack, replies

logger = logging.getLogger("agent_server.tracing")

MAX_RECORDS = 1000
MAX_BYTES = 64 * 2**20
PATIENCE = 5.0
"""Seconds that an answer may take."""
RESTART_SECONDS = 10.0
"""Seconds between two starts of the process, should it die."""
WARN_SECONDS = 30.0

_ROOT = str(Path(__file__).parents[2])
_SCRIPT = f"import sys; sys.path.append({_ROOT!r}); from agent_server.tracing.process import main; main()"
COMMAND = (sys.executable, "-P", "-c", _SCRIPT)


class Counts(msgspec.Struct):
    """What became of traces: at the tracking server, refused by it, lost before it."""

    exported: int = 0
    failed: int = 0
    dropped: int = 0


class Exporter:
    """The exporter process. It starts with the first record, or when told to."""

    def __init__(
        self, command: tuple[str, ...] = COMMAND, *, max_records: int = MAX_RECORDS, max_bytes: int = MAX_BYTES
    ) -> None:
        self.counts = Counts()
        self._command = command
        self._max_records = max_records
        self._max_bytes = max_bytes
        self._queue: deque[tuple[bytes, int]] = deque()  # messages, and how many traces each of them is
        self._bytes = 0
        self._changed = threading.Condition()  # guards the queue and the counts
        self._closed = False
        self._warn_at = 0.0
        self._tickets = count(1)
        self._waiting: dict[int, Future[Answer]] = {}
        self._writer: threading.Thread | None = None
        self._written: Future[None] = Future()  # done when the writing thread ends
        self._link: _Link | None = None
        self._restart_at = 0.0

    def start(self) -> None:
        """Start the process, in a thread."""
        with self._changed:
            if self._writer is None and not self._closed:
                self._writer = threading.Thread(target=self._write, name="trace-writer", daemon=True)
                self._writer.start()

    def put(self, record: Record) -> bool:
        """Queue a record. False when there is no room for it; a trace is then counted as dropped."""
        data, traces = pack(record), int(isinstance(record, TraceRecord))
        self.start()
        with self._changed:
            full = len(self._queue) >= self._max_records or self._bytes + len(data) > self._max_bytes
            if full or self._closed:
                self._drop(traces)
                return False
            self._queue.append((data, traces))
            self._bytes += len(data)
            self._changed.notify()
            return True

    async def ask(self, make: Callable[[int], Record], patience: float = PATIENCE) -> Answer:
        """Queue the record made for a ticket, and wait for its answer. One that does not come is "unavailable"."""
        ticket = next(self._tickets)
        future = self._waiting[ticket] = Future()
        try:
            if self.put(make(ticket)):
                return await asyncio.wait_for(asyncio.wrap_future(future), patience)
        except TimeoutError:
            pass
        finally:
            del self._waiting[ticket]
        return Answer(ticket, error="unavailable")

    async def aclose(self, patience: float) -> None:
        """Let the process bring away what there is, for so many seconds; what is left then is dropped."""
        with self._changed:
            self._closed = True
            self._changed.notify()
        if self._writer is None:
            return
        written = asyncio.wrap_future(self._written)
        await asyncio.wait({written}, timeout=patience)
        if not written.done():
            with self._changed:
                self._drop(sum(traces for _, traces in self._queue))
                self._queue.clear()
            if self._link is not None:
                self._link.process.kill()
            await written

    def _drop(self, traces: int) -> None:
        with self._changed:
            self.counts.dropped += traces
            if traces and time.monotonic() >= self._warn_at:
                self._warn_at = time.monotonic() + WARN_SECONDS
                logger.warning("Traces are lost, %d so far: their exporter does not keep up.", self.counts.dropped)

    # -- the writing thread --------------------------------------------------------------------------------

    def _write(self) -> None:
        self._linked()
        while (message := self._next()) is not None:
            data, traces = message
            link = self._linked()
            if link is None:
                self._drop(traces)
            elif not link.send(data, traces):
                self._unlink()
        self._unlink()
        self._written.set_result(None)

    def _next(self) -> tuple[bytes, int] | None:
        with self._changed:
            while not self._queue and not self._closed:
                self._changed.wait()
            if not self._queue:
                return None
            data, traces = self._queue.popleft()
            self._bytes -= len(data)
            return data, traces

    def _linked(self) -> _Link | None:
        """The process; a new one where it has died, unless it has only just been started."""
        if self._link is not None and self._link.process.poll() is not None:
            self._unlink()
        if self._link is None and time.monotonic() >= self._restart_at:
            self._restart_at = time.monotonic() + RESTART_SECONDS
            self._link = _Link(self._command, self._waiting, self.counts)
        return self._link

    def _unlink(self) -> None:
        """Wait until the process has read what was sent and ended; what it took along is lost."""
        if self._link is not None:
            code = self._link.end()
            if code:
                logger.warning("The exporter of traces ended with %s.", code)
            self._drop(self._link.sent - self._link.told)
            self._link = None


class _Link:
    """One exporter process and what went to and fro. The writing thread sends, another one reads."""

    def __init__(self, command: tuple[str, ...], waiting: dict[int, Future[Answer]], counts: Counts) -> None:
        self.sent = 0  # traces; of them
        self.told = 0  # it told what became of so many
        self._waiting = waiting
        self._counts = counts
        self.process = subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE)  # noqa: S603 - our own
        self._reader = threading.Thread(target=self._read, name="trace-reader", daemon=True)
        self._reader.start()

    def send(self, data: bytes, traces: int) -> bool:
        """Write one message. False when nobody reads it."""
        pipe = self.process.stdin
        self.sent += traces
        try:
            if pipe is not None:
                pipe.write(data)
                pipe.flush()
        except OSError:
            return False
        return True

    def end(self) -> int:
        """Close the pipe, wait, and leave nobody waiting for an answer. The process's exit code."""
        if self.process.stdin is not None:
            with suppress(OSError):
                self.process.stdin.close()
        code = self.process.wait()
        self._reader.join()
        for future in list(self._waiting.values()):
            _settle(future, Answer(0, error="unavailable"))
        return code

    def _read(self) -> None:
        if self.process.stdout is None:
            return
        with self.process.stdout as pipe:
            for reply in replies(pipe):
                if isinstance(reply, Progress):
                    self._counts.exported += reply.exported
                    self._counts.failed += reply.failed
                    self.told += reply.exported + reply.failed
                elif (future := self._waiting.get(reply.ticket)) is not None:
                    _settle(future, reply)


def _settle(future: Future[Answer], answer: Answer) -> None:
    if not future.done() and future.set_running_or_notify_cancel():
        future.set_result(answer)
