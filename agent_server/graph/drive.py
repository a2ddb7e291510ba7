"""One invocation of an agent: its input and config, driven through a source into a converter."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from typing import Any, NamedTuple

from langchain_core.runnables import Runnable, RunnableConfig
from langchain_core.runnables.schema import StreamEvent
from langgraph.checkpoint.base import BaseCheckpointSaver
from langgraph.errors import GraphRecursionError

from agent_server import ids
from agent_server.context import RequestContext
from agent_server.events import Event, IncompleteReason
from agent_server.graph.agent import Agent
from agent_server.graph.converter import Converter
from agent_server.graph.inputs import Turn, system_turn, to_messages
from agent_server.graph.source import SOURCES, SourceName


@dataclass(frozen=True, slots=True)
class Invocation:
    """What a run calls its agent with.

    `record` names the stream modes of a graph that the run's log is to hold beside its messages and tools, such as
    "custom" or "values". Each costs something in every step, so nobody gets what nobody asked for.
    """

    run_id: str
    agent: Agent
    turns: Sequence[Turn]
    context: RequestContext = field(default_factory=RequestContext)
    source: SourceName = "tap"
    record: frozenset[str] = frozenset()


class Failure(NamedTuple):
    """What an agent's exception means on the wire: a limit it ran into, or an error code."""

    code: str = "server_error"
    incomplete: IncompleteReason | None = None


class Recorder:
    """A sink that converts stream events and appends what comes of them."""

    def __init__(self, converter: Converter, append: Callable[[Event], object]) -> None:
        self._converter = converter
        self._append = append

    def feed(self, event: StreamEvent) -> None:
        """One stream event."""
        for converted in self._converter.feed(event):
            self._append(converted)

    def chunks(self, model_run_id: str) -> Callable[[Any], None] | None:
        """The short way for the chunks of a message that is open (the hot path)."""
        message = self._converter.open_message(model_run_id)
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
    agent, context = invocation.agent, invocation.context
    config = _config(invocation)
    options: dict[str, Any] = {}
    if agent.is_graph:
        modes = sorted({"updates", *invocation.record})  # updates tell of interrupts
        options = {"stream_mode": modes, "subgraphs": bool(invocation.record), "context": agent.context_for(context)}
    value = agent.input_for(to_messages(_instructed(invocation)))
    async with agent.for_run(config) as runnable:
        try:
            await SOURCES[invocation.source](runnable, value, config, recorder, options)
        finally:
            await _forget(runnable, config)


def failure_of(error: Exception) -> Failure:
    """What an exception that an agent raised means."""
    if isinstance(error, GraphRecursionError):
        return Failure(incomplete="recursion_limit")
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
    return {
        "run_id": ids.run_uuid(invocation.run_id),
        "metadata": {**context.metadata, "run_id": invocation.run_id},
        "configurable": {
            "thread_id": str(ids.run_uuid(invocation.run_id)),
            "request": context,
            **{name: value for name, value in fields.items() if value is not None},
        },
    }


def _instructed(invocation: Invocation) -> Sequence[Turn]:
    """Instructions go before the conversation where the agent does not apply them to its model calls itself."""
    instructions = invocation.context.options.instructions
    if not instructions or invocation.agent.takes_options:
        return invocation.turns
    return [system_turn(instructions), *invocation.turns]


async def _forget(runnable: Runnable[Any, Any], config: RunnableConfig) -> None:
    """A run that nothing refers to later leaves no checkpoints behind."""
    saver = getattr(runnable, "checkpointer", None)
    if isinstance(saver, BaseCheckpointSaver):
        await saver.adelete_thread(config["configurable"]["thread_id"])
