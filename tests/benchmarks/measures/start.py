"""How long a server takes from its start until it is ready, against the import of what every agent needs.

Both run on the server's core; time that other processes or the host took of it is not counted.
"""

from __future__ import annotations

import resource
import subprocess
import sys
import time
from statistics import median

from tests.benchmarks.catalogue import Peer
from tests.benchmarks.measures.fleet import Fleet
from tests.benchmarks.processes import ENVIRONMENT, SERVER_CORE, CpuTimes, Process, on_core
from tests.benchmarks.report import Figure

IMPORTS = (sys.executable, "-c", "import langchain.agents, langgraph.graph")


def measure(_: Fleet, peers: list[Peer], pairs: int) -> list[Figure]:
    """Medians in seconds over interleaved rounds, after one round to warm the disk cache."""
    imports: list[float] = []
    starts: dict[str, list[float]] = {peer.name: [] for peer in peers}
    for round_ in range(pairs + 1):
        seconds = _import_seconds()
        imports += [seconds] if round_ else []
        for peer in peers:
            seconds = _start_seconds(peer)
            starts[peer.name] += [seconds] if round_ else []
    figures = [Figure("import of langchain and langgraph", median(imports), "s", samples=imports)]
    figures += [Figure(f"start to ready, {name}", median(got), "s", samples=got) for name, got in starts.items()]
    if "ours" in starts:
        ratios = [start / base for start, base in zip(starts["ours"], imports, strict=True)]
        figures.append(Figure("start/import", median(ratios), "x", samples=ratios))
    return figures


def _import_seconds() -> float:
    core, cpu, start = CpuTimes.now(SERVER_CORE), _children_seconds(), time.perf_counter()
    with on_core(SERVER_CORE):
        subprocess.run(IMPORTS, env=ENVIRONMENT, check=True)
    seconds = time.perf_counter() - start
    return seconds - (CpuTimes.now(SERVER_CORE) - core).others(_children_seconds() - cpu)


def _start_seconds(peer: Peer) -> float:
    core = CpuTimes.now(SERVER_CORE)
    with Process(peer.program) as process:
        seconds = process.wait_ready()
        return seconds - (CpuTimes.now(SERVER_CORE) - core).others(process.cpu_seconds())


def _children_seconds() -> float:
    usage = resource.getrusage(resource.RUSAGE_CHILDREN)
    return usage.ru_utime + usage.ru_stime
