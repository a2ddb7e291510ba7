"""Rendering as JSON: total, whatever an agent puts into it."""

from __future__ import annotations

import datetime
import enum
import json
import types
import uuid
from collections import OrderedDict, deque, namedtuple
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from typing import Any

import orjson
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from langchain_core.messages import AIMessage
from pydantic import BaseModel

from agent_server.graph.jsonable import to_jsonable, to_text, to_unicode

SECRET = "SECRET-7f3a"
HUGE = 10**30


class Color(enum.Enum):
    """An enumeration of texts."""

    RED = "red"


@dataclass
class Point:
    """A plain dataclass."""

    x: Any
    inner: Any = field(default_factory=list)


class City(BaseModel):
    """A pydantic model."""

    name: Any


class Broken:
    """Its `repr` raises an exception that is no error of Python's own."""

    class Odd(Exception):
        """Nobody expects it."""

    def __repr__(self) -> str:
        raise self.Odd(SECRET)


class BrokenMapping(Mapping[str, Any]):
    """It cannot be read."""

    def __getitem__(self, key: str) -> Any:
        raise Broken.Odd(SECRET)

    def __iter__(self) -> Iterator[str]:
        raise Broken.Odd(SECRET)

    def __len__(self) -> int:
        return 1

    def __repr__(self) -> str:
        return "BrokenMapping()"


class BrokenModel(BaseModel):
    """It cannot be dumped."""

    name: str

    def model_dump(self, **kwargs: Any) -> dict[str, Any]:
        raise Broken.Odd(SECRET)

    def __repr__(self) -> str:
        return "BrokenModel()"


Pair = namedtuple("Pair", "left right")
WHEN = datetime.datetime(2026, 1, 2, tzinfo=datetime.UTC)
KNOWN = uuid.UUID(int=1)

VALUES: dict[str, tuple[Any, Any]] = {
    "plain values": ({"a": [1, 1.5, True, None, "x"]}, {"a": [1, 1.5, True, None, "x"]}),
    "NaN and infinities": ([float("nan"), float("inf"), -float("inf")], [None, None, None]),
    "a tuple": ((1, 2), [1, 2]),
    "a named tuple": (Pair(1, 2), [1, 2]),
    "a set": ({1}, [1]),
    "a frozen set": (frozenset({1}), [1]),
    "a deque": (deque([1, 2]), [1, 2]),
    "an ordered dict": (OrderedDict(a=1), {"a": 1}),
    "a mapping that is no dict": (types.MappingProxyType({"a": 1}), {"a": 1}),
    "bytes": (b"a\xff", "a\ufffd"),
    "an enumeration": (Color.RED, "red"),
    "a dataclass": (Point(1), {"x": 1, "inner": []}),
    "a pydantic model": (City(name="Oslo"), {"name": "Oslo"}),
    "a moment": (WHEN, "2026-01-02T00:00:00+00:00"),
    "a UUID": (KNOWN, str(KNOWN)),
    "keys that are no text": (
        {2: "a", None: "b", True: "c", KNOWN: "d"},
        {"2": "a", "null": "b", "true": "c", str(KNOWN): "d"},
    ),
    "a function": (len, "builtin_function_or_method: <built-in function len>"),
    "a class": (City, "ModelMetaclass: <class 'tests.unit.graph.test_jsonable.City'>"),
    "an exception": (ValueError(SECRET), "ValueError"),
    "exceptions in containers": (
        {"a": [ValueError(SECRET)], "b": {KeyError(SECRET)}},
        {"a": ["ValueError"], "b": ["KeyError"]},
    ),
    "an exception in a dataclass": (Point(ValueError(SECRET)), {"x": "ValueError", "inner": []}),
    "a mapping that cannot be read": (BrokenMapping(), "BrokenMapping: BrokenMapping()"),
    "a model that cannot be dumped": (BrokenModel(name="x"), {"name": "x"}),
    # What orjson refuses, and what comes with it
    "a huge integer": (HUGE, str(HUGE)),
    "the largest integers": ([2**64 - 1, -(2**63)], [2**64 - 1, -(2**63)]),
    "the smallest that are too large": ([2**64, -(2**63) - 1], [str(2**64), str(-(2**63) - 1)]),
    "more digits than Python writes": (2**20_000, hex(2**20_000)),
    "a lone surrogate": ("a\ud83d", "a?"),
    "surrogates in keys": ({"\ud83d": 1}, {"?": 1}),
    "keys of any kind": ({(1, 2): HUGE, 1.5: "a"}, {"tuple: (1, 2)": str(HUGE), "1.5": "a"}),
    "an exception as a key": ({ValueError(SECRET): 1}, {"ValueError": 1}),
    "a huge key": ({HUGE: 1}, {str(HUGE): 1}),
    "all of it beside a huge integer": (
        [HUGE, Point(WHEN), City(name={1}), b"a", Color.RED, deque([1]), True, None, float("nan")],
        [str(HUGE), {"x": "2026-01-02T00:00:00+00:00", "inner": []}, {"name": [1]}, "a", "red", [1], True, None, None],
    ),
    "a value twice beside a huge integer": ([HUGE, *[[1]] * 2], [str(HUGE), [1], [1]]),
}


@pytest.mark.parametrize("name", VALUES)
def test_a_value_is_rendered(name: str) -> None:
    value, expected = VALUES[name]
    assert to_jsonable(value) == expected


def test_an_object_is_shown_by_a_short_form_of_its_repr() -> None:
    class Long:
        def __repr__(self) -> str:
            return "x" * 10_000

    assert len(to_jsonable(Long())) < 300
    assert to_jsonable(Long()).startswith("Long: xxx")


def test_a_repr_that_fails_is_not_asked_for_its_reasons() -> None:
    assert SECRET not in json.dumps(to_jsonable([Broken(), {"a": Broken()}]))
    assert to_jsonable(Broken()).startswith("Broken: ")


def test_what_holds_itself_ends() -> None:
    circular: list[Any] = [1]
    circular.append({"again": circular})
    assert to_jsonable(circular) == [1, {"again": "..."}]


def test_what_holds_itself_many_times_ends_soon() -> None:
    crowd: list[list[Any]] = [[] for _ in range(12)]
    for each in crowd:
        each += crowd
    assert len(to_text(crowd)) < 10_000_000


def test_what_is_too_deep_is_cut() -> None:
    deep: Any = "bottom"
    for _ in range(1000):
        deep = [deep]
    text = to_text(deep)
    assert text.startswith("[[[[")
    assert '"..."' in text
    assert "bottom" not in text


def test_messages_are_rendered_as_their_dump() -> None:
    message = AIMessage("Hi", id="i")
    assert to_jsonable({"messages": [message]}) == {"messages": [message.model_dump()]}


def test_text_stands_as_it_is_and_the_rest_as_json() -> None:
    assert to_text("ä\n") == "ä\n"
    assert to_text("a\ud83d") == "a?"
    assert to_text({"a": "ä"}) == '{"a":"ä"}'


@pytest.mark.parametrize(
    ("text", "expected"), [("", ""), ("ä😀\u2028", "ä😀\u2028"), ("\ud83d\ude00", "??"), ("\udc80", "?")]
)
def test_text_is_made_whole_unicode(text: str, expected: str) -> None:
    assert to_unicode(text) == expected


leaves = st.one_of(
    st.none(),
    st.booleans(),
    st.integers(),
    st.floats(),
    st.text(),
    st.binary(max_size=8),
    st.complex_numbers(),
    st.datetimes(),
    st.timedeltas(),
    st.uuids(),
    st.decimals(allow_nan=False),
    st.fractions(),
    st.builds(Broken),
    st.builds(BrokenMapping),
    st.sampled_from([Color.RED, len, City, ..., ValueError(SECRET), range(3)]),
    st.integers(4000, 6000).map(lambda digits: 10**digits),
)
hashable = leaves.filter(lambda value: not isinstance(value, BrokenMapping))
odd = st.recursive(
    leaves,
    lambda inner: st.one_of(
        st.lists(inner, max_size=4),
        st.tuples(inner, inner),
        st.dictionaries(hashable, inner, max_size=3),
        st.builds(Point, inner),
        st.builds(City, name=inner),
        st.builds(deque, st.lists(inner, max_size=2)),
    ),
    max_leaves=12,
)


@settings(max_examples=150, deadline=None)
@given(odd)
def test_every_value_is_rendered_as_json_and_no_exception_by_its_text(value: Any) -> None:
    rendered = to_jsonable(value)
    written = orjson.dumps(rendered)
    assert orjson.loads(written) == rendered
    assert SECRET.encode() not in written
    assert orjson.loads(orjson.dumps(to_text(value))) == to_text(value)
