"""AG-UI requests to an app in the test's own event loop, and what comes of them."""

from __future__ import annotations

from typing import Any

import orjson
from starlette.applications import Starlette

from tests.support.agui import Client
from tests.support.exchange import ask, frames_of

Json = dict[str, Any]


def user(text: Any, key: str = "u1") -> Json:
    """A user's message."""
    return {"id": key, "role": "user", "content": text}


def body(*messages: Json, thread: str = "t1", run: str = "r1", **more: Any) -> Json:
    """A `RunAgentInput` as `HttpAgent` sends it."""
    rest = {"tools": [], "context": [], "forwardedProps": {}, "state": {}, "protocolVersion": "1.0"}
    return {"threadId": thread, "runId": run, "messages": list(messages), **rest, **more}


def events_in(stream: bytes) -> list[Json]:
    """The events of a whole stream."""
    frames = frames_of(stream)
    assert all(frame.startswith(b"data: {") and frame.count(b"\n") == 2 for frame in frames)
    return [orjson.loads(frame[6:]) for frame in frames]


class Agent:
    """A client of one thread of one agent, as the official one is: it keeps the messages and sends all of them."""

    def __init__(self, app: Starlette, name: str = "agent", thread: str = "t1") -> None:
        self.app = app
        self.name = name
        self.thread = thread
        self.client = Client()
        self.events: list[Json] = []
        self._runs = 0

    async def run(self, text: str | None = None, *, query: str = "", **more: Any) -> Client:
        """Say something, or nothing, and read all that comes of it."""
        self._runs += 1
        if text is not None:
            self.client.messages.append(user(text, f"u{self._runs}"))
        said = body(
            *self.client.messages, thread=self.thread, run=f"r{self._runs}", **{"state": self.client.state, **more}
        )
        answer = await ask(self.app, "POST", f"/agui/{self.name}{query}", said)
        assert answer.status == 200, answer.received
        assert answer.headers["content-type"] == "text/event-stream; charset=utf-8"
        self.events = events_in(answer.received)
        return self.client.read(self.events)

    async def refused(self, **more: Any) -> tuple[int, Json]:
        """The status and the error of a request that is refused."""
        self._runs += 1
        said = body(*self.client.messages, thread=self.thread, run=f"r{self._runs}", **more)
        answer = await ask(self.app, "POST", f"/agui/{self.name}", said)
        return answer.status, orjson.loads(answer.received)["error"]

    def of(self, *kinds: str) -> list[Json]:
        """The events of these types in the last run."""
        return [event for event in self.events if event["type"] in kinds]

    @property
    def outcome(self) -> Json:
        """How the last run ended."""
        assert self.client.end is not None
        outcome: Json = self.client.end["outcome"]
        return outcome
