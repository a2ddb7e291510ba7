"""A run of another protocol as a chat's message, and a chat's run as a response."""

from __future__ import annotations

from typing import Any

import pytest

from tests.support.aisdk import check_chunks, read
from tests.support.asking import ASKING
from tests.support.exchange import Exchange, ask, opened, response_id
from tests.support.gates import Gate
from tests.support.scripted import gated_text

HI: dict[str, Any] = {"id": "u1", "role": "user", "parts": [{"type": "text", "text": "Hi"}]}


@pytest.mark.parametrize("store", ["memory", "sqlite"])
async def test_a_response_of_the_conversation_is_followed_and_stopped(store: str, tmp_path: Any) -> None:
    kept = store if store == "memory" else f"sqlite:///{tmp_path}/runs.db"
    async with opened({"slow": gated_text(["Hello"], Gate(), [" world"])}, kept) as app:
        sent = {"input": "Hi", "stream": True, "context": {"conversation_id": "c1"}}
        async with Exchange(app, "POST", "/v1/responses", sent) as live:
            await live.until(b'"delta":"Hello"')
            async with Exchange(app, "GET", "/api/chat/c1/stream") as chat:
                await chat.until(b'"delta":"Hello"')
                await ask(app, "POST", "/api/chat/c1/stop")
                found = read(await chat.whole())
                await live.whole()
        check_chunks(found)
        run_id = response_id(live.received).removeprefix("resp_")
        assert found[0]["messageId"] == f"msg_{run_id}"
        assert found[-1]["type"] == "abort"
        assert b'"status":"cancelled"' in live.received


async def test_a_chats_run_is_a_response_that_can_be_cancelled() -> None:
    async with (
        opened({"slow": gated_text(["Hello"], Gate(), [" world"])}) as app,
        Exchange(app, "POST", "/api/chat", {"id": "c1", "message": HI}) as live,
    ):
        await live.until(b'"Hello"')
        (start,) = read(live.received.split(b"\n\n")[0] + b"\n\ndata: [DONE]\n\n")
        run_id = start["messageMetadata"]["runId"]
        cancelled = await ask(app, "POST", f"/v1/responses/resp_{run_id}/cancel")
        assert (await cancelled.json())["status"] == "cancelled"
        assert read(await live.whole())[-1]["type"] == "abort"


async def test_an_approval_that_a_response_asked_for_is_given_in_a_chat() -> None:
    async with opened({"agent": ASKING["approval"]}) as app:
        sent = {"input": "Write!", "context": {"conversation_id": "c1"}}
        first = await (await ask(app, "POST", "/v1/responses", sent)).json()
        assert first["output"][-1]["type"] == "mcp_approval_request"
        refused = await ask(app, "POST", "/api/chat", {"id": "c1", "message": HI})
        asked = str((await refused.json())["error"]["message"]).split("question '")[1].split("'")[0]
        approval = {"id": f"{asked}.0", "approved": True}
        part = {"type": "dynamic-tool", "toolCallId": "call_oslo", "state": "approval-responded", "approval": approval}
        answered = {"id": "a1", "role": "assistant", "parts": [part]}
        second = await ask(app, "POST", "/api/chat", {"id": "c1", "message": answered})
        found = read(second.received)
        check_chunks(found, calls=["call_oslo"])
        assert found[0]["messageId"] == "a1"
        assert [chunk["output"] for chunk in found if chunk["type"] == "tool-output-available"] == [
            "Sent to oslo@b.example."
        ]
