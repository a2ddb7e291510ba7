"""Which pages may connect."""

from __future__ import annotations

import pytest

from agent_server.http.origin import is_welcome


@pytest.mark.parametrize(
    ("origin", "host", "allowed", "welcome"),
    [
        (None, "localhost:8000", (), True),
        ("http://localhost:8000", "localhost:8000", (), True),
        ("http://LOCALHOST:8000", "localhost:8000", (), True),
        ("https://app.example", "app.example", (), True),
        ("https://app.example", "app.example:443", (), True),
        ("http://[::1]:8000", "[::1]:8000", (), True),
        ("http://localhost:8001", "localhost:8000", (), False),
        ("http://app.example:8000", "app.example", (), False),
        ("https://evil.example", "localhost:8000", (), False),
        ("https://localhost:8000.evil.example", "localhost:8000", (), False),
        ("https://app.example:99999", "app.example", (), False),
        ("null", "localhost:8000", (), False),
        ("", "", (), False),
        ("file://", "", (), False),
        ("https://other.example", "localhost:8000", ("https://other.example",), True),
        ("http://other.example", "localhost:8000", ("https://other.example",), False),
        ("https://any.example", "localhost:8000", ("*",), True),
    ],
)
def test_a_page_is_welcome_where_it_comes_from_here_or_is_allowed(
    origin: str | None, host: str, allowed: tuple[str, ...], welcome: bool
) -> None:
    headers = {"host": host} if origin is None else {"host": host, "origin": origin}
    assert is_welcome(headers, allowed) is welcome
