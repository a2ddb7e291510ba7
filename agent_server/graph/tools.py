"""The tool calls of a run: which the model made, which run, which are answered."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, cast

from langchain_core.messages import ToolMessage

from agent_server import ids
from agent_server.events import Event, ToolFinished, ToolStarted, ToolStatus
from agent_server.graph.jsonable import to_jsonable, to_text, to_unicode

_FAILED = "The tool failed."


class Tools:
    """Links LangChain's tool runs to the model's calls; every method returns the events it causes.

    A call is told once: one `ToolStarted`, one `ToolFinished`, however often and under however many runs its tool
    runs.
    """

    __slots__ = ("_answered", "_called", "_failed", "_made_up", "_open", "_run_id", "_running")

    def __init__(self, run_id: str) -> None:
        self._run_id = run_id
        self._called: dict[str, str] = {}  # call id -> tool name, in the order of the model's calls
        self._running: dict[str, ToolStarted] = {}  # by LangChain's run id
        self._failed: dict[str, ToolStarted] = {}  # raised; a node may still answer for them, or try again
        self._open: dict[str, ToolStarted] = {}  # by call id: told as started and not yet as finished
        self._answered: set[str] = set()
        self._made_up = 0

    def called(self, call_id: str, name: str) -> None:
        """The model made a call. Some providers use their ids again in a later message."""
        self._called.pop(call_id, None)
        self._called[call_id] = name
        self._answered.discard(call_id)

    def unanswered(self) -> list[tuple[str, str]]:
        """(call id, tool name) of the calls that have no output yet."""
        return [(call_id, name) for call_id, name in self._called.items() if call_id not in self._answered]

    def enclosing(self, parent_ids: Sequence[str]) -> str:
        """The call id of the tool that a run is inside of, or ""."""
        if self._running:
            for parent in parent_ids:
                if parent in self._running:
                    return self._running[parent].call_id
        return ""

    def call_of(self, event: Any) -> str:
        """The call id of a tool's stream event, or ""."""
        started = self._running.get(event["run_id"])
        return started.call_id if started is not None else event["data"].get("tool_call_id") or ""

    def start(
        self, event: Any, step: str, ns: tuple[str, ...] = (), metadata: dict[str, Any] | None = None
    ) -> list[Event]:
        """`on_tool_start`. Plain `astream_events` withholds the call id: then it is the first call that fits."""
        data, name = event["data"], event["name"]
        call_id = data.get("tool_call_id") or self._first_fitting(name) or self._make_up()
        parent = self.enclosing(event.get("parent_ids") or ())
        started = ToolStarted(call_id, name, _as_input(data.get("input")), step, parent, ns, metadata or {})
        self._running[event["run_id"]] = started
        self._failed.pop(call_id, None)
        return self._tell_start(started)

    def end(self, event: Any, output: Any) -> list[Event]:
        """`on_tool_end`, with the tool message found in the output, or the bare output."""
        started = self._running.pop(event["run_id"], None)
        return self._tell_end(started, output) if started is not None else []

    def failed(self, event: Any) -> None:
        """`on_tool_error`: the node decides whether this ends the run or becomes a tool message."""
        started = self._running.pop(event["run_id"], None)
        if started is not None:
            self._failed[started.call_id] = started

    def answered(
        self, message: ToolMessage, ns: tuple[str, ...] = (), metadata: dict[str, Any] | None = None
    ) -> list[Event]:
        """A tool message in a node's output: the answer to a failed call, or to one no tool run told of."""
        call_id = message.tool_call_id
        started = self._failed.pop(call_id, None)
        if started is None and call_id in self._called:
            started = ToolStarted(call_id, message.name or self._called[call_id], ns=ns, metadata=metadata or {})
        return [*self._tell_start(started), *self._tell_end(started, message)] if started is not None else []

    def close(self, status: ToolStatus) -> list[Event]:
        """The run is over: finish the tools that failed or still run, inner ones first."""
        events: list[Event] = []
        for started in list(self._failed.values()):
            events += self._tell_end(started, _FAILED, "error")
        for started in sorted(self._running.values(), key=lambda started: not started.parent_call_id):
            events += self._tell_end(started, _FAILED if status == "error" else "", status)
        self._running.clear()
        return events

    def _tell_start(self, started: ToolStarted) -> list[Event]:
        if started.call_id in self._open or started.call_id in self._answered:
            return []
        self._open[started.call_id] = started
        return [started]

    def _tell_end(self, started: ToolStarted, output: Any, status: ToolStatus = "success") -> list[Event]:
        told = self._open.pop(started.call_id, None)
        if told is None:
            return []
        call_id, name = told.call_id, told.name
        self._failed.pop(call_id, None)
        self._answered.add(call_id)
        if not isinstance(output, ToolMessage):
            return [ToolFinished(call_id, name, to_text(output), status)]
        return [ToolFinished(call_id, name, _as_output(output.content), output.status, output.id or "")]

    def _busy(self) -> set[str]:
        return {started.call_id for started in self._running.values()}

    def _first_fitting(self, name: str) -> str | None:
        taken = self._busy() | self._answered
        free = [c for c, called in self._called.items() if called == name and c not in taken]
        return next((c for c in free if c not in self._failed), free[0] if free else None)

    def _make_up(self) -> str:
        self._made_up += 1
        return ids.call_id(self._run_id, 0xF000 + self._made_up)


def _as_input(value: Any) -> dict[str, Any]:
    rendered = to_jsonable(value if value is not None else {})
    return rendered if isinstance(rendered, dict) else {"input": rendered}


def _as_output(content: Any) -> str | list[dict[str, Any]]:
    if isinstance(content, str):
        return to_unicode(content)
    blocks = [{"type": "text", "text": b} if isinstance(b, str) else b for b in content]
    return cast("list[dict[str, Any]]", to_jsonable(blocks))
