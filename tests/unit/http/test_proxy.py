"""The chat UI behind the server: what is passed on, how, and what never is."""

from __future__ import annotations

import json
import socket
from collections.abc import AsyncIterator, Iterator
from typing import Any

import httpx
import pytest
from starlette.applications import Starlette
from starlette.requests import Request
from starlette.responses import JSONResponse, RedirectResponse, Response, StreamingResponse
from starlette.routing import Route

from agent_server.settings import Settings
from tests.support.gates import Gate
from tests.support.scripted import SCENARIOS
from tests.support.serve import running, serving
from tests.support.wire import Wire

METHODS = ["GET", "HEAD", "POST", "PUT", "PATCH", "DELETE", "OPTIONS"]
AGENTS = {"agent": SCENARIOS["plain_text"]}


class ChatUi:
    """A chat UI that shows what it was asked, streams up to a gate, or breaks off."""

    def __init__(self) -> None:
        self.gate = Gate()
        self.left = Gate()
        self.app = Starlette(
            routes=[
                Route("/api/slow", self.slow),
                Route("/api/broken", self.broken),
                Route("/api/away", lambda _: RedirectResponse("/chat/there")),
                Route("/api/packed", self.packed),
                Route("/{path:path}", self.show, methods=METHODS),
            ]
        )

    async def show(self, request: Request) -> Response:
        shown = {
            "method": request.method,
            "path": request.scope["raw_path"].decode(),
            "query": request.url.query,
            "headers": sorted(name for name in request.headers),
            "cookie": request.headers.get("cookie"),
            "body": (await request.body()).decode(),
        }
        response = JSONResponse(shown, 203, {"connection": "x-private", "x-private": "1", "x-public": "1"})
        response.set_cookie("a", "1")
        response.set_cookie("b", "2")
        return response

    async def slow(self, _: Request) -> Response:
        async def events() -> AsyncIterator[str]:
            try:
                yield "data: first\n\n"
                await self.gate.passed()
                yield "data: last\n\n"
            finally:
                self.left.open()

        return StreamingResponse(events(), media_type="text/event-stream")

    async def broken(self, _: Request) -> Response:
        async def half() -> AsyncIterator[bytes]:
            yield b"half"

        return StreamingResponse(half(), headers={"content-length": "8"})

    async def packed(self, _: Request) -> Response:
        return Response(b"\x1f\x8b not really", headers={"content-encoding": "gzip"})


@pytest.fixture
def chat() -> ChatUi:
    return ChatUi()


@pytest.fixture
def server(chat: ChatUi) -> Iterator[str]:
    """An agent server with the chat UI behind it."""
    with running(chat.app) as url:
        port = int(url.rpartition(":")[2])
        with serving(AGENTS, Settings(chat_proxy=True, chat_app_port=port)) as base:
            yield base
            chat.gate.open()


@pytest.mark.parametrize("path", ["/", "/favicon.ico", "/assets/app-1.js", "/api/chat", "/chat/42", "/api/a%2Fb%20c"])
def test_paths_on_the_list_go_to_the_chat_ui(server: str, path: str) -> None:
    answer = httpx.get(f"{server}{path}?q=%20x&q=2", headers={"cookie": "session=1"})
    assert answer.status_code == 203
    shown = answer.json()
    assert (shown["path"], shown["query"], shown["cookie"]) == (path, "q=%20x&q=2", "session=1")


@pytest.mark.parametrize(
    "path", ["/other", "/assetsx/a", "/assets/../secret", "/api/../../etc/passwd", "//evil.test/api/x"]
)
def test_no_other_path_does(server: str, path: str) -> None:
    with Wire(server) as wire:
        wire.socket.sendall(f"GET {path} HTTP/1.1\r\nhost: test\r\nconnection: close\r\n\r\n".encode())
        head, _, body = wire.read_to_end().partition(b"\r\n\r\n")
    assert b" 404 " in head.splitlines()[0]
    assert json.loads(body)["error"]["code"] == "unknown_url"


@pytest.mark.parametrize("path", ["/ping", "/health", "/agent/info"])
def test_what_the_server_answers_itself_it_keeps_answering(server: str, path: str) -> None:
    answer = httpx.get(f"{server}{path}")
    assert answer.status_code == 200
    assert "method" not in answer.text
    assert httpx.get(f"{server}/responses").status_code == 405


@pytest.mark.parametrize("method", METHODS)
def test_every_method_passes_with_its_body(server: str, method: str) -> None:
    answer = httpx.request(
        method, f"{server}/api/thing", content=b"body" if method in ("POST", "PUT", "PATCH") else b""
    )
    assert answer.status_code == 203
    if method != "HEAD":
        assert answer.json()["method"] == method
        assert answer.json()["body"] == ("body" if method in ("POST", "PUT", "PATCH") else "")


def test_headers_pass_but_for_those_of_one_connection(server: str) -> None:
    headers = {"x-mine": "1", "connection": "x-once", "x-once": "1", "te": "trailers", "x-forwarded-user": "ann"}
    answer = httpx.get(f"{server}/api/thing", headers=headers)
    sent = answer.json()["headers"]
    assert {"x-mine", "x-forwarded-user"} <= set(sent)
    assert not {"x-once", "te"} & set(sent)
    assert answer.headers["x-public"] == "1"
    assert "x-private" not in answer.headers
    assert [value.split(";")[0] for value in answer.headers.get_list("set-cookie")] == ["a=1", "b=2"]


def test_a_redirect_is_the_clients_to_follow_and_a_packed_body_its_to_unpack(server: str) -> None:
    away = httpx.get(f"{server}/api/away")
    assert (away.status_code, away.headers["location"]) == (307, "/chat/there")
    with httpx.stream("GET", f"{server}/api/packed") as packed:
        assert packed.headers["content-encoding"] == "gzip"
        assert b"".join(packed.iter_raw()) == b"\x1f\x8b not really"


def test_a_stream_passes_chunk_by_chunk(server: str, chat: ChatUi) -> None:
    with httpx.stream("GET", f"{server}/api/slow") as answer:
        assert answer.headers["content-type"].startswith("text/event-stream")
        chunks = answer.iter_text()
        assert next(chunks) == "data: first\n\n"
        chat.gate.open()
        assert "".join(chunks) == "data: last\n\n"


def test_the_chat_ui_learns_that_the_client_left(server: str, chat: ChatUi) -> None:
    with Wire(server) as wire:
        wire.socket.sendall(b"GET /api/slow HTTP/1.1\r\nhost: test\r\n\r\n")
        wire.read_until(b"data: first")
    chat.left.wait()


def test_an_answer_that_breaks_off_breaks_off_for_the_client_too(server: str) -> None:
    with pytest.raises(httpx.RemoteProtocolError):
        httpx.get(f"{server}/api/broken")
    assert httpx.get(f"{server}/health").status_code == 200


def test_a_body_that_is_too_large_is_refused_here(chat: ChatUi) -> None:
    with (
        running(chat.app) as url,
        serving(
            AGENTS, Settings(chat_proxy=True, chat_app_port=int(url.rpartition(":")[2]), max_body_bytes=10)
        ) as base,
    ):
        assert httpx.post(f"{base}/api/chat", content=b"x" * 11).status_code == 413


@pytest.fixture
def nobody() -> int:
    """A port where nobody listens."""
    with socket.create_server(("127.0.0.1", 0)) as listener:
        port: int = listener.getsockname()[1]
    return port


def test_a_chat_ui_that_is_not_running_is_503(nobody: int) -> None:
    with serving(AGENTS, Settings(chat_proxy=True, chat_app_port=nobody)) as base:
        answer = httpx.get(f"{base}/")
        assert answer.status_code == 503
        assert answer.json()["error"]["message"] == "The chat UI is not running."


def test_a_chat_ui_that_hangs_or_talks_nonsense_is_502() -> None:
    with socket.create_server(("127.0.0.1", 0), backlog=4) as silent:
        settings = Settings(chat_proxy=True, chat_app_port=silent.getsockname()[1], chat_proxy_timeout_seconds=0.2)
        with serving(AGENTS, settings) as base:
            assert httpx.get(f"{base}/chat/1").status_code == 502


def test_without_the_setting_nothing_is_passed_on(chat: ChatUi) -> None:
    with running(chat.app) as url, serving(AGENTS, Settings(chat_app_port=int(url.rpartition(":")[2]))) as base:
        assert httpx.get(f"{base}/").status_code == 404


def test_paths_can_be_added(chat: ChatUi, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("CHAT_PROXY_ALLOWED_EXACT_PATHS", "/logo.svg")
    monkeypatch.setenv("CHAT_PROXY_ALLOWED_PATH_PREFIXES", "/fonts/, /more/")
    with running(chat.app) as url:
        monkeypatch.setenv("CHAT_APP_PORT", url.rpartition(":")[2])
        with serving(AGENTS, Settings(chat_proxy=True)) as base:
            found: dict[str, Any] = {
                path: httpx.get(f"{base}{path}").status_code for path in ("/logo.svg", "/fonts/a", "/more/b", "/less/c")
            }
    assert found == {"/logo.svg": 203, "/fonts/a": 203, "/more/b": 203, "/less/c": 404}
