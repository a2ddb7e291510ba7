"""AG-UI beside LangGraph's own integration: `python -m tests.benchmarks.agui [TOKENS]`.

Both serve the fake agent and are asked in turns by 8 clients, each request on a thread of its own. The figures are
tokens a second, the median of the rounds, and bytes a token; and what the encoder costs an event. Targets: 3 times the
tokens, no more bytes, 3 microseconds. Without `ag-ui-langgraph` installed only ours is measured.
"""

from __future__ import annotations

import asyncio
import sys
import time
from contextlib import ExitStack
from dataclasses import dataclass
from itertools import count
from statistics import median

import orjson

from agent_server import events as ev
from agent_server.events import Event
from agent_server.protocols.agui.encoder import AguiEncoder
from tests.benchmarks.catalogue import OURS, Program
from tests.benchmarks.fake_agent import TOKEN
from tests.benchmarks.processes import Process

CLIENTS = 8
ROUNDS = 5
REQUESTS = 24
THEIRS = Program(
    "ag_ui_langgraph",
    (sys.executable, "-m", "tests.benchmarks.peers.ag_ui_langgraph", "{port}"),
    ready="/agui/health",
    needs="ag_ui_langgraph",
)
_threads = count()


@dataclass
class Slot:
    """What one server did in one slot."""

    tokens: int = 0
    size: int = 0
    seconds: float = 0.0
    cpu_seconds: float = 0.0


async def _ask(port: int, tokens: int, slot: Slot) -> None:
    number = next(_threads)
    message = {"id": f"u{number}", "role": "user", "content": f"tokens {tokens}"}
    asked = {"threadId": f"t{number}", "runId": f"r{number}", "messages": [message], "state": {}, "tools": []}
    body = orjson.dumps({**asked, "context": [], "forwardedProps": {}})
    head = f"POST /agui HTTP/1.1\r\nhost: 127.0.0.1\r\nconnection: close\r\ncontent-length: {len(body)}\r\n"
    reader, writer = await asyncio.open_connection("127.0.0.1", port, limit=2**24)
    writer.write(f"{head}content-type: application/json\r\naccept: text/event-stream\r\n\r\n".encode() + body)
    answer = await reader.read()
    writer.close()
    deltas = [line for line in answer.split(b"\n\n") if b'"TEXT_MESSAGE_CONTENT"' in line]
    told = b"".join(deltas).count(TOKEN.encode())
    if b"RUN_FINISHED" not in answer or told < tokens - 1:  # theirs loses the text of the chunk that ends the answer
        raise RuntimeError(f"an answer that is not whole: {answer[-300:]!r}")
    slot.tokens += told
    slot.size += sum(map(len, answer.split(b"\r\n")[1:]))


async def _load(port: int, tokens: int) -> Slot:
    slot, left = Slot(), iter(range(REQUESTS))

    async def client() -> None:
        for _ in left:
            await _ask(port, tokens, slot)

    started = time.perf_counter()
    await asyncio.gather(*(client() for _ in range(CLIENTS)))
    slot.seconds = time.perf_counter() - started
    return slot


def _events(tokens: int) -> list[Event]:
    """A run that streams a text, and half as much of arguments."""
    return [
        ev.RunStarted(run_id="0" * 32, agent="agent", at=0),
        ev.MessageStarted("m0", source_id="lc_run--01a1fc16-8dc5-75cd-844b-f41ee4cdc926"),
        ev.BlockStarted("m0", 0, "text"),
        *(ev.TextDelta("m0", 0, TOKEN) for _ in range(tokens)),
        ev.BlockFinished("m0", 0, "text", TOKEN * tokens),
        ev.BlockStarted("m0", 1, "tool_call", "call_0", "search"),
        *(ev.ArgsDelta("m0", 1, TOKEN) for _ in range(tokens // 2)),
        ev.BlockFinished("m0", 1, "tool_call", TOKEN * (tokens // 2), "call_0", "search"),
        ev.MessageFinished("m0"),
        ev.RunFinished(at=0),
    ]


def encoder_cost(tokens: int = 20_000) -> float:
    """Microseconds of CPU that an event costs the encoder, the least of some runs."""
    events = _events(tokens)
    spent = []
    for _ in range(7):
        feed = AguiEncoder("t", "r").feed
        started = time.process_time()
        for event in events:
            feed(event)
        spent.append((time.process_time() - started) / len(events) * 1e6)
    return min(spent)


def main(tokens: int) -> None:
    """Measure and print."""
    print(f"encoder            {encoder_cost():8.2f} us/event", flush=True)
    slots: dict[str, list[Slot]] = {}
    with ExitStack() as stack:
        programs = [program for program in (OURS, THEIRS) if not program.missing()]
        processes = {program.name: stack.enter_context(Process(program)) for program in programs}
        for process in processes.values():
            process.wait_ready()
            asyncio.run(_load(process.port, tokens))
        for _ in range(ROUNDS):
            for name, process in processes.items():
                before = process.cpu_seconds()
                slot = asyncio.run(_load(process.port, tokens))
                slot.cpu_seconds = process.cpu_seconds() - before
                slots.setdefault(name, []).append(slot)
    for name, done in slots.items():
        wall, cpu = (median(slot.tokens / getattr(slot, kind) for slot in done) for kind in ("seconds", "cpu_seconds"))
        size = sum(slot.size for slot in done) / sum(slot.tokens for slot in done)
        print(f"{name:<18} {wall:8.0f} tokens/s {cpu:8.0f} tokens/s of CPU time {size:8.1f} bytes/token")
    if len(slots) == 2:
        for kind in ("seconds", "cpu_seconds"):
            ours, theirs = ([slot.tokens / getattr(slot, kind) for slot in done] for done in slots.values())
            ratio = median(a / b for a, b in zip(ours, theirs, strict=True))
            print(f"ours/theirs        {ratio:8.2f} x by {kind}")


if __name__ == "__main__":
    main(int(sys.argv[1]) if len(sys.argv) > 1 else 500)
