"""Events -> AG-UI, where the scenarios of the golden files do not come: bad luck, takeovers, other wires' events."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any

import pytest

from agent_server import events as ev
from agent_server.events import Event
from agent_server.protocols.agui.encoder import AguiEncoder
from agent_server.protocols.agui.messages import Seen, content
from tests.support.agui import Client
from tests.support.play import AT, RUN_ID

STARTED = ev.RunStarted(run_id=RUN_ID, agent="agent", at=AT, thread_id="t1")
FINISHED = ev.RunFinished(at=AT)


def told(*events: Event, seen: Seen | None = None, **more: Any) -> list[dict[str, Any]]:
    encoder = AguiEncoder("t1", "r1", seen=seen, **more)
    return [frame.data for event in events for frame in encoder.feed(event)]


def message(key: str, *pieces: str, source: str = "", **more: Any) -> list[Event]:
    text = "".join(pieces)
    return [
        ev.MessageStarted(key, source_id=source or f"id-{key}", **more),
        ev.BlockStarted(key, 0, "text"),
        *(ev.TextDelta(key, 0, piece) for piece in pieces),
        ev.BlockFinished(key, 0, "text", text),
        ev.MessageFinished(key, {"id": source or f"id-{key}"}),
    ]


def call(key: str, call_id: str, name: str = "search", **more: Any) -> list[Event]:
    return [
        ev.MessageStarted(key, source_id=f"id-{key}", **more),
        ev.BlockStarted(key, 0, "tool_call", call_id, name),
        ev.ArgsDelta(key, 0, "{}"),
        ev.BlockFinished(key, 0, "tool_call", "{}", call_id, name),
        ev.MessageFinished(key, {"id": f"id-{key}"}),
    ]


def ran(call_id: str, output: Any = "found", **more: Any) -> list[Event]:
    return [ev.ToolStarted(call_id, "search", **more), ev.ToolFinished(call_id, "search", output)]


def kinds(events: Iterable[dict[str, Any]]) -> list[str]:
    return [event["type"] for event in events]


def test_a_run_without_names_of_the_client_has_its_own() -> None:
    (started, *_) = [frame.data for frame in AguiEncoder().feed(STARTED)]
    assert (started["threadId"], started["runId"]) == ("t1", RUN_ID)


def test_an_id_that_a_provider_uses_again_is_two_messages() -> None:
    events = told(STARTED, *message("m0", "one", source="same"), *message("m1", "two", source="same"), FINISHED)
    client = Client().read(events)
    assert client.text() == ["one", "two"]


def test_an_id_that_the_users_message_has_is_not_taken() -> None:
    client = Client([{"id": "u1", "role": "user", "content": "Hi"}])
    client.read(told(STARTED, *message("m0", "echo", source="u1"), FINISHED, seen=Seen(ids=("u1",))))
    assert [m["content"] for m in client.messages] == ["Hi", "echo"]


def test_a_call_id_that_a_provider_uses_again_is_two_calls() -> None:
    events = told(
        STARTED, *call("m0", "call_0"), *ran("call_0"), *call("m1", "call_0"), *ran("call_0", "again"), FINISHED
    )
    client = Client().read(events)
    assert [(m["toolCallId"], m["content"]) for m in client.messages if m["role"] == "tool"] == [
        ("call_0", "found"),
        ("call_0:2", "again"),
    ]


def test_a_call_id_of_an_earlier_turn_is_another_call() -> None:
    before = {"type": "ai", "id": "a0", "content": "", "tool_calls": [{"id": "call_0", "name": "search", "args": {}}]}
    result = {"type": "tool", "id": "x", "tool_call_id": "call_0", "content": "found"}
    state = ev.StatePart("values", {"messages": [before, result]})
    after = {**before, "id": "id-m0"}
    more = {**result, "content": "again"}
    last = ev.StatePart("values", {"messages": [before, result, after, more]})
    events = told(STARTED, state, *call("m0", "call_0"), *ran("call_0", "again"), last, FINISHED)
    (start,) = [event for event in events if event["type"] == "TOOL_CALL_START"]
    assert start["toolCallId"] == "call_0:2"
    snapshot = events[-2]["messages"]
    assert [m.get("toolCallId") or m["toolCalls"][0]["id"] for m in snapshot] == [
        "call_0",
        "call_0",
        "call_0:2",
        "call_0:2",
    ]


def test_a_call_of_an_earlier_run_is_not_announced_again() -> None:
    seen = Seen(ids=("u1", "a1"), calls={"a1": ("call_0",)})
    assert "TOOL_CALL_START" not in kinds(told(STARTED, *ran("call_0"), FINISHED, seen=seen))


def test_a_tool_that_no_model_asked_for_is_announced_with_its_arguments() -> None:
    events = told(STARTED, *ran("call_x", input={"q": 1}), FINISHED)
    assert kinds(events)[1:5] == ["TOOL_CALL_START", "TOOL_CALL_ARGS", "TOOL_CALL_END", "TOOL_CALL_RESULT"]
    assert events[2]["delta"] == '{"q":1}'


def test_what_a_takeover_leaves_open_is_closed() -> None:
    events = told(
        STARTED,
        ev.StepStarted("model", "t1"),
        ev.StepStarted("inner", "t2", ("model:t1",)),
        ev.MessageStarted("m0", source_id="a"),
        ev.BlockStarted("m0", 0, "text"),
        ev.TextDelta("m0", 0, "half"),
        ev.MessageStarted("m1", source_id="b"),
        ev.BlockStarted("m1", 0, "reasoning"),
        ev.MessageStarted("m2", source_id="c"),
        ev.BlockStarted("m2", 0, "tool_call", "call_0", "search"),
        ev.RunRetried(2, "lease"),
        ev.StepStarted("model", "t1"),
        *message("m0", "whole", source="d"),
        ev.StepFinished("model", "t1"),
        FINISHED,
    )
    assert Client().read(events).text()[-1] == "whole"


def test_snapshots_hold_a_message_that_was_never_streamed_in_its_place() -> None:
    said = [
        {"type": "human", "id": "u1", "content": "Hi"},
        {"type": "ai", "id": "hidden", "content": "by another model"},
        {"type": "ai", "id": "id-m0", "content": "seen"},
    ]
    client = Client([{"id": "u1", "role": "user", "content": "Hi"}])
    state = ev.StatePart("values", {"messages": said})
    events = told(STARTED, *message("m0", "seen"), state, FINISHED, seen=Seen(("u1",)))
    assert [m["id"] for m in client.read(events).messages] == ["u1", "hidden", "id-m0"]


def test_a_subagents_message_of_an_earlier_turn_stays_where_it_was() -> None:
    aside = {"id": "inner", "role": "assistant", "content": "psst", "subagentRunId": "call_0"}
    seen = Seen(ids=("u1", "inner", "a1"), owners={"inner": "call_0"}, asides=(("u1", aside),))
    said = [{"type": "human", "id": "u1", "content": "Hi"}, {"type": "ai", "id": "a1", "content": "Yes"}]
    events = told(STARTED, ev.StatePart("values", {"messages": said}), FINISHED, seen=seen)
    assert [m["id"] for m in events[-2]["messages"]] == ["u1", "inner", "a1"]


def test_a_state_that_only_shrinks_or_is_no_object_is_told() -> None:
    parts = [ev.StatePart("values", data) for data in ({"a": "x" * 50, "b": 1}, {"a": "x" * 50}, [1], [1], None)]
    events = told(STARTED, *parts, FINISHED)
    assert kinds(events)[1:-1] == ["STATE_SNAPSHOT", "STATE_DELTA", "STATE_SNAPSHOT", "STATE_SNAPSHOT"]
    assert Client().read(events).state is None


def test_the_state_of_a_subgraph_and_other_modes_are_not_the_clients() -> None:
    parts = [ev.StatePart("values", {"a": 1}, ("inner:1",)), ev.StatePart("updates", {"a": 1})]
    assert kinds(told(STARTED, *parts, FINISHED)) == ["RUN_STARTED", "RUN_FINISHED"]


def test_raw_events_are_shown_to_those_who_asked() -> None:
    raw = ev.RawEvent({"event": "on_chain_start"})
    assert "RAW" not in kinds(told(STARTED, raw, FINISHED))
    assert told(STARTED, raw, FINISHED, raw=True)[1] == {"type": "RAW", "event": raw.event, "source": "langchain"}


@pytest.mark.parametrize(
    ("end", "outcome"),
    [
        (ev.RunFinished(at=AT, incomplete="recursion_limit"), {"type": "success"}),
        (ev.RunCancelled(at=AT, reason="cancelled"), {"type": "cancelled"}),
    ],
)
def test_a_run_ends_as_it_did(end: Event, outcome: dict[str, Any]) -> None:
    (*_, last) = told(STARTED, end)
    assert last["outcome"] == outcome
    assert last.get("metadata") == ({"incomplete": "recursion_limit"} if isinstance(end, ev.RunFinished) else None)


def test_usage_is_labelled_where_one_model_spent_it() -> None:
    usage = ev.Usage(1, 2, 3, 1, 0, 1)
    one = {"ls_provider": "openai", "ls_model_name": "gpt"}
    (*_, last) = told(STARTED, *message("m0", "a", metadata=one), ev.RunFinished(at=AT, usage=usage))
    assert last["usage"] == [
        {
            "provider": "openai",
            "model": "gpt",
            "inputTokens": 1,
            "outputTokens": 2,
            "totalTokens": 3,
            "reasoningTokens": 1,
            "cachedInputTokens": 1,
        }
    ]
    two = message("m1", "b", metadata={"ls_provider": "anthropic"})
    (*_, last) = told(STARTED, *message("m0", "a", metadata=one), *two, ev.RunFinished(at=AT, usage=usage))
    assert "provider" not in last["usage"][0]


def test_agents_in_parallel_tools_of_one_node_are_told_apart() -> None:
    inner = ("tools:x",)
    events = told(
        STARTED,
        *call("m0", "call_a"),
        *call("m1", "call_b"),
        ev.ToolStarted("call_a", "search", step="tools"),
        ev.ToolStarted("call_b", "search", step="tools"),
        ev.StepStarted("model", "1", inner),
        *message("m2", "from a", parent_call_id="call_a", ns=inner),
        *message("m3", "from b", parent_call_id="call_b", ns=inner),
        ev.StepFinished("model", "1"),
        ev.ToolFinished("call_a", "search", "done"),
        ev.ToolFinished("call_b", "search", "failed", status="error"),
        FINISHED,
    )
    client = Client().read(events)
    assert {m["content"]: m["subagentRunId"] for m in client.messages if "subagentRunId" in m} == {
        "from a": "call_a",
        "from b": "call_b",
    }
    assert "SUBAGENT_ERROR" in kinds(events)


@pytest.mark.parametrize(
    ("output", "told_as"),
    [
        ("text", "text"),
        ([{"type": "text", "text": "a"}, "b"], "ab"),
        (
            [{"type": "text", "text": "a"}, {"type": "image", "base64": "aGk=", "mime_type": "image/png"}],
            [
                {"type": "text", "text": "a"},
                {"type": "image", "source": {"type": "data", "value": "aGk=", "mimeType": "image/png"}},
            ],
        ),
        (
            [{"type": "file", "url": "https://a.example/f"}, {"type": "audio", "file_id": "f1"}],
            [
                {"type": "document", "source": {"type": "url", "value": "https://a.example/f"}},
                {"type": "audio", "source": {"type": "file", "value": "f1"}},
            ],
        ),
        ([{"type": "odd", "n": 1}], '{"type":"odd","n":1}'),
        (None, ""),
    ],
)
def test_content_becomes_text_or_parts(output: Any, told_as: Any) -> None:
    assert content(output) == told_as
