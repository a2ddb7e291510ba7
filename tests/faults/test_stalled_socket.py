"""A WebSocket whose client takes nothing: it is closed with 1013, its run and the others never notice, it resumes."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from secrets import token_hex
from typing import Any

import pytest
from websockets.exceptions import ConnectionClosed

from agent_server.app import create_app
from agent_server.settings import Settings
from tests.support.gates import PATIENCE, Gate
from tests.support.scripted import ScriptedChatModel, chunks, gated_text
from tests.support.serve import running, serving
from tests.support.ws import Ws, opened, text_of

PIECES = [token_hex(2**13) for _ in range(1_500)]  # 24 MiB as text: more than all buffers on the way hold


@asynccontextmanager
async def stalled(url: str) -> AsyncIterator[Ws]:
    """A connection whose client reads a message only when it is asked to."""
    async with opened(url, max_queue=1, max_size=None) as socket:
        yield socket


def long_answer() -> ScriptedChatModel:
    return ScriptedChatModel(turns=[[*chunks.text(*PIECES), *chunks.finish()]])


async def test_a_stalled_client_is_closed_with_1013_and_resumes_where_it_was() -> None:
    settings = Settings(store="memory", send_timeout_seconds=0.5, heartbeat_seconds=30)
    kinds = ["on_chat_model_stream"]
    with serving({"long": long_answer()}, settings) as url:
        async with stalled(url) as slow, opened(url, max_size=None) as other:
            await slow.send("run", message="Hi", threadId="c1", events=kinds)
            (started,) = await slow.until("started")
            whole = await other.ask("resume", runId=started["runId"], events=kinds)  # while nobody reads the first
            assert whole[-1]["status"] == "completed"
            seen: list[Any] = [started]
            assert await _read_to_the_close(slow, seen) == 1013
        assert len(seen) < len(whole), "the buffers held all of it"
        async with opened(url, max_size=None) as again:
            rest = await again.ask("resume", runId=started["runId"], lastSequence=seen[-1]["sequence"])
        assert text_of([*seen, *rest]) == text_of(whole) == "".join(PIECES)
        numbers = [message["sequence"] for message in [*seen, *rest] if "sequence" in message]
        assert numbers == list(range(len(numbers)))


async def _read_to_the_close(socket: Ws, seen: list[Any]) -> int:
    """Read on, once the server has given the client up."""
    await asyncio.sleep(0.7)  # the patience of the server, which is its own clock's
    async with asyncio.timeout(PATIENCE):
        while True:
            try:
                seen.append(await socket.message())
            except ConnectionClosed:
                return await socket.closed()


async def test_a_stalled_client_changes_nothing_for_the_others() -> None:
    gate = Gate()
    agents = {"long": long_answer(), "short": gated_text(["One"], gate, [" two"])}
    with serving(agents, Settings(store="memory", send_timeout_seconds=30)) as url:
        async with stalled(url) as slow:
            await slow.send("run", agent="long", message="Hi", threadId="c1")
            (started,) = await slow.until("started")
            async with opened(url) as other:
                await other.send("run", agent="short", message="Hi")
                await other.until("event")
                gate.open()
                assert (await other.until("end"))[-1]["status"] == "completed"
                end = (await other.ask("resume", runId=started["runId"], events=["on_tool_end"]))[-1]
                assert end["status"] == "completed"  # its run is over, although nobody reads what it told
            slow.connection.transport.abort()


@pytest.mark.parametrize("manner", ["close", "abort"])
async def test_a_client_that_leaves_leaves_nothing_behind(manner: str) -> None:
    gate = Gate()
    app = create_app({"slow": gated_text(["Slow"], gate, [" done"])}, Settings(store="memory"))
    with running(app) as url:
        async with opened(url) as socket:
            await socket.send("run", message="Hi", threadId="c1")
            await socket.until("event")
            if manner == "abort":
                socket.connection.transport.abort()
        gate.open()
        async with opened(url) as socket:
            assert text_of(await socket.ask("resume", threadId="c1")) == "Slow done"
        assert len(app.state.engine) == 0
