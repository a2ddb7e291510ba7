"""One invocation of an agent: its input and config, driven through a source into a converter."""

from __future__ import annotations

from collections.abc import Callable, Generator, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, NamedTuple, Protocol

from langchain_core.runnables import RunnableConfig
from langgraph.errors import GraphDrained, GraphRecursionError
from msgspec import UNSET

from agent_server import ids
from agent_server.context import RequestContext
from agent_server.events import Event, IncompleteReason, RunStarted
from agent_server.graph.agent import Agent, RunnableAgent
from agent_server.graph.checkpoints import Memory, remembering, saver_of
from agent_server.graph.converter import Converter, now_ms
from agent_server.graph.inputs import Turn, system_turn, to_messages
from agent_server.graph.recording import modes_of
from agent_server.graph.source import SOURCES, Source, SourceName
from agent_server.graph.steering import Steering
from agent_server.graph.sync_source import has_sync_form, stream_from_tap
from agent_server.graph.tuning import UNTUNED, Tuning, answering


@dataclass(frozen=True, slots=True)
class Invocation:
    """What a run calls its agent with.

    `record` names what the run's log is to hold beside its messages and tools, such as "custom" or "values" (see
    `recording`). Each costs something in every step, so nobody gets what nobody asked for.

    `state` are further keys of a graph's input, beside its messages; `value` is its whole input, in place of `turns`.
    `tuning` is what the client says of how the graph is run.

    `memory` is for graphs alone. `resume` answers the interrupts that the run before stopped at, by their ids;
    `approvals` maps the calls they were about to the ids of the requests that were answered.
    `steering` can stop a graph between two of its steps; what resumes, and what is no graph, runs to its end.
    """

    run_id: str
    agent: Agent
    turns: Sequence[Turn]
    context: RequestContext = field(default_factory=RequestContext)
    source: SourceName = "tap"
    record: frozenset[str] = frozenset()
    memory: Memory | None = None
    resume: Mapping[str, Any] | None = None
    approvals: Mapping[str, str] = field(default_factory=dict)
    steering: Steering | None = None
    state: Mapping[str, Any] = field(default_factory=dict)
    value: Any = UNSET
    tuning: Tuning = UNTUNED

    def started(self, *, thread_id: str = "", model: str = "", echo: Mapping[str, Any] | None = None) -> RunStarted:
        """The run's first event. `model` and `echo` are for the wire that asked."""
        return RunStarted(
            run_id=self.run_id,
            thread_id=thread_id,
            agent=self.agent.name,
            at=now_ms(),
            model=model,
            client_tools=tuple(str(tool["name"]) for tool in self.context.options.tools),
            approvals=dict(self.approvals),
            echo=dict(echo or {}),
        )


class Failure(NamedTuple):
    """What an agent's exception means on the wire: a limit it ran into, or an error code."""

    code: str = "server_error"
    incomplete: IncompleteReason | None = None


class Fold(Protocol):
    """What turns everything that one run tells into events, and ends them: `Converter` for LangChain's."""

    run_id: str

    def feed(self, event: Any, /) -> list[Event]:
        """The events that come of one stream event."""
        ...

    def finish(self, *, incomplete: IncompleteReason | None = None) -> list[Event]:
        """The run ended by itself. Exactly one of the ends is called, once."""
        ...

    def fail(self, *, code: str, message: str, error_id: str, raised: BaseException | None = None) -> list[Event]:
        """The agent raised."""
        ...

    def cancel(self, reason: str) -> list[Event]:
        """The run was stopped."""
        ...


class ForeignAgent(Agent):
    """An agent that is no Runnable: it drives itself, and what it tells is folded its own way."""

    def fold(self, run_id: str) -> Fold:
        """A new fold for one run."""
        raise NotImplementedError

    async def drive(self, invocation: Invocation, recorder: Recorder) -> None:
        """Run to the end; `recorder` gets what the fold reads, on the event loop. Raises like `drive`."""
        raise NotImplementedError


def fold_for(invocation: Invocation) -> Fold:
    """The fold that an invocation's stream events go through."""
    agent = invocation.agent
    if isinstance(agent, ForeignAgent):
        return agent.fold(invocation.run_id)
    return Converter(invocation.run_id, record=invocation.record)


class Recorder:
    """A sink that folds stream events and appends what comes of them."""

    def __init__(self, fold: Fold, append: Callable[[Event], object]) -> None:
        self._fold = fold
        self._append = append

    def feed(self, event: Any) -> None:
        """One stream event, of the kind that the fold reads."""
        for converted in self._fold.feed(event):
            self._append(converted)

    def at_rest(self) -> bool:
        """Whether the run is between two steps and no tool call waits for its output."""
        return isinstance(self._fold, Converter) and self._fold.at_rest

    def chunks(self, model_run_id: str) -> Callable[[Any], None] | None:
        """The short way for the chunks of a message that is open (the hot path)."""
        message = self._fold.open_message(model_run_id) if isinstance(self._fold, Converter) else None
        if message is None:
            return None
        add, append = message.add_chunk, self._append

        def take(chunk: Any) -> None:
            for converted in add(chunk):
                append(converted)

        return take


async def drive(invocation: Invocation, recorder: Recorder) -> None:
    """Run the agent to its end; `recorder` gets its stream events, on the event loop.

    Raises what the agent raises, and `asyncio.CancelledError` when the task is cancelled.
    """
    agent = invocation.agent
    if isinstance(agent, ForeignAgent):
        return await agent.drive(invocation, recorder)
    if not isinstance(agent, RunnableAgent):
        raise TypeError(f"nobody knows how to drive a {type(agent).__name__}")
    config, options = _config(invocation), _options(invocation, agent)
    if invocation.steering is not None:
        invocation.steering.watch(recorder.at_rest)
    value = _input(invocation, agent)
    async with agent.for_run(config) as opened:
        runnable = opened
        if invocation.memory is not None:
            runnable, config = await remembering(runnable, config, invocation.memory)
        try:
            await _source(invocation)(runnable, value, config, recorder, options)
        finally:
            if invocation.memory is None and (saver := saver_of(runnable)):
                await saver.adelete_thread(config["configurable"]["thread_id"])
    return None


def _source(invocation: Invocation) -> Source:
    """Stream events that are recorded are to be LangChain's own, to the letter."""
    return SOURCES["astream_events" if "events" in invocation.record else invocation.source]


def can_drive_sync(agent: Agent) -> bool:
    """Whether `drive_sync` can drive it: a graph that is open, and has a synchronous form."""
    return (
        isinstance(agent, RunnableAgent)
        and agent.is_graph
        and agent.runnable is not None
        and has_sync_form(agent.runnable)
    )


def drive_sync(invocation: Invocation, recorder: Recorder) -> Generator[None]:
    """Run the agent to its end in the caller's thread; between two items, `recorder` gets its stream events.

    Raises what the agent raises. Closing the iterator stops the agent.
    """
    agent = invocation.agent
    if not isinstance(agent, RunnableAgent) or agent.runnable is None:
        raise TypeError("only an open graph can be driven synchronously")
    config, options = _config(invocation), _options(invocation, agent)
    value = _input(invocation, agent)
    try:
        yield from stream_from_tap(agent.runnable, value, config, recorder, options)
    finally:
        if saver := saver_of(agent.runnable):  # what nothing refers to later leaves nothing behind
            saver.delete_thread(config["configurable"]["thread_id"])


def failure_of(error: Exception) -> Failure:
    """What an exception that an agent raised means."""
    if isinstance(error, GraphRecursionError):
        return Failure(incomplete="recursion_limit")
    if isinstance(error, GraphDrained):
        return Failure(incomplete="steered")
    if getattr(error, "status_code", None) == 429:  # openai, anthropic, httpx and their kin
        return Failure(code="rate_limit_exceeded")
    return Failure()


def _config(invocation: Invocation) -> RunnableConfig:
    """Only the server sets `configurable`: a client's wishes reach it by name, never as keys of its own."""
    context = invocation.context
    wishes = context.options
    fields = {
        "temperature": wishes.temperature,
        "top_p": wishes.top_p,
        "max_tokens": wishes.max_output_tokens,
    }
    config: RunnableConfig = {
        "run_id": ids.run_uuid(invocation.run_id),
        "metadata": {**context.metadata, "run_id": invocation.run_id},
        "configurable": {
            "thread_id": str(ids.run_uuid(invocation.run_id)),
            "request": context,
            **{name: value for name, value in fields.items() if value is not None},
        },
    }
    return invocation.tuning.config(config)


def _input(invocation: Invocation, agent: RunnableAgent) -> Any:
    if invocation.resume is not None:
        return answering(invocation.value, invocation.resume)
    if invocation.value is not UNSET:
        return invocation.value
    value = agent.input_for(to_messages(_instructed(invocation)))
    return {**value, **invocation.state} if invocation.state and isinstance(value, dict) else value


def _instructed(invocation: Invocation) -> Sequence[Turn]:
    """Instructions go before the conversation where the agent does not apply them to its model calls itself."""
    instructions = invocation.context.options.instructions
    if not instructions or invocation.agent.takes_options:
        return invocation.turns
    return [system_turn(instructions), *invocation.turns]


def _options(invocation: Invocation, agent: RunnableAgent) -> dict[str, Any]:
    """What a graph's `stream` gets beside input and config."""
    if not agent.is_graph:
        return {}
    modes = sorted({"updates", *modes_of(invocation.record)})  # updates tell of interrupts
    context = agent.context_for(invocation.context)
    options = {"stream_mode": modes, "subgraphs": bool(invocation.record), "context": context}
    if invocation.steering is not None and invocation.resume is None:  # what it resumes is not known to be at rest
        options["control"] = invocation.steering
    if invocation.memory is not None:
        options["durability"] = "async" if invocation.memory.at_each_step else "exit"
    return {**options, **invocation.tuning.options(remembers=invocation.memory is not None)}
