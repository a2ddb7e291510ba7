"""Stream events of several models, tools and nodes at once, in any order and in the oddest shapes."""

from __future__ import annotations

from typing import Any

from hypothesis import strategies as st
from langchain_core.messages import AIMessage, AIMessageChunk, HumanMessage, RemoveMessage, ToolMessage
from langchain_core.messages.tool import invalid_tool_call, tool_call, tool_call_chunk
from langchain_core.outputs import GenerationChunk
from langgraph.errors import GraphInterrupt
from langgraph.types import Command, Interrupt

from agent_server import events as ev
from agent_server.events import Event
from agent_server.graph.converter import Converter
from tests.support.chunks import usage
from tests.support.play import AT, RUN_ID, fixed_converter
from tests.support.told import Told, event

CLIENT_TOOL = "client_tool"
Pairs = list[tuple[str, dict[str, Any]]]

call_ids = st.sampled_from(["call_a", "call_b", "call_c"])
tool_names = st.sampled_from(["search", "send", CLIENT_TOOL])
texts = st.sampled_from(["", "a", "bc", "\u2028", "\ud83d", "😀"])
arguments_read = st.just({"a": 1})
arguments = st.sampled_from(["", "{", "}", "{}", '{"a": 1}', '"a"', "\ud83d", "no json"])
citations: st.SearchStrategy[Any] = st.sampled_from(
    [
        {"type": "citation", "url": "https://a.example", "title": "A", "start_index": 0, "end_index": 1},
        {"type": "citation", "title": "Without an address"},
        {"type": "char_location", "cited_text": "a", "document_title": "D"},
        {"type": "file_citation", "file_id": "file_1", "index": 3},
    ]
)
call_pieces: st.SearchStrategy[Any] = st.builds(
    tool_call_chunk,
    name=st.none() | tool_names,
    args=st.none() | arguments,
    id=st.none() | call_ids,
    index=st.none() | st.integers(0, 1),
)
indexes: st.SearchStrategy[Any] = st.none() | st.integers(0, 1)
blocks: st.SearchStrategy[Any] = st.one_of(
    st.builds(lambda text, index: {"type": "text", "text": text, "index": index}, texts, indexes),
    st.builds(lambda text, a: {"type": "text", "text": text, "annotations": [a], "index": 0}, texts, citations),
    st.builds(lambda text, index: {"type": "reasoning", "reasoning": text, "index": index}, texts, indexes),
    st.builds(lambda text: {"type": "thinking", "thinking": text, "signature": "c2ln", "index": 0}, texts),
    st.builds(lambda text: {"type": "refusal", "refusal": text, "index": 1}, texts),
    st.just({"type": "image", "base64": "aGk=", "mime_type": "image/png", "index": 1}),
    st.just({"type": "audio", "id": "sound", "index": 1}),
    st.just({"type": "unheard_of", "index": 0}),
)
content: st.SearchStrategy[Any] = texts | st.lists(texts | blocks, max_size=2)
chunks = st.builds(
    AIMessageChunk,
    content=content,
    additional_kwargs=st.just({}) | st.builds(lambda text: {"refusal": text}, texts),
    tool_call_chunks=st.lists(call_pieces, max_size=2),
    id=st.sampled_from([None, "provider-1"]),
)
endings: st.SearchStrategy[Any] = st.sampled_from(
    [{}, {"finish_reason": "stop"}, {"finish_reason": "length"}, {"stop_reason": "refusal"}]
)
messages = st.builds(
    AIMessage,
    content=content,
    tool_calls=st.lists(
        st.builds(tool_call, name=tool_names, args=st.just({"a": 1}), id=st.none() | call_ids), max_size=2
    ),
    invalid_tool_calls=st.lists(
        st.builds(invalid_tool_call, name=tool_names, args=arguments, id=call_ids, error=st.none()), max_size=1
    ),
    response_metadata=endings,
    usage_metadata=st.sampled_from([None, usage(3, 4)]),
    id=st.sampled_from([None, "answer-1", "answer-2"]),
)
tool_messages: st.SearchStrategy[Any] = st.builds(
    ToolMessage,
    content=texts | st.just([{"type": "text", "text": "found"}, {"type": "image", "url": "https://a.example/i.png"}]),
    tool_call_id=call_ids,
    status=st.sampled_from(["success", "error"]),
    id=st.sampled_from([None, "tool-message-1"]),
)
interrupts: st.SearchStrategy[Interrupt] = st.builds(
    Interrupt,
    value=st.sampled_from(
        [
            "Which city?",
            {"question": "Which?"},
            {"action_requests": [{"name": "send", "args": {"to": "a"}}], "review_configs": []},
            {"type": "client_tool_call", "tool_call_id": "call_a"},
        ]
    ),
    id=st.sampled_from(["interrupt-1", "interrupt-2"]),
)


@st.composite
def model_runs(draw: st.DrawFn, run: str) -> Told:
    """A model call: hidden or not, inside a tool or not; it may fail, or never end."""
    inside = draw(st.sampled_from([("root",), ("root", "tool-0")]))
    tags = draw(st.sampled_from([[], [], ["nostream"]]))
    told: Pairs = [("on_chat_model_start", {"input": {}})]
    told += [("on_chat_model_stream", {"chunk": chunk}) for chunk in draw(st.lists(chunks, max_size=5))]
    ends: list[Pairs] = [[("on_chat_model_end", {"output": draw(messages)})], [("on_chat_model_error", {})], []]
    told += draw(st.sampled_from(ends))
    return [event(kind, run, data, inside=inside, tags=tags) for kind, data in told]


@st.composite
def text_model_runs(draw: st.DrawFn, run: str) -> Told:
    """A call of a language model without messages."""
    text = draw(texts)
    streamed: Pairs = [("on_llm_stream", {"chunk": GenerationChunk(text=text)})] if draw(st.booleans()) else []
    ended = {"output": {"generations": [[{"text": text}]]}}
    told: Pairs = [("on_llm_start", {"input": {}}), *streamed, ("on_llm_end", ended)]
    return [event(kind, run, data) for kind, data in told]


@st.composite
def tool_runs(draw: st.DrawFn, run: str) -> Told:
    """A tool's run: of a call that a model made or of none; once more, interrupted, failed, or without end."""
    name, call_id = draw(tool_names), draw(st.none() | call_ids)
    inside = draw(st.sampled_from([("root",), ("root", "tool-0")])) if run != "tool-0" else ("root",)
    outputs: st.SearchStrategy[Any] = st.one_of(
        texts, tool_messages, tool_messages.map(lambda m: Command(update={"messages": [m]}))
    )
    errors: list[BaseException] = [RuntimeError("secret"), GraphInterrupt((draw(interrupts),))]
    ends: list[Pairs] = [
        [("on_tool_end", {"output": draw(outputs), "tool_call_id": call_id})],
        [("on_tool_error", {"error": draw(st.sampled_from(errors)), "tool_call_id": call_id})],
        [],
    ]
    told: Pairs = [("on_tool_start", {"input": {"a": 1}, "tool_call_id": call_id}), *draw(st.sampled_from(ends))]
    return [event(kind, run, data, inside=inside, name=name) for kind, data in told]


@st.composite
def node_runs(draw: st.DrawFn, run: str) -> Told:
    """A node of a graph that returns messages of its own making."""
    returned: list[Any] = draw(st.lists(messages | tool_messages, max_size=2))
    returned += [HumanMessage("Hi"), RemoveMessage(id="answer-1")]
    metadata = {"langgraph_node": run, "langgraph_checkpoint_ns": f"{run}:task"}
    told: Pairs = [("on_chain_start", {"input": {}}), ("on_chain_end", {"output": {"messages": returned}})]
    return [event(kind, run, data, tags=["graph:step:1"], metadata=metadata) for kind, data in told]


@st.composite
def root_runs(draw: st.DrawFn, run: str) -> Told:
    """The root: chunks of a graph's stream or of a Runnable's, and a last output."""
    streamed: st.SearchStrategy[Any] = st.one_of(
        st.just(((), "custom", {"percent": 50})),
        st.just((("inner:1",), "updates", {"node": None})),
        interrupts.map(lambda interrupt: ((), "updates", {"__interrupt__": (interrupt,)})),
        texts,
        chunks,
    )
    outputs: st.SearchStrategy[Any] = st.one_of(
        texts, messages, st.just({"messages": []}), st.just({"custom_outputs": {"score": 1}})
    )
    told: Pairs = [("on_chain_start", {"input": {"messages": [HumanMessage("Hi")]}})]
    told += [("on_chain_stream", {"chunk": chunk}) for chunk in draw(st.lists(streamed, max_size=3))]
    told.append(("on_chain_end", {"output": draw(outputs)}))
    return [event(kind, run, data, inside=()) for kind, data in told]


def _custom_runs(run: str) -> st.SearchStrategy[Told]:
    return st.just([event("on_custom_event", run, {"ok": True})])


@st.composite
def stream_events(draw: st.DrawFn) -> Told:
    """The events of several runs: each in its own order, all of them in any."""
    kinds = (model_runs, model_runs, text_model_runs, tool_runs, tool_runs, node_runs, _custom_runs)
    chosen = draw(st.lists(st.sampled_from(range(len(kinds))), max_size=5))
    names = {model_runs: "model", tool_runs: "tool"}
    runs: list[Told] = [draw(root_runs("root"))]
    counts: dict[str, int] = {}
    for choice in chosen:
        name = names.get(kinds[choice], kinds[choice].__name__)
        counts[name] = counts.get(name, -1) + 1
        runs.append(draw(kinds[choice](f"{name}-{counts[name]}")))
    waiting = [list(run) for run in runs if run]
    merged: Told = []
    while waiting:
        run = draw(st.sampled_from(waiting))
        merged.append(run.pop(0))
        waiting = [left for left in waiting if left]
    return merged


def _finish(converter: Converter) -> list[Event]:
    return converter.finish()


def _limited(converter: Converter) -> list[Event]:
    return converter.finish(incomplete="recursion_limit")


def _fail(converter: Converter) -> list[Event]:
    return converter.fail(code="server_error", message="The agent failed.", error_id="err_1")


def _cancel(converter: Converter) -> list[Event]:
    return converter.cancel("client disconnected")


@st.composite
def runs(draw: st.DrawFn) -> list[Event]:
    """The events of a run whose stream was cut anywhere, and which ended in any way."""
    told = draw(stream_events())
    told = told[: draw(st.integers(0, len(told)))]
    converter = fixed_converter()
    client_tools = draw(st.sampled_from([(), (CLIENT_TOOL,)]))
    events: list[Event] = [ev.RunStarted(run_id=RUN_ID, agent="agent", at=AT, client_tools=client_tools)]
    for one in told:
        events += converter.feed(one)  # type: ignore[arg-type]
    return events + draw(st.sampled_from([_finish, _finish, _limited, _fail, _cancel]))(converter)
