"""Pages of a list, as the OpenAI API cuts them: `after`, `limit`, `order`."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from starlette.datastructures import QueryParams

from agent_server.errors import RequestError
from agent_server.protocols.responses.fields import not_among
from agent_server.protocols.responses.request import INCLUDABLE


def page(items: Sequence[Mapping[str, Any]], query: Mapping[str, str]) -> dict[str, Any]:
    """One page of items, which are given oldest first. Raises `RequestError` naming the parameter."""
    order = query.get("order", "desc")
    if order not in ("asc", "desc"):
        raise RequestError("'order' must be 'asc' or 'desc'.", param="order")
    limit = query.get("limit", "20")
    if not limit.isascii() or not limit.isdecimal() or not 1 <= int(limit[:4]) <= 100:
        raise RequestError("'limit' must be a number from 1 to 100.", param="limit")
    ordered = list(items) if order == "asc" else list(reversed(items))
    after = query.get("after")
    if after is not None:
        places = [place for place, item in enumerate(ordered) if item["id"] == after]
        if not places:
            raise RequestError(f"There is no item '{after[:100]}' in this list.", param="after")
        ordered = ordered[places[0] + 1 :]
    data = ordered[: int(limit)]
    return {
        "object": "list",
        "data": data,
        "first_id": data[0]["id"] if data else None,
        "last_id": data[-1]["id"] if data else None,
        "has_more": len(ordered) > len(data),
    }


def check_include(query: QueryParams) -> None:
    """`include` may name what the API knows; all of that is shown anyway, where there is any. openai-python writes
    lists as `include[]`. Raises `RequestError`."""
    for key, value in query.multi_items():
        if key in ("include", "include[]") and value not in INCLUDABLE:
            raise not_among("include", value, INCLUDABLE)
