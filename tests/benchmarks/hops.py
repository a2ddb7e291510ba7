"""What each hop of a token costs by itself: `python -m tests.benchmarks.hops [TOKENS]`, microseconds a token.

One run of the fake agent is recorded after each hop and played to the next one alone, so the hops add up to
what the server does beside LangChain, Starlette and the socket. The first row is LangChain and the source
together; the limit is the same run with a callback that only counts.
"""

from __future__ import annotations

import asyncio
import sys
import time
from collections.abc import Callable
from statistics import median
from typing import Any

import uvloop
from langchain_core.runnables.schema import StreamEvent

from agent_server.events import Event, RunStarted
from agent_server.framing import Frame, sse
from agent_server.graph.converter import Converter
from agent_server.graph.drive import Recorder
from agent_server.graph.source import Sink, from_tap
from agent_server.protocols.responses.encoder import ResponsesEncoder
from agent_server.runs.log import EventLog
from tests.benchmarks.fake_agent import agent
from tests.benchmarks.peers.limit import obey

REPEATS = 15


class Tape:
    """A sink that keeps what it was told: a stream event alone, or a model's run id and a chunk."""

    def __init__(self) -> None:
        self.told: list[tuple[Any, ...]] = []
        self._recorder = Recorder(Converter("run_0"), lambda _: None)

    def feed(self, event: StreamEvent) -> None:
        self.told.append((event,))
        self._recorder.feed(event)

    def chunk(self, model_run_id: str, chunk: Any) -> bool:
        taken = self._recorder.chunk(model_run_id, chunk)
        if taken:
            self.told.append((model_run_id, chunk))
        return taken


class Deaf:
    """A sink that takes everything and does nothing."""

    def feed(self, event: StreamEvent) -> None:
        pass

    def chunk(self, model_run_id: str, chunk: Any) -> bool:
        return True


async def run(prompt: str, sink: Sink) -> None:
    """One run of the agent into a sink."""
    question = {"messages": [{"role": "user", "content": prompt}]}
    await from_tap(agent, question, {}, sink, {"stream_mode": ["updates", "custom"], "subgraphs": True})


def convert(told: list[tuple[Any, ...]]) -> list[Event]:
    """All events of a run."""
    events: list[Event] = [RunStarted(run_id="run_0", agent="agent", at=0)]
    converter = Converter("run_0")
    recorder = Recorder(converter, events.append)
    for what in told:
        if len(what) == 2:
            recorder.chunk(*what)
        else:
            recorder.feed(*what)
    return events + converter.finish()


def append(events: list[Event]) -> None:
    """The run's log, written and at once read."""
    log = EventLog()
    for number, event in enumerate(events):
        log.append(event)
        log.read(number)


def encode(events: list[Event]) -> list[Frame]:
    """All frames of a response."""
    encoder = ResponsesEncoder()
    return [frame for event in events for frame in encoder.feed(event)]


def write(frames: list[Frame]) -> bytes:
    """All bytes of a stream."""
    return b"".join([sse(frame) for frame in frames])


def timed(hop: Callable[[], object]) -> float:
    """Seconds of CPU time, the median of the repeats."""
    return median(_once(hop) for _ in range(REPEATS))


def _once(hop: Callable[[], object]) -> float:
    start = time.process_time()
    hop()
    return time.process_time() - start


def main(tokens: int) -> None:
    """Measure and print."""
    prompt = f"tokens {tokens}"
    with asyncio.Runner(loop_factory=uvloop.new_event_loop) as runner:
        tape = Tape()
        runner.run(run(prompt, tape))
        events = convert(tape.told)
        frames = encode(events)
        hops: dict[str, Callable[[], object]] = {
            "LangChain and source": lambda: runner.run(run(prompt, Deaf())),
            "limit": lambda: runner.run(obey(prompt, runs=1, concurrency=1)),
            "Converter": lambda: convert(tape.told),
            "EventLog": lambda: append(events),
            "ResponsesEncoder": lambda: encode(events),
            "framing.sse": lambda: write(frames),
        }
        for name, hop in hops.items():
            print(f"{name:<26} {timed(hop) / tokens * 1e6:8.2f} us/token")


if __name__ == "__main__":
    main(int(sys.argv[1]) if len(sys.argv) > 1 else 2000)
