"""Who asks: request ids, and identity headers where a trusted proxy set them."""

from __future__ import annotations

from collections.abc import Sequence
from ipaddress import IPv4Network, IPv6Network, ip_address
from typing import NamedTuple

from starlette.datastructures import Headers, MutableHeaders
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from agent_server import ids

Network = IPv4Network | IPv6Network

TENANT = "default"
"""Whose everything is, until there is authentication."""


class Identity(NamedTuple):
    """What a trusted proxy says of the caller; all None for anybody else."""

    user: str | None = None
    email: str | None = None
    preferred_username: str | None = None
    access_token: str | None = None


def is_trusted(scope: Scope, proxies: Sequence[Network]) -> bool:
    """Whether the peer of the connection itself is a trusted proxy."""
    client = scope.get("client")
    if not proxies or not client:
        return False
    try:
        address = ip_address(client[0])
    except ValueError:  # a Unix socket, or a test's name
        return False
    return any(address in network for network in proxies)


def identity_of(scope: Scope, proxies: Sequence[Network]) -> Identity:
    """The caller's identity from `x-forwarded-*`, as Databricks Apps and other authenticating proxies set it."""
    if not is_trusted(scope, proxies):
        return Identity()
    headers = Headers(scope=scope)
    return Identity(
        user=headers.get("x-forwarded-user"),
        email=headers.get("x-forwarded-email"),
        preferred_username=headers.get("x-forwarded-preferred-username"),
        access_token=headers.get("x-forwarded-access-token"),
    )


class RequestId:
    """Pure ASGI middleware: gives every request an id, kept in `scope["request_id"]` and sent as `x-request-id`."""

    def __init__(self, app: ASGIApp, proxies: Sequence[Network] = ()) -> None:
        self._app = app
        self._proxies = proxies

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] != "http":
            await self._app(scope, receive, send)
            return
        given = Headers(scope=scope).get("x-request-id") if is_trusted(scope, self._proxies) else None
        request_id = scope["request_id"] = given or ids.new_request_id()

        async def send_with_id(message: Message) -> None:
            if message["type"] == "http.response.start":
                MutableHeaders(scope=message)["x-request-id"] = request_id
            await send(message)

        await self._app(scope, receive, send_with_id)
