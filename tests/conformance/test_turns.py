"""Session turns over HTTP: sessions and tokens, waiting and deferring, joining, questions, streams and their ends."""

from __future__ import annotations

import asyncio
from typing import Any

import pytest
from langchain.agents import create_agent

from agent_server.http.identity import TENANT
from tests.support.exchange import Exchange, ask, opened
from tests.support.gates import Gate
from tests.support.scripted import SCENARIOS, SECRET, Call, ScriptedChatModel, Step, chunks, gated_text
from tests.support.turns import Talk, body_of, code_of, read_ndjson, read_sse

KINDS = ["trace", "command_output", "error"]


# -- sessions ------------------------------------------------------------------------------------------------


async def test_a_session_is_opened_once_and_again_with_its_token() -> None:
    async with opened(SCENARIOS) as app:
        first = await ask(app, "POST", "/initialize", {"session_id": "s1", "user_id": "ann", "agent": "plain_text"})
        assert first.status == 201
        body = body_of(first)
        assert (body["session_id"], body["user_id"], body["agent"]) == ("s1", "ann", "plain_text")
        assert (body["token"], body["token_type"]) == (body["access_token"], "bearer")
        assert body["expires_in"] == 7 * 86_400
        again = await Talk(app, body).request("POST", "/initialize", {"session_id": "s1"})
        assert (again.status, body_of(again)["agent"], body_of(again)["user_id"]) == (200, "plain_text", "ann")
        for headers in ({}, {"authorization": "Bearer nonsense"}):
            refused = await ask(app, "POST", "/initialize", {"session_id": "s1"}, headers)
            assert code_of(refused) == (401, "invalid_token")
        other = await Talk.open(app)
        assert code_of(await other.request("POST", "/initialize", {"session_id": "s1"})) == (401, "invalid_token")


async def test_a_session_without_a_name_is_a_new_one_each_time() -> None:
    async with opened(SCENARIOS) as app:
        assert (await Talk.open(app, user_id="ann")).id != (await Talk.open(app, user_id="ann")).id


async def test_an_unknown_agent_is_refused() -> None:
    async with opened(SCENARIOS) as app:
        refused = await ask(app, "POST", "/initialize", {"agent": "nobody"})
        assert code_of(refused) == (404, "agent_not_found")


@pytest.mark.parametrize("route", ["/invoke_agent", "/invoke_agent_stream"])
async def test_a_turn_needs_a_session_that_is_there_and_its_token(route: str) -> None:
    async with opened(SCENARIOS) as app:
        talk = await Talk.open(app, user_id="ann")
        hi = {"user_query": "Hi"}
        assert code_of(await ask(app, "POST", route, hi)) == (401, "invalid_token")
        assert code_of(await ask(app, "POST", route, {**hi, "session_id": "nobody"})) == (404, "session_not_found")
        assert code_of(await ask(app, "POST", route, {**hi, "session_id": talk.id})) == (401, "invalid_token")
        bad = {"authorization": "Bearer a.b"}
        assert code_of(await ask(app, "POST", route, hi, bad)) == (401, "invalid_token")
        for named in ({"session_id": "other"}, {"channel_id": "other"}, {"user_id": "bob"}):
            assert code_of(await talk.request("POST", route, {**hi, **named})) == (404, "session_not_found")
        await ask(app, "DELETE", f"/v1/conversations/{talk.id}")
        assert code_of(await talk.request("POST", route, hi)) == (404, "session_not_found")


async def test_a_turn_belongs_to_its_session() -> None:
    async with opened(SCENARIOS) as app:
        ann, bob = await Talk.open(app), await Talk.open(app)
        turn = body_of(await ann.say())["turn_id"]
        for target in (f"/turns/{turn}", f"/turns/{turn}/events"):
            assert (await ann.request("GET", target)).status == 200
            assert code_of(await bob.request("GET", target)) == (404, "turn_not_found")
            assert code_of(await ask(app, "GET", target)) == (401, "invalid_token")
        for nothing in ("turn_0", "x", f"turn_{'0' * 32}"):
            assert code_of(await ann.request("GET", f"/turns/{nothing}")) == (404, "turn_not_found")


async def test_a_session_remembers_and_is_a_conversation_of_every_other_protocol() -> None:
    model = ScriptedChatModel(turns=[_numbered])
    async with opened({"talker": create_agent(model, tools=[])}) as app:
        talk = await Talk.open(app, session_id="c1")
        await talk.say("One")
        through = {"input": "Two", "conversation": "c1"}
        assert (await ask(app, "POST", "/v1/responses", through)).status == 200
        await talk.say("Three")
        said = [str(message.content) for message in model.calls[-1].messages]
        assert said == ["One", "Answer 1", "Two", "Answer 2", "Three"]
        _, row, _ = await app.state.engine.keeper.store.runs(TENANT, "c1")
        seen = body_of(await talk.request("GET", f"/turns/turn_{row.id}"))
        assert (seen["answer"], seen["traces"][0]["raw_command"]) == ("Answer 2", "Two")


def _numbered(call: Call) -> list[Step]:
    return [*chunks.text(f"Answer {sum(message.type == 'human' for message in call.messages)}"), *chunks.finish()]


async def test_a_startup_command_is_the_first_turn() -> None:
    gate = Gate()
    async with opened({"slow": gated_text([], gate, ["Done"]), **SCENARIOS}) as app:
        first = await ask(app, "POST", "/initialize", {"agent": "plain_text", "startup_command": "Hi"})
        body = body_of(first)
        assert (first.status, body["startup_exec_state"]) == (201, "completed")
        assert body["startup_output"]["answer"] == "Hello, world!"
        late = await ask(app, "POST", "/initialize", {"startup_command": "Hi", "timeout_seconds": 0})
        assert (late.status, body_of(late)["startup_exec_state"]) == (202, "running")
        assert "startup_output" not in body_of(late)
        gate.open()


# -- waiting and deferring -----------------------------------------------------------------------------------


async def test_a_turn_that_takes_longer_is_deferred_and_found_later() -> None:
    gate = Gate()
    async with opened({"slow": gated_text(["Slow"], gate, [" done"])}) as app:
        talk = await Talk.open(app)
        deferred = await talk.say(timeout_seconds=0)
        body = body_of(deferred)
        assert (deferred.status, body["exec_state"], body["success"]) == (202, "running", None)
        assert deferred.headers["location"] == f"/turns/{body['turn_id']}"
        assert body_of(await talk.request("GET", deferred.headers["location"]))["exec_state"] == "running"
        async with talk.exchange("GET", f"{deferred.headers['location']}?wait=30") as waiting:
            gate.open()
            assert (await waiting.json())["answer"] == "Slow done"


async def test_a_wait_that_cannot_be_deferred_is_a_504_and_the_turn_goes_on() -> None:
    gate = Gate()
    async with opened({"slow": gated_text([], gate, ["Done"])}) as app:
        talk = await Talk.open(app)
        late = await talk.say(timeout_seconds=0.05, defer=False)
        assert code_of(late) == (504, "timeout")
        assert code_of(await talk.say("Another")) == (409, "session_busy")
        gate.open()
        assert body_of(await talk.say("Hi"))["answer"] == "Done"


async def test_a_stream_that_shows_nothing_in_time_is_a_504_before_the_first_byte() -> None:
    gate = Gate()
    async with opened({"slow": gated_text([], gate, ["Done"])}) as app:
        talk = await Talk.open(app)
        async with talk.stream(timeout_seconds=0.05, show_agent_traces=False) as late:
            await late.whole()
            assert code_of(late) == (504, "timeout")
        async with talk.stream(timeout_seconds=0.05) as late:
            kinds = read_sse(await late.whole())
        assert late.status == 200
        assert [kind for kind, _ in kinds] == ["trace", "error"]
        assert (kinds[-1][1]["code"], kinds[-1][1]["exec_state"]) == ("timeout", "running")
        gate.open()
        seen = await talk.request("GET", f"/turns/{kinds[-1][1]['turn_id']}/events?after=0")
        assert [kind for kind, _ in read_sse(seen.received)] == ["command_output"]


async def test_a_client_that_leaves_ends_no_turn() -> None:
    gate = Gate()
    async with opened({"slow": gated_text(["Slow"], gate, [" done"])}) as app:
        talk = await Talk.open(app)
        async with talk.stream() as left:
            await left.until(b"event: trace")
            turn = left.headers["x-turn-id"]
        gate.open()
        assert body_of(await talk.request("GET", f"/turns/{turn}?wait=30"))["answer"] == "Slow done"


async def test_a_turn_is_cancelled() -> None:
    gate = Gate()
    async with opened({"slow": gated_text(["Slow"], gate, [" done"])}) as app:
        talk = await Talk.open(app)
        async with talk.stream() as stream:
            await stream.until(b"event: trace")
            turn = stream.headers["x-turn-id"]
            cancelled = body_of(await talk.request("POST", f"/turns/{turn}/cancel"))
            frames = read_sse(await stream.whole())
        assert (cancelled["exec_state"], cancelled["error"]["code"]) == ("cancelled", "cancelled")
        assert frames[-1][0] == "error"
        assert frames[-1][1]["exec_state"] == "cancelled"
        assert body_of(await talk.request("POST", f"/turns/{turn}/cancel"))["exec_state"] == "cancelled"


# -- one at a time -------------------------------------------------------------------------------------------


async def test_another_turn_is_refused_while_one_runs_and_an_equal_one_joins_it() -> None:
    gate = Gate()
    model = ScriptedChatModel(turns=[[gate, *chunks.text("Done"), *chunks.finish()]])
    async with opened({"slow": create_agent(model, tools=[])}) as app:
        talk, other = await Talk.open(app), await Talk.open(app)
        async with talk.stream("Hi") as first:
            await first.until(b"event: trace")
            for route in ("/invoke_agent", "/invoke_agent_stream"):
                refused = await talk.request("POST", route, {"user_query": "Else"})
                assert code_of(refused) == (409, "session_busy")
            async with talk.stream("Hi") as joined, other.stream("Else") as independent:
                await joined.until(b"event: trace")
                await independent.until(b"event: trace")
                assert joined.headers["x-turn-id"] == first.headers["x-turn-id"]
                gate.open()
                assert await joined.whole() == await first.whole()
                await independent.whole()
        assert len(model.calls) == 2
        assert body_of(await talk.say("Hi"))["turn_id"] != first.headers["x-turn-id"]


async def test_of_many_equal_requests_at_once_one_runs() -> None:
    gate = Gate()
    model = ScriptedChatModel(turns=[[gate, *chunks.text("Done"), *chunks.finish()]])
    async with opened({"slow": create_agent(model, tools=[])}) as app:
        talk = await Talk.open(app)
        gate.open()
        answers = await asyncio.gather(*(talk.say("Hi") for _ in range(8)))
        assert {answer.status for answer in answers} == {200}
        assert len(model.calls) == len({body_of(answer)["turn_id"] for answer in answers})


async def test_a_key_names_one_turn_also_when_it_is_over() -> None:
    async with opened(SCENARIOS) as app:
        talk = await Talk.open(app, agent="plain_text")
        said = {"user_query": "Hi"}
        first = await talk.request("POST", "/invoke_agent", said, idempotency_key="k1")
        again = await talk.request("POST", "/invoke_agent", said, idempotency_key="k1")
        assert body_of(first) == body_of(again)
        other = await talk.request("POST", "/invoke_agent", {"user_query": "Else"}, idempotency_key="k1")
        assert code_of(other) == (422, "idempotency_key_reused")
        elsewhere = await (await Talk.open(app)).request("POST", "/invoke_agent", said, idempotency_key="k1")
        assert body_of(elsewhere)["turn_id"] != body_of(first)["turn_id"]


async def test_a_refused_turn_gives_its_key_back() -> None:
    async with opened(SCENARIOS) as app:
        talk = await Talk.open(app, agent="approval")
        decided = {"decision": "approve"}
        refused = await talk.request("POST", "/invoke_agent", decided, idempotency_key="k1")
        assert code_of(refused) == (409, "nothing_to_decide")
        await talk.say()
        assert (await talk.request("POST", "/invoke_agent", decided, idempotency_key="k1")).status == 200


async def test_a_key_that_joined_a_turn_can_be_used_again() -> None:
    gate = Gate()
    async with opened({"slow": gated_text([], gate, ["Done"])}) as app:
        talk = await Talk.open(app)
        said = {"user_query": "Hi"}
        async with talk.stream("Hi") as first:
            await first.until(b"event: trace")
            joined = await talk.request("POST", "/invoke_agent", {**said, "timeout_seconds": 0}, idempotency_key="k1")
            assert body_of(joined)["turn_id"] == first.headers["x-turn-id"]
            gate.open()
            await first.whole()
        assert (await talk.request("POST", "/invoke_agent", said, idempotency_key="k1")).status == 200


# -- questions -----------------------------------------------------------------------------------------------


async def test_the_next_query_answers_a_free_question() -> None:
    async with opened(SCENARIOS) as app:
        talk = await Talk.open(app, agent="free_interrupt")
        asked = body_of(await talk.say())
        assert (asked["exec_state"], asked["status"], asked["answer"]) == ("waiting", "awaiting_user", "Which city?")
        assert body_of(await talk.say("Oslo"))["answer"] == "You said Oslo."


@pytest.mark.parametrize(("decision", "sent"), [("approve", True), ({"approve": False, "reason": "No!"}, False)])
async def test_a_decision_answers_an_approval(decision: Any, sent: bool) -> None:
    async with opened(SCENARIOS) as app:
        talk = await Talk.open(app, agent="approval")
        frames = await talk.streamed()
        kind, asked = frames[-1]
        assert (kind, asked["exec_state"], asked["interrupts"][0]["kind"]) == ("command_output", "waiting", "approval")
        assert code_of(await talk.say("yes")) == (409, "awaiting_decision")
        answered = await talk.streamed(None, decision=decision)
        results = [data["response_text"] for _, data in answered if data.get("direction") == "workflow_to_agent"]
        assert results == (["Sent to oslo@b.example."] if sent else [])
        assert answered[-1][1]["exec_state"] == "completed"


async def test_a_question_is_answered_through_another_protocol() -> None:
    async with opened(SCENARIOS) as app:
        talk = await Talk.open(app, agent="approval", session_id="c1")
        await talk.say()
        seen = body_of(await ask(app, "GET", "/v1/conversations/c1/items?order=asc&limit=100"))["data"]
        (request,) = [item for item in seen if item["type"] == "mcp_approval_request"]
        answer = {"type": "mcp_approval_response", "approval_request_id": request["id"], "approve": True}
        body = {"model": "approval", "input": [answer], "conversation": "c1"}
        answered = await ask(app, "POST", "/v1/responses", body)
        assert answered.status == 200, answered.received
        assert code_of(await talk.say(None, decision="approve")) == (409, "nothing_to_decide")


# -- streams -------------------------------------------------------------------------------------------------


async def test_commands_their_results_and_one_output_are_told() -> None:
    async with opened(SCENARIOS) as app:
        talk = await Talk.open(app, agent="two_parallel_tools", user_id="ann")
        frames = await talk.streamed("Weather?")
        told = [(kind, data.get("direction"), data.get("command_name")) for kind, data in frames]
        assert told == [
            ("trace", "user_to_agent", None),
            ("trace", "agent_to_workflow", "get_weather"),
            ("trace", "agent_to_workflow", "get_weather"),
            ("trace", "workflow_to_agent", "get_weather"),
            ("trace", "workflow_to_agent", "get_weather"),
            ("command_output", None, None),
        ]
        assert {data["user_id"] for kind, data in frames if kind == "trace"} == {"ann"}
        (only,) = await talk.streamed("Weather?", show_agent_traces=False)
        assert (only[0], only[1]["answer"]) == ("command_output", "It is sunny.")


@pytest.mark.parametrize(
    ("body", "headers"),
    [({"stream_format": "ndjson"}, {}), ({}, {"accept": "application/x-ndjson"})],
)
async def test_lines_of_json_are_had_for_the_asking(body: Any, headers: dict[str, str]) -> None:
    async with opened(SCENARIOS) as app:
        talk = await Talk.open(app, agent="text_tool_text")
        said = {"user_query": "Hi", **body}
        async with talk.exchange("POST", "/invoke_agent_stream", said, **headers) as stream:
            lines = read_ndjson(await stream.whole())
        assert stream.headers["content-type"] == "application/x-ndjson"
        turn = stream.headers["x-turn-id"]
        again = await talk.request("GET", f"/turns/{turn}/events")
        assert again.headers["content-type"].startswith("text/event-stream")
        assert read_sse(again.received) == lines
        assert again.headers["x-accel-buffering"] == "no"


async def test_a_session_can_ask_for_lines_of_json_once_for_all() -> None:
    async with opened(SCENARIOS) as app:
        talk = await Talk.open(app, agent="plain_text", stream_format="ndjson")
        async with talk.stream() as stream:
            assert [kind for kind, _ in read_ndjson(await stream.whole())] == ["trace", "command_output"]


async def test_a_stream_goes_on_after_every_frame() -> None:
    async with opened(SCENARIOS) as app:
        talk = await Talk.open(app, agent="text_tool_text")
        frames = await talk.streamed()
        turn = frames[0][1]["turn_id"]
        for place in range(len(frames)):
            rest = await talk.request("GET", f"/turns/{turn}/events?after={place}")
            assert (read_sse(rest.received) if rest.received else []) == frames[place + 1 :]
        for wrong in ("x", "-1", "nan"):
            refused = await talk.request("GET", f"/turns/{turn}/events?after={wrong}")
            assert code_of(refused) == (400, "invalid_value")


async def test_silence_is_broken_in_both_framings() -> None:
    gate = Gate()
    async with opened({"slow": gated_text([], gate, ["Done"])}, heartbeat_seconds=0.05) as app:
        for framing, beat in (("sse", b"\n\n: ping\n\n"), ("ndjson", b"}\n\n")):
            talk = await Talk.open(app)
            async with talk.stream(stream_format=framing) as stream:
                await stream.until(beat)
        gate.open()


@pytest.mark.parametrize("scenario", ["model_error_after_first_token", "tool_error_fatal"])
async def test_a_failure_is_one_error_and_says_nothing_of_its_cause(scenario: str) -> None:
    async with opened(SCENARIOS) as app:
        talk = await Talk.open(app, agent=scenario)
        async with talk.stream() as stream:
            whole = await stream.whole()
        frames = read_sse(whole)
        assert [kind for kind, _ in frames if kind != "trace"] == ["error"]
        assert frames[-1][1]["error_id"].startswith("err_")
        assert SECRET.encode() not in whole
        failed = await talk.say("Again")
        assert code_of(failed) == (500, "server_error")
        assert failed.headers["x-should-retry"] == "false"
        kept = body_of(await talk.request("GET", f"/turns/{failed.headers['x-turn-id']}"))
        assert (kept["exec_state"], kept["success"], kept["error"]["code"]) == ("failed", False, "server_error")


@pytest.mark.parametrize(
    ("raw", "status", "param"),
    [
        (b"{", 400, None),
        (b"[]", 400, None),
        (b"{}", 400, "user_query"),
        (b'{"user_query": 7}', 400, "user_query"),
        (b'{"user_query": "x", "timeout_seconds": "soon"}', 400, "timeout_seconds"),
    ],
)
@pytest.mark.parametrize("route", ["/invoke_agent", "/invoke_agent_stream"])
async def test_bad_input_is_refused_before_the_first_byte(route: str, raw: bytes, status: int, param: str) -> None:
    async with opened(SCENARIOS) as app:
        talk = await Talk.open(app)
        refused = await talk.request("POST", route, raw)
        assert (refused.status, body_of(refused)["error"]["param"]) == (status, param)
        async with Exchange(app, "POST", route, raw, {**talk.headers, "content-type": "text/plain"}) as plain:
            await plain.whole()
        assert plain.status == 415
