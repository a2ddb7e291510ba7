"""What a thread of the store holds as a conversation of the Responses API.

| of a conversation       | is                                                                                   |
|-------------------------|--------------------------------------------------------------------------------------|
| its metadata            | a `Note` in the thread's metadata                                                    |
| its items               | input and output of its responses, in the order in which those were asked for        |
| items that a client adds | a run without an agent, complete when it is made: its input is all there is of it    |
| items that are deleted  | ids in the `Note`: the events of a run never change                                  |

A response that failed or was cancelled left nothing to go on from, so none of its items are in the conversation.
"""

from __future__ import annotations

import re
from collections.abc import Collection, Mapping, Sequence
from typing import Any

import msgspec

from agent_server.graph.inputs import Turn
from agent_server.protocols.responses.echoes import unsaid
from agent_server.protocols.responses.items import read_turns
from agent_server.protocols.responses.kept import Archive, Kept, Record, record_of
from agent_server.protocols.responses.sealed import opened
from agent_server.runs.stores.port import RunRow, RunStatus, Store, Thread

GOES_ON: frozenset[RunStatus] = frozenset({"completed", "interrupted"})
"""The statuses of runs that others can go on from."""

Item = Mapping[str, Any]

_RUN_ID = re.compile(r"[0-9a-f]{32}")
_LONGEST_ID = 512
_SILENT = frozenset({"mcp_approval_response", "mcp_list_tools"})


class Note(msgspec.Struct, frozen=True, omit_defaults=True):
    """What is written down of a conversation: the client's metadata, and the ids of its deleted items.

    `more` is what another protocol keeps there; it is left as it is.
    """

    metadata: dict[str, str] = {}
    deleted: list[str] = []
    more: dict[str, Any] = {}


_note_of: msgspec.json.Decoder[Note] = msgspec.json.Decoder(Note)


def note_of(thread: Thread) -> Note:
    """The note of a thread; an empty one where nobody wrote any."""
    return _note_of.decode(thread.metadata)


async def find_conversation(store: Store, tenant: str, thread_id: str) -> Thread | None:
    """The thread, if it is a conversation: a response that belongs to none has a thread of its own, by its run's id."""
    if "\0" in thread_id or not 1 <= len(thread_id) <= _LONGEST_ID:
        return None
    thread = await store.thread(tenant, thread_id)
    if thread is None or not _RUN_ID.fullmatch(thread_id):
        return thread
    own = await store.run(tenant, thread_id)
    return thread if own is None or own.thread_id != thread_id else None


def is_added(row: RunRow) -> bool:
    """Whether a run holds items that a client added: no agent ran."""
    return not row.agent


def head(rows: Sequence[RunRow]) -> RunRow | None:
    """The last run of a conversation that others can go on from."""
    return next((row for row in reversed(rows) if row.status in GOES_ON and not is_added(row)), None)


def not_given(rows: Sequence[RunRow]) -> list[tuple[RunRow, Record]]:
    """The added items that no response of the conversation has been given yet."""
    added = [row for row in rows if is_added(row)]
    if not added:
        return []
    given = {run for row in rows if row.status in GOES_ON and not is_added(row) for run in record_of(row).added}
    return [(row, record_of(row)) for row in added if row.id not in given]


def without(items: Sequence[Item], deleted: Collection[str]) -> list[Item]:
    """The items that an agent is given: a call goes with its output when one of the two is deleted."""
    calls = {item["call_id"] for item in items if item.get("id") in deleted and "call_id" in item}
    return [item for item in items if item.get("id") not in deleted and item.get("call_id") not in calls]


async def said_by(archive: Archive, tenant: str, kept: Kept, before: Sequence[Item]) -> list[Item]:
    """The items of a response's input, without what stands in `before` and was only sent along."""
    known = {item.get("id") for item in before}
    items: list[Item] = []
    for item in kept.record.input:
        if item["type"] != "item_reference" and (item["type"] != "message" or "role" in item):
            items.append(item)
        elif (found := await archive.item(tenant, item["id"])) is not None:
            items.append(found[1])
    return [item for item in _new_items(items, before) if item.get("id") not in known]


def _new_items(items: list[Item], before: Sequence[Item]) -> list[Item]:
    """`echoes.unsaid` for items: those whose turns are new, or that have none."""
    if not before or len(items) == 1:
        return items
    turned = [(item, turns_of([item])) for item in items]
    told = {id(turn) for turn in unsaid([turn for _, turns in turned for turn in turns], turns_of(before))}
    return [item for item, turns in turned if not turns or any(id(turn) in told for turn in turns)]


def turns_of(items: Sequence[Item]) -> tuple[Turn, ...]:
    """The turns of items that were kept. Those that answer a question said all they had to say to the run itself."""
    return read_turns([opened(item) for item in items if item["type"] not in _SILENT])
