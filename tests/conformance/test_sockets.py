"""`/ws`: subprotocols, frames and their order, cancel, resume, heartbeats, limits and close codes."""

from __future__ import annotations

import json
from collections.abc import Iterator
from typing import Any

import httpx
import pytest
from langchain.agents import create_agent
from langchain_core.callbacks import adispatch_custom_event
from langgraph.graph import START, MessagesState, StateGraph
from websockets.exceptions import InvalidStatus

from agent_server.protocols.websocket import requests
from agent_server.settings import Settings
from tests.conformance.rules import check_stream
from tests.support.gates import Gate
from tests.support.scripted import SCENARIOS, SECRET, ScriptedChatModel, chunks, gated_text
from tests.support.serve import serving
from tests.support.ws import Ws, opened, text_of

HI: dict[str, Any] = {"agent": "plain_text", "message": "Hi"}


@pytest.fixture(scope="module")
def url() -> Iterator[str]:
    with serving(SCENARIOS, Settings(store="memory")) as url:
        yield url


def numbered(messages: list[Any], start: int = 0) -> bool:
    """Whether the messages that have a number are numbered without a gap."""
    numbers = [message["sequence"] for message in messages if "sequence" in message]
    return numbers == list(range(start, start + len(numbers)))


# -- the handshake -------------------------------------------------------------------------------------------


async def test_the_first_known_subprotocol_is_chosen(url: str) -> None:
    from websockets.asyncio.client import connect

    socket_url = url.replace("http", "ws", 1) + "/ws"
    async with connect(socket_url, subprotocols=["other", "responses.v1", "langchain.v2"]) as connection:  # type: ignore[list-item]
        assert connection.subprotocol == "responses.v1"
    for offered in (None, ["other"]):
        with pytest.raises(InvalidStatus) as refused:
            async with connect(socket_url, subprotocols=offered):  # type: ignore[arg-type]
                pass
        assert refused.value.response.status_code == 400
        assert b"langchain.v2" in (refused.value.response.body or b"")


@pytest.mark.parametrize(("origin", "welcome"), [("http://{host}", True), ("https://evil.example", False)])
async def test_pages_of_other_origins_are_refused(url: str, origin: str, welcome: bool) -> None:
    given: Any = origin.format(host=url.removeprefix("http://"))
    if welcome:
        async with opened(url, origin=given) as socket:
            assert (await socket.ask(**HI))[-1]["status"] == "completed"
        return
    with pytest.raises(InvalidStatus) as refused:
        async with opened(url, origin=given):
            pass
    assert refused.value.response.status_code == 403


# -- langchain.v2 --------------------------------------------------------------------------------------------


async def test_a_run_is_told_by_numbered_events_and_one_end(url: str) -> None:
    async with opened(url) as socket:
        messages = await socket.ask(agent="text_tool_text", message="Hi", requestId="mine")
    assert {message["requestId"] for message in messages} == {"mine"}
    assert [message["type"] for message in messages] == ["started", *["event"] * (len(messages) - 2), "end"]
    assert numbered(messages)
    assert messages[-1] == {"type": "end", "requestId": "mine", "sequence": len(messages) - 2, "status": "completed"}
    assert text_of(messages) == "Let me look. It is sunny in Oslo."


async def test_nothing_of_an_event_is_lost_that_matters(url: str) -> None:
    async with opened(url) as socket:
        messages = await socket.ask(agent="two_parallel_tools", message="Hi")
    events = [message["event"] for message in messages[1:-1]]
    found = [event["data"]["chunk"] for event in events if event["event"] == "on_chat_model_stream"]
    pieces = [piece for chunk in found for piece in chunk["tool_call_chunks"]]
    assert {piece["id"] for piece in pieces if piece["id"]} == {"call_oslo", "call_rome"}
    assert {piece["index"] for piece in pieces} == {0, 1}
    whole = {0: "", 1: ""}
    for piece in pieces:
        whole[piece["index"]] += piece["args"] or ""
    assert [json.loads(args) for args in whole.values()] == [{"city": "Oslo"}, {"city": "Rome"}]
    assert [chunk["usage_metadata"]["total_tokens"] for chunk in found if chunk["usage_metadata"]] == [15, 15]
    ends = [event["data"]["output"] for event in events if event["event"] == "on_chat_model_end"]
    assert [end["usage_metadata"]["output_tokens"] for end in ends] == [5, 5]
    (first, second) = [event for event in events if event["event"] == "on_tool_end"]
    assert {first["data"]["output"]["tool_call_id"], second["data"]["output"]["tool_call_id"]} == {
        "call_oslo",
        "call_rome",
    }
    assert all({"event", "data", "name", "run_id", "tags", "metadata", "parent_ids"} <= set(event) for event in events)


async def test_only_the_kinds_that_are_asked_for_and_allowed_are_told(url: str) -> None:
    async with opened(url) as socket:
        messages = await socket.ask(agent="text_tool_text", message="Hi", events=["on_tool_start", "on_tool_end"])
        kinds = [message["event"]["event"] for message in messages if message["type"] == "event"]
        assert kinds == ["on_tool_start", "on_tool_end"]
        assert numbered(messages)
        for wrong in ("on_chat_model_start", "on_chain_stream", "nonsense"):
            (refused,) = await socket.ask(agent="text_tool_text", message="Hi", events=[wrong])
            assert (refused["type"], refused["status"], refused["param"]) == ("error", 400, "events")
    with serving(SCENARIOS, Settings(socket_events=("on_chain_start", "on_chain_end"))) as other:
        async with opened(other) as socket:
            messages = await socket.ask(**HI)
    kinds = [message["event"]["event"] for message in messages if message["type"] == "event"]
    assert set(kinds) == {"on_chain_start", "on_chain_end"}


async def test_events_of_the_agents_own_are_told() -> None:
    async def report(state: Any) -> Any:
        await adispatch_custom_event("progress", {"percent": 50, "of": {1, 2}})
        return {}

    graph = StateGraph(MessagesState)
    graph.add_node("report", report)
    graph.add_edge(START, "report")
    with serving({"reporter": graph.compile()}) as url:
        async with opened(url) as socket:
            messages = await socket.ask(message="Hi")
    (event,) = [message["event"] for message in messages if message["type"] == "event"]
    assert (event["event"], event["name"], event["data"]) == (
        "on_custom_event",
        "progress",
        {"percent": 50, "of": [1, 2]},
    )


async def test_a_thread_remembers_and_takes_a_graphs_own_input(url: str) -> None:
    model = ScriptedChatModel(turns=[[*chunks.text("Yes."), *chunks.finish()]])
    with serving({"talker": create_agent(model, tools=[])}) as url:
        async with opened(url) as socket:
            (started, *_) = await socket.ask(message="One", threadId="c1")
            assert started["threadId"] == "c1"
            human = {"messages": [{"role": "user", "content": "Two"}]}
            assert (await socket.ask(input=human, threadId="c1"))[-1]["status"] == "completed"
    assert [str(message.content) for message in model.calls[-1].messages] == ["One", "Yes.", "Two"]


async def test_a_question_ends_the_request_and_is_answered_by_another(url: str) -> None:
    async with opened(url) as socket:
        asked = (await socket.ask(agent="approval", message="Hi", threadId="t-approval"))[-1]
        assert (asked["type"], asked["status"]) == ("end", "interrupted")
        (question,) = asked["interrupts"]
        assert (question["kind"], question["callIds"]) == ("approval", ["call_oslo"])
        answers = {question["id"]: {"decisions": [{"type": "approve"}]}}
        answered = await socket.ask(agent="approval", resume=answers, threadId="t-approval")
        assert answered[-1]["status"] == "completed"
        assert text_of(answered) == "All sent."
        (refused,) = await socket.ask(agent="approval", resume=answers, threadId="t-approval")
        assert (refused["type"], refused["status"]) == ("error", 409)


@pytest.mark.parametrize(
    ("body", "status", "param"),
    [
        ({}, 400, "message"),
        ({"message": "a", "input": {}}, 400, "message"),
        ({"message": ""}, 400, "message"),
        ({"message": 7}, 400, "message"),
        ({"message": "a", "agent": "nobody"}, 404, "agent"),
        ({"message": "a", "threadId": ""}, 400, "threadId"),
        ({"message": "a", "threadId": "a\0"}, None, None),
        ({"message": "a", "events": "all"}, 400, "events"),
    ],
)
async def test_a_run_that_cannot_be_is_refused_and_the_connection_stays(
    url: str, body: Any, status: int | None, param: str | None
) -> None:
    async with opened(url) as socket:
        if status is None:  # no JSON of this server holds a NUL
            await socket.send("run", **body)
            assert await socket.closed() == 1008
            return
        (refused,) = await socket.ask(**body, requestId="x")
        assert (refused["type"], refused["requestId"]) == ("error", "x")
        assert (refused["status"], refused["param"]) == (status, param)
        assert (await socket.ask(**HI))[-1]["status"] == "completed"


async def test_a_failure_is_one_error_and_says_nothing_of_its_cause(url: str) -> None:
    async with opened(url) as socket:
        messages = await socket.ask(agent="model_error_after_first_token", message="Hi")
        assert [message["type"] for message in messages[-1:]] == ["error"]
        assert (messages[-1]["code"], messages[-1]["status"]) == ("server_error", 500)
        assert messages[-1]["errorId"].startswith("err_")
        assert SECRET not in json.dumps(messages)
        assert (await socket.ask(**HI))[-1]["status"] == "completed"


# -- responses.v1 --------------------------------------------------------------------------------------------


async def test_a_response_is_told_by_its_own_events(url: str) -> None:
    async with opened(url, "responses.v1") as socket:
        messages = await socket.ask(model="text_tool_text", input="Hi")
        assert numbered(messages)
        assert {message["requestId"] for message in messages} == {"r1"}
        plain = [{k: v for k, v in m.items() if k not in ("requestId", "sequence")} for m in messages]
        check_stream(plain)
        kept = messages[-1]["response"]["id"]
        assert httpx.get(f"{url}/v1/responses/{kept}").json() == messages[-1]["response"]
        again = await socket.ask("resume", runId=kept, lastSequence=4)
        assert [m["type"] for m in again] == [m["type"] for m in messages[5:]]
        (last,) = await socket.ask("resume", runId=kept, lastSequence=len(messages) - 1)
        assert last["type"] == "response.completed"
        for wrong, status in (({"runId": "resp_0"}, 404), ({}, 400)):
            (refused,) = await socket.ask("resume", **wrong)
            assert (refused["type"], refused["status"]) == ("error", status)
        (refused,) = await socket.ask(model="nobody", input="Hi")
        assert (refused["type"], refused["status"], refused["error"]["code"]) == ("error", 404, "model_not_found")
        failed = await socket.ask(model="tool_error_fatal", input="Hi")
        assert [m["type"] for m in failed if m["type"] in ("error", "response.failed")] == ["response.failed"]
        assert numbered(failed)


@pytest.mark.parametrize("store", [True, False])
async def test_a_response_is_cancelled_whether_it_is_stored_or_not(store: bool) -> None:
    gate = Gate()
    with serving({"slow": gated_text(["Slow"], gate, [" done"])}) as url:
        async with opened(url, "responses.v1") as socket:
            request = await socket.send("run", input="Hi", store=store)
            await socket.until("response.output_text.delta")
            await socket.send("cancel", requestId=request)
            end = (await socket.until("response.incomplete"))[-1]
            assert end["response"]["status"] == "cancelled"
        gate.open()


# -- requests ------------------------------------------------------------------------------------------------


async def test_requests_do_not_wait_for_each_other() -> None:
    gate = Gate()
    with serving({"slow": gated_text(["Slow"], gate, [" done"]), **SCENARIOS}) as url:
        async with opened(url) as socket:
            await socket.send("run", agent="slow", message="Hi", requestId="slow")
            await socket.until("event")
            await socket.send("run", **HI, requestId="fast")
            fast = await socket.until("end")
            assert {message["requestId"] for message in fast} <= {"fast", "slow"}
            assert fast[-1]["requestId"] == "fast"
            gate.open()
            assert (await socket.until("end"))[-1]["requestId"] == "slow"


async def test_a_run_is_cancelled_in_the_middle() -> None:
    gate = Gate()
    with serving({"slow": gated_text(["Slow"], gate, [" done"])}) as url:
        async with opened(url) as socket:
            request = await socket.send("run", message="Hi", threadId="c1")
            await socket.until("event")
            (refused,) = await socket.ask(message="Else", threadId="c1")
            assert (refused["status"], refused["type"]) == (409, "error")
            await socket.send("cancel", requestId=request)
            end = (await socket.until("end"))[-1]
            assert (end["requestId"], end["status"], end["reason"]) == (request, "cancelled", "cancelled")
            await socket.send("cancel", requestId=request)  # too late, and no harm
            gate.open()
            assert (await socket.ask(message="Again", threadId="c1"))[-1]["status"] == "completed"


async def test_a_run_that_is_cancelled_before_it_has_begun_ends_as_cancelled() -> None:
    gate = Gate()
    with serving({"slow": gated_text([], gate, ["Done"])}) as url:
        async with opened(url) as socket:
            request = await socket.send("run", message="Hi")
            await socket.send("cancel", requestId=request)
            assert (await socket.until("end"))[-1]["status"] == "cancelled"


async def test_more_requests_than_a_connection_may_have_are_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(requests, "MAX_REQUESTS", 2)
    gate = Gate()
    with serving({"slow": gated_text([], gate, ["Done"])}) as url:
        async with opened(url) as socket:
            for _ in range(2):
                await socket.send("run", message="Hi")
                await socket.until("started")
            third = await socket.send("run", message="Hi")
            refused = (await socket.until("error"))[-1]
            assert (refused["requestId"], refused["status"], refused["code"]) == (third, 503, "overloaded")
            gate.open()
            for _ in range(2):
                await socket.until("end")


async def test_a_run_outlives_its_connection_and_is_gone_on_with() -> None:
    gate = Gate()
    with serving({"slow": gated_text(["One ", "two "], gate, ["three"])}) as url:
        async with opened(url) as socket:
            await socket.send("run", message="Hi", threadId="c1")
            seen = await socket.until("started")
            seen += [await socket.message() for _ in range(2)]
        gate.open()
        async with opened(url) as socket:
            rest = await socket.ask("resume", runId=seen[0]["runId"], lastSequence=seen[-1]["sequence"])
            by_thread = await socket.ask("resume", threadId="c1")
        assert numbered(rest, seen[-1]["sequence"] + 1)
        assert text_of([*seen, *rest]) == text_of(by_thread) == "One two three"
        assert rest[-1]["status"] == "completed"


async def test_a_resume_from_any_place_tells_the_rest(url: str) -> None:
    async with opened(url) as socket:
        whole = await socket.ask(agent="text_tool_text", message="Hi")
        for place in range(-1, len(whole) - 1):
            rest = await socket.ask("resume", runId=whole[0]["runId"], lastSequence=place)
            assert [m.get("event") for m in rest[1:-1]] == [m.get("event") for m in whole[place + 2 : -1]]
            assert (rest[0]["type"], rest[-1]["type"], rest[-1]["status"]) == ("started", "end", "completed")
        for wrong, status in (({"runId": "0" * 32}, 404), ({}, 400), ({"threadId": "nobody"}, 404)):
            (refused,) = await socket.ask("resume", **wrong)
            assert (refused["type"], refused["status"]) == ("error", status)


async def test_a_run_of_another_protocol_is_seen_to_its_end(url: str) -> None:
    kept = httpx.post(f"{url}/v1/responses", json={"model": "plain_text", "input": "Hi"}).json()["id"]
    async with opened(url) as socket:
        messages = await socket.ask("resume", runId=kept.removeprefix("resp_"))
        assert [message["type"] for message in messages] == ["started", "end"]
    async with opened(url) as socket:
        run = (await socket.ask(**HI))[0]["runId"]
    async with opened(url, "responses.v1") as socket:
        assert (await socket.ask("resume", runId=f"resp_{run}"))[-1]["type"] == "response.completed"


@pytest.mark.parametrize("given", [{}, {"timeout": 0.05}])
async def test_a_run_that_tells_nothing_is_stopped_with_an_error(given: Any) -> None:
    gate = Gate()
    settings = Settings(socket_timeout_seconds=60 if given else 0.05)
    with serving({"slow": gated_text([], gate, ["Done"])}, settings) as url:
        async with opened(url) as socket:
            messages = await socket.ask(message="Hi", threadId="c1", **given)
            assert (messages[-1]["type"], messages[-1]["code"], messages[-1]["status"]) == ("error", "timeout", 504)
            assert sum(message["type"] in ("end", "error") for message in messages) == 1
            gate.open()
            assert (await socket.ask(message="Again", threadId="c1", timeout=30))[-1]["status"] == "completed"


async def test_silence_is_broken_and_a_ping_is_answered() -> None:
    with serving(SCENARIOS, Settings(heartbeat_seconds=0.05)) as url:
        async with opened(url) as socket:
            assert json.loads(await socket.connection.recv()) == {"type": "heartbeat"}
    with serving(SCENARIOS) as url:
        async with opened(url) as socket:
            await socket.connection.send('{"type":"ping"}')
            assert json.loads(await socket.connection.recv()) == {"type": "heartbeat"}


# -- what ends a connection ----------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("frame", "code"),
    [
        ("nonsense", 1008),
        ("[]", 1008),
        (b"{}", 1008),
        ("[" * 5000, 1008),
        ("{}", 1008),
        ('{"type":"unknown","requestId":"x"}', 1008),
        ('{"type":"run"}', 1008),
        ('{"type":"run","requestId":7}', 1008),
        ('{"type":"run","requestId":""}', 1008),
        ('{"type":"resume","requestId":"x","lastSequence":"7"}', 1008),
        ('{"type":"run","requestId":"x","timeout":0}', 1008),
        ('{"type":"run","requestId":"x","message":"' + "a" * 2**20 + '"}', 1009),
    ],
)
@pytest.mark.parametrize("protocol", ["langchain.v2", "responses.v1"])
async def test_what_is_out_of_protocol_closes_the_connection(url: str, protocol: str, frame: Any, code: int) -> None:
    async with opened(url, protocol) as socket:
        await socket.connection.send(frame)
        assert await socket.closed() == code


async def test_an_id_that_is_in_use_closes_the_connection_and_ends_no_run() -> None:
    gate = Gate()
    with serving({"slow": gated_text(["Slow"], gate, [" done"])}) as url:
        async with opened(url) as socket:
            await socket.send("run", message="Hi", requestId="x", threadId="c1")
            await socket.until("event")
            await socket.send("run", message="Hi", requestId="x")
            assert await socket.closed() == 1008
        gate.open()
        async with opened(url) as socket:
            assert text_of(await socket.ask("resume", threadId="c1")) == "Slow done"


async def test_a_server_that_goes_down_says_so(url: str) -> None:
    socket: Ws
    with serving(SCENARIOS) as going:
        connection = opened(going)
        socket = await connection.__aenter__()
        assert (await socket.ask(**HI))[-1]["status"] == "completed"
    assert await socket.closed() == 1012
    await connection.__aexit__(None, None, None)
