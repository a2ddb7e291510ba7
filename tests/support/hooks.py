"""The agents that LangChain's React hooks are judged with: what a person says decides what they do.

| said            | done                                                        |
|-----------------|-------------------------------------------------------------|
| `weather Paris` | a tool call, and an answer that tells its output            |
| `wait`          | tokens, then nothing until the agent `opener` ran, then more |
| `boom`          | the model raises `ValueError("boom")`                       |
| anything else   | `You said: ...`, word by word                               |
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Annotated, Any, TypedDict

from langchain.agents import create_agent
from langchain_core.messages import AIMessage, AnyMessage, HumanMessage, ToolMessage
from langgraph.config import get_stream_writer
from langgraph.graph import START, StateGraph
from langgraph.graph.message import add_messages
from langgraph.types import interrupt

from tests.support.chunks import call, finish, text
from tests.support.gates import Gate
from tests.support.models import Call, ScriptedChatModel, Step
from tests.support.tools import get_weather

TOKENS = [f"t{number} " for number in range(20)]


class State(TypedDict, total=False):
    messages: Annotated[list[AnyMessage], add_messages]
    approved: Any


def agents() -> dict[str, Any]:
    """`agent`, `hitl`, `custom` and `opener`."""
    gates: list[Gate] = []

    def answer(asked: Call) -> Sequence[Step]:
        last = asked.messages[-1]
        said = str(next(each for each in reversed(asked.messages) if isinstance(each, HumanMessage)).text)
        if isinstance(last, ToolMessage):
            return [*text(*_words(f"The tool said: {last.text}")), *finish()]
        if said.startswith("weather "):
            return [*call("get_weather", '{"city": ', f'"{said[8:]}"}}', id="call_1"), *finish("tool_calls")]
        if said == "wait":
            gates.append(Gate())
            return [*text(*TOKENS[:8]), gates[-1], *text(*TOKENS[8:]), *finish()]
        if said == "boom":
            raise ValueError("boom")
        return [*text(*_words(f"You said: {said}")), *finish()]

    async def opens(state: State) -> dict[str, Any]:
        for gate in gates:
            gate.open()
        return {"messages": [AIMessage("opened")]}

    chat = ScriptedChatModel(turns=[answer])
    return {
        "agent": create_agent(chat, tools=[get_weather]),
        "hitl": _line(ask=_ask, act=_act),
        "custom": _line(child=_line(emit=_emit)),
        "opener": _line(open=opens),
    }


def _words(said: str) -> list[str]:
    return [f"{word} " for word in said.split(" ")]


def _line(**nodes: Any) -> Any:
    graph = StateGraph(State)
    before = START
    for name, node in nodes.items():
        graph.add_node(name, node)
        graph.add_edge(before, name)
        before = name
    return graph.compile()


def _ask(state: State) -> dict[str, Any]:
    return {"approved": interrupt({"question": "Proceed?"})}


async def _act(state: State) -> dict[str, Any]:
    return {"messages": [AIMessage(f"approved={state['approved']}")]}


async def _emit(state: State) -> dict[str, Any]:
    for number in range(3):
        get_stream_writer()({"progress": number})
    return {"messages": [AIMessage("emitted")]}
