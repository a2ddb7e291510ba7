"""The order of a Responses stream as a state machine: ids, indexes, and deltas that add up.

Sources: Open Responses, "Items are streamable"; OpenAI API reference, Responses streaming events; and what
the accumulators of openai-python, openai-node and LangChain rely on.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass, field
from typing import Any

TERMINAL = ("response.completed", "response.incomplete", "response.failed")
ITEM_STATUSES = ("completed", "incomplete", "failed")
EMPTY_WHEN_ADDED = {
    "message": "content",
    "reasoning": "summary",
    "function_call": "arguments",
    "mcp_call": "arguments",
}

RESPONSE_KEYS = {
    *("id", "object", "created_at", "completed_at", "status", "error", "incomplete_details", "instructions"),
    *("metadata", "model", "output", "parallel_tool_calls", "temperature", "tool_choice", "tools", "top_p"),
    *("previous_response_id", "truncation", "text", "presence_penalty", "frequency_penalty", "top_logprobs"),
    *("reasoning", "usage", "max_output_tokens", "max_tool_calls", "store", "background", "service_tier"),
    *("safety_identifier", "prompt_cache_key"),
}
"""The fields that Open Responses requires of every response object, null or not."""
NEVER_NULL = ("temperature", "top_p", "presence_penalty", "frequency_penalty", "top_logprobs", "service_tier")


NULL_WHEN_ADDED = {("image_generation_call", "result")}
"""Required and nullable in OpenAI's schema; everything else that is optional is left out."""


class RuleError(AssertionError):
    """A stream broke a rule."""


def require(holds: object, rule: str) -> None:
    """Raise `RuleError` naming the rule unless it holds."""
    if not holds:
        raise RuleError(rule)


@dataclass
class _Part:
    """A content part, a summary part, or the arguments of a call, as its deltas build it."""

    kind: str
    text: str = ""
    annotations: list[Any] = field(default_factory=list)
    said: bool = False
    part: dict[str, Any] | None = None


@dataclass
class _Item:
    """An output item between `added` and `done`."""

    added: dict[str, Any]
    parts: list[_Part] = field(default_factory=list)

    @property
    def kind(self) -> str:
        return str(self.added["type"])

    def open_part(self, index: int, kind: str) -> _Part:
        require(index == len(self.parts) - 1, f"an event of part {index} while part {len(self.parts) - 1} is last")
        part = self.parts[index]
        require(part.kind == kind, f"a {kind} event for a part of type {part.kind}")
        require(part.part is None, "an event of a part that is done")
        return part


class StreamRules:
    """Feed every event of one stream, then call `end`."""

    def __init__(self) -> None:
        self.count = 0
        self.response_id = ""
        self.items: list[_Item] = []
        self.done: dict[int, dict[str, Any]] = {}
        self.errors = 0
        self.terminal: dict[str, Any] | None = None

    def feed(self, event: Mapping[str, Any]) -> None:
        """Check one event. Raises `RuleError`."""
        kind = str(event["type"])
        require(self.terminal is None, f"{kind} after the terminal event")
        require(event.get("sequence_number") == self.count, f"{kind}: sequence_number is not {self.count}")
        opening = ("response.created", "response.in_progress")
        if self.count < 2:
            require(kind == opening[self.count], f"event {self.count} is {kind}, not {opening[self.count]}")
        self.count += 1
        if kind in (*opening, *TERMINAL):
            self._response(kind, event["response"])
        elif kind == "error":
            self.errors += 1
        else:
            require(not self.errors, f"{kind} after error")
            require(kind in _HANDLERS, f"no rule for {kind}")
            _HANDLERS[kind](self, event)

    def end(self) -> dict[str, Any]:
        """The final response; everything opened is closed."""
        require(self.terminal is not None, "no terminal event")
        assert self.terminal is not None
        return self.terminal

    def _response(self, kind: str, response: dict[str, Any]) -> None:
        check_response(response)
        require(response["id"] == (self.response_id or response["id"]), "the response id changed")
        self.response_id = response["id"]
        if kind not in TERMINAL:
            require(response["output"] == [], f"{kind}: output is not empty")
            require(response["status"] == "in_progress", f"{kind}: status {response['status']}")
            return
        self.terminal = response
        require(len(self.done) == len(self.items), "an item was never done")
        require(
            response["output"] == [self.done[i] for i in range(len(self.items))],
            "output is not the done items",
        )
        ended = "incomplete" if response["status"] == "cancelled" else response["status"]  # there is no other event
        require(kind == f"response.{ended}", f"{kind} with status {response['status']}")
        require(self.errors == (kind == "response.failed"), f"{self.errors} error events before {kind}")
        require(response["usage"] is not None, "no usage in the terminal response")

    def _item(self, event: Mapping[str, Any]) -> _Item:
        index: int = event["output_index"]
        require(0 <= index < len(self.items), f"output_index {index} was never added")
        require(index not in self.done, f"output_index {index} is done")
        item = self.items[index]
        if "item_id" in event:
            require(event["item_id"] == item.added["id"], "item_id is not the id of the item at output_index")
        return item

    def item_added(self, event: Mapping[str, Any]) -> None:
        item = event["item"]
        require(event["output_index"] == len(self.items), "output_index is not the next one")
        require(item["id"] not in [each.added["id"] for each in self.items], f"item id {item['id']} came twice")
        waiting = [each.kind for i, each in enumerate(self.items) if i not in self.done]
        require(set(waiting) <= {"mcp_call"}, f"{item['type']} added while {waiting} are open")
        _no_nulls({key: value for key, value in item.items() if (item["type"], key) not in NULL_WHEN_ADDED})
        if (empty := EMPTY_WHEN_ADDED.get(item["type"])) is not None:
            require(not item[empty], f"{item['type']} added with {empty}")
        if item["type"] in ("message", "function_call", "mcp_call"):
            require(item["status"] == "in_progress", f"{item['type']} added with status {item['status']}")
        self.items.append(_Item(item))

    def item_done(self, event: Mapping[str, Any]) -> None:
        opened, item = self._item(event), event["item"]
        _no_nulls(item)
        for key in ("id", "type", "role", "call_id", "name", "server_label"):
            require(item.get(key) == opened.added.get(key), f"{key} of {opened.kind} changed")
        if "status" in item:
            require(item["status"] in ITEM_STATUSES, f"done with status {item['status']}")
        parts = {"message": "content", "reasoning": "summary"}.get(opened.kind)
        if parts is not None:
            require(all(part.part for part in opened.parts), "an open part in a done item")
            require(item[parts] == [part.part for part in opened.parts], f"{parts} is not the done parts")
        elif opened.kind in ("function_call", "mcp_call"):
            require(opened.parts and opened.parts[0].said, f"no arguments.done for a {opened.kind}")
            require(item["arguments"] == opened.parts[0].text, "arguments are not the deltas joined")
        self.done[event["output_index"]] = item

    def part_added(self, event: Mapping[str, Any]) -> None:
        item, part = self._item(event), event["part"]
        index = event["summary_index" if part["type"] == "summary_text" else "content_index"]
        require(index == len(item.parts), "the index of the part is not the next one")
        require(all(each.part for each in item.parts), "a part added while another is open")
        require(
            not (part.get("text") or part.get("refusal") or part.get("annotations")),
            "a part added with content",
        )
        item.parts.append(_Part(part["type"]))

    def part_done(self, event: Mapping[str, Any]) -> None:
        part = event["part"]
        open_part = self._part(event, part["type"])
        require(open_part.said, f"{part['type']} done without its .done event")
        require(
            part["refusal" if part["type"] == "refusal" else "text"] == open_part.text,
            "part is not its deltas",
        )
        require(part.get("annotations", []) == open_part.annotations, "annotations are not those added")
        open_part.part = part

    def _part(self, event: Mapping[str, Any], kind: str) -> _Part:
        index = event["summary_index" if kind == "summary_text" else "content_index"]
        return self._item(event).open_part(index, kind)

    def annotation_added(self, event: Mapping[str, Any]) -> None:
        part = self._part(event, "output_text")
        require(event["annotation_index"] == len(part.annotations), "annotation_index is not the next one")
        part.annotations.append(event["annotation"])

    def state(self, event: Mapping[str, Any]) -> None:
        kind = event["type"].split(".")[1]
        require(self._item(event).kind == kind, f"an event of {kind} for another item")


def _delta(kind: str) -> Callable[[StreamRules, Mapping[str, Any]], None]:
    def handle(rules: StreamRules, event: Mapping[str, Any]) -> None:
        part = rules._part(event, kind)
        require(not part.said, "a delta after .done")
        require(event["delta"] != "", "an empty delta")
        part.text += event["delta"]

    return handle


def _said(kind: str) -> Callable[[StreamRules, Mapping[str, Any]], None]:
    def handle(rules: StreamRules, event: Mapping[str, Any]) -> None:
        part = rules._part(event, kind)
        require(not part.said, "two .done events for one part")
        require(event["refusal" if kind == "refusal" else "text"] == part.text, ".done is not the deltas joined")
        part.said = True

    return handle


def _arguments(rules: StreamRules, event: Mapping[str, Any], kind: str) -> _Part:
    item = rules._item(event)
    require(item.kind == kind, f"arguments of a {kind} for a {item.kind}")
    if not item.parts:
        item.parts.append(_Part("arguments"))
    require(not item.parts[0].said, "arguments after arguments.done")
    return item.parts[0]


def _arguments_delta(kind: str) -> Callable[[StreamRules, Mapping[str, Any]], None]:
    def handle(rules: StreamRules, event: Mapping[str, Any]) -> None:
        _arguments(rules, event, kind).text += event["delta"]

    return handle


def _arguments_done(kind: str) -> Callable[[StreamRules, Mapping[str, Any]], None]:
    def handle(rules: StreamRules, event: Mapping[str, Any]) -> None:
        part = _arguments(rules, event, kind)
        require(event["arguments"] == part.text, "arguments.done is not the deltas joined")
        part.said = True

    return handle


_HANDLERS: dict[str, Callable[[StreamRules, Mapping[str, Any]], None]] = {
    "response.output_item.added": StreamRules.item_added,
    "response.output_item.done": StreamRules.item_done,
    "response.content_part.added": StreamRules.part_added,
    "response.content_part.done": StreamRules.part_done,
    "response.output_text.delta": _delta("output_text"),
    "response.output_text.done": _said("output_text"),
    "response.output_text.annotation.added": StreamRules.annotation_added,
    "response.refusal.delta": _delta("refusal"),
    "response.refusal.done": _said("refusal"),
    "response.reasoning_summary_part.added": StreamRules.part_added,
    "response.reasoning_summary_part.done": StreamRules.part_done,
    "response.reasoning_summary_text.delta": _delta("summary_text"),
    "response.reasoning_summary_text.done": _said("summary_text"),
    "response.function_call_arguments.delta": _arguments_delta("function_call"),
    "response.function_call_arguments.done": _arguments_done("function_call"),
    "response.mcp_call_arguments.delta": _arguments_delta("mcp_call"),
    "response.mcp_call_arguments.done": _arguments_done("mcp_call"),
    "response.mcp_call.in_progress": StreamRules.state,
    "response.mcp_call.completed": StreamRules.state,
    "response.mcp_call.failed": StreamRules.state,
    "response.image_generation_call.in_progress": StreamRules.state,
    "response.image_generation_call.generating": StreamRules.state,
    "response.image_generation_call.completed": StreamRules.state,
}


def check_stream(events: Iterable[Mapping[str, Any]]) -> dict[str, Any]:
    """Check a whole stream; returns the response of its terminal event. Raises `RuleError`."""
    rules = StreamRules()
    for event in events:
        rules.feed(event)
    return rules.end()


def check_response(response: Mapping[str, Any]) -> None:
    """The skeleton of a response object: every field there, numbers not null, items without nulls."""
    missing = RESPONSE_KEYS - response.keys()
    require(not missing, f"the response lacks {sorted(missing)}")
    for key in NEVER_NULL:
        require(response[key] is not None, f"{key} is null")
    require(str(response["id"]).startswith("resp_"), "the response id does not start with resp_")
    require(type(response["created_at"]) is int, "created_at is no integer")
    require(type(response["completed_at"]) in (int, type(None)), "completed_at is no integer")
    ids = [item["id"] for item in response["output"]]
    require(len(set(ids)) == len(ids), "an item id came twice in the output")
    for item in response["output"]:
        _no_nulls(item)


def _no_nulls(value: Any, path: str = "item") -> None:
    require(value is not None, f"{path} is null")
    if isinstance(value, Mapping):
        for key, inner in value.items():
            _no_nulls(inner, f"{path}.{key}")
    elif isinstance(value, list):
        for i, inner in enumerate(value):
            _no_nulls(inner, f"{path}[{i}]")
