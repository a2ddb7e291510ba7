"""Peer "ceiling": Starlette sending ready-made Responses frames, no agent. What HTTP alone allows."""

from __future__ import annotations

import sys
from collections.abc import AsyncIterator

import orjson
from starlette.applications import Starlette
from starlette.requests import Request
from starlette.responses import PlainTextResponse, StreamingResponse
from starlette.routing import Route

from tests.benchmarks.fake_agent import TOKEN, order
from tests.benchmarks.peers.serving import serve

_DELTA = {
    "type": "response.output_text.delta",
    "sequence_number": 100,
    "item_id": "msg_0123456789abcdef0123456789abcdef",
    "output_index": 0,
    "content_index": 0,
    "delta": TOKEN,
    "logprobs": [],
}
_LINE = b"event: response.output_text.delta\ndata: %b\n\n" % orjson.dumps(_DELTA)


async def _lines(count: int) -> AsyncIterator[bytes]:
    for _ in range(count):
        yield _LINE
    yield b"data: [DONE]\n\n"


async def stream(request: Request) -> StreamingResponse:
    body = orjson.loads(await request.body())
    count, _ = order(body["input"][-1]["content"])
    return StreamingResponse(_lines(count), media_type="text/event-stream")


async def health(_: Request) -> PlainTextResponse:
    return PlainTextResponse("ok")


app = Starlette(routes=[Route("/stream", stream, methods=["POST"]), Route("/health", health)])

if __name__ == "__main__":
    serve(app, int(sys.argv[1]))
