"""A reader that takes nothing costs one write and its connection, and nobody else anything."""

from __future__ import annotations

import asyncio

import httpx
from starlette.types import Receive, Scope, Send

from agent_server.app import create_app
from agent_server.http.connection import OneRequestAtATime
from agent_server.http.identity import TENANT
from agent_server.settings import Settings
from tests.faults.test_cancel import body, terminal_of
from tests.support.exchange import Exchange, ask, frames_of, opened, response_id
from tests.support.gates import Gate
from tests.support.scripted import ScriptedChatModel, chunks, long_answer
from tests.support.serve import running
from tests.support.wire import Wire

LONG = body(stream=True, background=True)
WRITE = 65_536


async def test_what_waits_for_a_stalled_reader_is_one_write() -> None:
    """The run ends, others read all of it, and the stalled one goes on where it was."""
    stalled = Gate()
    async with (
        opened({"agent": long_answer(10_000)}) as app,
        Exchange(app, "POST", "/v1/responses", LONG, stalled=stalled) as slow,
    ):
        await stalled.reached()
        (row,) = await app.state.engine.keeper.store.runs(TENANT, "c1")
        async with Exchange(app, "GET", f"/v1/responses/resp_{row.id}?stream=true") as fast:
            whole = await fast.whole()
        assert len(app.state.engine) == 0
        assert not slow.received
        stalled.open()
        assert await slow.whole() == whole
        assert len(whole) > 10 * WRITE
        large = [size for size in slow.writes if size > WRITE + 8_000]
        assert len(large) <= 3  # the last events repeat the whole text


async def test_a_reader_that_takes_nothing_is_closed_and_goes_on_later() -> None:
    stalled = Gate()
    async with opened({"agent": long_answer(2_000)}, send_timeout_seconds=0.2) as app:
        async with Exchange(app, "POST", "/v1/responses", LONG, stalled=stalled) as slow:
            async with asyncio.timeout(5):
                await asyncio.shield(slow.task)
            assert not slow.is_whole
        (row,) = await app.state.engine.keeper.store.runs(TENANT, "c1")
        target = f"/v1/responses/resp_{row.id}?stream=true"
        frames = frames_of((await ask(app, "GET", target)).received)
        assert terminal_of(b"".join(frames))[0]["response"]["status"] == "completed"
        assert (await ask(app, "GET", f"{target}&starting_after=9")).received == b"".join(frames[10:])


def test_a_client_that_never_reads_is_cut_off_and_resumes_where_it_was() -> None:
    more_than_sockets_hold = [*chunks.text(*["x" * 8_000] * 1_000), *chunks.finish()]
    app = create_app({"agent": ScriptedChatModel(turns=[more_than_sockets_hold])}, Settings(send_timeout_seconds=0.5))
    given_up = Gate()

    async def watched(scope: Scope, receive: Receive, send: Send) -> None:
        await app(scope, receive, send)
        if scope.get("method") == "POST":
            given_up.open()

    with running(watched, http=OneRequestAtATime) as url, Wire(url, receive_buffer=4096) as slow:
        slow.post("/v1/responses", LONG)
        kept = response_id(slow.read_until(b"response.in_progress").partition(b"\r\n\r\n")[2].partition(b"\r\n")[2])
        frames = frames_of(httpx.get(f"{url}/v1/responses/{kept}?stream=true", timeout=30).content)
        assert terminal_of(b"".join(frames))[0]["response"]["status"] == "completed"
        given_up.wait()
        assert b"[DONE]" not in slow.read_to_end()
        assert len(app.state.engine) == 0
        rest = httpx.get(f"{url}/v1/responses/{kept}?stream=true&starting_after=9").content
        assert rest == b"".join(frames[10:])
