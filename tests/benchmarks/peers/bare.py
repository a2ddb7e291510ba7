"""Peer "bare": Starlette, LangGraph's own `messages` stream mode, one orjson line per token."""

from __future__ import annotations

import sys
from collections.abc import AsyncIterator
from typing import Any

import orjson
from starlette.applications import Starlette
from starlette.requests import Request
from starlette.responses import PlainTextResponse, StreamingResponse
from starlette.routing import Route

from tests.benchmarks.fake_agent import agent
from tests.benchmarks.peers.serving import serve


async def _lines(messages: Any) -> AsyncIterator[bytes]:
    chunks: AsyncIterator[Any] = agent.astream({"messages": messages}, stream_mode="messages")
    async for chunk, _ in chunks:
        if chunk.content:
            yield b"data: %b\n\n" % orjson.dumps({"delta": chunk.content})
    yield b"data: [DONE]\n\n"


async def stream(request: Request) -> StreamingResponse:
    body = orjson.loads(await request.body())
    return StreamingResponse(_lines(body["input"]), media_type="text/event-stream")


async def health(_: Request) -> PlainTextResponse:
    return PlainTextResponse("ok")


app = Starlette(routes=[Route("/stream", stream, methods=["POST"]), Route("/health", health)])

if __name__ == "__main__":
    serve(app, int(sys.argv[1]))
