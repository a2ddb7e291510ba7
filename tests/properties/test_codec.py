"""Every event comes back from its stored form as it was."""

from __future__ import annotations

import typing
from typing import Any

import msgspec
from hypothesis import given
from hypothesis import strategies as st

from agent_server import events as ev
from agent_server.events import TERMINAL, Event

texts = st.text(st.characters(exclude_categories=["Cs"]), max_size=8)
integers = st.integers(-(2**63), 2**63 - 1)
plain = st.none() | st.booleans() | integers | texts | st.floats(allow_nan=False, allow_infinity=False)
json_values = st.recursive(
    plain, lambda inner: st.lists(inner, max_size=3) | st.dictionaries(texts, inner, max_size=3), max_leaves=6
)
objects = st.dictionaries(texts, json_values, max_size=3)
KINDS: tuple[type[msgspec.Struct], ...] = typing.get_args(Event)
KNOWN: dict[Any, st.SearchStrategy[Any]] = {
    str: texts,
    int: integers,
    bool: st.booleans(),
    Any: json_values,
    type(None): st.none(),
    dict[str, Any]: objects,
    dict[str, str]: st.dictionaries(texts, texts, max_size=3),
}


def _values(kind: Any) -> st.SearchStrategy[Any]:
    """The values of a field, from its annotation."""
    if kind in KNOWN:
        return KNOWN[kind]
    if isinstance(kind, type) and issubclass(kind, msgspec.Struct):
        return _structs(kind)
    origin, args = typing.get_origin(kind), typing.get_args(kind)
    if origin is typing.Literal:
        return st.sampled_from(args)
    if origin is tuple:
        return st.lists(_values(args[0]), max_size=3).map(tuple)
    if origin is list:
        return st.lists(_values(args[0]), max_size=3)
    return st.one_of(*map(_values, args))  # a union


def _structs(kind: type[msgspec.Struct]) -> st.SearchStrategy[Any]:
    required = {field.encode_name: _values(field.type) for field in msgspec.structs.fields(kind) if field.required}
    optional = {field.encode_name: _values(field.type) for field in msgspec.structs.fields(kind) if not field.required}
    return st.fixed_dictionaries(required, optional=optional).map(lambda given: kind(**given))


@given(st.one_of(*map(_structs, KINDS)))
def test_every_event_comes_back_as_it_was(event: Event) -> None:
    stored = ev.encode(event)
    again = ev.decode(stored)
    assert again == event
    assert type(again) is type(event)
    assert ev.encode(again) == stored


def test_every_kind_of_event_is_tried() -> None:
    assert len(KINDS) == 23
    assert set(KINDS) >= TERMINAL
