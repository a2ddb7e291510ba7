"""Responses that are kept: what is written down of each beside its events, and how they are found again.

A response's object, its items and its stream are folds of its run's events; only its input is stored as it came.
Ids of items hold the id of their run and their place in it, so that an item is found without an index.
"""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import msgspec

from agent_server import ids
from agent_server.errors import GoneError, NotFoundError
from agent_server.events import Event, RunInterrupted
from agent_server.protocols.responses.encoder import ResponsesEncoder, ToolItems
from agent_server.protocols.responses.said import said_items
from agent_server.runs.engine import Engine
from agent_server.runs.log import EventLog
from agent_server.runs.rows import protocol_of, started_of, turns_of, wire_of
from agent_server.runs.stores.port import RunRow

PROTOCOL = "responses"
"""How runs that came by this protocol are marked."""

_RESPONSE_ID = re.compile(r"resp_([0-9a-f]{32})")
_INPUT = 0x8000  # the places of input items begin here, above all output
_PREFIXES = {
    "message": "msg",
    "reasoning": "rs",
    "function_call": "fc",
    "function_call_output": "fco",
    "mcp_call": "mcp",
    "mcp_approval_response": "mcpa",
    "compaction": "cmp",
}


class Record(msgspec.Struct, frozen=True, omit_defaults=True):
    """What is stored of a request. `input` holds its items, each with an id. `added` are the runs that hold items of
    the conversation which were added to it before, and given along."""

    tool_items: ToolItems
    input: list[dict[str, Any]] = []
    conversation: str = ""
    background: bool = False
    added: list[str] = []


_record_of: msgspec.json.Decoder[Record] = msgspec.json.Decoder(Record)


def input_items(run_id: str, value: str | Sequence[Mapping[str, Any]]) -> list[dict[str, Any]]:
    """A request's input as the API lists it: items with ids and statuses, texts as parts."""
    items = [{"role": "user", "content": value}] if isinstance(value, str) else value
    return [_input_item(run_id, place, item) for place, item in enumerate(items)]


def _input_item(run_id: str, place: int, item: Mapping[str, Any]) -> dict[str, Any]:
    kind = item.get("type") or "message"
    given = {key: value for key, value in item.items() if value is not None}
    made = {"id": ids.item_id(_PREFIXES.get(kind, "item"), run_id, _INPUT + place), "type": kind}
    if kind == "message":
        made["status"] = "completed"
        if isinstance(given.get("content"), str):
            part = "output_text" if given.get("role") == "assistant" else "input_text"
            given["content"] = [{"type": part, "text": given["content"]}]
        given["content"] = [_part(part) for part in given.get("content", ())]
    return {**made, **given}


def _part(part: Mapping[str, Any]) -> Mapping[str, Any]:
    """The lists that the API's clients look for in a text of the agent's are there."""
    return {"annotations": [], "logprobs": [], **part} if part.get("type") == "output_text" else part


@dataclass(frozen=True, slots=True)
class Kept:
    """A response that is kept, whether it is over or not."""

    row: RunRow
    record: Record
    log: EventLog

    @property
    def id(self) -> str:
        """The response's id."""
        return ids.response_id(self.row.id)

    def events(self) -> list[Event]:
        """Its events so far; the first one also of a run that waits in line."""
        return self.log.read(0) or [started_of(self.row)]

    def response(self) -> dict[str, Any]:
        """The response object as it is now."""
        encoder = ResponsesEncoder(self.record.tool_items)
        for event in self.events():
            encoder.feed(event)
        queued = self.row.status == "queued" and not len(self.log)
        return {**encoder.response, "status": "queued"} if queued else encoder.response_so_far()

    def output(self, tool_items: ToolItems | None = None) -> list[dict[str, Any]]:
        """The output items so far, in the response's own style of tool items or in another."""
        encoder = ResponsesEncoder(tool_items or self.record.tool_items)
        for event in self.events():
            encoder.feed(event)
        found: list[dict[str, Any]] = encoder.response_so_far()["output"]
        return found

    def interrupted(self) -> RunInterrupted | None:
        """The questions it ended with, if it did."""
        last = self.events()[-1]
        return last if isinstance(last, RunInterrupted) else None


class Archive:
    """Finds the kept responses of one app."""

    def __init__(self, engine: Engine) -> None:
        self._engine = engine

    async def response(self, tenant: str, response_id: str) -> Kept:
        """A response by its id. Raises `NotFoundError` and `GoneError`."""
        match = _RESPONSE_ID.fullmatch(response_id)
        kept = await self.run(tenant, match[1]) if match else None
        if kept is None or not kept.row.agent:  # items that were added to a conversation are no response
            raise NotFoundError(f"Response with id '{response_id[:100]}' not found.", code="response_not_found")
        return kept

    async def run(self, tenant: str, run_id: str) -> Kept | None:
        """A response by its run. Raises `GoneError` for one that has expired."""
        try:
            found = await self._engine.find(tenant, run_id)
        except GoneError:
            raise GoneError("The response was kept for a time that is over.", code="response_expired") from None
        return None if found is None else kept_of(*found)

    async def item(self, tenant: str, item_id: str) -> tuple[Kept, dict[str, Any]] | None:
        """An input or output item by its id, and the response it belongs to."""
        run_id = ids.run_of(item_id)
        kept = await self.run(tenant, run_id) if run_id else None
        if kept is None:
            return None
        items = [*kept.record.input, *kept.output()]
        return next(((kept, item) for item in items if item.get("id") == item_id), None)

    async def before(self, tenant: str, kept: Kept) -> list[Kept]:
        """The responses that a response goes on from, as far back as they are kept, and itself: the oldest first."""
        chain = [kept]
        while chain[-1].row.previous:
            try:
                previous = await self.run(tenant, chain[-1].row.previous)
            except GoneError:
                break
            if previous is None:
                break
            chain.append(previous)
        return chain[::-1]


def kept_of(row: RunRow, log: EventLog) -> Kept:
    """A run as a response."""
    return Kept(row, record_of(row), log)


def record_of(row: RunRow) -> Record:
    """What is stored of the request that made a run; for one that came by another protocol, what it said there."""
    if protocol_of(row) == PROTOCOL:
        return _record_of.decode(wire_of(row))
    conversation = row.thread_id if row.thread_id != row.id else ""
    return Record("mcp_call", input_items(row.id, said_items(turns_of(row))), conversation)
