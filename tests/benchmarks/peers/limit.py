"""Peer "limit": the same agent in a loop on uvloop with a callback that only counts tokens; no server.

The callback is what LangGraph's own `messages` stream mode uses: run inline, and marked so that the model
streams to it. The process reads orders from standard input, one JSON object a line (`prompt`, `runs`,
`concurrency`), and answers each with a line of its own (`tokens`, `seconds`).
"""

from __future__ import annotations

import asyncio
import sys
import time
from collections.abc import AsyncIterator, Iterator
from typing import Any
from uuid import UUID

import orjson
import uvloop
from langchain_core.callbacks import BaseCallbackHandler
from langchain_core.tracers._streaming import _StreamingCallbackHandler

from tests.benchmarks.fake_agent import agent


class TokenCounter(BaseCallbackHandler, _StreamingCallbackHandler[Any]):
    """Counts the tokens that the model streams."""

    run_inline = True

    def __init__(self) -> None:
        self.tokens = 0

    def tap_output_aiter(self, run_id: UUID, output: AsyncIterator[Any]) -> AsyncIterator[Any]:
        return output

    def tap_output_iter(self, run_id: UUID, output: Iterator[Any]) -> Iterator[Any]:
        return output

    def on_llm_new_token(self, token: str | list[str | dict[str, Any]], **kwargs: Any) -> None:
        if token:
            self.tokens += 1


async def _one(prompt: str) -> int:
    counter = TokenCounter()
    await agent.ainvoke({"messages": [{"role": "user", "content": prompt}]}, {"callbacks": [counter]})
    return counter.tokens


async def obey(prompt: str, runs: int, concurrency: int) -> dict[str, Any]:
    """Run the agent `runs` times, `concurrency` at once, and tell what came out."""
    left = iter(range(runs))

    async def worker() -> int:
        return sum([await _one(prompt) for _ in left])

    start = time.perf_counter()
    tokens = sum(await asyncio.gather(*(worker() for _ in range(concurrency))))
    return {"tokens": tokens, "seconds": time.perf_counter() - start}


def main() -> None:
    """Obey orders until standard input ends."""
    print("ready", flush=True)
    for line in sys.stdin:
        print(orjson.dumps(uvloop.run(obey(**orjson.loads(line)))).decode(), flush=True)


if __name__ == "__main__":
    main()
