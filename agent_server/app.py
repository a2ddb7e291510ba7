"""`create_app`: the visible list of routes, and the lifespan."""

from __future__ import annotations

import asyncio
import importlib.metadata
import logging
import time
from collections.abc import AsyncIterator, Callable, Mapping
from contextlib import AsyncExitStack, asynccontextmanager
from importlib.util import find_spec
from typing import TYPE_CHECKING, Any

import msgspec
from starlette.applications import Starlette
from starlette.middleware import Middleware
from starlette.middleware.cors import CORSMiddleware
from starlette.requests import Request
from starlette.responses import PlainTextResponse, Response
from starlette.routing import Route

from agent_server import __version__
from agent_server.errors import NotFoundError, TargetError
from agent_server.framing import to_json
from agent_server.graph.agent import Agent, open_agent
from agent_server.graph.checkpoints import Checkpoints
from agent_server.graph.items import Items
from agent_server.http.errors import HANDLERS
from agent_server.http.identity import RequestId
from agent_server.protocols.agui.routes import AguiApi
from agent_server.protocols.agui.runs import AguiRuns
from agent_server.protocols.aisdk.chats import Chats
from agent_server.protocols.aisdk.routes import AiSdkApi, paths_of
from agent_server.protocols.feedback import FeedbackApi
from agent_server.protocols.langgraph.routes import EXPOSED_HEADERS, LangGraphApi
from agent_server.protocols.responses.compaction import CompactionApi
from agent_server.protocols.responses.conversations import ConversationsApi
from agent_server.protocols.responses.creation import Creation
from agent_server.protocols.responses.routes import ResponsesApi
from agent_server.protocols.responses.websocket import ResponsesSocket
from agent_server.protocols.turns.routes import TurnsApi
from agent_server.protocols.websocket.routes import SocketApi
from agent_server.runs.engine import Engine
from agent_server.runs.keeper import Keeper
from agent_server.runs.stores.url import open_store
from agent_server.runs.threads import Threads
from agent_server.settings import Settings
from agent_server.tracing.exporter import Exporter
from agent_server.tracing.tracer import Tracer
from agent_server.wires import wires_of

if TYPE_CHECKING:
    from agent_server.http.proxy import ChatProxy

logger = logging.getLogger("agent_server")


class OpenAgents:
    """The targets of an app and the agents they open to.

    They open with the app's lifespan; where a host mounts the app without running it, with the first request.
    """

    def __init__(self, targets: Mapping[str, Any], items: Items) -> None:
        self._targets = dict(targets)
        self._items = items
        self._agents: dict[str, Agent] | None = None
        self._opening = asyncio.Lock()
        self._stack = AsyncExitStack()

    async def opened(self) -> Mapping[str, Agent]:
        """All agents by name. Raises `TargetError` when one cannot be opened."""
        if self._agents is None:
            async with self._opening:
                if self._agents is None:
                    self._agents = {
                        name: self._items.given_to(await self._stack.enter_async_context(open_agent(name, target)))
                        for name, target in self._targets.items()
                    }
        return self._agents

    async def aclose(self) -> None:
        """Close what the targets opened."""
        await self._stack.aclose()


def create_app(agents: Mapping[str, Any], settings: Settings | None = None) -> Starlette:
    """An ASGI app that serves `agents`: name -> compiled graph, any Runnable, or a factory of one.

    The first agent answers requests that name none, unless `settings.default_agent` does. Raises `TargetError`
    for an empty mapping or an unknown default; what cannot be opened raises it when the app starts.
    """
    settings = settings or Settings()
    _check(agents, settings.default_agent)
    store = open_store(settings.store)
    checkpoints, items = Checkpoints(store.checkpointer), Items(settings.store)
    opened = OpenAgents(agents, items)
    keeper = Keeper(store, lease=settings.lease_seconds, forget=checkpoints.forget)
    engine = Engine(max_concurrent=settings.max_concurrent_runs, keeper=keeper)
    proxies = settings.trusted_networks
    tracer, chat = _tracer(settings), _chat_proxy(settings)
    threads = _threads(engine, checkpoints, settings, tracer)
    creation = Creation(opened, engine, checkpoints, settings, proxies, tracer)
    chats = Chats(opened, threads, settings)
    agui = AguiRuns(opened, threads, settings)
    wires = wires_of(opened, threads, engine, settings, creation, chats, agui)
    langgraph = LangGraphApi(opened, threads, engine, checkpoints, items, settings, proxies, __version__)
    about = _About(opened, settings.default_agent or next(iter(agents)), settings.app_name, tracer)

    app = Starlette(
        routes=[
            *CompactionApi(creation, max_body_bytes=settings.max_body_bytes).routes(),
            *ResponsesApi(creation, engine, settings).routes(),
            *ResponsesSocket(creation, settings, proxies).routes(),
            *ConversationsApi(creation.origins, engine, settings).routes(),
            *TurnsApi(opened, threads, engine, settings, proxies).routes(),
            *AiSdkApi(chats, settings, proxies).routes(),
            *AguiApi(agui, settings, proxies).routes(),
            *SocketApi(wires, settings, proxies, dict.fromkeys(paths_of(settings), wires["ai-sdk.v1"])).routes(),
            *FeedbackApi(tracer, proxies, max_body_bytes=settings.max_body_bytes).routes(),
            *langgraph.routes(),
            Route("/v1/models", about.models),
            Route("/v1/models/{model:path}", about.model),
            Route("/agent/info", about.info),
            Route("/health", _constant({"status": "healthy"})),
            Route("/ping", lambda _: PlainTextResponse("\n")),
            Route("/version", lambda _: PlainTextResponse(__version__)),
            Route("/ready", _ready),
            *(chat.routes() if chat is not None else ()),
        ],
        middleware=[Middleware(RequestId, proxies=proxies), *_cross_origin(settings)],
        exception_handlers=HANDLERS,
        lifespan=lambda app: _lifespan(app, opened, items, checkpoints, engine, langgraph, tracer, chat),
    )
    app.state.agents, app.state.engine, app.state.threads, app.state.tracer = opened, engine, threads, tracer
    app.state.ready = False
    return app


@asynccontextmanager
async def _lifespan(
    app: Starlette,
    agents: OpenAgents,
    items: Items,
    checkpoints: Checkpoints,
    engine: Engine,
    langgraph: LangGraphApi,
    tracer: Tracer | None,
    chat: ChatProxy | None,
) -> AsyncIterator[None]:
    """What is opened before the first request, and closed the other way round after the last one."""
    async with AsyncExitStack() as stack:
        stack.push_async_callback(agents.aclose)
        await agents.opened()
        if tracer is not None:
            stack.push_async_callback(tracer.aclose)
            tracer.start()
        if chat is not None:
            stack.push_async_callback(chat.aclose)
        stack.push_async_callback(items.aclose)
        stack.push_async_callback(engine.aclose)
        stack.push_async_callback(langgraph.aclose)
        await engine.open()
        await checkpoints.open()
        await langgraph.open()
        app.state.langgraph = langgraph
        app.state.ready = True
        try:
            yield
        finally:
            app.state.ready = False


def _check(agents: Mapping[str, Any], default: str | None) -> None:
    if not agents:
        raise TargetError("There is no agent to serve.")
    if default is not None and default not in agents:
        raise TargetError(f"The default agent {default!r} is none of: {', '.join(agents)}.")


def _tracer(settings: Settings) -> Tracer | None:
    """Who traces the runs, if they are to be traced. Raises `TargetError` when that is asked for and cannot be."""
    if not settings.traces:
        return None
    if find_spec("mlflow") is None:
        if settings.tracing:
            raise TargetError("Tracing needs MLflow: pip install 'agent-server[mlflow]'.")
        logger.warning("MLFLOW_TRACKING_URI is set, but MLflow is not installed: runs are not traced.")
        return None
    joins = not settings.tracking_uri.startswith("databricks")  # it takes no parts of traces (MLflow's own exporter)
    return Tracer(Exporter(), ratio=settings.trace_ratio, joins=joins, flush_seconds=settings.trace_flush_seconds)


def _threads(engine: Engine, checkpoints: Checkpoints, settings: Settings, tracer: Tracer | None) -> Threads:
    return Threads(
        engine,
        checkpoints,
        retention_days=settings.retention_days,
        source=settings.event_source,
        watch=tracer.watch if tracer is not None else None,
    )


def _cross_origin(settings: Settings) -> list[Middleware]:
    """Pages of other origins may use what they are allowed to, and read where it is."""
    if not settings.allowed_origins:
        return []
    return [
        Middleware(
            CORSMiddleware,
            allow_origins=settings.allowed_origins,
            allow_methods=["*"],
            allow_headers=["*"],
            expose_headers=EXPOSED_HEADERS,
        )
    ]


def _chat_proxy(settings: Settings) -> ChatProxy | None:
    if not settings.chat_proxy:
        return None
    from agent_server.http.proxy import ChatProxy

    return ChatProxy(
        settings.chat_app_port,
        settings.chat_proxy_paths,
        timeout=settings.chat_proxy_timeout_seconds,
        max_body_bytes=settings.max_body_bytes,
    )


class _About:
    """What the server tells of its agents."""

    def __init__(self, agents: OpenAgents, default: str, name: str | None, tracer: Tracer | None) -> None:
        self._agents = agents
        self._default = default
        self._name = name
        self._tracer = tracer
        self._created = int(time.time())

    async def models(self, _: Request) -> Response:
        """`GET /v1/models`: one model per agent."""
        found = [self._model(name) for name in await self._agents.opened()]
        return _json({"object": "list", "data": found})

    async def model(self, request: Request) -> Response:
        """`GET /v1/models/{id}`."""
        name = request.path_params["model"]
        if name not in await self._agents.opened():
            raise NotFoundError(f"The model {name[:100]!r} does not exist.", param="model", code="model_not_found")
        return _json(self._model(name))

    def _model(self, name: str) -> dict[str, Any]:
        return {"id": name, "object": "model", "created": self._created, "owned_by": "agent-server"}

    async def info(self, _: Request) -> Response:
        """`GET /agent/info`: the keys of MLflow's AgentServer, and what else is known of the default agent."""
        agents = await self._agents.opened()
        agent = agents[self._default]
        return _json(
            {
                "name": self._name or agent.name,
                "use_case": "agent",
                "mlflow_version": _version_of("mlflow"),
                "agent_api": "responses",
                "description": agent.description,
                "version": __version__,
                "tools": sorted(agent.tool_names),
                "agents": list(agents),
                "traces": None if self._tracer is None else msgspec.structs.asdict(self._tracer.exporter.counts),
            }
        )


def _version_of(package: str) -> str | None:
    try:
        return importlib.metadata.version(package)
    except importlib.metadata.PackageNotFoundError:
        return None


async def _ready(request: Request) -> Response:
    """`GET /ready`: 200 while the server takes requests."""
    ready = request.app.state.ready
    return _json({"status": "ready" if ready else "not ready"}, status=200 if ready else 503)


def _constant(body: dict[str, Any]) -> Callable[[Request], Response]:
    return lambda _: _json(body)


def _json(body: dict[str, Any], *, status: int = 200) -> Response:
    return Response(to_json(body), status, media_type="application/json")
