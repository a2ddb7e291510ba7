"""What a store keeps, and the few verbs it has: threads, their runs, the runs' events, and idempotency keys.

Every verb names a tenant, or works on all of them for upkeep alone. A store gives back what it was given: it knows
events as bytes with a checksum, and of a run's request nothing at all. Times are Unix milliseconds; leases are
measured by the store's own clock, all other times are the caller's.

Rules that each store keeps, held by one conformance kit (tests/conformance/stores):

- A run has at most one owner. Whoever writes for a run names owner and attempt; who is not the owner (any more), or
  comes after the terminal status, writes nothing and is told so.
- (thread, seq) is unique: the events of a run are numbered `base`, `base + 1`, ... on its thread.
- At most one run of a thread is running. The others wait (`queued`), in the order in which they came.
- What a verb acknowledges has been committed.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import ClassVar, Literal, Protocol

import msgspec

from agent_server.errors import AgentServerError
from agent_server.graph.savers import Saver

RunStatus = Literal["queued", "running", "completed", "interrupted", "failed", "cancelled"]
TERMINAL_STATUSES: frozenset[RunStatus] = frozenset({"completed", "interrupted", "failed", "cancelled"})


class StoreError(AgentServerError):
    """The store cannot be used now: it is away, full, broken or of a newer version."""

    status: ClassVar[int] = 503
    code = "store_unavailable"


class UnwritableError(StoreError):
    """What was to be written is nothing that the store takes, now or later. It has written nothing of it."""


class CorruptError(StoreError):
    """What was read is not what was written: its checksum is wrong."""


class Thread(msgspec.Struct, frozen=True):
    """A thread: what its owner says of it. `metadata` is JSON of the protocol that made it."""

    id: str
    created_at: int
    metadata: bytes = b"{}"
    expires_at: int | None = None


class RunRow(msgspec.Struct, frozen=True):
    """A run, as its row tells.

    `previous` is the run that this one goes on from, "" for none; `checkpoints` is the LangGraph thread that holds
    its checkpoints. `request` is the JSON of the protocol that made it. `base` is the place of its first event in
    its thread's sequence, `length` how many events it has. `cancel` is the reason somebody gave for stopping it.
    A queued run of `attempt` 0 waits for a time, and keeps nobody waiting who came after it.
    """

    id: str
    thread_id: str
    agent: str
    status: RunStatus
    created_at: int
    base: int = 0
    length: int = 0
    previous: str = ""
    checkpoints: str = ""
    request: bytes = b"{}"
    expires_at: int | None = None
    owner: str = ""
    attempt: int = 1
    cancel: str | None = None


class Append(msgspec.Struct, frozen=True):
    """Events to add to one run's log: `events[0]` is number `after` of the run, which is not negative. `status` is set
    with its last."""

    tenant: str
    run_id: str
    owner: str
    attempt: int
    after: int
    events: Sequence[bytes]
    status: RunStatus | None = None


class Claim(msgspec.Struct, frozen=True):
    """An idempotency key in use: the digest of the request it came with, and the run it made."""

    digest: str
    run_id: str


class Abandoned(msgspec.Struct, frozen=True):
    """A run, running or queued, whose owner's lease is over."""

    tenant: str
    run: RunRow


class Listed(msgspec.Struct, frozen=True):
    """A thread as a list shows it: the status of its run that is running or waits, else of its last one, None without
    any; and when its last run was asked for, or it was made itself."""

    thread: Thread
    status: RunStatus | None
    at: int


class Document(msgspec.Struct, frozen=True):
    """JSON that a protocol keeps beside its runs, such as an assistant. (kind, id) is unique."""

    kind: str
    id: str
    value: bytes


class Store(Protocol):
    """A store. Raises `StoreError` from any verb when the database does."""

    async def open(self) -> None:
        """Connect; make or migrate the tables. Raises `StoreError` for tables newer than this code."""
        ...

    async def aclose(self) -> None:
        """Let go of everything. Nothing is lost."""
        ...

    async def checkpointer(self) -> Saver:
        """A LangGraph checkpointer in the same database, for as long as the store is open. Its tables are made."""
        ...

    # -- threads -------------------------------------------------------------------------------------------

    async def create_thread(self, tenant: str, thread: Thread) -> bool:
        """False if there is one of that id already; it is then left as it is."""
        ...

    async def thread(self, tenant: str, thread_id: str) -> Thread | None:
        """The thread."""
        ...

    async def update_thread(self, tenant: str, thread_id: str, metadata: bytes) -> bool:
        """Replace its metadata. False if there is none."""
        ...

    async def delete_thread(self, tenant: str, thread_id: str) -> bool:
        """Delete a thread with its runs and their events. False if there is none."""
        ...

    async def threads(self, tenant: str) -> list[Listed]:
        """All threads, oldest first, but those that a run has for itself alone, which have its id."""
        ...

    # -- runs ----------------------------------------------------------------------------------------------

    async def create_run(self, tenant: str, run: RunRow, lease_ms: int, first: bytes | None = None) -> RunRow | None:
        """Add a run, with the thread it names if that is not there yet, and with the `first` event of its log.

        A run that is to be `running` or `queued` has its owner's lease from now on. None if it is to be `running` and
        another run of the thread is. `base` and `length` are the store's to set, and are in what it returns; a queued
        run's `base` is set when it starts. A run given with a terminal status is kept as it is. Raises `StoreError`
        for an id that the tenant has a run of already.
        """
        ...

    async def start_run(self, tenant: str, run_id: str, owner: str, lease_ms: int) -> RunRow | None:
        """Let a queued run begin, if it is the first in its thread's line and no other is running; else None.

        Whoever starts it owns it, its attempt stays. An answer of None costs no transaction.
        """
        ...

    async def go_on_from(self, tenant: str, run_id: str, previous: str, checkpoints: str) -> bool:
        """Replace what a run goes on from, and where its checkpoints are. False if there is no such run."""
        ...

    async def run(self, tenant: str, run_id: str) -> RunRow | None:
        """The run."""
        ...

    async def runs(self, tenant: str, thread_id: str, *, status: RunStatus | None = None) -> list[RunRow]:
        """The runs of a thread, oldest first."""
        ...

    async def delete_run(self, tenant: str, run_id: str) -> bool:
        """Delete a run and its events. False if there is none."""
        ...

    async def ask_to_cancel(self, tenant: str, run_id: str, reason: str) -> RunStatus | None:
        """Leave word for the owner of a run that it is to stop; a queued one is `cancelled` at once.

        The run's status afterwards, None if there is no such run. The first reason stands.
        """
        ...

    # -- events --------------------------------------------------------------------------------------------

    async def append(self, batch: Sequence[Append]) -> list[bool]:
        """Add to the logs of several runs in one transaction. For each: whether its writer still owns the run, the
        run is `running`, and its log is as long as `after` says. A refused one changes nothing, and does not keep the
        others from it. One that was committed before, and is the last that was, is acknowledged again: after a
        `StoreError` nobody knows, and may repeat it."""
        ...

    async def events(self, tenant: str, run_id: str, after: int, limit: int) -> list[bytes]:
        """The events of a run from its number `after` on. Raises `CorruptError`."""
        ...

    # -- ownership -----------------------------------------------------------------------------------------

    async def renew(self, owner: str, lease_ms: int) -> list[tuple[str, str, str]]:
        """Let the leases of an owner's running and queued runs last from now on. (tenant, run id, reason) of those
        that are to be stopped."""
        ...

    async def abandoned(self, limit: int) -> list[Abandoned]:
        """Running and queued runs whose lease is over, the longest first."""
        ...

    async def take_over(self, tenant: str, run: RunRow, owner: str, lease_ms: int) -> RunRow | None:
        """Become the owner of an abandoned run, with the next attempt; its status stays. None if somebody else was
        first."""
        ...

    # -- idempotency keys ----------------------------------------------------------------------------------

    async def claim(
        self, tenant: str, route: str, key: str, claim: Claim, *, now: int, expires_at: int, run_by: int | None = None
    ) -> Claim | None:
        """Take a key for a run. None if it is now taken for it; else who had it first, and has it still at `now`.

        From `run_by` on the key is free again where there is no such run, neither kept nor expired: whoever took it
        died before making one, or the run was deleted.
        """
        ...

    async def release(self, tenant: str, route: str, key: str, run_id: str) -> None:
        """Give a key back that was taken for a run which never began."""
        ...

    # -- documents -----------------------------------------------------------------------------------------

    async def put_document(self, tenant: str, document: Document, *, replace: bool = True) -> bool:
        """Keep a document, in the place of one of its kind and id. False, and nothing done, if there is one and it is
        not to be replaced. It stays until it is deleted."""
        ...

    async def document(self, tenant: str, kind: str, document_id: str) -> Document | None:
        """The document."""
        ...

    async def documents(self, tenant: str, kind: str, prefix: str = "") -> list[Document]:
        """All documents of a kind whose ids begin so, in the order in which they were first put."""
        ...

    async def delete_document(self, tenant: str, kind: str, document_id: str) -> bool:
        """False if there is none."""
        ...

    # -- upkeep --------------------------------------------------------------------------------------------

    async def expire(self, now: int, limit: int) -> int:
        """Delete up to `limit` runs that are over and whose time is, as many such threads without a run, and keys. How
        many runs went.

        The id of a deleted run is remembered as expired for as long again, from `now` on.
        """
        ...

    async def expiring(self, now: int, limit: int) -> list[tuple[str, str]]:
        """(tenant, `checkpoints`) of the runs that `expire` would delete."""
        ...

    async def refers(self, tenant: str, checkpoints: str) -> bool:
        """Whether a run has these `checkpoints`."""
        ...

    async def expired(self, tenant: str, run_id: str) -> bool:
        """Whether there was a run of that id that has expired, as opposed to one that never was or was deleted."""
        ...
