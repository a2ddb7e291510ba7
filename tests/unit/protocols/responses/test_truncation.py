"""`truncation: "auto"`, from the request to what the model is told."""

from __future__ import annotations

from typing import Any

import pytest
from langchain.agents import create_agent

from agent_server.middleware import RequestOptions
from tests.support.exchange import ask, opened
from tests.support.scripted import ScriptedChatModel, chunks

LONG = "word " * 80


def agent(middleware: list[Any]) -> tuple[ScriptedChatModel, Any]:
    model = ScriptedChatModel(turns=[[*chunks.text("yes"), *chunks.finish()]], profile={"max_input_tokens": 200})
    return model, create_agent(model, tools=[], middleware=middleware)


async def answer(app: Any, **body: Any) -> Any:
    answered = await ask(app, "POST", "/v1/responses", body)
    assert answered.status == 200, answered.received
    return await answered.json()


@pytest.mark.parametrize(
    ("middleware", "heard"),
    [([RequestOptions()], ["Two"]), ([], ["One", "yes", "Two"])],
    ids=["taken", "without the middleware"],
)
async def test_a_kept_conversation_is_shortened_for_the_model_alone(middleware: list[Any], heard: list[str]) -> None:
    model, graph = agent(middleware)
    async with opened({"agent": graph}) as app:
        first = await answer(app, input=f"One {LONG}", truncation="auto")
        second = await answer(app, input=f"Two {LONG}", truncation="auto", previous_response_id=first["id"])
        assert [each.text.split()[0] for each in model.calls[1].messages] == heard
        assert [first["truncation"], second["truncation"]] == ["auto", "auto"]
        third = await answer(app, input="Three", previous_response_id=second["id"])
        assert [each.text.split()[0] for each in model.calls[2].messages] == ["One", "yes", "Two", "yes", "Three"]
        assert third["truncation"] == "disabled"
