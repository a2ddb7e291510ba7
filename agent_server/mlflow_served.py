"""MLflow models as agents: any logged `ResponsesAgent` behind every route, streamed.

A model that was made of an agent of this package is that agent. Any other is driven through its synchronous
`predict_stream` in a worker thread, and what it streams is decoded into events: whatever it leaves out, tells
twice or gets wrong is mended by whoever encodes them.
"""

from __future__ import annotations

import asyncio
import threading
from collections.abc import AsyncGenerator, AsyncIterator, Callable, Generator
from contextlib import aclosing, asynccontextmanager, closing, suppress
from dataclasses import dataclass
from typing import Any, TypeVar

import mlflow
from mlflow.exceptions import MlflowException
from mlflow.pyfunc.model import ResponsesAgent
from mlflow.types.responses import ResponsesAgentRequest
from pydantic import BaseModel

from agent_server.context import ModelOptions, RequestContext
from agent_server.errors import TargetError, UnsupportedError
from agent_server.graph.agent import Agent, SelfOpening, blaming
from agent_server.graph.drive import Fold, ForeignAgent, Invocation, Recorder
from agent_server.graph.inputs import system_turn
from agent_server.protocols.responses.decoder import ResponsesDecoder
from agent_server.protocols.responses.input_items import write_input

T = TypeVar("T")

_AHEAD = 256
"""Events that a model's thread may be ahead of the event loop."""


class AgentHolder:
    """A model that was made of an agent of this package: `target` is served in its place."""

    target: Any


def load_model(uri: str) -> Any:
    """What to serve for `models:/name/version`, `models:/name@alias` or `runs:/run/path`.

    Raises `TargetError` for a model that does not exist, cannot be loaded, or is no `ResponsesAgent`.
    """
    with blaming(f"The model {uri!r} cannot be loaded"):
        try:
            loaded = mlflow.pyfunc.load_model(uri)
        except MlflowException as error:
            said = error.message.partition("\n")[0]
            raise TargetError(f"The model {uri!r} cannot be loaded: {said}") from error.__cause__
    model = None
    with suppress(NotImplementedError):  # what models of other kinds say
        model = loaded.get_raw_model()
    if isinstance(model, AgentHolder):
        return model.target
    if not isinstance(model, ResponsesAgent):
        raise TargetError(f"The model {uri!r} cannot be served: it is no ResponsesAgent.")
    return ServedModel(model)


class ServedModel(SelfOpening):
    """A loaded `ResponsesAgent` of somebody else's, as a target."""

    def __init__(self, model: ResponsesAgent) -> None:
        self._model = model

    @asynccontextmanager
    async def opened(self, name: str) -> AsyncIterator[Agent]:
        """The agent."""
        description = " ".join((type(self._model).__doc__ or "").partition("\n\n")[0].split())
        yield ModelAgent(name, description, frozenset(), takes_options=True, model=self._model)


class ResponsesSpeaker(ForeignAgent):
    """Who takes MLflow's request and answers in Responses events. What the request has a field for may be heeded."""

    def context_for(self, request: RequestContext) -> None:
        """Nothing. Raises `UnsupportedError` for what MLflow's request has no field for."""
        wanted = request.options
        if wanted.max_tool_calls is not None:
            raise UnsupportedError("'max_tool_calls' has no place in an MLflow request.", param="max_tool_calls")
        if isinstance(wanted.tool_choice, dict) and wanted.tool_choice.get("type") == "allowed_tools":
            raise UnsupportedError("'allowed_tools' have no place in an MLflow request.", param="tool_choice")

    def fold(self, run_id: str) -> Fold:
        """A decoder of its stream."""
        return ResponsesDecoder(run_id)


@dataclass(frozen=True)
class ModelAgent(ResponsesSpeaker):
    """A `ResponsesAgent` as an agent."""

    model: ResponsesAgent

    async def drive(self, invocation: Invocation, recorder: Recorder) -> None:
        """Ask the model, and record what it answers."""
        request = request_for(invocation)
        async with aclosing(from_thread(lambda: _events(self.model, request))) as events:
            async for event in events:
                recorder.feed(event)


def _events(model: ResponsesAgent, request: ResponsesAgentRequest) -> Generator[Any]:
    """The model's stream events as dictionaries; one that cannot stream gives its answer as the only event."""
    if type(model).predict_stream is ResponsesAgent.predict_stream:
        yield {"type": "response.completed", "response": plain(model.predict(request))}
        return
    events = model.predict_stream(request)
    try:
        for event in events:
            yield plain(event)
    finally:
        if close := getattr(events, "close", None):
            close()


def plain(value: Any) -> Any:
    """A pydantic model as a dictionary; anything else as it is."""
    return value.model_dump(exclude_none=True) if isinstance(value, BaseModel) else value


def request_for(invocation: Invocation) -> ResponsesAgentRequest:
    """An invocation as MLflow's request."""
    context, options = invocation.context, invocation.context.options
    instructions = [system_turn(options.instructions)] if options.instructions else []
    claims = {"conversation_id": context.conversation_id, "user_id": context.user_id}
    fields = {
        "input": write_input([*instructions, *invocation.turns]),
        "custom_inputs": dict(context.custom_inputs) or None,
        "context": {key: value for key, value in claims.items() if value} or None,
        "metadata": dict(context.metadata) or None,
        **_wishes(options),
    }
    return ResponsesAgentRequest(**{key: value for key, value in fields.items() if value is not None})


def _wishes(options: ModelOptions) -> dict[str, Any]:
    text = {"format": options.response_format, "verbosity": options.verbosity}
    reasoning = dict(options.reasoning or {})
    return {
        "tools": [{**tool, "type": "function", "parameters": tool.get("parameters") or {}} for tool in options.tools]
        or None,
        "tool_choice": options.tool_choice,
        "parallel_tool_calls": options.parallel_tool_calls,
        "text": {key: value for key, value in text.items() if value is not None} or None,
        "max_output_tokens": options.max_output_tokens,
        "temperature": options.temperature,
        "top_p": options.top_p,
        "reasoning": {"effort": reasoning["effort"]} if reasoning.get("effort") else None,
    }


async def from_thread(make: Callable[[], Generator[T]]) -> AsyncGenerator[T]:
    """The items of a synchronous iterator, which runs in a worker thread and at most `_AHEAD` items ahead.

    When this is closed early, the iterator is closed as soon as its next item is there.
    """
    loop = asyncio.get_running_loop()
    queue: asyncio.Queue[tuple[T, ...]] = asyncio.Queue()
    room, stopped = threading.Semaphore(_AHEAD), threading.Event()

    def run() -> None:
        with closing(make()) as items:
            for item in items:
                room.acquire()
                if stopped.is_set():
                    return
                loop.call_soon_threadsafe(queue.put_nowait, (item,))

    running = asyncio.ensure_future(asyncio.to_thread(run))
    running.add_done_callback(lambda _: queue.put_nowait(()))
    try:
        while items := await queue.get():
            room.release()
            yield items[0]
        await running
    finally:
        stopped.set()
        room.release()
        running.cancel()
