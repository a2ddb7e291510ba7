"""Total JSON-safe rendering of whatever an agent puts into its state, tools and events."""

from __future__ import annotations

import dataclasses
import math
import reprlib
from collections import deque
from collections.abc import Mapping
from typing import Any

import orjson
from pydantic import BaseModel

_OPTIONS = orjson.OPT_NON_STR_KEYS
_MAX_DEPTH = 64
_MAX_VALUES = 100_000
_repr = reprlib.Repr()
_repr.maxother = 200


def to_jsonable(value: Any) -> Any:
    """Render any Python value as JSON values. Never raises.

    pydantic models (messages among them) become their dump, dataclasses and datetimes what orjson makes of
    them, sets lists, NaN and infinities null, lone surrogates question marks, an exception its type's name; an
    object JSON has no form for becomes its type name and a shortened `repr`.
    """
    return orjson.loads(to_json(value))


def to_json(value: Any) -> bytes:
    """The same as JSON text."""
    try:
        return orjson.dumps(value, default=_default, option=_OPTIONS)
    except (TypeError, ValueError, RecursionError):
        return orjson.dumps(_Slow().render(value), option=_OPTIONS)


def to_text(value: Any) -> str:
    """The value as it is read by a model: text as it stands, anything else as JSON text."""
    return to_unicode(value) if isinstance(value, str) else orjson.dumps(to_jsonable(value)).decode()


def to_unicode(text: str) -> str:
    """The text without lone surrogates, which UTF-8 and so every wire lacks (Unicode, section 3.9, D92)."""
    if text.isascii():
        return text
    try:
        text.encode()
    except UnicodeEncodeError:
        return text.encode(errors="replace").decode()
    return text


def _default(value: Any) -> Any:
    if isinstance(value, BaseModel):
        return value.model_dump()
    if isinstance(value, tuple | set | frozenset | deque):
        return list(value)
    if isinstance(value, bytes | bytearray):
        return value.decode(errors="replace")
    if isinstance(value, Mapping):
        return dict(value)
    return _opaque(value)


def _opaque(value: Any) -> str:
    """What may be shown of any object: never what an exception says."""
    name = type(value).__name__
    return name if isinstance(value, BaseException) else to_unicode(f"{name}: {_repr.repr(value)}")


class _Slow:
    """The slow way, for what orjson refuses: deep, circular, huge integers, broken text, odd keys.

    Deeper than `_MAX_DEPTH`, inside itself, or after `_MAX_VALUES` values, a container becomes "...".
    """

    def __init__(self) -> None:
        self._left = _MAX_VALUES
        self._around: list[int] = []  # identities of the containers that are being rendered

    def render(self, value: Any) -> Any:
        self._left -= 1
        if isinstance(value, str):
            return to_unicode(value)
        if isinstance(value, int) and not isinstance(value, bool):
            return int(value) if -(2**63) <= value < 2**64 else _huge(value)
        if isinstance(value, float):
            return float(value) if math.isfinite(value) else None
        inside = _items(value)
        if inside is None:
            return _leaf(value)
        if id(value) in self._around or len(self._around) > _MAX_DEPTH or self._left < 0:
            return "..."
        self._around.append(id(value))
        rendered = (
            {_key(key): self.render(item) for key, item in inside.items()}
            if isinstance(inside, dict)
            else [self.render(item) for item in inside]
        )
        self._around.pop()
        return rendered


def _items(value: Any) -> dict[Any, Any] | list[Any] | None:
    """What a container holds; None for what is none."""
    if isinstance(value, BaseModel):
        return {name: vars(value).get(name) for name in type(value).model_fields}
    if dataclasses.is_dataclass(value) and not isinstance(value, type):
        return {field.name: getattr(value, field.name, None) for field in dataclasses.fields(value)}
    if isinstance(value, dict):
        return value
    return list(value) if isinstance(value, list | tuple | set | frozenset | deque) else None


def _leaf(value: Any) -> Any:
    try:
        return orjson.loads(orjson.dumps(value, default=_default, option=_OPTIONS))
    except (TypeError, ValueError, RecursionError):
        return _opaque(value)


def _key(key: Any) -> str:
    if isinstance(key, str):
        return to_unicode(key)
    if isinstance(key, int) and not isinstance(key, bool):
        return _huge(key)
    return str(key) if isinstance(key, bool | float | None) else _opaque(key)


def _huge(value: int) -> str:
    """An integer as text, hexadecimal where Python refuses that many decimal digits (bpo-95778)."""
    return str(int(value)) if value.bit_length() < 10_000 else hex(value)
