"""Where a graph stops that is asked to, in the middle of a run."""

from __future__ import annotations

from typing import Any

import pytest
from langchain.agents import create_agent
from langchain.agents.middleware import HumanInTheLoopMiddleware
from langchain_core.tools import tool
from langgraph.graph import START, MessagesState, StateGraph

from agent_server import ids
from agent_server.events import Event, RunFinished, RunInterrupted, RunStarted, ToolFinished, ToolStarted
from agent_server.graph.agent import open_agent
from agent_server.graph.checkpoints import Checkpoints, Memory
from agent_server.graph.drive import Invocation
from agent_server.graph.inputs import Message, Text
from agent_server.graph.source import SourceName
from agent_server.graph.steering import Steering
from agent_server.runs.engine import Engine
from agent_server.runs.stores.memory import MemoryStore
from agent_server.tracing.tracer import Tracer
from tests.support.scripted import Calls, ScriptedChatModel, chunks
from tests.unit.tracing.test_tracer import Kept

SOURCES: tuple[SourceName, ...] = ("tap", "astream_events")


async def run(target: Any, steering: Steering, **options: Any) -> list[Event]:
    """The events of a run, watched by a tracer as any other."""
    async with open_agent("agent", target) as agent:
        turns = [Message("user", (Text("Go."),))]
        invocation = Invocation(ids.new_run_id(), agent, turns, steering=steering, **options)
        trace = Tracer(Kept()).begin(invocation, {}, {}, tool_items="none")
        run = Engine().start(invocation, watcher=trace)
        await run.log.until_over()
    return run.log.read(0)


def steps(done: list[str], steering: Steering, *, stops_in: str = "") -> Any:
    """A graph of three steps; one of them is when somebody asks it to stop."""
    graph = StateGraph(MessagesState)
    for name in ("one", "two", "three"):

        def step(_: MessagesState, name: str = name) -> dict[str, Any]:
            done.append(name)
            if name == stops_in:
                steering.stop()
            return {}

        graph.add_node(name, step)
    graph.add_edge(START, "one")
    graph.add_edge("one", "two")
    graph.add_edge("two", "three")
    return graph.compile()


@pytest.mark.parametrize("source", SOURCES)
@pytest.mark.parametrize(
    ("stops_in", "ran", "incomplete"),
    [("one", 1, "steered"), ("two", 2, "steered"), ("three", 3, None), ("", 3, None)],
)
async def test_a_graph_stops_after_the_step_in_which_it_is_asked_to(
    source: SourceName, stops_in: str, ran: int, incomplete: str | None
) -> None:
    done: list[str] = []
    steering = Steering()
    events = await run(steps(done, steering, stops_in=stops_in), steering, source=source)
    assert done == ["one", "two", "three"][:ran]
    assert isinstance(events[-1], RunFinished)
    assert events[-1].incomplete == incomplete


async def test_a_subgraph_that_is_a_step_runs_to_its_end() -> None:
    done: list[str] = []
    steering = Steering()
    outer = StateGraph(MessagesState)
    outer.add_node("inner", steps(done, steering, stops_in="one"))
    outer.add_node("after", lambda _: done.append("after"))
    outer.add_edge(START, "inner")
    outer.add_edge("inner", "after")
    events = await run(outer.compile(), steering)
    assert done == ["one", "two", "three"]
    assert isinstance(events[-1], RunFinished)
    assert events[-1].incomplete == "steered"


@pytest.mark.parametrize("source", SOURCES)
async def test_no_tool_call_is_left_without_its_output(source: SourceName) -> None:
    steering = Steering()

    @tool
    def look(place: str) -> str:
        """Look."""
        return place

    @tool
    def listen(place: str) -> str:  # `astream_events` does not tell two calls of one tool apart
        """Listen."""
        return place

    calls = [
        *chunks.call("look", '{"place": "here"}', id="call_1"),
        Calls(steering.stop),
        *chunks.call("listen", '{"place": "there"}', id="call_2", index=1),
        *chunks.finish("tool_calls"),
    ]
    model = ScriptedChatModel(turns=[calls])
    events = await run(create_agent(model, tools=[look, listen]), steering, source=source)
    assert {event.call_id for event in events if isinstance(event, ToolFinished)} == {"call_1", "call_2"}
    assert sum(isinstance(event, ToolStarted) for event in events) == 2
    assert len(model.calls) == 1
    assert isinstance(events[-1], RunFinished)
    assert events[-1].incomplete == "steered"


async def test_a_run_that_is_resumed_is_not_stopped_before_its_call_was_made() -> None:
    checkpoints, looked = Checkpoints(MemoryStore().checkpointer), []
    await checkpoints.open()

    @tool
    def look(place: str) -> str:
        """Look."""
        looked.append(place)
        return place

    call = [*chunks.call("look", '{"place": "here"}', id="call_1"), *chunks.finish("tool_calls")]
    model = ScriptedChatModel(turns=[call, [*chunks.text("Seen."), *chunks.finish()]])
    target = create_agent(model, tools=[look], middleware=[HumanInTheLoopMiddleware(interrupt_on={"look": True})])
    asked = await run(target, Steering(), memory=Memory(checkpoints, "thread"))
    assert isinstance(asked[0], RunStarted)
    assert isinstance(asked[-1], RunInterrupted)
    steering = Steering()
    steering.stop()
    resume = {asked[-1].interrupts[0].id: {"decisions": [{"type": "approve"}]}}
    memory = Memory(checkpoints, "thread", after=asked[0].run_id)
    events = await run(target, steering, memory=memory, resume=resume)
    assert looked == ["here"]
    assert isinstance(events[-1], RunFinished)
    assert events[-1].incomplete is None
