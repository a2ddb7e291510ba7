"""Telling somebody that a run is over: off unless the operator allows hosts; signed, no redirects, a pinned address.

x-agent-server-signature: t=<Unix seconds>,v1=<hex HMAC-SHA-256 of "<t>.<body>" with the server's secret>
"""

from __future__ import annotations

import asyncio
import hashlib
import hmac
import logging
import socket
import time
from collections.abc import Awaitable, Callable, Mapping
from typing import Any, NamedTuple
from urllib.parse import urlsplit

import httpx

from agent_server.framing import to_json
from agent_server.protocols.langgraph.refusals import UnprocessableError
from agent_server.runs.log import EventLog
from agent_server.settings import Settings

logger = logging.getLogger("agent_server.webhooks")

SIGNATURE = "x-agent-server-signature"
SECONDS = 10.0
ATTEMPTS = 3

Told = Callable[[str], Awaitable[Mapping[str, Any] | None]]
"""What is told of a run that is over, by its id."""


class _Place(NamedTuple):
    scheme: str
    host: str
    port: int
    path: str

    @property
    def origin(self) -> str:
        host = f"[{self.host}]" if ":" in self.host else self.host
        usual = {"http": 80, "https": 443}[self.scheme]
        return host if self.port == usual else f"{host}:{self.port}"


class Webhooks:
    """The webhooks of one app. `settings.webhook_hosts` are hosts, or hosts with ports, that may be told."""

    def __init__(self, settings: Settings, told: Told, transport: httpx.AsyncBaseTransport | None = None) -> None:
        self._allowed = frozenset(host.lower() for host in settings.webhook_hosts)
        self._secret = settings.secret.get_secret_value().encode()
        self._told = told
        self._transport = transport

    async def check(self, url: str) -> None:
        """Raises `UnprocessableError` for an address that may not be told."""
        self._place(url)

    def _place(self, url: str) -> _Place:
        if not self._allowed:
            raise UnprocessableError("'webhook' is off on this server.", param="webhook")
        try:
            parts = urlsplit(url)
            host, port = parts.hostname, parts.port
        except ValueError:
            host, port, parts = None, None, urlsplit("")
        if parts.scheme not in ("http", "https") or not host or parts.username is not None:
            raise UnprocessableError("'webhook' must be an address that begins with https://.", param="webhook")
        place = _Place(parts.scheme, host, port or (443 if parts.scheme == "https" else 80), parts.path or "/")
        if not {place.host, f"{place.host}:{place.port}"} & self._allowed:
            raise UnprocessableError(f"'webhook' may not go to {place.host[:100]!r}.", param="webhook")
        return place._replace(path=f"{place.path}?{parts.query}" if parts.query else place.path)

    async def tell(self, url: str, run_id: str, log: EventLog) -> None:
        """Wait for a run's end and tell it, trying again for a while. Of a failure only the log tells."""
        await log.until_over()
        told = await self._told(run_id)
        if told is None:
            return
        place, body = self._place(url), to_json(told)
        for attempt in range(ATTEMPTS):
            try:
                status = await self._post(place, body)
            except (httpx.HTTPError, OSError) as error:
                logger.warning("webhook to %s failed: %s", place.host, type(error).__name__)
            else:
                if status < 500:
                    return
            await asyncio.sleep(2.0**attempt)

    async def _post(self, place: _Place, body: bytes) -> int:
        """To the address that the name has now, and to no other: a second look-up could find another one."""
        loop = asyncio.get_running_loop()
        found = await loop.getaddrinfo(place.host, place.port, type=socket.SOCK_STREAM)
        address = str(found[0][4][0])
        pinned = f"[{address}]" if ":" in address else address
        async with httpx.AsyncClient(
            transport=self._transport, timeout=SECONDS, follow_redirects=False, trust_env=False
        ) as client:
            request = client.build_request(
                "POST",
                f"{place.scheme}://{pinned}:{place.port}{place.path}",
                content=body,
                headers={"host": place.origin, "content-type": "application/json", SIGNATURE: self._signed(body)},
                extensions={"sni_hostname": place.host},
            )
            return (await client.send(request)).status_code

    def _signed(self, body: bytes) -> str:
        at = str(int(time.time()))
        return f"t={at},v1={hmac.new(self._secret, at.encode() + b'.' + body, hashlib.sha256).hexdigest()}"
