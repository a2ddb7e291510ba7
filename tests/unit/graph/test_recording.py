"""What a log holds beside messages and tools, where it was asked to; and what never gets into it."""

from __future__ import annotations

from typing import Any

import pytest
from langchain_core.messages import AIMessage, ToolMessage
from langgraph.errors import GraphRecursionError

from agent_server import events as ev
from agent_server.graph.recording import modes_of, public_metadata, raw_event, told_of
from tests.support.play import fixed_converter, play
from tests.support.scripted import SCENARIOS
from tests.support.told import event, node, root

IDENTITY = {"thread_id": "tenant:run", "request": "CANARY", "__pregel_task_id": "x"}


def told(record: set[str], *chunks: Any) -> list[ev.Event]:
    converter: Any = fixed_converter(record)
    return [each for stream_event in root("Hi", None, chunks=list(chunks)) for each in converter.feed(stream_event)]


def checkpoint(step: int, source: str = "loop") -> dict[str, Any]:
    def place(number: int) -> dict[str, Any]:
        return {"configurable": {**IDENTITY, "checkpoint_ns": "", "checkpoint_id": f"c{number}"}}

    return {
        "config": place(step),
        "parent_config": place(step - 1) if step >= 0 else None,
        "values": {"n": step},
        "metadata": {"step": step, "source": source, "parents": {}},
        "next": ["a"],
        "tasks": [{"id": "t", "name": "a", "state": place(step)}],
    }


def test_a_mode_is_recorded_where_it_was_asked_for() -> None:
    chunks = [((), "values", {"a": 1}), ((), "updates", {"n": {"a": 1}}), ("tasks", {"id": "t", "name": "n"})]
    assert told(set(), *chunks) == []
    assert told({"values"}, *chunks) == [ev.StatePart("values", {"a": 1})]
    assert told({"updates", "tasks"}, *chunks) == [
        ev.StatePart("updates", {"n": {"a": 1}}),
        ev.StatePart("tasks", {"id": "t", "name": "n"}),
    ]


def test_subgraphs_are_recorded_where_they_were_asked_for() -> None:
    chunk = (("child:1",), "values", {"a": 1})
    assert told({"values"}, chunk) == []
    assert told({"values", "subgraphs"}, chunk) == [ev.StatePart("values", {"a": 1}, ("child:1",))]


@pytest.mark.parametrize("mode", ["checkpoints", "debug"])
def test_of_a_config_only_the_place_of_its_checkpoint_is_kept(mode: str) -> None:
    payload = checkpoint(1)
    whole = payload if mode == "checkpoints" else {"type": "checkpoint", "step": 1, "payload": payload}
    (part,) = told({mode}, ((), mode, whole))
    assert isinstance(part, ev.StatePart)
    shown = part.data if mode == "checkpoints" else part.data["payload"]
    assert "CANARY" not in str(part)
    assert "tenant:run" not in str(part)
    assert shown["config"] == {"configurable": {"checkpoint_ns": "", "checkpoint_id": "c1"}}
    assert shown["parent_config"]["configurable"]["checkpoint_id"] == "c0"
    assert shown["tasks"][0]["state"] == shown["config"]


def test_a_task_is_recorded_without_the_servers_own_metadata() -> None:
    task = {"id": "t", "name": "a", "input": {}, "metadata": {**IDENTITY, "k": "v"}}
    assert told({"tasks"}, ((), "tasks", task)) == [ev.StatePart("tasks", {**task, "metadata": {"k": "v"}})]


def test_a_checkpoints_place_is_told_before_its_values() -> None:
    chunks = [
        ((), "checkpoints", checkpoint(-1, "input")),
        ((), "values", {"n": 0}),
        ((), "checkpoints", checkpoint(0)),
    ]
    assert told({"values", "checkpoint_refs"}, *chunks) == [
        ev.StatePart("checkpoint_refs", {"id": "c-1", "step": -1, "source": "input"}),
        ev.StatePart("checkpoint_refs", {"id": "c0", "parent_id": "c-1", "step": 0, "source": "loop"}),
        ev.StatePart("values", {"n": 0}),
    ]


def test_values_wait_for_nothing_but_the_next_that_is_told() -> None:
    converter: Any = fixed_converter({"values", "checkpoint_refs"})
    begin, chunk, *_ = root("Hi", None, chunks=[((), "values", {"n": 0})])
    converter.feed(begin)
    assert converter.feed(chunk) == []
    step = node("a", {})[0]
    assert [type(each) for each in converter.feed(step)] == [ev.StatePart, ev.StepStarted]
    converter.feed(chunk)
    assert isinstance(converter.finish()[0], ev.StatePart)


def test_every_stream_event_is_recorded_but_the_roots_own_chunks() -> None:
    begun = event("on_chain_start", "node", {"input": {}}, metadata=dict(IDENTITY))
    raw = raw_event(begun)
    assert raw is not None
    assert raw.event["metadata"] == {}
    assert raw_event(event("on_chain_stream", "root", {"chunk": 1}, inside=())) is None


def test_the_graph_is_driven_with_what_is_recorded() -> None:
    assert modes_of(frozenset({"values", "messages", "subgraphs", "errors", "checkpoint_refs"})) == {
        "values",
        "checkpoints",
    }


def test_metadata_is_shown_without_what_is_the_servers_own() -> None:
    assert public_metadata({**IDENTITY, "langgraph_step": 1}) == {"langgraph_step": 1}


@pytest.mark.parametrize(
    ("raised", "shown"),
    [
        (ValueError("boom"), ("ValueError", "boom")),
        (GraphRecursionError("limit"), ("GraphRecursionError", "limit")),
        (OSError("password"), ("OSError", "")),
        (UnicodeDecodeError("utf-8", b"secret", 0, 1, "bad"), ("UnicodeDecodeError", "")),
        (None, ("", "")),
    ],
)
def test_the_text_of_an_exception_is_told_where_it_is_meant_to_be_read(
    raised: BaseException | None, shown: tuple[str, str]
) -> None:
    assert told_of(raised) == shown


def test_what_was_raised_is_recorded_where_it_was_asked_for() -> None:
    for record, error in (({"errors"}, "ValueError"), (set(), "")):
        (failed,) = fixed_converter(record).fail(code="c", message="m", error_id="e", raised=ValueError("boom"))
        assert isinstance(failed, ev.RunFailed)
        assert failed.error == error


async def test_a_tools_message_has_one_id_in_its_event_and_in_the_state() -> None:
    events = await play("a", SCENARIOS["one_tool"], {"input": "Hi"}, record={"messages", "values"})
    (tool,) = [each for each in events if isinstance(each, ev.ToolFinished)]
    values = [each.data["messages"] for each in events if isinstance(each, ev.StatePart)]
    (in_state,) = [each for each in values[-1] if each["type"] == "tool"]
    assert tool.message_id == in_state["id"]


async def test_a_message_says_whether_it_came_piece_by_piece() -> None:
    for name, whole in (("plain_text", False), ("node_returns_message", True), ("non_streaming_model", True)):
        events = await play("a", SCENARIOS[name], {"input": "Hi"}, record={"messages"})
        assert [each.whole for each in events if isinstance(each, ev.MessageStarted)] == [whole], name


def test_messages_in_a_state_are_plain_json() -> None:
    said = {"messages": [AIMessage("a", id="i"), ToolMessage("t", tool_call_id="c", id="j")]}
    (part,) = told({"values"}, ((), "values", said))
    assert isinstance(part, ev.StatePart)
    assert [each["type"] for each in part.data["messages"]] == ["ai", "tool"]
