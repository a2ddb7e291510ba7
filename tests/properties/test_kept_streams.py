"""A stored response is streamed again as it was streamed first: byte for byte, from every cursor, to every reader."""

from __future__ import annotations

import asyncio
import json
from collections.abc import AsyncIterator
from contextlib import AsyncExitStack
from pathlib import Path
from typing import Any

import pytest
from starlette.applications import Starlette

from tests.support.exchange import Exchange, ask, frames_of, opened, response_id
from tests.support.gates import Gate
from tests.support.scripted import SCENARIOS, ScriptedChatModel, chunks, gated_text

SOME = ("plain_text", "approval", "two_nodes_streaming_at_once")
HELLO = {"input": "Hello"}


@pytest.fixture
def store(request: pytest.FixtureRequest, tmp_path: Path) -> str:
    """The address of an empty store."""
    if request.param == "postgres":
        return str(request.getfixturevalue("postgres"))
    return "memory" if request.param == "memory" else f"sqlite:///{tmp_path}/runs.db"


async def streamed(app: Starlette, **body: Any) -> bytes:
    return (await ask(app, "POST", "/v1/responses", {**HELLO, "stream": True, **body})).received


async def replayed(app: Starlette, kept: str, cursor: int | None = None) -> bytes:
    after = "" if cursor is None else f"&starting_after={cursor}"
    return (await ask(app, "GET", f"/v1/responses/{kept}?stream=true{after}")).received


@pytest.mark.parametrize(
    ("store", "name"),
    [(store, name) for store in ("memory", "sqlite") for name in SCENARIOS] + [("postgres", name) for name in SOME],
    indirect=["store"],
)
async def test_what_was_streamed_live_is_replayed_from_every_cursor(store: str, name: str) -> None:
    async with opened({name: SCENARIOS[name]}, store) as app:
        live = await streamed(app)
        kept, frames = response_id(live), frames_of(live)
        assert b"".join(frames) == live
        assert len(frames) > 3
        assert frames[-1] == b"data: [DONE]\n\n"
        assert await replayed(app, kept) == live
        for cursor in range(len(frames) + 1):
            assert await replayed(app, kept, cursor) == b"".join(frames[:-1][cursor + 1 :]) + frames[-1]
        ended = json.loads(frames[-2].split(b"\ndata: ")[1])["response"]
        assert (await (await _get(app, kept)).json()) == ended


async def _get(app: Starlette, kept: str) -> Exchange:
    return await ask(app, "GET", f"/v1/responses/{kept}")


TOKENS = 12


def _stepwise() -> tuple[Any, list[Gate]]:
    """An agent that says a word for each gate that is opened."""
    gates = [Gate() for _ in range(TOKENS)]
    steps = [step for place, gate in enumerate(gates) for step in (gate, *chunks.text(f"word{place} "))]
    return ScriptedChatModel(turns=[[*steps, *chunks.finish()]]), gates


@pytest.mark.parametrize("store", ["memory", "sqlite"], indirect=True)
async def test_readers_that_join_at_any_moment_and_cursor_see_what_the_first_one_sees(store: str) -> None:
    agent, gates = _stepwise()
    async with opened({"agent": agent}, store) as app, AsyncExitStack() as stack:
        first = await stack.enter_async_context(Exchange(app, "POST", "/v1/responses", {**HELLO, "stream": True}))
        kept = response_id(await first.frames(2))
        joined: list[tuple[int, Exchange]] = []
        for place, gate in enumerate(gates):
            for cursor in (0, place, 2 * place, 1000):
                target = f"/v1/responses/{kept}?stream=true&starting_after={cursor}"
                joined.append((cursor, await stack.enter_async_context(Exchange(app, "GET", target))))
            gate.open()
            await first.until(b'"delta":"word%d "' % place)
        frames = frames_of(await first.whole())
        for cursor, reader in joined:
            assert await reader.whole() == b"".join([*frames[cursor + 1 : -1], frames[-1]])


@pytest.mark.parametrize("store", ["memory", "sqlite"], indirect=True)
@pytest.mark.parametrize("count", [2, 200])
async def test_every_reader_of_a_run_sees_everything(store: str, count: int) -> None:
    gate = Gate()
    agents = {"agent": gated_text(["Hel", "lo"], gate, [" wor", "ld"])}
    async with opened(agents, store) as app, AsyncExitStack() as stack:
        first = await stack.enter_async_context(Exchange(app, "POST", "/v1/responses", {**HELLO, "stream": True}))
        target = f"/v1/responses/{response_id(await first.frames(2))}?stream=true"
        others = [await stack.enter_async_context(Exchange(app, "GET", target)) for _ in range(count - 1)]
        await asyncio.gather(*(each.until(b'"delta":"lo"') for each in others))
        gate.open()
        live = await first.whole()
        assert b'"delta":"ld"' in live
        assert {await each.whole() for each in others} == {live}


@pytest.fixture
async def words() -> AsyncIterator[str]:
    """What the stream of a run of the stepwise agent holds, with its ids taken out."""
    agent, gates = _stepwise()
    for gate in gates:
        gate.open()
    async with opened({"agent": agent}) as app:
        yield _without_ids(await streamed(app))


def _without_ids(stream: bytes) -> str:
    kept = response_id(stream).removeprefix("resp_")
    frames = [json.loads(frame.split(b"data: ")[1]) for frame in frames_of(stream)[:-1]]
    for frame in frames:
        for moment in ("created_at", "completed_at"):
            frame.get("response", {}).pop(moment, None)
    return json.dumps(frames).replace(kept, "id")


@pytest.mark.parametrize("store", ["memory", "sqlite"], indirect=True)
@pytest.mark.parametrize("background", [False, True], ids=["streamed", "background"])
async def test_a_stream_that_is_cut_after_each_of_its_events_is_resumed_to_its_end(
    store: str, words: str, background: bool
) -> None:
    """Each reader leaves after one more frame, the next goes on; the run never notices."""
    agent, gates = _stepwise()
    async with opened({"agent": agent}, store, on_disconnect="continue") as app:
        asked = {**HELLO, "stream": True, "background": background}
        async with Exchange(app, "POST", "/v1/responses", asked) as first:
            got = frames_of(await first.frames(1))[:1]
        kept, waiting = response_id(got[0]), iter(gates)
        while got[-1] != b"data: [DONE]\n\n":
            target = f"/v1/responses/{kept}?stream=true&starting_after={len(got) - 1}"
            next(waiting, Gate()).open()
            async with Exchange(app, "GET", target) as reader:
                got += frames_of(await reader.frames(1))[:1]
        assert await replayed(app, kept) == b"".join(got)
        assert _without_ids(b"".join(got)).replace('"background": true', '"background": false') == words
