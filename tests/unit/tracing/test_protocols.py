"""A run leaves its trace whatever protocol it came by."""

from __future__ import annotations

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import Any

import msgspec
import pytest
from starlette.applications import Starlette

from agent_server.app import create_app
from agent_server.events import StatePart, decode
from agent_server.settings import Settings
from agent_server.tracing.record import TraceRecord
from tests.support.agui_asking import body, user
from tests.support.asking import ASKING
from tests.support.exchange import ask
from tests.support.turns import Talk
from tests.unit.tracing.test_tracer import Kept

THREAD = "7b6f5d0e-4c1a-4f5e-9a53-0f5a3c9d2e11"
WHAT = {"type": "message", "role": "user", "content": [{"type": "input_text", "text": "What?"}]}


class Here(Kept):
    """Starts no process."""

    def start(self) -> None:
        """There is nothing to start."""

    async def aclose(self, patience: float) -> None:
        """There is nothing to bring away."""


@asynccontextmanager
async def traced() -> AsyncIterator[tuple[Starlette, Kept]]:
    """An app, and what an exporter would get of its runs."""
    app = create_app({"hearing": ASKING["hearing"], "approval": ASKING["approval"]}, Settings(tracing=True))
    app.state.tracer.exporter = kept = Here()
    async with app.router.lifespan_context(app):
        yield app, kept


def written(kept: Kept) -> TraceRecord:
    """The one record that there is."""
    (record,) = kept.records
    assert isinstance(record, TraceRecord)
    return record


async def agui(app: Starlette) -> None:
    await ask(app, "POST", "/agui", body(user("What?"), thread=THREAD))


async def ai_sdk(app: Starlette) -> None:
    said = {"id": "u1", "role": "user", "parts": [{"type": "text", "text": "What?"}]}
    await ask(app, "POST", "/api/chat", {"id": THREAD, "message": said})


async def turns(app: Starlette) -> None:
    await (await Talk.open(app, session_id=THREAD)).request("POST", "/invoke_agent", {"user_query": "What?"})


@pytest.mark.parametrize("run", [agui, ai_sdk, turns])
async def test_a_run_of_any_protocol_leaves_a_trace_of_its_thread(run: Any) -> None:
    async with traced() as (app, kept):
        await run(app)
        (row,) = await app.state.threads.rows("default", THREAD)
    record = written(kept)
    assert (record.trace_id, record.session, record.agent) == (row.id, THREAD, "hearing")
    inputs = msgspec.json.decode(record.inputs)
    assert inputs["input"] == [WHAT]
    assert record.client_request_id.startswith("req_")
    assert [span.name for span in record.spans][:1] == ["LangGraph"]
    assert not any(isinstance(decode(event), StatePart) for event in record.events)


async def test_a_raw_input_is_written_down_and_an_edited_state_leaves_no_trace() -> None:
    async with traced() as (app, kept):
        await ask(app, "POST", "/threads", {"thread_id": THREAD})
        given = {"messages": [{"role": "user", "content": "What?"}]}
        await ask(app, "POST", f"/threads/{THREAD}/runs/wait", {"assistant_id": "hearing", "input": given})
        edit = {"values": {"messages": [{"role": "user", "content": "And?"}]}}
        assert (await ask(app, "POST", f"/threads/{THREAD}/state", edit)).status == 200
    record = written(kept)
    assert record.session == THREAD
    assert msgspec.json.decode(record.inputs)["input"] == given


async def test_an_answer_to_a_question_is_the_input_of_the_run_that_goes_on() -> None:
    async with traced() as (app, kept):
        talk = await Talk.open(app, agent="approval", session_id=THREAD)
        await talk.request("POST", "/invoke_agent", {"user_query": "Write!"})
        await talk.request("POST", "/invoke_agent", {"decision": "approve"})
    first, second = kept.records
    assert isinstance(first, TraceRecord)
    assert isinstance(second, TraceRecord)
    assert (first.session, second.session) == (THREAD, THREAD)
    (answer,) = msgspec.json.decode(second.inputs)["resume"].values()
    assert answer == {"decisions": [{"type": "approve"}]}
