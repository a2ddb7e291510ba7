"""The benchmark: `python -m tests.benchmarks [--quick] [--only NAME,...]`. Linux; two cores wanted.

Servers are pinned to one core, the load comes from another; ratios are taken within one run. NAME is a measure
(throughput, yielding, tracing, stores, first_byte, cost, memory, start) or a peer (ours, limit, bare, mlflow_off...).
Exit status is 1 when a target is missed or a peer gave a wrong answer, otherwise 0; what was skipped is said.
"""

from __future__ import annotations

import argparse
import os
import sys
import time
from collections.abc import Callable
from dataclasses import dataclass
from functools import partial
from typing import Any

from tests.benchmarks import report
from tests.benchmarks.catalogue import PEERS, Peer
from tests.benchmarks.client import IncompleteAnswer
from tests.benchmarks.measures import cost, first_byte, memory, start, stored, throughput, tracing
from tests.benchmarks.measures.fleet import Fleet
from tests.benchmarks.processes import LOAD_CORE, SERVER_CORE, CpuTimes, ProcessFailed
from tests.benchmarks.report import Figure

QUIET = 0.1  # cores used by others, on average
Ask = Callable[[Fleet, list[Peer]], list[Figure]]


@dataclass(frozen=True)
class Measure:
    """A question: the peers it is put to, the targets it decides, how to ask it at length and in a hurry."""

    peers: str
    targets: tuple[str, ...]
    full: Ask
    quick: Ask | None = None


_throughput = partial(throughput.measure, prompt="tokens 200")
_yielding = partial(throughput.measure, prompt="tokens 200 yield 1", label=", yielding")

MEASURES = {
    "throughput": Measure(
        "ours ours_responses ours_invocations limit bare mlflow_off mlflow_on ceiling",
        ("ours/limit", "ours/bare", "ours/mlflow_off"),
        full=partial(_throughput, rounds=7, seconds=2.0),
        quick=partial(_throughput, rounds=3, seconds=0.5),
    ),
    "yielding": Measure(
        "ours limit bare mlflow_off",
        (),
        full=partial(_yielding, rounds=5, seconds=2.0),
    ),
    "tracing": Measure(
        "ours ours_traced mlflow_off mlflow_on",
        ("ours/ours_traced, tracing",),
        full=partial(tracing.measure, prompt="tokens 200", rounds=7, seconds=1.0),
        quick=partial(tracing.measure, prompt="tokens 200", rounds=5, seconds=0.5),
    ),
    "stores": Measure(
        "ours ours_sqlite ours_postgres",
        ("ours_sqlite/ours", "ours_postgres/ours"),
        full=partial(stored.measure, prompt="tokens 200", rounds=7, seconds=2.0),
        quick=partial(stored.measure, prompt="tokens 200", rounds=5, seconds=0.5),
    ),
    "first_byte": Measure(
        "ours ours_sqlite ours_postgres bare mlflow_off",
        ("first byte over bare", "first byte, SQLite over memory", "first byte, Postgres over memory"),
        full=partial(first_byte.measure, rounds=20),
        quick=partial(first_byte.measure, rounds=3),
    ),
    "cost": Measure(
        "ours limit bare",
        ("cost per token, ours: dearest/cheapest",),
        full=partial(cost.measure, rounds=7),
    ),
    "memory": Measure(
        "ours limit bare",
        ("memory, ours: stopped less reading",),
        full=partial(memory.measure, tokens=300_000),
    ),
    "start": Measure(
        "ours bare",
        ("start/import",),
        full=partial(start.measure, pairs=5),
        quick=partial(start.measure, pairs=1),
    ),
}


def run(name: str, fleet: Fleet, peers: list[Peer], *, quick: bool) -> list[Figure]:
    """The figures of one measure. A wrong answer or a dead peer voids the measure and is an error."""
    measure = MEASURES[name]
    ask = measure.quick if quick else measure.full
    if ask is None:
        return [Figure(target, None, note="not in the quick version") for target in measure.targets]
    try:
        figures = ask(fleet, peers)
    except (IncompleteAnswer, ProcessFailed, OSError) as error:
        return [Figure(name, None, note=f"{type(error).__name__}: {error}", failed=True)]
    missing = set(measure.targets) - {figure.name for figure in figures}
    return figures + [Figure(target, None, note="a peer is missing") for target in sorted(missing)]


def choose(only: str) -> tuple[list[str], dict[str, Peer]]:
    """The measures and the peers that `--only` names; a kind of which it names none is taken whole."""
    names = [name for name in only.split(",") if name]
    if unknown := set(names) - MEASURES.keys() - PEERS.keys():
        raise SystemExit(f"unknown: {', '.join(sorted(unknown))}; known: {', '.join([*MEASURES, *PEERS])}")
    measures = [name for name in MEASURES if name in names] or list(MEASURES)
    wanted = [name for name in PEERS if name in names] or list(PEERS)
    peers = {name: PEERS[name] for name in wanted}
    for peer in list(peers.values()):
        if missing := peer.program.missing():
            print(f"skipped: {peer.name}, because {missing} is not installed")
            del peers[peer.name]
    return measures, peers


def main() -> int:
    """Run the chosen measures, print the table, write the results file."""
    parser = argparse.ArgumentParser(prog="python -m tests.benchmarks", description=__doc__)
    parser.add_argument("--quick", action="store_true", help="a short version with wider error")
    parser.add_argument("--only", default="", metavar="NAME,...", help="measures or peers")
    options = parser.parse_args()
    measures, peers = choose(options.only)
    os.sched_setaffinity(0, {LOAD_CORE})
    before, began = CpuTimes.now(), time.monotonic()
    figures: list[Figure] = []
    with Fleet() as fleet:
        for name in measures:
            asked = [peers[peer] for peer in MEASURES[name].peers.split() if peer in peers]
            print(f"\n{name}", flush=True)
            for figure in run(name, fleet, asked, quick=options.quick):
                print(report.row(figure), flush=True)
                figures.append(figure)
    conditions = {
        "quick": options.quick,
        "skipped_peers": sorted(PEERS.keys() - peers.keys()),
        **_conditions(before, began),
    }
    if conditions["used_by_others_cores"] + conditions["stolen_cores"] > QUIET:
        print("\nThe machine was busy with other work: the figures are rough. Run it again at rest to judge targets.")
    print("\n" + "\n".join(f"{key}: {value}" for key, value in conditions.items()))
    print(f"results: {report.write(figures, conditions)}")
    return 1 if any(figure.verdict in {"fail", "error"} for figure in figures) else 0


def _conditions(before: CpuTimes, began: float) -> dict[str, Any]:
    """How undisturbed the run was: CPU time of others and time stolen by the host, in cores on average."""
    spent, seconds, own = CpuTimes.now() - before, time.monotonic() - began, os.times()
    ours = own.user + own.system + own.children_user + own.children_system
    return {
        "seconds": round(seconds, 1),
        "server_core": SERVER_CORE,
        "load_core": LOAD_CORE,
        "used_by_others_cores": round(max(0.0, spent.used - ours) / seconds, 3),
        "stolen_cores": round(spent.stolen / seconds, 3),
    }


if __name__ == "__main__":
    sys.exit(main())
