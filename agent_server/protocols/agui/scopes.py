"""Who speaks in a run: the agent, or one of its subagents; and the steps that each of them has open.

A subagent is a subgraph, or an agent inside a tool. It is one for the whole run, however often it is heard, and it ends
with the step or the tool call that it is inside of.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

from agent_server import events as ev
from agent_server.framing import Frame

Json = dict[str, Any]


def frame(kind: str, **fields: Any) -> Frame:
    """An event of the wire. Empty strings and None are fields that are absent (AG-UI 1.0, "Serialization")."""
    return Frame(kind, {"type": kind, **{name: value for name, value in fields.items() if value not in ("", None)}})


@dataclass(frozen=True, slots=True)
class _Tool:
    """A call whose tool runs. `owner` is the subagent that made it."""

    wire_id: str
    name: str
    step: str
    owner: str


class Scopes:
    """Methods return the frames that they cause; a subagent's id is "" for the agent itself."""

    def __init__(self) -> None:
        self._tools: dict[str, _Tool] = {}
        self._places: dict[tuple[str, ...], str | None] = {(): ""}  # namespace -> subagent; None: nobody knows whose
        self._open: list[str] = []
        self._begun: set[str] = set()
        self._steps: dict[tuple[str, str], list[tuple[str, str]]] = {}
        self._names: set[tuple[str, str]] = set()  # (subagent, name) of open steps

    # -- subagents -----------------------------------------------------------------------------------------

    def of_message(self, event: ev.MessageStarted) -> tuple[str, list[Frame]]:
        """The subagent that a message is from."""
        tool = self._tools.get(event.parent_call_id)
        if tool is not None:
            return self._inside(tool)
        owner, frames = self._at(event.ns)
        return owner or "", frames

    def tool_started(self, event: ev.ToolStarted, wire_id: str, owner: str) -> None:
        """A tool may be an agent: it shows when that agent is heard."""
        self._tools[event.call_id] = _Tool(wire_id, event.name, event.step, owner)

    def tool_finished(self, event: ev.ToolFinished) -> list[Frame]:
        """The agent inside a tool ends with it."""
        tool = self._tools.pop(event.call_id, None)
        ends = {"success": "success", "error": "error", "pending": "suspended"}
        return self._end(tool.wire_id, ends[event.status]) if tool is not None else []

    def is_open(self, owner: str) -> bool:
        """Whether a subagent has been heard, and has not ended."""
        return owner in self._open

    def close(self, outcome: str) -> list[Frame]:
        """The run is over, or begins anew: inner ones first."""
        frames = [each for owner in reversed(self._open.copy()) for each in self._end(owner, outcome)]
        self._tools.clear()
        return frames

    def _inside(self, tool: _Tool) -> tuple[str, list[Frame]]:
        return self._begin(tool.wire_id, tool.name, tool.owner, call=tool.wire_id)

    def _at(self, ns: tuple[str, ...]) -> tuple[str | None, list[Frame]]:
        if ns in self._places:
            return self._places[ns], []
        parent, frames = self._at(ns[:-1])
        node = ns[-1].rpartition(":")[0] or ns[-1]
        running = [tool for tool in self._tools.values() if tool.step == node]
        owner: str | None = None
        if len(running) == 1:
            owner, begun = self._inside(running[0])
            frames += begun
        elif not running:
            owner, begun = self._begin(ns[-1], node, parent or "")
            frames += begun
        self._places[ns] = owner
        return owner, frames

    def _begin(self, owner: str, name: str, parent: str, call: str = "") -> tuple[str, list[Frame]]:
        if owner in self._begun:
            return owner, []
        self._begun.add(owner)
        self._open.append(owner)
        started = frame(
            "SUBAGENT_STARTED",
            subagentRunId=owner,
            name=name or "subagent",
            parentSubagentRunId=parent,
            parentToolCallId=call,
        )
        return owner, [started]

    def _end(self, owner: str, outcome: str) -> list[Frame]:
        if owner not in self._open:
            return []
        self._open.remove(owner)
        if outcome == "error":
            return [frame("SUBAGENT_ERROR", subagentRunId=owner, message="The subagent failed.")]
        return [frame("SUBAGENT_FINISHED", subagentRunId=owner, outcome={"type": outcome})]

    # -- steps ---------------------------------------------------------------------------------------------

    def step_started(self, event: ev.StepStarted) -> list[Frame]:
        """A name is open once at a time for each owner; a second one with it is numbered."""
        owner, frames = self._at(event.ns)
        if owner is None:
            return frames
        name, count = event.step, 1
        while (owner, name) in self._names:
            count += 1
            name = f"{event.step}:{count}"
        self._names.add((owner, name))
        self._steps.setdefault((event.step, event.task_id), []).append((owner, name))
        return [*frames, frame("STEP_STARTED", stepName=name, subagentRunId=owner)]

    def step_finished(self, event: ev.StepFinished) -> list[Frame]:
        """The subgraph of a step ends with it."""
        frames = self._end(f"{event.step}:{event.task_id}", "success")
        started = self._steps.get((event.step, event.task_id))
        if not started:
            return frames
        owner, name = started.pop()
        self._names.discard((owner, name))
        return [*frames, frame("STEP_FINISHED", stepName=name, subagentRunId=owner)]

    def close_steps(self) -> list[Frame]:
        """Every step that is open, for a run that begins anew."""
        closed = [frame("STEP_FINISHED", stepName=name, subagentRunId=owner) for owner, name in sorted(self._names)]
        self._names.clear()
        self._steps.clear()
        return closed
