"""openai-python answers the questions that a stored response stopped at: approvals, free questions, its own tools."""

from __future__ import annotations

import json
import sqlite3
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from langchain.agents import create_agent
from langchain.agents.middleware import HumanInTheLoopMiddleware
from openai import APIError, APIStatusError, OpenAI

from agent_server.graph.agent import agent_of
from agent_server.graph.inputs import Message, Text
from agent_server.runs.threads import Ask
from agent_server.settings import Settings
from tests.conformance.kept import MODES, Mode, approvals, approve, ask, of_type, reject, retrieved, said, types
from tests.support.asking import ASKING
from tests.support.chunks import call, finish
from tests.support.exchange import ask as ask_app
from tests.support.exchange import opened
from tests.support.gates import Gate
from tests.support.models import ScriptedChatModel
from tests.support.serve import serving
from tests.support.stores import on_every_store, store
from tests.support.tools import send_email, weather_schema

__all__ = ["store"]

WEATHER = {"tools": [weather_schema()]}
HUMAN = {"tools": [{"type": "function", "name": "request_human_input", "parameters": {"type": "object"}}]}


@pytest.fixture(scope="module")
def url(store: str) -> Iterator[str]:
    with serving(ASKING, Settings(store=store)) as base_url:
        yield base_url


@pytest.fixture
def client(url: str) -> Iterator[OpenAI]:
    with OpenAI(base_url=f"{url}/v1", api_key="none", max_retries=0) as openai:
        yield openai


def refused(client: OpenAI, **body: Any) -> tuple[int, str | None, str]:
    """(status, code, message) of a request that must fail."""
    with pytest.raises(APIStatusError) as raised:
        client.responses.create(**body)
    return raised.value.status_code, raised.value.code, raised.value.message


@on_every_store
@pytest.mark.parametrize("mode", MODES)
def test_an_approved_call_runs_and_says_which_request_it_was(client: OpenAI, mode: Mode) -> None:
    first = ask(client, mode, model="approval", input="Write!")
    assert first["status"] == "completed"
    assert types(first["output"]) == ["message", "mcp_call", "mcp_approval_request"]
    (request,) = of_type(first, "mcp_approval_request")
    assert request["server_label"] == "approval"
    second = ask(client, mode, model="approval", previous_response_id=first["id"], input=[approve(request)])
    assert types(second["output"]) == ["mcp_call", "message"]
    (call,) = of_type(second, "mcp_call")
    assert call["approval_request_id"] == request["id"]
    assert call["output"] == "Sent to oslo@b.example."
    assert said(second) == "Outputs: Sent to oslo@b.example."
    assert second["previous_response_id"] == first["id"]


@pytest.mark.parametrize("mode", MODES)
def test_a_rejected_call_does_not_run_and_the_model_hears_why(client: OpenAI, mode: Mode) -> None:
    first = ask(client, mode, model="approval", input="Write!")
    (request,) = of_type(first, "mcp_approval_request")
    answer = reject(request, "Oslo is closed.")
    second = ask(client, mode, model="approval", previous_response_id=first["id"], input=[answer])
    assert said(second).endswith("Oslo is closed.")
    assert not any("output" in call for call in of_type(second, "mcp_call"))


@pytest.mark.parametrize("arguments", [{"to": "me@b.example", "body": "Hi"}, '{"to": "me@b.example", "body": "Hi"}'])
@pytest.mark.parametrize("mode", MODES)
def test_edited_arguments_are_those_the_call_runs_with(client: OpenAI, mode: Mode, arguments: Any) -> None:
    first = ask(client, mode, model="approval", input="Write!")
    (request,) = of_type(first, "mcp_approval_request")
    answer = approve(request, edited_arguments=arguments)
    second = ask(client, mode, model="approval", previous_response_id=first["id"], input=[answer])
    assert said(second).endswith("Sent to me@b.example.")
    (call,) = of_type(second, "mcp_call")
    assert "me@b.example" in call["arguments"]


@pytest.mark.parametrize("mode", MODES)
def test_two_approvals_are_answered_together_each_its_own_way(client: OpenAI, mode: Mode) -> None:
    first = ask(client, mode, model="two_approvals", input="Write!")
    oslo, rome = of_type(first, "mcp_approval_request")
    answers = [reject(rome, "Not Rome."), approve(oslo)]
    second = ask(client, mode, model="two_approvals", previous_response_id=first["id"], input=answers)
    assert "Sent to oslo@b.example." in said(second)
    assert "Not Rome." in said(second)
    assert "rome@" not in said(second)
    ran = [call for call in of_type(second, "mcp_call") if "output" in call]
    assert [call["approval_request_id"] for call in ran] == [oslo["id"]]


def test_one_of_two_answers_is_not_enough_and_says_which_is_missing(client: OpenAI) -> None:
    first = ask(client, "create", model="two_approvals", input="Write!")
    oslo, rome = of_type(first, "mcp_approval_request")
    body = {"model": "two_approvals", "previous_response_id": first["id"]}
    status, code, message = refused(client, **body, input=[approve(oslo)])
    assert (status, code) == (400, "approval_required")
    assert rome["id"] in message
    assert refused(client, **body, input="Never mind.")[:2] == (400, "approval_required")
    assert "Sent to rome" in said(ask(client, "create", **body, input=[approve(oslo), approve(rome)]))


@on_every_store
@pytest.mark.parametrize("mode", MODES)
def test_two_questions_at_once_are_answered_at_once(client: OpenAI, mode: Mode) -> None:
    first = ask(client, mode, model="two_questions", input="Ask!")
    city, unit = of_type(first, "mcp_approval_request")
    assert [city["name"], unit["name"]] == ["request_human_input"] * 2
    if "unit" in city["arguments"]:
        city, unit = unit, city
    answers = [approve(unit, reason="C"), approve(city, reason="Oslo")]
    second = ask(client, mode, model="two_questions", previous_response_id=first["id"], input=answers)
    assert sorted(part for item in second["output"] for part in [item["content"][0]["text"]]) == ["city=Oslo", "unit=C"]


@pytest.mark.parametrize(
    ("answer", "told"),
    [
        ({"reason": "Oslo"}, "city=Oslo"),
        ({}, "city=True"),
        ({"approve": False}, "city=False"),
        ({"edited_arguments": {"name": "Oslo"}}, "city={'name': 'Oslo'}"),
    ],
)
def test_a_free_question_gets_the_reason_or_the_edited_arguments_or_the_verdict(
    client: OpenAI, answer: dict[str, Any], told: str
) -> None:
    first = ask(client, "create", model="question", input="Ask!")
    (request,) = of_type(first, "mcp_approval_request")
    answers = [approve(request, **answer)]
    assert said(ask(client, "stream", model="question", previous_response_id=first["id"], input=answers)) == told


@pytest.mark.parametrize("declared", [HUMAN, {}], ids=["declared again", "not declared again"])
@pytest.mark.parametrize("mode", MODES)
def test_a_client_with_a_tool_for_it_is_asked_by_a_call(client: OpenAI, mode: Mode, declared: dict[str, Any]) -> None:
    first = ask(client, mode, model="two_questions", input="Ask!", **HUMAN)
    assert types(first["output"]) == ["function_call", "function_call"]
    assert [call["name"] for call in first["output"]] == ["request_human_input"] * 2
    asked = {json.loads(call["arguments"])["question"]: call["call_id"] for call in first["output"]}
    body = {"model": "two_questions", "previous_response_id": first["id"], **declared}
    city, unit = (
        {"type": "function_call_output", "call_id": asked[name], "output": told}
        for name, told in (("city", "Oslo"), ("unit", "C"))
    )
    status, _, message = refused(client, **body, input=[city])
    assert (status, asked["unit"] in message) == (400, True)
    second = ask(client, mode, **body, input=[unit, city])
    assert sorted(part for item in second["output"] for part in [item["content"][0]["text"]]) == ["city=Oslo", "unit=C"]
    assert ask(client, mode, **body, input=[unit, city]) == second
    assert refused(client, **body, input=[unit, {**city, "output": "Rome"}])[1] == "approval_already_answered"
    (tool,) = second["tools"]
    assert tool["name"] == "request_human_input"


@pytest.mark.parametrize("declared", [WEATHER, {}], ids=["declared again", "not declared again"])
@pytest.mark.parametrize("mode", MODES)
def test_the_output_of_a_client_tool_is_enough(client: OpenAI, mode: Mode, declared: dict[str, Any]) -> None:
    first = ask(client, mode, model="client_tool", input="What?", **WEATHER)
    (call,) = of_type(first, "function_call")
    output = [{"type": "function_call_output", "call_id": call["call_id"], "output": "Fog."}]
    second = ask(client, mode, model="client_tool", previous_response_id=first["id"], input=output, **declared)
    assert said(second) == "Outputs: Fog."


@pytest.mark.parametrize("mode", MODES)
def test_a_client_tool_beside_a_server_tool(client: OpenAI, mode: Mode) -> None:
    first = ask(client, mode, model="client_and_server_tool", input="What?", **WEATHER)
    assert sorted(types(first["output"])) == ["function_call", "mcp_call"]
    (call,) = of_type(first, "function_call")
    output = [{"type": "function_call_output", "call_id": call["call_id"], "output": "Fog."}]
    body = {"model": "client_and_server_tool", "previous_response_id": first["id"], **WEATHER}
    second = ask(client, mode, **body, input=output)
    assert said(second) == "Outputs: Sent to a@b.example. & Fog."
    assert types(second["output"]) == ["message"]


@pytest.mark.parametrize(("allowed", "ran"), [(["send_email"], True), ([], False)])
def test_a_server_tool_that_the_client_leaves_out_is_not_run(client: OpenAI, allowed: list[str], ran: bool) -> None:
    own = {"type": "mcp", "server_label": "client_and_server_tool", "allowed_tools": allowed}
    tools = [own, weather_schema()]
    response = ask(client, "stream", model="client_and_server_tool", input="What?", tools=tools)
    (call,) = of_type(response, "mcp_call")
    assert ("output" in call) is ran
    assert ran or call["error"]["content"][0]["text"] == "send_email may not be called."
    assert of_type(response, "function_call")
    assert response["tools"][0] == own


def test_a_client_tool_without_its_output_is_named(client: OpenAI) -> None:
    first = ask(client, "create", model="client_tool", input="What?", **WEATHER)
    (call,) = of_type(first, "function_call")
    status, _, message = refused(client, model="client_tool", previous_response_id=first["id"], input="And?", **WEATHER)
    assert status == 400
    assert f"No tool output found for function call {call['call_id']}" in message


@on_every_store
@pytest.mark.parametrize("named", [True, False], ids=["by response", "by approval request"])
@pytest.mark.parametrize("mode", MODES)
def test_an_equal_answer_gets_the_same_response_and_another_is_refused(client: OpenAI, mode: Mode, named: bool) -> None:
    first = ask(client, mode, model="approval", input="Write!")
    body = {"model": "approval"} | ({"previous_response_id": first["id"]} if named else {})
    answers = approvals(first)
    second = ask(client, mode, **body, input=answers)
    assert ask(client, mode, **body, input=answers) == second
    (request,) = of_type(first, "mcp_approval_request")
    assert refused(client, **body, input=[reject(request)])[:2] == (409, "approval_already_answered")


def test_an_answer_to_nothing_is_refused(client: OpenAI) -> None:
    unknown = {"type": "mcp_approval_response", "approval_request_id": "mcpr_1", "approve": True}
    assert refused(client, model="approval", input=[unknown])[:2] == (400, "approval_not_pending")
    done = ask(client, "create", model="hearing", input="Hi")
    body = {"model": "hearing", "previous_response_id": done["id"]}
    assert refused(client, **body, input=[unknown])[:2] == (400, "approval_not_pending")
    asked, other = (ask(client, "create", model="approval", input="Write!") for _ in range(2))
    body = {"model": "approval", "previous_response_id": asked["id"]}
    both = [*approvals(asked), *approvals(other)]
    assert refused(client, **body, input=both)[:2] == (400, "approval_not_pending")
    assert refused(client, **body, input=approvals(other))[:2] == (400, "approval_required")


def test_an_answer_to_a_deleted_question_is_refused(client: OpenAI) -> None:
    first = ask(client, "create", model="approval", input="Write!")
    client.responses.delete(first["id"])
    assert refused(client, model="approval", input=approvals(first))[:2] == (400, "approval_not_pending")


def test_a_message_beside_an_answer_is_refused(client: OpenAI) -> None:
    first = ask(client, "create", model="approval", input="Write!")
    body = {"model": "approval", "previous_response_id": first["id"]}
    both = [*approvals(first), {"role": "user", "content": "And hurry!"}]
    status, _, message = refused(client, **body, input=both)
    assert status == 400
    assert "input[1]" in message


@pytest.mark.parametrize("answer", [{"approve": False}, {"edited_arguments": {"to": "me", "body": "Hi"}}])
def test_a_decision_that_the_agent_does_not_take_is_refused(client: OpenAI, answer: dict[str, Any]) -> None:
    first = ask(client, "create", model="only_approves", input="Write!")
    (request,) = of_type(first, "mcp_approval_request")
    body = {"model": "only_approves", "previous_response_id": first["id"]}
    status, _, message = refused(client, **body, input=[approve(request, **answer)])
    assert status == 400
    assert "takes only: approve" in message
    assert said(ask(client, "create", **body, input=[approve(request)])) == "Outputs: Sent to oslo@b.example."


def test_a_message_that_stood_in_line_does_not_pass_over_a_question() -> None:
    gate = Gate()
    steps = [gate, *call("send_email", '{"to": "a", "body": "Hi"}', id="call_1"), *finish("tool_calls")]
    approvals_only = [HumanInTheLoopMiddleware(interrupt_on={"send_email": True})]
    slow = create_agent(ScriptedChatModel(turns=[steps]), tools=[send_email], middleware=approvals_only)
    settings = Settings(busy_conversation="enqueue")
    agents = {"slow": slow, "hearing": ASKING["hearing"]}
    with serving(agents, settings) as url, OpenAI(base_url=f"{url}/v1", api_key="none", max_retries=0) as client:
        conversation = client.conversations.create().id
        asking = client.responses.create(model="slow", input="Write!", conversation=conversation, background=True)
        gate.wait_reached()
        waiting = client.responses.create(model="hearing", input="Hi!", conversation=conversation, background=True)
        gate.open()
        with client.responses.retrieve(asking.id, stream=True) as stream:
            assert [event.type for event in stream][-1] == "response.completed"
        with (
            pytest.raises(APIError, match="waits for an answer"),
            client.responses.retrieve(waiting.id, stream=True) as stream,
        ):
            list(stream)
        assert retrieved(client, waiting.id)["error"]["code"] == "approval_required"
        answers = approvals(retrieved(client, asking.id))
        answered = ask(client, "create", input=answers, model="slow", conversation=conversation)
        assert answered["status"] == "completed"


@pytest.mark.parametrize("named", [True, False], ids=["in its conversation", "by its request alone"])
async def test_an_answer_that_comes_too_late_is_refused(named: bool) -> None:
    """A message that came by a protocol without such questions has moved the conversation on."""
    async with opened({"approval": ASKING["approval"]}) as app:
        body = {"model": "approval", "input": "Write!", "context": {"conversation_id": "t1"}}
        first = await (await ask_app(app, "POST", "/v1/responses", body)).json()
        turns = (Message("user", (Text("Never mind."),)),)
        run = await app.state.threads.begin(
            Ask("default", "t1", agent_of("approval", ASKING["approval"]()), turns=turns)
        )
        await run.log.until_over()
        more = {"conversation": "t1"} if named else {}
        late = await ask_app(app, "POST", "/v1/responses", {"model": "approval", "input": approvals(first), **more})
        assert (late.status, (await late.json())["error"]["code"]) == (409, "approval_too_late")


def test_another_agent_cannot_take_the_answer(client: OpenAI) -> None:
    first = ask(client, "create", model="approval", input="Write!")
    status, _, message = refused(client, model="hearing", previous_response_id=first["id"], input=approvals(first))
    assert status == 400
    assert "'approval'" in message


def test_an_answer_needs_no_model(client: OpenAI) -> None:
    first = ask(client, "create", model="two_approvals", input="Write!")
    body = {"previous_response_id": first["id"], "input": approvals(first)}
    assert said(ask(client, "stream", **body)).startswith("Outputs: ")


def test_pending_requests_are_seen_later(client: OpenAI) -> None:
    first = ask(client, "stream", model="two_approvals", input="Write!")
    kept = retrieved(client, first["id"])
    assert kept == first
    assert len(of_type(kept, "mcp_approval_request")) == 2


def test_the_input_of_an_answer_is_listed(client: OpenAI) -> None:
    first = ask(client, "create", model="approval", input="Write!")
    second = ask(client, "create", model="approval", previous_response_id=first["id"], input=approvals(first))
    (item,) = client.responses.input_items.list(second["id"]).data
    assert item.type == "mcp_approval_response"
    assert item.approve


@on_every_store
@pytest.mark.parametrize("mode", MODES)
def test_a_conversation_goes_on_after_its_question_was_answered(client: OpenAI, mode: Mode) -> None:
    conversation = client.conversations.create().id
    body = {"model": "approval", "conversation": conversation}
    first = ask(client, mode, **body, input="Write!")
    second = ask(client, mode, **body, input=approvals(first))
    assert said(second) == "Outputs: Sent to oslo@b.example."
    assert ask(client, mode, **body, input=approvals(first)) == second
    third = ask(client, mode, **body, input="Again!")
    assert of_type(third, "mcp_approval_request")
    (request,) = of_type(first, "mcp_approval_request")
    assert refused(client, **body, input=[reject(request)])[:2] == (409, "approval_already_answered")


def test_an_answer_by_its_request_alone_joins_the_conversation(client: OpenAI) -> None:
    conversation = client.conversations.create().id
    first = ask(client, "create", model="approval", conversation=conversation, input="Write!")
    second = ask(client, "create", model="approval", input=approvals(first))
    assert second["conversation"] == {"id": conversation}
    listed = [item.id for item in client.conversations.items.list(conversation, order="asc")]
    assert listed[-1] == second["output"][-1]["id"]


def test_what_failed_after_an_answer_may_be_answered_again(client: OpenAI) -> None:
    first = ask(client, "create", model="fails_once", input="Write!")
    body = {"model": "fails_once", "previous_response_id": first["id"]}
    assert refused(client, **body, input=approvals(first))[0] == 500
    (request,) = of_type(first, "mcp_approval_request")
    assert said(ask(client, "stream", **body, input=[reject(request, "No.")])).endswith("No.")


@pytest.mark.parametrize(
    ("scenario", "mode"),
    [("approval", "create"), ("two_approvals", "stream"), ("two_questions", "accumulate"), ("client_tool", "stream")],
)
def test_questions_outlive_the_server(tmp_path: Path, mode: Mode, scenario: str) -> None:
    settings = Settings(store=f"sqlite:///{tmp_path / 'runs.db'}")
    more = WEATHER if scenario == "client_tool" else {}
    with serving(ASKING, settings) as url, OpenAI(base_url=f"{url}/v1", api_key="none") as client:
        first = ask(client, mode, model=scenario, input="Do!", **more)
        rest = ask(client, mode, model=scenario, input="Do!", **more)
    assert sqlite3.connect(tmp_path / "runs.db").execute("PRAGMA integrity_check").fetchone() == ("ok",)
    with serving(ASKING, settings) as url, OpenAI(base_url=f"{url}/v1", api_key="none") as client:
        assert retrieved(client, first["id"]) == first
        calls = of_type(first, "function_call")
        outputs = [{"type": "function_call_output", "call_id": c["call_id"], "output": "Fog."} for c in calls]
        answers = [*approvals(first), *outputs]
        second = ask(client, mode, model=scenario, previous_response_id=first["id"], input=answers, **more)
        assert second["status"] == "completed"
        assert said(second)
    with serving(ASKING, settings) as url, OpenAI(base_url=f"{url}/v1", api_key="none") as client:
        body = {"model": scenario, "input": answers, "previous_response_id": first["id"], **more}
        assert ask(client, mode, **body) == second
        assert retrieved(client, rest["id"]) == rest
