"""JSON values as typed structs; whatever does not fit is refused by its path."""

from __future__ import annotations

import re
from typing import Any, TypeVar

import msgspec

from agent_server.errors import RequestError

T = TypeVar("T")

_PLACED = re.compile(r"(?P<why>.*?)(?: - at `\$\.?(?P<path>.*)`)?", re.DOTALL)
_MISSING = re.compile(r"Object missing required field `(.+)`")


def typed(value: Any, kind: type[T]) -> T:
    """A JSON value as `kind`; unknown keys are passed over. Raises `RequestError` that names the parameter."""
    try:
        return msgspec.convert(value, kind)
    except msgspec.ValidationError as error:
        found = _PLACED.fullmatch(str(error))
        why, path = (found["why"], found["path"] or None) if found else (str(error), None)
        if missing := _MISSING.fullmatch(why):
            path = f"{path}.{missing[1]}" if path else missing[1]
            message = f"Missing required parameter: '{path}'."
            raise RequestError(message, param=path, code="missing_required_parameter") from None
        where = f" for '{path}'" if path else ""
        message = f"Invalid value{where}: {why[:1].lower()}{why[1:]}."
        raise RequestError(message, param=path, code="invalid_type") from None
