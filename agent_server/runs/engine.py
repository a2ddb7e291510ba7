"""The engine: starts runs, lets them be read, cancels them. One task per run, owned here and nowhere else."""

from __future__ import annotations

import asyncio
from collections.abc import Mapping
from dataclasses import dataclass
from functools import partial
from typing import Any

from agent_server.errors import OverloadedError
from agent_server.events import RunStarted
from agent_server.graph.converter import Converter, now_ms
from agent_server.graph.drive import Invocation, drive
from agent_server.runs.execute import execute
from agent_server.runs.log import EventLog

CANCEL_GRACE = 1.0
"""Seconds that a cancelled agent gets to clean up before the run is ended without it."""


@dataclass(frozen=True, slots=True, eq=False)
class Run:
    """A run and its log. Read `log`; everything else is the engine's."""

    id: str
    log: EventLog
    converter: Converter
    task: asyncio.Task[None]


class Engine:
    """Runs agents. `max_concurrent` bounds how many run at once."""

    def __init__(self, *, max_concurrent: int = 1000) -> None:
        self._max_concurrent = max_concurrent
        self._active: dict[str, Run] = {}

    def __len__(self) -> int:
        return len(self._active)

    def start(self, invocation: Invocation, *, model: str = "", echo: Mapping[str, Any] | None = None) -> Run:
        """Accept a run: its log begins with `RunStarted`, its task begins with the loop's next step.

        Raises `OverloadedError` when as many runs as allowed are active.
        """
        if len(self._active) >= self._max_concurrent:
            raise OverloadedError("The server is running as many agents as it may. Try again later.")
        log = EventLog()
        converter = Converter(invocation.run_id)
        started = RunStarted(
            run_id=invocation.run_id,
            agent=invocation.agent.name,
            at=now_ms(),
            model=model,
            client_tools=tuple(str(tool["name"]) for tool in invocation.context.options.tools),
            echo=dict(echo or {}),
        )
        log.append(started)
        task = asyncio.create_task(execute(partial(drive, invocation), converter, log), name=f"run {invocation.run_id}")
        run = Run(invocation.run_id, log, converter, task)
        self._active[run.id] = run
        task.add_done_callback(lambda _: self._ended(run))
        return run

    async def cancel(self, run: Run, reason: str = "cancelled") -> None:
        """Stop a run. It is over when this returns: what its code may still do is not recorded."""
        run.task.cancel(reason)
        await asyncio.wait({run.task}, timeout=CANCEL_GRACE)
        self._ended(run, reason)

    async def aclose(self) -> None:
        """Cancel every run: the server is going down."""
        await asyncio.gather(*(self.cancel(run, "shutdown") for run in list(self._active.values())))

    def _ended(self, run: Run, reason: str = "cancelled") -> None:
        """Every run's log ends, even when its task was cancelled before it began or would not stop."""
        self._active.pop(run.id, None)
        if not run.log.closed:
            run.log.extend(run.converter.cancel(reason))
