"""Whatever ends the server: what it acknowledged is there afterwards, and each run has exactly one end."""

from __future__ import annotations

import json
import os
import signal
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import httpx
import pytest

from tests.faults.test_cancel import terminal_of
from tests.support.exchange import frames_of, response_id
from tests.support.processes import Program, running
from tests.support.wire import Wire

ROOT = Path(__file__).parents[2]
AGENT = Path(__file__).with_name("restarting.py")
PATIENCE = 30.0


@pytest.fixture(params=["sqlite", "postgres"])
def store(request: pytest.FixtureRequest, tmp_path: Path) -> str:
    return str(request.getfixturevalue("postgres")) if request.param == "postgres" else f"sqlite:///{tmp_path}/runs.db"


@contextmanager
def server(store: str, **env: str) -> Iterator[tuple[Program, str]]:
    """A server process, and its base URL."""
    command = [sys.executable, "-m", "agent_server", "serve", str(AGENT), "--port", "0", "--store", store]
    settings = {"AGENT_SERVER_LEASE_SECONDS": "1", "AGENT_SERVER_BUSY_CONVERSATION": "enqueue", **env}
    environment = {**os.environ, "PYTHONPATH": str(ROOT), "PYTHONUNBUFFERED": "1", **settings}
    with running(command, environment, ROOT) as program:
        line = program.line_with("http://")
        yield program, "http://" + line.split("http://")[1].split()[0].rstrip("/")


def body(text: str, **options: Any) -> dict[str, Any]:
    return {"input": text, "context": {"conversation_id": "c1"}, "background": True, **options}


def received(wire: Wire) -> bytes:
    """The event stream in an answer, as far as it was read: without its head and its chunk borders."""
    chunks, rest = b"", wire.received.partition(b"\r\n\r\n")[2]
    while b"\r\n" in rest:
        size, _, rest = rest.partition(b"\r\n")
        chunks, rest = chunks + rest[: int(size, 16)], rest[int(size, 16) + 2 :]
    return chunks


def begin(url: str, wire: Wire) -> tuple[str, str]:
    """A streamed run that is stuck in mid-text, and one that waits in line behind it."""
    wire.post("/v1/responses", body("wait", stream=True))
    wire.read_until(b'"delta":"a "')
    queued = httpx.post(f"{url}/v1/responses", json=body("next")).json()
    assert queued["status"] == "queued"
    return response_id(received(wire)), queued["id"]


def stream_of(url: str, kept: str) -> bytes:
    return httpx.get(f"{url}/v1/responses/{kept}?stream=true", timeout=PATIENCE).content


def test_a_killed_server_leaves_runs_that_the_next_one_ends(store: str) -> None:
    with server(store) as (program, url), Wire(url) as wire:
        stuck, queued = begin(url, wire)
        os.kill(program.pid, signal.SIGKILL)
        program.ended()
        wire.read_to_end()
    with server(store) as (program, url):
        stream = stream_of(url, stuck)
        assert received(wire)
        assert stream.startswith(received(wire))
        (end,) = terminal_of(stream)
        assert end["type"] == "response.failed"
        assert end["response"]["error"]["code"] == "server_restarted"
        assert end["response"]["output"][0]["content"][0]["text"] == "Half a "
        (other,) = terminal_of(stream_of(url, queued))
        assert other["response"]["error"]["code"] == "server_restarted"
        assert stream_of(url, stuck) == stream
        for kept, ended in ((stuck, end), (queued, other)):
            assert httpx.get(f"{url}/v1/responses/{kept}").json() == ended["response"]
        cursor = len(frames_of(received(wire))) - 1
        rest = httpx.get(f"{url}/v1/responses/{stuck}?stream=true&starting_after={cursor}").content
        assert received(wire) + rest == stream
        again = httpx.post(f"{url}/v1/responses", json=body("next", background=False), timeout=PATIENCE).json()
        assert again["output"][0]["content"][0]["text"] == "Half a sentence."
        assert program.stop() == 0


def test_a_server_that_is_told_to_stop_ends_its_runs_itself(store: str) -> None:
    with server(store, AGENT_SERVER_SHUTDOWN_GRACE_SECONDS="1") as (program, url), Wire(url) as wire:
        stuck, queued = begin(url, wire)
        assert program.stop() == 0
        wire.read_to_end()
        live = received(wire)
    assert [json.dumps(each)[:30] for each in terminal_of(live)]
    with server(store) as (program, url):
        assert stream_of(url, stuck) == live
        (end,) = terminal_of(live)
        assert end["response"]["status"] == "cancelled"
        assert end["response"]["output"][0]["content"][0]["text"] == "Half a "
        assert terminal_of(stream_of(url, queued))[0]["response"]["status"] in ("cancelled", "completed")
        assert program.stop() == 0
