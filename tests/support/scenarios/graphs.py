"""Scenarios of hand-written graphs: interrupts, subgraphs, parallel nodes, agents as tools, custom events."""

from __future__ import annotations

from typing import Any

from langchain.agents import create_agent
from langchain.agents.middleware import HumanInTheLoopMiddleware
from langchain_core.callbacks import adispatch_custom_event
from langchain_core.messages import AIMessage, HumanMessage
from langchain_core.tools import tool
from langgraph.checkpoint.memory import InMemorySaver
from langgraph.config import get_stream_writer
from langgraph.graph import START, MessagesState, StateGraph
from langgraph.types import interrupt

from tests.support.chunks import call, finish, text
from tests.support.gates import Gate, Opens
from tests.support.models import SilentChatModel
from tests.support.scenarios.base import Agent, Factory, model
from tests.support.scenarios.calls import CALLS_END, ONE_CALL, OSLO, ROME, SUNNY
from tests.support.tools import get_weather, send_email

State = dict[str, Any]


def _line(*nodes: tuple[str, Any], checkpointer: InMemorySaver | None = None) -> Agent:
    """A graph of nodes one after the other."""
    graph = StateGraph(MessagesState)
    before = START
    for name, node in nodes:
        graph.add_node(name, node)
        graph.add_edge(before, name)
        before = name
    return graph.compile(checkpointer=checkpointer)


def _ask(chat: SilentChatModel) -> Any:
    async def ask(state: MessagesState) -> State:
        return {"messages": [await chat.ainvoke(state["messages"])]}

    return ask


def _approval(*cities: str) -> Factory:
    calls = [
        chunk
        for i, city in enumerate(cities)
        for chunk in call("send_email", f'{{"to": "{city}@b.example", ', '"body": "Hi"}', id=f"call_{city}", index=i)
    ]

    def make() -> Agent:
        return create_agent(
            model([*text("I will write. "), *calls, *CALLS_END], [*text("All ", "sent."), *finish()]),
            tools=[send_email, get_weather],
            middleware=[HumanInTheLoopMiddleware(interrupt_on={"send_email": True})],
            checkpointer=InMemorySaver(),
        )

    return make


def _free_interrupt() -> Agent:
    async def question(state: MessagesState) -> State:
        return {"messages": [AIMessage(f"You said {interrupt('Which city?')}.")]}

    greet = _ask(model([*text("One ", "question."), *finish()]))
    return _line(("greet", greet), ("question", question), checkpointer=InMemorySaver())


def _tool_interrupt() -> Agent:
    @tool
    async def get_weather_here(unit: str) -> str:
        """The weather where the user is."""
        return f"It is sunny in {interrupt({'question': 'Where are you?'})} ({unit})."

    chat = model([*call("get_weather_here", '{"unit": "C"}', id="call_here"), *CALLS_END], SUNNY)
    return create_agent(chat, tools=[get_weather_here], checkpointer=InMemorySaver())


def _subgraph() -> Agent:
    inner = create_agent(model(ONE_CALL, [*text("Inner ", "answer. "), *finish()]), tools=[get_weather])
    outer = _ask(model([], [], [*text("Outer ", "answer."), *finish()]))
    return _line(("expert", inner), ("summary", outer))


def _two_nodes_at_once() -> Agent:
    """Two nodes whose models take turns, chunk by chunk; the left one ends first. One run at a time."""
    first, second, ended = Gate(), Gate(), Gate()
    l1, l2, r1, r2 = text("Left ", "one.", "Right ", "one.")
    left = model([l1, Opens(first), second, l2, *finish()])
    right = model([first, r1, Opens(second), ended, r2, *finish()])

    async def begin(state: MessagesState) -> State:
        for gate in (first, second, ended):
            gate.reset()
        return {}

    async def ask_left(state: MessagesState) -> State:
        answer = await left.ainvoke(state["messages"])
        ended.open()
        return {"messages": [answer]}

    graph = StateGraph(MessagesState)
    graph.add_node("begin", begin)
    graph.add_node("left", ask_left)
    graph.add_node("right", _ask(right))
    graph.add_edge(START, "begin")
    graph.add_edge("begin", "left")
    graph.add_edge("begin", "right")
    return graph.compile()


def _agent_as_tool() -> Agent:
    expert = create_agent(
        model(
            [*call("get_weather", *ROME, id="call_inner"), *CALLS_END],
            [*text("Hidden ", "expertise."), *finish()],
        ),
        tools=[get_weather],
        name="expert",
    )

    @tool
    async def ask_expert(question: str) -> str:
        """Ask the weather expert."""
        result = await expert.ainvoke({"messages": [HumanMessage(question)]})
        return str(result["messages"][-1].text)

    chat = model(
        [*text("Asking. "), *call("ask_expert", '{"question": ', '"Rome?"}', id="call_expert"), *CALLS_END],
        [*text("The expert ", "knows."), *finish()],
    )
    return create_agent(chat, tools=[ask_expert])


def _custom_events() -> Agent:
    @tool
    async def slow_search(query: str) -> str:
        """Search, telling how far it came."""
        get_stream_writer()({"searched": query})
        await adispatch_custom_event("progress", {"percent": 50})
        return "Found it."

    async def note(state: MessagesState) -> State:
        get_stream_writer()({"step": "before"})
        await adispatch_custom_event("noted", {"ok": True})
        return {}

    search = create_agent(
        model([*call("slow_search", '{"query": "sun"}', id="call_search"), *CALLS_END], SUNNY),
        tools=[slow_search],
    )
    return _line(("note", note), ("search", search))


def _node_returns_message() -> Agent:
    async def answer(state: MessagesState) -> State:
        return {"messages": [AIMessage("Written by hand.", id="by-hand")]}

    return _line(("answer", answer))


def _sync_node() -> Agent:
    chat = model([*text("From ", "a thread."), *finish()])

    def answer(state: MessagesState) -> State:
        return {"messages": [chat.invoke(state["messages"])]}

    return _line(("answer", answer))


def _sync_tools() -> Agent:
    chat = model([*text("Looking. "), *call("get_weather", *OSLO, id="call_oslo"), *CALLS_END], SUNNY)

    def look(state: MessagesState) -> State:
        asked = chat.invoke(state["messages"])
        return {"messages": [asked, *(get_weather.invoke(each) for each in asked.tool_calls)]}

    def answer(state: MessagesState) -> State:
        return {"messages": [chat.invoke(state["messages"])]}

    return _line(("look", look), ("answer", answer))


def _nostream_tag() -> Agent:
    router = model([*text("route: ", "weather"), *finish()]).with_config(tags=["nostream"])
    writer = model([*text("Routed ", "answer."), *finish()])

    async def route(state: MessagesState) -> State:
        await router.ainvoke(state["messages"])
        return {}

    return _line(("route", route), ("answer", _ask(writer)))


def _no_messages() -> Agent:
    """A state without a single answer: the graph ends and says nothing."""

    async def nothing(state: MessagesState) -> State:
        return {}

    return _line(("nothing", nothing))


GRAPHS: dict[str, Factory] = {
    "approval": _approval("oslo"),
    "two_approvals": _approval("oslo", "rome"),
    "free_interrupt": _free_interrupt,
    "tool_interrupt": _tool_interrupt,
    "subgraph": _subgraph,
    "two_nodes_streaming_at_once": _two_nodes_at_once,
    "agent_as_tool": _agent_as_tool,
    "custom_events": _custom_events,
    "node_returns_message": _node_returns_message,
    "sync_node": _sync_node,
    "sync_tools": _sync_tools,
    "nostream_tag": _nostream_tag,
    "no_messages": _no_messages,
}
