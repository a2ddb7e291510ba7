"""Total JSON-safe rendering of whatever an agent puts into its state, tools and events."""

from __future__ import annotations

import math
from collections.abc import Mapping
from typing import Any

import orjson
from pydantic import BaseModel

_OPTIONS = orjson.OPT_NON_STR_KEYS
_MAX_DEPTH = 64
_MAX_REPR = 200


def to_jsonable(value: Any) -> Any:
    """Render any Python value as JSON values. Never raises.

    pydantic models (messages among them) become their dump, dataclasses and datetimes what orjson makes of
    them, sets lists, NaN and infinities null, lone surrogates question marks; an object JSON has no form for
    becomes its type name and the start of its `repr`.
    """
    try:
        return orjson.loads(orjson.dumps(value, default=_default, option=_OPTIONS))
    except (TypeError, ValueError, RecursionError):
        return _render(value, 0)


def to_text(value: Any) -> str:
    """The value as it is read by a model: text as it stands, anything else as JSON text."""
    return value if isinstance(value, str) else orjson.dumps(to_jsonable(value)).decode()


def _default(value: Any) -> Any:
    if isinstance(value, BaseModel):
        return value.model_dump()
    if isinstance(value, set | frozenset):
        return list(value)
    if isinstance(value, bytes | bytearray):
        return value.decode(errors="replace")
    if isinstance(value, Mapping):
        return dict(value)
    return _opaque(value)


def _opaque(value: Any) -> str:
    if isinstance(value, BaseException):
        return type(value).__name__
    try:
        text = repr(value)
    except (TypeError, ValueError, AttributeError, RuntimeError, RecursionError):
        text = "..."
    return f"{type(value).__name__}: {text[:_MAX_REPR]}"


def _render(value: Any, depth: int) -> Any:
    """The slow way, for what orjson refuses: deep, circular, huge integers, broken text."""
    if depth > _MAX_DEPTH:
        return "..."
    if value is None or isinstance(value, bool):
        return value
    if isinstance(value, str):
        return value.encode(errors="replace").decode()
    if isinstance(value, int):
        return int(value) if -(2**63) <= value < 2**64 else str(value)
    if isinstance(value, float):
        return float(value) if math.isfinite(value) else None
    if isinstance(value, Mapping):
        return {_render(str(key), depth): _render(item, depth + 1) for key, item in value.items()}
    if isinstance(value, list | tuple | set | frozenset):
        return [_render(item, depth + 1) for item in value]
    if isinstance(value, BaseModel):
        return {key: _render(getattr(value, key), depth + 1) for key in type(value).model_fields}
    return _render(_opaque(value), depth)
