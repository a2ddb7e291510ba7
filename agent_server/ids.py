"""Run, response and item ids.

A run id is made once, when the run is accepted. Every id inside a run's stream is a function of the run id
and of a place in it, so that an encoder needs neither a clock nor chance and a replay names the same things.
"""

from __future__ import annotations

import re
from uuid import UUID, uuid4

_ITEM_ID = re.compile(r"[a-z]{2,5}_([0-9a-f]{32})[0-9a-f]{4,6}")


def new_run_id() -> str:
    """A fresh run id: 32 lower-case hex digits."""
    return uuid4().hex


def new_conversation_id() -> str:
    """A fresh id of a conversation that a client did not name itself."""
    return f"conv_{uuid4().hex}"


def new_error_id() -> str:
    """A fresh error id, shown to the client and written to the log beside the exception."""
    return f"err_{uuid4().hex[:16]}"


def new_request_id() -> str:
    """A fresh value for `x-request-id`."""
    return f"req_{uuid4().hex}"


def response_id(run_id: str) -> str:
    """The Responses API id of a run. Clients rely on the `resp_` prefix."""
    return f"resp_{run_id}"


def item_id(prefix: str, run_id: str, place: int) -> str:
    """The id of an output item, from its place in the output: `msg_<run id><place as 4 hex digits>`."""
    return f"{prefix}_{run_id}{place:04x}"


def run_of(item_id: str) -> str | None:
    """The run whose item has this id; None for the id of another kind."""
    match = _ITEM_ID.fullmatch(item_id)
    return match[1] if match else None


def call_id(run_id: str, ordinal: int) -> str:
    """The call id of a tool that no model asked for, or of a call that its provider left without an id."""
    return f"call_{run_id}{ordinal:04x}"


def run_uuid(run_id: str) -> UUID:
    """The same id as LangChain wants it in `config["run_id"]`."""
    return UUID(hex=run_id)
