"""The queue before the exporter process: bounded, never in the way, and honest about what is lost."""

from __future__ import annotations

import asyncio
import io
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import msgspec
import pytest

from agent_server.tracing.exporter import Exporter
from agent_server.tracing.record import FeedbackRecord, Record, TraceRecord, pack, records

ROOT = Path(__file__).parents[3]

IDLE = "import signal; signal.pause()"
DEAF = "import sys; sys.stdin.close()"
ECHO = f"""
import sys
sys.path.append({str(ROOT)!r})
from agent_server.tracing.record import Answer, Progress, TraceRecord, pack, records
for record in records(sys.stdin.buffer):
    if isinstance(record, TraceRecord):
        reply = Progress(exported=1, failed=0)
    elif record.name == "die":
        raise SystemExit(3)
    else:
        reply = Answer(record.ticket, body=record.value)
    sys.stdout.buffer.write(pack(reply))
    sys.stdout.buffer.flush()
"""


FLEETING = "import sys; sys.stdin.buffer.read(1)"
PATIENCE, FOREVER = 60.0, 3600.0


def exporter(script: str, **limits: Any) -> Exporter:
    """An exporter whose process is a script."""
    return Exporter((sys.executable, "-c", script), **limits)


def trace(size: int = 0) -> TraceRecord:
    inputs = msgspec.Raw(msgspec.json.encode("x" * size))
    return TraceRecord("1" * 32, "1" * 16, agent="a", start=1, end=2, inputs=inputs, events=[], spans=[])


def feedback(name: str, value: object = None) -> FeedbackRecord:
    return FeedbackRecord(1, until=2, trace_id="tr-1", name=name, value=value)


def question(name: str, value: object = 1) -> Callable[[int], Record]:
    return lambda ticket: FeedbackRecord(ticket, 0, "tr-1", name, value)


async def test_traces_are_counted_when_the_process_tells_what_became_of_them() -> None:
    sink = exporter(ECHO)
    assert all(sink.put(trace()) for _ in range(10))
    await sink.aclose(PATIENCE)
    assert (sink.counts.exported, sink.counts.failed, sink.counts.dropped) == (10, 0, 0)


async def test_a_question_is_answered_by_its_own_ticket() -> None:
    sink = exporter(ECHO)
    answers = [await sink.ask(question("n", n), PATIENCE) for n in range(3)]
    await sink.aclose(PATIENCE)
    assert [answer.body for answer in answers] == [0, 1, 2]


async def test_a_process_that_never_reads_fills_a_queue_of_bounded_length(caplog: pytest.LogCaptureFixture) -> None:
    sink = exporter(IDLE, max_records=5)
    taken = [sink.put(trace(200_000)) for _ in range(20)]  # the pipe takes 64 KiB and blocks the writer, not us
    assert taken[:5] == [True] * 5
    assert not any(taken[7:])
    await sink.aclose(0.1)
    assert sink.counts.dropped == 20
    assert len([each for each in caplog.records if "Traces are lost" in each.message]) == 1


async def test_the_queue_is_bounded_in_bytes_as_well() -> None:
    sink = exporter(IDLE, max_bytes=1_000_000)
    assert sink.put(trace(600_000))
    assert not sink.put(trace(1_000_001))
    await sink.aclose(0.1)


async def test_a_question_to_a_process_that_is_silent_has_no_answer_and_waits_no_longer_than_told() -> None:
    sink = exporter(IDLE)
    assert (await sink.ask(question("n"), 0.1)).error == "unavailable"
    await sink.aclose(0.1)


async def test_who_waits_for_a_process_that_dies_is_told_at_once(caplog: pytest.LogCaptureFixture) -> None:
    sink = exporter(ECHO, restart_seconds=FOREVER)
    sink.put(trace())
    async with asyncio.timeout(PATIENCE):
        dying = await sink.ask(question("die"), FOREVER)
        after = await sink.ask(question("late"), FOREVER)
    assert (dying.error, after.error) == ("unavailable", "unavailable")
    sink.put(trace())
    await sink.aclose(PATIENCE)
    assert (sink.counts.exported, sink.counts.dropped) == (1, 1), "the next one is not started at once"
    assert "ended with 3" in caplog.text


async def test_a_process_that_dies_is_replaced(caplog: pytest.LogCaptureFixture) -> None:
    sink = exporter(ECHO, restart_seconds=0)
    assert (await sink.ask(question("die"), PATIENCE)).error == "unavailable"
    assert (await sink.ask(question("fine"), PATIENCE)).body == 1
    sink.put(trace())
    await sink.aclose(PATIENCE)
    assert (sink.counts.exported, sink.counts.dropped) == (1, 0)


async def test_whenever_a_process_ends_nobody_waits_for_it(caplog: pytest.LogCaptureFixture) -> None:
    sink = exporter(FLEETING, restart_seconds=0)
    async with asyncio.timeout(PATIENCE):
        for _ in range(20):
            sink.put(trace())
            answers = await asyncio.gather(*(sink.ask(question("n"), FOREVER) for _ in range(3)))
            assert {answer.error for answer in answers} == {"unavailable"}
    await sink.aclose(PATIENCE)
    assert sink.counts.dropped == 20


async def test_a_process_that_cannot_be_started_is_one_that_does_not_answer(caplog: pytest.LogCaptureFixture) -> None:
    sink = Exporter(("/nothing/here",))
    async with asyncio.timeout(PATIENCE):
        assert (await sink.ask(question("n"), FOREVER)).error == "unavailable"
    sink.put(trace())
    await sink.aclose(PATIENCE)
    assert sink.counts.dropped == 1
    assert "does not start" in caplog.text


async def test_who_waits_when_the_end_comes_is_told_at_once() -> None:
    sink = exporter(IDLE)
    asking = asyncio.create_task(sink.ask(question("n"), FOREVER))
    await asyncio.sleep(0)
    async with asyncio.timeout(PATIENCE):
        await sink.aclose(0)
        assert (await asking).error == "unavailable"


async def test_a_process_that_does_not_listen_loses_what_it_is_sent() -> None:
    sink = exporter(DEAF)
    for _ in range(3):
        sink.put(trace(200_000))
    await sink.aclose(PATIENCE)
    assert (sink.counts.exported, sink.counts.dropped) == (0, 3)


async def test_nothing_is_taken_and_nothing_is_started_after_the_end() -> None:
    sink = exporter(ECHO)
    await sink.aclose(1)
    assert not sink.put(trace())
    assert sink.counts.dropped == 1


def test_the_server_does_not_import_mlflow_to_trace() -> None:
    script = "import sys, agent_server.app; sys.exit('mlflow' in sys.modules)"
    assert subprocess.run([sys.executable, "-c", script], cwd=ROOT, check=False).returncode == 0


@pytest.mark.parametrize("record", [trace(10), feedback("n", {"tone": 3})])
def test_a_record_is_read_back_as_it_was_written_and_half_of_one_is_none(record: Record) -> None:
    packed = pack(record)
    assert list(records(io.BytesIO(packed * 2 + packed[:-1]))) == [record, record]
