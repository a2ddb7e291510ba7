"""Runs a second of the LangGraph API: `python -m tests.benchmarks.stateless_runs [STORE]`.

A server on one core, a client on another: 300 stateless runs of a graph that answers at once, by 20 clients, and 50
runs at a time that take half a second each. The median and the best of the rounds; targets are 3 x 78 runs/s and 1.5 s.
"""

from __future__ import annotations

import asyncio
import multiprocessing
import os
import socket
import sys
import time
from multiprocessing.connection import Connection
from pathlib import Path
from statistics import median
from typing import Any, TypedDict

import httpx
import uvicorn
from langgraph.graph import END, START, StateGraph

from agent_server.app import create_app
from agent_server.settings import Settings
from tests.benchmarks.processes import LOAD_CORE, SERVER_CORE, on_core

RUNS, CLIENTS, ROUNDS = 300, 20, 5
SLOW_RUNS, SLOW_SECONDS = 50, 0.5


class Number(TypedDict, total=False):
    x: int


def _graph(node: Any) -> Any:
    graph = StateGraph(Number)
    graph.add_node("node", node)
    graph.add_edge(START, "node")
    graph.add_edge("node", END)
    return graph.compile()


async def _instant(_: Number) -> Number:
    return {"x": 1}


async def _slow(_: Number) -> Number:
    await asyncio.sleep(SLOW_SECONDS)
    return {"x": 2}


def serve(store: str, told: Connection) -> None:
    """A server in a process of its own; tells its port."""
    with on_core(SERVER_CORE):
        app = create_app({"instant": _graph(_instant), "slow": _graph(_slow)}, Settings(store=store))
        listener = socket.create_server(("127.0.0.1", 0))
        told.send(listener.getsockname()[1])
        config = uvicorn.Config(app, log_config=None, lifespan="on", http="httptools", loop="uvloop")
        uvicorn.Server(config).run(sockets=[listener])


async def seconds(base_url: str, agent: str, runs: int, clients: int) -> float:
    """How long so many runs take. Each is seen to have answered."""
    limits = httpx.Limits(max_connections=clients, max_keepalive_connections=clients)
    async with httpx.AsyncClient(base_url=base_url, timeout=60, limits=limits) as client:

        async def run() -> None:
            answer = await client.post("/runs/wait", json={"assistant_id": agent, "input": {"x": 0}})
            assert answer.json() == {"x": 1 if agent == "instant" else 2}

        await run()
        start = time.perf_counter()
        await asyncio.gather(*(run() for _ in range(runs)))
        return time.perf_counter() - start


def _cpu(pid: int | None) -> float:
    """CPU time of a process so far, in seconds: proc_pid_stat(5)."""
    fields = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()
    return (int(fields[11]) + int(fields[12])) / os.sysconf("SC_CLK_TCK")


def main(store: str) -> None:
    """Measure and print."""
    context = multiprocessing.get_context("spawn")
    ours, its = context.Pipe()
    server = context.Process(target=serve, args=(store, its))
    server.start()
    try:
        base_url = f"http://127.0.0.1:{ours.recv()}"
        with on_core(LOAD_CORE):
            before = _cpu(server.pid)
            rates = [RUNS / asyncio.run(seconds(base_url, "instant", RUNS, CLIENTS)) for _ in range(ROUNDS)]
            spent = (_cpu(server.pid) - before) / (ROUNDS * (RUNS + 1)) * 1000
            slow = [asyncio.run(seconds(base_url, "slow", SLOW_RUNS, SLOW_RUNS)) for _ in range(ROUNDS)]
        print(f"{RUNS} instant runs   {median(rates):7.0f} runs/s, best {max(rates):.0f}")
        print(f"{'':<16} {spent:7.2f} ms of the server's CPU a run")
        print(f"{SLOW_RUNS} runs of {SLOW_SECONDS} s  {median(slow):7.2f} s, best {min(slow):.2f}")
    finally:
        server.terminate()
        server.join()


if __name__ == "__main__":
    main(sys.argv[1] if len(sys.argv) > 1 else "memory")
