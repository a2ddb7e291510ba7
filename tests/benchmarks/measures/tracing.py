"""What tracing costs: the throughput of servers that trace and of the same ones that do not, and what became of traces.

CPU time of an exporter process counts as the server's, as long as the load lasts. What it has left to do then it does
before the next slot, with nobody asking: a queue that is too short for that shows as traces that are lost.
"""

from __future__ import annotations

import http.client

import orjson

from tests.benchmarks.catalogue import Peer
from tests.benchmarks.measures import throughput
from tests.benchmarks.measures.fleet import Fleet
from tests.benchmarks.report import Figure


def measure(fleet: Fleet, peers: list[Peer], prompt: str, rounds: int, seconds: float) -> list[Figure]:
    """The figures of throughput, then the shares of traces that reached the tracking store."""
    figures = throughput.measure(fleet, peers, prompt, rounds, seconds, label=", tracing")
    return figures + [_exported(fleet, peer) for peer in peers if peer.name == "ours_traced"]


def _exported(fleet: Fleet, peer: Peer) -> Figure:
    connection = http.client.HTTPConnection("127.0.0.1", fleet.process(peer).port, timeout=5)
    connection.request("GET", "/agent/info")
    counts = orjson.loads(connection.getresponse().read())["traces"]
    connection.close()
    share = counts["exported"] / sum(counts.values())
    return Figure(
        f"traces exported, {peer.name}", 100 * share, "%", ", ".join(f"{n} {what}" for what, n in counts.items())
    )
