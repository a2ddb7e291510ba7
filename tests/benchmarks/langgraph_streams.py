"""Streams of the LangGraph API: `python -m tests.benchmarks.langgraph_streams [STORE]`.

A server on one core, 8 clients on another: tokens a second on `/runs/stream` in the mode `messages-tuple`, of a model
that never waits and of one that yields after each token; and the time to the first event of an idle server. Every
answer is seen to hold all its tokens and its end. Targets are 10 x 1,300 tokens/s and 20 ms.
"""

from __future__ import annotations

import asyncio
import multiprocessing
import socket
import sys
import time
from multiprocessing.connection import Connection
from statistics import median

import orjson
import uvicorn

from agent_server.app import create_app
from agent_server.settings import Settings
from tests.benchmarks.fake_agent import TOKEN, agent
from tests.benchmarks.processes import LOAD_CORE, SERVER_CORE, on_core

CLIENTS, TOKENS, REQUESTS, ROUNDS, IDLE = 8, 1000, 3, 5, 20
_CHUNK = b'data: [{"content":"%b",' % TOKEN.encode()
_END = b'data: {"status":"success"}'


def serve(store: str, told: Connection) -> None:
    """A server in a process of its own; tells its port."""
    with on_core(SERVER_CORE):
        app = create_app({"agent": agent}, Settings(store=store))
        listener = socket.create_server(("127.0.0.1", 0))
        told.send(listener.getsockname()[1])
        config = uvicorn.Config(app, log_config=None, lifespan="on", http="httptools", loop="uvloop")
        uvicorn.Server(config).run(sockets=[listener])


def _request(prompt: str) -> bytes:
    messages = [{"role": "user", "content": prompt}]
    body = orjson.dumps({"assistant_id": "agent", "input": {"messages": messages}, "stream_mode": ["messages-tuple"]})
    head = f"POST /runs/stream HTTP/1.1\r\nhost: 127.0.0.1\r\nconnection: close\r\ncontent-length: {len(body)}\r\n\r\n"
    return head.encode() + body


async def first_event(port: int) -> float:
    """Milliseconds to the first event of a run."""
    reader, writer = await asyncio.open_connection("127.0.0.1", port)
    start = time.perf_counter()
    writer.write(_request("tokens 1"))
    await reader.readuntil(b"event: ")
    seconds = time.perf_counter() - start
    await reader.read()
    writer.close()
    return seconds * 1000


async def _stream(port: int, prompt: str) -> None:
    reader, writer = await asyncio.open_connection("127.0.0.1", port, limit=2**24)
    writer.write(_request(prompt))
    answer = await reader.read()
    writer.close()
    assert answer.count(_CHUNK) == TOKENS, answer[:500]
    assert _END in answer[-200:]


async def rate(port: int, prompt: str) -> float:
    """Tokens a second that all clients get together."""

    async def client() -> None:
        for _ in range(REQUESTS):
            await _stream(port, prompt)

    start = time.perf_counter()
    await asyncio.gather(*(client() for _ in range(CLIENTS)))
    return CLIENTS * REQUESTS * TOKENS / (time.perf_counter() - start)


def main(store: str) -> None:
    """Measure and print."""
    context = multiprocessing.get_context("spawn")
    ours, its = context.Pipe()
    server = context.Process(target=serve, args=(store, its))
    server.start()
    try:
        port = ours.recv()
        with on_core(LOAD_CORE):
            asyncio.run(rate(port, f"tokens {TOKENS}"))
            times = [asyncio.run(first_event(port)) for _ in range(IDLE)]
            print(f"first event        {median(times):8.1f} ms, worst {max(times):.1f}")
            for name, prompt in (("never waits", f"tokens {TOKENS}"), ("yields each", f"tokens {TOKENS} yield 1")):
                rates = [asyncio.run(rate(port, prompt)) for _ in range(ROUNDS)]
                print(f"model {name:<12} {median(rates):8,.0f} tokens/s, best {max(rates):,.0f}")
    finally:
        server.terminate()
        server.join()


if __name__ == "__main__":
    main(sys.argv[1] if len(sys.argv) > 1 else "memory")
