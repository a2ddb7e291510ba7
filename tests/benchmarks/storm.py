"""Storms of streams: thousands open at once on one worker, and all of their clients vanish together, again and again.

    python -m tests.benchmarks.storm [streams] [storms] [store, or "none"]

Reports resident memory per open stream on top of what as many runs of the agent take without a server, the seconds
from the clients' leaving to the last run's end, and what is left of descriptors and tasks. Clients close, reset, or
hide behind a pipelined request before they close. Exits 1 where a limit is passed. Linux.
"""

from __future__ import annotations

import json
import os
import resource
import socket
import struct
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import httpx

from tests.support.processes import running

ROOT = Path(__file__).parents[2]
AGENT = Path(__file__).with_name("storm_agent.py")
KIB_PER_STREAM = 40
SECONDS_TO_END = 2.0
PATIENCE = 60.0
MANNERS = ("closes", "resets", "pipelines")


def resident(pid: int | str) -> int:
    """Resident memory of a process, in KiB."""
    lines = Path(f"/proc/{pid}/status").read_text().splitlines()
    return next(int(line.split()[1]) for line in lines if line.startswith("VmRSS"))


def agents_own(streams: int) -> float:
    """KiB of one waiting run without a server, in a process of its own."""
    script = (
        "import asyncio, sys\n"
        "from tests.benchmarks.storm import resident\n"
        "from tests.benchmarks.storm_agent import agent\n"
        "async def run():\n"
        "    async for _ in agent.astream({'messages': [('user', 'wait')]}): pass\n"
        "async def main(n):\n"
        "    first = asyncio.create_task(run()); await asyncio.sleep(0.5); before = resident('self')\n"
        "    runs = [asyncio.create_task(run()) for _ in range(n)]; await asyncio.sleep(n / 400)\n"
        "    print((resident('self') - before) / n, flush=True); __import__('os')._exit(0)\n"
        "asyncio.run(main(int(sys.argv[1])))\n"
    )
    done = subprocess.run([sys.executable, "-c", script, str(streams)], cwd=ROOT, capture_output=True, check=True)
    return float(done.stdout)


@contextmanager
def served(store: str, streams: int) -> Iterator[tuple[int, int]]:
    """A server process: its id and its port."""
    command = [sys.executable, "-m", "agent_server", "serve", str(AGENT), "--port", "0", "--store", store]
    environment = {**os.environ, "AGENT_SERVER_MAX_CONCURRENT_RUNS": str(2 * streams), "PYTHONUNBUFFERED": "1"}
    with running(command, environment, ROOT) as program:
        address = program.line_with("http://").split("http://")[1].split()[0]
        yield program.pid, int(address.rstrip("/").rpartition(":")[2])
        program.stop()


def request(body: dict[str, Any]) -> bytes:
    """A request's bytes."""
    content = json.dumps(body).encode()
    head = b"POST /v1/responses HTTP/1.1\r\nhost: storm\r\ncontent-type: application/json\r\n"
    return head + b"content-length: %d\r\n\r\n" % len(content) + content


def open_streams(port: int, count: int, *, stored: bool) -> list[socket.socket]:
    """Clients, each of which has seen its stream begin."""
    clients, asked = [], request({"input": "wait", "stream": True, "store": stored})
    for start in range(0, count, 50):
        some = [socket.create_connection(("127.0.0.1", port), PATIENCE) for _ in range(min(50, count - start))]
        for client in some:
            client.sendall(asked)
        for client in some:
            seen = b""
            while b"response.in_progress" not in seen:
                seen += client.recv(65536)
        clients += some
    return clients


def leave(clients: list[socket.socket], manner: str) -> None:
    """All at once."""
    for client in clients:
        if manner == "pipelines":
            client.sendall(request({"input": "wait", "stream": True}))
        elif manner == "resets":
            client.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
    for client in clients:
        client.close()


def held(http: httpx.Client, asking: str = "count") -> dict[str, int]:
    """What the server holds. A look with "tidy" collects garbage first, and so is nothing to wait with."""
    answer = http.post("/v1/responses", json={"input": asking, "store": False})
    found: dict[str, int] = json.loads(answer.json()["output"][0]["content"][0]["text"])
    return found


def storm(port: int, pid: int, http: httpx.Client, streams: int, manner: str, *, stored: bool) -> tuple[float, float]:
    """One storm: KiB per open stream, and seconds until nothing of them was left. Raises `TimeoutError`."""
    before, memory = held(http, "tidy"), resident(pid)
    clients = open_streams(port, streams, stored=stored)
    while held(http)["waiting"] < streams:
        time.sleep(0.05)
    each = (resident(pid) - memory) / streams
    since = time.monotonic()
    leave(clients, manner)
    while more := more_than(before, held(http)):
        if time.monotonic() - since > PATIENCE:
            raise TimeoutError(f"{PATIENCE} s after their clients left ({manner}) there are still {more}")
        time.sleep(0.02)
    return each, time.monotonic() - since


def more_than(before: dict[str, int], now: dict[str, int]) -> dict[str, int]:
    """What is held now and was not before. Its own upkeep is a task of the server's from time to time."""
    return {name: now[name] - before[name] for name in now if now[name] > before[name] + (name == "tasks")}


def main(streams: int = 2000, storms: int = 10, store: str = "memory") -> int:
    """Run the storms and report; the exit code."""
    limit = resource.getrlimit(resource.RLIMIT_NOFILE)[1]
    resource.setrlimit(resource.RLIMIT_NOFILE, (limit, limit))
    own = agents_own(streams)
    print(f"agent's own: {own:.1f} KiB a run")
    with tempfile.TemporaryDirectory() as folder:
        url = {"sqlite": f"sqlite:///{folder}/runs.db", "none": "memory"}.get(store, store)
        with served(url, streams) as (pid, port), httpx.Client(base_url=f"http://127.0.0.1:{port}", timeout=60) as http:
            start, figures, left = held(http, "tidy"), [], {}
            for number in range(storms):
                manner = MANNERS[number % len(MANNERS)]
                each, seconds = storm(port, pid, http, streams, manner, stored=store != "none")
                figures.append((each - own, seconds))
                now = held(http, "tidy")
                left = more_than(start, now)
                print(f"{manner:10} {each:5.1f} KiB a stream, over in {seconds:.2f} s, rss {resident(pid)} KiB, {now}")
    first, slowest = figures[0][0], max(seconds for _, seconds in figures)
    print(f"on top of the agent's own: {first:.1f} KiB a stream, at most {KIB_PER_STREAM} (the first storm's)")
    print(f"slowest end: {slowest:.2f} s, at most {SECONDS_TO_END}; left after all: {left or 'nothing'}")
    return int(first > KIB_PER_STREAM or slowest > SECONDS_TO_END or bool(left))


if __name__ == "__main__":
    streams, storms, store = (sys.argv[1:] + ["2000", "10", "memory"][len(sys.argv) - 1 :])[:3]
    sys.exit(main(int(streams), int(storms), store))
