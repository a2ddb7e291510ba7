"""The exporter process: reads records from its standard input until that ends, and brings them to MLflow."""

from __future__ import annotations

import logging
import os
import signal
import sys
import threading
import time
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from contextlib import nullcontext
from typing import TYPE_CHECKING, Any, BinaryIO, Protocol

from agent_server.tracing.record import Answer, FeedbackRecord, Progress, Record, Reply, TraceRecord, pack, records

if TYPE_CHECKING:
    from agent_server.tracing.writer import TraceWriter, Written

NICENESS = 15
"""Serving goes before tracing, where both want the same core. Starting does not: what waits for it is the queue."""

MAX_SPANS = 1500
"""Spans that wait for their export; MLflow holds 2,048 and drops what is beyond."""

MAX_FEEDBACK = 100
"""Pieces of feedback that wait for the tracking server; those beyond are refused."""

LAST_WORDS = 300
"""Seconds for what is left when the server is gone."""

DEFAULTS = {
    "MLFLOW_ASYNC_TRACE_LOGGING_MAX_SPAN_BATCH_SIZE": "512",
    "MLFLOW_ASYNC_TRACE_LOGGING_MAX_INTERVAL_MILLIS": "1000",
    "MLFLOW_HTTP_REQUEST_TIMEOUT": "10",
    "MLFLOW_HTTP_REQUEST_MAX_RETRIES": "2",
    "MLFLOW_MODEL_CATALOG_URI": "",
    "MLFLOW_DISABLE_TELEMETRY": "true",
}
"""MLflow's settings where the operator has none: large batches, no long wait for a server that is away, and no
connections to others."""


def main() -> None:
    """Entry point of the process."""
    for each in (signal.SIGINT, signal.SIGTERM):  # whoever ends the server ends its pipe, too
        signal.signal(each, signal.SIG_IGN)
    out = os.fdopen(os.dup(1), "wb")
    os.dup2(2, 1)  # what MLflow prints does not belong into the pipe
    sys.argv[:] = ["agent-server"]  # the source that MLflow names in each trace
    for name, value in DEFAULTS.items():
        os.environ.setdefault(name, value)
    os.environ["MLFLOW_USE_DEFAULT_TRACER_PROVIDER"] = "false"  # MLflow is to use the writer's, which takes given ids
    serve(sys.stdin.buffer, out)
    sys.stdout.flush()
    os._exit(0)  # MLflow would flush again, for as long as it takes


def serve(pipe: BinaryIO, out: BinaryIO) -> None:
    """Handle all records; what is left at the end of the pipe has `LAST_WORDS` seconds."""
    from agent_server.tracing.writer import TraceWriter

    os.nice(NICENESS)
    tell = _Teller(out)
    outbox = Outbox(TraceWriter(), tell)
    with Desk(outbox, _assessed, tell) as desk:
        for record in records(pipe):
            if isinstance(record, TraceRecord):
                outbox.add(record)
            else:
                desk.add(record)
        threading.Thread(target=_give_up_after, args=(LAST_WORDS,), daemon=True).start()
    outbox.close()


def _give_up_after(seconds: float) -> None:
    threading.Event().wait(seconds)
    os._exit(1)


class _Teller:
    """Writes replies, from any thread. A server that is gone is told nothing."""

    def __init__(self, out: BinaryIO) -> None:
        self._out = out
        self._lock = threading.Lock()

    def __call__(self, reply: Reply) -> None:
        with self._lock:
            try:
                self._out.write(pack(reply))
                self._out.flush()
            except BrokenPipeError:
                return


class Outbox:
    """Traces on their way to the tracking server. A thread flushes MLflow's queues again and again."""

    def __init__(self, writer: TraceWriter, tell: Callable[[Reply], None]) -> None:
        self._writer = writer
        self._tell = tell
        self._open: list[Written] = []
        self._changed = threading.Condition()
        self._closed = False
        self._failures = _Failures()
        logging.getLogger("mlflow.tracing.export.mlflow_v3").addHandler(self._failures)
        self._thread = threading.Thread(target=self._run, name="flush", daemon=True)
        self._thread.start()

    def add(self, record: TraceRecord) -> None:
        """Make a trace of a record. Waits while there are too many."""
        with self._changed:
            self._changed.wait_for(lambda: sum(len(each.spans) for each in self._open) < MAX_SPANS)
            written = self._writer.write(record)
            if record.ticket:
                self._tell(_unavailable(record) if written is None else Answer(record.ticket, written.as_trace()))
            if written is None:
                self._tell(Progress(exported=0, failed=1))
                return
            self._open.append(written)
            self._changed.notify_all()

    def wait_for(self, trace_id: str) -> None:
        """Wait until a trace is no longer on its way."""
        with self._changed:
            self._changed.wait_for(lambda: all(each.trace_id != trace_id for each in self._open))

    def close(self) -> None:
        """Wait until all is exported."""
        with self._changed:
            self._closed = True
            self._changed.notify_all()
        self._thread.join()

    def _run(self) -> None:
        import mlflow

        while True:
            with self._changed:
                self._changed.wait_for(lambda: self._open or self._closed)
                batch = list(self._open)
            if not batch:
                return
            mlflow.flush_trace_async_logging()
            joined = [each for each in batch if each.joined]
            for each in joined:
                self._writer.complete(each)
            failed = self._failures.take(len(batch))
            self._tell(Progress(exported=len(batch) - failed, failed=failed))
            with self._changed:
                del self._open[: len(batch)]
                self._writer.forget({each.trace_id for each in joined} - {each.trace_id for each in self._open})
                self._changed.notify_all()


class _Failures(logging.Handler):
    """Counts the warnings by which alone MLflow tells of a trace that it could not export."""

    def __init__(self) -> None:
        super().__init__(logging.WARNING)
        self._count = 0

    def emit(self, record: logging.LogRecord) -> None:
        """One warning."""
        self._count += "Failed to send trace" in record.getMessage()

    def take(self, most: int) -> int:
        """How many there were since the last time; those that are more than `most` are told the next time."""
        with self.lock or nullcontext():
            taken = min(self._count, most)
            self._count -= taken
        return taken


class Traces(Protocol):
    """What feedback is about."""

    def wait_for(self, trace_id: str) -> None:
        """Wait until a trace is no longer on its way."""
        ...


class Desk:
    """Feedback on its way to the tracking server. As a context it ends once all of it is there."""

    def __init__(self, outbox: Traces, log: Callable[[FeedbackRecord], Answer], tell: Callable[[Reply], None]) -> None:
        self._outbox = outbox
        self._log = log
        self._tell = tell
        self._room = threading.Semaphore(MAX_FEEDBACK)
        self._pool = ThreadPoolExecutor(4, thread_name_prefix="feedback")

    def __enter__(self) -> Desk:
        return self

    def __exit__(self, *_: object) -> None:
        self._pool.shutdown()

    def add(self, record: FeedbackRecord) -> None:
        """Log the feedback, after the trace that it is about. Does not wait."""
        if self._room.acquire(blocking=False):
            self._pool.submit(self._handle, record).add_done_callback(lambda _: self._room.release())
        else:
            self._tell(_unavailable(record))

    def _handle(self, record: FeedbackRecord) -> None:
        self._outbox.wait_for(record.trace_id)
        if time.time_ns() < record.until:  # else nobody waits any more, and is likely to have asked again
            self._tell(self._log(record))


def _unavailable(record: Record) -> Answer:
    return Answer(record.ticket, error="unavailable")


def _assessed(record: FeedbackRecord) -> Answer:
    import mlflow
    from mlflow.entities import AssessmentSource, AssessmentSourceType
    from mlflow.exceptions import MlflowException

    try:
        assessment: Any = mlflow.log_feedback(
            trace_id=record.trace_id,
            name=record.name,
            value=record.value,
            rationale=record.rationale or None,
            span_id=record.span_id or None,
            source=AssessmentSource(source_type=AssessmentSourceType.HUMAN, source_id=record.user or "anonymous"),
        )
    except MlflowException as error:
        meanings = {"RESOURCE_DOES_NOT_EXIST": "not_found", "INVALID_PARAMETER_VALUE": "invalid"}
        logging.getLogger("agent_server.tracing").warning("Feedback was not logged: %s", error.message)
        return Answer(record.ticket, error=meanings.get(error.error_code, "unavailable"))
    return Answer(record.ticket, assessment.to_dictionary())
