"""One run, seen from everywhere: whatever protocol began it, any other watches, answers and stops it."""

from __future__ import annotations

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from uuid import UUID

import pytest
from langchain.agents import create_agent
from langchain.agents.middleware import HumanInTheLoopMiddleware
from langchain_core.messages import ToolMessage
from langchain_core.tools import tool

from tests.support.asking import ASKING
from tests.support.chunks import call, finish, text
from tests.support.exchange import Exchange, opened
from tests.support.gates import Gate
from tests.support.models import Call, ScriptedChatModel, Step
from tests.support.scripted import gated_text
from tests.support.tongues import THREAD, TONGUES, Place, Tongue

begun_by = pytest.mark.parametrize("a", TONGUES.values(), ids=TONGUES)
gone_on_by = pytest.mark.parametrize("b", TONGUES.values(), ids=TONGUES)


@asynccontextmanager
async def waiting_at(gate: Gate, a: Tongue, b: Tongue) -> AsyncIterator[tuple[Place, Exchange]]:
    """A run that `a` began and reads, in the middle of its text; `b` has come."""
    async with opened({"agent": gated_text(["Hello"], gate, [" world"])}) as app:
        place = Place(app)
        await a.enter(place)
        async with await a.begin(place) as live:
            await gate.reached()
            (run,) = await place.told(f"/threads/{THREAD}/runs")
            place.run = UUID(run["run_id"]).hex
            await b.enter(place)
            yield place, live


@begun_by
@gone_on_by
async def test_a_run_is_watched_by_any_protocol_and_nobody_else_begins_one_meanwhile(a: Tongue, b: Tongue) -> None:
    gate = Gate()
    async with waiting_at(gate, a, b) as (place, live), await b.watch(place) as seen:
        await seen.until(b.sees)
        why = await b.refusal(place)
        assert "in progress" in why or "already running" in why
        gate.open()
        for tongue, exchange in ((a, live), (b, seen)):
            frames = await tongue.whole(exchange, tongue.ends.over)
            assert tongue.text(frames) == "Hello world"
            assert tongue.terminals(frames) == [tongue.ends.over]
            assert tongue.terminals(frames[-1:]) == [tongue.ends.over]


@begun_by
@gone_on_by
async def test_a_run_is_stopped_by_any_protocol_and_ends_as_its_own_says(a: Tongue, b: Tongue) -> None:
    async with waiting_at(Gate(), a, b) as (place, live):
        assert (await place.ask("POST", b.stop(place))).status in (200, 204)
        frames = await a.whole(live, a.ends.cancelled)
        assert a.terminals(frames) == [a.ends.cancelled]
        assert a.terminals(frames[-1:]) == [a.ends.cancelled]


@begun_by
@gone_on_by
async def test_an_approval_that_was_asked_for_in_one_protocol_is_given_in_another(a: Tongue, b: Tongue) -> None:
    sent: list[str] = []

    @tool
    async def send_email(to: str) -> str:
        """Send an email."""
        sent.append(to)
        return f"Sent to {to}."

    def outputs(asked: Call) -> list[Step]:
        (output,) = [each.text for each in asked.messages if isinstance(each, ToolMessage)]
        return [*text("Output: ", output), *finish()]

    mail = [*call("send_email", '{"to": ', '"oslo"}', id="call_oslo"), *finish("tool_calls")]
    gated = HumanInTheLoopMiddleware(interrupt_on={"send_email": True})
    agent = create_agent(ScriptedChatModel(turns=[mail, outputs]), tools=[send_email], middleware=[gated])
    async with opened({"agent": agent}) as app:
        place = Place(app)
        await a.enter(place)
        async with await a.begin(place) as asked:
            frames = await a.whole(asked, a.ends.waiting)
        assert a.terminals(frames) == [a.ends.waiting]
        assert sent == []
        await b.enter(place)
        async with await b.approve(place) as answered:
            frames = await b.whole(answered, b.ends.over)
        assert b.text(frames) == "Output: Sent to oslo."
        assert b.terminals(frames) == [b.ends.over]
        assert sent == ["oslo"]


@pytest.mark.parametrize("a", [each for each in TONGUES.values() if each.tools], ids=lambda each: type(each).__name__)
@pytest.mark.parametrize("b", [each for each in TONGUES.values() if each.deliver], ids=lambda each: type(each).__name__)
async def test_the_output_of_a_clients_tool_is_delivered_by_a_client_that_did_not_declare_it(
    a: Tongue, b: Tongue
) -> None:
    assert b.deliver is not None
    async with opened({"agent": ASKING["client_tool"]}) as app:
        place = Place(app)
        path, said = a.request("Hi")
        await place.ask("POST", path, {**said, "tools": a.tools})
        async with await b.deliver(place) as delivered:
            frames = await b.whole(delivered, b.ends.over)
        assert b.text(frames) == "Outputs: Rainy"
        assert b.terminals(frames) == [b.ends.over]
