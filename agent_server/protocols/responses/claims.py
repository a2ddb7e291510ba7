"""What may happen only once: a request with an Idempotency-Key, and the answer to a response's questions."""

from __future__ import annotations

import hashlib
from collections.abc import Sequence
from typing import NamedTuple

from agent_server import framing
from agent_server.errors import ConflictError, RequestError
from agent_server.graph.converter import now_ms
from agent_server.http.identity import TENANT
from agent_server.protocols.responses.asked import Asked
from agent_server.protocols.responses.kept import Archive, Kept
from agent_server.runs.stores.port import Claim, Store

IDEMPOTENCY_HOURS = 24

_ANSWERS = "answers"


class Once(NamedTuple):
    """A key on a route, the digest of what it stands for, and whether the run that is made of it leaves a row."""

    route: str
    key: str
    digest: str
    leaves_row: bool


def claims_of(asked: Asked) -> list[Once]:
    """What a request claims: a key is used once, and a question is answered once."""
    claims = []
    if (key := asked.said.headers.get("idempotency-key")) is not None:
        digest = hashlib.sha256(framing.to_json(asked.said.body)).hexdigest()
        claims.append(Once(asked.dialect.path, key, digest, asked.keeps))
    if asked.origin.resume is not None and asked.origin.previous is not None:
        claims.append(Once(_ANSWERS, asked.origin.previous.row.id, asked.origin.digest, asked.keeps))
    return claims


class Claims:
    """The claims of one app's requests. `retention_days` is how long an answered question is remembered.

    A process that claims and then dies makes no run: from `lease` seconds on the claim counts no longer.
    """

    def __init__(self, store: Store, archive: Archive, retention_days: float, lease: float) -> None:
        self._store = store
        self._archive = archive
        self._hours = {_ANSWERS: 24 * (retention_days or 3650)}
        self._lease_ms = round(lease * 1000)

    async def take(self, claims: Sequence[Once], run_id: str) -> Kept | None:
        """Claim all for a run. Else none, and the response that had one of them first.

        Raises `ConflictError` and `RequestError` where that was for something else, or is not there yet.
        """
        for taken, claim in enumerate(claims):
            earlier = await self._take(claim, run_id)
            if earlier is not None and claim.route == _ANSWERS and await self._came_to_nothing(earlier):
                await self.release([claim], earlier.run_id)
                earlier = await self._take(claim, run_id)
            if earlier is not None:
                await self.release(claims[:taken], run_id)
                return await self._first(earlier, claim)
        return None

    async def _take(self, once: Once, run_id: str) -> Claim | None:
        now = now_ms()
        until = now + round(self._hours.get(once.route, IDEMPOTENCY_HOURS) * 3_600_000)
        run_by = now + self._lease_ms if once.leaves_row else None
        claim = Claim(once.digest, run_id)
        return await self._store.claim(TENANT, once.route, once.key, claim, now=now, expires_at=until, run_by=run_by)

    async def release(self, claims: Sequence[Once], run_id: str) -> None:
        """Give back what was claimed for a run that never began."""
        for claim in claims:
            await self._store.release(TENANT, claim.route, claim.key, run_id)

    async def _came_to_nothing(self, earlier: Claim) -> bool:
        """Whether the run that got the answers left nothing to go on from, so that the questions are still open."""
        kept = await self._archive.run(TENANT, earlier.run_id)
        return kept is not None and kept.row.status in ("failed", "cancelled")

    async def _first(self, earlier: Claim, once: Once) -> Kept:
        if earlier.digest != once.digest:
            if once.route == _ANSWERS:
                message = "This response's questions have been answered differently before."
                raise ConflictError(message, param="input", code="approval_already_answered")
            raise _KeyReusedError
        kept = await self._archive.run(TENANT, earlier.run_id)
        if kept is None:
            message = "An equal request is just being accepted. Try again."
            raise ConflictError(message, param="idempotency-key", code="idempotency_key_in_use")
        return kept


class _KeyReusedError(RequestError):
    """RFC draft "The Idempotency-Key HTTP Header Field", section 2.7."""

    status = 422

    def __init__(self) -> None:
        message = "This Idempotency-Key came with another request before."
        super().__init__(message, param="idempotency-key", code="idempotency_key_reused")
