"""However an agent ends, its log ends with one terminal event."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable

import pytest
from langgraph.errors import GraphRecursionError

from agent_server import events as ev
from agent_server.errors import RequestError
from agent_server.events import Event
from agent_server.graph.drive import Recorder
from agent_server.runs.execute import execute
from agent_server.runs.log import EventLog
from tests.support.chunks import text
from tests.support.play import AT, fixed_converter
from tests.support.told import model


class RateLimited(Exception):
    """As the clients of providers raise it."""

    status_code = 429


class Unavailable(Exception):
    """As the clients of providers raise it."""

    status_code = 503


async def executed(run: Callable[[Recorder], Awaitable[None]]) -> list[Event]:
    log = EventLog()
    await execute(run, fixed_converter(), log)
    return log.read(0)


def raising(error: BaseException) -> Callable[[Recorder], Awaitable[None]]:
    async def run(recorder: Recorder) -> None:
        for told in model(*text("half"))[:-1]:
            recorder.feed(told)
        raise error

    return run


@pytest.mark.parametrize(
    ("error", "code"),
    [
        (ValueError("secret"), "server_error"),
        (ExceptionGroup("secret", [ValueError("secret")]), "server_error"),
        (RequestError("secret", param="x"), "server_error"),
        (TimeoutError(), "server_error"),
        (StopAsyncIteration(), "server_error"),
        (RateLimited("secret"), "rate_limit_exceeded"),
        (Unavailable("secret"), "server_error"),
    ],
)
async def test_an_exception_fails_the_run(error: Exception, code: str) -> None:
    *_, block, message, last = await executed(raising(error))
    assert block == ev.BlockFinished("m0", 0, "text", "half", complete=False)
    assert message == ev.MessageFinished("m0")
    assert isinstance(last, ev.RunFailed)
    assert last.code == code
    assert last.message == f"The agent failed. Error id: {last.error_id}"


async def test_a_recursion_limit_leaves_the_run_incomplete() -> None:
    last = (await executed(raising(GraphRecursionError("secret"))))[-1]
    assert last == ev.RunFinished(at=AT, incomplete="recursion_limit")


@pytest.mark.parametrize(
    ("error", "reason"), [(asyncio.CancelledError(), "cancelled"), (asyncio.CancelledError("gone"), "gone")]
)
async def test_a_cancellation_cancels_the_run(error: BaseException, reason: str) -> None:
    last = (await executed(raising(error)))[-1]
    assert last == ev.RunCancelled(at=AT, reason=reason)


async def test_an_agent_that_ends_by_itself_finishes_the_run() -> None:
    async def run(recorder: Recorder) -> None:
        for told in model(*text("whole")):
            recorder.feed(told)

    assert (await executed(run))[-1] == ev.RunFinished(at=AT)


async def test_chunks_take_the_short_way_once_their_message_is_open() -> None:
    async def run(recorder: Recorder) -> None:
        first, *told = model(*text("a", "b", "c"))
        assert recorder.chunks("model") is None
        recorder.feed(first)
        recorder.feed(told[0])
        take = recorder.chunks("model")
        assert take is not None
        for each in told[1:-1]:
            take(each["data"]["chunk"])
        recorder.feed(told[-1])

    deltas = [event.text for event in await executed(run) if isinstance(event, ev.TextDelta)]
    assert deltas == ["a", "b", "c"]
