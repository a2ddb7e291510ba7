"""What the kit stores."""

from __future__ import annotations

from typing import Any

from agent_server.runs.stores.port import Append, RunRow, RunStatus, Store

LEASE = 3_600_000
"""Longer than any test."""
OVER = 0
"""A lease that is over as soon as it is given."""


def row(run_id: str = "r1", thread_id: str = "t1", status: RunStatus = "running", **more: Any) -> RunRow:
    """A run of `me`, accepted at 1000."""
    return RunRow(run_id, thread_id, "agent", status, **{"created_at": 1000, "owner": "me", **more})


def add(*events: bytes, run_id: str = "r1", **more: Any) -> Append:
    """Events that `me` appends to the beginning of a run of `us`."""
    return Append(
        **{"tenant": "us", "run_id": run_id, "owner": "me", "attempt": 1, "after": 0, "events": events, **more}
    )


async def created(store: Store, run: RunRow, lease_ms: int = LEASE) -> RunRow:
    """A run of `us` that could be created."""
    made = await store.create_run("us", run, lease_ms)
    assert made is not None
    return made


async def log(store: Store, run_id: str = "r1") -> list[bytes]:
    """All events of a run of `us`."""
    return await store.events("us", run_id, 0, 1_000_000)
