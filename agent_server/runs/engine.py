"""The engine: starts runs, lets them be read, cancels them. One task per run, owned here and nowhere else."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable, Mapping
from dataclasses import dataclass
from functools import partial
from typing import Any, Protocol

from agent_server.errors import OverloadedError
from agent_server.graph.drive import Fold, Invocation, Recorder, drive, fold_for
from agent_server.runs.execute import execute
from agent_server.runs.log import EventLog

CANCEL_GRACE = 1.0
"""Seconds that a cancelled agent gets to clean up before the run is ended without it."""


Drive = Callable[[Recorder], Awaitable[None]]
"""Runs an agent to its end; the recorder gets what it tells."""


class Watcher(Protocol):
    """Who sees a run from its beginning to its end, such as a trace of it."""

    def around(self, run: Drive, /) -> Drive:
        """What is run in its place, in the run's own task."""
        ...

    def ended(self, log: EventLog, /) -> None:
        """The run is over and its log is closed. Called once, on the event loop."""
        ...


@dataclass(frozen=True, slots=True, eq=False)
class Run:
    """A run and its log. Read `log`; everything else is the engine's."""

    id: str
    log: EventLog
    fold: Fold
    task: asyncio.Task[None]
    watcher: Watcher | None = None


class Engine:
    """Runs agents. `max_concurrent` bounds how many run at once."""

    def __init__(self, *, max_concurrent: int = 1000) -> None:
        self._max_concurrent = max_concurrent
        self._active: dict[str, Run] = {}

    def __len__(self) -> int:
        return len(self._active)

    def start(
        self,
        invocation: Invocation,
        *,
        model: str = "",
        echo: Mapping[str, Any] | None = None,
        watcher: Watcher | None = None,
    ) -> Run:
        """Accept a run: its log begins with `RunStarted`, its task begins with the loop's next step.

        Raises `OverloadedError` when as many runs as allowed are active.
        """
        if len(self._active) >= self._max_concurrent:
            raise OverloadedError("The server is running as many agents as it may. Try again later.")
        log = EventLog()
        fold = fold_for(invocation)
        log.append(invocation.started(model=model, echo=echo))
        driven: Drive = partial(drive, invocation)
        if watcher is not None:
            driven = watcher.around(driven)
        task = asyncio.create_task(execute(driven, fold, log), name=f"run {invocation.run_id}")
        run = Run(invocation.run_id, log, fold, task, watcher)
        self._active[run.id] = run
        task.add_done_callback(lambda task: self._ended(run, _reason(task)))
        return run

    async def cancel(self, run: Run, reason: str = "cancelled") -> None:
        """Stop a run. It is over when this returns: what its code may still do is not recorded."""
        run.task.cancel(reason)
        await asyncio.wait({run.task}, timeout=CANCEL_GRACE)
        self._ended(run, reason)

    async def aclose(self) -> None:
        """Cancel every run: the server is going down."""
        await asyncio.gather(*(self.cancel(run, "shutdown") for run in list(self._active.values())))

    def _ended(self, run: Run, reason: str) -> None:
        """Every run's log ends, even when its task was cancelled before it began or would not stop."""
        ended = self._active.pop(run.id, None) is not None
        if not run.log.closed:
            run.log.extend(run.fold.cancel(reason))
        if ended and run.watcher is not None:
            run.watcher.ended(run.log)


def _reason(task: asyncio.Task[None]) -> str:
    """Why a task was cancelled that never began, and so could not tell itself."""
    try:
        task.exception()
    except asyncio.CancelledError as cancelled:
        return str(cancelled.args[0]) if cancelled.args else "cancelled"
    return "cancelled"
