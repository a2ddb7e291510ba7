"""Turns in tests: folded from events, and asked for over HTTP."""

from __future__ import annotations

import json
from collections.abc import Iterable
from typing import Any

from starlette.applications import Starlette

from agent_server.events import Event
from agent_server.framing import Frame, Framing, to_json
from agent_server.protocols.turns.encoder import SSE, TurnEncoder
from tests.conformance.expected import QUESTION
from tests.support.exchange import Exchange, ask

Told = tuple[str, dict[str, Any]]
"""A frame as its client reads it: the event's name and its data."""


def frames(events: Iterable[Event], *, traces: bool = True, after: int = -1) -> list[Frame]:
    """The events folded into the frames of a turn."""
    encoder = TurnEncoder(query=QUESTION, user_id="ann", traces=traces, after=after)
    return [frame for event in events for frame in encoder.feed(event)]


def told(events: Iterable[Event], framing: Framing = SSE) -> bytes:
    """The events folded into the bytes of a stream."""
    return b"".join(map(framing.write, frames(events))) + framing.end


def answer(events: Iterable[Event]) -> bytes:
    """The events folded into the answer to a request that does not stream."""
    encoder = TurnEncoder(query=QUESTION, user_id="ann", traces=False)
    for event in events:
        encoder.feed(event)
    return to_json(encoder.whole) + b"\n"


def read_sse(stream: bytes) -> list[Told]:
    """What an event stream tells, strictly: `event:`, `data:`, a blank line; heartbeats are left out."""
    found: list[Told] = []
    for block in stream.decode().removesuffix("\n\n").split("\n\n"):
        if block == ": ping":
            continue
        name, data = block.split("\n")
        assert name.startswith("event: "), block
        assert data.startswith("data: "), block
        found.append((name.removeprefix("event: "), json.loads(data.removeprefix("data: "))))
    return found


def read_ndjson(stream: bytes) -> list[Told]:
    """What lines of JSON tell; heartbeats are left out."""
    lines = [json.loads(line) for line in stream.decode().split("\n") if line]
    return [(line["type"], line["data"]) for line in lines]


class Talk:
    """A session with an app in the test's own event loop."""

    def __init__(self, app: Starlette, opened: dict[str, Any]) -> None:
        self.app = app
        self.opened = opened
        self.id: str = opened["session_id"]
        self.headers = {"authorization": f"Bearer {opened['token']}"}

    @classmethod
    async def open(cls, app: Starlette, **body: Any) -> Talk:
        """A new session."""
        answered = await ask(app, "POST", "/initialize", body)
        assert answered.status == 201, answered.received
        return cls(app, json.loads(answered.received))

    def exchange(self, method: str, target: str, body: Any = None, **headers: str) -> Exchange:
        """A request with the session's token; underscores in names of headers stand for hyphens."""
        given = {name.replace("_", "-"): value for name, value in headers.items()}
        return Exchange(self.app, method, target, body, {**self.headers, **given})

    async def request(self, method: str, target: str, body: Any = None, **headers: str) -> Exchange:
        """A request with the session's token, answered."""
        async with self.exchange(method, target, body, **headers) as exchange:
            await exchange.whole()
        return exchange

    async def say(self, query: str | None = "Hi", **body: Any) -> Exchange:
        """`POST /invoke_agent`, answered."""
        said = {} if query is None else {"user_query": query}
        return await self.request("POST", "/invoke_agent", {**said, **body})

    def stream(self, query: str | None = "Hi", **body: Any) -> Exchange:
        """`POST /invoke_agent_stream`."""
        said = {} if query is None else {"user_query": query}
        return self.exchange("POST", "/invoke_agent_stream", {**said, **body})

    async def streamed(self, query: str | None = "Hi", **body: Any) -> list[Told]:
        """The frames of a whole turn."""
        async with self.stream(query, **body) as exchange:
            return read_sse(await exchange.whole())


def body_of(exchange: Exchange) -> Any:
    """The JSON of an answer."""
    return json.loads(exchange.received)


def code_of(exchange: Exchange) -> tuple[int, str]:
    """The status and the code of a refusal."""
    return exchange.status, body_of(exchange)["error"]["code"]
