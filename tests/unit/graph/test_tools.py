"""The runs of tools, and the model's calls that they answer."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import pytest
from langchain.agents import create_agent
from langchain.agents.middleware import ToolRetryMiddleware
from langchain_core.messages import ToolMessage
from langchain_core.tools import tool as make_tool
from langgraph.types import Command

from agent_server import events as ev
from agent_server import ids
from agent_server.events import Event, Usage
from agent_server.graph.source import SourceName
from tests.support.chunks import call, finish, text, tools
from tests.support.chunks import piece as part
from tests.support.play import AT, RUN_ID, fixed_converter, play
from tests.support.scripted import ScriptedChatModel
from tests.support.told import converted, model, node, tool

CALLING = model(*call("search", '{"a": 1}', id="call_1"), run="calling")
FOUND = ToolMessage("found", tool_call_id="call_1", id="found-1")


def of(kind: type[Any], events: Sequence[Event]) -> list[Any]:
    return [event for event in events if isinstance(event, kind)]


def test_a_tool_is_linked_to_the_call_that_the_source_names() -> None:
    events = converted(CALLING, tool("search", FOUND, call_id="call_1"))
    assert of(ev.ToolStarted, events) == [ev.ToolStarted("call_1", "search", {"a": 1})]
    assert of(ev.ToolFinished, events) == [ev.ToolFinished("call_1", "search", "found", message_id="found-1")]


def test_without_a_call_id_a_tool_is_linked_to_the_first_call_that_fits() -> None:
    calling = model(
        *call("other", "{}", id="call_0"),
        *call("search", "{}", id="call_1", index=1),
        *call("search", "{}", id="call_2", index=2),
    )
    events = converted(
        calling, tool("search", "a", run="t1"), tool("search", "b", run="t2"), tool("search", "c", run="t3")
    )
    made_up = ids.call_id(RUN_ID, 0xF001)
    assert [done.call_id for done in of(ev.ToolFinished, events)] == ["call_1", "call_2", made_up]


def test_a_tool_that_no_model_called_gets_a_call_id_of_its_own() -> None:
    (started,) = of(ev.ToolStarted, converted(tool("search", "a")))
    assert started.call_id == ids.call_id(RUN_ID, 0xF001)


def test_a_call_id_that_is_used_again_in_a_later_turn_is_another_call() -> None:
    again = model(*call("search", '{"a": 2}', id="call_1"), run="again")
    events = converted(
        CALLING,
        tool("search", "first", call_id="call_1", run="t1"),
        again,
        tool("search", "second", call_id="call_1", run="t2"),
    )
    assert [done.output for done in of(ev.ToolFinished, events)] == ["first", "second"]
    assert len(of(ev.ToolStarted, events)) == 2


def test_a_call_without_an_id_is_linked_to_its_tool_run() -> None:
    calling = model(tools(part("{}", name="search")))
    (started,) = of(ev.ToolStarted, converted(calling, tool("search", "a")))
    (called,) = of(ev.BlockStarted, converted(calling))
    assert started.call_id == called.call_id == ids.call_id(RUN_ID, 0)


OUTPUTS: dict[str, tuple[Any, Any]] = {
    "text": ("found", "found"),
    "a tool message": (FOUND, "found"),
    "a command": (Command(update={"messages": [FOUND]}), "found"),
    "a command among others": ([Command(goto="x"), Command(update={"messages": [FOUND]})], "found"),
    "the message of the call among others": (
        [ToolMessage("no", tool_call_id="call_9"), FOUND, ToolMessage("nor", tool_call_id="call_8")],
        "found",
    ),
    "an object": ({"city": "Oslo"}, '{"city":"Oslo"}'),
    "nothing": (None, "null"),
    "blocks": (
        ToolMessage(["a", {"type": "image", "url": "u"}], tool_call_id="call_1"),
        [{"type": "text", "text": "a"}, {"type": "image", "url": "u"}],
    ),
}


@pytest.mark.parametrize("name", OUTPUTS)
def test_a_tool_output_is_read_in_every_shape(name: str) -> None:
    output, expected = OUTPUTS[name]
    (done,) = of(ev.ToolFinished, converted(CALLING, tool("search", output, call_id="call_1")))
    assert done.output == expected


def test_a_tool_message_that_says_so_is_an_error() -> None:
    failed = ToolMessage("no", tool_call_id="call_1", status="error")
    (done,) = of(ev.ToolFinished, converted(CALLING, tool("search", failed, call_id="call_1")))
    assert done.status == "error"


def test_a_failed_tool_is_answered_by_its_node() -> None:
    failed = ToolMessage("Sorry.", tool_call_id="call_1", status="error")
    events = converted(
        CALLING, node("tools", {"messages": [failed]}, tool("search", RuntimeError("secret"), call_id="call_1"))
    )
    assert of(ev.ToolFinished, events) == [ev.ToolFinished("call_1", "search", "Sorry.", "error")]


def test_a_failed_tool_that_nobody_answers_says_nothing_of_its_exception() -> None:
    converter = fixed_converter()
    for each in (*CALLING, *tool("search", RuntimeError("secret"), call_id="call_1")):
        converter.feed(each)  # type: ignore[arg-type]
    (done, failed) = converter.fail(code="server_error", message="The agent failed.", error_id="err_1")
    assert done == ev.ToolFinished("call_1", "search", "The tool failed.", "error")
    assert failed == ev.RunFailed(at=AT, code="server_error", message="The agent failed.", error_id="err_1")


def test_a_tool_that_is_tried_again_is_told_once() -> None:
    events = converted(
        CALLING,
        tool("search", RuntimeError(), call_id="call_1", run="t1"),
        tool("search", FOUND, call_id="call_1", run="t2"),
    )
    assert [type(event).__name__ for event in events[-3:]] == ["ToolStarted", "ToolFinished", "RunFinished"]
    assert of(ev.ToolFinished, events) == [ev.ToolFinished("call_1", "search", "found", message_id="found-1")]


@pytest.mark.parametrize("source", ["tap", "astream_events"])
async def test_langchains_retries_of_a_tool_are_one_call(source: SourceName) -> None:
    attempts: list[str] = []

    @make_tool
    async def search(query: str) -> str:
        """Search."""
        attempts.append(query)
        if len(attempts) < 3:
            raise ConnectionError
        return "found"

    turns = [[*call("search", '{"query": "a"}', id="call_1"), *finish("tool_calls")], [*text("Done."), *finish()]]
    agent = create_agent(
        ScriptedChatModel(turns=turns),
        tools=[search],
        middleware=[ToolRetryMiddleware(max_retries=3, initial_delay=0, jitter=False)],
    )
    events = await play("retrying", agent, {"input": "Hi"}, source=source)
    assert [(done.call_id, done.output) for done in of(ev.ToolFinished, events)] == [("call_1", "found")]
    assert len(of(ev.ToolStarted, events)) == 1


def test_a_call_whose_tool_runs_twice_has_one_output() -> None:
    once, twice = (tool("search", said, call_id="call_1", run=said) for said in ("once", "twice"))
    assert [done.output for done in of(ev.ToolFinished, converted(CALLING, once, twice))] == ["once"]


def test_a_call_that_a_node_answers_without_running_a_tool_is_told() -> None:
    """A rejected approval, an unknown tool, invalid arguments."""
    rejected = ToolMessage("Rejected.", tool_call_id="call_1", name="search", status="error")
    events = converted(CALLING, node("review", {"messages": [rejected]}))
    assert of(ev.ToolStarted, events) == [ev.ToolStarted("call_1", "search")]
    assert of(ev.ToolFinished, events) == [ev.ToolFinished("call_1", "search", "Rejected.", "error")]


def test_tool_messages_of_earlier_turns_are_not_told_again() -> None:
    old = ToolMessage("old", tool_call_id="call_0")
    assert converted(node("trim", {"messages": [old]})) == [
        ev.StepStarted("trim", "1"),
        ev.StepFinished("trim", "1"),
        ev.RunFinished(at=AT),
    ]


def test_what_runs_inside_a_tool_belongs_to_its_call() -> None:
    inner_tool = tool("look", "seen", call_id="call_2", run="inner", inside=("root", "outer"))
    inner = model(*call("look", "{}", id="call_2"), run="expert", inside=("root", "outer"))
    started, ended = tool("search", FOUND, call_id="call_1", run="outer")
    deepest = model(*text("deep"), run="deepest", inside=("root", "outer", "inner"))
    told = [started, *inner, inner_tool[0], *deepest, inner_tool[1], ended]
    events = converted(CALLING, told)
    assert [message.parent_call_id for message in of(ev.MessageStarted, events)] == ["", "call_1", "call_1"]
    assert [run.parent_call_id for run in of(ev.ToolStarted, events)] == ["", "call_1"]


def test_the_reason_of_a_model_inside_a_tool_is_not_the_runs() -> None:
    started, ended = tool("search", FOUND, call_id="call_1", run="outer")
    inner = model(*text("a"), *finish("length"), run="inner", inside=("root", "outer"))
    (end,) = of(ev.RunFinished, converted(CALLING, [started, *inner, ended]))
    assert end.incomplete is None
    assert end.usage == Usage(10, 5, 15)
