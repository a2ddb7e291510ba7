"""The tap for callers without an event loop: drives a graph synchronously, in the caller's own thread.

LangGraph runs the nodes in threads of its own. What their callbacks tell waits in a mailbox, which the caller's
thread empties each time the graph's stream yields; a letter into an empty mailbox makes it yield.
"""

from __future__ import annotations

import contextlib
import threading
from collections import deque
from collections.abc import Callable, Generator, Mapping
from typing import Any, cast

from langchain_core.runnables import Runnable, RunnableBinding, RunnableConfig, RunnableParallel, RunnableSequence
from langchain_core.tools import BaseTool
from langgraph.checkpoint.base import BaseCheckpointSaver
from langgraph.config import get_stream_writer
from langgraph.graph.state import CompiledStateGraph
from langgraph.prebuilt import ToolNode
from langgraph.pregel import Pregel

from agent_server.graph.converter import unpack
from agent_server.graph.source import Sink, Tap, with_handler

_WAKE = object()


def stream_from_tap(
    graph: Runnable[Any, Any], value: Any, config: RunnableConfig, sink: Sink, options: Mapping[str, Any]
) -> Generator[None]:
    """Drive a graph through `stream` with a callback handler; `options` go to it, `stream_mode` as a list.

    `sink` is called in the caller's thread alone, between one item of this generator and the next. Closing the
    generator stops the graph: its nodes end at their next callback or chunk, and then the generator returns.
    """
    mailbox = _Mailbox()
    tap = Tap(sink, mailbox, value, thread=None)
    wanted, nested = frozenset(options["stream_mode"]), options.get("subgraphs", False)
    modes = sorted({*wanted, "custom"})
    chunks = graph.stream(value, with_handler(config, tap), **{**options, "stream_mode": modes, "subgraphs": True})
    try:
        for chunk in chunks:
            ns, mode, data = unpack(chunk)
            if data is not _WAKE and mode in wanted and (nested or not ns):
                tap.root_chunk(chunk)
            mailbox.empty()
            yield
    except BaseException:
        tap.stopped = True
        cast("Generator[Any]", chunks).close()
        mailbox.empty()
        raise
    tap.finish()
    mailbox.empty()


class _Mailbox:
    """Calls that other threads asked for, in order; they are made by whoever empties it."""

    def __init__(self) -> None:
        self._calls: deque[tuple[Callable[..., object], tuple[Any, ...]]] = deque()
        self._owner = threading.get_ident()
        self._told = False

    def call_soon_threadsafe(self, callback: Callable[..., object], /, *args: Any) -> None:
        """Put a call in, and make the graph yield if it does not know of any yet."""
        self._calls.append((callback, args))
        if not self._told and threading.get_ident() != self._owner:
            with contextlib.suppress(RuntimeError):  # outside of a node; what the node does next will be told
                get_stream_writer()(_WAKE)
                self._told = True

    def empty(self) -> None:
        """Make the calls."""
        self._told = False
        while self._calls:
            callback, args = self._calls.popleft()
            callback(*args)


# Which graphs have a synchronous form


def has_sync_form(graph: Runnable[Any, Any]) -> bool:
    """Whether all that is known of a graph, subgraphs and tools and checkpointer included, can run without a loop.

    Read off its parts, as running it to see would repeat what it does. Hidden from this is what a node's code calls.
    """
    if isinstance(graph, RunnableBinding):
        return has_sync_form(graph.bound)
    if isinstance(graph, Pregel):
        return all(map(has_sync_form, _parts(graph))) and _saves_synchronously(graph.checkpointer)
    if isinstance(graph, ToolNode):
        return all(map(_tool_has_sync_form, graph.tools_by_name.values()))
    if isinstance(graph, RunnableParallel):
        return all(map(has_sync_form, graph.steps__.values()))
    if isinstance(graph, RunnableSequence) or type(graph).__name__ == "RunnableSeq":  # LangGraph's own
        return all(map(has_sync_form, graph.steps))  # type: ignore[attr-defined]
    # A function: LangChain leaves `func` out where there is only `afunc`, LangGraph makes it None.
    return getattr(graph, "func", None) is not None or not hasattr(graph, "afunc")


def _parts(graph: Pregel[Any, Any, Any, Any]) -> list[Runnable[Any, Any]]:
    parts = [part for node in graph.nodes.values() for part in (node.bound, *node.subgraphs) if part is not graph]
    if isinstance(graph, CompiledStateGraph):
        parts += [branch.path for branches in graph.builder.branches.values() for branch in branches.values()]
    return parts


def _tool_has_sync_form(tool: BaseTool) -> bool:
    return getattr(tool, "func", None) is not None or getattr(tool, "coroutine", None) is None


def _saves_synchronously(saver: Any) -> bool:
    return not isinstance(saver, BaseCheckpointSaver) or type(saver).get_tuple is not BaseCheckpointSaver.get_tuple
