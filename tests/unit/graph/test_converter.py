"""What LangChain tells of a run, and what is made of it."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import pytest
from langchain_core.messages import (
    AIMessage,
    AIMessageChunk,
    BaseMessage,
    HumanMessage,
    RemoveMessage,
    SystemMessage,
    ToolMessage,
)
from langchain_core.messages.tool import tool_call
from langchain_core.outputs import GenerationChunk
from langchain_core.runnables import Runnable
from langgraph.graph import START, MessagesState, StateGraph
from langgraph.types import Command

from agent_server import events as ev
from agent_server.events import Event, Usage
from agent_server.graph.converter import Converter, namespace, step_of, unpack
from tests.support.chunks import call, finish, text, usage
from tests.support.play import AT, RUN_ID, fixed_converter, play
from tests.support.scripted import SCENARIOS, ModelError, ScriptedChatModel
from tests.support.told import converted, event, model, node, root, tool

CALL = tool_call(name="search", args={"a": 1}, id="call_1")
CALLING = model(*call("search", '{"a": 1}', id="call_1"), run="calling")
FOUND = ToolMessage("found", tool_call_id="call_1", id="found-1")


def texts(events: Sequence[Event]) -> list[str]:
    """The whole texts of the messages, in the order in which they ended."""
    return [event.text for event in events if isinstance(event, ev.BlockFinished) and event.kind == "text"]


def of(kind: type[Any], events: Sequence[Event]) -> list[Any]:
    return [event for event in events if isinstance(event, kind)]


def graph_of(node_function: Any) -> Runnable[Any, Any]:
    """A graph of one node."""
    graph = StateGraph(MessagesState)
    graph.add_node("node", node_function)
    graph.add_edge(START, "node")
    return graph.compile()


# Models


def test_a_message_is_keyed_by_its_models_run_and_not_by_its_own_id() -> None:
    left, right = (model(*text("a", "b", id="same"), run=run) for run in ("left", "right"))
    taking_turns = [each for pair in zip(left, right, strict=True) for each in pair]
    events = converted(taking_turns)
    assert [(message.message_id, message.source_id) for message in of(ev.MessageStarted, events)] == [
        ("m0", "same"),
        ("m1", "same"),
    ]
    assert texts(events) == ["ab", "ab"]


def test_a_message_that_brings_no_id_has_langchains() -> None:
    (started,) = of(ev.MessageStarted, converted(model(*text("a"), run="r")))
    assert started.source_id == "lc_run--r"


def test_a_model_that_cannot_stream_is_told_whole() -> None:
    events = converted(model(whole=AIMessage("a", id="i", tool_calls=[CALL])))
    assert [type(event).__name__ for event in events] == [
        *("MessageStarted", "BlockStarted", "TextDelta", "BlockFinished"),
        *("BlockStarted", "ArgsDelta", "BlockFinished", "MessageFinished", "RunFinished"),
    ]


def test_a_language_model_without_messages_is_told_as_text() -> None:
    started = event("on_llm_start", "llm", {})
    pieces: list[Any] = [GenerationChunk(text="a"), "", "b"]
    streamed = [event("on_llm_stream", "llm", {"chunk": piece}) for piece in pieces]
    ended = event("on_llm_end", "llm", {"output": {"generations": [[{"text": "ab"}]]}})
    assert texts(converted([started, *streamed, ended])) == ["ab"]
    assert texts(converted([started, ended])) == ["ab"]
    nothing = event("on_llm_end", "llm", {"output": None})
    assert texts(converted([started, nothing])) == []


def test_usage_is_summed_over_all_calls_and_the_reason_is_the_last_ones() -> None:
    first = model(*text("a"), *finish("tool_calls", tokens=usage(100, 20, cached=60)), run="first")
    second = model(*text("b"), *finish("stop", tokens=usage(130, 8, reasoning=3)), run="second")
    (ended,) = of(ev.RunFinished, converted(first, second))
    assert ended.usage == Usage(230, 28, 258, 60, 0, 3)
    assert ended.finish_reason == "stop"


@pytest.mark.parametrize(
    ("reason", "incomplete"), [("length", "max_output_tokens"), ("content_filter", "content_filter")]
)
def test_an_answer_that_was_cut_leaves_the_run_incomplete(reason: str, incomplete: str) -> None:
    (ended,) = of(ev.RunFinished, converted(model(*text("a"), *finish(reason))))
    assert ended.incomplete == incomplete


def test_a_call_that_was_cut_before_the_last_does_not() -> None:
    cut, last = model(*text("a"), *finish("length"), run="cut"), model(*text("b"), *finish(), run="last")
    (ended,) = of(ev.RunFinished, converted(cut, last))
    assert ended.incomplete is None


@pytest.mark.parametrize("tag", ["nostream", "langsmith:nostream"])
def test_a_hidden_model_is_not_shown_but_counted(tag: str) -> None:
    events = converted(model(*text("secret"), *finish(), tags=[tag]))
    assert events == [ev.RunFinished(at=AT, usage=Usage(10, 5, 15))]


def test_a_hidden_models_message_is_told_when_a_node_returns_it_and_counted_once() -> None:
    """As LangGraph's own stream of messages does."""
    whole = AIMessage("shown", id="i", usage_metadata=usage(10, 5))
    events = converted(node("route", {"messages": [whole]}, model(*text("shown"), whole=whole, tags=["nostream"])))
    assert texts(events) == ["shown"]
    assert events[-1].usage == Usage(10, 5, 15)  # type: ignore[union-attr]


def test_a_failed_model_is_closed_before_its_fallback_speaks() -> None:
    events = converted(model(*text("half"), run="first", fails=True), model(*text("whole"), run="second"))
    assert [type(event).__name__ for event in events[:5]] == [
        *("MessageStarted", "BlockStarted", "TextDelta", "BlockFinished", "MessageFinished"),
    ]
    assert [(done.text, done.complete) for done in of(ev.BlockFinished, events)] == [("half", False), ("whole", True)]


async def test_a_fallback_model_answers_where_the_first_one_fails() -> None:
    broken = ScriptedChatModel(turns=[[*text("half"), ModelError]])
    sound = ScriptedChatModel(turns=[[*text("whole"), *finish()]])
    model_with_fallback = broken.with_fallbacks([sound])

    async def ask(state: MessagesState) -> dict[str, Any]:
        return {"messages": [await model_with_fallback.ainvoke(state["messages"])]}

    events = await play("fallback", graph_of(ask), {"input": "Hi"})
    assert texts(events) == ["half", "whole"]
    assert isinstance(events[-1], ev.RunFinished)


def test_a_failed_model_that_had_said_nothing_leaves_no_message() -> None:
    assert converted(model(run="first", fails=True, whole=AIMessage(""))) == [ev.RunFinished(at=AT)]


def test_a_model_that_ends_without_a_message_is_closed() -> None:
    told = [*model(*text("a"))[:-1], event("on_chat_model_end", "model", {"output": None})]
    assert [done.complete for done in of(ev.BlockFinished, converted(told))] == [True]


def test_kinds_that_nobody_reads_cause_nothing() -> None:
    for kind in ("on_prompt_start", "on_parser_end", "on_retriever_start", "on_new_in_langchain_9"):
        assert fixed_converter().feed(event(kind, "run", {})) == []  # type: ignore[arg-type]


# Nodes


def test_a_message_that_a_model_told_is_not_told_again_by_its_node() -> None:
    whole = AIMessage("a", id="i")
    inner = node("inner", {"messages": [whole]}, model(*text("a"), whole=whole))
    assert texts(converted(node("outer", {"messages": [HumanMessage("Hi"), whole]}, inner))) == ["a"]


RETURNS: dict[str, Any] = {
    "in a list": {"messages": [AIMessage("by hand", id="i")]},
    "alone": {"messages": AIMessage("by hand", id="i")},
    "under any key": {"draft": [AIMessage("by hand", id="i")]},
    "in a command": Command(update={"messages": [AIMessage("by hand", id="i")]}),
    "in a list of commands": [Command(goto="x"), Command(update={"messages": [AIMessage("by hand", id="i")]})],
    "as pairs": [("messages", [AIMessage("by hand", id="i")])],
    "bare": [AIMessage("by hand", id="i")],
    "without an id": {"messages": [AIMessage("by hand")]},
    "as a chunk": {"messages": [AIMessageChunk(content="by hand", id="i")]},
    "beside what removes": {"messages": [RemoveMessage(id="x"), AIMessage("by hand", id="i")]},
}


@pytest.mark.parametrize("name", RETURNS)
def test_a_message_that_a_node_wrote_itself_is_told_once(name: str) -> None:
    output = RETURNS[name]
    events = converted(node("outer", output, node("inner", output)))
    assert texts(events) == ["by hand"]
    (started,) = of(ev.MessageStarted, events)
    assert started.step == "inner"


@pytest.mark.parametrize(
    "message", [RemoveMessage(id="i"), HumanMessage("Hi", id="i"), SystemMessage("Be kind.", id="i"), None, "text", 3]
)
def test_what_is_no_answer_is_not_told(message: Any) -> None:
    assert of(ev.MessageStarted, converted(node("edit", {"messages": [message]}))) == []
    assert of(ev.MessageStarted, converted(node("edit", message))) == []


def test_messages_of_the_input_are_not_told_as_answers() -> None:
    given = {"messages": [HumanMessage("a"), AIMessage("old"), HumanMessage("b")]}
    events = converted(root(given, {"messages": given["messages"]}, node("keep", {"messages": given["messages"]})))
    assert texts(events) == []


async def test_an_agent_that_says_nothing_does_not_repeat_what_it_said_before() -> None:
    turns = [("user", "a"), ("assistant", "old"), ("user", "b")]
    request = {"input": [{"role": role, "content": said} for role, said in turns]}
    assert texts(await play("silent", SCENARIOS["no_messages"], request)) == []


async def test_history_that_a_node_edits_is_not_told() -> None:
    async def forget(state: MessagesState) -> dict[str, Any]:
        return {"messages": [RemoveMessage(id=str(message.id)) for message in state["messages"][:-1]]}

    turns = [("user", "a"), ("assistant", "old"), ("user", "b")]
    request = {"input": [{"role": role, "content": said} for role, said in turns]}
    events = await play("forgetful", graph_of(forget), request)
    assert of(ev.MessageStarted, events) == []
    assert isinstance(events[-1], ev.RunFinished)


def test_a_node_is_a_step_and_what_runs_inside_it_is_none() -> None:
    inside = event("on_chain_start", "RunnableSequence", {}, metadata={"langgraph_node": "plan"})
    same_name = event("on_chain_start", "plan", {}, metadata={"langgraph_node": "plan"}, tags=["seq:step:1"])
    events = converted(node("plan", {}, [inside, same_name]))
    assert events == [ev.StepStarted("plan", "1"), ev.StepFinished("plan", "1"), ev.RunFinished(at=AT)]


def test_steps_that_are_open_at_the_end_are_closed_from_the_inside() -> None:
    told = [*node("outer", {})[:1], *node("inner", {})[:1]]
    converter = fixed_converter()
    for each in told:
        converter.feed(each)  # type: ignore[arg-type]
    assert [step.step for step in of(ev.StepFinished, converter.cancel("gone"))] == ["inner", "outer"]


def test_tools_that_run_at_the_end_are_closed_from_the_inside() -> None:
    outer = tool("search", "", call_id="call_1", run="outer")[:1]
    inner = tool("look", "", call_id="call_2", run="inner", inside=("root", "outer"))[:1]
    converter = fixed_converter()
    for each in (*outer, *inner):
        converter.feed(each)  # type: ignore[arg-type]
    assert [(done.call_id, done.status) for done in of(ev.ToolFinished, converter.cancel("gone"))] == [
        ("call_2", "pending"),
        ("call_1", "pending"),
    ]


# The root's own chunks and output


def test_what_a_runnable_streams_is_its_answer() -> None:
    events = converted(root("Hi", "ab", chunks=["a", "", "b"]))
    assert [delta.text for delta in of(ev.TextDelta, events)] == ["a", "b"]
    assert len(of(ev.MessageStarted, events)) == 1


def test_what_a_model_inside_said_is_not_told_again_by_its_chain() -> None:
    assert texts(converted(root("Hi", "ab", model(*text("a", "b")), chunks=["a", "b"]))) == ["ab"]


PLAIN: dict[str, tuple[Any, list[str]]] = {
    "text": ("ab", ["ab"]),
    "no text": ("", []),
    "a message": (AIMessage("ab"), ["ab"]),
    "an output": ({"output": "ab", "steps": 3}, ["ab"]),
    "an answer": ({"question": "?", "answer": "ab"}, ["ab"]),
    "a state with an answer in it": ({"messages": [HumanMessage("Hi"), AIMessage("ab")]}, ["ab"]),
    "a state without one": ({"messages": [HumanMessage("Hi")]}, []),
    "an object": ({"a": 1}, ['{"a":1}']),
    "a number": (3, ["3"]),
    "nothing": (None, []),
}


@pytest.mark.parametrize("name", PLAIN)
def test_the_output_of_a_runnable_that_told_of_no_message_is_its_answer(name: str) -> None:
    output, expected = PLAIN[name]
    assert texts(converted(root("Hi", output))) == expected


def test_custom_outputs_of_the_state_come_with_the_end() -> None:
    (ended,) = of(ev.RunFinished, converted(root("Hi", {"answer": "a", "custom_outputs": {"score": {1}}})))
    assert ended.custom_outputs == {"score": [1]}
    (without,) = of(ev.RunFinished, converted(root("Hi", {"answer": "a", "custom_outputs": "none"})))
    assert without.custom_outputs == {}


def test_custom_data_keeps_its_subgraph() -> None:
    metadata = {"langgraph_checkpoint_ns": "outer:1|inner:2"}
    dispatched = event("on_custom_event", "run", {"percent": 50}, name="progress", metadata=metadata)
    written = root("Hi", None, [dispatched], chunks=[(("outer:1",), "custom", {"step": 1})])
    assert of(ev.Custom, converted(written)) == [
        ev.Custom("progress", {"percent": 50}, ("outer:1",)),
        ev.Custom("custom", {"step": 1}, ("outer:1",)),
    ]


# Ends


def _open_everything() -> Converter:
    converter = fixed_converter()
    told = [*node("step", {})[:1], *model(*text("half"))[:-1], *tool("search", "", call_id="call_1")[:1]]
    for each in told:
        converter.feed(each)  # type: ignore[arg-type]
    return converter


@pytest.mark.parametrize(
    ("end", "status", "terminal"),
    [
        (lambda c: c.finish(), "error", ev.RunFinished),
        (lambda c: c.finish(incomplete="recursion_limit"), "error", ev.RunFinished),
        (lambda c: c.fail(code="server_error", message="Failed.", error_id="err"), "error", ev.RunFailed),
        (lambda c: c.cancel("gone"), "pending", ev.RunCancelled),
    ],
)
def test_every_end_closes_what_is_open(end: Any, status: str, terminal: type[Any]) -> None:
    events = end(_open_everything())
    block, message, ran, step, last = events
    assert block == ev.BlockFinished("m0", 0, "text", "half", complete=False)
    assert message == ev.MessageFinished("m0")
    assert (ran.call_id, ran.status) == ("call_1", status)
    assert step == ev.StepFinished("step", "1")
    assert isinstance(last, terminal)


def test_a_limit_is_the_reason_of_an_incomplete_run() -> None:
    (ended,) = of(ev.RunFinished, fixed_converter().finish(incomplete="recursion_limit"))
    assert ended.incomplete == "recursion_limit"


def test_the_clock_is_asked_at_the_end_alone() -> None:
    asked: list[int] = []

    def clock() -> int:
        asked.append(1)
        return AT

    converter = Converter(RUN_ID, clock=clock)
    for each in model(*text("a")):
        converter.feed(each)  # type: ignore[arg-type]
    assert asked == []
    converter.finish()
    assert asked == [1]


# Shapes


@pytest.mark.parametrize(
    ("chunk", "expected"),
    [
        ((("a:1",), "custom", 1), (("a:1",), "custom", 1)),
        (("custom", 1), ((), "custom", 1)),
        ({"messages": []}, ((), "", {"messages": []})),
        ("text", ((), "", "text")),
        (["red", "green"], ((), "", ["red", "green"])),
        (("a", "b", "c", "d"), ((), "", ("a", "b", "c", "d"))),
        ((1, 2), ((), "", (1, 2))),
    ],
)
def test_a_chunk_of_a_graph_is_unpacked(chunk: Any, expected: Any) -> None:
    assert unpack(chunk) == expected


@pytest.mark.parametrize(
    ("metadata", "expected"),
    [
        ({}, ()),
        ({"langgraph_checkpoint_ns": ""}, ()),
        ({"langgraph_checkpoint_ns": "node:1"}, ()),
        ({"langgraph_checkpoint_ns": "outer:1|inner:2|node:3"}, ("outer:1", "inner:2")),
    ],
)
def test_the_namespace_is_the_subgraph_without_the_node(metadata: dict[str, str], expected: tuple[str, ...]) -> None:
    assert namespace(metadata) == expected


def test_a_step_has_the_task_id_of_its_namespace() -> None:
    metadata = {"langgraph_node": "node", "langgraph_checkpoint_ns": "outer:1|node:2"}
    told = event("on_chain_start", "node", {}, metadata=metadata, tags=["graph:step:7"])
    assert step_of(told) == ev.StepStarted("node", "2", ("outer:1",))


def test_messages_are_left_as_they_were() -> None:
    message: BaseMessage = AIMessage([{"type": "text", "text": "a"}], id="i", tool_calls=[CALL])
    before = message.model_dump()
    converted(model(whole=message))
    assert message.model_dump() == before
