"""What a run's log holds beside messages and tools, for runs that were asked to record it.

| name | what is recorded |
|---|---|
| `values` `updates` `debug` `tasks` `checkpoints` `custom` | what LangGraph streams in that mode |
| `checkpoint_refs` | of a checkpoint only where it stands, told right before the values that it holds |
| `subgraphs` | those modes of subgraphs, too |
| `messages` | messages and tools as LangGraph's mode `messages` tells of them: with ids and all their metadata |
| `events` | every stream event of LangChain's |
| `errors` | what the agent raised, where that is an exception whose text is meant to be read |

Identity and the server's own places never get into a log: of a config only the checkpoint it names is kept.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from agent_server.events import Event, RawEvent, StatePart
from agent_server.graph.jsonable import to_jsonable, to_unicode

_MODES = frozenset({"values", "updates", "debug", "tasks", "checkpoints"})
_READABLE = {ValueError, TypeError, KeyError, AttributeError, RuntimeError, RecursionError, TimeoutError}
_PLACE = ("checkpoint_ns", "checkpoint_id", "checkpoint_map")
_OWN = frozenset({"thread_id", "request", "checkpoint_id"})
"""Keys of a run's metadata that LangGraph copies from its config, and that mean nothing to a client."""


def modes_of(record: frozenset[str]) -> frozenset[str]:
    """The stream modes that a graph must be driven with."""
    refs = {"checkpoints"} if "checkpoint_refs" in record else set()
    return frozenset((record & (_MODES | {"custom"})) | refs)


class Recording:
    """What one run records, as far as it is more than messages and tools."""

    __slots__ = ("_held", "_late", "_modes", "_nested", "_pairs", "errors", "messages", "raw")

    def __init__(self, record: frozenset[str] = frozenset()) -> None:
        self.messages = "messages" in record
        self.errors = "errors" in record
        self.raw = "events" in record
        self._modes = record & _MODES
        self._nested = "subgraphs" in record
        self._pairs = "checkpoint_refs" in record
        self._held: list[Event] = []
        self._late: list[Event] = []

    def part(self, ns: tuple[str, ...], mode: str, chunk: Any) -> list[Event]:
        """The events for a chunk of a graph's stream. Values wait for the checkpoint that is told next."""
        events: list[Event] = []
        if mode == "updates":
            events, self._late = self._late, []
        if ns and not self._nested:
            return events
        if mode == "checkpoints" and self._pairs:
            events.append(StatePart("checkpoint_refs", _reference(chunk), ns))
        events += self.values()
        if mode in self._modes:
            part = StatePart(mode, _rendered(mode, chunk), ns)
            waits = mode == "values" and self._pairs and "__interrupt__" not in part.data
            (self._held if waits else events).append(part)
        return events

    def with_its_update(self, events: list[Event]) -> None:
        """What a node returned is told with its update, after all that the node wrote before."""
        self._late += events

    @property
    def holds(self) -> bool:
        """Whether something waits to be told."""
        return bool(self._held or self._late)

    def values(self) -> list[Event]:
        """The values that waited."""
        held, self._held = self._held, []
        return held

    def release(self) -> list[Event]:
        """All that waited, now that something else is told."""
        late, self._late = self._late, []
        return [*self.values(), *late]


def raw_event(event: Any) -> RawEvent | None:
    """A stream event of LangChain's as it is recorded; None for what the graph's own stream modes tell."""
    if event["event"] == "on_chain_stream" and not event.get("parent_ids"):
        return None
    return RawEvent(to_jsonable({**event, "metadata": public_metadata(event.get("metadata") or {})}))


def public_metadata(metadata: Mapping[str, Any]) -> dict[str, Any]:
    """The metadata of a run of LangChain's without what is the server's own."""
    shown = {key: value for key, value in metadata.items() if key not in _OWN and not key.startswith("__")}
    return dict(to_jsonable(shown))


def message_metadata(event: Any) -> dict[str, Any]:
    """The metadata that LangGraph gives along with a message."""
    metadata = public_metadata(event.get("metadata") or {})
    tags = [tag for tag in event.get("tags") or () if not tag.startswith(("seq:step", "graph:step"))]
    return {**metadata, "tags": tags} if tags else metadata


def told_of(raised: BaseException | None) -> tuple[str, str]:
    """(the exception's type, its text) as a client may be shown them.

    Texts of other exceptions than these are nobody's but the operator's: they may hold anything.
    """
    if raised is None:
        return "", ""
    kind = type(raised)
    readable = kind in _READABLE or kind.__module__.startswith("langgraph.")
    return kind.__name__, to_unicode(str(raised)) if readable else ""


def _rendered(mode: str, chunk: Any) -> Any:
    if mode == "checkpoints":
        return _checkpoint(chunk)
    if mode == "tasks":
        return _task(chunk)
    if mode == "debug":
        payload = chunk["payload"]
        whole = _checkpoint(payload) if chunk["type"] == "checkpoint" else _task(payload)
        return {**to_jsonable({**chunk, "payload": None}), "payload": whole}
    return to_jsonable(chunk)


def _task(task: Mapping[str, Any]) -> Any:
    return to_jsonable({**task, "metadata": public_metadata(task["metadata"])} if "metadata" in task else task)


def _checkpoint(payload: Mapping[str, Any]) -> Any:
    tasks = [{**task, "state": _place(task.get("state"))} for task in payload.get("tasks") or ()]
    places = {name: _place(payload.get(name)) for name in ("config", "parent_config")}
    metadata = public_metadata(payload.get("metadata") or {})
    return to_jsonable({**payload, **places, "metadata": metadata, "tasks": tasks})


def _place(config: Any) -> Any:
    if not isinstance(config, Mapping):
        return None
    named = config.get("configurable") or {}
    return {"configurable": {key: named[key] for key in _PLACE if key in named}}


def _reference(payload: Mapping[str, Any]) -> dict[str, Any]:
    """Where a checkpoint stands (LangGraph streaming protocol, channel `checkpoints`)."""
    metadata = payload.get("metadata") or {}
    known = {
        "id": _id(payload.get("config")),
        "parent_id": _id(payload.get("parent_config")),
        "step": metadata.get("step"),
        "source": metadata.get("source"),
    }
    return {key: value for key, value in known.items() if value is not None}


def _id(config: Any) -> str | None:
    return (config.get("configurable") or {}).get("checkpoint_id") if isinstance(config, Mapping) else None
