"""What a store has of a run, read back: its request from its row, its events from its log."""

from __future__ import annotations

from collections.abc import Sequence

import msgspec

from agent_server.events import Event, RunStarted, decode
from agent_server.graph.inputs import Turn
from agent_server.runs.stores.port import CorruptError, RunRow, Store

PAGE = 1_000


class _Request(msgspec.Struct, frozen=True):
    started: RunStarted
    wire: msgspec.Raw
    protocol: str = ""
    turns: list[Turn] = []


_request_of: msgspec.json.Decoder[_Request] = msgspec.json.Decoder(_Request)


def request_of(first: bytes, protocol: str, turns: Sequence[Turn], wire: bytes) -> bytes:
    """What a row says of its run's request: its first event, encoded, what it said, and JSON of the protocol's own."""
    return b'{"started":%b,"protocol":"%b","turns":%b,"wire":%b}' % (
        first,
        protocol.encode(),
        msgspec.json.encode(turns),
        wire,
    )


def started_of(row: RunRow) -> RunStarted:
    """The first event of a run. Raises `CorruptError`."""
    return _decoded(row).started


def wire_of(row: RunRow) -> bytes:
    """What the protocol gave along with the run. Raises `CorruptError`."""
    return bytes(_decoded(row).wire)


def protocol_of(row: RunRow) -> str:
    """The protocol that the run came by. Raises `CorruptError`."""
    return _decoded(row).protocol


def turns_of(row: RunRow) -> list[Turn]:
    """What its request said. Raises `CorruptError`."""
    return _decoded(row).turns


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
