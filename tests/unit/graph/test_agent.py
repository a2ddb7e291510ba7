"""Whatever an operator names is opened as an agent, described once, and closed again."""

from __future__ import annotations

import asyncio
import threading
from collections.abc import AsyncIterator, Callable, Iterator
from contextlib import asynccontextmanager, contextmanager
from dataclasses import dataclass, field
from functools import partial
from typing import Annotated, Any, NotRequired

import pytest
from langchain.agents import create_agent
from langchain_core.messages import AIMessage, AnyMessage, HumanMessage
from langchain_core.prompts import ChatPromptTemplate
from langchain_core.runnables import Runnable, RunnableConfig, RunnableLambda, RunnablePassthrough
from langchain_core.tools import tool
from langgraph.func import entrypoint
from langgraph.graph import START, MessagesState, StateGraph, add_messages
from langgraph.runtime import Runtime
from pydantic import BaseModel
from typing_extensions import TypedDict

from agent_server.context import RequestContext
from agent_server.errors import RequestError, TargetError
from agent_server.graph.agent import open_agent
from tests.support.gates import Gate
from tests.support.scripted import SilentChatModel, chunks


@tool
def add(a: int, b: int) -> str:
    """Add two numbers."""
    return str(a + b)


@tool
def shout(text: str) -> str:
    """Say it loudly."""
    return text.upper()


def model() -> SilentChatModel:
    return SilentChatModel(turns=[[*chunks.text("Hi."), *chunks.finish()]])


def echo() -> Runnable[Any, Any]:
    return RunnableLambda(lambda value: value)


def builder() -> StateGraph[Any]:
    graph = StateGraph(MessagesState)
    graph.add_node("answer", lambda state: {"messages": [AIMessage("Hi.")]})
    graph.add_edge(START, "answer")
    return graph


# Targets


class Log(list[str]):
    """What happened, in which thread."""

    def note(self, what: str) -> None:
        self.append(f"{what} {'here' if threading.current_thread() is threading.main_thread() else 'thread'}")


def factories(log: Log) -> dict[str, tuple[Callable[..., Any], list[str]]]:
    """Factories of every kind, and what they log when opened and closed."""

    def function() -> Runnable[Any, Any]:
        log.note("open")
        return echo()

    async def coroutine() -> Runnable[Any, Any]:
        log.note("open")
        return echo()

    def generator() -> Iterator[Runnable[Any, Any]]:
        log.note("open")
        yield echo()
        log.note("close")

    async def async_generator() -> AsyncIterator[Runnable[Any, Any]]:
        log.note("open")
        yield echo()
        log.note("close")

    return {
        "function": (function, ["open thread"]),
        "coroutine": (coroutine, ["open here"]),
        "generator": (generator, ["open thread", "close thread"]),
        "async generator": (async_generator, ["open here", "close here"]),
        "context manager": (contextmanager(generator), ["open thread", "close thread"]),
        "async context manager": (asynccontextmanager(async_generator), ["open here", "close here"]),
        "lambda of a coroutine": (lambda: coroutine(), ["open here"]),
    }


KINDS = list(factories(Log()))


@pytest.mark.parametrize("kind", KINDS)
async def test_a_factory_without_parameters_is_opened_once_off_the_loop_if_it_is_synchronous(
    kind: str,
) -> None:
    log = Log()
    factory, expected = factories(log)[kind]
    async with open_agent("a", factory) as agent:
        for _ in range(2):
            async with agent.for_run({}) as runnable:
                assert await runnable.ainvoke("x") == "x"
        assert agent.runnable is runnable
        assert log == expected[:1]
    assert log == expected


@pytest.mark.parametrize("kind", KINDS)
async def test_a_factory_that_requires_the_config_is_called_for_each_run(kind: str) -> None:
    log = Log()
    factory, expected = factories(log)[kind]
    seen: list[RunnableConfig] = []

    def for_config(config: RunnableConfig) -> Any:
        seen.append(config)
        return factory()

    async with open_agent("a", for_config) as agent:
        assert agent.runnable is None
        assert log == expected
        log.clear()
        async with agent.for_run({"configurable": {"user": "ada"}}) as runnable:
            assert await runnable.ainvoke("x") == "x"
            assert log == expected[:1]
        assert log == expected
    assert seen == [{"tags": [], "metadata": {}, "configurable": {}}, {"configurable": {"user": "ada"}}]


async def test_an_optional_config_parameter_does_not_make_a_factory_one_per_run() -> None:
    def factory(config: RunnableConfig | None = None, *more: str, **others: str) -> Runnable[Any, Any]:
        assert config is None
        return echo()

    async with open_agent("a", factory) as agent:
        assert agent.runnable is not None
    async with open_agent("a", partial(lambda config: echo(), {})) as agent:
        assert agent.runnable is not None


@pytest.mark.parametrize("target", [builder(), builder().compile(), builder], ids=["builder", "graph", "factory"])
async def test_a_graph_is_served_compiled_or_not(target: Any) -> None:
    async with open_agent("a", target) as agent, agent.for_run({}) as runnable:
        state = await runnable.ainvoke(agent.input_for([HumanMessage("Hello")]))
    assert state["messages"][-1].text == "Hi."
    assert agent.is_graph


def two(first: str, second: str) -> Runnable[Any, Any]:
    raise NotImplementedError


def keyword(*, config: RunnableConfig) -> Runnable[Any, Any]:
    raise NotImplementedError


@pytest.mark.parametrize(
    ("target", "said"),
    [
        (None, "it is of type NoneType, not a graph"),
        ("agent.py", "it is of type str"),
        (SilentChatModel, "it is the class SilentChatModel"),
        (lambda: "text", "its factory made of type str"),
        (lambda: SilentChatModel, "its factory made the class SilentChatModel"),
        (two, r"requires \(first, second\)"),
        (keyword, r"requires \(config\)"),
        (iter, "its signature is unknown"),
    ],
)
async def test_what_cannot_be_served_is_refused_by_name(target: Any, said: str) -> None:
    with pytest.raises(TargetError, match=f"The agent 'mine' cannot be served.*{said}"):
        async with open_agent("mine", target):
            pass


@pytest.mark.parametrize("broken", [lambda: 1 / 0, lambda config: 1 / 0, StateGraph(MessagesState)])
async def test_the_operators_exception_is_the_cause_and_not_the_message(broken: Any) -> None:
    with pytest.raises(TargetError, match="'mine' cannot be opened") as raised:
        async with open_agent("mine", broken):
            pass
    assert isinstance(raised.value.__cause__, ZeroDivisionError | ValueError)
    assert str(raised.value.__cause__) not in str(raised.value)


async def test_an_exception_of_the_servers_own_life_is_not_blamed_on_the_agent() -> None:
    with pytest.raises(KeyError):
        async with open_agent("mine", echo):
            raise KeyError


async def test_a_per_run_context_sees_the_exception_of_its_run() -> None:
    seen: list[BaseException] = []

    @contextmanager
    def factory(config: RunnableConfig) -> Iterator[Runnable[Any, Any]]:
        try:
            yield echo()
        except LookupError as error:
            seen.append(error)
            raise

    with pytest.raises(LookupError):
        async with open_agent("a", factory) as agent, agent.for_run({}):
            raise LookupError
    assert len(seen) == 1


async def test_a_context_that_was_being_entered_when_its_run_was_cancelled_is_left_again() -> None:
    gate, left = Gate(), Gate()

    @contextmanager
    def factory(config: RunnableConfig) -> Iterator[Runnable[Any, Any]]:
        if config["configurable"]:
            gate.wait()
        yield echo()
        left.open()

    async with open_agent("a", factory) as agent:
        left.reset()
        run = asyncio.ensure_future(agent.for_run({"configurable": {"slow": True}}).__aenter__())
        await gate.reached()
        run.cancel()
        gate.open()
        with pytest.raises(asyncio.CancelledError):
            await run
        await left.passed()


# Description


async def test_the_tools_of_a_graph_and_its_subgraphs_are_found() -> None:
    outer = StateGraph(MessagesState)
    outer.add_node("adder", create_agent(model(), [add]))
    outer.add_node("shouter", create_agent(model(), [shout]))
    outer.add_edge(START, "adder")
    outer.add_edge("adder", "shouter")
    async with open_agent("a", outer) as agent:
        assert agent.tool_names == {"add", "shout"}
    async with open_agent("b", create_agent(model(), [shout]).with_config(tags=["x"])) as agent:
        assert agent.tool_names == {"shout"}
    async with open_agent("c", echo()) as agent:
        assert agent.tool_names == frozenset()
        assert not agent.is_graph


async def test_a_factory_is_described_by_its_docstring() -> None:
    def factory() -> Runnable[Any, Any]:
        """Answers questions
        about time.

        Nobody reads on.
        """
        return echo()

    async with open_agent("a", factory) as agent:
        assert agent.description == "Answers questions about time."
    async with open_agent("a", add) as agent:
        assert agent.description == "Add two numbers."
    async with open_agent("a", builder()) as agent:
        assert agent.description == ""


# Input

MESSAGES: list[AnyMessage] = [
    HumanMessage("First"),
    AIMessage("Hm."),
    HumanMessage([{"type": "text", "text": "Last"}, {"type": "image_url", "image_url": {"url": "data:,"}}]),
    AIMessage("Well."),
]


class Question(TypedDict):
    question: str
    count: NotRequired[int]


class Chat(TypedDict):
    chat: Annotated[list[AnyMessage], add_messages]


class Strange:
    pass


class StrangeState(MessagesState):
    thing: Strange


def state_graph(schema: Any) -> Any:
    graph = StateGraph(schema)
    graph.add_node("pass", lambda state: {})
    graph.add_edge(START, "pass")
    return graph.compile()


def typed(value: str) -> str:
    return value


def strange(value: Strange) -> str:
    return str(value)


@entrypoint()
def workflow(text: str) -> str:
    return text


@entrypoint()
def loose_workflow(value: dict[str, Any]) -> str:
    return str(value)


def prompt(*parts: tuple[str, str]) -> Runnable[Any, Any]:
    return ChatPromptTemplate.from_messages(list(parts)) | model()


ROOM: Any = {"context": typed, "question": RunnablePassthrough()} | RunnableLambda(lambda value: value)


@pytest.mark.parametrize(
    ("target", "expected"),
    [
        (create_agent(model(), [add]), {"messages": MESSAGES}),
        (state_graph(Question), {"question": "Last"}),
        (state_graph(Chat), {"chat": MESSAGES}),
        (state_graph(StrangeState), {"messages": MESSAGES}),
        (state_graph(Annotated[list[AnyMessage], add_messages]), MESSAGES),
        (workflow, "Last"),
        (loose_workflow, {"messages": MESSAGES}),
        (model(), MESSAGES),
        (model().bind(stop=["x"]), MESSAGES),
        (RunnableLambda(typed), "Last"),
        (RunnableLambda(typed).with_types(input_type=Question), {"question": "Last"}),
        (RunnableLambda(lambda value: value["topic"]), {"topic": "Last"}),
        (RunnableLambda(strange), MESSAGES),
        (echo(), MESSAGES),
        (prompt(("user", "{topic}")), {"topic": "Last"}),
        (prompt(("placeholder", "{history}"), ("user", "{topic}")), {"topic": "Last"}),
        (prompt(("placeholder", "{messages}"), ("user", "{topic}")), {"messages": MESSAGES}),
        (prompt(("user", "{topic} {style}")), MESSAGES),
        (ROOM, "Last"),
        ({"value": RunnablePassthrough()} | echo(), MESSAGES),
    ],
)
async def test_an_agent_gets_the_conversation_in_the_form_it_takes(target: Any, expected: Any) -> None:
    async with open_agent("a", target) as agent:
        assert agent.input_for(MESSAGES) == expected


async def test_without_a_user_message_the_text_is_empty() -> None:
    async with open_agent("a", RunnableLambda(typed)) as agent:
        assert agent.input_for([AIMessage("Hm.")]) == ""


# Context

REQUEST = RequestContext(
    request_id="req_1",
    user="ada",
    access_token="token",
    user_id="u1",
    custom_inputs={"region": "north", "user": "mallory", "email": "m@example.org", "odd": 1},
    metadata={"team": "red"},
)


@dataclass
class DataContext:
    user: str
    region: str
    email: str | None
    preferred_username: str = "nobody"
    depth: int = 3
    notes: list[str] = field(default_factory=list)


class DictContext(TypedDict):
    user_id: str
    conversation_id: str | None
    custom_inputs: dict[str, Any]
    odd: NotRequired[int]
    even: NotRequired[int]


class ModelContext(BaseModel):
    access_token: str
    request_id: str
    metadata: dict[str, str]
    region: str = "south"
    depth: int = 3


def with_context(schema: Any, seen: list[Any]) -> Any:
    graph = StateGraph(MessagesState, context_schema=schema)

    def note(state: MessagesState, runtime: Runtime[Any]) -> dict[str, Any]:
        seen.append(runtime.context)
        return {}

    graph.add_node("note", note)
    graph.add_edge(START, "note")
    return graph


@pytest.mark.parametrize(
    ("schema", "expected"),
    [
        (None, REQUEST),
        (RequestContext, REQUEST),
        (DataContext, DataContext(user="ada", region="north", email=None)),
        (
            DictContext,
            {"user_id": "u1", "conversation_id": None, "custom_inputs": REQUEST.custom_inputs, "odd": 1},
        ),
        (
            ModelContext,
            ModelContext(access_token="token", request_id="req_1", metadata={"team": "red"}, region="north"),
        ),
        (dict, None),
    ],
)
async def test_a_graph_finds_the_request_in_its_runtime_context(schema: Any, expected: Any) -> None:
    seen: list[Any] = []
    async with open_agent("a", with_context(schema, seen)) as agent, agent.for_run({}) as graph:
        assert agent.context_schema is schema
        await graph.ainvoke({"messages": []}, context=agent.context_for(REQUEST))
    assert seen == [expected]


async def test_what_is_no_graph_gets_no_context() -> None:
    async with open_agent("a", echo()) as agent:
        assert agent.context_for(REQUEST) is None


@pytest.mark.parametrize(
    ("schema", "inputs", "param"),
    [(DataContext, {}, "region"), (ModelContext, {"depth": "deep"}, "depth")],
)
async def test_a_context_that_the_client_left_incomplete_is_the_clients_error(
    schema: Any, inputs: dict[str, Any], param: str
) -> None:
    async with open_agent("a", with_context(schema, [])) as agent:
        with pytest.raises(RequestError) as raised:
            agent.context_for(RequestContext(user="ada", access_token="t", custom_inputs=inputs))
    assert raised.value.param == f"custom_inputs.{param}"
