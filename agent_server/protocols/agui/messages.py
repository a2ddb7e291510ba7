"""LangChain messages in plain JSON -> AG-UI messages, under the ids by which the client knows them.

An agent's own system messages are left out, and so is reasoning: a client keeps what it has of that when it takes a
snapshot (AG-UI 1.0, "Messages").
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from typing import Any

import msgspec

from agent_server.framing import to_json

Json = dict[str, Any]

_MEDIA = {"image": "image", "audio": "audio", "video": "video", "file": "document"}


class Seen(msgspec.Struct, frozen=True, omit_defaults=True):
    """What a client has of a thread when it asks for a run.

    `ids` are those of its messages; `names` maps an id that the agent could not take to the client's own; `results`
    maps a tool call to the ids of its result messages; `calls` maps a message to the ids of its tool calls; `owners`
    maps a message to the subagent that it came from; `asides` are messages of subagents, each with the id of the one
    before it.
    """

    ids: tuple[str, ...] = ()
    names: dict[str, str] = {}
    results: dict[str, tuple[str, ...]] = {}
    calls: dict[str, tuple[str, ...]] = {}
    owners: dict[str, str] = {}
    asides: tuple[tuple[str, Json], ...] = ()


class CallNames:
    """Wire ids of tool calls: unique in a thread, though some providers use theirs again. `taken` are not given."""

    def __init__(self, taken: Iterable[str] = ()) -> None:
        self._taken = set(taken)
        self._latest: dict[str, str] = {}

    def add(self, call_id: str) -> str:
        """The wire id of one more call with this id."""
        name, count = call_id, 1
        while name in self._taken:
            count += 1
            name = f"{call_id}:{count}"
        return self.give(call_id, name)

    def give(self, call_id: str, name: str) -> str:
        """One more call with this id, whose wire id is known."""
        self._taken.add(name)
        self._latest[call_id] = name
        return name

    def of(self, call_id: str) -> str:
        """The wire id of the latest call with this id."""
        return self._latest.get(call_id, call_id)

    def __contains__(self, call_id: str) -> bool:
        return call_id in self._latest


def result_id(wire_call_id: str) -> str:
    """The id of the message with a call's result."""
    return f"{wire_call_id}:result"


class Messages:
    """The messages of a thread as a client is to have them.

    `streamed` maps an id in the agent's state to the one that its message was streamed under, `owners` that one to
    the subagent it is from, `calls` to its tool calls as they were streamed. `names` are those of all calls then.
    """

    def __init__(
        self,
        seen: Seen,
        streamed: Mapping[str, str],
        owners: Mapping[str, str],
        calls: Mapping[str, Sequence[Json]],
    ) -> None:
        self._seen = seen
        self._streamed = streamed
        self._owners = owners
        self._told = calls
        self.names = CallNames(name for named in seen.calls.values() for name in named)
        self._answered: Counter[str] = Counter()

    def read(self, messages: Iterable[Any]) -> list[Json]:
        """All of them, in order."""
        made = [self._one(message) for message in messages if isinstance(message, dict)]
        return [message for message in made if message is not None]

    def _one(self, message: Json) -> Json | None:
        key = str(message.get("id") or "")
        name = self._streamed.get(key) or self._seen.names.get(key) or key
        match message.get("type"):
            case "human":
                made: Json = {"role": "user", "content": content(message.get("content"))}
            case "ai" | "AIMessageChunk":
                made = self._assistant(message, name)
            case "tool":
                made = self._tool(message)
            case _:
                return None
        made = {"id": name, **made}
        owner = self._owners.get(made["id"])
        return {**made, "subagentRunId": owner} if owner else made

    def _assistant(self, message: Json, name: str) -> Json:
        called = [(call, to_json(call.get("args")).decode()) for call in message.get("tool_calls") or ()]
        called += [(call, call.get("args") or "") for call in message.get("invalid_tool_calls") or ()]
        text = text_of(message)
        made: Json = {"role": "assistant"}
        if text or not called:
            made["content"] = text
        if called:
            told = {each["id"]: each for each in self._told.get(name, ())}
            given = tuple(told) or self._seen.calls.get(name, ())
            names = given if len(given) == len(called) else (None,) * len(called)
            calls = [self._call(*each, name) for each, name in zip(called, names, strict=True)]
            made["toolCalls"] = [told.get(call["id"], call) for call in calls]
        return made

    def _call(self, call: Json, arguments: str, name: str | None) -> Json:
        call_id = str(call.get("id") or "")
        wire = self.names.add(call_id) if name is None else self.names.give(call_id, name)
        return {
            "id": wire,
            "type": "function",
            "function": {"name": str(call.get("name") or ""), "arguments": arguments},
        }

    def _tool(self, message: Json) -> Json:
        call_id = str(message.get("tool_call_id") or "")
        wire = self.names.of(call_id)
        given = self._seen.results.get(wire, ())
        place, self._answered[wire] = self._answered[wire], self._answered[wire] + 1
        made = {
            "id": given[place] if place < len(given) else result_id(wire),
            "role": "tool",
            "content": content(message.get("content")),
            "toolCallId": wire,
        }
        if message.get("status") == "error":
            made["error"] = text_of(message)
        return made


def seen_in(messages: Iterable[Json]) -> Seen:
    """What a client has that was told these LangChain messages and nothing else."""
    told = Messages(Seen(), {}, {}, {}).read(messages)
    calls = {message["id"]: tuple(call["id"] for call in message.get("toolCalls", ())) for message in told}
    return Seen(ids=tuple(calls), calls={key: names for key, names in calls.items() if names})


def text_of(message: Json) -> str:
    """The text of a message, a refusal included."""
    value = message.get("content")
    extra = message.get("additional_kwargs") or {}
    refusal = extra.get("refusal") if isinstance(extra, dict) else None
    return _text(value) + (refusal if isinstance(refusal, str) else "")


def _text(value: Any) -> str:
    if isinstance(value, str):
        return value
    blocks = value if isinstance(value, list) else []
    return "".join(block if isinstance(block, str) else _block_text(block) for block in blocks)


def _block_text(block: Any) -> str:
    found = block.get("text", block.get("refusal")) if isinstance(block, dict) else None
    return found if isinstance(found, str) else ""


def content(value: Any) -> str | list[Json]:
    """Content of a user's or a tool's message: a text, or content parts."""
    if isinstance(value, str):
        return value
    if not isinstance(value, list):
        return "" if value is None else to_json(value).decode()
    parts = [_part(block) for block in value]
    if all(part["type"] == "text" for part in parts):
        return "".join(part["text"] for part in parts)
    return parts


def _part(block: Any) -> Json:
    if isinstance(block, str):
        return {"type": "text", "text": block}
    kind = _MEDIA.get(str(block.get("type"))) if isinstance(block, dict) else None
    source = _source(block) if kind else None
    if kind is None or source is None:
        text = _block_text(block)
        return {"type": "text", "text": text or to_json(block).decode()}
    return {"type": kind, "source": source}


def _source(block: Json) -> Json | None:
    """Where the data of a LangChain v1 content block is."""
    mime = block.get("mime_type")
    typed = {"mimeType": mime} if isinstance(mime, str) else {}
    if isinstance(url := block.get("url"), str):
        return {"type": "url", "value": url, **typed}
    if isinstance(data := block.get("base64"), str):
        return {"type": "data", "value": data, "mimeType": mime or "application/octet-stream"}
    if isinstance(file_id := block.get("file_id"), str):
        return {"type": "file", "value": file_id, **typed}
    return None
