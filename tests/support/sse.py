"""A strict reader of HTTP answers and Server-Sent Events: forgives nothing that a known client trips over."""

from __future__ import annotations

import json
import socket
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import Any, Literal, NoReturn
from urllib.parse import urlsplit

Dialect = Literal["named", "data_only"]

HEARTBEATS: dict[Dialect, bytes] = {"named": b": ping\n\n", "data_only": b"\n"}
DONE = b"data: [DONE]\n\n"


class WireError(AssertionError):
    """The bytes break a rule of the wire."""


@dataclass(frozen=True)
class Answer:
    """An HTTP answer as it came: `sends` holds one element for each write of the server."""

    status: int
    headers: dict[str, str]
    sends: tuple[bytes, ...]

    @property
    def body(self) -> bytes:
        return b"".join(self.sends)

    def json(self) -> Any:
        """The body as strict JSON."""
        return strict_json(self.body)


def post(url: str, body: Any, headers: Mapping[str, str] | None = None, timeout: float = 30.0) -> Answer:
    """POST over a bare socket, which keeps what clients throw away: the chunk borders and every byte."""
    parts = urlsplit(url)
    payload = body if isinstance(body, bytes) else json.dumps(body).encode()
    sent = {
        "host": parts.netloc,
        "content-type": "application/json",
        "content-length": str(len(payload)),
        "connection": "close",
        **(headers or {}),
    }
    head = "".join([f"POST {parts.path} HTTP/1.1\r\n", *(f"{k}: {v}\r\n" for k, v in sent.items()), "\r\n"])
    with socket.create_connection((parts.hostname or "", parts.port or 80), timeout) as connection:
        connection.sendall(head.encode() + payload)
        with connection.makefile("rb") as answer:
            return _answer(answer.read())


def _answer(raw: bytes) -> Answer:
    head, _, body = raw.partition(b"\r\n\r\n")
    status, *lines = head.decode("ascii").split("\r\n")
    headers = {name.lower(): value for name, _, value in (line.partition(": ") for line in lines)}
    chunked = headers.get("transfer-encoding") == "chunked"
    return Answer(int(status.split()[1]), headers, tuple(_chunks(body)) if chunked else (body,))


def _chunks(body: bytes) -> Iterator[bytes]:
    while True:
        size, separator, body = body.partition(b"\r\n")
        if not separator:
            raise WireError("the body ends before its last chunk")
        length = int(size, 16)
        if not length:
            return
        yield body[:length]
        body = body[length + 2 :]


def read_events(answer: Answer, dialect: Dialect = "named") -> list[dict[str, Any]]:
    """The JSON events of a whole stream, every rule of its dialect checked.

    Each write holds whole frames; lines end in LF; there is no `id:` or `retry:` line; the event line
    (named dialect) equals the type; heartbeats have their one form; `[DONE]` comes once, at the very end.
    """
    if answer.headers.get("content-type") != "text/event-stream; charset=utf-8":
        raise WireError(f"content-type is {answer.headers.get('content-type')!r}")
    frames = [frame for send in answer.sends for frame in _frames(send, dialect)]
    if not frames or frames[-1] != DONE or frames.count(DONE) != 1:
        raise WireError(f"the stream does not end with one [DONE]: {frames[-1:]!r}")
    return [_event(frame, dialect) for frame in frames[:-1] if frame != HEARTBEATS[dialect]]


def _frames(send: bytes, dialect: Dialect) -> Iterator[bytes]:
    if b"\r" in send:
        raise WireError(f"a carriage return in {send!r}")
    if dialect == "data_only" and send == HEARTBEATS[dialect]:
        yield send
        return
    if not send.endswith(b"\n\n"):
        raise WireError(f"a write that is no whole frame: {send[-80:]!r}")
    yield from (frame + b"\n\n" for frame in send[:-2].split(b"\n\n"))


def _event(frame: bytes, dialect: Dialect) -> dict[str, Any]:
    lines = frame[:-2].decode("utf-8").split("\n")
    names = [line.partition(": ")[0] for line in lines]
    if names != (["event", "data"] if dialect == "named" else ["data"]):
        raise WireError(f"the lines of a frame are {names} in {frame!r}")
    event = strict_json(lines[-1].removeprefix("data: ").encode())
    if not isinstance(event, dict):
        raise WireError(f"an event that is no object: {frame!r}")
    if dialect == "named" and lines[0] != f"event: {event.get('type')}":
        raise WireError(f"{lines[0]!r} above type {event.get('type')!r}")
    return event


def strict_json(data: bytes) -> Any:
    """Parse JSON that has no NaN, no infinities and no key twice in one object."""
    return json.loads(data.decode("utf-8"), parse_constant=_no_constant, object_pairs_hook=_unique)


def _no_constant(name: str) -> NoReturn:
    raise WireError(f"{name} in JSON")


def _unique(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    keys = [key for key, _ in pairs]
    if len(set(keys)) != len(keys):
        raise WireError(f"a key twice among {keys}")
    return dict(pairs)
