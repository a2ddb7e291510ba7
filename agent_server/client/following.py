"""One turn as its client follows it, whatever carries the bytes: what to ask for next, and what the answers say."""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any, NamedTuple
from uuid import uuid4

ENDS = frozenset({"command_output", "error"})
TRIES = 8
"""Connections in a row that bring nothing new, after which a stream is given up."""

AWAY = frozenset({502, 503})
"""Statuses of a server, or a proxy before it, that may be back soon."""

_NDJSON = "application/x-ndjson"


class AgentServerError(Exception):
    """The server refused a request. `status` is HTTP's, `code` the server's own word."""

    def __init__(self, status: int, code: str, message: str) -> None:
        super().__init__(f"{status} {code}: {message}")
        self.status = status
        self.code = code
        self.message = message


class ConnectionLostError(Exception):
    """The server could not be reached again. The turn may go on; `turn_id` names it, if it was known."""

    def __init__(self, turn_id: str) -> None:
        super().__init__(f"The connection was lost{f' in turn {turn_id}' if turn_id else ''}.")
        self.turn_id = turn_id


class Frame(NamedTuple):
    """One message of a turn's stream: `trace`, `command_output` or `error`, and what it says."""

    event: str
    data: dict[str, Any]


class Call(NamedTuple):
    """A request to make."""

    method: str
    path: str
    params: Mapping[str, str | int | float]
    headers: Mapping[str, str]
    body: Mapping[str, Any] | None = None


@dataclass
class Following:
    """A turn that is streamed, over as many connections as it takes.

    The first request has a key of its own, so that asking again joins the turn that it began.
    """

    token: str
    body: Mapping[str, Any] | None = None
    turn_id: str = ""
    after: int = -1
    done: bool = False
    key: str = field(default_factory=lambda: uuid4().hex)
    tries: int = 0

    def call(self) -> Call:
        """The next request."""
        headers = {"authorization": f"Bearer {self.token}", "accept": _NDJSON}
        if self.turn_id:
            params: dict[str, str | int | float] = {"stream_format": "ndjson"}
            if self.after >= 0:
                params["after"] = self.after
            if self.body is not None and not self.body.get("show_agent_traces", True):
                params["show_agent_traces"] = "false"
            return Call("GET", f"/turns/{self.turn_id}/events", params, headers)
        body = {**(self.body or {}), "stream_format": "ndjson"}
        return Call("POST", "/invoke_agent_stream", {}, {**headers, "idempotency-key": self.key}, body)

    def answered(self, headers: Mapping[str, str]) -> None:
        """The head of an answer."""
        self.turn_id = headers.get("x-turn-id", self.turn_id)

    def line(self, line: str) -> Frame | None:
        """A whole line of an answer; None for a heartbeat, and for what was there before."""
        if not line.strip():
            return None
        message = json.loads(line)
        data = message["data"]
        sequence = data.get("sequence", self.after + 1)
        if sequence <= self.after:
            return None
        self.after, self.tries = sequence, 0
        self.turn_id = data.get("turn_id", self.turn_id)
        self.done = message["type"] in ENDS
        return Frame(message["type"], data)

    def lost(self) -> float:
        """The connection ended too early: the seconds to wait. Raises `ConnectionLostError`."""
        self.tries += 1
        if self.tries > TRIES:
            raise ConnectionLostError(self.turn_id)
        return float(min(2.0, 0.05 * 2 ** (self.tries - 1))) if self.tries > 1 else 0.0


def refusal(status: int, text: str) -> AgentServerError:
    """What an answer that is no success says."""
    try:
        error = json.loads(text)["error"]
        return AgentServerError(status, str(error["code"]), str(error["message"]))
    except (ValueError, KeyError, TypeError):
        return AgentServerError(status, "unknown", text[:200])


def saying(query: str | None, decision: Any, options: Mapping[str, Any]) -> dict[str, Any]:
    """The body of a turn."""
    said = {"user_query": query, "decision": decision, **options}
    return {name: value for name, value in said.items() if value is not None}
