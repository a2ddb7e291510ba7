"""`response.steer` over the WebSocket: where a graph stops, what follows, and what is told when nothing can."""

from __future__ import annotations

from typing import Any

import httpx
import pytest
from langchain.agents import create_agent
from langchain.agents.middleware import HumanInTheLoopMiddleware
from langchain_core.messages import AIMessage, HumanMessage, ToolMessage
from langchain_core.tools import tool
from openai.types.responses.response_steer_accepted_event import ResponseSteerAcceptedEvent
from openai.types.responses.response_steer_failed_event import ResponseSteerFailedEvent
from openai.types.responses.response_steer_pending_event import ResponseSteerPendingEvent

from tests.support.gates import Gate
from tests.support.scripted import ScriptedChatModel, chunks, gated_text
from tests.support.serve import serving
from tests.support.socket import Socket, opened

OSLO = '{"city": "Oslo"}'


def answered(model: ScriptedChatModel) -> list[tuple[type, str]]:
    """What the model was asked last."""
    return [(type(message), str(message.content)) for message in model.calls[-1].messages]


class Gated:
    """An agent that calls a tool, which waits at a gate, and then answers; it begins with a text."""

    def __init__(self, **options: Any) -> None:
        self.gate = gate = Gate()

        @tool
        async def get_weather(city: str) -> str:
            """The weather."""
            await gate.passed()
            return f"Sunny in {city}."

        call = [*chunks.call("get_weather", OSLO, id="call_oslo"), *chunks.finish("tool_calls")]
        self.model = ScriptedChatModel(turns=[self._first(call), [*chunks.text("Take a hat."), *chunks.finish()]])
        self.agent = create_agent(self.model, tools=[get_weather], **options)

    def _first(self, call: Any) -> Any:
        """The tool is called for the first question alone."""
        return lambda asked: call if len(asked.messages) == 1 else [*chunks.text("As you wish."), *chunks.finish()]


async def begin(socket: Socket, **event: Any) -> str:
    """Create a response: its id."""
    await socket.send(**event)
    created = await socket.event()
    assert created["type"] == "response.created", created
    return str(created["response"]["id"])


@pytest.mark.parametrize("store", [True, False])
async def test_a_graph_stops_when_its_tools_have_answered_and_a_successor_goes_on(store: bool) -> None:
    gated = Gated()
    with serving({"agent": gated.agent}) as url:
        async with opened(url) as socket:
            first = await begin(socket, input="Weather?", store=store, stream_id="a", metadata={"k": "v"})
            await gated.gate.reached()
            await socket.send("response.steer", previous_response_id=first, input="In Rome, I mean.")
            accepted = (await socket.until("response.steer.accepted"))[-1]
            gated.gate.open()
            steered = (await socket.until("response.incomplete"))[-1]["response"]
            successor = (await socket.until("response.completed"))[-1]
        if store:
            kept = httpx.get(f"{url}/v1/responses/{first}").json()
            assert (kept["status"], kept["incomplete_details"]) == ("incomplete", {"reason": "steered"})
    ResponseSteerAcceptedEvent.model_validate(accepted)
    assert (accepted["stream_id"], accepted["steer"]["previous_response_id"]) == ("a", first)
    assert (steered["id"], steered["incomplete_details"]) == (first, {"reason": "steered"})
    assert [item["type"] for item in steered["output"]] == ["mcp_call"]
    response = successor["response"]
    assert (successor["stream_id"], response["previous_response_id"], response["store"]) == ("a", first, store)
    assert response["metadata"] == {"k": "v"}
    assert answered(gated.model) == [
        (HumanMessage, "Weather?"),
        (AIMessage, ""),
        (ToolMessage, "Sunny in Oslo."),
        (HumanMessage, "In Rome, I mean."),
    ]
    assert len(gated.model.calls) == 2


async def test_what_has_one_step_ends_by_itself_and_all_input_follows_together() -> None:
    gate = Gate()
    with serving({"agent": gated_text(["One", ","], gate, [" two."])}) as url:
        async with opened(url) as socket:
            first = await begin(socket, input="Count.")
            await gate.reached()
            for text in ("Three?", [{"role": "user", "content": [{"type": "input_text", "text": "Four?"}]}]):
                await socket.send("response.steer", previous_response_id=first, input=text)
                await socket.until("response.steer.accepted")
            gate.open()
            assert (await socket.until("response.completed"))[-1]["response"]["id"] == first
            second = (await socket.until("response.completed"))[-1]["response"]
        assert second["previous_response_id"] == first
        items = httpx.get(f"{url}/v1/responses/{second['id']}/input_items", params={"order": "asc"}).json()["data"]
        assert [item["content"][0]["text"] for item in items] == ["Three?", "Four?"]


async def test_input_waits_while_a_response_waits_for_an_approval() -> None:
    gated = Gated(middleware=[HumanInTheLoopMiddleware(interrupt_on={"get_weather": True})])
    hold = Gate()
    first_turn = gated.model.turns[0]
    gated.model.turns[0] = lambda asked: [hold, *first_turn(asked)] if len(asked.messages) == 1 else first_turn(asked)
    gated.gate.open()
    with serving({"agent": gated.agent}) as url:
        async with opened(url) as socket:
            first = await begin(socket, input="Weather?", store=False)
            await hold.reached()
            await socket.send("response.steer", previous_response_id=first, input="And be short.")
            steer = (await socket.until("response.steer.accepted"))[-1]["steer"]
            hold.open()
            asked = (await socket.until("response.completed"))[-1]["response"]
            pending = await socket.event()
            ResponseSteerPendingEvent.model_validate(pending)
            assert pending["steer"] == steer
            question = next(item["id"] for item in asked["output"] if item["type"] == "mcp_approval_request")
            (stub,) = pending["required_input"]
            assert stub == {"type": "mcp_approval_response", "approval_request_id": question}
            again = {"previous_response_id": first, "store": False}
            assert (await socket.ask(input="Hello?", **again))["error"]["code"] == "approval_required"
            returned = await socket.event()  # the lane lost the response, and with it what waited there
            assert (returned["type"], returned["steer"]["id"]) == ("response.steer.failed", steer["id"])


async def test_what_waits_for_an_answer_follows_the_response_that_brings_it() -> None:
    gated = Gated(middleware=[HumanInTheLoopMiddleware(interrupt_on={"get_weather": True})])
    hold = Gate()
    first_turn = gated.model.turns[0]
    gated.model.turns[0] = lambda asked: [hold, *first_turn(asked)] if len(asked.messages) == 1 else first_turn(asked)
    gated.gate.open()
    with serving({"agent": gated.agent}) as url:
        async with opened(url) as socket:
            first = await begin(socket, input="Weather?", store=False)
            await hold.reached()
            await socket.send("response.steer", previous_response_id=first, input="And be short.")
            hold.open()
            (stub,) = (await socket.until("response.steer.pending"))[-1]["required_input"]
            await socket.send(input=[{**stub, "approve": True}], previous_response_id=first, store=False)
            second = (await socket.until("response.completed"))[-1]["response"]
            third = (await socket.until("response.completed"))[-1]["response"]
    assert (second["previous_response_id"], third["previous_response_id"]) == (first, second["id"])
    assert answered(gated.model)[-3:] == [
        (ToolMessage, "Sunny in Oslo."),
        (AIMessage, "Take a hat."),
        (HumanMessage, "And be short."),
    ]


async def failed(socket: Socket, response_id: Any, given: Any) -> Any:
    """Steer in vain: the event that says so."""
    await socket.send("response.steer", previous_response_id=response_id, input=given)
    event = (await socket.until("response.steer.failed", "response.steer.accepted"))[-1]
    assert event["type"] == "response.steer.failed"
    assert (event["error"]["type"], event["steer"]["input"]) == ("invalid_request_error", given)
    return event


@pytest.mark.parametrize(
    "given",
    [
        "",
        [],
        None,
        7,
        [{"role": "assistant", "content": "x"}],
        [{"type": "function_call_output", "call_id": "c", "output": "x"}],
        [{"role": "user", "content": "x", "id": "msg_1"}],
        [{"role": "user", "content": [{"type": "input_audio"}]}],
    ],
)
async def test_input_that_is_no_message_of_the_user_is_given_back(given: Any) -> None:
    gate = Gate()
    with serving({"agent": gated_text(["Hm"], gate, [])}) as url:
        async with opened(url) as socket:
            first = await begin(socket, input="Hi", stream_id="a")
            event = await failed(socket, first, given)
            assert (event["error"]["code"], event["stream_id"]) == ("invalid_input", "a")
            gate.open()
            assert (await socket.until("response.completed"))[-1]["response"]["id"] == first


async def test_what_is_over_unknown_or_in_a_conversation_is_not_steered() -> None:
    gate = Gate()
    with serving({"agent": gated_text(["Hm"], gate, [])}) as url:
        async with opened(url) as socket, opened(url) as other:
            first = await begin(socket, input="Hi", context={"conversation_id": "talk"})
            assert (await failed(socket, first, "x"))["error"]["code"] == "steering_not_supported"
            assert (await failed(other, first, "x"))["error"]["code"] == "response_not_found"
            gate.open()
            await socket.until("response.completed")
            assert (await failed(socket, first, "x"))["error"]["code"] == "response_already_completed"
            assert (await failed(socket, "resp_none", "x"))["error"]["code"] == "response_not_found"
            assert (await failed(socket, None, "x"))["error"]["code"] == "invalid_input"


async def test_more_input_than_may_wait_is_given_back_and_so_is_that_of_a_response_that_is_cancelled() -> None:
    gate = Gate()
    with serving({"agent": gated_text(["Hm"], gate, [])}) as url:
        async with opened(url) as socket:
            first = await begin(socket, input="Hi")
            await gate.reached()
            for number in range(32):
                await socket.send("response.steer", previous_response_id=first, input=str(number))
                await socket.until("response.steer.accepted")
            assert (await failed(socket, first, "x"))["error"]["code"] == "too_many_pending_steers"
            async with httpx.AsyncClient() as client:
                await client.post(f"{url}/v1/responses/{first}/cancel")
            returned = [(await socket.until("response.steer.failed"))[-1] for _ in range(32)]
    assert [event["steer"]["input"] for event in returned] == [str(number) for number in range(32)]
    assert {event["error"]["code"] for event in returned} == {"response_not_active"}
    for event in returned:
        ResponseSteerFailedEvent.model_validate(event)
