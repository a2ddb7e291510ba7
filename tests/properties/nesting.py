"""The rules of a run's events as a state machine: what a well-nested list is."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable
from dataclasses import dataclass, field

from agent_server import events as ev
from agent_server.events import TERMINAL, Event

DELTAS = {
    "text": ev.TextDelta,
    "reasoning": ev.ReasoningDelta,
    "refusal": ev.RefusalDelta,
    "tool_call": ev.ArgsDelta,
}


class NestingError(AssertionError):
    """A list of events broke a rule."""


def require(holds: object, rule: str) -> None:
    """Raise `NestingError` naming the rule unless it holds."""
    if not holds:
        raise NestingError(rule)


@dataclass
class _Block:
    started: ev.BlockStarted
    text: str = ""
    annotations: list[object] = field(default_factory=list)


class Nesting:
    """Feed every event of one run, then call `end`."""

    def __init__(self) -> None:
        self.first: Event | None = None
        self.terminal: Event | None = None
        self.messages: dict[str, set[int]] = {}  # open ones: the indexes of the blocks that each has had
        self.message_count = 0
        self.blocks: dict[tuple[str, int], _Block] = {}
        self.tools: dict[str, ev.ToolStarted] = {}
        self.steps: Counter[tuple[str, str]] = Counter()

    def feed(self, event: Event) -> None:
        """Check one event. Raises `NestingError`."""
        kind = type(event).__name__
        require(self.terminal is None, f"{kind} after the terminal event")
        require((self.first is None) == isinstance(event, ev.RunStarted), f"{kind} in the place of RunStarted")
        self.first = self.first or event
        if isinstance(event, ev.TextDelta | ev.ReasoningDelta | ev.RefusalDelta | ev.ArgsDelta):
            block = self._block(event)
            require(isinstance(event, DELTAS[block.started.kind]), f"{kind} in a {block.started.kind} block")
            require(event.text, f"an empty {kind}")
            block.text += event.text
        elif isinstance(event, ev.Annotated):
            self._block(event).annotations.append(event.annotation)
        elif isinstance(event, ev.MessageStarted | ev.BlockStarted | ev.BlockFinished | ev.MessageFinished):
            self._in_message(event)
        elif isinstance(event, ev.ToolStarted):
            require(event.call_id, "a tool without a call id")
            require(event.call_id not in self.tools, "a tool call that runs twice at a time")
            self.tools[event.call_id] = event
        elif isinstance(event, ev.ToolFinished):
            require(event.call_id in self.tools, "the end of a tool that does not run")
            require(event.name == self.tools.pop(event.call_id).name, "another name at the end of a tool")
        elif isinstance(event, ev.StepStarted):
            self.steps[event.step, event.task_id] += 1
        elif isinstance(event, ev.StepFinished):
            self.steps[event.step, event.task_id] -= 1
            require(self.steps[event.step, event.task_id] >= 0, "the end of a step that is not open")
        elif type(event) in TERMINAL:
            self.terminal = event
            open_steps = +self.steps
            require(not self.messages and not self.blocks, "a message is open at the end")
            require(not self.tools, "a tool runs at the end")
            require(not open_steps, f"steps are open at the end: {open_steps}")

    def end(self) -> None:
        """The list is over."""
        require(self.terminal is not None, "no terminal event")

    def _block(self, event: ev.TextDelta | ev.ReasoningDelta | ev.RefusalDelta | ev.ArgsDelta | ev.Annotated) -> _Block:
        place = (event.message_id, event.index)
        require(place in self.blocks, f"{type(event).__name__} in a block that is not open")
        return self.blocks[place]

    def _in_message(self, event: ev.MessageStarted | ev.BlockStarted | ev.BlockFinished | ev.MessageFinished) -> None:
        name = event.message_id
        if isinstance(event, ev.MessageStarted):
            require(name == f"m{self.message_count}", f"{name} is not the next message")
            self.message_count += 1
            self.messages[name] = set()
            return
        require(name in self.messages, f"{type(event).__name__} in a message that is not open")
        if isinstance(event, ev.MessageFinished):
            require(all(place[0] != name for place in self.blocks), "a block is open at the end of its message")
            del self.messages[name]
        elif isinstance(event, ev.BlockStarted):
            place = (name, event.index)
            require(event.index not in self.messages[name], "an index that comes twice")
            require(bool(event.call_id) == (event.kind == "tool_call"), "a call id is for tool calls, and for each")
            self.messages[name].add(event.index)
            self.blocks[place] = _Block(event)
        else:
            self._finish_block(event)

    def _finish_block(self, event: ev.BlockFinished) -> None:
        block = self.blocks.pop((event.message_id, event.index), None)
        require(block is not None, "the end of a block that is not open")
        assert block is not None
        started = block.started
        same = (started.kind, started.call_id, started.name) == (event.kind, event.call_id, event.name)
        require(same, "the end of a block does not match its start")
        require(event.text == block.text, "the text of a block is not its deltas joined")
        require(list(event.annotations) == block.annotations, "the annotations of a block are not those told")


def check_nesting(events: Iterable[Event]) -> None:
    """Check the whole list of one run. Raises `NestingError`."""
    nesting = Nesting()
    for event in events:
        nesting.feed(event)
    nesting.end()
