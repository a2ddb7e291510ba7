"""The LangGraph Platform API: assistants, threads, runs, crons and items, at the root and below `/api`."""

from __future__ import annotations

import importlib.metadata
from typing import Any

from starlette.requests import Request
from starlette.responses import Response
from starlette.routing import BaseRoute

from agent_server.graph.checkpoints import Checkpoints
from agent_server.graph.items import Items
from agent_server.http.identity import Network
from agent_server.protocols.langgraph.assistant_routes import AssistantRoutes
from agent_server.protocols.langgraph.assistants import Agents, Assistants
from agent_server.protocols.langgraph.beginning import Beginning
from agent_server.protocols.langgraph.cron_routes import CronRoutes
from agent_server.protocols.langgraph.crons import Crons
from agent_server.protocols.langgraph.item_routes import ItemRoutes
from agent_server.protocols.langgraph.reading import answer, route
from agent_server.protocols.langgraph.results import Results
from agent_server.protocols.langgraph.routes_streaming import StreamRoutes
from agent_server.protocols.langgraph.run_routes import RunRoutes
from agent_server.protocols.langgraph.thread_notes import ThreadNotes
from agent_server.protocols.langgraph.thread_routes import ThreadRoutes
from agent_server.protocols.langgraph.thread_states import ThreadStates
from agent_server.protocols.langgraph.webhooks import Webhooks
from agent_server.runs.engine import Engine
from agent_server.runs.threads import Threads
from agent_server.settings import Settings

MOUNTS = ("", "/api")
EXPOSED_HEADERS = ("Content-Location", "Location", "x-pagination-total", "x-pagination-next")
"""What pages of other origins must be allowed to read."""


class LangGraphApi:
    """The endpoints of one app."""

    def __init__(
        self,
        agents: Agents,
        threads: Threads,
        engine: Engine,
        checkpoints: Checkpoints,
        items: Items,
        settings: Settings,
        proxies: tuple[Network, ...],
        version: str,
    ) -> None:
        self._version = version
        self.assistants = Assistants(agents, engine)
        self.notes = ThreadNotes(engine, settings.retention_days)
        self.states = ThreadStates(self.assistants, threads, checkpoints)
        self.results = Results(self.assistants, threads, engine)
        webhooks = Webhooks(settings, self.results.report)
        self.beginning = Beginning(self.assistants, self.notes, threads, engine, webhooks, proxies)
        self.crons = Crons(self.assistants, self.beginning, self.notes, self.states, engine)
        self._runs = RunRoutes(self.beginning, self.results, self.notes, engine, settings)
        self._parts = (
            AssistantRoutes(self.assistants, self.notes, settings),
            CronRoutes(self.crons, self.notes, settings),  # before the runs, whose ids could be "crons"
            ThreadRoutes(self.assistants, self.notes, self.states, self.results, threads, settings),
            # before the runs, one of whose ids could be "stream"
            StreamRoutes(self.beginning, self.results, self.notes, threads, engine, settings),
            self._runs,
            ItemRoutes(items, settings),
        )

    async def open(self) -> None:
        """Begin to look at the clock."""
        self.crons.start()

    async def aclose(self) -> None:
        """Stop what is done beside requests."""
        await self.crons.aclose()
        await self._runs.aclose()
        await self.beginning.aclose()

    def routes(self) -> list[BaseRoute]:
        """The routes, for an app's own visible list."""
        return [
            each
            for mount in MOUNTS
            for each in (
                route(f"{mount}/ok", _ok),
                route(f"{mount}/info", self._info),
                *(each for part in self._parts for each in part.routes(mount)),
            )
        ]

    async def _info(self, _: Request) -> Response:
        """What this server is, to clients that ask before they begin."""
        flags: dict[str, Any] = {"assistants": True, "crons": True, "langsmith": False, "strict_resume": True}
        return answer(
            {
                "version": self._version,
                "langgraph_py_version": importlib.metadata.version("langgraph"),
                "flags": flags,
                "strict_resume": True,
                "host": {"kind": "self-hosted"},
            }
        )


async def _ok(_: Request) -> Response:
    return answer({"ok": True})
