"""What a store has of a run, read back: its request from its row, its events from its log."""

from __future__ import annotations

import msgspec

from agent_server.events import Event, RunStarted, decode
from agent_server.runs.stores.port import CorruptError, RunRow, Store

PAGE = 1_000


class _Request(msgspec.Struct, frozen=True):
    started: RunStarted
    wire: msgspec.Raw


_request_of: msgspec.json.Decoder[_Request] = msgspec.json.Decoder(_Request)


def request_of(first: bytes, wire: bytes) -> bytes:
    """What a row says of its run's request: its first event, encoded, and JSON of the protocol's own."""
    return b'{"started":%b,"wire":%b}' % (first, wire)


def started_of(row: RunRow) -> RunStarted:
    """The first event of a run. Raises `CorruptError`."""
    return _decoded(row).started


def wire_of(row: RunRow) -> bytes:
    """What the protocol gave along with the run. Raises `CorruptError`."""
    return bytes(_decoded(row).wire)


def _decoded(row: RunRow) -> _Request:
    try:
        return _request_of.decode(row.request)
    except msgspec.MsgspecError as error:
        raise CorruptError(f"The request of run {row.id} cannot be read.") from error


async def events_of(store: Store, tenant: str, run_id: str, after: int = 0) -> list[Event]:
    """The events of a run from number `after` on, as many as there are now. Raises `StoreError`."""
    events: list[Event] = []
    while page := await store.events(tenant, run_id, after + len(events), PAGE):
        try:
            events += [decode(data) for data in page]
        except msgspec.MsgspecError as error:
            raise CorruptError(f"The events of run {run_id} cannot be read.") from error
        if len(page) < PAGE:
            break
    return events
