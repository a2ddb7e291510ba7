"""The routes of the OpenAI Responses API and of MLflow's dialect of it.

| route                | framing                        | heartbeat | tool items      |
|----------------------|--------------------------------|-----------|-----------------|
| `POST /v1/responses` | `event:` and `data:` lines     | `: ping`  | `mcp_call`      |
| `POST /responses`    | `event:` and `data:` lines     | `: ping`  | `function_call` |
| `POST /invocations`  | `data:` lines only             | a newline | `function_call` |
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, Protocol

import msgspec
from starlette.requests import Request
from starlette.responses import Response
from starlette.routing import Route
from starlette.types import ASGIApp

from agent_server import framing, ids
from agent_server.errors import AgentError, NotFoundError, RequestError
from agent_server.events import RunFailed
from agent_server.graph.agent import Agent
from agent_server.graph.drive import Invocation
from agent_server.http.body import read_json
from agent_server.http.errors import error_response
from agent_server.http.identity import Network, identity_of
from agent_server.http.stream import EventStream, run_to_end
from agent_server.protocols.responses.encoder import TOOL_ITEMS, ResponsesEncoder, ToolItems
from agent_server.protocols.responses.request import ResponsesRequest, check_served, parse_request
from agent_server.runs.engine import Engine, Run, Watcher
from agent_server.runs.log import EventLog
from agent_server.settings import Settings


@dataclass(frozen=True, slots=True)
class Dialect:
    """What differs between the mounts of the same API."""

    path: str
    framing: framing.Framing
    tool_items: ToolItems
    names_agent: bool = True  # False: the address is the agent, `model` only a label where it names none
    ends_with_trace: bool = False  # who asks for the trace's id gets it in a last frame, too


class Agents(Protocol):
    """The agents that are served, by name."""

    async def opened(self) -> Mapping[str, Agent]:
        """All of them, opened. The first is the default."""
        ...


class RunTrace(Watcher, Protocol):
    """The trace of one run."""

    @property
    def id(self) -> str:
        """Its id, for the client."""
        ...

    async def finished(self, log: EventLog) -> dict[str, Any] | None:
        """The whole trace of a run that is over, as JSON; None where it cannot be had soon."""
        ...


class Tracer(Protocol):
    """Who traces runs."""

    def begin(
        self, invocation: Invocation, body: Mapping[str, Any], headers: Mapping[str, str], *, tool_items: ToolItems
    ) -> RunTrace | None:
        """The trace of a run that is about to start; None if it is to have none."""
        ...


class ResponsesApi:
    """The endpoints of one app."""

    def __init__(
        self,
        agents: Agents,
        engine: Engine,
        settings: Settings,
        proxies: tuple[Network, ...],
        tracer: Tracer | None = None,
    ) -> None:
        self._agents = agents
        self._engine = engine
        self._settings = settings
        self._proxies = proxies
        self._tracer = tracer

    def routes(self) -> list[Route]:
        """The routes, for an app's own visible list."""
        settings = self._settings
        dialects = (
            Dialect("/v1/responses", framing.SSE, settings.tool_items_v1),
            Dialect("/responses", framing.SSE, settings.tool_items_responses),
            Dialect(
                "/invocations",
                framing.DATA_ONLY,
                settings.tool_items_invocations,
                names_agent=False,
                ends_with_trace=True,
            ),
        )
        return [self._route(dialect) for dialect in dialects]

    def _route(self, dialect: Dialect) -> Route:
        async def create(request: Request) -> ASGIApp:
            return await self._create(request, dialect)

        return Route(dialect.path, create, methods=["POST"])

    async def _create(self, request: Request, dialect: Dialect) -> ASGIApp:
        body = await read_json(request.receive, request.headers, limit=self._settings.max_body_bytes)
        asked = parse_request(body)
        tool_items = _tool_items(request, dialect)
        agent = _choose(await self._agents.opened(), asked.model, dialect, self._settings.default_agent)
        check_served(asked, agent)
        identity = identity_of(request.scope, self._proxies)
        context = asked.context(request.scope.get("request_id", ""), identity._asdict())
        agent.context_for(context)  # refuses what the agent cannot be given
        run_id = ids.new_run_id()
        invocation = Invocation(run_id, agent, asked.turns, context, source=self._settings.event_source)
        trace = None
        if self._tracer is not None:
            trace = self._tracer.begin(invocation, body, request.headers, tool_items=tool_items)
        told = trace if trace is not None and _asks_for_trace(request, asked) else None
        run = self._engine.start(invocation, model=asked.model or agent.name, echo=_echo(asked, told), watcher=trace)
        encoder = ResponsesEncoder(tool_items)
        if not asked.stream:
            return await self._answer(request, run, encoder, told if asked.return_trace else None)
        return EventStream(
            self._engine,
            run,
            encoder,
            _framing(dialect, told),
            headers={"x-should-retry": "false"},
            heartbeat=self._settings.heartbeat_seconds,
            send_timeout=self._settings.send_timeout_seconds,
        )

    async def _answer(self, request: Request, run: Run, encoder: ResponsesEncoder, trace: RunTrace | None) -> Response:
        """The stream's fold: the response object of its terminal event, with the trace if it is given."""
        await run_to_end(self._engine, run, request.receive)
        for event in run.log.read(0):
            encoder.feed(event)
            if isinstance(event, RunFailed):
                return error_response(AgentError(event.error_id, code=event.code), started=True)
        response, headers = encoder.response, {"x-should-retry": "false"}
        if trace is not None and (finished := await trace.finished(run.log)) is not None:
            response = {**response, "databricks_output": {"trace": finished}}
        return Response(framing.to_json(response), headers=headers, media_type="application/json")


def _asks_for_trace(request: Request, asked: ResponsesRequest) -> bool:
    """MLflow's header, or Databricks' option."""
    return asked.return_trace or request.headers.get("x-mlflow-return-trace-id", "").lower() == "true"


def _echo(asked: ResponsesRequest, trace: RunTrace | None) -> dict[str, Any]:
    """What the response object repeats of the request; the trace's id stands in its metadata, as MLflow has it."""
    echo = asked.echo
    return echo if trace is None else {**echo, "metadata": {**echo["metadata"], "trace_id": trace.id}}


def _framing(dialect: Dialect, trace: RunTrace | None) -> framing.Framing:
    """The framing of a stream whose client asked for the trace: MLflow's AgentServer ends with a frame like this."""
    if trace is None or not dialect.ends_with_trace:
        return dialect.framing
    frame = b'data: {"trace_id": "%b"}\n\n' % trace.id.encode()
    return msgspec.structs.replace(dialect.framing, end=frame + dialect.framing.end)


def _tool_items(request: Request, dialect: Dialect) -> ToolItems:
    wanted = request.headers.get("x-tool-items")
    for style in TOOL_ITEMS:
        if wanted == style:
            return style
    if wanted is not None:
        raise RequestError(f"x-tool-items must be one of {', '.join(TOOL_ITEMS)}.", param="x-tool-items")
    return dialect.tool_items


def _choose(agents: Mapping[str, Agent], model: str | None, dialect: Dialect, default: str | None) -> Agent:
    if model is not None and model in agents:
        return agents[model]
    if model is not None and dialect.names_agent:
        names = ", ".join(agents)
        raise NotFoundError(
            f"The model {model[:100]!r} does not exist. This server has: {names}.",
            param="model",
            code="model_not_found",
        )
    return agents[default] if default is not None else next(iter(agents.values()))
