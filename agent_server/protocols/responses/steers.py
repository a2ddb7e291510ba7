"""`response.steer`: new input for a response that is in progress (OpenAI API reference, Responses WebSocket).

A steered graph stops between two of its steps, and ends `incomplete` with the reason `steered`; what cannot be
stopped ends by itself. Then a successor with the settings of the first goes on from it, with the new input. Where the
first stops for an answer of the client, the input waits, and follows the response that brings the answer.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any, NamedTuple
from uuid import uuid4

from agent_server.errors import RequestError
from agent_server.graph.steering import Steering
from agent_server.protocols.responses.fields import Fields, invalid, missing
from agent_server.protocols.responses.items import read_turns

MAX_STEERS = 32
"""Inputs that wait on one connection."""

_REMEMBERED = 64
_KEYS = frozenset({"type", "role", "content"})
_NOT_INHERITED = frozenset({"previous_response_id", "input"})


class SteerError(RequestError):
    """Input that cannot be taken. `code` is one of the codes of `response.steer.failed`."""

    def __init__(self, code: str, message: str) -> None:
        super().__init__(message, code=code)


class Steer(NamedTuple):
    """Input that the server has taken: as it came, and as items."""

    id: str
    previous_response_id: str
    input: Any
    items: list[Any]

    def told(self) -> dict[str, Any]:
        """As the events name it."""
        return {"id": self.id, "previous_response_id": self.previous_response_id}


@dataclass(slots=True)
class Target:
    """A response in progress, and the input that waits for its end."""

    response_id: str
    stream_id: str | None
    body: Mapping[str, Any]
    steering: Steering
    in_conversation: bool
    steers: list[Steer] = field(default_factory=list)

    def successor(self) -> dict[str, Any]:
        """The request that goes on from it: with its settings, and with all the input that waits."""
        settings = {key: value for key, value in self.body.items() if key not in _NOT_INHERITED}
        items = [item for steer in self.steers for item in steer.items]
        return {**settings, "previous_response_id": self.response_id, "input": items}


class Steers:
    """The steered responses of one connection."""

    def __init__(self) -> None:
        self._targets: dict[str, Target] = {}
        self._waiting: dict[str, list[Steer]] = {}  # by the response that waits for an answer
        self._over: deque[str] = deque(maxlen=_REMEMBERED)

    def begin(self, target: Target, previous: Any) -> None:
        """A response begins. Input that waited for it is now its own, and follows when it is over."""
        self._targets[target.response_id] = target
        target.steers += self._waiting.pop(previous, []) if isinstance(previous, str) else []

    def end(self, target: Target) -> None:
        """A response is over: it takes no more input."""
        self._targets.pop(target.response_id, None)
        self._over.append(target.response_id)

    def wait(self, target: Target) -> None:
        """Let its input wait for the response that goes on from it."""
        self._waiting[target.response_id] = target.steers

    def lane_of(self, response_id: Any) -> str | None:
        """The lane of a response in progress; None for one without a name, and for any other response."""
        target = self._targets.get(response_id) if isinstance(response_id, str) else None
        return target.stream_id if target is not None else None

    def drop(self, response_id: str) -> list[Steer]:
        """The input that waited for a response which nothing can go on from any more."""
        return self._waiting.pop(response_id, [])

    def take(self, response_id: str, given: Any) -> tuple[Target, Steer]:
        """Take input for a response. Raises `SteerError`, and `RequestError` for input that is wrong in itself."""
        target = self._targets.get(response_id)
        if target is None:
            if response_id in self._over:
                raise SteerError("response_already_completed", "The response is over.")
            raise SteerError("response_not_found", "No response of this connection in progress has this id.")
        if target.in_conversation:
            message = "A response that belongs to a conversation cannot be steered."
            raise SteerError("steering_not_supported", message)
        waiting = [*self._waiting.values(), *(each.steers for each in self._targets.values())]
        if sum(map(len, waiting)) >= MAX_STEERS:
            raise SteerError("too_many_pending_steers", f"{MAX_STEERS} inputs wait already.")
        steer = Steer(f"steer_{uuid4().hex}", response_id, given, _read_items(given))
        target.steers.append(steer)
        target.steering.stop()
        return target, steer


def _read_items(given: Any) -> list[Any]:
    """A text, or messages of the user with no more than a content."""
    items = [{"role": "user", "content": given}] if isinstance(given, str) else given
    if given is None:
        raise missing("input")
    for item in Fields({"input": items}).children("input"):
        if item.get("type") not in (None, "message") or item.get("role") != "user" or set(item.values()) - _KEYS:
            raise invalid(item.path, "a response is steered with messages of the user alone")
    if not given:
        raise invalid("input", "it must not be empty", code="empty_array")
    read_turns(items)
    return list(items)


def required_input(response: Mapping[str, Any]) -> list[dict[str, Any]]:
    """What a completed response waits for: stubs of the items that answer it."""
    if response["status"] != "completed":
        return []
    own = {tool.get("name") for tool in response["tools"]}
    given = {item["call_id"] for item in response["output"] if item["type"] == "function_call_output"}
    required = []
    for item in response["output"]:
        if item["type"] == "mcp_approval_request":
            required.append({"type": "mcp_approval_response", "approval_request_id": item["id"]})
        elif item["type"] == "function_call" and item["name"] in own and item["call_id"] not in given:
            required.append({"type": "function_call_output", "call_id": item["call_id"], "name": item["name"]})
    return required
