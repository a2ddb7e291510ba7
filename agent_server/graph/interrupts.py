"""The questions a graph stopped at, and the tool calls they are about."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from typing import Any, Literal, cast

from agent_server.events import Interrupt
from agent_server.graph.jsonable import to_jsonable

CLIENT_TOOL = "client_tool_call"  # the `type` of an interrupt that hands a tool call to the client


class Interrupts:
    """Collects interrupts while the run streams; resolves them when it ends."""

    __slots__ = ("_calls", "_found", "pending")

    def __init__(self) -> None:
        self.pending = False
        self._found: dict[str, Any] = {}
        self._calls: dict[str, str] = {}  # interrupt id -> call id

    def seen(self, interrupts: Iterable[Any]) -> None:
        """The `__interrupt__` entry of a graph's stream. It is empty at a static breakpoint."""
        self.pending = True
        for interrupt in interrupts:
            self._found[str(interrupt.id)] = interrupt.value

    def raised_by(self, call_id: str, error: BaseException) -> None:
        """A tool raised `GraphInterrupt`: remember which call it was."""
        for interrupt in error.args[0] if error.args and isinstance(error.args[0], Sequence) else ():
            if call_id and hasattr(interrupt, "id"):
                self._calls[str(interrupt.id)] = call_id

    def resolve(self, unanswered: Sequence[tuple[str, str]]) -> tuple[Interrupt, ...]:
        """The interrupts as events tell them. `unanswered` lists (call id, tool name) of calls without output."""
        return tuple(
            Interrupt(key, to_jsonable(value), _kind(value), self._call_ids(key, value, unanswered))
            for key, value in self._found.items()
        )

    def _call_ids(self, key: str, value: Any, unanswered: Sequence[tuple[str, str]]) -> tuple[str, ...]:
        if key in self._calls:
            return (self._calls[key],)
        if not isinstance(value, Mapping):
            return ()
        if value.get("type") == CLIENT_TOOL:
            return (str(value.get("tool_call_id")),)
        left = list(unanswered)
        found: list[str] = []
        for request in _requests(value):
            match = next((call for call in left if call[1] == request.get("name")), None)
            if match is not None:
                left.remove(match)
                found.append(match[0])
        return tuple(found)


def _kind(value: Any) -> Literal["approval", "client_tool", "free"]:
    if isinstance(value, Mapping):
        if value.get("type") == CLIENT_TOOL:
            return "client_tool"
        if _requests(value):
            return "approval"
    return "free"


def _requests(value: Mapping[str, Any]) -> list[Mapping[str, Any]]:
    """The action requests of LangChain's approvals; none where the value only looks like one."""
    requests = value.get("action_requests")
    whole = isinstance(requests, list) and all(isinstance(request, Mapping) for request in requests)
    return cast("list[Mapping[str, Any]]", requests) if whole else []
