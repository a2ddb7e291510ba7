"""An agent as an MLflow model: a `ResponsesAgent` over the converter and the encoder of the server.

    mlflow.models.set_model(AgentModel(graph))

`predict_stream` yields the events that the server's `/invocations` streams for the same agent, one for one;
`predict` is their fold.
"""

from __future__ import annotations

import asyncio
import threading
from collections import deque
from collections.abc import AsyncGenerator, Generator, Iterator
from contextlib import ExitStack, closing, contextmanager
from contextvars import Context, ContextVar, copy_context
from functools import partial
from pathlib import Path
from typing import Any

import mlflow
from langchain_core.runnables import Runnable
from langchain_core.runnables.config import var_child_runnable_config
from langgraph.graph import StateGraph
from mlflow.entities import SpanStatus, SpanStatusCode, SpanType
from mlflow.exceptions import MlflowException
from mlflow.protos.databricks_pb2 import INTERNAL_ERROR, INVALID_PARAMETER_VALUE
from mlflow.pyfunc.model import ResponsesAgent
from mlflow.types.responses import ResponsesAgentRequest, ResponsesAgentResponse, ResponsesAgentStreamEvent
from mlflow.types.responses_helpers import IncompleteDetails

from agent_server import ids
from agent_server.context import RequestContext
from agent_server.errors import RequestError
from agent_server.events import Event
from agent_server.graph.agent import Agent, agent_of, open_agent
from agent_server.graph.drive import Invocation, can_drive_sync, drive, fold_for
from agent_server.loader import load_targets
from agent_server.mlflow_served import AgentHolder
from agent_server.protocols.responses.encoder import ResponsesEncoder, ToolItems
from agent_server.protocols.responses.request import ResponsesRequest, check_served, parse_request
from agent_server.runs.engine import CANCEL_GRACE
from agent_server.runs.execute import execute, execute_sync
from agent_server.runs.log import EventLog
from agent_server.runs.loop_thread import LoopThread

Data = dict[str, Any]

unasked: ContextVar[bool] = ContextVar("unasked", default=False)
"""Set while a model is logged: `predict` then answers, without its agent, that nothing was completed."""


class _Predictions:
    """Both predictions of an `AgentModel`, apart from it: MLflow decorates what a `ResponsesAgent` itself defines
    with a trace that records every event, and that never ends when a stream is closed early."""

    name: str

    def predict(self, request: ResponsesAgentRequest | Data) -> ResponsesAgentResponse:
        """The whole answer. Raises `MlflowException`: for a bad request one that names the parameter, for an agent
        that failed one with the error id that finds the exception in the log."""
        if unasked.get():
            return ResponsesAgentResponse(output=[], status="incomplete")
        response = deque(self._traced(request), maxlen=1).pop()["response"]
        if response["status"] == "failed":
            raise MlflowException(response["error"]["message"], error_code=INTERNAL_ERROR)
        return _as_response(response)

    def predict_stream(self, request: ResponsesAgentRequest | Data) -> Generator[ResponsesAgentStreamEvent]:
        """The answer as events, while the agent gives it. An agent that fails ends them with `error` and
        `response.failed`; closing the generator stops the agent. Raises `MlflowException` for a bad request."""
        make = ResponsesAgentStreamEvent.model_construct  # what the encoder makes needs no validation
        with closing(self._traced(request)) as events:
            for event in events:
                yield make(**event)

    def _traced(self, request: ResponsesAgentRequest | Data) -> Generator[Data]:
        """The events of one answer, made in a context of their own: the span is active there and nowhere else."""
        body = request if isinstance(request, dict) else request.model_dump(exclude_none=True)
        asked = _parsed(body)
        known = asked.context(ids.new_request_id(), {})  # of identity what the request claims: nobody has checked it
        with _span(self.name, body, known) as (context, span), closing(self._answer(asked, known)) as batches:
            event: Data = {}
            try:
                while (batch := context.run(next, batches, None)) is not None:
                    for event in batch:
                        yield event
            except GeneratorExit:
                span.set_status(SpanStatus(SpanStatusCode.ERROR, "cancelled"))
                context.run(batches.close)
                raise
            span.set_outputs(event["response"])
            if event["type"] == "response.failed":
                span.set_status(SpanStatus(SpanStatusCode.ERROR, event["response"]["error"]["message"]))

    def _answer(self, asked: ResponsesRequest, known: RequestContext) -> Generator[list[Data]]:
        raise NotImplementedError


class AgentModel(_Predictions, AgentHolder, ResponsesAgent):  # type: ignore[misc]
    """A LangChain or LangGraph agent as an MLflow model.

    `target` is a compiled graph or any other Runnable, a `StateGraph`, a factory of one, or such a name of one as
    the command line takes. A graph with a synchronous form is driven in the caller's thread. All others, and what
    needs an event loop to be made, run on one event loop in one thread, which the model keeps until it is closed
    or forgotten, so that connections to providers stay usable from call to call.
    """

    def __init__(
        self, target: Any, *, name: str | None = None, tool_items: ToolItems = "function_call", synchronous: bool = True
    ) -> None:
        """`synchronous=False` is for a graph whose own code needs an event loop though its nodes do not."""
        found = target
        if isinstance(target, str):
            ((default, found),) = load_targets([target], Path.cwd()).items()
            name = name or default
        self.name = name or "agent"
        self.target = found
        self._tool_items = tool_items
        self._synchronous = synchronous
        self._opening = threading.RLock()
        self._agent: Agent | None = None
        self._loop: LoopThread | None = None

    def close(self) -> None:
        """Close what the target opened, and end the thread. The next call opens it anew."""
        with self._opening:
            loop, self._loop, self._agent = self._loop, None, None
        if loop is not None:
            loop.close()

    def _answer(self, asked: ResponsesRequest, known: RequestContext) -> Generator[list[Data]]:
        agent = self._opened()
        _check(asked, agent, known)
        run_id, encoder = ids.new_run_id(), ResponsesEncoder(self._tool_items)
        invocation = Invocation(run_id, agent, asked.turns, known)
        started = invocation.started(model=asked.model or agent.name, echo=asked.echo)
        yield [frame.data for frame in encoder.feed(started)]
        with closing(self._run(invocation)) as batches:
            for events in batches:
                yield [frame.data for event in events for frame in encoder.feed(event)]

    def _run(self, invocation: Invocation) -> Generator[list[Event]]:
        if self._synchronous:
            return execute_sync(invocation, fold_for(invocation))
        return self._looping().iterate(_events(invocation))

    def _opened(self) -> Agent:
        with self._opening:
            if self._agent is None:
                if isinstance(self.target, Runnable | StateGraph):
                    self._agent = agent_of(self.name, self.target)
                else:
                    self._agent = self._looping().enter(open_agent(self.name, self.target))
                self._synchronous = self._synchronous and can_drive_sync(self._agent)
            return self._agent

    def _looping(self) -> LoopThread:
        with self._opening:
            if self._loop is None:
                self._loop = LoopThread()
            return self._loop


async def _events(invocation: Invocation) -> AsyncGenerator[list[Event]]:
    """The events of one run, as many at once as there are. Leaving the loop early stops the agent."""
    fold, log = fold_for(invocation), EventLog()
    task = asyncio.create_task(execute(partial(drive, invocation), fold, log))
    try:
        async for batch in log.batches():
            yield batch
    finally:
        task.cancel()
        await asyncio.wait({task}, timeout=CANCEL_GRACE)


# Requests, responses, spans


def _parsed(body: Data) -> ResponsesRequest:
    try:
        return parse_request(body)
    except RequestError as error:
        raise _refusal(error) from None


def _check(asked: ResponsesRequest, agent: Agent, known: RequestContext) -> None:
    try:
        check_served(asked, agent)
        agent.context_for(known)
    except RequestError as error:
        raise _refusal(error) from None


def _refusal(error: RequestError) -> MlflowException:
    said = f"{error.param}: {error.message}" if error.param else error.message
    return MlflowException(said, error_code=INVALID_PARAMETER_VALUE)


def _as_response(response: Data) -> ResponsesAgentResponse:
    """MLflow's response object. It knows fewer reasons to be incomplete than there are, and warns of the others."""
    details = response["incomplete_details"]
    answer = ResponsesAgentResponse.model_validate({**response, "incomplete_details": None})
    if details is not None:
        answer.incomplete_details = IncompleteDetails.model_construct(**details)
    return answer


@contextmanager
def _span(name: str, inputs: Data, known: RequestContext) -> Iterator[tuple[Context, Any]]:
    """A span of type AGENT, and the context in which it is active: a copy of the caller's, so that it nests there.

    In that context no run of LangChain's is going on: a graph that calls a model is not its parent graph.
    """
    context, scope = copy_context(), ExitStack()
    context.run(var_child_runnable_config.set, None)
    whose = mlflow.tracing.context(session_id=known.session or None, user=known.user_id)
    context.run(scope.enter_context, whose)
    span = context.run(scope.enter_context, mlflow.start_span(name, span_type=SpanType.AGENT))
    try:
        span.set_inputs(inputs)
        yield context, span
    except BaseException as error:
        context.run(scope.__exit__, type(error), error, error.__traceback__)
        raise
    context.run(scope.close)
