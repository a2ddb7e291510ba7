"""`agent_server.js` and the WebSocket as Node and a real browser use them; the server cuts every stream."""

from __future__ import annotations

import json
import logging
import os
import shutil
import signal
import subprocess
from collections.abc import Iterator
from concurrent.futures import Future
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest
from starlette.requests import Request
from starlette.responses import FileResponse, HTMLResponse, Response
from starlette.types import ASGIApp, Receive, Scope, Send

from agent_server.app import create_app
from agent_server.settings import Settings
from tests.support.cutting import Cutting
from tests.support.gates import Gate
from tests.support.scripted import SCENARIOS, gated_text
from tests.support.serve import running

FOLDER = Path(__file__).parent / "node"
PATIENCE = 60.0
BROWSERS = ("chromium", "chromium-browser", "google-chrome", "google-chrome-stable")
QUIET = (
    "--headless",
    "--no-sandbox",
    "--disable-gpu",
    "--disable-quic",
    "--disable-dev-shm-usage",
    "--no-first-run",
    "--disable-background-networking",
    "--disable-component-update",
    "--disable-sync",
)
PAGE = """<!doctype html><meta charset="utf-8"><title>judge</title><script type="module">
import * as client from "/client/agent_server.js";
import { judge } from "/judge.js";
const verdicts = await judge("", client).catch((error) => ({ error: `${error.stack}` }));
await fetch("/verdicts", { method: "POST", body: JSON.stringify(verdicts) });
</script>"""


class Judged:
    """A page that judges beside the app, and what it found."""

    def __init__(self, app: ASGIApp) -> None:
        self._app = app
        self.verdicts: Future[dict[str, Any]] = Future()

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        answer: Response | None = None
        if scope.get("path") == "/judge":
            answer = HTMLResponse(PAGE)
        elif scope.get("path") == "/judge.js":
            answer = FileResponse(FOLDER / "turns_judge.js", media_type="text/javascript")
        elif scope.get("path") == "/verdicts":
            self.verdicts.set_result(json.loads(await Request(scope, receive).body()))
            answer = Response()
        await (answer or self._app)(scope, receive, send)


@contextmanager
def judged() -> Iterator[tuple[str, Judged]]:
    """A server that cuts its streams, and has the page."""
    agents = {**SCENARIOS, "slow": gated_text(["Slow"], Gate(), [" done"])}
    app = Judged(Cutting(create_app(agents, Settings(store="memory", heartbeat_seconds=0.2))))
    with running(app) as url:
        yield url, app


@pytest.fixture(autouse=True)
def _quiet(caplog: pytest.LogCaptureFixture) -> None:
    caplog.set_level(logging.CRITICAL, "uvicorn.error")  # it tells of every connection that is cut


def missing(what: str) -> None:
    """Skip. CI installs both where it may."""
    pytest.skip(f"{what} not found")


def check(verdicts: dict[str, Any]) -> None:
    """What every judge must have found."""
    seen = verdicts.pop("sockets")
    assert verdicts == {
        "frames": ["trace 0", "trace 1", "trace 2", "command_output 3"],
        "turns": 1,
        "answer": "It is sunny in Oslo.",
        "asked": "It is sunny in Oslo.",
        "quiet": ["command_output"],
        "resumed": ["trace 2", "command_output 3"],
        "turn": "completed",
        "waiting": ["waiting", "approval"],
        "decided": "All sent.",
        "busy": "AgentServerError 409 session_busy",
        "stolen": "AgentServerError 401 invalid_token",
        "again": True,
        "aborted": "AbortError  20",
        "cancelled": "cancelled",
        "end": ["error"],
        "parser": [
            json.dumps(
                [
                    {"event": "trace", "data": {"a": "ü😀"}},
                    {"event": "x", "data": [1, 2]},
                    {"event": "message", "data": {}},
                ],
                ensure_ascii=False,
                separators=(",", ":"),
            )
        ],
    }
    sequences = seen.pop("sequences")
    assert sequences == list(range(len(sequences)))
    assert seen.pop("resumed") == sequences[-3:]
    assert seen == {"protocol": "langchain.v2", "first": "started", "last": "completed", "bad": 1008, "large": 1009}


@pytest.mark.node
def test_node_finds_nothing_wrong() -> None:
    node = shutil.which("node")
    if node is None:
        missing("Node.js")
    with judged() as (url, _):
        command = [str(node), "--experimental-websocket", "--no-warnings", "turns.mjs", url]
        done = subprocess.run(command, cwd=FOLDER, capture_output=True, text=True, timeout=PATIENCE, check=False)
    assert done.returncode == 0, done.stderr
    check(json.loads(done.stdout))


def test_a_browser_finds_nothing_wrong(tmp_path: Path) -> None:
    browser = next(filter(None, map(shutil.which, BROWSERS)), None)
    if browser is None:
        missing("a browser")
    with judged() as (url, page):
        command = [str(browser), *QUIET, f"--user-data-dir={tmp_path}", f"{url}/judge"]
        process = subprocess.Popen(
            command, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL, start_new_session=True
        )
        try:
            verdicts = page.verdicts.result(PATIENCE)
        finally:
            os.killpg(process.pid, signal.SIGKILL)
            process.wait(PATIENCE)
    check(verdicts)
