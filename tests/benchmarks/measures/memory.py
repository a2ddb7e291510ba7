"""What a reader that stopped reading costs the server in memory.

The reader takes a small receive buffer, sends its request and never reads. The model yields every few tokens,
so that the server can do as it likes. A long answer takes memory in any case: LangChain keeps every chunk of
a running model call (the limit shows how much), and a run's log is kept for whoever resumes. So the growth
beside a reader that reads is taken off; what remains is the stopped reader's own cost. A server that buffers
for it holds some 50 MB of unread frames here. Each case has a process of its own; growth is of peak resident
memory.
"""

from __future__ import annotations

import socket

import uvloop

from tests.benchmarks.catalogue import Peer
from tests.benchmarks.client import IncompleteAnswer, request_bytes, sequential
from tests.benchmarks.measures.fleet import Fleet
from tests.benchmarks.processes import Process, get_status
from tests.benchmarks.report import Figure

WARM_UP = "tokens 1000"
RECEIVE_BUFFER = 4096


def measure(_: Fleet, peers: list[Peer], tokens: int) -> list[Figure]:
    """Growth in MB beside a reading and beside a stopped client, and the difference, for each server."""
    prompt = f"tokens {tokens} yield 20"
    figures = []
    for peer in peers:
        reading = _running(peer, prompt)
        if peer.wire is None:
            figures.append(Figure(f"memory, {peer.name}", reading, "MB", f"{tokens:,} tokens"))
            continue
        stopped = _stopped(peer, prompt)
        figures += [
            Figure(f"memory, {peer.name}: reading client", reading, "MB", f"{tokens:,} tokens"),
            Figure(f"memory, {peer.name}: stopped client", stopped, "MB", "and /health answers"),
            Figure(f"memory, {peer.name}: stopped less reading", stopped - reading, "MB"),
        ]
    return figures


def _running(peer: Peer, prompt: str) -> float:
    with Fleet() as fleet:
        fleet.slot(peer, WARM_UP, 1, clients=1)
        before = fleet.process(peer).peak_memory()
        fleet.slot(peer, prompt, 1, clients=1)
        return fleet.process(peer).peak_memory() - before


def _stopped(peer: Peer, prompt: str) -> float:
    assert peer.wire is not None
    with Fleet() as fleet:
        process = fleet.process(peer)
        uvloop.run(sequential(process.port, peer.wire, WARM_UP, 1))
        before = process.peak_memory()
        with socket.socket() as reader:
            reader.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, RECEIVE_BUFFER)
            reader.connect(("127.0.0.1", process.port))
            reader.sendall(request_bytes(peer.wire.path, prompt))
            _wait_until_stalled(reader, process)
            if (status := get_status(process.port, "/health")) != 200:
                raise IncompleteAnswer(f"{peer.name} answered /health with {status} beside a stopped reader")
            return process.peak_memory() - before


def _wait_until_stalled(reader: socket.socket, process: Process) -> None:
    """Wait until the server has begun its answer and has nothing left to do. The socket is left unread."""
    reader.settimeout(10)
    head = reader.recv(16, socket.MSG_PEEK)
    if not head.startswith(b"HTTP/1.1 200"):
        raise IncompleteAnswer(f"{process.program.name} answered a stopped reader with {head!r}")
    if not process.wait_idle():
        raise IncompleteAnswer(f"{process.program.name} never came to rest beside a stopped reader")
