"""What the exporter process does with feedback while the tracking server is away."""

from __future__ import annotations

import threading
import time

from agent_server.tracing.process import MAX_FEEDBACK, Desk
from agent_server.tracing.record import Answer, FeedbackRecord, Reply


class Held:
    """Traces that stay on their way until they are let go."""

    def __init__(self) -> None:
        self.gate = threading.Event()

    def wait_for(self, trace_id: str) -> None:
        self.gate.wait(60)


def feedback(ticket: int, seconds: float) -> FeedbackRecord:
    """Feedback whose giver waits for so long."""
    return FeedbackRecord(ticket, time.time_ns() + int(seconds * 1e9), "tr-1", name="n", value=1)


def logged(record: FeedbackRecord) -> Answer:
    return Answer(record.ticket, body="logged")


def test_only_so_much_feedback_waits_and_none_of_it_longer_than_who_gave_it() -> None:
    outbox, told = Held(), list[Reply]()
    with Desk(outbox, logged, told.append) as desk:
        for ticket in range(MAX_FEEDBACK - 1):
            desk.add(feedback(ticket, -1))
        desk.add(feedback(1000, 60))
        desk.add(feedback(1001, 60))
        assert told == [Answer(1001, error="unavailable")]
        outbox.gate.set()
    assert told[1:] == [Answer(1000, body="logged")]
