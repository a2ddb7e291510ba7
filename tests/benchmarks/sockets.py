"""Many WebSockets on one worker, each with a token a second: how much later than it was made does a token arrive?

    python -m tests.benchmarks.sockets [sockets] [seconds] [wire ...]

The agent says the time; the client, a process of its own on another core, reads the same clock when a token is there.
What lies between is LangGraph, the server, the loopback and the client's own loop. Tokens count from two seconds after
the moment on at which every run has begun to speak. Exits 1 where the 99th percentile passes `P99_MS`. Linux.
"""

from __future__ import annotations

import asyncio
import json
import os
import resource
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from websockets.asyncio.client import ClientConnection, connect

from tests.benchmarks.storm import resident

ROOT = Path(__file__).parents[2]
AGENT = Path(__file__).with_name("sockets_agent.py")
CORES = sorted(os.sched_getaffinity(0))
P99_MS = 50.0
WIRES = ("agui.v1", "ai-sdk.v1", "responses.v1", "langchain.v2")
ENDS = frozenset({"end", "error", "response.completed", "response.failed", "RUN_FINISHED", "RUN_ERROR"})


def run_frame(wire: str, tokens: int, number: int) -> dict[str, Any]:
    """What asks for so many tokens."""
    said, thread = str(tokens), f"thread-{wire}-{number}"
    message = {"id": "m1", "role": "user"}
    if wire == "agui.v1":
        asked = {"threadId": thread, "runId": f"run-{number}", "messages": [{**message, "content": said}]}
        return {"type": "run", "requestId": "1", "input": asked}
    if wire == "ai-sdk.v1":
        parts = [{"type": "text", "text": said}]
        asked = {"id": thread, "messages": [{**message, "parts": parts}], "trigger": "submit-message"}
        return {"type": "send", "requestId": "1", **asked}
    if wire == "responses.v1":
        return {"type": "run", "requestId": "1", "input": said}
    return {"type": "run", "requestId": "1", "message": said, "events": ["on_chat_model_stream"]}


def token_of(wire: str, message: dict[str, Any]) -> str:
    """The token in a message; "" where there is none."""
    if wire == "agui.v1":
        return str(message.get("delta", "")) if message["type"] == "TEXT_MESSAGE_CONTENT" else ""
    if wire == "ai-sdk.v1":
        chunk = message.get("chunk", {})
        return str(chunk.get("delta", "")) if chunk.get("type") == "text-delta" else ""
    if wire == "responses.v1":
        return str(message["delta"]) if message["type"] == "response.output_text.delta" else ""
    return str(message["event"]["data"]["chunk"]["content"]) if message["type"] == "event" else ""


@contextmanager
def served(sockets: int) -> Iterator[tuple[int, int]]:
    """A server process on its own core: its id and its port."""
    command = [sys.executable, "-m", "agent_server", "serve", str(AGENT), "--port", "0", "--store", "memory"]
    environment = {**os.environ, "AGENT_SERVER_MAX_CONCURRENT_RUNS": str(2 * sockets), "PYTHONUNBUFFERED": "1"}
    process = subprocess.Popen(
        ["taskset", "-c", str(CORES[0]), *command],
        cwd=ROOT,
        env=environment,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
    )
    try:
        assert process.stdout is not None
        line = next(each for each in process.stdout if "http://" in each)
        yield process.pid, int(line.split("http://")[1].split()[0].rstrip("/").rpartition(":")[2])
    finally:
        process.terminate()
        process.wait(60)


class Lateness:
    """How late tokens were, by the moment at which they came, both in seconds."""

    def __init__(self, sockets: int) -> None:
        self._silent = sockets
        self._told: list[tuple[float, float]] = []
        self.all_speak = asyncio.Event()

    def first(self) -> None:
        """A socket has had its first token."""
        self._silent -= 1
        if not self._silent:
            self.all_speak.set()

    def token(self, came: float, made: float) -> None:
        """One token."""
        self._told.append((came, came - made))

    def between(self, start: float, end: float) -> list[float]:
        """In milliseconds, the least late first."""
        return sorted(1000 * late for came, late in self._told if start < came < end)


async def follow(connection: ClientConnection, wire: str, frame: dict[str, Any], lateness: Lateness) -> None:
    """One run, for as long as it is listened to."""
    await connection.send(json.dumps(frame))
    is_first = True
    while True:
        text = await connection.recv(decode=False)
        now = time.monotonic()
        message = json.loads(text)
        assert message["type"] not in ENDS, message
        for made in token_of(wire, message).split():
            lateness.token(now, float(made))
            if is_first:
                lateness.first()
                is_first = False


async def measure(port: int, wire: str, sockets: int, seconds: int) -> list[float]:
    """How late each token was, in milliseconds, in so many seconds from the moment on at which all runs speak."""
    lateness = Lateness(sockets)
    connections: list[ClientConnection] = []
    following: list[asyncio.Task[None]] = []
    opened = time.monotonic()
    for start in range(0, sockets, 25):
        made = await asyncio.gather(
            *(
                connect(f"ws://127.0.0.1:{port}/ws", subprotocols=[wire], compression=None, ping_interval=None)  # type: ignore[list-item]
                for _ in range(min(25, sockets - start))
            )
        )
        connections += made
        following += [
            asyncio.create_task(follow(each, wire, run_frame(wire, 10_000, start + place), lateness))
            for place, each in enumerate(made)
        ]
    await lateness.all_speak.wait()
    print(f"  {sockets} runs speak after {time.monotonic() - opened:.1f} s", flush=True)
    since = time.monotonic() + 2
    await asyncio.sleep(seconds + 2)
    for task in following:
        assert not task.done(), task.exception()
        task.cancel()
    await asyncio.wait(following)
    for connection in connections:
        connection.transport.abort()
    return lateness.between(since, since + seconds)


def processor_seconds(pid: int) -> float:
    """CPU time of a process so far."""
    fields = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()
    return (int(fields[11]) + int(fields[12])) / os.sysconf("SC_CLK_TCK")


def main(sockets: int = 1000, seconds: int = 12, wires: tuple[str, ...] = WIRES) -> int:
    """Measure each wire and report; the exit code."""
    limit = resource.getrlimit(resource.RLIMIT_NOFILE)[1]
    resource.setrlimit(resource.RLIMIT_NOFILE, (limit, limit))
    os.sched_setaffinity(0, {CORES[-1]})
    worst = 0.0
    for wire in wires:
        with served(sockets) as (pid, port):
            before, since, used = resident(pid), time.monotonic(), processor_seconds(pid)
            late = asyncio.run(measure(port, wire, sockets, seconds))
            busy = (processor_seconds(pid) - used) / (time.monotonic() - since)
            p50, p99 = late[len(late) // 2], late[int(len(late) * 0.99)]
            worst = max(worst, p99)
            print(
                f"{wire:13} {sockets} sockets, {len(late):,} tokens: p50 {p50:.1f} ms, p99 {p99:.1f} ms, "
                f"longest {late[-1]:.1f} ms; server {busy:.0%} of its core, "
                f"{(resident(pid) - before) / sockets:.0f} KiB a socket with its run",
                flush=True,
            )
    return int(worst > P99_MS)


if __name__ == "__main__":
    given = sys.argv[1:]
    sys.exit(main(*(int(each) for each in given[:2]), *([tuple(given[2:])] if given[2:] else [])))
