"""UI message streams of the AI SDK for tests: written from events, and judged by the rules that its clients live by.

The rules are those of `processUIMessageStream` in `ai` 5, 6 and 7, the strictest of them each time, and some that no
client checks: nothing stays open, a step ends with nothing open in it, the end comes once.
"""

from __future__ import annotations

import json
from collections.abc import Iterable, Sequence
from typing import Any

from agent_server.events import Event
from agent_server.framing import Frame
from agent_server.protocols.aisdk.encoder import AiSdkEncoder, SdkVersion
from agent_server.protocols.aisdk.stream import FRAMING

Chunk = dict[str, Any]

VERSIONS: tuple[SdkVersion, ...] = (5, 6, 7)

_CALL: dict[str, type] = {"toolCallId": str, "toolName": str}
FIELDS: dict[str, dict[str, type]] = {
    "start": {"messageId": str},
    "start-step": {},
    "finish-step": {},
    "finish": {"finishReason": str},
    "abort": {},
    "error": {"errorText": str},
    "text-start": {"id": str},
    "text-delta": {"id": str, "delta": str},
    "text-end": {"id": str},
    "reasoning-start": {"id": str},
    "reasoning-delta": {"id": str, "delta": str},
    "reasoning-end": {"id": str},
    "tool-input-start": _CALL,
    "tool-input-delta": {"toolCallId": str, "inputTextDelta": str},
    "tool-input-available": {**_CALL, "input": object},
    "tool-input-error": {**_CALL, "input": object, "errorText": str},
    "tool-output-available": {"toolCallId": str, "output": object},
    "tool-output-error": {"toolCallId": str, "errorText": str},
    "source-url": {"sourceId": str, "url": str},
    "source-document": {"sourceId": str, "mediaType": str, "title": str},
    "file": {"url": str, "mediaType": str},
}
"""The fields that all versions ask for, by type of chunk."""

SINCE_6: dict[str, dict[str, type]] = {
    "tool-approval-request": {"approvalId": str, "toolCallId": str},
    "tool-output-denied": {"toolCallId": str},
}
TERMINAL = ("finish", "abort", "error")
REASONS = ("stop", "length", "content-filter", "tool-calls", "error", "other")


class ChunkError(AssertionError):
    """A list of chunks broke a rule."""


def require(holds: object, rule: str) -> None:
    """Raise `ChunkError` naming the rule unless it holds."""
    if not holds:
        raise ChunkError(rule)


class Chunks:
    """Feed every chunk of one stream, then call `end`. `calls` are those that the message had before."""

    def __init__(self, version: SdkVersion = 6, calls: Iterable[str] = ()) -> None:
        self._fields = FIELDS if version == 5 else {**FIELDS, **SINCE_6}
        self._open: dict[str, str] = {}  # id of a part -> its kind
        self._calls: dict[str, str] = dict.fromkeys(calls, "available")
        self._in_step = False
        self.first: Chunk | None = None
        self.last: Chunk | None = None

    def feed(self, chunk: Chunk) -> None:
        """Check one chunk. Raises `ChunkError`."""
        kind = chunk["type"]
        self._check_shape(kind, chunk)
        require((self.first is None) == (kind == "start"), f"{kind} in the place of start")
        require(self.last is None or self.last["type"] not in TERMINAL, f"{kind} after the end")
        self.first, self.last = self.first or chunk, chunk
        if kind in ("start-step", "finish-step"):
            self._step(kind)
        elif kind.startswith(("text-", "reasoning-")):
            self._part(kind, chunk["id"])
        elif kind.startswith("tool-"):
            self._tool(kind, chunk)

    def end(self) -> None:
        """The list is over."""
        require(self.last is not None and self.last["type"] in TERMINAL, "no end")
        require(not self._open, f"open at the end: {self._open}")
        require(not self._in_step, "a step is open at the end")
        require("writing" not in self._calls.values(), "a call is being written at the end")

    def _check_shape(self, kind: str, chunk: Chunk) -> None:
        if kind.startswith("data-"):
            require(kind != "data-" and "data" in chunk, "data without a name or without data")
            return
        require(kind in self._fields, f"no chunk is a {kind}")
        for name, wanted in self._fields[kind].items():
            require(name in chunk and isinstance(chunk[name], wanted), f"{kind}.{name}: {chunk.get(name)!r}")
        require(kind != "finish" or chunk["finishReason"] in REASONS, f"finish: {chunk.get('finishReason')}")

    def _step(self, kind: str) -> None:
        require(self._in_step == (kind == "finish-step"), f"{kind} in the wrong place")
        require(not self._open, f"{kind} while {self._open} are open")
        require("writing" not in self._calls.values(), f"{kind} while a call is being written")
        self._in_step = kind == "start-step"

    def _part(self, kind: str, part: str) -> None:
        what, _, step = kind.partition("-")
        if step == "start":
            require(part not in self._open, f"{part} is open already")
            self._open[part] = what
        else:
            require(self._open.get(part) == what, f"{kind} of {part}, which is not open")
        if step == "end":
            del self._open[part]

    def _tool(self, kind: str, chunk: Chunk) -> None:
        call = chunk["toolCallId"]
        state = self._calls.get(call)
        before, after = _STATES[kind]
        require(state in before, f"{kind} of {call}, which is {state}")
        if not chunk.get("preliminary"):
            self._calls[call] = after


_NOT_BEING_WRITTEN = (None, "available", "asked", "done", "refused", "denied")
_STATES: dict[str, tuple[tuple[str | None, ...], str]] = {
    "tool-input-start": (_NOT_BEING_WRITTEN, "writing"),
    "tool-input-delta": (("writing",), "writing"),
    "tool-input-available": (("writing", *_NOT_BEING_WRITTEN), "available"),
    "tool-input-error": (("writing",), "refused"),
    "tool-approval-request": (("available", "refused"), "asked"),
    "tool-output-denied": (("available", "asked"), "denied"),
    "tool-output-available": (("available", "asked", "refused", "done"), "done"),
    "tool-output-error": (("available", "asked", "refused", "done"), "done"),
}
"""Type of chunk -> the states a call may be in before it, and its state after it. Some models use an id again, some
agents answer a call twice."""


def check_chunks(chunks: Sequence[Chunk], version: SdkVersion = 6, calls: Iterable[str] = ()) -> None:
    """Check a whole stream. Raises `ChunkError`."""
    judge = Chunks(version, calls)
    for chunk in chunks:
        judge.feed(chunk)
    judge.end()


def frames(events: Iterable[Event], version: SdkVersion = 6) -> list[Frame]:
    """The events of one run, folded."""
    encoder = AiSdkEncoder(version)
    return [frame for event in events for frame in encoder.feed(event)]


def sse(events: Iterable[Event], version: SdkVersion = 6) -> bytes:
    """The events of one run as the bytes of a stream, to its very end."""
    return b"".join(map(FRAMING.write, frames(events, version))) + FRAMING.end


def read(stream: bytes) -> list[Chunk]:
    """The chunks of a stream, whose end it must have. Comments are left out."""
    *told, end, nothing = stream.split(b"\n\n")
    assert (end, nothing) == (b"data: [DONE]", b""), stream[-200:]
    return [json.loads(line.removeprefix(b"data: ")) for line in told if not line.startswith(b":")]
