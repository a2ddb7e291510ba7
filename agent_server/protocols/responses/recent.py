"""The responses of one connection that are not stored: gone on from there, known nowhere else, gone with it."""

from __future__ import annotations

from collections import OrderedDict
from typing import NamedTuple

import msgspec

from agent_server.graph.checkpoints import Scratch
from agent_server.protocols.responses.kept import Archive, Kept
from agent_server.runs.engine import Engine
from agent_server.runs.journal import STATUS

LIMIT = 64
"""How many responses a connection remembers. The oldest are forgotten first."""


class _Entry(NamedTuple):
    kept: Kept
    scratch: Scratch | None


class Recent(Archive):
    """An archive that looks here first, and then among the responses that are stored."""

    def __init__(self, engine: Engine) -> None:
        super().__init__(engine)
        self._entries: OrderedDict[str, _Entry] = OrderedDict()

    def add(self, kept: Kept, scratch: Scratch | None) -> None:
        """A response that has just begun, and where it leaves its checkpoints."""
        self._entries[kept.row.id] = _Entry(kept, scratch)
        if len(self._entries) > LIMIT:
            self._entries.popitem(last=False)

    def forget(self, response_id: str) -> None:
        """Whoever goes on from it from now on is told that it is not there."""
        self._entries.pop(response_id.removeprefix("resp_"), None)

    def scratch_of(self, kept: Kept) -> Scratch | None:
        """Where a response left its checkpoints, if it is one of these."""
        entry = self._entries.get(kept.row.id)
        return entry.scratch if entry is not None else None

    def __contains__(self, kept: Kept) -> bool:
        return kept.row.id in self._entries

    async def run(self, tenant: str, run_id: str) -> Kept | None:
        """A response by its run, with the status that its events tell. Raises as the archive does."""
        entry = self._entries.get(run_id)
        if entry is None:
            return await super().run(tenant, run_id)
        kept = entry.kept
        if not kept.log.over:
            return kept
        row = msgspec.structs.replace(kept.row, status=STATUS[type(kept.events()[-1])])
        return Kept(row, kept.record, kept.log)
