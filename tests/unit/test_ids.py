"""Ids: chance for what is made once, a function of the run for everything inside it."""

from __future__ import annotations

import re
from uuid import UUID

import pytest

from agent_server import ids

RUN = "0123456789abcdef0123456789abcdef"


@pytest.mark.parametrize(
    ("make", "pattern"),
    [
        (ids.new_run_id, r"[0-9a-f]{32}"),
        (ids.new_error_id, r"err_[0-9a-f]{16}"),
        (ids.new_request_id, r"req_[0-9a-f]{32}"),
    ],
)
def test_a_new_id_is_never_the_same(make: object, pattern: str) -> None:
    assert callable(make)
    made = {make() for _ in range(100)}
    assert len(made) == 100
    assert all(re.fullmatch(pattern, each) for each in made)


def test_ids_inside_a_run_derive_from_it_and_the_place() -> None:
    assert ids.response_id(RUN) == f"resp_{RUN}"
    assert ids.item_id("msg", RUN, 0) == f"msg_{RUN}0000"
    assert ids.item_id("fc", RUN, 0xAB) == f"fc_{RUN}00ab"
    assert ids.call_id(RUN, 0xF001) == f"call_{RUN}f001"


def test_no_two_places_share_an_id() -> None:
    assert len({ids.item_id("msg", RUN, place) for place in range(70_000)}) == 70_000


def test_the_run_id_is_langchains_run_id_too() -> None:
    assert ids.run_uuid(RUN) == UUID(RUN)
    assert ids.run_uuid(RUN).hex == RUN
