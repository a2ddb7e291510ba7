"""What each hop of a token costs by itself: `python -m tests.benchmarks.hops [TOKENS]`, microseconds a token.

One run of the fake agent is recorded after each hop and played to the next one alone. The first row is LangChain
with a callback that only counts; the second adds the source and the converter, by the short way that the server
takes. `Converter.feed` is the long way, of LangChain's public `astream_events`, without LangChain. The rows from
the second on, without the long way, add up to what a token costs beside Starlette and the socket.
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
from agent_server.graph.source import from_tap
from agent_server.protocols.responses.encoder import ResponsesEncoder
from agent_server.runs.log import EventLog
from tests.benchmarks.fake_agent import agent
from tests.benchmarks.peers.limit import obey

REPEATS = 15


def question(prompt: str) -> dict[str, Any]:
    """The agent's input."""
    return {"messages": [{"role": "user", "content": prompt}]}


async def recorded(prompt: str) -> list[StreamEvent]:
    """The stream events of one run."""
    return [event async for event in agent.astream_events(question(prompt), version="v2")]


async def driven(prompt: str) -> None:
    """One run of the agent, converted, its events dropped."""
    options = {"stream_mode": ["updates"]}
    await from_tap(agent, question(prompt), {}, Recorder(Converter("run_0"), lambda _: None), options)


def convert(stream_events: list[StreamEvent]) -> list[Event]:
    """All events of a run."""
    converter = Converter("run_0")
    events: list[Event] = [RunStarted(run_id="run_0", agent="agent", at=0)]
    for stream_event in stream_events:
        events += converter.feed(stream_event)
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


def cpu_seconds(hop: Callable[[], object]) -> float:
    """CPU time of a hop, the median of the repeats."""

    def once() -> float:
        start = time.process_time()
        hop()
        return time.process_time() - start

    return median(once() for _ in range(REPEATS))


def main(tokens: int) -> None:
    """Measure and print."""
    prompt = f"tokens {tokens}"
    with asyncio.Runner(loop_factory=uvloop.new_event_loop) as runner:
        stream_events = runner.run(recorded(prompt))
        events = convert(stream_events)
        frames = encode(events)
        hops: dict[str, Callable[[], object]] = {
            "LangChain": lambda: runner.run(obey(prompt, runs=1, concurrency=1)),
            "LangChain, source, converter": lambda: runner.run(driven(prompt)),
            "Converter.feed": lambda: convert(stream_events),
            "EventLog": lambda: append(events),
            "ResponsesEncoder": lambda: encode(events),
            "framing.sse": lambda: write(frames),
        }
        for name, hop in hops.items():
            print(f"{name:<30} {cpu_seconds(hop) / tokens * 1e6:8.2f} us/token", flush=True)


if __name__ == "__main__":
    main(int(sys.argv[1]) if len(sys.argv) > 1 else 2000)
