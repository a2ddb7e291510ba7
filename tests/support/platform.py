"""Graphs for the LangGraph Platform API, and an app that serves them. What they are told decides what they say."""

from __future__ import annotations

import operator
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import Annotated, Any

import httpx
from langchain_core.messages import AIMessage
from langgraph.graph import END, START, MessagesState, StateGraph
from langgraph.runtime import Runtime
from langgraph.types import interrupt
from starlette.applications import Starlette
from typing_extensions import TypedDict

from agent_server.app import create_app
from agent_server.settings import Settings
from tests.support.gates import Gate


class Said(TypedDict, total=False):
    said: Annotated[list[str], operator.add]
    approved: Any


def echo() -> Any:
    """Answers every message."""

    def answer(state: MessagesState) -> dict[str, Any]:
        return {"messages": [AIMessage(f"You said: {state['messages'][-1].text}")]}

    graph = StateGraph(MessagesState)
    graph.add_node("model", answer)
    graph.add_edge(START, "model")
    graph.add_edge("model", END)
    return graph.compile()


def hitl() -> Any:
    """Asks before it acts."""

    def ask(state: Said) -> dict[str, Any]:
        return {"approved": interrupt({"question": "Proceed?"})}

    def act(state: Said) -> dict[str, Any]:
        return {"said": [f"approved={state['approved']}"]}

    graph = StateGraph(Said)
    graph.add_node("ask", ask)
    graph.add_node("act", act)
    graph.add_edge(START, "ask")
    graph.add_edge("ask", "act")
    graph.add_edge("act", END)
    return graph.compile()


def steps() -> Any:
    """Three nodes, one after the other; `boom` in what is said makes the second one fail."""

    def first(state: Said) -> dict[str, Any]:
        return {"said": ["first"]}

    def second(state: Said) -> dict[str, Any]:
        if "boom" in state["said"]:
            raise ValueError("boom")
        return {"said": ["second"]}

    def third(state: Said) -> dict[str, Any]:
        return {"said": ["third"]}

    graph = StateGraph(Said)
    for name, node in (("first", first), ("second", second), ("third", third)):
        graph.add_node(name, node)
    graph.add_edge(START, "first")
    graph.add_edge("first", "second")
    graph.add_edge("second", "third")
    graph.add_edge("third", END)
    return graph.compile()


def remembering() -> Any:
    """Writes what it is told into the store, and says what is there."""

    async def remember(state: Said, runtime: Runtime[Any]) -> dict[str, Any]:
        assert runtime.store is not None
        await runtime.store.aput(("notes",), "last", {"text": state["said"][-1]})
        return {"said": [f"noted {len(await runtime.store.asearch(('notes',)))}"]}

    graph = StateGraph(Said)
    graph.add_node("remember", remember)
    graph.add_edge(START, "remember")
    graph.add_edge("remember", END)
    return graph.compile()


class Gated:
    """A graph whose second node waits at a gate for every turn that says `wait`; `turns` are those that got there."""

    def __init__(self) -> None:
        self.gate = Gate()
        self.turns: list[str] = []

    def graph(self) -> Any:
        def heard(state: Said) -> dict[str, Any]:
            return {"said": [f"heard {state['said'][-1]}"]}

        async def work(state: Said) -> dict[str, Any]:
            said = state["said"][-1].removeprefix("heard ")
            self.turns.append(said)
            if said.startswith("wait"):
                await self.gate.passed()
            return {"said": [f"did {said}"]}

        graph = StateGraph(Said)
        graph.add_node("heard", heard)
        graph.add_node("work", work)
        graph.add_edge(START, "heard")
        graph.add_edge("heard", "work")
        graph.add_edge("work", END)
        return graph.compile()


@asynccontextmanager
async def platform(agents: dict[str, Any], **settings: Any) -> AsyncIterator[tuple[httpx.AsyncClient, Starlette]]:
    """A client of an app that serves the agents, in this event loop."""
    app = create_app(agents, Settings(**settings))
    async with (
        app.router.lifespan_context(app),
        httpx.AsyncClient(transport=httpx.ASGITransport(app), base_url="http://server.example") as client,
    ):
        yield client, app
