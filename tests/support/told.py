"""Stream events by hand: what LangChain tells of the runs of models, tools and nodes."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from functools import reduce
from operator import add
from typing import Any

from langchain_core.messages import AIMessageChunk, BaseMessage, message_chunk_to_message

from agent_server.events import Event
from tests.support.play import fixed_converter

Told = list[dict[str, Any]]


def event(
    kind: str,
    run: str,
    data: Mapping[str, Any],
    *,
    name: str = "",
    inside: Sequence[str] = ("root",),
    tags: Sequence[str] = (),
    metadata: Mapping[str, Any] | None = None,
) -> dict[str, Any]:
    """One stream event of the run `run`, which is inside of the runs `inside`, outermost first."""
    return {
        "event": kind,
        "run_id": run,
        "name": name or run,
        "data": dict(data),
        "parent_ids": list(inside),
        "tags": list(tags),
        "metadata": dict(metadata or {}),
    }


def model(
    *chunks: AIMessageChunk, run: str = "model", whole: BaseMessage | None = None, fails: bool = False, **more: Any
) -> Told:
    """A model call that streams these chunks. It ends with `whole`, or with their sum; or it fails."""
    told: Told = [event("on_chat_model_start", run, {"input": {}}, **more)]
    told += [event("on_chat_model_stream", run, {"chunk": chunk}, **more) for chunk in chunks]
    if fails:
        return [*told, event("on_chat_model_error", run, {}, **more)]
    if whole is None:
        whole = message_chunk_to_message(reduce(add, chunks))
    return [*told, event("on_chat_model_end", run, {"output": whole}, **more)]


def tool(name: str, output: Any, *, call_id: str | None = None, run: str = "tool", **more: Any) -> Told:
    """A tool's run that ends with `output`, or raises it."""
    kind, key = ("on_tool_error", "error") if isinstance(output, BaseException) else ("on_tool_end", "output")
    started = event("on_tool_start", run, {"input": {"a": 1}, "tool_call_id": call_id}, name=name, **more)
    return [started, event(kind, run, {key: output, "tool_call_id": call_id}, name=name, **more)]


def node(name: str, output: Any, *inner: Told, given: Any = None) -> Told:
    """A node of a graph, in which these runs happen one after the other."""
    more: dict[str, Any] = {
        "tags": ["graph:step:1"],
        "metadata": {"langgraph_node": name, "langgraph_checkpoint_ns": f"{name}:1"},
    }
    started = event("on_chain_start", name, {"input": given or {}}, **more)
    ended = event("on_chain_end", name, {"output": output}, **more)
    return [started, *(each for told in inner for each in told), ended]


def root(given: Any, output: Any, *inner: Told, chunks: Iterable[Any] = ()) -> Told:
    """The driven Runnable itself: its runs, then its own chunks, then its output."""
    yielded = [event("on_chain_stream", "root", {"chunk": chunk}, inside=()) for chunk in chunks]
    started = event("on_chain_start", "root", {"input": given}, inside=())
    ended = event("on_chain_end", "root", {"output": output}, inside=())
    return [started, *(each for told in inner for each in told), *yielded, ended]


def converted(*told: Told) -> list[Event]:
    """The events of a run that told this and ended by itself."""
    converter = fixed_converter()
    events = [made for each in told for one in each for made in converter.feed(one)]  # type: ignore[arg-type]
    return events + converter.finish()
