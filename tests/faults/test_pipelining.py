"""A second request on the connection of a stream hides nothing: when its client leaves, the stream ends."""

from __future__ import annotations

import socket
import struct
import time
from collections.abc import Callable, Iterator

import httpx
import pytest
from starlette.applications import Starlette

from agent_server.app import create_app
from agent_server.http.connection import OneRequestAtATime, limit_silence
from agent_server.settings import Settings
from tests.faults.test_client_gone import PATIENCE, SOON, Watched
from tests.support.scripted import SCENARIOS
from tests.support.serve import running
from tests.support.wire import Wire

SECOND = b"POST /v1/responses HTTP/1.1\r\nhost: test\r\ncontent-type: application/json\r\ncontent-length: 14\r\n\r\n"
SECOND += b'{"input":"hi"}'


def _reset(wire: Wire) -> None:
    wire.socket.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
    wire.socket.close()


LEAVING: dict[str, Callable[[Wire], None]] = {
    "closes": Wire.leave,
    "half closes": lambda wire: wire.socket.shutdown(socket.SHUT_WR),
    "resets": _reset,
}


@pytest.fixture
def watched() -> Watched:
    return Watched()


@pytest.fixture
def app(watched: Watched) -> Starlette:
    agents = {"agent": watched.streaming(), "other": SCENARIOS["plain_text"]}
    return create_app(agents, Settings(heartbeat_seconds=60))


@pytest.fixture
def url(app: Starlette) -> Iterator[str]:
    """A server whose streams are silent."""
    with running(app, http=OneRequestAtATime) as base_url:
        yield base_url


@pytest.mark.parametrize("leaving", LEAVING)
@pytest.mark.parametrize("more", [SECOND, SECOND * 5, SECOND[:40], SECOND * 5000], ids=["one", "five", "part", "many"])
def test_an_idle_stream_ends_when_its_client_leaves_after_another_request(
    url: str, app: Starlette, watched: Watched, more: bytes, leaving: str
) -> None:
    with Wire(url) as wire:
        wire.post("/v1/responses", {"input": "hi", "stream": True})
        watched.began.result(PATIENCE)
        wire.socket.sendall(more)
        left = time.monotonic()
        LEAVING[leaving](wire)
        assert watched.stopped.result(PATIENCE) - left < 10 * SOON
    assert httpx.get(f"{url}/health").status_code == 200
    assert len(app.state.engine) == 0


def test_two_requests_in_one_write_are_a_stream_and_a_request_that_is_not_taken(url: str, watched: Watched) -> None:
    with Wire(url) as wire:
        body = b'{"input":"hi","stream":true}'
        wire.socket.sendall(SECOND[: SECOND.index(b"content-length")] + b"content-length: 28\r\n\r\n" + body + SECOND)
        watched.began.result(PATIENCE)
        wire.leave()
        watched.stopped.result(PATIENCE)


def test_the_first_answer_is_whole_and_the_connection_ends_with_it(url: str) -> None:
    with Wire(url) as wire:
        body = b'{"model":"other","input":"hi","stream":true}'
        head = SECOND[: SECOND.index(b"content-length")] + b"content-length: %d\r\n\r\n" % len(body)
        wire.socket.sendall(head + body + SECOND)  # at once, so that the second comes before the first is answered
        answer = wire.read_to_end()
    assert answer.count(b"HTTP/1.1 200 OK") == 1
    assert answer.endswith(b"data: [DONE]\n\n\r\n0\r\n\r\n")


def test_requests_one_after_the_other_share_a_connection(url: str) -> None:
    with Wire(url) as wire:
        for _ in range(3):
            wire.received = b""
            wire.post("/v1/responses", {"model": "other", "input": "hi"})
            assert b"200 OK" in wire.read_until(b'"status":"completed"')


def test_a_listener_limits_the_silence_of_its_connections_where_the_system_can() -> None:
    if not hasattr(socket, "TCP_USER_TIMEOUT"):
        pytest.skip("this system has no TCP_USER_TIMEOUT")
    with socket.create_server(("127.0.0.1", 0)) as listener:
        limit_silence(listener, 7.5)
        with socket.create_connection(listener.getsockname()), listener.accept()[0] as accepted:
            assert accepted.getsockopt(socket.IPPROTO_TCP, socket.TCP_USER_TIMEOUT) == 7500
            assert accepted.getsockopt(socket.SOL_SOCKET, socket.SO_KEEPALIVE)
            assert accepted.getsockopt(socket.IPPROTO_TCP, socket.TCP_KEEPIDLE) == 4
