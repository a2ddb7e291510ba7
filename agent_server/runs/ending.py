"""The end of a run that its owner left unfinished: what closes an unended list of events."""

from __future__ import annotations

from collections.abc import Sequence
from functools import reduce
from operator import add

from agent_server.events import (
    ArgsDelta,
    BlockFinished,
    BlockStarted,
    Event,
    MessageFinished,
    MessageStarted,
    ReasoningDelta,
    RefusalDelta,
    RunFailed,
    StepFinished,
    StepStarted,
    TextDelta,
    ToolFinished,
    ToolStarted,
    Usage,
)


def failed_end(events: Sequence[Event], *, at: int, code: str, message: str, error_id: str) -> list[Event]:
    """What is open is closed as incomplete, innermost first; then the run has failed. What was said is kept."""
    blocks: dict[tuple[str, int], BlockStarted] = {}
    texts: dict[tuple[str, int], list[str]] = {}
    open_parts: dict[object, Event] = {}  # messages, tools and steps, in the order in which they began
    usages: list[Usage] = []
    for event in events:
        match event:
            case BlockStarted():
                blocks[event.message_id, event.index] = event
            case TextDelta() | ReasoningDelta() | RefusalDelta() | ArgsDelta():
                texts.setdefault((event.message_id, event.index), []).append(event.text)
            case BlockFinished():
                blocks.pop((event.message_id, event.index), None)
            case MessageStarted():
                open_parts["message", event.message_id] = event
            case MessageFinished():
                open_parts.pop(("message", event.message_id), None)
                usages += [event.usage] if event.usage is not None else []
            case ToolStarted():
                open_parts["tool", event.call_id] = event
            case ToolFinished():
                open_parts.pop(("tool", event.call_id), None)
            case StepStarted():
                open_parts["step", event.task_id] = event
            case StepFinished():
                open_parts.pop(("step", event.task_id), None)
            case _:
                pass  # opens nothing
    usage = reduce(add, usages) if usages else None
    closed: list[Event] = [_cut_block(started, "".join(texts.get(place, ()))) for place, started in blocks.items()]
    closed += [end for part in reversed(list(open_parts.values())) if (end := _cut(part)) is not None]
    return [*closed, RunFailed(at=at, code=code, message=message, error_id=error_id, usage=usage)]


def _cut_block(started: BlockStarted, text: str) -> BlockFinished:
    return BlockFinished(
        message_id=started.message_id,
        index=started.index,
        kind=started.kind,
        text=text,
        call_id=started.call_id,
        name=started.name,
        complete=False,
    )


def _cut(started: Event) -> Event | None:
    match started:
        case MessageStarted():
            return MessageFinished(message_id=started.message_id)
        case ToolStarted():
            return ToolFinished(call_id=started.call_id, name=started.name, status="error")
        case StepStarted():
            return StepFinished(step=started.step, task_id=started.task_id)
        case _:
            return None
