"""A strict AG-UI client: the rules of `@ag-ui/client` 1.0 for a stream, and what it makes of the events.

`Client.feed` raises `AguiError` for whatever the official client refuses, warns of or strips.
"""

from __future__ import annotations

import re
from collections.abc import Iterable
from dataclasses import dataclass, field
from typing import Any

import jsonpatch

Json = dict[str, Any]

TEXT, TEXT_OR_PARTS, OBJECT, LIST, ANY = str, (str, list), dict, list, object
_TAGGED = {"subagentRunId": TEXT}
FIELDS: dict[str, tuple[Json, Json]] = {
    "RUN_STARTED": ({"threadId": TEXT, "runId": TEXT}, {"protocolVersion": TEXT, "parentRunId": TEXT}),
    "RUN_FINISHED": ({"threadId": TEXT, "runId": TEXT}, {"result": ANY, "outcome": OBJECT, "usage": LIST}),
    "RUN_ERROR": ({"message": TEXT}, {"code": TEXT, "usage": LIST}),
    "STEP_STARTED": ({"stepName": TEXT}, _TAGGED),
    "STEP_FINISHED": ({"stepName": TEXT}, _TAGGED),
    "TEXT_MESSAGE_START": ({"messageId": TEXT}, {"role": TEXT, "name": TEXT, **_TAGGED}),
    "TEXT_MESSAGE_CONTENT": ({"messageId": TEXT, "delta": TEXT}, _TAGGED),
    "TEXT_MESSAGE_END": ({"messageId": TEXT}, _TAGGED),
    "TOOL_CALL_START": ({"toolCallId": TEXT, "toolCallName": TEXT}, {"parentMessageId": TEXT, **_TAGGED}),
    "TOOL_CALL_ARGS": ({"toolCallId": TEXT, "delta": TEXT}, _TAGGED),
    "TOOL_CALL_END": ({"toolCallId": TEXT}, _TAGGED),
    "TOOL_CALL_RESULT": (
        {"messageId": TEXT, "toolCallId": TEXT, "content": TEXT_OR_PARTS},
        {"role": TEXT, **_TAGGED},
    ),
    "REASONING_START": ({"messageId": TEXT}, _TAGGED),
    "REASONING_END": ({"messageId": TEXT}, _TAGGED),
    "REASONING_MESSAGE_START": ({"messageId": TEXT, "role": TEXT}, _TAGGED),
    "REASONING_MESSAGE_CONTENT": ({"messageId": TEXT, "delta": TEXT}, _TAGGED),
    "REASONING_MESSAGE_END": ({"messageId": TEXT}, _TAGGED),
    "REASONING_ENCRYPTED_VALUE": ({"subtype": TEXT, "entityId": TEXT, "encryptedValue": TEXT}, _TAGGED),
    "SUBAGENT_STARTED": (
        {"subagentRunId": TEXT, "name": TEXT},
        {"parentSubagentRunId": TEXT, "parentToolCallId": TEXT, "parentMessageId": TEXT},
    ),
    "SUBAGENT_FINISHED": ({"subagentRunId": TEXT}, {"outcome": OBJECT, "result": ANY}),
    "SUBAGENT_ERROR": ({"subagentRunId": TEXT, "message": TEXT}, {"code": TEXT}),
    "STATE_SNAPSHOT": ({"snapshot": ANY}, {}),
    "STATE_DELTA": ({"delta": LIST}, {}),
    "MESSAGES_SNAPSHOT": ({"messages": LIST}, {}),
    "CUSTOM": ({"name": TEXT, "value": ANY}, _TAGGED),
    "RAW": ({"event": ANY}, {"source": TEXT}),
}
"""Type -> what an event must have, and what it may have; `metadata` is for all of them."""

_ROLES: dict[str, tuple[frozenset[str], frozenset[str]]] = {
    "user": (frozenset({"id", "role", "content"}), frozenset({"name"})),
    "assistant": (frozenset({"id", "role"}), frozenset({"content", "toolCalls", "name"})),
    "tool": (frozenset({"id", "role", "content", "toolCallId"}), frozenset({"error"})),
    "reasoning": (frozenset({"id", "role", "content"}), frozenset({"encryptedValue"})),
}
_POINTER = re.compile(r"(/([^/~]|~[01])*)*")


class AguiError(AssertionError):
    """A stream broke a rule."""


def require(holds: object, rule: str) -> None:
    """Raise `AguiError` unless it holds."""
    if not holds:
        raise AguiError(rule)


@dataclass
class Client:
    """What a client has: its messages and its state, and of the run that goes on what is open."""

    messages: list[Json] = field(default_factory=list)
    state: Any = field(default_factory=dict)
    run: Json | None = None  # the last RUN_STARTED
    end: Json | None = None  # its RUN_FINISHED or RUN_ERROR
    custom: list[Json] = field(default_factory=list)
    open: dict[str, dict[str, str]] = field(default_factory=dict)  # kind -> id -> owner
    steps: set[tuple[str, str]] = field(default_factory=set)
    subagents: dict[str, bool] = field(default_factory=dict)  # id -> whether it is open
    seen: list[str] = field(default_factory=list)
    may_reopen: bool = False  # right behind a snapshot, what it holds may go on

    def feed(self, event: Json) -> None:
        """One event, checked and applied."""
        kind = check_shape(event)
        self.seen.append(kind)
        require((self.run is None or self.end is not None) == (kind == "RUN_STARTED"), f"{kind} out of its place")
        self.may_reopen = kind == "MESSAGES_SNAPSHOT" or (self.may_reopen and kind.endswith(("_START", "_STARTED")))
        getattr(self, f"_on_{kind.lower()}")(event)

    def read(self, events: Iterable[Json]) -> Client:
        """All events of a run."""
        for event in events:
            self.feed(event)
        return self

    def text(self, role: str = "assistant") -> list[Any]:
        """The contents of the messages of a role."""
        return [message.get("content") for message in self.messages if message["role"] == role]

    def find(self, key: str) -> Json | None:
        """The message with this id."""
        return next((message for message in self.messages if message["id"] == key), None)

    # -- the run -------------------------------------------------------------------------------------------

    def _on_run_started(self, event: Json) -> None:
        require(event.get("protocolVersion") == "1.0", "no protocolVersion 1.0")
        self.run, self.end = event, None
        self.open, self.steps, self.subagents = {}, set(), {}

    def _on_run_finished(self, event: Json) -> None:
        require(self.run and all(event[name] == self.run[name] for name in ("threadId", "runId")), "other ids")
        still = {kind: ids for kind, ids in self.open.items() if ids}
        require(not still and not self.steps, f"open at the end: {still} {self.steps}")
        require(not any(self.subagents.values()), f"subagents open at the end: {self.subagents}")
        outcome = event["outcome"]
        require(outcome["type"] in ("success", "interrupt", "cancelled"), f"outcome {outcome}")
        if outcome["type"] == "interrupt":
            require(outcome["interrupts"], "an interrupt without a question")
            for interrupt in outcome["interrupts"]:
                require(all(isinstance(interrupt[name], str) for name in ("id", "reason")), "a question's id, reason")
                require(interrupt["reason"] != "tool_call" or interrupt.get("toolCallId"), "tool_call without a call")
        self.end = event

    def _on_run_error(self, event: Json) -> None:
        self.end = event

    def _on_step_started(self, event: Json) -> None:
        step = (event.get("subagentRunId", ""), event["stepName"])
        require(step not in self.steps, f"{step} is open already")
        self.steps.add(step)

    def _on_step_finished(self, event: Json) -> None:
        step = (event.get("subagentRunId", ""), event["stepName"])
        require(step in self.steps, f"{step} is not open")
        self.steps.discard(step)

    def _on_subagent_started(self, event: Json) -> None:
        key, parent = event["subagentRunId"], event.get("parentSubagentRunId")
        require(key not in self.subagents, f"the subagent {key} twice")
        require(parent is None or parent in self.subagents, f"a parent that was never heard: {parent}")
        self.subagents[key] = True

    def _on_subagent_finished(self, event: Json) -> None:
        require(self.subagents.get(event["subagentRunId"]), "the end of a subagent that is not open")
        self.subagents[event["subagentRunId"]] = False

    _on_subagent_error = _on_subagent_finished

    # -- what opens and closes -----------------------------------------------------------------------------

    def _begin(self, kind: str, key: str, event: Json) -> None:
        require(key not in self.open.setdefault(kind, {}), f"{kind} {key} is open already")
        owner = event.get("subagentRunId", "")
        require(not owner or owner in self.subagents, f"{kind} {key} of a subagent that was never heard")
        self.open[kind][key] = owner

    def _in(self, kind: str, key: str, event: Json, *, end: bool = False) -> None:
        require(key in self.open.get(kind, {}), f"{kind} {key} is not open")
        owner = event.get("subagentRunId")
        require(owner is None or owner == self.open[kind][key], f"{kind} {key} under another subagent")
        if end:
            del self.open[kind][key]

    def _on_text_message_start(self, event: Json) -> None:
        self._begin("text", event["messageId"], event)
        message = self.find(event["messageId"])
        require(message is None or message["role"] == "assistant", "the id of a message of another role")
        if message is None:
            self.messages.append({"id": event["messageId"], "role": event["role"], "content": "", **_tag(event)})

    def _on_text_message_content(self, event: Json) -> None:
        self._in("text", event["messageId"], event)
        message = self.find(event["messageId"])
        require(message, "text of no message")
        assert message is not None
        message["content"] = message.get("content", "") + event["delta"]

    def _on_text_message_end(self, event: Json) -> None:
        self._in("text", event["messageId"], event, end=True)

    def _on_tool_call_start(self, event: Json) -> None:
        call = event["toolCallId"]
        self._begin("call", call, event)
        if self._owner(call) is not None:
            require(self.may_reopen, f"the call {call} is announced twice")
            return
        parent = event.get("parentMessageId", call)
        message = self.find(parent)
        require(message is None or message["role"] == "assistant", f"a call under a message of another role: {parent}")
        if message is None:
            message = {"id": parent, "role": "assistant", **_tag(event)}
            self.messages.append(message)
        require(message.get("subagentRunId") == event.get("subagentRunId"), "a call of another than its message's")
        function = {"name": event["toolCallName"], "arguments": ""}
        message.setdefault("toolCalls", []).append({"id": call, "type": "function", "function": function})

    def _owner(self, call: str) -> Json | None:
        return next((m for m in self.messages if any(c["id"] == call for c in m.get("toolCalls", ()))), None)

    def _on_tool_call_args(self, event: Json) -> None:
        self._in("call", event["toolCallId"], event)
        message = self._owner(event["toolCallId"])
        require(message, "arguments of no call")
        assert message is not None
        for call in message["toolCalls"]:
            if call["id"] == event["toolCallId"]:
                call["function"]["arguments"] += event["delta"]

    def _on_tool_call_end(self, event: Json) -> None:
        self._in("call", event["toolCallId"], event, end=True)

    def _on_tool_call_result(self, event: Json) -> None:
        require(self.find(event["messageId"]) is None, "a result under an id that is taken")
        owner = self._owner(event["toolCallId"])
        require(owner is not None, f"a result of a call that nobody made: {event['toolCallId']}")
        assert owner is not None
        place = self.messages.index(owner) + 1
        while place < len(self.messages) and self.messages[place]["role"] == "tool":
            place += 1
        made = {"id": event["messageId"], "role": "tool", "content": event["content"], **_tag(event)}
        self.messages.insert(place, {**made, "toolCallId": event["toolCallId"]})

    def _on_reasoning_start(self, event: Json) -> None:
        self._begin("span", event["messageId"], event)

    def _on_reasoning_end(self, event: Json) -> None:
        self._in("span", event["messageId"], event, end=True)

    def _on_reasoning_message_start(self, event: Json) -> None:
        self._begin("thought", event["messageId"], event)
        if self.find(event["messageId"]) is None:
            self.messages.append({"id": event["messageId"], "role": "reasoning", "content": "", **_tag(event)})

    def _on_reasoning_message_content(self, event: Json) -> None:
        self._in("thought", event["messageId"], event)
        message = self.find(event["messageId"])
        assert message is not None
        message["content"] += event["delta"]

    def _on_reasoning_message_end(self, event: Json) -> None:
        self._in("thought", event["messageId"], event, end=True)

    def _on_reasoning_encrypted_value(self, event: Json) -> None:
        message = self.find(event["entityId"])
        require(message, "an encrypted value of nothing")
        assert message is not None
        message["encryptedValue"] = event["encryptedValue"]

    # -- snapshots -----------------------------------------------------------------------------------------

    def _on_state_snapshot(self, event: Json) -> None:
        self.state = event["snapshot"]

    def _on_state_delta(self, event: Json) -> None:
        require(all(_POINTER.fullmatch(each["path"]) for each in event["delta"]), "a path that is no JSON Pointer")
        self.state = jsonpatch.apply_patch(self.state, event["delta"])

    def _on_messages_snapshot(self, event: Json) -> None:
        told = {message["id"]: message for message in event["messages"]}
        require(len(told) == len(event["messages"]), "an id twice in a snapshot")
        for message in event["messages"]:
            check_message(message)
        thinks = any(message["role"] == "reasoning" for message in event["messages"])
        kept = [m for m in self.messages if m["id"] in told or (m["role"] == "reasoning" and not thinks)]
        had = {message["id"] for message in kept}
        new = [message for message in event["messages"] if message["id"] not in had]
        self.messages = [dict(told.get(message["id"], message)) for message in kept] + [dict(each) for each in new]

    def _on_custom(self, event: Json) -> None:
        self.custom.append(event)

    def _on_raw(self, event: Json) -> None:
        pass


def _tag(event: Json) -> Json:
    return {"subagentRunId": event["subagentRunId"]} if "subagentRunId" in event else {}


def check_shape(event: Json) -> str:
    """The type of an event whose fields are those of the schema. Raises `AguiError`."""
    kind = event.get("type")
    require(isinstance(kind, str) and kind in FIELDS, f"an unknown type: {kind!r}")
    assert isinstance(kind, str)
    must, may = FIELDS[kind]
    for name, wanted in must.items():
        require(name in event, f"{kind} without {name}")
        require(isinstance(event[name], wanted), f"{kind}.{name} is {event[name]!r}")
    for name, value in event.items():
        if name in must or name == "type":
            continue
        require(name in may or name == "metadata", f"{kind} has no {name}")
        require(value not in (None, "") and isinstance(value, may.get(name, OBJECT)), f"{kind}.{name} is {value!r}")
    return kind


def check_message(message: Json) -> None:
    """A message has the fields of its role. Raises `AguiError`."""
    require(message.get("role") in _ROLES, f"a message of the role {message.get('role')!r}")
    must, may = _ROLES[message["role"]]
    require(must <= message.keys(), f"a message without {must - message.keys()}")
    others = message.keys() - must - may - {"subagentRunId", "metadata"}
    require(not others, f"a message with {others}")
    require(isinstance(message["id"], str) and message["id"], "a message without an id")
    require(None not in message.values(), "a null in a message")


def in_order(messages: list[Json]) -> None:
    """Every call of an assistant that has results is followed by them. Raises `AguiError`."""
    for place, message in enumerate(messages):
        if message["role"] == "tool":
            before = place - 1
            while before >= 0 and messages[before]["role"] in ("tool", "reasoning"):
                before -= 1
            calls = [call["id"] for call in messages[before].get("toolCalls", ())] if before >= 0 else []
            require(message["toolCallId"] in calls, f"a result that does not follow its call: {message['toolCallId']}")
