"""A thread is a conversation, whatever protocol its runs came by; who waits in line goes on from what is there then."""

from __future__ import annotations

import asyncio
from typing import Any

import pytest
from langchain_core.runnables import RunnableLambda

from agent_server import ids
from agent_server.graph.agent import agent_of
from agent_server.graph.inputs import Answer, Call, Media, Message, Reasoning, Text, ToolOutput, Turn
from agent_server.protocols.responses.items import read_turns
from agent_server.protocols.responses.said import said_items
from agent_server.runs.threads import Ask
from tests.support.exchange import Exchange, ask, opened
from tests.unit.runs.test_threads import Echo

SAID: list[Turn] = [
    Message("system", (Text("be kind"),)),
    Message("user", (Text("look"), Media("image", url="https://x.example/a.png", detail="low"))),
    Message("user", (Media("file", base64="aGk=", mime_type="text/plain", filename="a.txt"),)),
    Reasoning("hm", encrypted="xyz"),
    Answer((Text("I do"),), "not that"),
    Call("c1", "see", {"a": 1}),
    Call("c2", "see", "{broken", complete=False),
    ToolOutput("c1", (Text("seen"),), failed=True),
]


@pytest.mark.parametrize("turn", SAID, ids=lambda turn: type(turn).__name__)
def test_what_was_said_elsewhere_reads_as_items(turn: Turn) -> None:
    assert read_turns(said_items([turn])) == (turn,)


async def test_a_run_of_another_protocol_is_a_response_of_its_conversation() -> None:
    echo = Echo()
    async with opened({"agent": echo.graph()}) as app:
        agent = agent_of("agent", echo.graph())
        asked = Ask("default", "t1", agent, turns=(Message("user", (Text("one"),)),), protocol="test")
        run = await app.state.threads.begin(asked)
        await run.log.until_over()
        response = await (await ask(app, "GET", f"/v1/responses/{ids.response_id(run.id)}")).json()
        assert response["status"] == "completed"
        assert response["output"][0]["content"][0]["text"] == "one"
        items = await (await ask(app, "GET", "/v1/conversations/t1/items?order=asc")).json()
        assert [each["role"] for each in items["data"]] == ["user", "assistant"]
        two = await (await ask(app, "POST", "/v1/responses", {"input": "two", "conversation": "t1"})).json()
        assert two["output"][0]["content"][0]["text"] == "one,two"
        said = await app.state.threads.messages("default", "t1", agent)
        assert [each["content"] for each in said] == ["one", "one", "two", "one,two"]


@pytest.mark.parametrize("remembers", [True, False])
async def test_a_response_that_waited_goes_on_from_the_one_before(remembers: bool) -> None:
    echo = Echo()
    async with opened({"agent": echo.graph() if remembers else forgetful(echo)}, busy_conversation="enqueue") as app:
        first = {"input": "wait", "context": {"conversation_id": "t1"}, "background": True}
        await ask(app, "POST", "/v1/responses", first)
        await echo.gate.reached()
        async with Exchange(app, "POST", "/v1/responses", {"input": "two", "conversation": "t1"}) as second:
            await queued(app)
            echo.gate.open()
            response = await second.json()
        assert response["output"][0]["content"][0]["text"] == "wait,two"


def forgetful(echo: Echo) -> Any:
    async def answer(messages: list[Any]) -> str:
        said = [str(each.text) for each in messages if each.type == "human"]
        if said[-1] == "wait":
            await echo.gate.passed()
        return ",".join(said)

    return RunnableLambda(answer).with_types(input_type=list)


async def queued(app: Any) -> None:
    """Wait until a run of the conversation waits in line."""
    while not any(row.status == "queued" for row in await app.state.threads.rows("default", "t1")):
        await asyncio.sleep(0)
