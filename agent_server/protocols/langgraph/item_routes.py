"""`/store`: what graphs remember across threads."""

from __future__ import annotations

from typing import Any

from starlette.requests import Request
from starlette.responses import Response
from starlette.routing import Route

from agent_server.graph.items import Items
from agent_server.protocols.langgraph.reading import (
    MOST,
    Body,
    answer,
    nothing,
    query_flag,
    read_object,
    route,
)
from agent_server.protocols.langgraph.refusals import UnprocessableError
from agent_server.settings import Settings


class ItemRoutes:
    """The endpoints of one app."""

    def __init__(self, items: Items, settings: Settings) -> None:
        self._items = items
        self._limit = settings.max_body_bytes

    def routes(self, mount: str) -> list[Route]:
        """The routes below a mount."""
        return [
            route(f"{mount}/store/items", self._put, "PUT"),
            route(f"{mount}/store/items", self._get),
            route(f"{mount}/store/items", self._delete, "DELETE"),
            route(f"{mount}/store/items/search", self._search, "POST"),
            route(f"{mount}/store/namespaces", self._namespaces, "POST"),
        ]

    async def _body(self, request: Request) -> Body:
        return Body(await read_object(request, self._limit))

    async def _put(self, request: Request) -> Response:
        body = (await self._body(request)).only("namespace", "key", "value", "index", "ttl")
        if "value" not in body:
            raise UnprocessableError("'value' is required.", param="value")
        index = body.values.get("index")
        if index is not None and index is not False and body.texts("index") is None:
            raise UnprocessableError("'index' must be false or a list of texts.", param="index")
        ttl = body.values.get("ttl")
        if ttl is not None and (isinstance(ttl, bool) or not isinstance(ttl, int | float) or ttl <= 0):
            raise UnprocessableError("'ttl' must be a number of minutes.", param="ttl")
        namespace, key = tuple(body.texts("namespace") or ()), body.required("key")
        await self._items.put(namespace, key, body.mapping("value"), ttl=ttl, index=index)
        return nothing()

    async def _get(self, request: Request) -> Response:
        """`GET /store/items?namespace=a.b&key=k`: null for an item that is not there."""
        key = request.query_params.get("key")
        if key is None:
            raise UnprocessableError("'key' is required.", param="key")
        refresh = query_flag(request, "refresh_ttl") if "refresh_ttl" in request.query_params else None
        return answer(await self._items.get(_namespace(request), key, refresh_ttl=refresh))

    async def _delete(self, request: Request) -> Response:
        if "key" in request.query_params:
            await self._items.delete(_namespace(request), request.query_params["key"])
            return nothing()
        body = (await self._body(request)).only("namespace", "key")
        await self._items.delete(tuple(body.texts("namespace") or ()), body.required("key"))
        return nothing()

    async def _search(self, request: Request) -> Response:
        body = (await self._body(request)).only("namespace_prefix", "filter", "limit", "offset", "query", "refresh_ttl")
        if body.text("query"):
            raise UnprocessableError("'query' needs an index of meanings, which this store has not.", param="query")
        found = await self._items.search(
            tuple(body.texts("namespace_prefix") or ()),
            filters=body.mapping("filter") or None,
            limit=body.whole("limit", 10, least=1, most=MOST),
            offset=body.whole("offset", 0),
            refresh_ttl=body.flag("refresh_ttl", False) if "refresh_ttl" in body else None,
        )
        return answer({"items": found})

    async def _namespaces(self, request: Request) -> Response:
        body = (await self._body(request)).only("prefix", "suffix", "max_depth", "limit", "offset")
        found = await self._items.namespaces(
            prefix=_path(body, "prefix"),
            suffix=_path(body, "suffix"),
            max_depth=body.whole("max_depth", 1, least=1, most=100) if "max_depth" in body else None,
            limit=body.whole("limit", 100, least=1, most=MOST),
            offset=body.whole("offset", 0),
        )
        return answer({"namespaces": found})


def _namespace(request: Request) -> tuple[str, ...]:
    given = request.query_params.getlist("namespace")
    return tuple(label for each in given for label in each.split(".") if label)


def _path(body: Body, name: str) -> Any:
    labels = body.texts(name)
    return tuple(labels) if labels else None
