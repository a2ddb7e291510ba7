"""A JSON request body, from ASGI messages to one object, with every way to be wrong refused.

orjson settles the grammar (RFC 8259: no byte order mark, NaN, Infinity, lone surrogate, or number beyond a
double). What it lets pass and this server does not: duplicate keys, U+0000 (which Postgres cannot store),
deep nesting, and bodies that are small as bytes but huge as Python objects.
"""

from __future__ import annotations

import json
import re
from collections import Counter
from typing import Any

import orjson
from starlette.datastructures import Headers
from starlette.requests import ClientDisconnect
from starlette.types import Receive

from agent_server.errors import BodyTooLargeError, MediaTypeError, RequestError

MAX_DEPTH = 128
MAX_CONTAINERS = 100_000
MAX_VALUES = 500_000

# Compared without regard to case (RFC 9110, section 8.3.1); the suffix "+json" is RFC 6839's.
_JSON_TYPE = re.compile(r"application/(?:json|[\w.!#$&^-]+\+json)", re.ASCII)
_UTF_8 = frozenset({"utf-8", "utf8"})

# An unclosed string runs to the end of the text, so that every text is scanned once.
_STRING = re.compile(r'"[^"\\]*+(?:\\.[^"\\]*+)*+"?', re.DOTALL)
# After an even number of backslashes `\u0000` is an escape, after an odd number it is text.
_NUL = re.compile(r"(?<!\\)(?:\\\\)*+\\u0000")


async def read_json(receive: Receive, headers: Headers, *, limit: int) -> dict[str, Any]:
    """The body as a JSON object; `limit` is its greatest size in bytes.

    Raises `MediaTypeError` (415), `BodyTooLargeError` (413, before the rest is read), `RequestError` (400,
    code "invalid_json"), and Starlette's `ClientDisconnect` when the client leaves before its body is whole.
    """
    _check_media_type(headers.get("content-type", ""))
    body = await read_body(receive, headers, limit=limit)
    try:
        text = body.decode()
    except UnicodeDecodeError as error:
        raise _invalid(None, f"it is not UTF-8 at byte {error.start}") from None
    value = parse_json(text)
    if not isinstance(value, dict):
        raise _invalid(None, "it must be an object")
    return value


def _check_media_type(content_type: str) -> None:
    media_type, *parameters = (part.strip() for part in content_type.lower().split(";"))
    if not _JSON_TYPE.fullmatch(media_type):
        raise MediaTypeError(content_type[:100])
    for parameter in parameters:
        name, _, value = parameter.partition("=")
        if name == "charset" and value.strip('"') not in _UTF_8:
            raise MediaTypeError(content_type[:100])


async def read_body(receive: Receive, headers: Headers, *, limit: int) -> bytearray:
    """The body as it is. Raises `BodyTooLargeError` and `ClientDisconnect`, as `read_json` does."""
    declared = headers.get("content-length", "")
    if declared.isdecimal() and (len(declared) > 18 or int(declared) > limit):
        raise BodyTooLargeError(limit)
    body = bytearray()
    while True:
        message = await receive()
        if message["type"] == "http.disconnect":
            raise ClientDisconnect
        body += message.get("body", b"")
        if len(body) > limit:
            raise BodyTooLargeError(limit)
        if not message.get("more_body", False):
            return body


def parse_json(text: str, *, param: str | None = None) -> Any:
    """The value of a JSON text. `param` names the parameter that holds the text; None means the whole body.

    Raises `RequestError` (code "invalid_json"), whose message repeats at most a key of the text.
    """
    _check_size(text, param)
    try:
        value = orjson.loads(text)
    except orjson.JSONDecodeError as error:
        if "limit" in error.msg:  # orjson's own, 1,024 levels
            raise _too_deep(param) from None
        raise _invalid(param, f"not JSON at line {error.lineno}, column {error.colno}") from None
    if _deeper_than(MAX_DEPTH, value):
        raise _too_deep(param)
    if "\\u0000" in text and _NUL.search(text):
        raise _invalid(param, "it holds a NUL character (\\u0000)")
    if "{" in text:
        _refuse_duplicate_keys(text, param)
    return value


def _check_size(text: str, param: str | None) -> None:
    """Refuse what would be too many Python objects before one of them is built.

    Brackets and commas inside strings are told apart only in a text that might have too many.
    """
    for signs, limit, what in (("{[", MAX_CONTAINERS, "objects and arrays"), (",", MAX_VALUES, "values")):
        if _count(text, signs) > limit and _count(_STRING.sub("", text), signs) > limit:
            raise _invalid(param, f"it holds more than {limit} {what}")


def _count(text: str, signs: str) -> int:
    return sum(text.count(sign) for sign in signs)


def _deeper_than(depth: int, value: Any) -> bool:
    level = [value]
    for _ in range(depth):
        level = [
            inner
            for outer in level
            if isinstance(outer, dict | list)
            for inner in (outer.values() if isinstance(outer, dict) else outer)
            if isinstance(inner, dict | list)
        ]
        if not level:
            return False
    return True


def _refuse_duplicate_keys(text: str, param: str | None) -> None:
    def check(pairs: list[tuple[str, Any]]) -> None:
        if len(dict(pairs)) < len(pairs):
            key, _ = Counter(key for key, _ in pairs).most_common(1)[0]
            raise _invalid(param, f"the key {key[:64]!r} occurs twice in one object")

    json.loads(text, object_pairs_hook=check)


def _too_deep(param: str | None) -> RequestError:
    return _invalid(param, f"it is nested deeper than {MAX_DEPTH} levels")


def _invalid(param: str | None, reason: str) -> RequestError:
    message = f"Invalid JSON in {param or 'request body'}: {reason}."
    return RequestError(message, param=param, code="invalid_json")
