"""Drives one run: a graph through the converter into the log. Holds the only broad `except` of the package."""

from __future__ import annotations

import asyncio
import logging
import traceback
from collections.abc import Awaitable, Callable

from agent_server import ids
from agent_server.events import Event
from agent_server.graph.converter import Converter
from agent_server.graph.drive import Recorder, failure_of
from agent_server.runs.log import EventLog

logger = logging.getLogger("agent_server.runs")


async def execute(run: Callable[[Recorder], Awaitable[None]], converter: Converter, log: EventLog) -> None:
    """Let an agent run to its end. The log then ends with exactly one terminal event, whatever happened."""

    try:
        await run(Recorder(converter, log.append))
    except asyncio.CancelledError as cancelled:
        log.extend(converter.cancel(str(cancelled.args[0]) if cancelled.args else "cancelled"))
    except Exception as error:
        log.extend(end_failed(error, converter))
    else:
        log.extend(converter.finish())


def end_failed(error: Exception, converter: Converter) -> list[Event]:
    """The events that end a run whose agent raised. The exception's text goes to the log alone."""
    failure = failure_of(error)
    if failure.incomplete is not None:
        return converter.finish(incomplete=failure.incomplete)
    error_id = ids.new_error_id()
    text = "".join(traceback.format_exception(error))
    logger.error("run %s failed, error id %s\n%s", converter.run_id, error_id, text)
    return converter.fail(code=failure.code, message=f"The agent failed. Error id: {error_id}", error_id=error_id)
