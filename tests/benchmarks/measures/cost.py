"""Whether a token costs the same CPU time in a short answer and in a long one.

The CPU time of a run is a fixed cost and a cost per token. Between an answer of `a` and one of `b` tokens the
fixed cost cancels out: what a token costs in that range is the difference of the two runs over `b - a`. Flat
means that the dearest range is hardly dearer than the cheapest. The limit shows how flat LangChain itself is.
"""

from __future__ import annotations

from itertools import pairwise

from tests.benchmarks.catalogue import Peer
from tests.benchmarks.measures.fleet import Fleet
from tests.benchmarks.report import Figure

RUNS = {10: 300, 100: 200, 1_000: 24, 10_000: 3}


def measure(fleet: Fleet, peers: list[Peer], rounds: int) -> list[Figure]:
    """Microseconds of CPU time per token in each range, and the ratio of the extremes, for each peer."""
    sizes = list(RUNS)
    samples: dict[tuple[str, int], list[float]] = {}
    for round_ in range(rounds + 1):
        for size in sizes:
            for peer in peers:
                cost = _microseconds_per_run(fleet, peer, size, RUNS[size] if round_ else 2)
                if round_:
                    samples.setdefault((peer.name, size), []).append(cost)
    return [figure for peer in peers for figure in _figures(peer.name, sizes, samples)]


def _microseconds_per_run(fleet: Fleet, peer: Peer, tokens: int, runs: int) -> float:
    return fleet.slot(peer, f"tokens {tokens}", runs, clients=1).cpu_seconds / runs * 1e6


def _figures(name: str, sizes: list[int], samples: dict[tuple[str, int], list[float]]) -> list[Figure]:
    """The cost of a size is the least of its rounds: what else a machine does only ever adds to it."""
    least = {size: min(samples[name, size]) for size in sizes}
    ranges = []
    for short, long in pairwise(sizes):
        label = f"cost per token, {name}: {short:,} to {long:,}"
        rounds = zip(samples[name, short], samples[name, long], strict=True)
        slopes = [(dear - cheap) / (long - short) for cheap, dear in rounds]
        ranges.append(Figure(label, (least[long] - least[short]) / (long - short), "us", samples=slopes))
    costs = [figure.value for figure in ranges if figure.value is not None]
    fixed = least[sizes[0]] - sizes[0] * costs[0]
    flat = Figure(f"cost per token, {name}: dearest/cheapest", max(costs) / min(costs), "x")
    return [Figure(f"cost per run, {name}", fixed, "us"), *ranges, flat]
