"""Functions decorated for MLflow's AgentServer as an agent: `@invoke()` and `@stream()` of a module, unchanged.

The streaming function answers where there is one, whether a client streams or not. Asynchronous functions run on
the event loop, synchronous ones in worker threads.
"""

from __future__ import annotations

import asyncio
import dataclasses
import inspect
from collections.abc import AsyncGenerator, AsyncIterator, Callable, Generator, Iterator
from contextlib import aclosing, asynccontextmanager, contextmanager
from dataclasses import dataclass
from types import ModuleType
from typing import Any

import mlflow
from mlflow.genai.agent_server import get_invoke_function, get_stream_function, set_request_headers
from mlflow.tracing.provider import get_current_otel_span

from agent_server.context import RequestContext
from agent_server.graph.agent import Agent, SelfOpening
from agent_server.graph.drive import Invocation, Recorder
from agent_server.mlflow_served import ResponsesSpeaker, from_thread, plain, request_for

Function = Callable[[Any], Any]
Registered = tuple[Function | None, Function | None]


def registered() -> Registered:
    """The functions that are decorated so far, `@invoke()` and `@stream()`: MLflow knows one of each in a process."""
    return get_invoke_function(), get_stream_function()  # type: ignore[no-untyped-call]


def decorated(module: ModuleType, before: Registered = (None, None)) -> DecoratedFunction | None:
    """What a module, or what it imported, has decorated; `before` is what was so before the module was imported."""

    def fits(function: Function | None, known: Function | None) -> bool:
        return function is not None and (function is not known or function.__module__ == module.__name__)

    invoke, stream = (now if fits(now, known) else None for now, known in zip(registered(), before, strict=True))
    if stream is not None:
        return DecoratedFunction(stream, streams=True)
    return DecoratedFunction(invoke, streams=False) if invoke is not None else None


class DecoratedFunction(SelfOpening):
    """The function that answers, as a target."""

    def __init__(self, function: Function, *, streams: bool) -> None:
        self._function = function
        self._streams = streams

    @asynccontextmanager
    async def opened(self, name: str) -> AsyncIterator[Agent]:
        """The agent."""
        description = (inspect.getdoc(self._function) or "").partition("\n\n")[0]
        yield FunctionAgent(
            name, description, frozenset(), takes_options=True, function=self._function, streams=self._streams
        )


@dataclass(frozen=True)
class FunctionAgent(ResponsesSpeaker):
    """A decorated function as an agent."""

    function: Function
    streams: bool

    async def drive(self, invocation: Invocation, recorder: Recorder) -> None:
        """Call the function, and record what it answers."""
        set_request_headers(_headers(invocation.context))
        request = request_for(invocation)
        with _span(self.function.__name__):
            if self.streams:
                async with aclosing(_events(self.function, request)) as events:
                    async for event in events:
                        recorder.feed(_data(event))
                return
            answer = self.function(request) if _is_async(self.function) else asyncio.to_thread(self.function, request)
            recorder.feed({"type": "response.completed", "response": _data(await answer)})


def _is_async(function: Function) -> bool:
    return inspect.iscoroutinefunction(function) or inspect.isasyncgenfunction(function)


def _events(function: Function, request: Any) -> AsyncGenerator[Any]:
    if _is_async(function):
        found: AsyncGenerator[Any] = function(request)
        return found

    def each() -> Generator[Any]:
        yield from function(request)

    return from_thread(each)


def _data(value: Any) -> Any:
    """MLflow takes pydantic models, dataclasses and dictionaries."""
    is_dataclass = dataclasses.is_dataclass(value) and not isinstance(value, type)
    return dataclasses.asdict(value) if is_dataclass else plain(value)


def _headers(context: RequestContext) -> dict[str, str]:
    """What `get_request_headers()` gives: of the request's headers those that a trusted proxy vouches for."""
    told = {
        "x-request-id": context.request_id,
        "x-forwarded-user": context.user,
        "x-forwarded-email": context.email,
        "x-forwarded-preferred-username": context.preferred_username,
        "x-forwarded-access-token": context.access_token,
    }
    return {name: value for name, value in told.items() if value}


@contextmanager
def _span(name: str) -> Iterator[None]:
    """The span that AgentServer makes around a call, in runs that are traced: agents look for one to write to."""
    around = get_current_otel_span()
    if around is None or not around.get_span_context().is_valid:
        yield
        return
    with mlflow.start_span(name):
        yield
