"""The protocol that `docs/adding-a-protocol.md` shows is run as it stands there."""

from __future__ import annotations

import re
from collections.abc import AsyncIterator, Mapping
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

from starlette.applications import Starlette

from agent_server.app import create_app
from agent_server.settings import Settings
from tests.support.asking import ASKING
from tests.support.exchange import Exchange, ask
from tests.support.gates import Gate
from tests.support.scripted import SCENARIOS, gated_text

DOC = (Path(__file__).parents[2] / "docs" / "adding-a-protocol.md").read_text()
SHOWN, MOUNTED = re.findall(r"^```python\n(.*?)^```$", DOC, re.MULTILINE | re.DOTALL)
HI = {"text": "Hi"}


@asynccontextmanager
async def serving(agents: Mapping[str, Any]) -> AsyncIterator[Starlette]:
    """An app with the protocol, put there by the doc's own line."""
    app = create_app(agents, Settings(store="memory"))
    space: dict[str, Any] = {"app": app}
    exec(SHOWN, space)
    exec(MOUNTED.partition("\n")[2], space)
    async with app.router.lifespan_context(app):
        yield app


def lines(stream: bytes) -> list[str]:
    """The lines of a stream, but for the run's id and what keeps the connection alive."""
    first, *rest = [line for line in stream.decode().splitlines() if line]
    assert re.fullmatch("run [0-9a-f]{32}", first)
    return rest


async def test_it_streams_what_is_shown() -> None:
    shown = DOC.split("```console\n")[1].split("```")[0]
    async with serving({"agent": SCENARIOS["one_tool"]}) as app:
        answer = await ask(app, "POST", "/lines/t1", HI)
    assert answer.headers["content-type"] == "text/plain; charset=utf-8"
    assert lines(answer.received) == lines(shown.partition("\n")[2].encode())


async def test_a_run_is_watched_and_stopped() -> None:
    gate = Gate()
    async with serving({"agent": gated_text(["Never "], gate, ["more"])}) as app:
        async with Exchange(app, "POST", "/lines/t1", HI) as live:
            await gate.reached()
            assert (await ask(app, "POST", "/lines/t1", HI)).status == 409
            async with Exchange(app, "GET", "/lines/t1") as seen:
                await seen.until(b"run ")
                assert (await ask(app, "DELETE", "/lines/t1")).status == 204
                assert await live.whole() == await seen.whole()
        assert lines(live.received) == ["said Never ", "end cancelled: cancelled"]
        assert (await ask(app, "GET", "/lines/t1")).received == live.received


async def test_a_question_is_answered_and_what_is_wrong_is_refused() -> None:
    async with serving({"agent": ASKING["approval"]}) as app:
        asked = lines((await ask(app, "POST", "/lines/t1", HI)).received)
        assert asked[-2:] == ["asks approval", "end waiting"]
        answered = lines((await ask(app, "POST", "/lines/t1", {"text": "yes"})).received)
        assert answered == ["tool send_email success", "said Outputs: Sent to oslo@b.example.", "end completed"]
        assert [(await ask(app, "POST", "/lines/t1", wrong)).status for wrong in ({}, {"text": 7})] == [400, 400]
        assert (await ask(app, "GET", "/lines/other")).status == 404
