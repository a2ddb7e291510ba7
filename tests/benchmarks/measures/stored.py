"""What it costs to keep every event: the throughput with SQLite as a ratio to that with the store in memory."""

from __future__ import annotations

from statistics import median

from tests.benchmarks.catalogue import Peer
from tests.benchmarks.measures import throughput
from tests.benchmarks.measures.fleet import Fleet
from tests.benchmarks.report import Figure


def measure(fleet: Fleet, peers: list[Peer], prompt: str, rounds: int, seconds: float) -> list[Figure]:
    """The figures of throughput, and the ratio."""
    figures = throughput.measure(fleet, peers, prompt, rounds, seconds, label=", stores")
    ratio = next((figure for figure in figures if figure.name == "ours/ours_sqlite, stores"), None)
    if ratio is None or not ratio.samples:
        return figures
    samples = [1 / sample for sample in ratio.samples]
    return [*figures, Figure("ours_sqlite/ours", median(samples), "x", samples=samples)]
