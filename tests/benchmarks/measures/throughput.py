"""Tokens a second of each peer under 8 clients, in interleaved rounds, and ours as a ratio to each other one.

Every round asks every peer once, so a drift of the machine hits all alike; a ratio is the median of the
ratios of the rounds. Time that other processes or the host took of the server's core is not counted: on a
machine at rest it is nothing, and on a busy one the ratios hold. How many requests fill a slot is found once
for each peer and then kept.
"""

from __future__ import annotations

from statistics import median

from tests.benchmarks.catalogue import Peer
from tests.benchmarks.measures.fleet import Fleet, Slot
from tests.benchmarks.report import Figure

CLIENTS = 8
SATURATED = 0.9


def measure(fleet: Fleet, peers: list[Peer], prompt: str, rounds: int, seconds: float, label: str = "") -> list[Figure]:
    """Figures named after the peers, with `label` behind, for slots of about `seconds` each."""
    requests = {peer.name: _requests_for(fleet, peer, prompt, seconds) for peer in peers}
    slots: dict[str, list[Slot]] = {peer.name: [] for peer in peers}
    for _ in range(rounds):
        for peer in peers:
            slots[peer.name].append(fleet.slot(peer, prompt, requests[peer.name], CLIENTS))
    rates = {name: [slot.rate for slot in measured] for name, measured in slots.items()}
    figures = [
        Figure(f"{name}{label}", median(rates[name]), "tokens/s", _note(measured), samples=rates[name])
        for name, measured in slots.items()
    ]
    return figures + _ratios(rates, label)


def _requests_for(fleet: Fleet, peer: Peer, prompt: str, seconds: float) -> int:
    """Requests that take about that long, a multiple of the clients. The first slot only warms it up."""
    fleet.slot(peer, prompt, 2 * CLIENTS, CLIENTS)
    probe = fleet.slot(peer, prompt, 4 * CLIENTS, CLIENTS)
    return CLIENTS * max(2, round(probe.load.requests / probe.load.seconds * seconds / CLIENTS))


def _note(slots: list[Slot]) -> str:
    frames = sum(slot.load.frames for slot in slots) / sum(slot.load.tokens for slot in slots)
    server, client = median(slot.server_busy for slot in slots), median(slot.load.busy for slot in slots)
    others = median(slot.others_seconds / slot.load.seconds for slot in slots)
    limited = "; the client is the limit" if client > SATURATED else ""
    return (
        f"{frames:.2f} frames/token; server core {server:.0%} (others {others:.0%}), client core {client:.0%}{limited}"
    )


def _ratios(rates: dict[str, list[float]], label: str) -> list[Figure]:
    figures = []
    for name, others in rates.items():
        if "ours" in rates and name != "ours":
            samples = [ours / other for ours, other in zip(rates["ours"], others, strict=True)]
            figures.append(Figure(f"ours/{name}{label}", median(samples), "x", samples=samples))
    return figures
