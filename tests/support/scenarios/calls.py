"""Scenarios with tool calls, in every shape in which providers stream them and every way tools end."""

from __future__ import annotations

from collections.abc import Awaitable, Callable
from typing import Any

from langchain.agents import create_agent
from langchain.agents.middleware import wrap_tool_call
from langchain.agents.middleware.types import AgentMiddleware, ToolCallRequest
from langchain_core.messages import AIMessageChunk, ToolMessage
from langgraph.graph import START, MessagesState, StateGraph
from langgraph.prebuilt import ToolNode, tools_condition
from langgraph.types import Command

from tests.support.chunks import blocks, call, finish, piece, text, tools, usage
from tests.support.models import Call, ScriptedChatModel, SilentChatModel, Step
from tests.support.scenarios.base import Agent, Factory, agent, client_agent, model
from tests.support.tools import broken_weather, closed_weather, get_status, get_weather, send_email

CALLS_END = finish("tool_calls")
OSLO = ('{"ci', 'ty": "', "Oslo", '"}')
ROME = ('{"city"', ': "Rome"}')
ONE_CALL = [*call("get_weather", *OSLO, id="call_oslo"), *CALLS_END]
TWO_CALLS = [
    *call("get_weather", *OSLO, id="call_oslo"),
    *call("get_weather", *ROME, id="call_rome", index=1),
    *CALLS_END,
]
SUNNY = [*text("It is ", "sunny."), *finish()]


def _interleaved() -> list[AIMessageChunk]:
    chunks = [tools(piece("", name="get_weather", id=f"call_{c}", index=i)) for i, c in enumerate(("oslo", "rome"))]
    for oslo, rome in (('{"city": ', '{"city": '), ('"Oslo"}', '"Rome"}')):
        chunks += [tools(piece(oslo, index=0)), tools(piece(rome, index=1))]
    return [*chunks, *CALLS_END]


def _anthropic() -> list[AIMessageChunk]:
    """Anthropic repeats the call as `tool_use` and `input_json_delta` blocks in the content list."""
    head = {"type": "tool_use", "id": "toolu_oslo", "name": "get_weather", "input": {}, "index": 1}
    deltas = ({"type": "input_json_delta", "partial_json": part, "index": 1} for part in OSLO)
    return [
        *blocks({"type": "text", "text": "Let me look.", "index": 0}),
        AIMessageChunk(content=[head], tool_call_chunks=[piece("", name="get_weather", id="toolu_oslo", index=1)]),
        *(
            AIMessageChunk(content=[delta], tool_call_chunks=[piece(part, index=1)])
            for delta, part in zip(deltas, OSLO, strict=True)
        ),
        *finish("tool_use"),
    ]


def _once_more(asked: Call) -> list[Step]:
    """Another call, whatever the last one brought."""
    return [*call("get_weather", *OSLO, id=f"call_{len(asked.messages)}"), *CALLS_END]


def _never_streamed() -> Agent:
    """LangChain's `disable_streaming="tool_calling"`: the call arrives with the end of the model call."""
    planner = ScriptedChatModel(turns=[ONE_CALL], disable_streaming="tool_calling").bind_tools([get_weather])
    writer = model([], SUNNY)

    async def plan(state: MessagesState) -> dict[str, Any]:
        return {"messages": [await planner.ainvoke(state["messages"])]}

    async def answer(state: MessagesState) -> dict[str, Any]:
        return {"messages": [await writer.ainvoke(state["messages"])]}

    graph = StateGraph(MessagesState)
    graph.add_node("plan", plan)
    graph.add_node("tools", ToolNode([get_weather]))
    graph.add_node("answer", answer)
    graph.add_edge(START, "plan")
    graph.add_edge("plan", "tools")
    graph.add_edge("tools", "answer")
    return graph.compile()


def _silent_with_tools() -> Agent:
    return create_agent(SilentChatModel(turns=[[*text("Looking. "), *ONE_CALL], SUNNY]), tools=[get_weather])


def _tool_node(handler: str) -> Factory:
    """A hand-written loop of a model and a `ToolNode` that turns errors into this text."""

    def make() -> Agent:
        chat = model(
            [*call("broken_weather", *OSLO, id="call_oslo"), *CALLS_END],
            [*text("The station ", "is down."), *finish()],
        )

        async def ask(state: MessagesState) -> dict[str, Any]:
            return {"messages": [await chat.ainvoke(state["messages"])]}

        graph = StateGraph(MessagesState)
        graph.add_node("ask", ask)
        graph.add_node("tools", ToolNode([broken_weather], handle_tool_errors=handler))
        graph.add_edge(START, "ask")
        graph.add_conditional_edges("ask", tools_condition)
        graph.add_edge("tools", "ask")
        return graph.compile()

    return make


def _soften() -> AgentMiddleware[Any, Any, Any]:
    @wrap_tool_call
    async def soften(
        request: ToolCallRequest, handler: Callable[[ToolCallRequest], Awaitable[ToolMessage | Command[Any]]]
    ) -> ToolMessage | Command[Any]:
        try:
            return await handler(request)
        except RuntimeError:
            said = "The station does not answer."
            return ToolMessage(said, tool_call_id=request.tool_call["id"], status="error")

    return soften


CALLS: dict[str, Factory] = {
    "text_tool_text": agent(
        [*text("Let me ", "look. "), *ONE_CALL],
        [*text("It is ", "sunny ", "in Oslo."), *finish()],
        tools=[get_weather],
    ),
    "one_tool": agent(ONE_CALL, SUNNY, tools=[get_weather]),
    "two_tools_in_turn": agent(
        ONE_CALL, [*call("get_weather", *ROME, id="call_rome"), *CALLS_END], SUNNY, tools=[get_weather]
    ),
    "two_parallel_tools": agent(TWO_CALLS, SUNNY, tools=[get_weather]),
    "interleaved_arguments": agent(_interleaved(), SUNNY, tools=[get_weather]),
    "two_calls_in_one_chunk": agent(
        [
            tools(
                piece('{"city": "Oslo"}', name="get_weather", id="call_oslo", index=0),
                piece('{"city": "Rome"}', name="get_weather", id="call_rome", index=1),
            ),
            *CALLS_END,
        ],
        SUNNY,
        tools=[get_weather],
    ),
    "calls_without_index": agent(
        [
            tools(piece('{"city": "Oslo"}', name="get_weather", id="call_oslo", index=None)),
            tools(piece('{"city": "Rome"}', name="get_weather", id="call_rome", index=None)),
            *CALLS_END,
        ],
        SUNNY,
        tools=[get_weather],
    ),
    "name_and_arguments_in_one_chunk": agent(
        [tools(piece('{"city": "Oslo"}', name="get_weather", id="call_oslo")), *CALLS_END],
        SUNNY,
        tools=[get_weather],
    ),
    "tool_call_in_content": agent(_anthropic(), SUNNY, tools=[get_weather]),
    "arguments_never_streamed": _never_streamed,
    "empty_arguments": agent([*call("get_status", id="call_status"), *CALLS_END], SUNNY, tools=[get_status]),
    "invalid_arguments": agent(
        [*text("Trying. "), *call("get_weather", "city:", " Oslo", id="call_oslo"), *CALLS_END],
        tools=[get_weather],
    ),
    "valid_and_invalid_arguments": agent(
        [
            *call("get_weather", *OSLO, id="call_oslo"),
            *call("get_weather", "city: Rome", id="call_bad", index=1),
            *CALLS_END,
        ],
        SUNNY,
        tools=[get_weather],
    ),
    "wrong_arguments": agent(
        [*call("get_weather", '{"town": "Oslo"}', id="call_oslo"), *CALLS_END],
        [*text("I cannot tell."), *finish()],
        tools=[get_weather],
    ),
    "unknown_tool": agent(
        [*call("get_tides", '{"city": "Oslo"}', id="call_tides"), *CALLS_END],
        [*text("I cannot tell."), *finish()],
        tools=[get_weather],
    ),
    "non_streaming_model_with_tool": _silent_with_tools,
    "tool_error_handled": _tool_node("The station is down."),
    "tool_error_exception": agent(
        [*call("closed_weather", *OSLO, id="call_oslo"), *CALLS_END],
        [*text("It is ", "closed."), *finish()],
        tools=[closed_weather],
    ),
    "tool_error_middleware": lambda: create_agent(
        model(
            [*call("broken_weather", *OSLO, id="call_oslo"), *CALLS_END],
            [*text("No ", "answer."), *finish()],
        ),
        tools=[broken_weather],
        middleware=[_soften()],
    ),
    "tool_error_fatal": agent(
        [*text("Asking. "), *call("broken_weather", *OSLO, id="call_oslo"), *CALLS_END],
        SUNNY,
        tools=[broken_weather],
    ),
    "client_tool": client_agent(ONE_CALL, SUNNY),
    "client_and_server_tool": client_agent(
        [
            *call("send_email", '{"to": "a@b.example", ', '"body": "Hi"}', id="call_mail"),
            *call("get_weather", *OSLO, id="call_oslo", index=1),
            *CALLS_END,
        ],
        SUNNY,
        tools=[send_email],
    ),
    "usage_over_two_turns": agent(
        [
            *call("get_weather", *OSLO, id="call_oslo"),
            *finish("tool_calls", tokens=usage(100, 20, cached=60, cache_write=7, reasoning=12)),
        ],
        [*text("Sunny."), *finish(tokens=usage(130, 8, cached=100, reasoning=3))],
        tools=[get_weather],
    ),
    "recursion_limit": lambda: create_agent(model(_once_more), tools=[get_weather]).with_config(recursion_limit=5),
}
