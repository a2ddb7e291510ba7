"""The tap yields what `astream_events` yields, and both let go of an agent that is cancelled."""

from __future__ import annotations

import asyncio
import threading
from collections.abc import AsyncIterator, Callable, Iterator
from typing import Any

import orjson
import pytest
from langchain.agents import create_agent
from langchain_core.callbacks import (
    AsyncCallbackManager,
    AsyncCallbackManagerForLLMRun,
    BaseCallbackHandler,
    CallbackManagerForRetrieverRun,
)
from langchain_core.documents import Document
from langchain_core.language_models.fake import FakeListLLM
from langchain_core.language_models.llms import LLM
from langchain_core.messages import AIMessage, AIMessageChunk, BaseMessage
from langchain_core.outputs import GenerationChunk
from langchain_core.retrievers import BaseRetriever
from langchain_core.runnables import Runnable, RunnableConfig, RunnableLambda
from langchain_core.runnables.schema import StreamEvent
from langchain_core.tools import tool
from langgraph.graph import START, MessagesState, StateGraph

from agent_server import events as ev
from agent_server.context import RequestContext
from agent_server.events import Event
from agent_server.graph.agent import open_agent
from agent_server.graph.converter import Converter, step_of, unpack
from agent_server.graph.drive import Invocation, Recorder, drive
from agent_server.graph.jsonable import to_jsonable
from agent_server.graph.source import SourceName, from_tap
from agent_server.protocols.responses.request import parse_request
from tests.conformance.expected import QUESTION, REQUESTS
from tests.support.gates import Calls, Gate
from tests.support.play import RUN_ID, Settled, fixed_converter, play
from tests.support.scripted import SCENARIOS, ScriptedChatModel, chunks, gated_text

READ = {
    "on_chat_model_start": (),
    "on_chat_model_stream": ("chunk",),
    "on_chat_model_end": ("output",),
    "on_llm_start": (),
    "on_llm_stream": ("chunk",),
    "on_llm_end": ("output",),
    "on_tool_start": ("input",),
    "on_tool_end": ("output",),
    "on_tool_error": ("error", "tool_call_id"),
    "on_chain_start": ("input",),
    "on_chain_end": ("output",),
    "on_custom_event": (),
}
"""What the converter reads of the data of each callback's event. The root's own chunks are compared apart."""

_LLM_TEXTS: dict[str, Callable[[Any], str]] = {
    "on_llm_stream": lambda data: getattr(data["chunk"], "text", data["chunk"]),
    "on_llm_end": lambda data: data["output"]["generations"][0][0]["text"],
}
"""Of language models without messages it reads the texts alone, whatever they are wrapped in."""

ASKED = {"input": QUESTION}
RECORD = frozenset({"custom"})


class Recording(Recorder):
    """Renders the stream events that the converter reads, at once, for they lend what they hold."""

    def __init__(self) -> None:
        self.converter = fixed_converter()
        self.callbacks: list[str] = []
        self.root_chunks: list[str] = []
        self.only_in_tap: list[str] = []
        self.events: list[Event] = []
        super().__init__(self.converter, self.events.append)

    def feed(self, event: StreamEvent) -> None:
        """One stream event."""
        name, data = event["event"], dict(event["data"])
        told = {key: event.get(key) for key in ("name", "run_id", "tags", "metadata", "parent_ids")}
        if name == "on_chain_stream":
            if not event["parent_ids"]:
                self.root_chunks.append(_rendered({**told, "chunk": _as_read(data["chunk"])}))
        elif name in READ:
            read = data if name == "on_custom_event" else {key: data.get(key) for key in READ[name]}
            if name in _LLM_TEXTS:
                read = {"text": _LLM_TEXTS[name](data)}
            of_chain = name.startswith("on_chain") and event["parent_ids"] and not step_of(event)
            self.callbacks.append(_rendered({"event": name, **told, "data": None if of_chain else read}))
            if name in ("on_tool_start", "on_tool_end") and "tool_call_id" in data:
                self.only_in_tap.append(name)
        elif name == "on_chat_model_error":
            self.only_in_tap.append(name)
        super().feed(event)

    def chunks(self, model_run_id: str) -> Callable[[Any], None] | None:
        """No short way: every chunk is to come as an event."""
        return None


def _as_read(chunk: Any) -> Any:
    """Of a graph's updates the converter reads no more than which they are."""
    ns, mode, data = unpack(chunk)
    return (ns, mode, sorted(data)) if mode == "updates" and "__interrupt__" not in data else chunk


def _rendered(value: Any) -> str:
    return orjson.dumps(to_jsonable(value), option=orjson.OPT_SORT_KEYS).decode()


async def listen(target: Any, request: dict[str, Any], source: SourceName) -> Recording:
    """What a source tells of one run, however it ends."""
    asked, recording = parse_request(request), Recording()
    async with open_agent("agent", target) as agent:
        context = RequestContext(options=asked.options)
        invocation = Invocation(RUN_ID, agent, asked.turns, context, source, RECORD)
        try:
            await drive(invocation, recording)
        except (RuntimeError, ValueError) as error:
            recording.callbacks.append(type(error).__name__)
    return recording


def _settled(texts: list[str]) -> list[str]:
    settled = Settled()
    return [settled.text(text) for text in texts]


def _each_settled(texts: list[str]) -> list[str]:
    """In any order: tasks that run at once report to the graph's stream as they come."""
    return sorted(Settled().text(text) for text in texts)


class Searcher(BaseRetriever):
    """A retriever that asks a model for a better query, as `MultiQueryRetriever` does."""

    model: ScriptedChatModel

    def _get_relevant_documents(self, query: str, *, run_manager: CallbackManagerForRetrieverRun) -> list[Document]:
        better = self.model.invoke(query, config={"callbacks": run_manager.get_child()})
        return [Document(f"About {better.text}.")]


def _searching_agent() -> Runnable[Any, Any]:
    retriever = Searcher(model=ScriptedChatModel(turns=[[*chunks.text("better ", "query"), *chunks.finish()]]))

    @tool
    async def search(query: str) -> str:
        """Search."""
        return (await retriever.ainvoke(query))[0].page_content

    call = chunks.call("search", '{"query": "sun"}', id="call_search")
    turns = [[*call, *chunks.finish("tool_calls")], [*chunks.text("Found."), *chunks.finish()]]
    return create_agent(ScriptedChatModel(turns=turns), tools=[search])


class Spelling(LLM):
    """A language model without messages that streams."""

    @property
    def _llm_type(self) -> str:
        return "spelling"

    def _call(self, prompt: str, stop: list[str] | None = None, run_manager: Any = None, **kwargs: Any) -> str:
        return "abc"

    async def _astream(
        self,
        prompt: str,
        stop: list[str] | None = None,
        run_manager: AsyncCallbackManagerForLLMRun | None = None,
        **kwargs: Any,
    ) -> AsyncIterator[GenerationChunk]:
        for letter in "abc":
            if run_manager is not None:
                await run_manager.on_llm_new_token(letter)
            yield GenerationChunk(text=letter)


TARGETS: dict[str, Any] = {
    **SCENARIOS,
    "retriever_in_tool": _searching_agent,
    "language_model": lambda: FakeListLLM(responses=["Whole."]),
    "streaming_language_model": Spelling(),
}


@pytest.mark.parametrize("name", TARGETS)
async def test_the_tap_yields_the_callbacks_of_astream_events(name: str) -> None:
    request = {**ASKED, **REQUESTS.get(name, {})}
    tap = await listen(TARGETS[name], request, "tap")
    plain = await listen(TARGETS[name], request, "astream_events")
    assert _settled(tap.callbacks) == _settled(plain.callbacks)
    assert _each_settled(tap.root_chunks) == _each_settled(plain.root_chunks)


@pytest.mark.parametrize("name", TARGETS)
async def test_both_sources_are_converted_to_the_same_events(name: str) -> None:
    request = {**ASKED, **REQUESTS.get(name, {})}
    tap = Settled().events(await play(name, TARGETS[name], request, record=RECORD))
    plain = Settled().events(await play(name, TARGETS[name], request, source="astream_events", record=RECORD))
    assert _callbacks(tap) == _callbacks(plain)
    assert _written(tap) == _written(plain)


def _callbacks(events: list[Event]) -> list[Event]:
    return [event for event in events if not _is_written(event)]


def _written(events: list[Event]) -> list[Event]:
    """What stream writers wrote: the graph's own chunks, which reach the tap by another way than callbacks do."""
    return [event for event in events if _is_written(event)]


def _is_written(event: Event) -> bool:
    return isinstance(event, ev.Custom) and event.name == "custom"


async def test_only_the_tap_tells_the_call_id_of_a_tool_run() -> None:
    assert (await listen(SCENARIOS["one_tool"], ASKED, "tap")).only_in_tap == ["on_tool_start", "on_tool_end"]
    assert (await listen(SCENARIOS["one_tool"], ASKED, "astream_events")).only_in_tap == []


async def test_only_the_tap_tells_that_a_model_call_failed() -> None:
    told = await listen(SCENARIOS["model_error_after_first_token"], ASKED, "tap")
    assert told.only_in_tap == ["on_chat_model_error"]
    untold = await listen(SCENARIOS["model_error_after_first_token"], ASKED, "astream_events")
    assert untold.only_in_tap == []


@pytest.mark.parametrize("source", ["tap", "astream_events"])
async def test_what_a_model_says_inside_a_retriever_of_a_tool_belongs_to_the_tool(source: SourceName) -> None:
    events = await play("search", _searching_agent, ASKED, source=source)
    started = [event for event in events if isinstance(event, ev.MessageStarted)]
    assert [message.parent_call_id for message in started] == ["", "call_search", ""]


async def test_the_fallback_heeds_the_recursion_limit_of_a_graph() -> None:
    events = await play("limited", SCENARIOS["recursion_limit"], ASKED, source="astream_events")
    assert len([event for event in events if isinstance(event, ev.MessageStarted)]) == 3


# Cancellation


async def _cancelled(target: Any, reached: Gate, source: SourceName = "tap") -> list[Event]:
    return await play("cancelled", target, ASKED, source=source, cancel_at=reached)


@pytest.mark.parametrize("source", ["tap", "astream_events"])
async def test_a_cancelled_run_stops_at_the_next_await_of_its_model(source: SourceName) -> None:
    gate = Gate()
    events = await _cancelled(gated_text(["Never "], gate, ["more"]), gate, source)
    assert [event.text for event in events if isinstance(event, ev.TextDelta)] == ["Never "]
    assert isinstance(events[-1], ev.RunCancelled)


async def test_a_synchronous_node_stops_at_its_next_callback_after_the_run_was_cancelled() -> None:
    gate, went_on, ended = Gate(), threading.Event(), threading.Event()
    model = ScriptedChatModel(
        turns=[[*chunks.text("one"), gate, *chunks.text("two"), Calls(went_on.set), *chunks.finish()]]
    )

    def node(state: MessagesState) -> dict[str, Any]:
        try:
            return {"messages": [model.invoke(state["messages"])]}
        finally:
            ended.set()

    graph = StateGraph(MessagesState)
    graph.add_node("node", node)
    graph.add_edge(START, "node")
    events = await _cancelled(graph.compile(), gate)
    assert isinstance(events[-1], ev.RunCancelled)
    gate.open()
    assert await asyncio.to_thread(ended.wait, 10)
    assert not went_on.is_set(), "the model was asked for another chunk after the callback of the second"


class Letters(Runnable[Any, str]):
    """A custom Runnable that is synchronous only; it spells until it is stopped."""

    def __init__(self, gate: Gate | None = None) -> None:
        self.gate = gate
        self.thread: int | None = None
        self.spelled: list[str] = []
        self.ended = threading.Event()

    def invoke(self, input: Any, config: RunnableConfig | None = None, **kwargs: Any) -> str:
        return "".join(self.stream(input, config))

    def stream(self, input: Any, config: RunnableConfig | None = None, **kwargs: Any) -> Iterator[str]:
        self.thread = threading.get_ident()
        try:
            for letter in "abc":
                self.spelled.append(letter)
                yield letter
                if self.gate is not None:
                    self.gate.wait()
        finally:
            self.ended.set()


async def test_a_synchronous_runnable_streams_from_a_thread_while_the_event_loop_goes_on() -> None:
    gate = Gate()
    letters = Letters(gate)

    async def open_gate() -> None:
        await gate.reached()  # only a loop that goes on gets here while the Runnable waits
        gate.open()

    opener = asyncio.create_task(open_gate())
    events = await play("letters", letters, ASKED)
    await opener
    assert letters.thread != threading.get_ident()
    assert [event.text for event in events if isinstance(event, ev.TextDelta)] == ["a", "b", "c"]
    assert isinstance(events[-1], ev.RunFinished)


async def test_a_synchronous_runnable_stops_at_its_next_chunk_after_the_run_was_cancelled() -> None:
    gate = Gate()
    letters = Letters(gate)
    events = await _cancelled(letters, gate)
    assert [event.text for event in events if isinstance(event, ev.TextDelta)] == ["a"]
    assert isinstance(events[-1], ev.RunCancelled)
    gate.open()
    assert await asyncio.to_thread(letters.ended.wait, 10)
    assert letters.spelled == ["a", "b"]


# What a Runnable yields


def _whole(messages: list[BaseMessage]) -> AIMessage:
    return AIMessage(content="Whole.", usage_metadata=chunks.usage(3, 4))


async def _pieces(messages: list[BaseMessage]) -> Any:
    yield AIMessageChunk(content="In ")
    yield AIMessageChunk(content="pieces.", usage_metadata=chunks.usage(3, 4))


@pytest.mark.parametrize("source", ["tap", "astream_events"])
@pytest.mark.parametrize(
    ("target", "texts"), [(RunnableLambda(_whole), ["Whole."]), (RunnableLambda(_pieces), ["In ", "pieces."])]
)
async def test_messages_that_a_runnable_yields_are_its_answer(
    target: Runnable[Any, Any], texts: list[str], source: SourceName
) -> None:
    events = await play("runnable", target, ASKED, source=source)
    assert [event.text for event in events if isinstance(event, ev.TextDelta)] == texts
    assert len([event for event in events if isinstance(event, ev.MessageFinished)]) == 1
    last = events[-1]
    assert isinstance(last, ev.RunFinished)
    assert last.usage == ev.Usage(3, 4, 7)


class Counter(BaseCallbackHandler):
    """Somebody else's handler."""

    def __init__(self) -> None:
        self.heard = 0

    def on_chain_start(self, *args: Any, **kwargs: Any) -> None:
        self.heard += 1


@pytest.mark.parametrize("wrap", [list, AsyncCallbackManager])
async def test_handlers_that_came_with_the_config_hear_the_run_beside_the_tap(wrap: Callable[[Any], Any]) -> None:
    counter, recording = Counter(), Recording()
    callbacks = wrap([counter])
    await from_tap(RunnableLambda(str), "hi", {"callbacks": callbacks}, recording, {})
    assert counter.heard == 1
    assert recording.callbacks
    assert getattr(callbacks, "handlers", callbacks) == [counter], "the given callbacks are left as they were"


def test_the_converter_has_a_reader_for_each_callback_that_is_compared() -> None:
    readers = set(Converter()._readers)
    assert readers == {*READ, "on_chain_stream", "on_chat_model_error"}
