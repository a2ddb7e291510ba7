"""The client for synchronous code."""

from __future__ import annotations

import time
from collections.abc import Iterator
from contextlib import suppress
from typing import Any, Self

import httpx

from agent_server.client.following import AWAY, Following, Frame, refusal, saying

READ_TIMEOUT = 60.0
"""Seconds of silence, heartbeats included, after which a connection is taken for lost."""


class Client:
    """A server of session turns. `http` is used in place of a connection pool of its own."""

    def __init__(self, base_url: str, *, http: httpx.Client | None = None, read_timeout: float = READ_TIMEOUT) -> None:
        self.base_url = base_url.rstrip("/")
        self.http = http or httpx.Client(timeout=httpx.Timeout(10.0, read=read_timeout))

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def close(self) -> None:
        """Close the connections."""
        self.http.close()

    def initialize(self, **options: Any) -> Session:
        """A session: a new one, or with `session_id` and `token` one that is there. Raises `AgentServerError`."""
        token = options.pop("token", None)
        headers = {"authorization": f"Bearer {token}"} if token else {}
        response = self.http.post(f"{self.base_url}/initialize", json=options, headers=headers)
        if not response.is_success:
            raise refusal(response.status_code, response.text)
        told = response.json()
        return Session(self, told["session_id"], told["token"])


class Session:
    """A session, by its id and token."""

    def __init__(self, client: Client, session_id: str, token: str) -> None:
        self._client = client
        self.id = session_id
        self.token = token

    def stream(self, query: str | None = None, *, decision: Any = None, **options: Any) -> Iterator[Frame]:
        """The frames of a new turn, to its last one.

        Raises `AgentServerError` for what the server refuses, and `ConnectionLostError`.
        """
        return self._follow(Following(self.token, saying(query, decision, options)))

    def resume(self, turn_id: str, after: int = -1) -> Iterator[Frame]:
        """The frames of a turn after the one of that number."""
        return self._follow(Following(self.token, turn_id=turn_id, after=after))

    def ask(self, query: str | None = None, *, decision: Any = None, **options: Any) -> dict[str, Any]:
        """The whole turn, once it is over or waits for an answer."""
        frames = self._follow(Following(self.token, saying(query, decision, {"show_agent_traces": False, **options})))
        for frame in frames:
            if frame.event == "error":
                return self.turn(frame.data["turn_id"])
            if frame.event == "command_output":
                return frame.data
        raise AssertionError("a stream ends with its last frame")

    def turn(self, turn_id: str, *, wait: float = 0.0) -> dict[str, Any]:
        """A turn as it is, after `wait` seconds at most."""
        return self._json("GET", f"/turns/{turn_id}", params={"wait": wait})

    def cancel(self, turn_id: str) -> dict[str, Any]:
        """A turn, stopped."""
        return self._json("POST", f"/turns/{turn_id}/cancel")

    def _json(self, method: str, path: str, **given: Any) -> dict[str, Any]:
        headers = {"authorization": f"Bearer {self.token}"}
        response = self._client.http.request(method, f"{self._client.base_url}{path}", headers=headers, **given)
        if not response.is_success:
            raise refusal(response.status_code, response.text)
        told: dict[str, Any] = response.json()
        return told

    def _follow(self, turn: Following) -> Iterator[Frame]:
        while not turn.done:
            with suppress(httpx.TransportError):
                yield from self._connection(turn)
            if not turn.done:
                time.sleep(turn.lost())

    def _connection(self, turn: Following) -> Iterator[Frame]:
        """The frames that one connection brings."""
        call, client = turn.call(), self._client
        url = f"{client.base_url}{call.path}"
        with client.http.stream(call.method, url, params=call.params, headers=call.headers, json=call.body) as response:
            if response.status_code in AWAY:
                return
            if not response.is_success:
                response.read()
                raise refusal(response.status_code, response.text)
            turn.answered(response.headers)
            for line in response.iter_lines():
                frame = turn.line(line)
                if frame is not None:
                    yield frame
                if turn.done:
                    return
