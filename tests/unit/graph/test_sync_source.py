"""A graph is driven without an event loop where it can be, and known for what it is beforehand."""

from __future__ import annotations

import itertools
import threading
from collections.abc import Iterator
from typing import Any

import pytest
from langchain.agents import create_agent
from langchain_core.messages import AIMessageChunk
from langchain_core.runnables import Runnable, RunnableLambda
from langchain_core.tools import tool
from langgraph.checkpoint.base import BaseCheckpointSaver
from langgraph.checkpoint.memory import InMemorySaver
from langgraph.config import get_stream_writer
from langgraph.graph import START, MessagesState, StateGraph
from langgraph.prebuilt import ToolNode

from agent_server.events import TextDelta
from agent_server.graph.drive import Recorder
from agent_server.graph.source import from_tap
from agent_server.graph.sync_source import has_sync_form, stream_from_tap
from tests.support.gates import Gate
from tests.support.play import fixed_converter
from tests.support.scripted import SCENARIOS, ScriptedChatModel, chunks
from tests.support.tools import get_weather

State = dict[str, Any]
QUESTION = {"messages": [{"role": "user", "content": "hi"}]}
OPTIONS = {"stream_mode": ["updates"], "subgraphs": False}


def graph(node: Any, *, route: Any = None, saver: Any = None) -> Any:
    builder = StateGraph(MessagesState)
    builder.add_node("node", node)
    builder.add_edge(START, "node")
    if route is not None:
        builder.add_conditional_edges("node", route, ["node", "__end__"])
    return builder.compile(checkpointer=saver)


def sync_node(state: MessagesState) -> State:
    return {}


async def async_node(state: MessagesState) -> State:
    return {}


async def async_route(state: MessagesState) -> str:
    return "__end__"


@tool
async def async_tool(x: str) -> str:
    """A tool without a synchronous form."""
    return x


class StreamEvents(Recorder):
    """Keeps the stream events, beside what they are converted to."""

    def __init__(self) -> None:
        self.seen: list[Any] = []
        self.events: list[Any] = []
        super().__init__(fixed_converter(), self.events.append)

    def feed(self, event: Any) -> None:
        """One stream event."""
        self.seen.append(event)
        super().feed(event)

    def chunks(self, model_run_id: str) -> None:
        """No short way: every chunk comes as a stream event."""


class OnlyAsyncSaver(BaseCheckpointSaver[str]):
    """A checkpointer that has implemented nothing for synchronous callers."""


MODEL = ScriptedChatModel(turns=[[*chunks.text("x")]])


@pytest.mark.parametrize(
    ("candidate", "wanted"),
    [
        (graph(sync_node), True),
        (graph(async_node), False),
        (graph(RunnableLambda(sync_node)), True),
        (graph(RunnableLambda(async_node)), False),
        (graph(RunnableLambda(sync_node, afunc=async_node)), True),
        (graph(RunnableLambda(lambda _: "x") | RunnableLambda(async_node)), False),
        (graph({"a": RunnableLambda(async_node)} | RunnableLambda(sync_node)), False),
        (graph(graph(sync_node)), True),
        (graph(graph(async_node)), False),
        (graph(sync_node, route=lambda state: "__end__"), True),
        (graph(sync_node, route=async_route), False),
        (graph(sync_node).with_config(tags=["x"]), True),
        (graph(async_node).with_config(tags=["x"]), False),
        (graph(sync_node, saver=InMemorySaver()), True),
        (graph(sync_node, saver=OnlyAsyncSaver()), False),
        (graph(ToolNode([get_weather])), True),
        (graph(ToolNode([get_weather, async_tool])), False),
        (create_agent(MODEL, tools=[]), True),
        (create_agent(MODEL, tools=[get_weather]), True),
        (create_agent(MODEL, tools=[async_tool]), False),
    ],
)
def test_whether_a_graph_has_a_synchronous_form_is_read_off_its_parts(candidate: Any, wanted: bool) -> None:
    assert has_sync_form(candidate) is wanted


ALONE = ("plain_text", "one_tool", "two_tools_in_turn", "reasoning_openai", "sync_tools", "sync_node", "usage_details")


def facts(sink: StreamEvents) -> list[Any]:
    return [(event["event"], event["name"]) for event in sink.seen]


@pytest.mark.parametrize("scenario", ALONE)
async def test_the_stream_events_are_those_of_the_asynchronous_tap(scenario: str) -> None:
    without, within = StreamEvents(), StreamEvents()
    for _ in stream_from_tap(SCENARIOS[scenario](), QUESTION, {}, without, OPTIONS):
        pass
    await from_tap(SCENARIOS[scenario](), QUESTION, {}, within, OPTIONS)
    assert facts(without) == facts(within)


def answer_of(model: Runnable[Any, Any]) -> Any:
    return graph(lambda state: {"messages": [model.invoke(state["messages"])]})


@pytest.mark.parametrize("nest", [lambda inner: inner, graph])
def test_tokens_are_there_while_their_node_still_runs(nest: Any) -> None:
    gate = Gate()
    model = ScriptedChatModel(turns=[[*chunks.text("one "), gate, *chunks.text("two"), *chunks.finish()]])
    sink = StreamEvents()
    steps = stream_from_tap(nest(answer_of(model)), QUESTION, {}, sink, OPTIONS)
    for _ in steps:
        if any(event["event"] == "on_chat_model_stream" for event in sink.seen):
            break
    gate.wait_reached()
    gate.open()
    for _ in steps:
        pass
    texts = [event["data"]["chunk"].text for event in sink.seen if event["event"] == "on_chat_model_stream"]
    assert "".join(texts) == "one two"


def test_the_sink_is_called_in_the_callers_thread_alone() -> None:
    callers = set()

    class Sink(StreamEvents):
        def feed(self, event: Any) -> None:
            callers.add(threading.get_ident())
            super().feed(event)

    for _ in stream_from_tap(SCENARIOS["sync_tools"](), QUESTION, {}, Sink(), OPTIONS):
        pass
    assert callers == {threading.get_ident()}


def endless(ended: list[str]) -> Any:
    def talk(_: Any) -> Iterator[AIMessageChunk]:
        try:
            yield from itertools.cycle(chunks.text("on "))
        finally:
            ended.append("model")

    return answer_of(ScriptedChatModel(turns=[talk]))


def test_closing_stops_a_node_at_its_next_chunk_and_leaves_no_thread() -> None:
    ended: list[str] = []
    before = threading.active_count()
    steps = stream_from_tap(endless(ended), QUESTION, {}, StreamEvents(), OPTIONS)
    next(steps)
    next(steps)
    assert ended == []
    steps.close()
    assert ended == ["model"]
    assert threading.active_count() == before


def test_what_was_told_before_a_failure_is_not_lost() -> None:
    sink = StreamEvents()
    steps = stream_from_tap(SCENARIOS["model_error_after_first_token"](), QUESTION, {}, sink, OPTIONS)
    with pytest.raises(RuntimeError):
        list(steps)
    assert "".join(event.text for event in sink.events if isinstance(event, TextDelta)) == "Partial answer"


def test_what_a_node_writes_is_told_only_where_it_is_recorded() -> None:
    def note(state: MessagesState) -> State:
        get_stream_writer()({"note": 1})
        return {}

    for modes, wanted in ((["updates"], 0), (["custom", "updates"], 1)):
        sink = StreamEvents()
        list(stream_from_tap(graph(note), QUESTION, {}, sink, {"stream_mode": modes, "subgraphs": False}))
        assert sum(type(event).__name__ == "Custom" for event in sink.events) == wanted
