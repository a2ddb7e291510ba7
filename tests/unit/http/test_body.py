from __future__ import annotations

from collections.abc import Awaitable
from typing import Any

import orjson
import pytest
from starlette.datastructures import Headers
from starlette.requests import ClientDisconnect
from starlette.types import Message

from agent_server.errors import BodyTooLargeError, MediaTypeError, RequestError
from agent_server.http.body import MAX_CONTAINERS, MAX_DEPTH, MAX_VALUES, parse_json, read_json

LIMIT = 16 * 1024 * 1024
JSON = Headers({"content-type": "application/json"})


class Client:
    """Sends a body in chunks; `left` are those not asked for yet. With `leaves` it hangs up after them."""

    def __init__(self, *chunks: bytes, leaves: bool = False) -> None:
        last = len(chunks) - 1
        self.left: list[Message] = [
            {"type": "http.request", "body": chunk, "more_body": leaves or place < last}
            for place, chunk in enumerate(chunks)
        ]
        if leaves:
            self.left.append({"type": "http.disconnect"})

    async def receive(self) -> Message:
        return self.left.pop(0)


def body_of(*chunks: bytes, headers: Headers = JSON, limit: int = LIMIT) -> Awaitable[dict[str, Any]]:
    return read_json(Client(*chunks).receive, headers, limit=limit)


@pytest.mark.parametrize(
    "content_type",
    [
        "application/json",
        "Application/JSON",
        "application/json; charset=utf-8",
        'application/json;charset="UTF-8"',
        "application/json ; profile=x; charset=utf8",
        "application/json;",
        "application/vnd.api+json",
        "application/problem+json; charset=utf-8",
    ],
)
async def test_a_body_that_is_declared_as_json_is_read(content_type: str) -> None:
    assert await body_of(b'{"a":1}', headers=Headers({"content-type": content_type})) == {"a": 1}


@pytest.mark.parametrize(
    "content_type",
    [
        None,
        "",
        "text/plain",
        "text/json",
        "application/jsonp",
        "application/json-seq",
        "application/+json",
        "application/x-www-form-urlencoded",
        "multipart/form-data; boundary=x",
        "application/json, text/plain",
        "application/json; charset=utf-16",
        "application/json; charset=latin-1",
        "application/json; charset=",
    ],
)
async def test_a_body_that_is_not_declared_as_json_is_refused_unread(content_type: str | None) -> None:
    client = Client(b'{"a":1}')
    headers = Headers({} if content_type is None else {"content-type": content_type})
    with pytest.raises(MediaTypeError) as raised:
        await read_json(client.receive, headers, limit=LIMIT)
    assert (raised.value.status, raised.value.param) == (415, "content-type")
    assert len(client.left) == 1


async def test_the_chunks_of_a_body_are_put_together_wherever_they_were_cut() -> None:
    body = '{"text":"Grüße, 東京 🗼"}'.encode()
    assert await body_of(*(body[i : i + 1] for i in range(len(body)))) == {"text": "Grüße, 東京 🗼"}


async def test_a_chunk_without_a_body_is_empty() -> None:
    client = Client(b"{}", b"")
    del client.left[1]["body"]
    assert await read_json(client.receive, JSON, limit=LIMIT) == {}


@pytest.mark.parametrize("length", ["101", "9" * 5000])
async def test_a_declared_length_over_the_limit_is_refused_before_anything_is_read(length: str) -> None:
    client = Client(b"{}")
    headers = Headers({"content-type": "application/json", "content-length": length})
    with pytest.raises(BodyTooLargeError) as raised:
        await read_json(client.receive, headers, limit=100)
    assert (raised.value.status, raised.value.code) == (413, "request_too_large")
    assert len(client.left) == 1


async def test_a_body_is_counted_while_it_is_read() -> None:
    client = Client(b'{"a":"', b"x" * 60, b"x" * 60, b"x" * 60, b'"}')
    with pytest.raises(BodyTooLargeError):
        await read_json(client.receive, JSON, limit=100)
    assert len(client.left) == 2, "the rest is left where it is"


async def test_a_body_of_exactly_the_limit_is_read() -> None:
    body = b'{"a":1}'
    assert await body_of(body, limit=len(body)) == {"a": 1}
    with pytest.raises(BodyTooLargeError):
        await body_of(body, limit=len(body) - 1)


@pytest.mark.parametrize("chunks", [(), (b'{"a":',), (b'{"a":1}',)])
async def test_a_client_that_leaves_before_its_body_is_whole_is_noticed(chunks: tuple[bytes, ...]) -> None:
    with pytest.raises(ClientDisconnect):
        await read_json(Client(*chunks, leaves=True).receive, JSON, limit=LIMIT)


BAD = {
    "empty": b"",
    "blank": b"  ",
    "words": b"hello",
    "cut off": b'{"input":',
    "two values": b"{}{}",
    "comment": b"{} // no",
    "trailing comma": b'{"a":1,}',
    "single quotes": b"{'a':1}",
    "wrong UTF-8": b'{"a":"\xff"}',
    "overlong UTF-8": b'{"a":"\xc0\xaf"}',
    "surrogate in UTF-8": b'{"a":"\xed\xa0\x80"}',
    "byte order mark": b'\xef\xbb\xbf{"a":1}',
    "UTF-16": '{"a":1}'.encode("utf-16"),
    "NaN": b'{"a":NaN}',
    "Infinity": b'{"a":-Infinity}',
    "beyond a double": b'{"a":1e999}',
    "5,000 digits": b'{"a":' + b"9" * 5000 + b"}",
    "lone surrogate": b'{"a":"\\ud800"}',
    "raw control character": b'{"a":"\x01"}',
    "NUL in a string": b'{"a":"x\\u0000"}',
    "NUL in a key": b'{"a\\u0000":1}',
    "NUL after a backslash": b'{"a":"\\\\\\u0000"}',
    "a list": b"[1]",
    "a string": b'"input"',
    "a number": b"1",
    "null": b"null",
    "duplicate key": b'{"a":1,"b":2,"a":3}',
    "duplicate key, escaped": b'{"a":1,"\\u0061":2}',
    "duplicate key, deep": b'{"a":[{"b":{"c":1,"c":1}}]}',
    "129 deep": b'{"a":' + b"[" * 128 + b"]" * 128 + b"}",
    "1,000 deep": b'{"a":' * 1000 + b"1" + b"}" * 1000,
    "5,000 deep": b'{"a":' + b"[" * 5000 + b"]" * 5000 + b"}",
    "a million deep, never closed": b"[" * 1_000_000,
    "too many objects": b'{"a":[' + b",".join([b"{}"] * 100_000) + b"]}",
    "too many arrays": b'{"a":[' + b",".join([b"[]"] * 100_000) + b"]}",
    "too many numbers": b'{"a":[' + b",".join([b"1"] * 500_002) + b"]}",
}


@pytest.mark.parametrize("body", BAD.values(), ids=BAD.keys())
async def test_a_body_that_is_no_json_object_is_refused(body: bytes) -> None:
    with pytest.raises(RequestError) as raised:
        await body_of(body)
    error = raised.value
    assert (error.status, error.code, error.param) == (400, "invalid_json", None)
    assert error.message.startswith("Invalid JSON in request body: ")
    assert len(error.message) < 150


GOOD: dict[str, tuple[bytes, Any]] = {
    "white space": (b' \r\n\t{ "a" : 1 } \n', {"a": 1}),
    "escapes": (b'{"a":"\\"{[\\\\\\u00e9\\ud83d\\uddfc"}', {"a": '"{[\\é🗼'}),
    "NUL spelt out": (b'{"a":"\\\\u0000"}', {"a": "\\u0000"}),
    "the same key in two objects": (
        b'{"a":{"a":1},"b":[{"a":1},{"a":2}]}',
        {"a": {"a": 1}, "b": [{"a": 1}, {"a": 2}]},
    ),
    "keys that differ by case": (b'{"a":1,"A":2}', {"a": 1, "A": 2}),
    "128 deep": (b'{"a":' + b"[" * 127 + b"]" * 127 + b"}", None),
    "as many objects as allowed": (b'{"a":[' + b",".join([b"{}"] * 99_998) + b"]}", None),
    "as many numbers as allowed": (b'{"a":[' + b",".join([b"1"] * 500_000) + b"]}", None),
    "brackets in a string": (b'{"a":"' + b'{[\\"' * 200_000 + b'"}', None),
    "commas in a string": (b'{"a":"' + b"," * 600_000 + b'"}', None),
}


@pytest.mark.parametrize(("body", "value"), GOOD.values(), ids=GOOD.keys())
async def test_a_json_object_is_read_whatever_its_strings_hold(body: bytes, value: Any) -> None:
    assert await body_of(body) == (orjson.loads(body) if value is None else value)


async def test_the_duplicate_key_is_named() -> None:
    with pytest.raises(RequestError, match=r"the key 'model' occurs twice"):
        await body_of(b'{"model":1,"input":2,"model":3}')


async def test_a_refusal_repeats_nothing_of_the_body() -> None:
    with pytest.raises(RequestError) as raised:
        await body_of(b'{"password": sesame}')
    assert raised.value.message == "Invalid JSON in request body: not JSON at line 1, column 14."


@pytest.mark.parametrize("depth", [MAX_DEPTH + 1, 1000, 5000])
def test_deep_nesting_is_refused_as_such(depth: int) -> None:
    with pytest.raises(RequestError, match="nested deeper than 128 levels"):
        parse_json("[" * depth + "]" * depth)


def test_json_inside_a_parameter_is_refused_by_the_parameters_name() -> None:
    with pytest.raises(RequestError) as raised:
        parse_json('{"a":1,"a":2}', param="input[3].arguments")
    assert raised.value.param == "input[3].arguments"
    assert raised.value.message.startswith("Invalid JSON in input[3].arguments: ")


@pytest.mark.parametrize(
    "text",
    ['{"a":"' + '\\"[' * 300_000, '{"a":"' + "\\\\" * 500_000 + '\\u0000"}', "[" * 600_000 + '"' * 600_000],
    ids=["unclosed string", "backslashes", "quotes"],
)
@pytest.mark.timeout(20)
def test_no_text_takes_more_than_linear_time(text: str) -> None:
    with pytest.raises(RequestError, match="Invalid JSON in request body"):
        parse_json(text)


def test_the_limits_are_the_documented_ones() -> None:
    assert (MAX_DEPTH, MAX_CONTAINERS, MAX_VALUES) == (128, 100_000, 500_000)
