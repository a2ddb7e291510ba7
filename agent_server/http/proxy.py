"""A chat UI on the same machine, served under the same address, as MLflow's AgentServer does it.

Only the paths on a list are passed on, and only to one port; everything else is answered here. Bodies pass as they
are, an event stream chunk by chunk.
"""

from __future__ import annotations

import logging
from collections.abc import Iterable, Sequence

import httpx
from starlette.requests import Request
from starlette.routing import Route
from starlette.types import ASGIApp, Receive, Scope, Send

from agent_server.errors import AgentServerError, NotFoundError, OverloadedError
from agent_server.http.body import read_body
from agent_server.http.errors import error_response
from agent_server.http.stream import WatchedClient

logger = logging.getLogger("agent_server.http")

METHODS = ("GET", "HEAD", "POST", "PUT", "PATCH", "DELETE", "OPTIONS")
CONNECT_SECONDS = 5.0

# RFC 9110, section 7.6.1, and what the client of the other side sets itself.
_HOP_BY_HOP = frozenset(
    {
        b"connection",
        b"host",
        b"keep-alive",
        b"proxy-authenticate",
        b"proxy-authorization",
        b"proxy-connection",
        b"te",
        b"trailer",
        b"transfer-encoding",
        b"upgrade",
    }
)

Headers = Iterable[tuple[bytes, bytes]]


class ChatProxy:
    """Passes requests on to a chat UI. `paths` that end with a slash stand for all below them."""

    def __init__(self, port: int, paths: Sequence[str], *, timeout: float = 300.0, max_body_bytes: int) -> None:
        """`timeout` is how many seconds the chat UI may be silent."""
        self._port = port
        self._paths = paths
        self._limit = max_body_bytes
        self._client = httpx.AsyncClient(timeout=httpx.Timeout(timeout, connect=CONNECT_SECONDS), trust_env=False)

    def routes(self) -> list[Route]:
        """The routes, for the end of an app's own visible list."""
        return [
            Route(f"{path}{{rest:path}}" if path.endswith("/") and path != "/" else path, self._pass, methods=METHODS)
            for path in self._paths
        ]

    async def aclose(self) -> None:
        """Close the connections to the chat UI."""
        await self._client.aclose()

    async def _pass(self, request: Request) -> ASGIApp:
        if ".." in request.url.path.split("/"):
            raise NotFoundError("There is nothing at this address.", code="unknown_url")
        body = await read_body(request.receive, request.headers, limit=self._limit)
        target = request.scope["raw_path"]
        if query := request.scope["query_string"]:
            target += b"?" + query
        passed = self._client.build_request(
            request.method,
            httpx.URL(scheme="http", host="localhost", port=self._port, raw_path=target),
            headers=_end_to_end(request.scope["headers"]),
            content=bytes(body) if body else None,
        )
        try:
            return _Passed(await self._client.send(passed, stream=True))
        except (httpx.ConnectError, httpx.ConnectTimeout):
            return error_response(OverloadedError("The chat UI is not running."))
        except httpx.HTTPError:
            failed = error_response(AgentServerError("The chat UI did not answer."))
            failed.status_code = 502
            return failed


class _Passed:
    """An ASGI response: the other server's, as it comes. It ends early if the client leaves or the server fails."""

    def __init__(self, response: httpx.Response) -> None:
        self._response = response

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        response = self._response
        start = {"status": response.status_code, "headers": _end_to_end(response.headers.raw)}
        try:
            await send({"type": "http.response.start", **start})
            async with WatchedClient(receive):
                async for chunk in response.aiter_raw():
                    await send({"type": "http.response.body", "body": chunk, "more_body": True})
                await send({"type": "http.response.body", "body": b"", "more_body": False})
        except httpx.HTTPError as error:
            logger.warning("The chat UI broke off: %s", type(error).__name__)
        finally:
            await response.aclose()


def _end_to_end(headers: Headers) -> list[tuple[bytes, bytes]]:
    """The headers that a proxy passes on."""
    lowered = [(name.lower(), value) for name, value in headers]
    listed = (value for name, value in lowered if name == b"connection")
    dropped = _HOP_BY_HOP.union(each.strip().lower() for value in listed for each in value.split(b","))
    return [(name, value) for name, value in lowered if name not in dropped]
