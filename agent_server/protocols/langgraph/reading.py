"""Requests of this API, read: bodies of any media type, ids, flags, pages; and its errors, `{"detail": str}`."""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Mapping, Sequence
from typing import Any, NamedTuple
from uuid import UUID

from starlette.requests import Request
from starlette.responses import Response
from starlette.routing import Route
from starlette.types import ASGIApp

from agent_server.errors import AgentServerError, BodyTooLargeError, OverloadedError, RequestError
from agent_server.framing import to_json
from agent_server.http.body import parse_json, read_body
from agent_server.protocols.langgraph.refusals import UnprocessableError

Endpoint = Callable[[Request], Awaitable[ASGIApp]]

MOST = 1_000
"""Of anything, in one page."""


def route(path: str, endpoint: Endpoint, method: str = "GET") -> Route:
    """A route whose errors are this API's."""

    async def answered(request: Request) -> ASGIApp:
        try:
            return await endpoint(request)
        except AgentServerError as error:
            headers = {"retry-after": "1"} if isinstance(error, OverloadedError) else None
            return answer({"detail": error.message}, error.status, headers)

    return Route(path, answered, methods=[method])


def answer(body: Any, status: int = 200, headers: Mapping[str, str] | None = None) -> Response:
    """A body as JSON."""
    return Response(to_json(body), status, dict(headers or {}), media_type="application/json")


def nothing(status: int = 204) -> Response:
    """An answer without a body."""
    return Response(status_code=status)


# -- bodies


async def read_value(request: Request, limit: int) -> Any:
    """The body as JSON, whatever it says it is: Studio and some proxies post JSON as plain text. Empty is {}.

    Raises `UnprocessableError` and `BodyTooLargeError`.
    """
    try:
        body = await read_body(request.receive, request.headers, limit=limit)
        return parse_json(body.decode()) if body.strip() else {}
    except BodyTooLargeError:
        raise
    except (RequestError, UnicodeDecodeError) as error:
        message = error.message if isinstance(error, RequestError) else "Invalid JSON in request body: not UTF-8."
        raise UnprocessableError(message) from None


async def read_object(request: Request, limit: int) -> dict[str, Any]:
    """The body as a JSON object, without what is null."""
    value = await read_value(request, limit)
    if not isinstance(value, dict):
        raise UnprocessableError("The body must be an object.")
    return {name: each for name, each in value.items() if each is not None}


class Body:
    """The fields of a body that is no run. Each is asked for by the type that it must have."""

    def __init__(self, values: Mapping[str, Any]) -> None:
        self.values = values

    def __contains__(self, name: str) -> bool:
        return name in self.values

    def only(self, *names: str) -> Body:
        """Raises `UnprocessableError` for a field that is none of these."""
        for name in self.values:
            if name not in names:
                raise UnprocessableError(f"{name[:100]!r} is no field of this request.", param=name[:100])
        return self

    def _typed(self, name: str, kinds: type | tuple[type, ...], what: str, default: Any) -> Any:
        value = self.values.get(name, default)
        if value is not default and (not isinstance(value, kinds) or isinstance(value, bool) is not (kinds is bool)):
            raise UnprocessableError(f"'{name}' must be {what}.", param=name)
        return value

    def text(self, name: str, default: str | None = None) -> str | None:
        """A text."""
        value: str | None = self._typed(name, str, "a text", default)
        return value

    def required(self, name: str) -> str:
        """A text that must be there."""
        if (value := self.text(name)) is None:
            raise UnprocessableError(f"'{name}' is required.", param=name)
        return value

    def mapping(self, name: str) -> dict[str, Any]:
        """An object; empty where it is not given."""
        value: dict[str, Any] | None = self._typed(name, dict, "an object", None)
        return value or {}

    def flag(self, name: str, default: bool) -> bool:
        """True or false."""
        value: bool = self._typed(name, bool, "true or false", default)
        return value

    def whole(self, name: str, default: int, *, least: int = 0, most: int = 2**53) -> int:
        """A whole number."""
        value: int = self._typed(name, int, "a whole number", default)
        if not least <= value <= most:
            raise UnprocessableError(f"'{name}' must be from {least} to {most}.", param=name)
        return value

    def texts(self, name: str) -> list[str] | None:
        """A list of texts."""
        value: list[str] | None = self._typed(name, list, "a list of texts", None)
        if value is not None and not all(isinstance(each, str) for each in value):
            raise UnprocessableError(f"'{name}' must be a list of texts.", param=name)
        return value

    def choice(self, name: str, allowed: Sequence[str], default: str) -> str:
        """One of some words."""
        value = self.text(name, default) or default
        if value not in allowed:
            raise UnprocessableError(f"'{name}' must be one of: {', '.join(allowed)}.", param=name)
        return value


# -- addresses


def uuid_of(text: str, what: str) -> str:
    """A UUID in its usual form. Raises `UnprocessableError`."""
    try:
        return str(UUID(text))
    except ValueError:
        raise UnprocessableError(f"Invalid {what} ID: must be a UUID") from None


def run_id_of(text: str) -> str:
    """A run's id as the server has it: 32 hex digits."""
    return UUID(uuid_of(text, "run")).hex


def query_flag(request: Request, name: str, default: bool = False) -> bool:
    """A query parameter that is true or false."""
    value = request.query_params.get(name)
    if value is None:
        return default
    if value.lower() not in ("true", "false", "1", "0"):
        raise UnprocessableError(f"'{name}' must be true or false.", param=name)
    return value.lower() in ("true", "1")


def query_whole(request: Request, name: str, default: int, most: int = 2**31) -> int:
    """A query parameter that is a whole number, not negative."""
    value = request.query_params.get(name)
    if value is None:
        return default
    if not value.isascii() or not value.isdecimal() or len(value) > 12 or int(value) > most:
        raise UnprocessableError(f"'{name}' must be a whole number up to {most}.", param=name)
    return int(value)


def query_choice(request: Request, name: str, allowed: Sequence[str], default: str) -> str:
    """A query parameter that is one of some words."""
    value = request.query_params.get(name, default)
    if value not in allowed:
        raise UnprocessableError(f"'{name}' must be one of: {', '.join(allowed)}.", param=name)
    return value


# -- pages


class Page(NamedTuple):
    """The part of a list that a client wants to see, and how it is sorted."""

    limit: int
    offset: int
    sort_by: str
    descending: bool
    select: list[str] | None

    @classmethod
    def of(cls, body: Body, sorts: Sequence[str], default: str) -> Page:
        """What a search's body says of it."""
        return cls(
            body.whole("limit", 10, least=1, most=MOST),
            body.whole("offset", 0),
            body.choice("sort_by", sorts, default),
            body.choice("sort_order", ("asc", "desc"), "desc") == "desc",
            body.texts("select"),
        )

    def shown(self, items: Sequence[Any]) -> Sequence[Any]:
        """The items of the page."""
        return items[self.offset : self.offset + self.limit]

    def headers(self, total: int) -> dict[str, str]:
        """How many there are, and where the next page begins."""
        end = self.offset + self.limit
        more = {"x-pagination-next": str(end)} if end < total else {}
        return {"x-pagination-total": str(total), **more}


def selected(item: dict[str, Any], names: Sequence[str] | None) -> dict[str, Any]:
    """The fields that a client wants to see; all, where it names none."""
    return item if names is None else {name: item[name] for name in names if name in item}


def contains(value: Any, wanted: Any) -> bool:
    """Whether a JSON value holds another one: objects by their keys, lists by their members (Postgres's `@>`)."""
    if isinstance(wanted, Mapping):
        return isinstance(value, Mapping) and all(key in value and contains(value[key], wanted[key]) for key in wanted)
    if isinstance(wanted, list):
        return isinstance(value, list) and all(any(contains(each, want) for each in value) for want in wanted)
    return type(value) is type(wanted) and bool(value == wanted)
