"""An agent as an MLflow model: in the caller's thread where it can be, stopped when its stream is closed."""

from __future__ import annotations

import asyncio
import itertools
import threading
import warnings
from collections.abc import AsyncIterator, Iterator
from contextlib import asynccontextmanager
from contextvars import ContextVar
from typing import Any

import pytest
from langchain.agents import create_agent
from langchain_core.messages import AIMessage, AIMessageChunk
from langchain_core.runnables import Runnable, RunnableConfig
from langgraph.graph import START, MessagesState, StateGraph

from tests.conformance.expected import EXPECTED, QUESTION, seen_in
from tests.conformance.judged import agrees
from tests.support.gates import Gate, Opens
from tests.support.scripted import SCENARIOS, SECRET, ScriptedChatModel, chunks, gated_text
from tests.support.tools import weather_schema

with warnings.catch_warnings():
    warnings.simplefilter("ignore")  # mlflow's own imports warn
    import mlflow
    from mlflow.exceptions import MlflowException
    from mlflow.types.responses import ResponsesAgentRequest, ResponsesAgentResponse

    from agent_server.mlflow_agent import AgentModel, unasked

HELLO: dict[str, Any] = {"input": [{"role": "user", "content": QUESTION}]}
State = dict[str, Any]


@pytest.fixture(autouse=True)
def untraced() -> Iterator[None]:
    """Traces would go to a database in the current folder."""
    with mlflow.tracing.context(enabled=False):
        yield


@pytest.fixture
def threads() -> Iterator[None]:
    """No thread is left of what a test does."""
    before = set(threading.enumerate())
    yield
    assert set(threading.enumerate()) <= before


def texts(events: Any) -> str:
    return "".join(event.delta for event in events if event.type == "response.output_text.delta")


def line(*nodes: Any) -> Any:
    """A graph of nodes one after the other."""
    graph = StateGraph(MessagesState)
    before = START
    for number, node in enumerate(nodes):
        graph.add_node(f"n{number}", node)
        graph.add_edge(before, f"n{number}")
        before = f"n{number}"
    return graph.compile()


# Predictions

SYNC = ("plain_text", "one_tool", "reasoning_openai", "refusal_block", "usage_over_two_turns", "length_limit")
ASYNC = ("subgraph", "custom_events", "empty_arguments", "plain_runnable", "prompt_model_parser", "chat_model")


@pytest.mark.parametrize("scenario", [*SYNC, *ASYNC, "recursion_limit"])
@pytest.mark.parametrize("asked", [HELLO, ResponsesAgentRequest(**HELLO)], ids=["dict", "model"])
def test_predict_is_the_fold_of_its_stream(scenario: str, asked: Any, threads: None) -> None:
    model = AgentModel(SCENARIOS[scenario](), name=scenario)
    *_, last = model.predict_stream(asked)
    response = model.predict(asked)
    assert isinstance(response, ResponsesAgentResponse)
    streamed = {**last.response, "id": response.id, "created_at": response.created_at}
    kept = response.model_dump(exclude_none=True)
    for item, other in zip(kept["output"], streamed["output"], strict=True):
        assert {**item, "id": ""} == {**other, "id": ""}
    for key in ("status", "usage", "metadata", "model", "incomplete_details", "custom_outputs", "temperature"):
        wanted = streamed.get(key)
        if key == "usage":
            wanted["input_tokens_details"].pop("cache_write_tokens")  # a field that MLflow does not know
        assert kept.get(key) == wanted
    agrees(seen_in({**streamed, "output": kept["output"]}), EXPECTED[scenario])
    model.close()


def test_custom_outputs_come_back() -> None:
    class WithOutputs(MessagesState):
        custom_outputs: dict[str, Any]

    def answer(state: WithOutputs) -> State:
        return {"messages": [AIMessage("Hi.")], "custom_outputs": {"thread_id": "t1"}}

    graph = StateGraph(WithOutputs)
    graph.add_node("answer", answer)
    graph.add_edge(START, "answer")
    model = AgentModel(graph)
    assert model.predict(HELLO).custom_outputs == {"thread_id": "t1"}


def test_what_the_request_says_of_itself_reaches_the_agent() -> None:
    seen: list[Any] = []

    def answer(state: MessagesState, config: RunnableConfig) -> State:
        seen.append(config["configurable"]["request"])
        return {"messages": [AIMessage("Hi.")]}

    claims = {"context": {"conversation_id": "c1", "user_id": "u1"}, "custom_inputs": {"x": 1}, "metadata": {"k": "v"}}
    AgentModel(line(answer)).predict({**HELLO, **claims, "temperature": 0.5})
    (request,) = seen
    assert (request.conversation_id, request.user_id, request.custom_inputs) == ("c1", "u1", {"x": 1})
    assert (request.metadata, request.options.temperature) == ({"k": "v"}, 0.5)


@pytest.mark.parametrize("scenario", ["model_error_after_first_token", "tool_error_fatal", "failing_runnable"])
def test_an_agent_that_fails_ends_its_stream_legally_and_predict_with_the_error_id_alone(scenario: str) -> None:
    model = AgentModel(SCENARIOS[scenario]())
    events = list(model.predict_stream(HELLO))
    assert [event.type for event in events[-2:]] == ["error", "response.failed"]
    assert SECRET not in str(events)
    with pytest.raises(MlflowException, match=r"^The agent failed\. Error id: err_[0-9a-f]{16}$") as raised:
        model.predict(HELLO)
    assert (raised.value.error_code, raised.value.__cause__, raised.value.__context__) == ("INTERNAL_ERROR", None, None)
    model.close()


@pytest.mark.parametrize(
    ("body", "param"),
    [
        ({"input": []}, "input"),
        ({"input": 7}, "input"),
        ({**HELLO, "temperature": 9}, "temperature"),
        ({**HELLO, "previous_response_id": "resp_1"}, "previous_response_id"),
        ({**HELLO, "tools": [weather_schema()]}, "tools"),
        ({"input": [{"type": "function_call_output", "call_id": "c", "output": "x"}]}, "input"),
    ],
)
def test_a_bad_request_is_refused_by_the_name_of_its_parameter(body: dict[str, Any], param: str) -> None:
    model = AgentModel(SCENARIOS["plain_text"]())
    for predict in (model.predict, lambda request: list(model.predict_stream(request))):
        with pytest.raises(MlflowException, match=param) as raised:
            predict(body)
        assert raised.value.error_code == "INVALID_PARAMETER_VALUE"


def test_while_a_model_is_logged_it_says_that_nothing_was_completed() -> None:
    model = AgentModel(SCENARIOS["failing_runnable"]())
    token = unasked.set(True)
    try:
        response = model.predict(HELLO)
    finally:
        unasked.reset(token)
    assert (response.status, response.output) == ("incomplete", [])


# Threads and contexts


def test_a_graph_with_a_synchronous_form_needs_no_thread_of_the_model(threads: None) -> None:
    before = set(threading.enumerate())  # other tests' models may not have been collected yet
    names = set()

    def answer(state: MessagesState) -> State:
        names.update(thread.name for thread in set(threading.enumerate()) - before)
        return {"messages": [AIMessage("Hi.")]}

    AgentModel(line(answer)).predict(HELLO)
    assert "agent-model" not in names


def test_one_thread_serves_an_asynchronous_agent_from_call_to_call_on_one_loop() -> None:
    loops = []

    async def answer(state: MessagesState) -> State:
        loops.append((asyncio.get_running_loop(), threading.current_thread()))
        return {"messages": [AIMessage("Hi.")]}

    model = AgentModel(line(answer))
    model.predict(HELLO)
    list(model.predict_stream(HELLO))
    assert len(set(loops)) == 1
    thread = loops[0][1]
    assert thread is not threading.current_thread()
    del model
    assert not thread.is_alive()


def test_a_closed_model_opens_itself_again(threads: None) -> None:
    model = AgentModel(SCENARIOS["subgraph"]())
    for _ in range(2):
        assert model.predict(HELLO).status == "completed"
        model.close()
        model.close()


async def test_predictions_work_below_a_running_loop() -> None:
    for scenario in ("one_tool", "subgraph"):
        model = AgentModel(SCENARIOS[scenario]())
        assert model.predict(HELLO).status == "completed"
        model.close()


CALLER: ContextVar[str] = ContextVar("CALLER", default="nobody")


def sync_reader(state: MessagesState) -> State:
    return {"messages": [AIMessage(CALLER.get())]}


async def async_reader(state: MessagesState) -> State:
    return {"messages": [AIMessage(CALLER.get())]}


@pytest.mark.parametrize("reader", [sync_reader, async_reader])
def test_the_agent_runs_in_a_copy_of_the_callers_context(reader: Any) -> None:
    model = AgentModel(line(reader))
    token = CALLER.set("me")
    try:
        response = model.predict(HELLO)
    finally:
        CALLER.reset(token)
    assert response.output[0].content[0]["text"] == "me"
    model.close()


@pytest.mark.parametrize("colour", ["sync", "async"])
def test_a_graph_that_calls_the_model_is_not_its_parent(colour: str) -> None:
    inner = AgentModel(SCENARIOS["plain_text" if colour == "sync" else "subgraph"]())

    def ask(state: MessagesState) -> State:
        return {"messages": [AIMessage(inner.predict(HELLO).output[-1].content[0]["text"])]}

    told = list(line(ask).stream({"messages": []}, stream_mode=["custom", "messages", "updates"], subgraphs=True))
    assert {mode for _, mode, _ in told} <= {"updates", "messages"}
    assert len([mode for _, mode, _ in told if mode == "updates"]) == 1
    inner.close()


# Streams


def test_tokens_are_there_while_a_synchronous_model_still_talks() -> None:
    gate = Gate()
    stream = AgentModel(gated_text(["one ", "two "], gate, ["three"])).predict_stream(HELLO)
    assert texts(itertools.islice(stream, 6)) == "one two "
    gate.open()
    assert texts(stream) == "three"


def test_tokens_are_there_while_an_asynchronous_agent_still_talks() -> None:
    gate = Gate()
    talker = ScriptedChatModel(turns=[[*chunks.text("one "), gate, *chunks.text("two")]])

    async def answer(state: MessagesState) -> State:
        return {"messages": [await talker.ainvoke(state["messages"])]}

    model = AgentModel(line(answer))
    stream = model.predict_stream(HELLO)
    assert texts(itertools.islice(stream, 5)) == "one "
    gate.open()
    assert texts(stream) == "two"
    model.close()


def endless(ended: list[str]) -> Any:
    def talk(_: Any) -> Iterator[AIMessageChunk]:
        try:
            yield from itertools.cycle(chunks.text("on "))
        finally:
            ended.append("model")

    return create_agent(ScriptedChatModel(turns=[talk]), tools=[])


def test_closing_the_stream_stops_a_synchronous_graph(threads: None) -> None:
    ended: list[str] = []
    stream = AgentModel(endless(ended)).predict_stream(HELLO)
    assert texts(itertools.islice(stream, 6)) == "on on "
    assert not ended
    stream.close()
    assert ended == ["model"]


def test_closing_the_stream_cancels_an_asynchronous_agent_and_leaves_no_task(threads: None) -> None:
    began, never = Gate(), Gate()
    ended: list[str] = []
    tasks: list[set[asyncio.Task[Any]]] = []
    talker = ScriptedChatModel(turns=[[*chunks.text("one "), Opens(began), never]])

    async def talk(state: MessagesState) -> State:
        tasks.append(asyncio.all_tasks())
        if len(tasks) == 2:
            return {"messages": [AIMessage("Hi.")]}
        try:
            return {"messages": [await talker.ainvoke(state["messages"])]}
        except asyncio.CancelledError:
            ended.append("cancelled")
            raise

    model = AgentModel(line(talk))
    stream = model.predict_stream(HELLO)
    assert texts(itertools.islice(stream, 5)) == "one "
    began.wait()
    stream.close()
    assert ended == ["cancelled"]
    model.predict(HELLO)
    assert len(tasks[1]) == len(tasks[0])
    model.close()


def test_a_stream_that_is_dropped_stops_its_agent(threads: None) -> None:
    ended: list[str] = []
    stream = AgentModel(endless(ended)).predict_stream(HELLO)
    next(itertools.islice(stream, 5, None))
    del stream
    assert ended == ["model"]


# Targets


class Opened:
    """A factory of an agent that tells when it is open."""

    def __init__(self) -> None:
        self.open = 0
        self.made = 0

    @asynccontextmanager
    async def agent(self) -> AsyncIterator[Runnable[Any, Any]]:
        self.open += 1
        self.made += 1
        owner = asyncio.current_task()
        try:
            yield SCENARIOS["plain_text"]()
        finally:
            assert asyncio.current_task() is owner
            self.open -= 1


def test_a_factory_is_opened_once_and_closed_with_the_model(threads: None) -> None:
    factory = Opened()
    model = AgentModel(factory.agent)
    for _ in range(3):
        assert model.predict(HELLO).status == "completed"
    assert (factory.made, factory.open) == (1, 1)
    model.close()
    assert factory.open == 0


def test_a_factory_that_wants_the_config_is_called_for_each_run(threads: None) -> None:
    runs = []

    def factory(config: RunnableConfig) -> Runnable[Any, Any]:
        runs.append(config.get("run_id"))
        return SCENARIOS["plain_text"]()

    model = AgentModel(factory)
    model.predict(HELLO)
    model.predict(HELLO)
    assert len({run for run in runs if run is not None}) == 2
    model.close()


def test_a_factory_that_raises_is_told_by_name() -> None:
    def broken() -> Runnable[Any, Any]:
        raise ValueError(SECRET)

    model = AgentModel(broken, name="weather")
    with pytest.raises(Exception, match="The agent 'weather' cannot be opened") as raised:
        model.predict(HELLO)
    assert SECRET not in str(raised.value)
    model.close()


def test_a_name_as_on_the_command_line_is_a_target(tmp_path: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "reversing.py").write_text(
        "from langchain_core.runnables import RunnableLambda\n"
        "def reverse(said: str) -> str:\n    return said[::-1]\n"
        "bot = RunnableLambda(reverse)\n"
    )
    monkeypatch.chdir(tmp_path)
    monkeypatch.syspath_prepend(str(tmp_path))
    model = AgentModel("reversing.py:bot")
    assert (model.name, model.predict(HELLO).output[0].content[0]["text"]) == ("bot", QUESTION[::-1])
    model.close()


def test_a_graph_that_hides_its_need_of_a_loop_can_be_given_one(threads: None) -> None:
    before = set(threading.enumerate())  # other tests' models may not have been collected yet

    def answer(state: MessagesState) -> State:
        names = {thread.name for thread in set(threading.enumerate()) - before}
        return {"messages": [AIMessage("a loop" if "agent-model" in names else "none")]}

    for synchronous, wanted in ((True, "none"), (False, "a loop")):
        model = AgentModel(line(answer), synchronous=synchronous)
        assert model.predict(HELLO).output[0].content[0]["text"] == wanted
        model.close()
