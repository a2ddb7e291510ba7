"""Where messages hide in what nodes, tools and Runnables return."""

from __future__ import annotations

import dataclasses
from collections.abc import Iterator, Mapping, Sequence
from typing import Any

from langchain_core.messages import BaseMessage, ToolMessage
from langgraph.types import Command
from pydantic import BaseModel


def messages_in(value: Any) -> Iterator[BaseMessage]:
    """Every message in a state, an update, a `Command`, a list of them, or a message itself."""
    if isinstance(value, BaseMessage):
        yield value
    elif isinstance(value, Command):
        yield from messages_in(value.update)
    elif isinstance(value, Mapping):
        for item in value.values():
            yield from _direct(item)
    elif isinstance(value, BaseModel):
        for name in type(value).model_fields:
            yield from _direct(getattr(value, name))
    elif dataclasses.is_dataclass(value) and not isinstance(value, type):
        for field in dataclasses.fields(value):
            yield from _direct(getattr(value, field.name))
    elif isinstance(value, Sequence) and not isinstance(value, str | bytes):
        for item in value:
            if isinstance(item, BaseMessage | Command):
                yield from messages_in(item)
            elif isinstance(item, tuple) and len(item) == 2:  # an update written as (key, value)
                yield from _direct(item[1])


def _direct(value: Any) -> Iterator[BaseMessage]:
    if isinstance(value, BaseMessage):
        yield value
    elif isinstance(value, list | tuple):
        yield from (item for item in value if isinstance(item, BaseMessage))


def tool_message_in(output: Any, call_id: str) -> ToolMessage | None:
    """The tool message that answers a call, in what its tool returned (a message, a `Command`, a list)."""
    found = [m for m in messages_in(output) if isinstance(m, ToolMessage)]
    return next((m for m in found if m.tool_call_id == call_id), found[0] if len(found) == 1 else None)


def plain_answer(output: Any) -> Any:
    """What a Runnable that streamed no message answers: its last message, its output text, or all of it."""
    if output is None or isinstance(output, BaseMessage | str):
        return output
    last = next((m for m in reversed(list(messages_in(output))) if m.type == "ai"), None)
    if last is not None:
        return last
    if isinstance(output, Mapping):
        if "messages" in output:
            return None
        return next((output[key] for key in ("output", "answer", "text") if key in output), output)
    return output
