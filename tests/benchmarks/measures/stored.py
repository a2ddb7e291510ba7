"""What it costs to keep every event: the throughput with SQLite and with Postgres as ratios to that in memory."""

from __future__ import annotations

from statistics import median

from tests.benchmarks.catalogue import Peer
from tests.benchmarks.measures import throughput
from tests.benchmarks.measures.fleet import Fleet
from tests.benchmarks.report import Figure


def measure(fleet: Fleet, peers: list[Peer], prompt: str, rounds: int, seconds: float) -> list[Figure]:
    """The figures of throughput, and the ratios."""
    figures = throughput.measure(fleet, peers, prompt, rounds, seconds, label=", stores")
    measured = {figure.name: figure.samples for figure in figures}
    for name in ("ours_sqlite", "ours_postgres"):
        samples = [1 / sample for sample in measured.get(f"ours/{name}, stores", ())]
        if samples:
            figures.append(Figure(f"{name}/ours", median(samples), "x", samples=samples))
    return figures
