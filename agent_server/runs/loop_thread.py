"""An event loop for callers that have none."""

from __future__ import annotations

import asyncio
import threading
import weakref
from collections.abc import AsyncGenerator, Coroutine, Generator
from contextlib import AbstractAsyncContextManager
from typing import Any, TypeVar, cast

T = TypeVar("T")


class LoopThread:
    """An event loop in a thread of its own, for the coroutines of synchronous callers.

    They run in copies of the callers' contexts. It ends when it is closed, or no longer referred to.
    """

    def __init__(self) -> None:
        self._loop = asyncio.new_event_loop()
        self._closing = asyncio.Event()
        self._holders: set[asyncio.Task[None]] = set()
        thread = threading.Thread(target=_run_loop, args=(self._loop,), name="agent-model", daemon=True)
        thread.start()
        self.close = weakref.finalize(self, _end_loop, self._loop, thread, self._closing, self._holders)

    def run(self, coroutine: Coroutine[Any, Any, T]) -> T:
        """What a coroutine returns or raises."""
        future = asyncio.run_coroutine_threadsafe(coroutine, self._loop)
        try:
            return future.result()
        except BaseException:
            future.cancel()
            raise

    def iterate(self, items: AsyncGenerator[T]) -> Generator[T]:
        """The items one by one, each asked for when the one before it has been taken."""
        asked: set[asyncio.Task[Any]] = set()  # what still runs when its caller was interrupted
        try:
            while (item := self.run(_next(items, asked))) is not None:
                yield item
        finally:
            self.run(_close(items, asked))

    def enter(self, context: AbstractAsyncContextManager[T]) -> T:
        """Enter a context, to be left when this closes, by the same task that entered it."""
        return self.run(_enter(context, self._closing, self._holders))


async def _next(items: AsyncGenerator[T], asked: set[asyncio.Task[Any]]) -> T | None:
    task = cast("asyncio.Task[Any]", asyncio.current_task())
    asked.add(task)
    try:
        return await anext(items, None)
    finally:
        asked.discard(task)


async def _close(items: AsyncGenerator[T], asked: set[asyncio.Task[Any]]) -> None:
    if asked:
        for task in asked:
            if not task.cancelling():
                task.cancel()
        await asyncio.wait(asked)
    await items.aclose()


async def _enter(
    context: AbstractAsyncContextManager[T], closing: asyncio.Event, holders: set[asyncio.Task[None]]
) -> T:
    entered: asyncio.Future[T] = asyncio.get_running_loop().create_future()

    async def hold() -> None:
        async with context as value:
            entered.set_result(value)
            await closing.wait()

    holder = asyncio.create_task(hold())
    holder.add_done_callback(lambda _: entered.cancel())  # does nothing to a future with a result
    try:
        value = await entered
    except asyncio.CancelledError:
        holder.cancel()
        await holder  # raises what the context raised
        raise
    holders.add(holder)
    return value


def _run_loop(loop: asyncio.AbstractEventLoop) -> None:
    asyncio.set_event_loop(loop)
    try:
        loop.run_forever()
    finally:
        loop.close()


def _end_loop(
    loop: asyncio.AbstractEventLoop,
    thread: threading.Thread,
    closing: asyncio.Event,
    holders: set[asyncio.Task[None]],
) -> None:
    async def end() -> None:
        closing.set()
        if holders:
            await asyncio.wait(holders)
        await loop.shutdown_asyncgens()
        await loop.shutdown_default_executor()
        loop.stop()

    asyncio.run_coroutine_threadsafe(end(), loop)
    if thread is not threading.current_thread():  # a collector's turn may come on any thread
        thread.join()
