"""Threads as this API knows them: rows of the store, found by UUID or by whatever id another protocol gave them.

A thread's metadata is one note that protocols share, as conversations of the Responses API write it: texts are in its
`metadata`, where that API shows them, and everything else is in `more`.
"""

from __future__ import annotations

import asyncio
from collections.abc import Mapping
from typing import Any, NamedTuple
from uuid import UUID

import msgspec

from agent_server.graph.converter import now_ms
from agent_server.http.identity import TENANT
from agent_server.protocols.langgraph.refusals import UnprocessableError, no_thread
from agent_server.runs.engine import Engine
from agent_server.runs.stores.port import TERMINAL_STATUSES, RunStatus, Thread
from agent_server.runs.threads import LONGEST_ID

MINUTE = 60_000


class Note(msgspec.Struct, frozen=True, omit_defaults=True):
    """What is written down of a thread. `more` holds `metadata` that are no texts, `updated_at` and `ttl`."""

    texts: dict[str, str] = msgspec.field(default_factory=dict, name="metadata")
    deleted: list[str] = []
    more: dict[str, Any] = {}

    def metadata(self) -> dict[str, Any]:
        """The client's metadata, and what the server says of the thread's last run."""
        return {**self.texts, **self.more.get("metadata", {})}

    def with_metadata(self, metadata: Mapping[str, Any]) -> Note:
        """The note with these in place of what there was."""
        texts = {key: value for key, value in metadata.items() if isinstance(value, str)}
        others = {key: value for key, value in metadata.items() if not isinstance(value, str)}
        return msgspec.structs.replace(self, texts=texts, more={**self.more, "metadata": others})

    def with_more(self, **more: Any) -> Note:
        """The note with more beside its metadata; None takes away."""
        kept = {key: value for key, value in {**self.more, **more}.items() if value is not None}
        return msgspec.structs.replace(self, more=kept)


class Ttl(NamedTuple):
    """How long a thread stays after it was last used, and what becomes of it then."""

    minutes: float
    strategy: str

    @classmethod
    def read(cls, value: Any) -> Ttl | None:
        """Minutes, or `{"ttl": minutes, "strategy": "delete" | "keep_latest"}`. Raises `UnprocessableError`."""
        given = value if isinstance(value, Mapping) else {"ttl": value}
        minutes, strategy = given.get("ttl"), given.get("strategy", "delete")
        if minutes is None:
            return None
        if isinstance(minutes, bool) or not isinstance(minutes, int | float) or not 0 < minutes < 10**8:
            raise UnprocessableError("'ttl' must be a number of minutes.", param="ttl")
        if strategy not in ("delete", "keep_latest"):
            raise UnprocessableError("'ttl.strategy' must be delete or keep_latest.", param="ttl.strategy")
        return cls(minutes, strategy)


_note: msgspec.json.Decoder[Note] = msgspec.json.Decoder(Note)


class Noted(NamedTuple):
    """A thread with its note. `status` is that of its last run, or of the one that is running; `at` when that was
    asked for."""

    thread: Thread
    note: Note
    status: RunStatus | None
    at: int

    @property
    def id(self) -> str:
        """The thread's id."""
        return self.thread.id

    @property
    def updated_at(self) -> int:
        """When it was last written to, or a run asked for, as far as the list of threads tells."""
        return max(self.thread.created_at, self.at, int(self.note.more.get("updated_at", 0)))


class ThreadNotes:
    """The threads of one app."""

    def __init__(self, engine: Engine, retention_days: float) -> None:
        self._engine = engine
        self._kept_ms = round(retention_days * 86_400_000)
        self._writing = asyncio.Lock()  # across processes the last one wins
        self.passing: set[str] = set()
        """Ids of threads that runs have for themselves and that go with them: no list shows them."""

    async def find(self, text: str) -> tuple[Thread, Note]:
        """A thread by the id in an address. Raises 404 for a UUID that is none, 422 for what cannot be one."""
        found = await self.known(text)
        if found is not None:
            return found, note_of(found)
        try:
            UUID(text)
        except ValueError:
            raise UnprocessableError("Invalid thread ID: must be a UUID") from None
        raise no_thread(text)

    async def known(self, text: str) -> Thread | None:
        """The same, None where there is none."""
        await self._engine.open()
        if not 1 <= len(text) <= LONGEST_ID or "\0" in text:
            return None
        store = self._engine.keeper.store
        found = await store.thread(TENANT, text)
        if found is None and (usual := _usual(text)) not in (None, text):
            found = await store.thread(TENANT, str(usual))
        return found

    async def create(self, thread_id: str, note: Note) -> Thread | None:
        """A new thread; None if there is one of that id."""
        await self._engine.open()
        now = now_ms()
        expires_at = now + self._kept_ms if self._kept_ms else None
        thread = Thread(thread_id, now, msgspec.json.encode(note), expires_at)
        return thread if await self._engine.keeper.store.create_thread(TENANT, thread) else None

    async def change(self, thread_id: str, *, merge: Mapping[str, Any], **more: Any) -> Note:
        """Merge into a thread's metadata, and put more beside them. Raises `NotFoundError`."""
        store = self._engine.keeper.store
        async with self._writing:
            thread = await store.thread(TENANT, thread_id)
            if thread is None:
                raise no_thread(thread_id)
            note = note_of(thread)
            changed = note.with_metadata({**note.metadata(), **merge}).with_more(**more)
            if changed != note:
                await store.update_thread(TENANT, thread_id, msgspec.json.encode(changed))
            return changed

    async def listed(self) -> list[Noted]:
        """All threads."""
        await self._engine.open()
        listed = await self._engine.keeper.store.threads(TENANT)
        lasting = [each for each in listed if each.thread.id not in self.passing]
        return [Noted(each.thread, note_of(each.thread), each.status, each.at) for each in lasting]

    async def one(self, thread: Thread) -> Noted:
        """A thread as the list would show it."""
        rows = await self._engine.keeper.store.runs(TENANT, thread.id)
        active = [row for row in rows if row.status not in TERMINAL_STATUSES]
        status = (active or rows)[-1].status if rows else None
        at = rows[-1].created_at if rows else thread.created_at
        return Noted(thread, note_of(thread), status, at)

    async def delete(self, thread_id: str) -> bool:
        """Delete a thread with all that it holds; its runs are cancelled first. False if there is none."""
        keeper = self._engine.keeper
        for row in reversed(await keeper.store.runs(TENANT, thread_id)):  # those that wait before what they wait for
            if row.status not in TERMINAL_STATUSES:
                await self._engine.cancel_run(TENANT, row.id, "deleted")
        return await keeper.delete_thread(TENANT, thread_id)

    async def expired(self, now: int) -> list[tuple[str, Ttl]]:
        """Threads whose own time is over and that nothing runs on."""
        over = []
        for each in await self.listed():
            ttl = Ttl(**each.note.more["ttl"]) if "ttl" in each.note.more else None
            is_active = each.status is not None and each.status not in TERMINAL_STATUSES
            if ttl is not None and not is_active and each.updated_at + ttl.minutes * MINUTE <= now:
                over.append((each.id, ttl))
        return over


def note_of(thread: Thread) -> Note:
    """The note of a thread; an empty one where nobody wrote any."""
    try:
        return _note.decode(thread.metadata)
    except msgspec.MsgspecError:  # another protocol's own
        return Note()


def _usual(text: str) -> str | None:
    try:
        return str(UUID(text))
    except ValueError:
        return None
