"""Where stream events come from.

Both sources drive a Runnable once and hand its stream events, in order and on the event loop, to a sink:

- `from_tap` asks LangChain's callbacks directly, as LangGraph's own `messages` stream mode does. It yields the
  events of `astream_events` that `Converter` reads, and tells the `tool_call_id` when a tool starts.
- `from_astream_events` is LangChain's public interface, the slower fallback.
"""

from __future__ import annotations

import asyncio
import threading
from collections.abc import AsyncIterator, Awaitable, Callable, Iterator, Mapping
from contextlib import contextmanager
from typing import Any, Literal, Protocol, Self, cast
from uuid import UUID

from langchain_core.callbacks import BaseCallbackHandler, BaseCallbackManager
from langchain_core.messages import AIMessageChunk
from langchain_core.outputs import GenerationChunk
from langchain_core.runnables import Runnable, RunnableConfig, RunnableGenerator
from langchain_core.runnables.config import var_child_runnable_config
from langchain_core.runnables.schema import StreamEvent
from langchain_core.tracers._streaming import _StreamingCallbackHandler


class Sink(Protocol):
    """Who takes the stream events. Called on the event loop only."""

    def feed(self, event: StreamEvent) -> None:
        """One stream event."""
        ...

    def chunks(self, model_run_id: str) -> Callable[[Any], None] | None:
        """Who takes the chunks of a model call without events around them; None before its first event."""
        ...


Source = Callable[[Runnable[Any, Any], Any, RunnableConfig, Sink, Mapping[str, Any]], Awaitable[None]]
SourceName = Literal["tap", "astream_events"]


async def from_astream_events(
    runnable: Runnable[Any, Any], value: Any, config: RunnableConfig, sink: Sink, options: Mapping[str, Any]
) -> None:
    """Drive `runnable` through `astream_events(version="v2")`. `options` go to its `astream`."""
    limit = (getattr(runnable, "config", None) or {}).get("recursion_limit")
    if limit is not None:  # else LangChain's default would be put in its place
        config = cast("RunnableConfig", {"recursion_limit": limit, **config})
    events = runnable.astream_events(value, config, version="v2", **options)
    try:
        async for event in events:
            sink.feed(event)
    finally:
        await cast("Any", events).aclose()


async def from_tap(
    runnable: Runnable[Any, Any], value: Any, config: RunnableConfig, sink: Sink, options: Mapping[str, Any]
) -> None:
    """Drive `runnable` through `astream` with a callback handler. `options` go to its `astream`.

    A Runnable that is synchronous only is iterated in a worker thread. When the driving task is cancelled,
    code that still runs in a thread is stopped at its next callback or chunk.
    """
    tap = Tap(sink, asyncio.get_running_loop(), value, thread=threading.get_ident())
    config = with_handler(config, tap)
    try:
        if _is_synchronous(runnable):
            await asyncio.to_thread(_drain, runnable, value, config, tap)
        else:
            async for chunk in runnable.astream(value, config, **options):
                tap.root_chunk(chunk)
    except BaseException:
        tap.stopped = True
        raise
    tap.finish()


SOURCES: dict[SourceName, Source] = {"tap": from_tap, "astream_events": from_astream_events}


def _drain(runnable: Runnable[Any, Any], value: Any, config: RunnableConfig, tap: Tap) -> None:
    for chunk in runnable.stream(value, config):
        tap.root_chunk(chunk)


def _is_synchronous(runnable: Runnable[Any, Any]) -> bool:
    kind = type(runnable)
    if isinstance(runnable, RunnableGenerator):
        return not hasattr(runnable, "_atransform")
    return kind.astream is Runnable.astream and kind.ainvoke is Runnable.ainvoke


def with_handler(config: RunnableConfig, handler: BaseCallbackHandler) -> RunnableConfig:
    """The config with one more callback handler."""
    callbacks = config.get("callbacks")
    if isinstance(callbacks, BaseCallbackManager):
        callbacks = callbacks.copy()
        callbacks.add_handler(handler, inherit=True)
    else:
        callbacks = [*(callbacks or ()), handler]
    return cast("RunnableConfig", {**config, "callbacks": callbacks})


_TOLD_APART = frozenset({"chat_model", "llm", "tool"})
"""Kinds of runs with callbacks of their own; a chain that calls itself one of them tells nothing."""


class _Run:
    """A run of LangChain's, as its callbacks told of its start."""

    __slots__ = ("base", "kind", "take")

    def __init__(self, kind: str, base: dict[str, Any]) -> None:
        self.kind = kind
        self.base = base  # what all its stream events share
        self.take: Callable[[Any], None] | None = None


class Scheduler(Protocol):
    """Who calls functions later, in order, where the sink lives: an event loop, or a mailbox."""

    def call_soon_threadsafe(self, callback: Callable[..., object], /, *args: Any) -> object:
        """Call it soon, with these arguments."""
        ...


class Listener(BaseCallbackHandler):
    """Turns callbacks into stream events.

    Callbacks on `thread` reach the sink at once, all others by way of `scheduler`. `value` is the input that the
    driven Runnable gets. Once `stopped`, callbacks on other threads raise, which ends the code that makes them.
    """

    run_inline = True
    ignore_retry = True

    def __init__(self, sink: Sink, scheduler: Scheduler, value: Any, *, thread: int | None) -> None:
        self._sink = sink
        self._scheduler = scheduler
        self._input = value
        self._thread = thread
        self._runs: dict[UUID, _Run] = {}
        self._parents: dict[UUID, UUID | None] = {}
        self._tool_calls: dict[UUID, str | None] = {}
        self._root: _Run | None = None
        self._silent = False  # the driven Runnable calls no callbacks
        self._last_chunk: Any = None
        self.stopped = False

    def __copy__(self) -> Self:
        return self

    def __deepcopy__(self, memo: dict[int, Any]) -> Self:
        return self

    def _send(self, base: dict[str, Any], name: str, data: Any) -> None:
        self._call(self._sink.feed, cast("StreamEvent", {**base, "event": name, "data": data}))

    def _call(self, function: Callable[..., object], *args: Any) -> None:
        if threading.get_ident() == self._thread:
            function(*args)
            return
        if self.stopped:  # the only way to stop a thread is from inside it
            raise asyncio.CancelledError
        self._scheduler.call_soon_threadsafe(function, *args)

    def _start(
        self, kind: str, serialized: Any, run_id: UUID, parent_run_id: UUID | None, kwargs: dict[str, Any]
    ) -> _Run:
        self._parents[run_id] = parent_run_id
        base = {
            "run_id": str(run_id),
            "name": _name(kwargs.get("name"), serialized),
            "tags": kwargs.get("tags") or [],
            "metadata": kwargs.get("metadata") or {},
            "parent_ids": self._ancestors(run_id),
        }
        run = self._runs[run_id] = _Run(kind, base)
        if parent_run_id is None and self._root is None and kind != "retriever":
            self._root = run
        return run

    def _ancestors(self, run_id: UUID) -> list[str]:
        found = []
        parent = self._parents.get(run_id)
        while parent is not None:
            found.append(str(parent))
            parent = self._parents.get(parent)
        return found[::-1]

    # -- the root's own chunks -----------------------------------------------------------------------------

    def root_chunk(self, chunk: Any) -> None:
        """A chunk that the driven Runnable itself yielded. It may be all that it tells of itself."""
        if self._root is None:
            base = {"run_id": "root", "name": "root", "tags": [], "metadata": {}, "parent_ids": []}
            self._root = _Run("chain", base)
            self._silent = True
            self._send(base, "on_chain_start", {"input": self._input})
        if self._root.kind == "chain":
            self._send(self._root.base, "on_chain_stream", {"chunk": chunk})
        self._last_chunk = chunk

    def finish(self) -> None:
        """The driven Runnable ended by itself."""
        if self._silent and self._root is not None:
            self._send(self._root.base, "on_chain_end", {"output": self._last_chunk})

    # -- callbacks -----------------------------------------------------------------------------------------

    def on_chat_model_start(
        self,
        serialized: Any,
        messages: Any,
        *,
        run_id: UUID,
        parent_run_id: UUID | None = None,
        **kwargs: Any,
    ) -> None:
        run = self._start("chat_model", serialized, run_id, parent_run_id, kwargs)
        params = kwargs.get("invocation_params")
        self._send(run.base, "on_chat_model_start", {"input": {"messages": messages}, "params": params})

    def on_llm_start(
        self, serialized: Any, prompts: Any, *, run_id: UUID, parent_run_id: UUID | None = None, **kwargs: Any
    ) -> None:
        run = self._start("llm", serialized, run_id, parent_run_id, kwargs)
        params = kwargs.get("invocation_params")
        self._send(run.base, "on_llm_start", {"input": {"prompts": prompts}, "params": params})

    def on_llm_new_token(self, token: Any, *, chunk: Any = None, run_id: UUID, **kwargs: Any) -> None:
        run = self._runs[run_id]
        if run.kind != "chat_model":
            self._send(run.base, "on_llm_stream", {"chunk": chunk or GenerationChunk(text=str(token))})
            return
        message = chunk.message if chunk is not None else AIMessageChunk(content=token)
        if run.take is not None and threading.get_ident() == self._thread:
            run.take(message)
            return
        self._call(self._chunk, run, message)

    def _chunk(self, run: _Run, message: Any) -> None:
        """A chunk that has come to where the sink lives: the first one as an event, the others the short way."""
        if run.take is not None:
            run.take(message)
            return
        self._sink.feed(cast("StreamEvent", {**run.base, "event": "on_chat_model_stream", "data": {"chunk": message}}))
        run.take = self._sink.chunks(run.base["run_id"])

    def on_llm_end(self, response: Any, *, run_id: UUID, **kwargs: Any) -> None:
        run = self._runs.pop(run_id)
        generations = response.generations
        if run.kind == "chat_model":
            message = next((generation[0].message for generation in generations if generation), None)
            self._send(run.base, "on_chat_model_end", {"output": message})
        else:
            texts = [[{"text": generation.text} for generation in row] for row in generations]
            self._send(run.base, "on_llm_end", {"output": {"generations": texts}})

    def on_llm_error(self, error: BaseException, *, run_id: UUID, **kwargs: Any) -> None:
        run = self._runs.pop(run_id, None)
        if run is not None and not self.stopped:
            self._send(run.base, "on_chat_model_error", {"error": error})

    def on_chain_start(
        self, serialized: Any, inputs: Any, *, run_id: UUID, parent_run_id: UUID | None = None, **kwargs: Any
    ) -> None:
        run = self._start(kwargs.get("run_type") or "chain", serialized, run_id, parent_run_id, kwargs)
        whole = self._input if run is self._root else inputs  # a root that takes a stream tells no input
        if run.kind not in _TOLD_APART:
            self._send(run.base, f"on_{run.kind}_start", {"input": whole})

    def on_chain_end(self, outputs: Any, *, run_id: UUID, inputs: Any = None, **kwargs: Any) -> None:
        run = self._runs.pop(run_id)
        if run.kind not in _TOLD_APART:
            self._send(run.base, f"on_{run.kind}_end", {"output": outputs, "input": inputs})

    def on_chain_error(self, error: BaseException, *, run_id: UUID, **kwargs: Any) -> None:
        run = self._runs.pop(run_id, None)
        if run is not None and run.kind not in _TOLD_APART and not self.stopped:
            self._send(run.base, f"on_{run.kind}_error", {"error": error})

    def on_tool_start(
        self,
        serialized: Any,
        input_str: str,
        *,
        run_id: UUID,
        parent_run_id: UUID | None = None,
        **kwargs: Any,
    ) -> None:
        run = self._start("tool", serialized, run_id, parent_run_id, kwargs)
        self._tool_calls[run_id] = kwargs.get("tool_call_id")
        data = {"input": kwargs.get("inputs") or {}, "tool_call_id": self._tool_calls[run_id]}
        self._send(run.base, "on_tool_start", data)

    def on_tool_end(self, output: Any, *, run_id: UUID, **kwargs: Any) -> None:
        data = {"output": output, "tool_call_id": self._tool_calls.pop(run_id, None)}
        self._send(self._runs.pop(run_id).base, "on_tool_end", data)

    def on_tool_error(self, error: BaseException, *, run_id: UUID, **kwargs: Any) -> None:
        run = self._runs.pop(run_id, None)
        if run is not None:
            data = {"error": error, "tool_call_id": self._tool_calls.pop(run_id, None)}
            self._send(run.base, "on_tool_error", data)

    def on_retriever_start(
        self, serialized: Any, query: str, *, run_id: UUID, parent_run_id: UUID | None = None, **kwargs: Any
    ) -> None:
        run = self._start("retriever", serialized, run_id, parent_run_id, kwargs)
        self._send(run.base, "on_retriever_start", {"input": {"query": query}})

    def on_retriever_end(self, documents: Any, *, run_id: UUID, **kwargs: Any) -> None:
        self._send(self._runs.pop(run_id).base, "on_retriever_end", {"output": documents})

    def on_retriever_error(self, error: BaseException, *, run_id: UUID, **kwargs: Any) -> None:
        run = self._runs.pop(run_id, None)
        if run is not None and not self.stopped:
            self._send(run.base, "on_retriever_error", {"error": error})

    def on_custom_event(self, name: str, data: Any, *, run_id: UUID, **kwargs: Any) -> None:
        base = {
            "run_id": str(run_id),
            "name": name,
            "tags": kwargs.get("tags") or [],
            "metadata": kwargs.get("metadata") or {},
            "parent_ids": self._ancestors(run_id),
        }
        self._send(base, "on_custom_event", data)


class Tap(Listener, _StreamingCallbackHandler[Any]):
    """The listener that a run is driven with. Its mixin makes chat models stream even when they are invoked."""

    raise_error = True

    def tap_output_aiter(self, run_id: UUID, output: AsyncIterator[Any]) -> AsyncIterator[Any]:
        return output

    def tap_output_iter(self, run_id: UUID, output: Iterator[Any]) -> Iterator[Any]:
        return output


@contextmanager
def overhearing(sink: Sink) -> Iterator[None]:
    """Inside, the sink gets the stream events of whatever runs of LangChain's the code begins, on the event loop.

    For code that is not driven here: nothing about its runs is changed.
    """
    listener = Listener(sink, asyncio.get_running_loop(), None, thread=threading.get_ident())
    token = var_child_runnable_config.set({"callbacks": [listener]})
    try:
        yield
    finally:
        var_child_runnable_config.reset(token)


def _name(name: str | None, serialized: Any) -> str:
    if name is not None:
        return name
    serialized = serialized or {}
    return str(serialized.get("name") or (serialized.get("id") or ["Unnamed"])[-1])
