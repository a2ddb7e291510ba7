"""Agents that ask and remember, without a checkpointer of their own: the server's store is all the memory they have.

What their models say tells what they were given, so that any client can judge it: the outputs of tools, and the
conversation as the model sees it.
"""

from __future__ import annotations

import operator
from collections.abc import Iterable
from typing import Annotated, Any

from langchain.agents import create_agent
from langchain.agents.middleware import HumanInTheLoopMiddleware
from langchain_core.messages import AIMessage, AIMessageChunk, BaseMessage, HumanMessage, ToolMessage
from langchain_core.runnables import RunnableLambda
from langgraph.graph import START, MessagesState, StateGraph
from langgraph.types import interrupt

from tests.support.chunks import call, finish, text
from tests.support.models import Call, ModelError, ScriptedChatModel, Step
from tests.support.scenarios.base import Agent, Factory, model
from tests.support.scenarios.calls import CALLS_END, ONE_CALL
from tests.support.tools import get_weather, send_email


def transcript(messages: Iterable[BaseMessage]) -> str:
    """A conversation in one line: `u:` people, `a:` the agent, `t:` tools."""
    marks = {HumanMessage: "u", AIMessage: "a", AIMessageChunk: "a", ToolMessage: "t"}
    said = [f"{marks.get(type(each), 's')}:{each.text}" for each in messages if each.text]
    return " | ".join(said)


def _outputs(asked: Call) -> list[Step]:
    """Say what the tools of this turn brought, in the order of their calls."""
    last = max(place for place, each in enumerate(asked.messages) if isinstance(each, AIMessage))
    outputs = [each.text for each in asked.messages[last:] if isinstance(each, ToolMessage)]
    return [*text("Outputs: ", " & ".join(outputs)), *finish()]


def _heard(asked: Call) -> list[Step]:
    return [*text("I heard ", f"[{transcript(asked.messages)}]"), *finish()]


def _mails(*cities: str) -> list[AIMessageChunk]:
    mails = [
        call("send_email", f'{{"to": "{city}@b.example", ', '"body": "Hi"}', id=f"call_{city}", index=place)
        for place, city in enumerate(cities)
    ]
    return [*text("I will write. "), *(chunk for mail in mails for chunk in mail), *CALLS_END]


def _approval(*cities: str, end: Any = _outputs, decisions: Any = ("approve", "edit", "reject")) -> Factory:
    return lambda: create_agent(
        model(_mails(*cities), end),
        tools=[send_email, get_weather],
        middleware=[HumanInTheLoopMiddleware(interrupt_on={"send_email": {"allowed_decisions": list(decisions)}})],
    )


def _fails_once() -> Agent:
    """The model fails when it is first told of the outputs."""
    asked: list[Call] = []

    def end(call: Call) -> list[Step]:
        asked.append(call)
        return [ModelError] if len(asked) == 1 else _outputs(call)

    return _approval("oslo", end=end)()


def _questions(*names: str) -> Factory:
    """Nodes that ask at the same time, and one that tells the answers."""

    def asking(name: str) -> Any:
        async def ask(state: MessagesState) -> dict[str, Any]:
            return {"messages": [AIMessage(f"{name}={interrupt({'question': name})}", id=f"said-{name}")]}

        return ask

    def make() -> Agent:
        graph = StateGraph(MessagesState)
        for name in names:
            graph.add_node(name, asking(name))
            graph.add_edge(START, name)
        return graph.compile()

    return make


class CountingState(MessagesState):
    """State beside the messages."""

    turns: Annotated[int, operator.add]


def _counting() -> Agent:
    """Tells how many turns there were, which no message says, and what it heard."""

    async def count(state: CountingState) -> dict[str, Any]:
        turns = state.get("turns", 0) + 1
        said = AIMessage(f"Turn {turns} after [{transcript(state['messages'])}]")
        return {"messages": [said], "turns": 1}

    graph = StateGraph(CountingState)
    graph.add_node("count", count)
    graph.add_edge(START, "count")
    return graph.compile()


def _client(*turns: Any, tools: tuple[Any, ...] = ()) -> Factory:
    def make() -> Agent:
        from agent_server.middleware import RequestOptions

        return create_agent(ScriptedChatModel(turns=list(turns)), tools=list(tools), middleware=[RequestOptions()])

    return make


def _plain() -> Agent:
    """A Runnable that is no graph, and is told everything each time."""
    return RunnableLambda(lambda messages: f"I heard [{transcript(messages)}]")


_BOTH_CALLS = [
    *call("send_email", '{"to": "a@b.example", ', '"body": "Hi"}', id="call_mail"),
    *call("get_weather", '{"city": ', '"Oslo"}', id="call_oslo", index=1),
    *CALLS_END,
]

ASKING: dict[str, Factory] = {
    "approval": _approval("oslo"),
    "two_approvals": _approval("oslo", "rome"),
    "only_approves": _approval("oslo", decisions=["approve"]),
    "fails_once": _fails_once,
    "question": _questions("city"),
    "two_questions": _questions("city", "unit"),
    "counting": lambda: _counting(),
    "hearing": lambda: create_agent(model(_heard), tools=[]),
    "looking": lambda: create_agent(model(ONE_CALL, _heard), tools=[get_weather]),
    "plain": _plain,
    "client_tool": _client(ONE_CALL, _outputs),
    "client_and_server_tool": _client(_BOTH_CALLS, _outputs, tools=(send_email,)),
}
"""Each factory makes a fresh agent."""
