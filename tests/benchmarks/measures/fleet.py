"""The running peers, and one slot of load on one of them."""

from __future__ import annotations

from contextlib import ExitStack
from dataclasses import dataclass
from types import TracebackType

import uvloop

from tests.benchmarks.catalogue import Peer
from tests.benchmarks.client import IncompleteAnswer, Load, concurrent
from tests.benchmarks.fake_agent import order
from tests.benchmarks.processes import SERVER_CORE, CpuTimes, Process


@dataclass(frozen=True)
class Slot:
    """What one peer did in one slot: the load, its CPU time, and what others took of its core."""

    load: Load
    cpu_seconds: float
    others_seconds: float

    @property
    def own_seconds(self) -> float:
        """How long the peer had its core for itself, idle or not; no less than it used, as ticks are coarse."""
        return max(self.cpu_seconds, self.load.seconds - self.others_seconds)

    @property
    def rate(self) -> float:
        """Tokens a second of the time that the peer had its core for itself."""
        return self.load.tokens / self.own_seconds

    @property
    def server_busy(self) -> float:
        """The peer's share of the time that it had its core for itself."""
        return self.cpu_seconds / self.own_seconds


class Fleet:
    """One process per program, started when first asked for; who is not asked sleeps."""

    def __init__(self) -> None:
        self._processes: dict[str, Process] = {}
        self._stack = ExitStack()

    def __enter__(self) -> Fleet:
        return self

    def __exit__(self, *_: type[BaseException] | BaseException | TracebackType | None) -> None:
        self._stack.close()

    def process(self, peer: Peer) -> Process:
        """The process behind a peer, ready to be asked."""
        name = peer.program.name
        if name not in self._processes:
            process = self._stack.enter_context(Process(peer.program))
            process.wait_ready()
            self._processes[name] = process
        return self._processes[name]

    def slot(self, peer: Peer, prompt: str, requests: int, clients: int) -> Slot:
        """Put load on one peer while the others rest, and wait until what it left for later is done too."""
        process = self.process(peer)
        core, cpu = CpuTimes.now(SERVER_CORE), process.cpu_seconds()
        if peer.wire is None:
            load = _run_without_server(process, prompt, requests, clients)
        else:
            load = uvloop.run(concurrent(process.port, peer.wire, prompt, requests, clients))
        core, cpu = CpuTimes.now(SERVER_CORE) - core, process.cpu_seconds() - cpu
        process.wait_idle()
        return Slot(load, cpu, core.others(cpu))


def _run_without_server(process: Process, prompt: str, runs: int, concurrency: int) -> Load:
    result = process.obey(prompt=prompt, runs=runs, concurrency=concurrency)
    if result["tokens"] != (expected := runs * order(prompt)[0]):
        raise IncompleteAnswer(f"{process.program.name} made {result['tokens']} of {expected} tokens")
    return Load(requests=runs, tokens=expected, frames=expected, seconds=result["seconds"], busy=0.0)
