"""AG-UI over HTTP: runs of a thread, what reaches the agent, and what comes back to the client."""

from __future__ import annotations

import logging
from pathlib import Path
from typing import Any

import orjson
import pytest
from langchain.agents import create_agent
from langchain_core.messages import AIMessage
from langchain_core.runnables import RunnableLambda
from langgraph.graph import START, MessagesState, StateGraph

from agent_server.context import RequestContext
from agent_server.middleware import RequestOptions
from tests.support.agui import in_order
from tests.support.agui_asking import Agent, body, events_in, user
from tests.support.exchange import Exchange, ask, opened
from tests.support.gates import Gate
from tests.support.models import Call
from tests.support.scripted import SCENARIOS, ScriptedChatModel, chunks
from tests.support.tools import get_weather

WEATHER = {
    "name": "get_weather",
    "description": "The weather in a city.",
    "parameters": {"type": "object", "properties": {"city": {"type": "string"}}},
}


class Recorder:
    """An agent that tells how the model was called: its messages' texts, by role."""

    def __init__(self) -> None:
        self.calls: list[list[tuple[str, str]]] = []

    def agent(self) -> Any:
        def turn(call: Call) -> list[Any]:
            self.calls.append([(message.type, str(message.text)) for message in call.messages])
            return [*chunks.text(f"answer {len(self.calls)}"), *chunks.finish()]

        return create_agent(ScriptedChatModel(turns=[turn]), tools=[], middleware=[RequestOptions()])


# Conversations


async def test_a_conversation_goes_on_and_the_client_keeps_its_order() -> None:
    recorder = Recorder()
    async with opened({"agent": recorder.agent()}) as app:
        agent = Agent(app)
        await agent.run("one")
        await agent.run("two")
        assert recorder.calls[-1] == [("human", "one"), ("ai", "answer 1"), ("human", "two")]
        assert [m["content"] for m in agent.client.messages] == ["one", "answer 1", "two", "answer 2"]
        assert [m["id"] for m in agent.client.messages][::2] == ["u1", "u2"]
        (snapshot,) = agent.of("MESSAGES_SNAPSHOT")
        assert snapshot["messages"] == agent.client.messages


async def test_a_thread_outlives_the_server(tmp_path: Path) -> None:
    recorder, store = Recorder(), f"sqlite:///{tmp_path / 'runs.db'}"
    async with opened({"agent": recorder.agent()}, store) as app:
        agent = Agent(app)
        await agent.run("one")
    async with opened({"agent": recorder.agent()}, store) as agent.app:
        await agent.run("two")
        assert recorder.calls[-1] == [("human", "one"), ("ai", "answer 1"), ("human", "two")]
        answer = await ask(agent.app, "GET", "/agui/agent/threads/t1/events")
        assert Agent(agent.app).client.read(events_in(answer.received)).messages == agent.client.messages


async def test_an_id_that_the_graph_cannot_keep_comes_back_as_it_was() -> None:
    async with opened({"agent": Recorder().agent()}) as app:
        agent = Agent(app)
        agent.client.messages.append(user("Hi", "ein Schlüssel / with spaces"))
        await agent.run()
        await agent.run("More")
        assert agent.client.messages[0]["id"] == "ein Schlüssel / with spaces"
        assert len(agent.client.messages) == 4


@pytest.mark.parametrize(
    "scenario", ["text_tool_text", "two_parallel_tools", "subgraph", "agent_as_tool", "nostream_tag", "sync_tools"]
)
async def test_two_turns_leave_the_client_with_the_messages_of_the_thread(scenario: str) -> None:
    async with opened({"agent": SCENARIOS[scenario]()}) as app:
        agent = Agent(app)
        await agent.run("one")
        first = [m["id"] for m in agent.client.messages]
        in_order(agent.client.messages)
        await agent.run("two")
        assert [m["id"] for m in agent.client.messages][: len(first)] == first
        in_order(agent.client.messages)
        (*_, snapshot) = agent.of("MESSAGES_SNAPSHOT")
        assert [m["id"] for m in snapshot["messages"]] == [m["id"] for m in agent.client.messages]


async def test_an_agent_without_memory_goes_on_too() -> None:
    counted = RunnableLambda(lambda said: f"{len(said)} messages").with_types(input_type=list)
    async with opened({"agent": counted}) as app:
        agent = Agent(app)
        await agent.run("one")
        await agent.run("two")
        assert agent.client.text() == ["1 messages", "3 messages"]


async def test_regenerating_answers_the_same_message_again() -> None:
    recorder = Recorder()
    async with opened({"agent": recorder.agent()}) as app:
        agent = Agent(app)
        await agent.run("one")
        await agent.run("two")
        agent.client.messages.pop()
        await agent.run()
        assert recorder.calls[-1] == [("human", "one"), ("ai", "answer 1"), ("human", "two")]
        assert [m["content"] for m in agent.client.messages] == ["one", "answer 1", "two", "answer 3"]
        agent.client.messages = [{**agent.client.messages[0], "content": "uno"}]
        await agent.run()
        assert recorder.calls[-1] == [("human", "uno")]
        await agent.run("three")
        assert recorder.calls[-1] == [("human", "uno"), ("ai", "answer 4"), ("human", "three")]


async def test_what_a_stopped_run_had_said_is_known_to_the_next() -> None:
    gate = Gate()
    seen: list[list[str]] = []

    def answer(call: Call) -> list[Any]:
        seen.append([str(message.text) for message in call.messages])
        if len(seen) == 1:
            return [*chunks.text("Partial"), gate, *chunks.text(" never"), *chunks.finish()]
        return [*chunks.text("Done."), *chunks.finish()]

    async with opened({"agent": create_agent(ScriptedChatModel(turns=[answer]), tools=[])}) as app:
        agent = Agent(app)
        agent.client.messages.append(user("Go", "u0"))
        async with Exchange(app, "POST", "/agui/agent", body(user("Go", "u0"))) as first:
            await first.until(b"Partial")
            await gate.reached()
            stopped = await ask(app, "POST", "/agui/agent/threads/t1/cancel")
            assert orjson.loads(stopped.received) == {"cancelled": True}
            agent.client.read(events_in(await first.whole()))
        assert agent.outcome == {"type": "cancelled"}
        assert agent.client.text() == ["Partial"]
        agent.client.messages[-1]["content"] = "Forged"
        await agent.run("Go on")
        assert seen[-1] == ["Go", "Partial", "Go on"]
        stopped = await ask(app, "POST", "/agui/agent/threads/t1/cancel")
        assert orjson.loads(stopped.received) == {"cancelled": False}


@pytest.mark.parametrize(("busy", "first", "history"), [("enqueue", "success", 4), ("interrupt", "cancelled", 2)])
async def test_a_second_run_on_a_busy_thread_follows_the_setting(busy: str, first: str, history: int) -> None:
    gate = Gate()
    answers = iter([[*chunks.text("One"), gate], [*chunks.text("Two")]])
    model = ScriptedChatModel(turns=[lambda _: [*next(answers), *chunks.finish()]])
    async with opened({"agent": create_agent(model, tools=[])}, busy_conversation=busy) as app:
        async with Exchange(app, "POST", "/agui", body(user("first"))) as one:
            await gate.reached()
            async with Exchange(app, "POST", "/agui", body(user("second", "u2"), run="r2")) as two:
                if busy == "enqueue":
                    gate.open()
                ends = [events_in(await each.whole())[-1] for each in (one, two)]
        assert [(end["runId"], end["outcome"]["type"]) for end in ends] == [("r1", first), ("r2", "success")]
        answer = await ask(app, "GET", "/agui/agent/threads/t1/events")
        assert len(Agent(app).client.read(events_in(answer.received)).messages) == history


# State


class Shared(MessagesState):
    count: int
    notes: list[str]


def _counting() -> Any:
    async def add(state: Shared) -> dict[str, Any]:
        return {"count": state.get("count", 0) + 1, "notes": [*state.get("notes", []), "added"]}

    async def say(state: Shared) -> dict[str, Any]:
        return {"messages": [AIMessage(f"{state['count']}")]}

    graph = StateGraph(Shared).add_node(add).add_node(say)
    return graph.add_edge(START, "add").add_edge("add", "say").compile()


async def test_state_is_shared_both_ways() -> None:
    async with opened({"agent": _counting()}) as app:
        agent = Agent(app)
        agent.client.state = {"count": 40, "notes": ["a long note that is not to be told twice" * 5]}
        await agent.run("Hi")
        assert [event["snapshot"]["count"] for event in agent.of("STATE_SNAPSHOT")] == [40]
        (delta,) = agent.of("STATE_DELTA")
        assert delta["delta"] == [
            {"op": "replace", "path": "/count", "value": 41},
            {"op": "add", "path": "/notes/-", "value": "added"},
        ]
        assert agent.client.state["count"] == 41
        agent.client.state = {**agent.client.state, "count": 1}
        await agent.run("Again")
        assert agent.client.text() == ["41", "2"]
        assert agent.client.state["notes"][1:] == ["added", "added"]


async def test_state_that_the_agent_does_not_know_stays_the_clients() -> None:
    async with opened({"agent": SCENARIOS["plain_text"]()}) as app:
        agent = Agent(app)
        agent.client.state = {"theme": "dark"}
        await agent.run("Hi")
        assert agent.client.state == {"theme": "dark"}
        assert agent.of("STATE_SNAPSHOT", "STATE_DELTA") == []


async def test_a_changed_state_alone_is_enough_to_run() -> None:
    async with opened({"agent": _counting()}) as app:
        agent = Agent(app)
        agent.client.state = {"count": 1}
        await agent.run()
        assert agent.client.text() == ["2"]


# What reaches the agent


async def test_the_applications_context_reaches_the_model() -> None:
    recorder = Recorder()
    async with opened({"agent": recorder.agent()}) as app:
        agent = Agent(app)
        await agent.run("Hi", context=[{"description": "The user's town", "value": "Oslo"}])
        (role, text), *_ = recorder.calls[0]
        assert role == "system"
        assert "The user's town: Oslo" in text
        assert "system" not in {m["role"] for m in agent.client.messages}


async def test_context_is_said_once_to_an_agent_that_takes_no_instructions() -> None:
    seen: list[list[tuple[str, str]]] = []

    def turn(call: Call) -> list[Any]:
        seen.append([(message.type, str(message.text)[-4:]) for message in call.messages])
        return [*chunks.text("Yes."), *chunks.finish()]

    async with opened({"agent": create_agent(ScriptedChatModel(turns=[turn]), tools=[])}) as app:
        agent = Agent(app)
        await agent.run("one", context=[{"description": "Town", "value": "Oslo"}])
        await agent.run("two", context=[{"description": "Town", "value": "Rome"}])
        assert seen[-1] == [("system", "Rome"), ("human", "one"), ("ai", "Yes."), ("human", "two")]
        assert [m["role"] for m in agent.client.messages] == ["user", "assistant"] * 2


async def test_forwarded_props_reach_the_agent() -> None:
    seen: list[Any] = []

    async def look(state: MessagesState, runtime: Any) -> dict[str, Any]:
        context = runtime.context
        assert isinstance(context, RequestContext)
        seen.append((dict(context.custom_inputs), context.conversation_id))
        return {"messages": [AIMessage("ok")]}

    look.__annotations__["runtime"] = __import__("langgraph.runtime", fromlist=["Runtime"]).Runtime[RequestContext]
    graph = StateGraph(MessagesState).add_node(look).add_edge(START, "look").compile()
    async with opened({"agent": graph}) as app:
        await Agent(app).run("Hi", forwardedProps={"plan": "gold"})
    assert seen == [({"plan": "gold"}, "t1")]


async def test_content_parts_reach_the_model() -> None:
    seen: list[Any] = []

    def turn(call: Call) -> list[Any]:
        seen.append(call.messages[-1].content)
        return [*chunks.text("A cat."), *chunks.finish()]

    async with opened({"agent": create_agent(ScriptedChatModel(turns=[turn]), tools=[])}) as app:
        agent = Agent(app)
        parts = [
            {"type": "text", "text": "What is this?"},
            {"type": "image", "source": {"type": "data", "value": "aGk=", "mimeType": "image/png"}},
            {"type": "document", "source": {"type": "url", "value": "https://a.example/d.pdf"}},
        ]
        await agent.run(parts)  # type: ignore[arg-type]
        assert [block["type"] for block in seen[0]] == ["text", "image", "file"]
        assert agent.client.messages[0]["content"] == parts


# The client's tools


async def test_a_tool_of_the_client_is_called_there() -> None:
    async with opened({"agent": SCENARIOS["client_tool"]()}) as app:
        agent = Agent(app)
        await agent.run("What?", tools=[WEATHER])
        assert agent.outcome == {"type": "success", "pendingToolCallIds": ["call_oslo"]}
        assert agent.of("TOOL_CALL_RESULT") == []
        agent.client.messages.append({"id": "mine", "role": "tool", "toolCallId": "call_oslo", "content": "Sunny!"})
        await agent.run(tools=[WEATHER])
        assert agent.outcome == {"type": "success"}
        roles = [(m["role"], m["id"] == "mine") for m in agent.client.messages]
        assert roles == [("user", False), ("assistant", False), ("tool", True), ("assistant", False)]
        assert agent.client.messages[2]["content"] == "Sunny!"
        in_order(agent.client.messages)


async def test_tools_of_both_sides_in_one_turn() -> None:
    async with opened({"agent": SCENARIOS["client_and_server_tool"]()}) as app:
        agent = Agent(app)
        await agent.run("What?", tools=[WEATHER])
        assert agent.outcome["pendingToolCallIds"] == ["call_oslo"]
        assert [event["toolCallId"] for event in agent.of("TOOL_CALL_RESULT")] == ["call_mail"]
        agent.client.messages.append({"id": "mine", "role": "tool", "toolCallId": "call_oslo", "content": "Sunny!"})
        await agent.run(tools=[WEATHER])
        assert [m["role"] for m in agent.client.messages] == ["user", "assistant", "tool", "tool", "assistant"]
        in_order(agent.client.messages)


async def test_a_call_that_waits_for_the_client_blocks_what_is_new() -> None:
    async with opened({"agent": SCENARIOS["client_tool"]()}) as app:
        agent = Agent(app)
        await agent.run("What?", tools=[WEATHER])
        agent.client.messages.append(user("Never mind", "u9"))
        status, error = await agent.refused(tools=[WEATHER])
        assert (status, error["param"], error["code"]) == (400, "messages", "tool_result_required")


async def test_tools_that_an_agent_does_not_take_are_left_out_with_a_warning(caplog: pytest.LogCaptureFixture) -> None:
    async with opened({"agent": SCENARIOS["plain_text"]()}) as app:
        with caplog.at_level(logging.WARNING):
            await Agent(app).run("Hi", tools=[WEATHER])
    assert "takes no tools" in caplog.text


# Coming back


async def test_a_client_that_comes_back_has_a_snapshot_and_the_rest() -> None:
    gate = Gate()
    call = chunks.call("get_weather", '{"city": "Oslo"}', id="call_oslo")
    model = ScriptedChatModel(
        turns=[
            [*chunks.text("Looking. "), *call, *chunks.finish("tool_calls")],
            [*chunks.text("It is "), gate, *chunks.text("sunny."), *chunks.finish()],
        ]
    )
    async with opened({"agent": create_agent(model, tools=[get_weather])}) as app:
        first, second = Agent(app), Agent(app)
        async with Exchange(app, "POST", "/agui/agent", body(user("What?"), run="mine")) as lost:
            await lost.until(b"It is ")
            await gate.reached()
            first.client.messages.append(user("What?"))
            for event in events_in(lost.received):
                first.client.feed(event)
        async with Exchange(app, "GET", "/agui/agent/threads/t1/events") as again:
            await again.until(b"MESSAGES_SNAPSHOT")
            assert first.client.run is not None
            first.client.end = first.client.run  # what the lost connection told is over for it
            gate.open()
            events = events_in(await again.whole())
        for agent in (first, second):
            agent.client.read(events)
            assert [m["role"] for m in agent.client.messages] == ["user", "assistant", "tool", "assistant"]
            assert agent.client.text() == ["Looking. ", "It is sunny."]
            assert agent.client.run is not None
            assert agent.client.run["runId"] == "mine"
        assert [event["type"] for event in events].count("TEXT_MESSAGE_CONTENT") == 1
        assert [event["type"] for event in events][:2] == ["RUN_STARTED", "MESSAGES_SNAPSHOT"]


async def test_who_comes_back_while_an_answer_is_made_anew_does_not_see_the_old_one() -> None:
    gate = Gate()
    answers = iter([[*chunks.text("Old.")], [*chunks.text("New"), gate, *chunks.text(".")]])
    model = ScriptedChatModel(turns=[lambda _: [*next(answers), *chunks.finish()]])
    async with opened({"agent": create_agent(model, tools=[])}) as app:
        agent = Agent(app)
        await agent.run("Hi")
        async with Exchange(app, "POST", "/agui/agent", body(*agent.client.messages[:1], run="r2")):
            await gate.reached()
            async with Exchange(app, "GET", "/agui/agent/threads/t1/events") as again:
                received = await again.until(b"TEXT_MESSAGE_START")
                (snapshot,) = [each for each in events_in(received) if each["type"] == "MESSAGES_SNAPSHOT"]
                assert [m["content"] for m in snapshot["messages"]] == ["Hi", "New"]
                gate.open()
                client = Agent(app).client.read(events_in(await again.whole()))
        assert client.text() == ["New."]


async def test_a_client_that_comes_back_late_is_told_how_it_ended() -> None:
    async with opened({"agent": SCENARIOS["approval"]()}) as app:
        agent, other = Agent(app), Agent(app)
        await agent.run("Write")
        answer = await ask(app, "GET", "/agui/agent/threads/t1/events")
        other.client.read(events_in(answer.received))
        assert other.client.messages == agent.client.messages
        assert other.outcome == agent.outcome


async def test_a_run_of_another_protocol_is_told_too() -> None:
    async with opened({"agent": SCENARIOS["text_tool_text"]()}) as app:
        said = {"model": "agent", "input": "What?", "context": {"conversation_id": "t1"}}
        assert (await ask(app, "POST", "/responses", said)).status == 200
        answer = await ask(app, "GET", "/agui/agent/threads/t1/events")
        client = Agent(app).client.read(events_in(answer.received))
        assert [m["role"] for m in client.messages] == ["user", "assistant", "tool", "assistant"]
        agent = Agent(app)
        agent.client = client
        await agent.run("Thanks")
        in_order(agent.client.messages)


@pytest.mark.parametrize(("path", "param"), [("/agui/agent/threads/none/events", "thread"), ("/agui/none", "agent")])
async def test_what_is_not_there_is_not_found(path: str, param: str) -> None:
    async with opened({"agent": SCENARIOS["plain_text"]()}) as app:
        answer = await ask(app, "GET", path)
        assert answer.status == 404
        assert orjson.loads(answer.received)["error"]["param"] == param


async def test_an_agent_tells_what_it_can() -> None:
    async with opened({"one": SCENARIOS["approval"](), "two": SCENARIOS["client_tool"]()}) as app:
        told = orjson.loads((await ask(app, "GET", "/agui")).received)
        assert told["identity"]["name"] == "one"
        assert told["humanInTheLoop"]["approvals"]
        assert not told["tools"]["clientProvided"]
        told = orjson.loads((await ask(app, "GET", "/agui/two")).received)
        assert told["identity"]["name"] == "two"
        assert told["tools"]["clientProvided"]
