"""What `predict_stream` costs a token: `python -m tests.benchmarks.predict_stream [TOKENS]`, microseconds.

The fake agent is asked in turns: by its graph's own `stream(stream_mode="messages")`, and as an MLflow model, in
the caller's thread and by way of the model's event loop. CPU time, the median of the repeats; the ratio is that of
the model in the caller's thread to the graph. The target is at most 1.3.
"""

from __future__ import annotations

import gc
import sys
import time
import warnings
from collections.abc import Callable, Iterable
from statistics import median
from typing import Any

with warnings.catch_warnings():
    warnings.simplefilter("ignore")
    import mlflow

    from agent_server.mlflow_agent import AgentModel

from tests.benchmarks.fake_agent import agent

REPEATS = 21


def cpu_seconds(stream: Callable[[], Iterable[Any]]) -> float:
    """CPU time of one answer."""
    start = time.process_time()
    for _ in stream():
        pass
    return time.process_time() - start


def main(tokens: int) -> None:
    """Measure and print."""
    messages = [{"role": "user", "content": f"tokens {tokens}"}]
    here, there = AgentModel(agent), AgentModel(agent, synchronous=False)
    ways: dict[str, Callable[[], Iterable[Any]]] = {
        "graph.stream": lambda: agent.stream({"messages": messages}, stream_mode="messages"),
        "predict_stream": lambda: here.predict_stream({"input": messages}),
        "predict_stream, on a loop": lambda: there.predict_stream({"input": messages}),
    }
    spent: dict[str, list[float]] = {name: [] for name in ways}
    with mlflow.tracing.context(enabled=False):
        for way in ways.values():
            cpu_seconds(way)
        gc.collect()
        gc.freeze()  # or a full collection now and then, of all that is imported, would decide the ratio
        for _ in range(REPEATS):
            for name, way in ways.items():
                spent[name].append(cpu_seconds(way))
    for name, seconds in spent.items():
        print(f"{name:<30} {median(seconds) / tokens * 1e6:8.2f} us/token", flush=True)
    print(f"{'ratio':<30} {median(spent['predict_stream']) / median(spent['graph.stream']):8.2f}")


if __name__ == "__main__":
    main(int(sys.argv[1]) if len(sys.argv) > 1 else 2000)
