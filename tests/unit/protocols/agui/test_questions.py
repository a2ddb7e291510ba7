"""Interrupts of AG-UI: what is asked, and what each answer resumes with."""

from __future__ import annotations

from typing import Any

import orjson
import pytest
from langchain_core.messages import AIMessage
from langgraph.graph import START, MessagesState, StateGraph

from tests.support.agui import in_order
from tests.support.agui_asking import Agent, user
from tests.support.exchange import ask, opened
from tests.support.scripted import SCENARIOS

Json = dict[str, Any]


def resolved(key: str, payload: Any) -> Json:
    return {"interruptId": key, "status": "resolved", "payload": payload}


async def test_an_approval_is_bound_to_its_call_and_says_what_it_takes() -> None:
    async with opened({"agent": SCENARIOS["approval"]()}) as app:
        agent = Agent(app)
        await agent.run("Write")
        (question,) = agent.outcome["interrupts"]
        assert (question["reason"], question["toolCallId"]) == ("tool_call", "call_oslo")
        assert question["responseSchema"]["required"] == ["approved"]
        assert "editedArgs" in question["responseSchema"]["properties"]
        kinds = [event["type"] for event in agent.events]
        assert kinds.index("MESSAGES_SNAPSHOT") < kinds.index("RUN_FINISHED")


@pytest.mark.parametrize(
    ("entry", "result"),
    [
        ({"status": "resolved", "payload": {"approved": True}}, "Sent to oslo@b.example."),
        ({"status": "resolved", "payload": True}, "Sent to oslo@b.example."),
        ({"status": "resolved", "payload": {"approved": False, "reason": "Not now."}}, "Not now."),
        ({"status": "cancelled"}, "The user abandoned the question."),
        (
            {"status": "resolved", "payload": {"approved": True, "editedArgs": {"to": "c@d.example", "body": "Yo"}}},
            "Sent to c@d.example.",
        ),
        (
            {"status": "resolved", "payload": {"decisions": [{"type": "reject", "message": "As LangChain has it."}]}},
            "As LangChain has it.",
        ),
    ],
)
async def test_an_approval_is_answered(entry: Json, result: str) -> None:
    async with opened({"agent": SCENARIOS["approval"]()}) as app:
        agent = Agent(app)
        await agent.run("Write")
        (question,) = agent.outcome["interrupts"]
        await agent.run(resume=[{"interruptId": question["id"], **entry}])
        (told,) = agent.client.text("tool")
        assert told.endswith(result)  # LangChain says of some that they are not the model's own doing
        assert agent.outcome == {"type": "success"}
        assert agent.client.text()[-1] == "All sent."
        in_order(agent.client.messages)


async def test_two_calls_are_two_questions_that_are_answered_together() -> None:
    async with opened({"agent": SCENARIOS["two_approvals"]()}) as app:
        agent = Agent(app)
        await agent.run("Write")
        one, two = agent.outcome["interrupts"]
        assert [one["toolCallId"], two["toolCallId"]] == ["call_oslo", "call_rome"]
        status, error = await agent.refused(resume=[resolved(one["id"], {"approved": True})])
        assert (status, error["param"], error["code"]) == (400, "resume", "answer_required")
        await agent.run(resume=[resolved(two["id"], {"approved": False}), resolved(one["id"], {"approved": True})])
        results = {m["toolCallId"]: m["content"] for m in agent.client.messages if m["role"] == "tool"}
        assert results["call_oslo"] == "Sent to oslo@b.example."
        assert "rejected" in results["call_rome"]
        in_order(agent.client.messages)


@pytest.mark.parametrize(
    ("scenario", "said"), [("free_interrupt", "You said Oslo."), ("tool_interrupt", "It is sunny.")]
)
async def test_a_free_question_is_answered_with_its_payload(scenario: str, said: str) -> None:
    async with opened({"agent": SCENARIOS[scenario]()}) as app:
        agent = Agent(app)
        await agent.run("Hi")
        (question,) = agent.outcome["interrupts"]
        assert question["message"] in ("Which city?", "Where are you?")
        assert question["metadata"]["langgraph"]["value"]
        await agent.run(resume=[resolved(question["id"], "Oslo")])
        assert agent.client.text()[-1] == said
        assert agent.of("TOOL_CALL_START") == []
        in_order(agent.client.messages)


async def test_a_free_question_that_is_abandoned_gets_nothing() -> None:
    async with opened({"agent": SCENARIOS["free_interrupt"]()}) as app:
        agent = Agent(app)
        await agent.run("Hi")
        (question,) = agent.outcome["interrupts"]
        await agent.run(resume=[{"interruptId": question["id"], "status": "cancelled"}])
        assert agent.client.text()[-1] == "You said None."


async def test_a_waiting_question_blocks_what_is_new_and_is_answered_once() -> None:
    async with opened({"agent": SCENARIOS["approval"]()}) as app:
        agent = Agent(app)
        await agent.run("Write")
        (question,) = agent.outcome["interrupts"]
        yes = resolved(question["id"], {"approved": True})
        agent.client.messages.append(user("Hello?", "u9"))
        status, error = await agent.refused()
        assert (status, error["param"]) == (400, "resume")
        status, error = await agent.refused(resume=[yes])
        assert (status, error["param"]) == (400, "messages[2]")
        agent.client.messages.pop()
        status, error = await agent.refused(resume=[yes, resolved("other", 1)])
        assert (status, error["param"], error["code"]) == (409, "resume[1].interruptId", "interrupt_not_pending")
        status, error = await agent.refused(resume=[resolved(question["id"], {"approved": "yes"})])
        assert (status, error["param"]) == (400, "resume[0].payload.approved")
        await agent.run(resume=[yes])
        status, error = await agent.refused(resume=[yes])
        assert (status, error["code"]) == (409, "interrupt_not_pending")
        assert len(agent.client.text("tool")) == 1


async def test_a_breakpoint_is_a_question_too() -> None:
    async def answer(state: MessagesState) -> Json:
        return {"messages": [AIMessage("Done.")]}

    graph = StateGraph(MessagesState).add_node(answer).add_edge(START, "answer").compile(interrupt_before=["answer"])
    async with opened({"agent": graph}) as app:
        agent = Agent(app)
        await agent.run("Hi")
        (question,) = agent.outcome["interrupts"]
        assert question["reason"] == "langgraph:breakpoint"
        status, error = await agent.refused()
        assert (status, error["param"]) == (400, "resume")
        await agent.run(resume=[resolved(question["id"], True)])
        assert agent.client.text() == ["Done."]


async def test_an_answer_that_the_agent_does_not_take_is_refused() -> None:
    async with opened({"agent": SCENARIOS["approval"]()}) as app:
        agent = Agent(app)
        await agent.run("Write")
        (question,) = agent.outcome["interrupts"]
        payload = {"approved": True, "editedArgs": "everything"}
        status, error = await agent.refused(resume=[resolved(question["id"], payload)])
        assert (status, error["param"]) == (400, "resume[0].payload.editedArgs")
        assert orjson.loads((await ask(app, "GET", "/agui/agent")).received)["humanInTheLoop"]["approveWithEdits"]
