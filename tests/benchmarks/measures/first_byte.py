"""Time to the first byte of the body and to the first token, ours against bare, one request at a time.

The model yields after each token here: with one that never suspends, the first byte of a server that sends
nothing before the first token would wait for the whole answer.
"""

from __future__ import annotations

from statistics import median

import uvloop

from tests.benchmarks.catalogue import Peer
from tests.benchmarks.client import Answer, sequential
from tests.benchmarks.measures.fleet import Fleet
from tests.benchmarks.report import Figure

PROMPT = "tokens 20 yield 1"
BLOCK = 20


def measure(fleet: Fleet, peers: list[Peer], rounds: int) -> list[Figure]:
    """Medians in milliseconds over interleaved blocks, after one block each to warm up."""
    answers: dict[str, list[Answer]] = {peer.name: [] for peer in peers}
    for round_ in range(rounds + 1):
        for peer in peers:
            block = _block(fleet, peer)
            answers[peer.name] += block if round_ else []
    byte = {name: median(answer.first_byte for answer in got) * 1000 for name, got in answers.items()}
    token = {name: median(answer.first_token for answer in got) * 1000 for name, got in answers.items()}
    figures = [Figure(f"first byte, {name}", value, "ms") for name, value in byte.items()]
    figures += [Figure(f"first token, {name}", value, "ms") for name, value in token.items()]
    for name, store in (("ours_sqlite", "SQLite"), ("ours_postgres", "Postgres")):
        if {"ours", name} <= byte.keys():
            figures.append(Figure(f"first byte, {store} over memory", byte[name] - byte["ours"], "ms"))
    if {"ours", "bare"} <= byte.keys():
        figures.append(Figure("first byte over bare", byte["ours"] - byte["bare"], "ms"))
        figures.append(Figure("first token over bare", token["ours"] - token["bare"], "ms"))
    return figures


def _block(fleet: Fleet, peer: Peer) -> list[Answer]:
    assert peer.wire is not None
    return uvloop.run(sequential(fleet.process(peer).port, peer.wire, PROMPT, BLOCK))
