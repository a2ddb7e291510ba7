"""The difference between two JSON values as a JSON Patch (RFC 6902)."""

from __future__ import annotations

from typing import Any


def diff(old: Any, new: Any, path: str = "") -> list[dict[str, Any]]:
    """Operations that make `new` of `old`: add, remove and replace. None where they are equal.

    A list that only grew gets what is new; any other change of a list replaces it.
    """
    if _same(old, new):
        return []
    if isinstance(old, dict) and isinstance(new, dict):
        return _objects(old, new, path)
    if isinstance(old, list) and isinstance(new, list) and len(new) > len(old) and _same(new[: len(old)], old):
        return [{"op": "add", "path": f"{path}/-", "value": value} for value in new[len(old) :]]
    return [{"op": "replace", "path": path, "value": new}]


def _objects(old: dict[str, Any], new: dict[str, Any], path: str) -> list[dict[str, Any]]:
    operations = [{"op": "remove", "path": f"{path}/{_token(key)}"} for key in old if key not in new]
    for key, value in new.items():
        place = f"{path}/{_token(key)}"
        operations += diff(old[key], value, place) if key in old else [{"op": "add", "path": place, "value": value}]
    return operations


def _same(old: Any, new: Any) -> bool:
    """Equal as JSON: true is not 1 (RFC 6902, section 4.6)."""
    if isinstance(old, bool) or isinstance(new, bool):
        return old is new
    if isinstance(old, dict) and isinstance(new, dict):
        return old.keys() == new.keys() and all(_same(value, new[key]) for key, value in old.items())
    if isinstance(old, list) and isinstance(new, list):
        return len(old) == len(new) and all(map(_same, old, new))
    return bool(old == new)


def _token(key: str) -> str:
    """A reference token of a JSON Pointer (RFC 6901, section 3)."""
    return key.replace("~", "~0").replace("/", "~1")
