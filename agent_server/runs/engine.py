"""The engine: starts runs, lets them be read, cancels them. One task per run, owned here and nowhere else."""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Awaitable, Callable, Coroutine, Mapping
from dataclasses import dataclass
from functools import partial
from typing import Any, Protocol, TypeVar

from agent_server.errors import OverloadedError, RequestError, RunRefusedError
from agent_server.events import RunStarted
from agent_server.graph.drive import Fold, Invocation, Recorder, drive, fold_for
from agent_server.runs.execute import execute
from agent_server.runs.keeper import Keeper, Keeping
from agent_server.runs.log import EventLog, KeptLog
from agent_server.runs.stores.port import TERMINAL_STATUSES, RunRow, StoreError

logger = logging.getLogger("agent_server.runs")

CANCEL_GRACE = 1.0
"""Seconds that a cancelled agent gets to clean up before the run is ended without it."""


T = TypeVar("T")
Drive = Callable[[Recorder], Awaitable[None]]
"""Runs an agent to its end; the recorder gets what it tells."""


Settle = Callable[[], Awaitable[Invocation]]
"""Tells what a run calls its agent with, when its turn has come."""


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
    """A run of this process and its log. Read `log`; everything else is the engine's."""

    id: str
    started: RunStarted
    log: EventLog
    fold: Fold
    task: asyncio.Task[None]
    watcher: Watcher | None = None
    tenant: str | None = None  # None for a run that is not kept


class Engine:
    """Runs agents. `max_concurrent` bounds how many run at once; `keeper` keeps those that are to be kept."""

    def __init__(self, *, max_concurrent: int = 1000, keeper: Keeper | None = None) -> None:
        self._max_concurrent = max_concurrent
        self._keeper = keeper
        self._active: dict[str, Run] = {}
        self._stopping: set[str] = set()
        self._tasks: set[asyncio.Task[Any]] = set()  # that begin and stop runs
        self._is_closing = False

    def __len__(self) -> int:
        return len(self._active)

    @property
    def keeper(self) -> Keeper:
        """Who keeps runs. Raises `RuntimeError` in an engine that keeps none."""
        if self._keeper is None:
            raise RuntimeError("this engine keeps no runs")
        return self._keeper

    async def open(self) -> None:
        """Open the store. It opens with the app's lifespan, or else with the first request."""
        if self._keeper is not None:
            await self._keeper.open(self._asked_to_cancel)

    async def aclose(self) -> None:
        """Cancel every run: the server is going down. Then close the store. No run is accepted any more."""
        self._is_closing = True
        if self._keeper is not None:
            self._keeper.hasten()
        if self._tasks:
            await asyncio.wait(self._tasks)
        await asyncio.gather(*(self.cancel(run, "shutdown") for run in list(self._active.values())))
        if self._keeper is not None:
            await self._keeper.aclose()

    def _task(self, work: Coroutine[Any, Any, T], name: str) -> asyncio.Task[T]:
        task = asyncio.create_task(work, name=name)
        self._tasks.add(task)
        task.add_done_callback(self._tasks.discard)
        return task

    # -- starting ------------------------------------------------------------------------------------------

    def start(
        self,
        invocation: Invocation,
        *,
        model: str = "",
        echo: Mapping[str, Any] | None = None,
        watcher: Watcher | None = None,
    ) -> Run:
        """Accept a run that is not kept: its log begins with `RunStarted`, its task with the loop's next step.

        Raises `OverloadedError` when as many runs as allowed are active.
        """
        self._check_room()
        started = invocation.started(model=model, echo=echo)
        log = EventLog()
        log.append(started)
        run = self._begin(invocation, partial(drive, invocation), started, log, watcher)
        run.task.add_done_callback(lambda _: self._ended(run))
        return run

    async def keep(
        self,
        invocation: Invocation,
        keeping: Keeping,
        *,
        model: str = "",
        echo: Mapping[str, Any] | None = None,
        watcher: Watcher | None = None,
        settle: Settle | None = None,
    ) -> Run:
        """Accept a run that is kept: it is committed when this returns, and goes on whoever leaves.

        `settle` is asked for the invocation once more when the run's turn has come, and nobody else can change its
        thread: what it goes on from may be another run by then. It may refuse with `RequestError`.
        Raises `OverloadedError` as `start` does, and `ConflictError` when its thread is busy and it is not to wait.
        """
        self._check_room()
        started = invocation.started(thread_id=keeping.thread_id, model=model, echo=echo)
        accepted = self._task(self._accept(invocation, keeping, started, watcher, settle), f"accept {started.run_id}")
        return await asyncio.shield(accepted)  # half accepted, it would hold its thread for ever

    async def _accept(
        self,
        invocation: Invocation,
        keeping: Keeping,
        started: RunStarted,
        watcher: Watcher | None,
        settle: Settle | None,
    ) -> Run:
        row = await self.keeper.admit(started, keeping)
        log = self.keeper.log(keeping.tenant, row, started, lambda: self._ended(run))
        turn = None
        if row.status == "queued":
            turn = partial(self._turn, keeping, row, log, started)
        driven = partial(drive, invocation) if settle is None else partial(_settled, settle)
        run = self._begin(invocation, driven, started, log, watcher, keeping.tenant, turn)
        return run

    def _check_room(self) -> None:
        if self._is_closing:
            raise OverloadedError("The server is shutting down.")
        if len(self._active) + len(self._tasks) >= self._max_concurrent:
            raise OverloadedError("The server is running as many agents as it may. Try again later.")

    def _begin(
        self,
        invocation: Invocation,
        driven: Drive,
        started: RunStarted,
        log: EventLog,
        watcher: Watcher | None,
        tenant: str | None = None,
        turn: Callable[[], Awaitable[None]] | None = None,
    ) -> Run:
        fold = fold_for(invocation)
        if watcher is not None:
            driven = watcher.around(driven)

        work = execute(driven, fold, log) if turn is None else _in_turn(turn, driven, fold, log)
        task = asyncio.create_task(work, name=f"run {invocation.run_id}")
        run = Run(invocation.run_id, started, log, fold, task, watcher, tenant)
        self._active[run.id] = run
        task.add_done_callback(lambda task: self._close(run, _reason(task)))
        return run

    # -- waiting in line -----------------------------------------------------------------------------------

    async def _turn(self, keeping: Keeping, row: RunRow, log: EventLog, started: RunStarted) -> None:
        """Wait for the thread."""
        await self.keeper.until_time(keeping)
        while True:
            try:
                if keeping.busy in ("interrupt", "rollback"):
                    await self._clear_way(keeping, row.id)
                if await self.keeper.begins(keeping.tenant, row, log):
                    break
            except StoreError as error:
                logger.warning("the store is away: %s", error.message)
            await self.keeper.until_freed()
        log.append(started)

    async def _clear_way(self, keeping: Keeping, run_id: str) -> None:
        """Cancel what is before a run on its thread; a run that is rolled back is deleted, too."""
        for row in await self.keeper.store.runs(keeping.tenant, keeping.thread_id):
            if row.id == run_id:
                return
            if row.status in TERMINAL_STATUSES:
                continue
            ended = await self.cancel_run(keeping.tenant, row.id, keeping.busy)
            if ended is not None and ended.status == "cancelled" and keeping.busy == "rollback":
                await self.keeper.delete_run(keeping.tenant, ended)

    # -- reading -------------------------------------------------------------------------------------------

    async def find(self, tenant: str, run_id: str) -> tuple[RunRow, EventLog] | None:
        """A run that is kept, with its log. Raises `GoneError` for one that has expired."""
        row = await self.keeper.row(tenant, run_id)
        if row is None:
            return None
        run = self._active.get(run_id)
        if run is not None and run.tenant == tenant:
            return row, run.log
        return row, await self.keeper.read(tenant, row)

    # -- ending --------------------------------------------------------------------------------------------

    async def cancel(self, run: Run, reason: str = "cancelled") -> None:
        """Stop a run. It is over when this returns: what its code may still do is not recorded."""
        if run.id not in self._stopping:  # an agent that is cleaning up is not to be stopped at it
            self._stopping.add(run.id)
            run.task.cancel(reason)
        await asyncio.wait({run.task}, timeout=CANCEL_GRACE)
        self._close(run, reason)
        await run.log.until_over()
        self._ended(run)

    async def cancel_run(self, tenant: str, run_id: str, reason: str = "cancelled") -> RunRow | None:
        """Stop a run that is kept, wherever it runs. Its row when it is over; None if there is no such run."""
        run = self._active.get(run_id)
        if run is not None and run.tenant == tenant:
            await self.cancel(run, reason)
            return await self.keeper.row(tenant, run_id)
        await self.keeper.store.ask_to_cancel(tenant, run_id, reason)
        found = await self.find(tenant, run_id)
        if found is None:
            return None
        row, log = found
        if row.status in TERMINAL_STATUSES:
            return row
        await log.until_over()
        return await self.keeper.row(tenant, run_id)

    def _asked_to_cancel(self, run_id: str, reason: str) -> None:
        run = self._active.get(run_id)
        if run is not None and run_id not in self._stopping:
            self._task(self.cancel(run, reason), f"cancel {run_id}")

    def _close(self, run: Run, reason: str) -> None:
        """Every run's log ends, even when its task was cancelled before it began or would not stop."""
        if run.log.closed:
            return
        if isinstance(run.log, KeptLog) and run.tenant is not None and not len(run.log):
            self.keeper.withdraw(run.tenant, run.started, run.log, run.fold.cancel(reason), reason)
        else:
            run.log.extend(run.fold.cancel(reason))

    def _ended(self, run: Run) -> None:
        self._stopping.discard(run.id)
        if self._active.pop(run.id, None) is not None:
            run.task.cancel()  # does nothing where it ended by itself
            if run.watcher is not None:
                run.watcher.ended(run.log)


async def _in_turn(turn: Callable[[], Awaitable[None]], driven: Drive, fold: Fold, log: EventLog) -> None:
    await turn()
    await execute(driven, fold, log)


async def _settled(settle: Settle, recorder: Recorder) -> None:
    try:
        invocation = await settle()
    except RequestError as error:
        raise RunRefusedError(error.message, code=error.code) from error
    await drive(invocation, recorder)


def _reason(task: asyncio.Task[None]) -> str:
    """Why a task was cancelled that never began, and so could not tell itself."""
    try:
        task.exception()
    except asyncio.CancelledError as cancelled:
        return str(cancelled.args[0]) if cancelled.args else "cancelled"
    return "cancelled"
