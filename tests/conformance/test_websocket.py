"""`/v1/responses` as a WebSocket, as OpenAI's guide and clients describe it: lanes, cache, warm-up, errors, limits."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Iterator
from itertools import accumulate
from secrets import token_hex
from typing import Any

import httpx
import pytest
from langchain.agents import create_agent
from langchain_core.runnables import RunnableGenerator
from langgraph.graph import START, MessagesState, StateGraph
from websockets.exceptions import ConnectionClosed, InvalidStatus

from agent_server.protocols.responses import websocket
from agent_server.settings import Settings
from tests.support.gates import PATIENCE, Gate
from tests.support.scripted import SCENARIOS, Call, ScriptedChatModel, Step, chunks, gated_text
from tests.support.serve import serving
from tests.support.socket import opened

HI: Any = {"model": "talker", "input": "Hi"}


def said(model: ScriptedChatModel) -> list[str]:
    """What the model was asked last, one line a message."""
    return [str(message.content) for message in model.calls[-1].messages]


class Talker:
    """A server whose agent `talker` answers each question with its number."""

    def __init__(self) -> None:
        self.model = ScriptedChatModel(turns=[self._answer])
        self.agents = {"talker": create_agent(self.model, tools=[]), **SCENARIOS}
        self.url = ""

    def _answer(self, _: Call) -> list[Step]:
        return [*chunks.text(f"Answer {len(self.model.calls)}"), *chunks.finish()]


@pytest.fixture
def talker() -> Iterator[Talker]:
    served = Talker()
    with serving(served.agents) as served.url:
        yield served


@pytest.fixture(scope="module")
def lasting() -> Iterator[Talker]:
    """One for all tests that do not mind what others said."""
    served = Talker()
    with serving(served.agents, Settings(allowed_origins=("https://app.example",))) as served.url:
        yield served


async def test_the_events_are_those_of_the_stream(lasting: Talker) -> None:
    async with opened(lasting.url) as socket:
        await socket.send(model="text_tool_text", input="Hi")
        events = await socket.until("response.completed")
    kept = events[-1]["response"]["id"]
    stream = httpx.get(f"{lasting.url}/v1/responses/{kept}", params={"stream": "true"}).text
    assert "".join(f"{event['type']}\n" for event in events) == "".join(
        f"{line.removeprefix('event: ')}\n" for line in stream.splitlines() if line.startswith("event: ")
    )
    assert [event["sequence_number"] for event in events] == list(range(len(events)))
    assert httpx.get(f"{lasting.url}/v1/responses/{kept}").json() == events[-1]["response"]


async def test_every_event_names_its_lane_and_those_of_no_lane_name_none(lasting: Talker) -> None:
    async with opened(lasting.url) as socket:
        for stream_id in ("a", "Z_9.-" * 51 + "z"):
            await socket.send(**HI, stream_id=stream_id)
            assert {event.get("stream_id") for event in await socket.until("response.completed")} == {stream_id}
        await socket.send(**HI)
        assert not any("stream_id" in event for event in await socket.until("response.completed"))


async def test_a_lane_answers_in_order_and_lanes_do_not_wait_for_each_other() -> None:
    gate = Gate()
    agents = {"slow": gated_text(["Slow"], gate, [" done"]), **SCENARIOS}
    with serving(agents) as url:
        async with opened(url) as socket:
            await socket.send(model="slow", input="Hi", stream_id="a")
            await socket.send(model="plain_text", input="Hi", stream_id="a", metadata={"n": "2"})
            await socket.send(model="plain_text", input="Hi", stream_id="b")
            seen = await socket.until("response.completed")
            assert seen[-1]["stream_id"] == "b"
            gate.open()
            order = [(await socket.until("response.completed"))[-1] for _ in range(2)]
            assert [event["stream_id"] for event in order] == ["a", "a"]
            assert [event["response"]["metadata"] for event in order] == [{}, {"n": "2"}]


async def test_sixteen_responses_are_in_progress_at_once_and_the_others_wait() -> None:
    gate = Gate()
    with serving({"slow": gated_text([], gate, ["Done"])}) as url:
        async with opened(url) as socket:
            for number in range(18):
                await socket.send(model="slow", input="Hi", stream_id=f"lane-{number}")
            events = [await socket.event() for _ in range(32)]
            gate.open()
            while sum(event["type"] == "response.completed" for event in events) < 18:
                events.append(await socket.event())
    changes = {"response.created": 1, "response.completed": -1}
    in_progress = list(accumulate(changes.get(event["type"], 0) for event in events))
    assert max(in_progress) == 16


async def test_more_requests_than_may_wait_are_refused() -> None:
    gate = Gate()
    with serving({"slow": gated_text([], gate, ["Done"])}) as url:
        async with opened(url) as socket:
            await socket.send(model="slow", input="Hi")
            await socket.until("response.in_progress")
            for _ in range(65):
                await socket.send(model="slow", input="Hi")
            refused = await socket.event()
            assert (refused["status"], refused["error"]["code"]) == (429, "rate_limit_exceeded")
            gate.open()


@pytest.mark.parametrize("stream_id", ["", "a b", "ü", "a" * 257, 7, ["a"]])
async def test_the_name_of_a_lane_is_checked(lasting: Talker, stream_id: Any) -> None:
    async with opened(lasting.url) as socket:
        error = await socket.ask(**HI, stream_id=stream_id)
        assert error["error"]["code"] == "invalid_stream_id"
        assert (error["error"]["param"], error["status"], "stream_id" in error) == ("stream_id", 400, False)
        await socket.response(**HI)


async def test_a_connection_has_thirty_two_lanes_with_a_name(lasting: Talker) -> None:
    async with opened(lasting.url) as socket:
        for number in range(32):
            await socket.response(**HI, stream_id=str(number))
        refused = await socket.ask(**HI, stream_id="32")
        assert refused["error"]["code"] == "websocket_stream_limit_reached"
        await socket.response(**HI, stream_id="31")
        await socket.response(**HI)


# -- what is gone on from ------------------------------------------------------------------------------------


async def test_what_is_not_stored_is_gone_on_from_on_its_own_connection_alone(talker: Talker) -> None:
    async with opened(talker.url) as socket, opened(talker.url) as other:
        first = await socket.response(**HI, store=False)
        assert httpx.get(f"{talker.url}/v1/responses/{first['id']}").status_code == 404
        second = await socket.response(model="talker", input="And?", previous_response_id=first["id"], store=False)
        assert said(talker.model) == ["Hi", "Answer 1", "And?"]
        await socket.response(model="talker", input="So?", previous_response_id=second["id"], store=False)
        assert said(talker.model) == ["Hi", "Answer 1", "And?", "Answer 2", "So?"]
        lost = await other.ask(**HI, previous_response_id=first["id"])
        assert (lost["status"], lost["error"]["code"]) == (400, "previous_response_not_found")
        assert lost["error"]["param"] == "previous_response_id"
        await other.response(**HI)


async def test_two_that_go_on_from_the_same_never_see_each_other(talker: Talker) -> None:
    async with opened(talker.url) as socket:
        first = await socket.response(**HI, store=False)
        for question in ("Left?", "Right?"):
            await socket.response(model="talker", input=question, previous_response_id=first["id"], store=False)
            assert said(talker.model) == ["Hi", "Answer 1", question]


@pytest.mark.parametrize(("before", "after"), [(True, False), (False, True)])
async def test_stored_and_unstored_go_on_from_each_other(talker: Talker, before: bool, after: bool) -> None:
    async with opened(talker.url) as socket:
        first = await socket.response(**HI, store=before)
        second = await socket.response(model="talker", input="2", previous_response_id=first["id"], store=after)
        assert said(talker.model) == ["Hi", "Answer 1", "2"]
        await socket.response(model="talker", input="3", previous_response_id=second["id"], store=False)
        assert said(talker.model) == ["Hi", "Answer 1", "2", "Answer 2", "3"]
    if after:  # it is there for everybody, with all that came before
        body = {"model": "talker", "input": "4", "previous_response_id": second["id"]}
        httpx.post(f"{talker.url}/v1/responses", json=body).raise_for_status()
        assert said(talker.model) == ["Hi", "Answer 1", "2", "Answer 2", "4"]


async def test_a_lane_that_fails_to_go_on_loses_its_parent_and_a_fork_that_fails_does_not(talker: Talker) -> None:
    wrong = [{"type": "function_call_output", "call_id": "call_unknown", "output": "?"}]
    async with opened(talker.url) as socket:
        first = (await socket.response(**HI, store=False, stream_id="a"))["id"]
        again: Any = {**HI, "store": False, "previous_response_id": first}
        fork = await socket.ask(model="talker", input=wrong, store=False, previous_response_id=first, stream_id="b")
        assert fork["error"]["param"] == "input"
        await socket.response(**again, stream_id="a")
        await socket.ask(model="talker", input=wrong, store=False, previous_response_id=first, stream_id="a")
        assert (await socket.ask(**again, stream_id="a"))["error"]["code"] == "previous_response_not_found"


async def test_an_unstored_question_is_answered_on_its_connection(talker: Talker) -> None:
    async with opened(talker.url) as socket:
        asked = await socket.response(model="approval", input="Write.", store=False)
        questions = [item["id"] for item in asked["output"] if item["type"] == "mcp_approval_request"]
        assert questions
        answers = [{"type": "mcp_approval_response", "approval_request_id": q, "approve": True} for q in questions]
        answered = await socket.response(model="approval", input=answers, previous_response_id=asked["id"], store=False)
        assert "message" in [item["type"] for item in answered["output"]]


@pytest.mark.parametrize("store", [True, False])
async def test_a_warm_up_calls_no_model_and_can_be_gone_on_from(talker: Talker, store: bool) -> None:
    async with opened(talker.url) as socket:
        warm = await socket.response(model="talker", input="Remember: 7.", generate=False, store=store)
        assert (warm["output"], warm["store"], talker.model.calls) == ([], store, [])
        empty = await socket.response(model="talker", generate=False, store=store)
        await socket.response(model="talker", input="What?", previous_response_id=warm["id"], store=store)
        assert said(talker.model) == ["Remember: 7.", "What?"]
        await socket.response(model="talker", input="Alone", previous_response_id=empty["id"], store=store)
        assert said(talker.model) == ["Alone"]


# -- errors --------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("message", "code", "param"),
    [
        ("{", "invalid_json", None),
        ("[]", "invalid_json", None),
        (b"{}", "invalid_json", None),
        ("[" * 5000, "invalid_json", None),
        ('{"a":1,"a":2}', "invalid_json", None),
        ("{}", "missing_required_parameter", "type"),
        ('{"type":"response.unknown"}', "invalid_value", "type"),
        ('{"type":"response.create","input":"x","background":true}', "unsupported_parameter", "background"),
        ('{"type":"response.create","input":"x","generate":"no"}', "invalid_type", "generate"),
        ('{"type":"response.create"}', "missing_required_parameter", "input"),
        ('{"type":"response.create","input":"x","model":"nobody"}', "model_not_found", "model"),
    ],
)
async def test_what_is_wrong_is_told_and_the_connection_stays(
    lasting: Talker, message: str | bytes, code: str, param: str | None
) -> None:
    async with opened(lasting.url) as socket:
        await socket.connection.send(message)
        error = await socket.event()
        assert (error["type"], error["error"]["code"], error["error"]["param"]) == ("error", code, param)
        assert error["status"] in (400, 404)
        assert set(error["error"]) == {"type", "code", "message", "param"}
        await socket.response(**HI)


async def test_a_message_over_a_mebibyte_is_refused(lasting: Talker) -> None:
    async with opened(lasting.url) as socket:
        error = await socket.ask(model="talker", input="x" * 2**20)
        assert (error["status"], error["error"]["code"]) == (413, "request_too_large")
        await socket.response(model="talker", input="x" * (2**20 - 100))


async def test_an_agent_that_fails_ends_its_response_and_nothing_else(lasting: Talker) -> None:
    async with opened(lasting.url) as socket:
        await socket.send(model="model_error_after_first_token", input="Hi", store=False)
        events = await socket.until("response.failed", "error")
        assert events[-1]["type"] == "response.failed"
        assert events[-1]["response"]["error"]["code"] == "server_error"
        await socket.response(**HI)


async def test_a_connection_ends_when_its_time_is_over(talker: Talker, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(websocket, "LIFETIME", 0.3)
    async with opened(talker.url) as socket:
        assert (await socket.event())["error"]["code"] == "websocket_connection_limit_reached"
        with pytest.raises(ConnectionClosed) as closed:
            await socket.event()
        assert closed.value.rcvd is not None
        assert closed.value.rcvd.code == 1001


# -- clients that leave, or take nothing ---------------------------------------------------------------------


async def _status(url: str, response_id: str, *, until: str) -> str:
    async with httpx.AsyncClient() as client, asyncio.timeout(PATIENCE):
        while (status := (await client.get(f"{url}/v1/responses/{response_id}")).json()["status"]) != until:
            await asyncio.sleep(0.01)
    return str(status)


@pytest.mark.parametrize(("policy", "status"), [("cancel", "cancelled"), ("continue", "completed")])
async def test_a_stored_response_whose_client_leaves_follows_the_setting(policy: Any, status: str) -> None:
    gate = Gate()
    with serving({"slow": gated_text(["Slow"], gate, [])}, Settings(on_disconnect=policy)) as url:
        async with opened(url) as socket:
            await socket.send(model="slow", input="Hi")
            response_id = (await socket.until("response.output_text.delta"))[0]["response"]["id"]
        if policy == "continue":
            gate.open()
        assert await _status(url, response_id, until=status) == status


async def test_an_unstored_response_whose_client_leaves_is_cancelled() -> None:
    gate, stopped = Gate(), Gate()

    async def wait(state: dict[str, Any]) -> dict[str, Any]:
        try:
            await gate.passed()
        finally:
            stopped.open()
        return state

    graph = StateGraph(MessagesState)
    graph.add_node("wait", wait)
    graph.add_edge(START, "wait")
    with serving({"slow": graph.compile()}, Settings(on_disconnect="continue")) as url:
        async with opened(url) as socket:
            await socket.send(model="slow", input="Hi", store=False)
            await gate.reached()
        await stopped.passed()


async def test_a_client_that_takes_nothing_is_dropped() -> None:
    stopped = Gate()
    piece = token_hex(2**15)

    async def flood(_: Any) -> AsyncIterator[str]:
        try:
            while True:
                yield piece
                await asyncio.sleep(0)
        finally:
            stopped.open()

    with serving({"flood": RunnableGenerator(flood)}, Settings(send_timeout_seconds=0.5)) as url:
        async with opened(url) as socket:
            await socket.send(model="flood", input="Hi")
            response_id = (await socket.event())["response"]["id"]
            await stopped.passed()
            assert await _status(url, response_id, until="cancelled") == "cancelled"


# -- origins -------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("origin", "welcome"),
    [
        ("http://{host}", True),
        ("https://app.example", True),
        ("https://evil.example", False),
        ("http://evil.example@{host}", True),
        ("http://{host}.evil.example", False),
        ("null", False),
    ],
)
async def test_pages_of_other_origins_are_refused_before_the_connection(
    lasting: Talker, origin: str, welcome: bool
) -> None:
    given = origin.format(host=lasting.url.removeprefix("http://"))
    if welcome:
        async with opened(lasting.url, origin=given) as socket:
            await socket.response(model="plain_text", input="Hi")
        return
    with pytest.raises(InvalidStatus) as refused:
        async with opened(lasting.url, origin=given):
            pass
    assert refused.value.response.status_code == 403
    assert b"origin_not_allowed" in (refused.value.response.body or b"")
