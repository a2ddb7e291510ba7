"""One JSON object of a request, read field by field; whatever is wrong is refused by its path.

Messages and codes follow the OpenAI API's own ("Invalid type for 'input[0].role': ...", code `invalid_type`).
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import Any, TypeVar

from agent_server.errors import RequestError

Word = TypeVar("Word", bound=str)

# Types of a JSON value, by exact Python type: a boolean is no number.
_JSON_NAMES = {
    bool: "a boolean",
    int: "an integer",
    float: "a number",
    str: "a string",
    list: "an array",
    dict: "an object",
}


class Fields:
    """A JSON object and its path in the request, such as `input[3].content[0]` ("" for the body itself).

    A null is the same as an absent key. Getters return None for it, those named `required_...` refuse it; all
    raise `RequestError` with the field's path in `param`.
    """

    __slots__ = ("_values", "path")

    def __init__(self, values: Mapping[str, Any], path: str = "") -> None:
        self._values = values
        self.path = path

    def at(self, key: str) -> str:
        """The path of a field."""
        return f"{self.path}.{key}" if self.path else key

    def get(self, key: str) -> Any:
        """The value as it is."""
        return self._values.get(key)

    def required(self, key: str) -> Any:
        """The value as it is, if there is one."""
        value = self._values.get(key)
        if value is None:
            raise missing(self.at(key))
        return value

    def text(self, key: str, *, longest: int | None = None) -> str | None:
        """A string; `longest` counts characters."""
        value = self.get(key)
        if value is None:
            return None
        if type(value) is not str:
            raise wrong_type(self.at(key), "a string", value)
        if longest is not None and len(value) > longest:
            raise too_long(self.at(key), f"at most {longest} characters", len(value), "string")
        return value

    def required_text(self, key: str, *, empty: bool = False, longest: int | None = None) -> str:
        """A string, if there is one; not empty unless it may be `empty`."""
        value = self.text(key, longest=longest)
        if value is None:
            raise missing(self.at(key))
        if not value and not empty:
            raise invalid(self.at(key), "it must not be empty", code="empty_string")
        return value

    def flag(self, key: str) -> bool | None:
        """A boolean."""
        value = self.get(key)
        if value is None or type(value) is bool:
            return value
        raise wrong_type(self.at(key), "a boolean", value)

    def integer(self, key: str, low: int, high: int | None = None) -> int | None:
        """An integer from `low` to `high`."""
        value = self.get(key)
        if value is None:
            return None
        if type(value) is not int:
            raise wrong_type(self.at(key), "an integer", value)
        _check_range(self.at(key), value, low, high, "integer")
        return value

    def number(self, key: str, low: float, high: float) -> float | None:
        """A number from `low` to `high`."""
        value = self.get(key)
        if value is None:
            return None
        if type(value) not in (int, float):
            raise wrong_type(self.at(key), "a number", value)
        _check_range(self.at(key), value, low, high, "decimal")
        return float(value)

    def choice(self, key: str, words: Iterable[Word]) -> Word | None:
        """One of some words."""
        value = self.text(key)
        if value is None:
            return None
        for word in words:
            if word == value:
                return word
        raise not_among(self.at(key), value, words)

    def required_choice(self, key: str, words: Iterable[Word]) -> Word:
        """One of some words, if there is one."""
        word = self.choice(key, words)
        if word is None:
            raise missing(self.at(key))
        return word

    def child(self, key: str) -> Fields | None:
        """An object."""
        value = self.get(key)
        if value is None:
            return None
        if type(value) is not dict:
            raise wrong_type(self.at(key), "an object", value)
        return Fields(value, self.at(key))

    def required_child(self, key: str) -> Fields:
        """An object, if there is one."""
        child = self.child(key)
        if child is None:
            raise missing(self.at(key))
        return child

    def array(self, key: str) -> list[Any]:
        """An array; empty where there is none."""
        value = self.get(key)
        if value is None:
            return []
        if type(value) is not list:
            raise wrong_type(self.at(key), "an array", value)
        return value

    def children(self, key: str) -> list[Fields]:
        """An array of objects; empty where there is none."""
        found: list[Fields] = []
        for place, value in enumerate(self.array(key)):
            path = f"{self.at(key)}[{place}]"
            if type(value) is not dict:
                raise wrong_type(path, "an object", value)
            found.append(Fields(value, path))
        return found

    def values(self) -> dict[str, Any]:
        """The whole object, as it is."""
        return dict(self._values)


def missing(path: str) -> RequestError:
    """A required field is absent or null."""
    message = f"Missing required parameter: '{path}'."
    return RequestError(message, param=path, code="missing_required_parameter")


def wrong_type(path: str, expected: str, value: Any) -> RequestError:
    """A field holds another type of JSON value."""
    got = _JSON_NAMES.get(type(value), "something else")
    return RequestError(
        f"Invalid type for '{path}': expected {expected}, but got {got} instead.",
        param=path,
        code="invalid_type",
    )


def invalid(path: str, why: str, *, code: str = "invalid_value") -> RequestError:
    """A field's value cannot be taken."""
    return RequestError(f"Invalid '{path}': {why}.", param=path, code=code)


def not_among(path: str, value: str, words: Iterable[str]) -> RequestError:
    """A field's string is none of those it may be."""
    known = ", ".join(f"'{word}'" for word in words)
    return RequestError(f"Invalid value: '{value[:64]}'. Supported values are: {known}.", param=path)


def too_long(path: str, limit: str, length: int, kind: str) -> RequestError:
    """A string, array or object holds more than `limit` says."""
    return invalid(path, f"expected {limit}, but got {length}", code=f"{kind}_above_max_length")


def _check_range(path: str, value: float, low: float, high: float | None, kind: str) -> None:
    if not value >= low:
        raise invalid(path, f"expected a value >= {low}", code=f"{kind}_below_min_value")
    if high is not None and not value <= high:
        raise invalid(path, f"expected a value <= {high}", code=f"{kind}_above_max_value")
