"""`/runs/crons` and `/threads/{t}/runs/crons`."""

from __future__ import annotations

from typing import Any

from starlette.requests import Request
from starlette.responses import Response
from starlette.routing import Route

from agent_server.protocols.langgraph.crons import SORTS, Cron, Crons
from agent_server.protocols.langgraph.reading import (
    Body,
    Page,
    answer,
    nothing,
    read_object,
    read_value,
    route,
    selected,
    uuid_of,
)
from agent_server.protocols.langgraph.refusals import UnprocessableError
from agent_server.protocols.langgraph.thread_notes import ThreadNotes
from agent_server.settings import Settings


class CronRoutes:
    """The endpoints of one app."""

    def __init__(self, crons: Crons, notes: ThreadNotes, settings: Settings) -> None:
        self._crons = crons
        self._notes = notes
        self._limit = settings.max_body_bytes

    def routes(self, mount: str) -> list[Route]:
        """The routes below a mount."""
        return [
            route(f"{mount}/runs/crons", self._create, "POST"),
            route(f"{mount}/threads/{{thread_id}}/runs/crons", self._create, "POST"),
            route(f"{mount}/runs/crons/search", self._search, "POST"),
            route(f"{mount}/runs/crons/count", self._count, "POST"),
            route(f"{mount}/runs/crons/{{cron_id}}", self._get),
            route(f"{mount}/runs/crons/{{cron_id}}", self._update, "PATCH"),
            route(f"{mount}/runs/crons/{{cron_id}}", self._delete, "DELETE"),
        ]

    async def _find(self, request: Request) -> Cron:
        return await self._crons.find(uuid_of(request.path_params["cron_id"], "cron"))

    async def _create(self, request: Request) -> Response:
        values = await read_object(request, self._limit)
        thread = request.path_params.get("thread_id")
        thread_id = None if thread is None else (await self._notes.find(thread))[0].id
        return answer((await self._crons.create(values, thread_id)).shown())

    async def _search(self, request: Request) -> Response:
        body = Body(await read_object(request, self._limit)).only(
            "assistant_id", "thread_id", "enabled", "metadata", "limit", "offset", "sort_by", "sort_order", "select"
        )
        page = Page.of(body, SORTS, "created_at")
        found = await self._crons.found(body)
        found.sort(key=lambda each: (_sortable(getattr(each, page.sort_by)), each.cron_id), reverse=page.descending)
        shown = [selected(each.shown(), page.select) for each in page.shown(found)]
        return answer(shown, headers=page.headers(len(found)))

    async def _count(self, request: Request) -> Response:
        body = Body(await read_object(request, self._limit)).only("assistant_id", "thread_id", "enabled", "metadata")
        return answer(len(await self._crons.found(body)))

    async def _get(self, request: Request) -> Response:
        return answer((await self._find(request)).shown())

    async def _update(self, request: Request) -> Response:
        cron = await self._find(request)
        values = await read_value(request, self._limit)
        if not isinstance(values, dict):
            raise UnprocessableError("The body must be an object.")
        return answer((await self._crons.update(cron, values)).shown())

    async def _delete(self, request: Request) -> Response:
        await self._crons.delete(await self._find(request))
        return nothing()


def _sortable(value: Any) -> Any:
    return (value is not None, value if value is not None else 0)
