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
from typing import Protocol

from starlette.requests import Request
from starlette.responses import Response
from starlette.routing import Route
from starlette.types import ASGIApp

from agent_server import framing, ids
from agent_server.context import RequestContext
from agent_server.errors import AgentError, NotFoundError, RequestError, UnsupportedError
from agent_server.events import RunFailed
from agent_server.graph.agent import Agent
from agent_server.graph.drive import Invocation
from agent_server.http.body import read_json
from agent_server.http.errors import error_response
from agent_server.http.identity import Network, identity_of
from agent_server.http.stream import EventStream, run_to_end
from agent_server.protocols.responses.encoder import TOOL_ITEMS, ResponsesEncoder, ToolItems
from agent_server.protocols.responses.request import ResponsesRequest, check_tools, parse_request
from agent_server.runs.engine import Engine, Run
from agent_server.settings import Settings


@dataclass(frozen=True, slots=True)
class Dialect:
    """What differs between the mounts of the same API."""

    path: str
    framing: framing.Framing
    tool_items: ToolItems
    names_agent: bool = True  # False: the address is the agent, `model` only a label where it names none


class Agents(Protocol):
    """The agents that are served, by name."""

    async def opened(self) -> Mapping[str, Agent]:
        """All of them, opened. The first is the default."""
        ...


class ResponsesApi:
    """The endpoints of one app."""

    def __init__(
        self, agents: Agents, engine: Engine, settings: Settings, proxies: tuple[Network, ...]
    ) -> None:
        self._agents = agents
        self._engine = engine
        self._settings = settings
        self._proxies = proxies

    def routes(self) -> list[Route]:
        """The routes, for an app's own visible list."""
        settings = self._settings
        dialects = (
            Dialect("/v1/responses", framing.SSE, settings.tool_items_v1),
            Dialect("/responses", framing.SSE, settings.tool_items_responses),
            Dialect("/invocations", framing.DATA_ONLY, settings.tool_items_invocations, names_agent=False),
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
        _check_served(asked, agent)
        run_id = ids.new_run_id()
        invocation = Invocation(
            run_id, agent, asked.turns, self._context(request, asked), source=self._settings.event_source
        )
        run = self._engine.start(invocation, model=asked.model or agent.name, echo=asked.echo)
        encoder = ResponsesEncoder(tool_items)
        if not asked.stream:
            return await self._answer(request, run, encoder)
        return EventStream(
            self._engine,
            run,
            encoder,
            dialect.framing,
            headers={"x-should-retry": "false"},
            heartbeat=self._settings.heartbeat_seconds,
            send_timeout=self._settings.send_timeout_seconds,
        )

    async def _answer(self, request: Request, run: Run, encoder: ResponsesEncoder) -> Response:
        """The stream's fold: the response object of its terminal event."""
        await run_to_end(self._engine, run, request.receive)
        for event in run.log.read(0):
            encoder.feed(event)
            if isinstance(event, RunFailed):
                return error_response(AgentError(event.error_id, code=event.code), started=True)
        headers = {"x-should-retry": "false"}
        return Response(framing.to_json(encoder.response), headers=headers, media_type="application/json")

    def _context(self, request: Request, asked: ResponsesRequest) -> RequestContext:
        identity = identity_of(request.scope, self._proxies)
        return RequestContext(
            request_id=request.scope.get("request_id", ""),
            **identity._asdict(),
            conversation_id=asked.conversation_id,
            user_id=asked.user_id,
            custom_inputs=asked.custom_inputs,
            metadata=asked.metadata,
            options=asked.options,
        )


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


def _check_served(asked: ResponsesRequest, agent: Agent) -> None:
    """What only an agent with the `RequestOptions` middleware can honour is refused by the others."""
    options = asked.options
    check_tools(options, agent.tool_names)
    if agent.takes_options:
        return
    needs = {
        "tools": bool(options.tools),
        "tool_choice": options.tool_choice not in (None, "auto"),
        "text.format": options.response_format is not None,
        "max_tool_calls": options.max_tool_calls is not None,
    }
    for param, needed in needs.items():
        if needed:
            message = (
                f"The agent {agent.name!r} does not take {param}; it lacks the RequestOptions middleware."
            )
            raise UnsupportedError(message, param=param)
