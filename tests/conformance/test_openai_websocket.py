"""openai-python over the WebSocket: `client.responses.connect()`, and its sessions with lanes, of both colours."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any, cast

import pytest
from langchain.agents import create_agent
from openai import AsyncOpenAI, OpenAI
from openai.lib.responses_websocket import (
    AsyncResponsesWebSocketSession,
    ResponsesWebSocketAccumulator,
    ResponsesWebSocketError,
    ResponsesWebSocketLimits,
    ResponsesWebSocketSession,
)
from openai.types.responses.responses_client_event import ResponseCreate
from openai.types.responses.responses_server_event import ResponsesServerEvent
from pydantic import TypeAdapter

from tests.support.gates import PATIENCE, Gate
from tests.support.scripted import SCENARIOS, ScriptedChatModel, chunks, gated_text
from tests.support.serve import serving

LIMITS = ResponsesWebSocketLimits(
    max_lanes=8, max_events_per_lane=500, max_events=1000, max_bytes_per_lane=2**22, max_bytes=2**23
)
EVENTS: TypeAdapter[Any] = TypeAdapter(ResponsesServerEvent)
GATE = Gate()


@pytest.fixture(scope="module")
def url() -> Iterator[str]:
    model = ScriptedChatModel(turns=[lambda asked: [*chunks.text(str(asked.messages[-1].content)), *chunks.finish()]])
    agents = {"echo": create_agent(model, tools=[]), "slow": gated_text(["Slow"], GATE, [" done"]), **SCENARIOS}
    with serving(agents) as base_url:
        yield base_url + "/v1"


@pytest.fixture
def client(url: str) -> Iterator[OpenAI]:
    with OpenAI(base_url=url, api_key="none", max_retries=0) as opened:
        yield opened


def create(**event: Any) -> Any:
    return {"type": "response.create", **event}


def test_a_connection_answers_one_after_the_other(client: OpenAI) -> None:
    with client.responses.connect() as connection:
        previous: dict[str, Any] = {}
        for number in range(3):
            connection.response.create(model="echo", input=f"Say {number}", store=False, **previous)
            for event in connection:
                EVENTS.validate_python(event.to_dict(), strict=False)
                if event.type == "response.completed":
                    assert event.response.output_text == f"Say {number}"
                    previous = {"previous_response_id": event.response.id}
                    break


async def test_a_connection_answers_asynchronous_clients(url: str) -> None:
    async with AsyncOpenAI(base_url=url, api_key="none") as client, client.responses.connect() as connection:
        await connection.response.create(model="text_tool_text", input="Hi")
        kinds = []
        async for event in connection:
            EVENTS.validate_python(event.to_dict(), strict=False)
            kinds.append(event.type)
            if event.type == "response.completed":
                assert event.response.output_text.endswith("sunny in Oslo.")
                break
        assert kinds[:2] == ["response.created", "response.in_progress"]


async def test_lanes_of_an_asynchronous_session_run_side_by_side(url: str) -> None:
    GATE.reset()
    async with (
        AsyncOpenAI(base_url=url, api_key="none") as client,
        client.responses.connect() as connection,
        AsyncResponsesWebSocketSession(connection, limits=LIMITS) as session,
    ):
        slow, quick = session.lane("slow"), session.lane("quick")
        await slow.send(create(model="slow", input="Hi"))
        await quick.send(create(model="echo", input="First", store=False))
        first = await quick.get_final_response()
        await quick.send(create(model="echo", input="Second", previous_response_id=first.id, store=False))
        assert (await quick.get_final_response()).output_text == "Second"
        GATE.open()
        assert (await slow.get_final_response()).output_text == "Slow done"


def test_a_session_warms_up_and_tells_errors_by_lane(client: OpenAI) -> None:
    with client.responses.connect() as connection, ResponsesWebSocketSession(connection, limits=LIMITS) as session:
        lane = session.lane("a")
        lane.send(ResponseCreate(type="response.create", model="echo", input="Be kind.", generate=False))
        warm = lane.get_final_response(timeout=PATIENCE)
        assert (warm.status, warm.output) == ("completed", [])
        lane.send(create(model="echo", input="Now", previous_response_id=warm.id))
        assert lane.get_final_response(timeout=PATIENCE).output_text == "Now"
        lane.send(create(model="echo", input="Lost", previous_response_id=f"resp_{0:032x}"))
        with pytest.raises(ResponsesWebSocketError) as refused:
            lane.get_final_response(timeout=PATIENCE)
        assert cast("Any", refused.value.event).error.code == "previous_response_not_found"
        lane.send(create(model="model_error_before_first_token", input="Hi"))
        assert lane.get_final_response(timeout=PATIENCE).status == "failed"
        lane.send(create(model="echo", input="Still here"))
        assert lane.get_final_response(timeout=PATIENCE).output_text == "Still here"


def test_a_steered_response_is_followed_by_its_successor(client: OpenAI) -> None:
    GATE.reset()
    with client.responses.connect() as connection, ResponsesWebSocketSession(connection, limits=LIMITS) as session:
        lane = session.lane("a")
        lane.send(create(model="slow", input="Hi"))
        created: Any = lane.recv(timeout=PATIENCE)
        GATE.wait_reached()
        lane.send({"type": "response.steer", "previous_response_id": created.response.id, "input": "More"})
        while (event := lane.recv(timeout=PATIENCE)).type != "response.steer.accepted":
            pass
        EVENTS.validate_python(event.to_dict(), strict=False)
        GATE.open()
        accumulator = ResponsesWebSocketAccumulator()
        while (event := lane.recv(timeout=PATIENCE)).type != "response.completed":
            pass
        while event.type != "response.completed" or cast("Any", event).response.id == created.response.id:
            event = lane.recv(timeout=PATIENCE)
            accumulator.add_event(event)
        successor = accumulator.get_final_response()
        assert (successor.previous_response_id, successor.output_text) == (created.response.id, "Slow done")
