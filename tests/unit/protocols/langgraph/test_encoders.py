"""What both generations of LangGraph's clients are told of events that few runs have."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any

import orjson
import pytest

from agent_server import events as ev
from agent_server.errors import RequestError
from agent_server.events import Event
from agent_server.protocols.langgraph.frames import FRAMING, Frame
from agent_server.protocols.langgraph.subscription import Subscription, read_subscription
from tests.support.langgraph import chunks, played, v1, v2
from tests.support.play import AT, RUN_ID

STARTED = ev.RunStarted(run_id=RUN_ID, thread_id="t1", agent="agent", at=AT)
MESSAGE = ev.MessageStarted("m0", source_id="lc_run--1")


def v1_of(*events: Event, modes: Iterable[str] = ("messages-tuple",)) -> list[tuple[str, Any]]:
    """(name, data) of the frames after the first."""
    return [(frame.event, orjson.loads(frame.data)) for frame in v1([STARTED, *events], list(modes))[1:]]


def v2_of(*events: Event, channels: Iterable[str] = ("messages",)) -> list[dict[str, Any]]:
    """The data of the frames."""
    return [orjson.loads(frame.data)["params"]["data"] for frame in v2([STARTED, *events], channels)]


# The first generation


def test_from_the_first_block_that_is_no_text_on_content_is_a_list_with_indexes() -> None:
    told = v1_of(
        MESSAGE,
        ev.BlockStarted("m0", 0, "reasoning"),
        ev.ReasoningDelta("m0", 0, "Hm"),
        ev.ReasoningDelta("m0", 0, "m."),
        ev.BlockFinished("m0", 0, "reasoning", "Hmm."),
        ev.BlockStarted("m0", 1, "text"),
        ev.TextDelta("m0", 1, "Y"),
        ev.TextDelta("m0", 1, "es."),
        ev.BlockFinished("m0", 1, "text", "Yes."),
        ev.MessageFinished("m0", {"usage_metadata": {"total_tokens": 1}}),
    )
    assert [data[0]["content"] for _, data in told] == [
        [{"type": "reasoning", "reasoning": "Hm", "index": 0}],
        [{"type": "reasoning", "reasoning": "m.", "index": 0}],
        [{"type": "text", "text": "Y", "index": 1}],
        [{"type": "text", "text": "es.", "index": 1}],
        [],
    ]
    assert told[-1][1][0]["chunk_position"] == "last"


async def test_reasoning_adds_up_in_the_client() -> None:
    (message,) = chunks(v1(await played("reasoning_then_text"), ["messages-tuple"])).values()
    kinds = [block["type"] for block in message.content if isinstance(block, dict)]
    assert kinds == ["reasoning", "text"]


def test_a_refusal_is_told_where_langchain_has_it() -> None:
    told = v1_of(MESSAGE, ev.BlockStarted("m0", 0, "refusal"), ev.RefusalDelta("m0", 0, "No."))
    assert told[0][1][0]["additional_kwargs"] == {"refusal": "No."}


def test_a_new_attempt_begins_with_metadata_and_what_was_open_is_gone() -> None:
    told = v1_of(
        MESSAGE,
        ev.TextDelta("m0", 0, "half"),
        ev.RunRetried(2, "taken over"),
        ev.TextDelta("m0", 0, "more"),
        ev.MessageStarted("m1", source_id="lc_run--2"),
        ev.TextDelta("m1", 0, "whole"),
    )
    assert [name for name, _ in told] == ["messages", "metadata", "messages"]
    assert told[1][1]["attempt"] == told[2][1][1]["run_attempt"] == 2


@pytest.mark.parametrize(
    ("end", "told"),
    [
        (ev.RunFinished(AT), [("end", {"status": "success"})]),
        (ev.RunInterrupted(AT, ()), [("end", {"status": "success"})]),
        (ev.RunCancelled(AT, "cancelled"), [("end", {"status": "interrupted"})]),
        (ev.RunCancelled(AT, "timeout"), [("end", {"status": "timeout"})]),
        (
            ev.RunFailed(AT, "server_error", "The agent failed.", "err_1", error="ValueError", detail="boom"),
            [("error", {"error": "ValueError", "message": "boom"}), ("end", {"status": "error"})],
        ),
        (
            ev.RunFailed(AT, "server_error", "The agent failed.", "err_1", error="OSError"),
            [
                ("error", {"error": "OSError", "message": "An internal error occurred", "error_id": "err_1"}),
                ("end", {"status": "error"}),
            ],
        ),
        (
            ev.RunFailed(AT, "store_unavailable", "It is away.", "err_1"),
            [("error", {"error": "store_unavailable", "message": "It is away."}), ("end", {"status": "error"})],
        ),
    ],
)
def test_every_end_has_its_status(end: Event, told: list[Any]) -> None:
    assert v1_of(end) == told


def test_what_is_dispatched_is_no_custom_data() -> None:
    told = v1_of(ev.Custom("custom", 1), ev.Custom("progress", 2), modes=["custom"])
    assert told == [("custom", 1)]


def test_a_tool_that_was_only_called_as_a_function_is_no_message() -> None:
    started = ev.ToolStarted("c", "search", metadata={"langgraph_node": "n"})
    assert v1_of(started, ev.ToolFinished("c", "search", "found")) == []
    assert [name for name, _ in v1_of(started, ev.ToolFinished("c", "search", "found", message_id="i"))] == ["messages"]
    assert v1_of(started, ev.ToolFinished("c", "search", status="pending", message_id="i")) == []


def test_places_of_checkpoints_name_the_thread_and_the_run() -> None:
    place = {"configurable": {"checkpoint_ns": "", "checkpoint_id": "c1"}}
    payload = {"config": place, "parent_config": None, "values": {}}
    ((_, data),) = v1_of(ev.StatePart("checkpoints", payload), modes=["checkpoints"])
    assert data["config"]["configurable"]["thread_id"] == "t1"
    debug = {"type": "checkpoint", "step": 1, "payload": payload}
    ((_, data),) = v1_of(ev.StatePart("debug", debug), modes=["debug"])
    assert data["payload"]["checkpoint"]["checkpoint_id"] == "c1"
    assert data["payload"]["parent_checkpoint"] is None


def test_a_frame_is_lines_that_end_alike_and_holds_no_other_separator() -> None:
    text = "a\u2028b\r\n"
    written = FRAMING.write(Frame("custom|child:1", orjson.dumps(text), "3-0"))
    assert written == b'event: custom|child:1\r\ndata: "a\\u2028b\\r\\n"\r\nid: 3-0\r\n\r\n'


# The second generation


def test_arguments_are_told_in_both_forms() -> None:
    told = v2_of(MESSAGE, ev.BlockStarted("m0", 0, "tool_call", "c", "f"), ev.ArgsDelta("m0", 0, "{"))
    assert told[-1]["delta"] == {"type": "tool-call-delta", "args": "{"}
    assert told[-1]["content"] == {"type": "tool_call_chunk", "args": "{"}


def test_a_message_that_is_cut_off_ends_with_an_error() -> None:
    told = v2_of(
        MESSAGE,
        ev.BlockStarted("m0", 0, "text"),
        ev.TextDelta("m0", 0, "half"),
        ev.BlockFinished("m0", 0, "text", "half", complete=False),
        ev.MessageFinished("m0"),
    )
    assert [each["event"] for each in told][-2:] == ["content-block-finish", "error"]


async def test_an_agent_in_a_tool_is_caused_by_its_call() -> None:
    told = [orjson.loads(frame.data) for frame in v2(await played("agent_as_tool"), ["lifecycle"])]
    (started,) = [each["params"] for each in told if each["params"]["data"]["event"] == "started"]
    assert started["data"]["cause"] == {"type": "toolCall", "tool_call_id": "call_expert"}
    assert [each["params"]["data"]["event"] for each in told] == ["running", "started", "completed", "completed"]


@pytest.mark.parametrize(
    ("end", "status"),
    [
        (ev.RunFinished(AT), "completed"),
        (ev.RunFailed(AT, "c", "m", "e"), "failed"),
        (ev.RunCancelled(AT, "cancelled"), "interrupted"),
        (ev.RunInterrupted(AT, ()), "interrupted"),
    ],
)
def test_a_subgraph_ends_as_its_run_does(end: Event, status: str) -> None:
    told = v2_of(
        ev.StepStarted("child", "1"),
        ev.StepStarted("a", "2", ("child:1",)),
        ev.StepFinished("a", "2"),
        ev.StepFinished("child", "1"),
        end,
        channels=["lifecycle"],
    )
    assert [each["event"] for each in told] == ["running", "started", status, status]


def test_named_custom_data_has_a_channel_of_its_own() -> None:
    told = [ev.Custom("custom", 1), ev.Custom("progress", 2)]
    assert v2_of(*told, channels=["custom"]) == [{"payload": 1}, {"name": "progress", "payload": 2}]
    assert v2_of(*told, channels=["custom:progress"]) == [{"name": "progress", "payload": 2}]


def test_updates_are_told_node_by_node() -> None:
    update = ev.StatePart("updates", {"a": {"x": 1}, "b": None, "__interrupt__": []})
    assert v2_of(update, channels=["updates"]) == [{"node": "a", "values": {"x": 1}}, {"node": "b", "values": None}]


@pytest.mark.parametrize(
    ("namespaces", "depth", "ns", "wanted"),
    [
        (None, None, ("a:1", "b:2"), True),
        (None, 1, ("a:1", "b:2"), False),
        (((),), 0, (), True),
        (((),), 0, ("a:1",), False),
        ((("a",),), None, ("a:1", "b:2"), True),
        ((("a",),), 0, ("a:1", "b:2"), False),
        ((("a:2",),), None, ("a:1",), False),
        ((("a:1",), ("c",)), None, ("c:9",), True),
        ((("a", "b"),), None, ("a:1",), False),
    ],
)
def test_a_subscription_reaches_what_its_namespaces_stand_for(
    namespaces: Any, depth: int | None, ns: tuple[str, ...], wanted: bool
) -> None:
    assert Subscription(frozenset({"values"}), namespaces, depth).wants("values", ns) is wanted
    assert not Subscription(frozenset({"values"}), namespaces, depth).wants("tools", ns)


@pytest.mark.parametrize(
    ("body", "named"),
    [
        ({}, "channels"),
        ({"channels": []}, "channels"),
        ({"channels": ["values", "nope"]}, "nope"),
        ({"channels": "values"}, "channels"),
        ({"channels": ["values"], "namespaces": "a"}, "namespaces"),
        ({"channels": ["values"], "namespaces": ["a"]}, "namespaces"),
        ({"channels": ["values"], "depth": -1}, "depth"),
        ({"channels": ["values"], "since": 1.5}, "since"),
        ({"channels": ["values"], "since": True}, "since"),
    ],
)
def test_a_subscription_that_is_none_is_refused_by_its_field(body: dict[str, Any], named: str) -> None:
    with pytest.raises(RequestError, match=named):
        read_subscription(body)
