"""The load generator: a lean HTTP/1.1 client that checks every answer and counts tokens by their text.

Frames are not counted as tokens, since a server may put several tokens into one frame. An answer that is not
complete raises `IncompleteAnswer`: a figure is never made of answers that were not whole.
"""

from __future__ import annotations

import asyncio
import time
from collections.abc import Iterator
from dataclasses import dataclass
from typing import cast

import httptools
import orjson

from tests.benchmarks.catalogue import Wire
from tests.benchmarks.fake_agent import TOKEN, order

PATIENCE = 120.0
_TOKEN = TOKEN.encode()


class IncompleteAnswer(Exception):
    """A server answered with an error, or with less than it was asked for."""


@dataclass(frozen=True)
class Answer:
    """One checked answer. Times are seconds since the request was written."""

    tokens: int
    frames: int
    size: int
    first_byte: float
    first_token: float
    seconds: float


@dataclass(frozen=True)
class Load:
    """What requests came to. `frames` are those with tokens; `busy` is the client's share of its core."""

    requests: int
    tokens: int
    frames: int
    seconds: float
    busy: float


def request_bytes(path: str, prompt: str) -> bytes:
    """A streamed request over HTTP/1.1 with the body that every peer understands."""
    body = orjson.dumps({"input": [{"role": "user", "content": prompt}], "stream": True})
    head = (
        f"POST {path} HTTP/1.1\r\nhost: 127.0.0.1\r\nuser-agent: benchmark\r\naccept: text/event-stream\r\n"
        f"content-type: application/json\r\ncontent-length: {len(body)}\r\n\r\n"
    )
    return head.encode() + body


def check(status: int, body: bytes, wire: Wire, expected: int) -> tuple[int, int]:
    """The number of tokens and of frames with tokens. Raises `IncompleteAnswer` if anything is missing."""
    if status != 200:
        raise IncompleteAnswer(f"{wire.path} answered {status}: {body[:300]!r}")
    if not body.endswith(wire.end):
        raise IncompleteAnswer(f"{wire.path} did not end its stream: ...{body[-300:]!r}")
    if found := [mark for mark in wire.failure if mark in body]:
        raise IncompleteAnswer(f"{wire.path} answered with {found[0]!r}: ...{body[-300:]!r}")
    if wire.first and wire.first not in body[:4096]:
        raise IncompleteAnswer(f"{wire.path} did not begin with {wire.first!r}: {body[:300]!r}")
    frames = body.split(b"\n\n")
    deltas = [frame for frame in frames if wire.delta in frame]
    tokens = b"".join(deltas).count(_TOKEN)
    if tokens != expected:
        raise IncompleteAnswer(f"{wire.path} sent {tokens} of {expected} tokens")
    if wire.whole:
        whole = [frame.count(_TOKEN) for frame in frames if wire.whole in frame]
        if whole != [expected]:
            raise IncompleteAnswer(f"{wire.path} sent {whole} tokens in {wire.whole!r}, not [{expected}]")
    return tokens, len(deltas)


class Connection(asyncio.Protocol):
    """One keep-alive connection, one request at a time."""

    def __init__(self, wire: Wire) -> None:
        self._wire = wire
        self._transport: asyncio.WriteTransport | None = None
        self._done: asyncio.Future[None] | None = None

    @classmethod
    async def open(cls, port: int, wire: Wire) -> Connection:
        """A new connection to a server on loopback."""
        _, connection = await asyncio.get_running_loop().create_connection(lambda: cls(wire), "127.0.0.1", port)
        return connection

    async def ask(self, request: bytes, expected: int) -> Answer:
        """Send a request, read the whole answer and check it."""
        assert self._transport is not None
        self._done = asyncio.get_running_loop().create_future()
        self._parser = httptools.HttpResponseParser(self)
        self._parts: list[bytes] = []
        self._first_byte = self._first_token = 0.0
        start = time.perf_counter()
        self._transport.write(request)
        try:
            async with asyncio.timeout(PATIENCE):
                await self._done
        except TimeoutError:
            raise IncompleteAnswer(f"{self._wire.path} did not finish in {PATIENCE:.0f} s") from None
        seconds = time.perf_counter() - start
        body = b"".join(self._parts)
        tokens, frames = check(self._parser.get_status_code(), body, self._wire, expected)
        return Answer(tokens, frames, len(body), self._first_byte - start, self._first_token - start, seconds)

    def close(self) -> None:
        """Close the connection."""
        if self._transport is not None:
            self._transport.close()

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self._transport = cast("asyncio.WriteTransport", transport)

    def data_received(self, data: bytes) -> None:
        self._parser.feed_data(data)

    def connection_lost(self, exc: Exception | None) -> None:
        if self._done is not None and not self._done.done():
            self._done.set_exception(IncompleteAnswer(f"{self._wire.path} closed the connection: {exc}"))

    def on_body(self, body: bytes) -> None:
        self._parts.append(body)
        if not self._first_byte:
            self._first_byte = time.perf_counter()
        if not self._first_token and _TOKEN in body:
            self._first_token = time.perf_counter()

    def on_message_complete(self) -> None:
        if self._done is not None and not self._done.done():
            self._done.set_result(None)


async def sequential(port: int, wire: Wire, prompt: str, requests: int) -> list[Answer]:
    """Ask one after the other over one connection."""
    connection = await Connection.open(port, wire)
    request, (expected, _) = request_bytes(wire.path, prompt), order(prompt)
    try:
        return [await connection.ask(request, expected) for _ in range(requests)]
    finally:
        connection.close()


async def concurrent(port: int, wire: Wire, prompt: str, requests: int, clients: int) -> Load:
    """Ask `requests` times over `clients` connections; each takes the next request when it is free."""
    connections = [await Connection.open(port, wire) for _ in range(clients)]
    request, (expected, _) = request_bytes(wire.path, prompt), order(prompt)
    left: Iterator[int] = iter(range(requests))

    async def client(connection: Connection) -> list[Answer]:
        return [await connection.ask(request, expected) for _ in left]

    try:
        start, cpu = time.perf_counter(), time.process_time()
        answered = await asyncio.gather(*map(client, connections))
        seconds, cpu = time.perf_counter() - start, time.process_time() - cpu
    finally:
        for connection in connections:
            connection.close()
    answers = [answer for answers in answered for answer in answers]
    return Load(
        requests=len(answers),
        tokens=sum(answer.tokens for answer in answers),
        frames=sum(answer.frames for answer in answers),
        seconds=seconds,
        busy=cpu / seconds,
    )
