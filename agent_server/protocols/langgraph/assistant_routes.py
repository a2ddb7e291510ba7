"""`/assistants`."""

from __future__ import annotations

from typing import Any

from starlette.requests import Request
from starlette.responses import Response
from starlette.routing import Route

from agent_server.graph.outline import drawn, schemas, subgraphs
from agent_server.protocols.langgraph.assistants import FIELDS, SORTS, Assistant, Assistants
from agent_server.protocols.langgraph.reading import (
    MOST,
    Body,
    Page,
    answer,
    contains,
    nothing,
    query_flag,
    read_object,
    route,
    selected,
    uuid_of,
)
from agent_server.protocols.langgraph.refusals import UnprocessableError
from agent_server.protocols.langgraph.thread_notes import ThreadNotes
from agent_server.settings import Settings

DEEPEST = 32
"""Levels of subgraphs that a drawing may show."""


class AssistantRoutes:
    """The endpoints of one app."""

    def __init__(self, assistants: Assistants, notes: ThreadNotes, settings: Settings) -> None:
        self._assistants = assistants
        self._notes = notes
        self._limit = settings.max_body_bytes

    def routes(self, mount: str) -> list[Route]:
        """The routes below a mount."""
        one = f"{mount}/assistants/{{assistant_id}}"
        return [
            route(f"{mount}/assistants", self._create, "POST"),
            route(f"{mount}/assistants/search", self._search, "POST"),
            route(f"{mount}/assistants/count", self._count, "POST"),
            route(one, self._get),
            route(one, self._update, "PATCH"),
            route(one, self._delete, "DELETE"),
            route(f"{one}/schemas", self._schemas),
            route(f"{one}/graph", self._graph),
            route(f"{one}/subgraphs", self._subgraphs),
            route(f"{one}/subgraphs/{{namespace:path}}", self._subgraphs),
            route(f"{one}/versions", self._versions, "POST"),
            route(f"{one}/latest", self._set_latest, "POST"),
        ]

    async def _body(self, request: Request) -> Body:
        return Body(await read_object(request, self._limit))

    async def _find(self, request: Request) -> Assistant:
        return await self._assistants.get(uuid_of(request.path_params["assistant_id"], "assistant"))

    async def _create(self, request: Request) -> Response:
        return answer((await self._assistants.create(await self._body(request))).shown())

    async def _search(self, request: Request) -> Response:
        body = (await self._body(request)).only(
            "metadata", "graph_id", "name", "limit", "offset", "sort_by", "sort_order", "select"
        )
        page = Page.of(body, SORTS, "created_at")
        found = self._assistants.sorted(await self._assistants.found(body), page)
        shown = [selected(each.shown(), page.select) for each in page.shown(found)]
        return answer(shown, headers=page.headers(len(found)))

    async def _count(self, request: Request) -> Response:
        body = (await self._body(request)).only("metadata", "graph_id", "name")
        return answer(len(await self._assistants.found(body)))

    async def _get(self, request: Request) -> Response:
        return answer((await self._find(request)).shown())

    async def _update(self, request: Request) -> Response:
        assistant = await self._find(request)
        body = (await self._body(request)).only(*FIELDS)
        return answer((await self._assistants.update(assistant.assistant_id, body)).shown())

    async def _delete(self, request: Request) -> Response:
        assistant_id = (await self._find(request)).assistant_id
        delete_threads = query_flag(request, "delete_threads")
        await self._assistants.delete(assistant_id)
        if delete_threads:
            for each in await self._notes.listed():
                if each.note.metadata().get("assistant_id") == assistant_id:
                    await self._notes.delete(each.id)
        return nothing()

    async def _versions(self, request: Request) -> Response:
        assistant = await self._find(request)
        body = (await self._body(request)).only("metadata", "limit", "offset")
        metadata, limit, offset = body.mapping("metadata"), body.whole("limit", 10, most=MOST), body.whole("offset", 0)
        found = [each for each in await self._assistants.versions(assistant) if contains(each.metadata, metadata)]
        return answer([each.shown_version() for each in found[offset : offset + limit]])

    async def _set_latest(self, request: Request) -> Response:
        assistant = await self._find(request)
        body = (await self._body(request)).only("version")
        if "version" not in body:
            raise UnprocessableError("'version' is required.", param="version")
        return answer((await self._assistants.set_latest(assistant.assistant_id, body.whole("version", 0))).shown())

    # -- what its graph is ---------------------------------------------------------------------------------

    async def _schemas(self, request: Request) -> Response:
        """`GET .../schemas`: of the graph's input, output, state, config and context; null for what has none."""
        assistant = await self._find(request)
        found = await schemas(await self._assistants.agent(assistant))
        return answer({"graph_id": assistant.graph_id, **found})

    async def _graph(self, request: Request) -> Response:
        """`GET .../graph?xray=`: nodes and edges; subgraphs are opened to a depth, or all of them."""
        assistant = await self._find(request)
        return answer(await drawn(await self._assistants.agent(assistant), _xray(request)))

    async def _subgraphs(self, request: Request) -> Response:
        """`GET .../subgraphs[/{namespace}]?recurse=`: their schemas, by namespace."""
        assistant = await self._find(request)
        namespace = request.path_params.get("namespace")
        recurse = query_flag(request, "recurse")
        found: dict[str, dict[str, Any]] = await subgraphs(
            await self._assistants.agent(assistant), namespace, recurse=recurse
        )
        return answer({name: {"graph_id": assistant.graph_id, **each} for name, each in found.items()})


def _xray(request: Request) -> int | bool:
    value = request.query_params.get("xray", "false").lower()
    if value in ("true", "false"):
        return value == "true"
    if not value.isascii() or not value.isdecimal() or int(value[:9]) > DEEPEST:
        raise UnprocessableError(f"'xray' must be true, false, or a depth up to {DEEPEST}.", param="xray")
    return int(value)
