"""Drives one run: an agent through its fold into the log. Holds the only broad `except` of the package."""

from __future__ import annotations

import asyncio
import logging
import traceback
from collections.abc import Awaitable, Callable, Generator, Iterator
from contextlib import closing, contextmanager

from agent_server import ids
from agent_server.errors import RunRefusedError
from agent_server.events import Event
from agent_server.graph.drive import Fold, Invocation, Recorder, drive_sync, failure_of
from agent_server.runs.log import EventLog

logger = logging.getLogger("agent_server.runs")


async def execute(run: Callable[[Recorder], Awaitable[None]], fold: Fold, log: EventLog) -> None:
    """Let an agent run to its end. The log then ends with exactly one terminal event, whatever happened."""
    with _ending(fold, log.extend):
        await run(Recorder(fold, log.append))


def execute_sync(invocation: Invocation, fold: Fold) -> Generator[list[Event]]:
    """The same in the caller's thread, for an agent that `can_drive_sync`; events come as soon as they are told.

    The last one is the terminal event. Closing the iterator stops the agent.
    """
    told: list[Event] = []
    with _ending(fold, told.extend), closing(drive_sync(invocation, Recorder(fold, told.append))) as steps:
        for _ in steps:
            if told:
                yield told.copy()
                told.clear()
    yield told


@contextmanager
def _ending(fold: Fold, extend: Callable[[list[Event]], object]) -> Iterator[None]:
    """However the block ends, a terminal event says so."""
    try:
        yield
        extend(fold.finish())
    except asyncio.CancelledError as cancelled:
        extend(fold.cancel(str(cancelled.args[0]) if cancelled.args else "cancelled"))
    except Exception as error:  # noqa: BLE001 - agents raise anything
        extend(end_failed(error, fold))


def end_failed(error: Exception, fold: Fold) -> list[Event]:
    """The events that end a run whose agent raised. The exception's text goes to the log alone."""
    if isinstance(error, RunRefusedError):
        return fold.fail(code=error.code, message=error.message, error_id=ids.new_error_id())
    failure = failure_of(error)
    if failure.incomplete is not None:
        return fold.finish(incomplete=failure.incomplete)
    error_id = ids.new_error_id()
    text = "".join(traceback.format_exception(error))
    logger.error("run %s failed, error id %s\n%s", fold.run_id, error_id, text)
    message = f"The agent failed. Error id: {error_id}"
    return fold.fail(code=failure.code, message=message, error_id=error_id, raised=error)
