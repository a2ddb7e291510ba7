"""Which pages a browser may let talk to this server over a WebSocket, where it asks nobody else (RFC 6455, 10.2)."""

from __future__ import annotations

from collections.abc import Collection, Mapping
from urllib.parse import urlsplit

_PORTS = {"http": 80, "https": 443}


def is_welcome(headers: Mapping[str, str], allowed: Collection[str]) -> bool:
    """Whether a handshake comes from no page, from one of this server's own, or from an `allowed` origin.

    `headers` have names in lower case; `allowed` are origins such as "https://app.example", or "*" for all.
    """
    origin = headers.get("origin")
    if origin is None or "*" in allowed or origin in allowed:
        return True
    page = urlsplit(origin)
    port = _PORTS.get(page.scheme)
    try:
        host = urlsplit(f"//{headers.get('host', '')}")
        return port is not None and bool(page.hostname) and _place(page, port) == _place(host, port)
    except ValueError:  # no port is like this
        return False


def _place(url: object, port: int) -> tuple[object, object]:
    return getattr(url, "hostname", None), getattr(url, "port", None) or port
