"""The client for asynchronous code."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from contextlib import suppress
from typing import Any, Self

import httpx

from agent_server.client.blocking import READ_TIMEOUT
from agent_server.client.following import AWAY, Following, Frame, refusal, saying


class AsyncClient:
    """A server of session turns. `http` is used in place of a connection pool of its own."""

    def __init__(
        self, base_url: str, *, http: httpx.AsyncClient | None = None, read_timeout: float = READ_TIMEOUT
    ) -> None:
        self.base_url = base_url.rstrip("/")
        self.http = http or httpx.AsyncClient(timeout=httpx.Timeout(10.0, read=read_timeout))

    async def __aenter__(self) -> Self:
        return self

    async def __aexit__(self, *_: object) -> None:
        await self.aclose()

    async def aclose(self) -> None:
        """Close the connections."""
        await self.http.aclose()

    async def initialize(self, **options: Any) -> AsyncSession:
        """A session: a new one, or with `session_id` and `token` one that is there. Raises `AgentServerError`."""
        token = options.pop("token", None)
        headers = {"authorization": f"Bearer {token}"} if token else {}
        response = await self.http.post(f"{self.base_url}/initialize", json=options, headers=headers)
        if not response.is_success:
            raise refusal(response.status_code, response.text)
        told = response.json()
        return AsyncSession(self, told["session_id"], told["token"])


class AsyncSession:
    """A session, by its id and token."""

    def __init__(self, client: AsyncClient, session_id: str, token: str) -> None:
        self._client = client
        self.id = session_id
        self.token = token

    def stream(self, query: str | None = None, *, decision: Any = None, **options: Any) -> AsyncIterator[Frame]:
        """The frames of a new turn, to its last one.

        Raises `AgentServerError` for what the server refuses, and `ConnectionLostError`.
        """
        return self._follow(Following(self.token, saying(query, decision, options)))

    def resume(self, turn_id: str, after: int = -1) -> AsyncIterator[Frame]:
        """The frames of a turn after the one of that number."""
        return self._follow(Following(self.token, turn_id=turn_id, after=after))

    async def ask(self, query: str | None = None, *, decision: Any = None, **options: Any) -> dict[str, Any]:
        """The whole turn, once it is over or waits for an answer."""
        frames = self._follow(Following(self.token, saying(query, decision, {"show_agent_traces": False, **options})))
        async for frame in frames:
            if frame.event == "error":
                return await self.turn(frame.data["turn_id"])
            if frame.event == "command_output":
                return frame.data
        raise AssertionError("a stream ends with its last frame")

    async def turn(self, turn_id: str, *, wait: float = 0.0) -> dict[str, Any]:
        """A turn as it is, after `wait` seconds at most."""
        return await self._json("GET", f"/turns/{turn_id}", params={"wait": wait})

    async def cancel(self, turn_id: str) -> dict[str, Any]:
        """A turn, stopped."""
        return await self._json("POST", f"/turns/{turn_id}/cancel")

    async def _json(self, method: str, path: str, **given: Any) -> dict[str, Any]:
        headers = {"authorization": f"Bearer {self.token}"}
        response = await self._client.http.request(method, f"{self._client.base_url}{path}", headers=headers, **given)
        if not response.is_success:
            raise refusal(response.status_code, response.text)
        told: dict[str, Any] = response.json()
        return told

    async def _follow(self, turn: Following) -> AsyncIterator[Frame]:
        while not turn.done:
            with suppress(httpx.TransportError):
                async for frame in self._connection(turn):
                    yield frame
            if not turn.done:
                await asyncio.sleep(turn.lost())

    async def _connection(self, turn: Following) -> AsyncIterator[Frame]:
        """The frames that one connection brings."""
        call, client = turn.call(), self._client
        url = f"{client.base_url}{call.path}"
        async with client.http.stream(
            call.method, url, params=call.params, headers=call.headers, json=call.body
        ) as response:
            if response.status_code in AWAY:
                return
            if not response.is_success:
                await response.aread()
                raise refusal(response.status_code, response.text)
            turn.answered(response.headers)
            async for line in response.aiter_lines():
                frame = turn.line(line)
                if frame is not None:
                    yield frame
                if turn.done:
                    return
