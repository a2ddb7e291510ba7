"""Pages of a list: every item once, in both orders, whatever their size."""

from __future__ import annotations

from typing import Any

import pytest
from starlette.datastructures import QueryParams

from agent_server.errors import RequestError
from agent_server.protocols.responses.pages import check_include, page

ITEMS = [{"id": f"i{number}"} for number in range(5)]


def walk(order: str, limit: int) -> list[str]:
    """The ids of all pages."""
    query, seen = {"order": order, "limit": str(limit)}, list[str]()
    while True:
        found = page(ITEMS, query)
        seen += [item["id"] for item in found["data"]]
        if not found["has_more"]:
            return seen
        query["after"] = found["last_id"]


@pytest.mark.parametrize("limit", [1, 2, 3, 5, 100])
def test_every_item_is_seen_once(limit: int) -> None:
    assert walk("asc", limit) == [item["id"] for item in ITEMS]
    assert walk("desc", limit) == [item["id"] for item in reversed(ITEMS)]


def test_the_newest_come_first_and_twenty_of_them_by_default() -> None:
    found = page([{"id": str(number)} for number in range(30)], {})
    assert [item["id"] for item in found["data"]] == [str(number) for number in range(29, 9, -1)]
    assert (found["first_id"], found["last_id"], found["has_more"]) == ("29", "10", True)


def test_after_the_last_item_there_is_nothing() -> None:
    found = page(ITEMS, {"after": "i0"})
    assert found == {"object": "list", "data": [], "first_id": None, "last_id": None, "has_more": False}


@pytest.mark.parametrize(
    ("query", "param"),
    [
        ({"limit": "0"}, "limit"),
        ({"limit": "101"}, "limit"),
        ({"limit": "9" * 5000}, "limit"),
        ({"limit": "٣"}, "limit"),
        ({"limit": ""}, "limit"),
        ({"order": ""}, "order"),
        ({"after": "i9"}, "after"),
    ],
)
def test_bad_queries_name_their_parameter(query: dict[str, Any], param: str) -> None:
    with pytest.raises(RequestError) as raised:
        page(ITEMS, query)
    assert raised.value.param == param


def test_include_may_name_what_the_api_knows_in_both_ways_of_writing_lists() -> None:
    known = "reasoning.encrypted_content"
    check_include(QueryParams([("include", known), ("include[]", known), ("limit", "x")]))
    for key in ("include", "include[]"):
        with pytest.raises(RequestError) as raised:
            check_include(QueryParams([(key, known), (key, "all")]))
        assert raised.value.param == "include"
