"""What a client says to an agent, as values that any protocol can make, and as LangChain messages.

A conversation is a flat list of turns, close to how the wires write it. Messages group it anew: a model call
becomes one `AIMessage` with its reasoning, its text and its tool calls, followed by their `ToolMessage`s.
"""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping, Sequence
from typing import Any, Literal

import msgspec
from langchain_core.messages import AIMessage, BaseMessage, HumanMessage, SystemMessage, ToolMessage

from agent_server.errors import RequestError

Role = Literal["user", "system", "developer"]


class _Turn(msgspec.Struct, frozen=True, tag=True, omit_defaults=True):
    """Base of what is said; the tag, for stored ones, is the class name."""


class Text(_Turn, frozen=True):
    """A text part."""

    text: str


class Media(_Turn, frozen=True):
    """An image, file or sound: by `url`, as `base64` data of a `mime_type`, or by the provider's `file_id`.

    `id` is that of an image the model made itself.
    """

    kind: Literal["image", "file", "audio"]
    url: str | None = None
    base64: str | None = None
    mime_type: str | None = None
    file_id: str | None = None
    filename: str | None = None
    detail: str | None = None
    id: str | None = None


Part = Text | Media


class Message(_Turn, frozen=True):
    """A message to the agent."""

    role: Role
    parts: tuple[Part, ...]
    id: str | None = None


class Answer(_Turn, frozen=True):
    """What the agent said before: text, images, or a refusal."""

    parts: tuple[Part, ...]
    refusal: str | None = None
    id: str | None = None


class Reasoning(_Turn, frozen=True):
    """What the agent thought before it spoke or called. `encrypted` is opaque, and bound to `id`."""

    text: str = ""
    encrypted: str | None = None
    id: str | None = None


class Call(_Turn, frozen=True):
    """A tool call of the agent. `args` are a text where the model wrote no JSON object.

    A call that is not `complete` never ran, and may have no output.
    """

    id: str
    name: str
    args: dict[str, Any] | str
    complete: bool = True


class ToolOutput(_Turn, frozen=True):
    """The output of the latest call with this id."""

    call_id: str
    parts: tuple[Part, ...]
    failed: bool = False


Turn = Message | Answer | Reasoning | Call | ToolOutput
_ModelTurn = Answer | Reasoning | Call

_CALLS = frozenset({"tool_call", "invalid_tool_call"})

# An id names one message of a thread for good, so that a message sent again replaces itself.
_MESSAGE_ID = re.compile(r"[\w.:-]{1,128}", re.ASCII)


def system_turn(text: str) -> Message:
    """Instructions as the turn to put before a conversation."""
    return Message("system", (Text(text),))


def pair_calls(turns: Sequence[Turn]) -> dict[int, ToolOutput]:
    """The output of each call, by the call's place in `turns`.

    An output belongs to the latest call before it with its id, so models may use an id again once it has
    been answered. Raises `RequestError` (param "input") for a call without an output, an output without a
    call, and an id that two open calls share.
    """
    waiting: dict[str, int] = {}
    outputs: dict[int, ToolOutput] = {}
    for place, turn in enumerate(turns):
        if isinstance(turn, Call):
            if turn.id in waiting and _is_complete(turns[waiting[turn.id]]):
                raise _unpaired(f"Two open function calls have the call_id {turn.id[:64]}.")
            waiting[turn.id] = place
        elif isinstance(turn, ToolOutput):
            if turn.call_id not in waiting:
                call_id = turn.call_id[:64]
                raise _unpaired(f"No tool call found for function call output with call_id {call_id}.")
            outputs[waiting.pop(turn.call_id)] = turn
    for call_id, place in waiting.items():
        if _is_complete(turns[place]):
            raise _unpaired(f"No tool output found for function call {call_id[:64]}.")
    return outputs


def _is_complete(turn: Turn) -> bool:
    return isinstance(turn, Call) and turn.complete


def _unpaired(message: str) -> RequestError:
    return RequestError(message, param="input")


def to_messages(turns: Sequence[Turn]) -> list[BaseMessage]:
    """The turns as LangChain messages: every tool call stands before its output, whatever came between.

    Content is text where it is one text, else a list of LangChain v1 content blocks. Ids given twice, or not
    fit to be one, are left out. Raises what `pair_calls` raises.
    """
    outputs = pair_calls(turns)
    messages: list[BaseMessage] = []
    group: dict[int, _ModelTurn] = {}  # the model call being put together, by place

    def close() -> None:
        messages.extend(_model_call(group, outputs))
        group.clear()

    for place, turn in enumerate(turns):
        if isinstance(turn, Message):
            close()
            messages.append(_message(turn))
        elif isinstance(turn, ToolOutput):
            close()
        else:
            if not _goes_on(group, turn):
                close()
            if not isinstance(turn, Call) or place in outputs:
                group[place] = turn
    close()
    return _with_unique_ids(messages)


def _goes_on(group: Mapping[int, _ModelTurn], turn: _ModelTurn) -> bool:
    """Whether a turn belongs to the same model call: anything does until its calls are answered, but one
    answer after another is two messages."""
    kinds = {type(each) for each in group.values()}
    return isinstance(turn, Call) or Call in kinds or Answer not in kinds


def _model_call(group: Mapping[int, _ModelTurn], outputs: Mapping[int, ToolOutput]) -> Iterator[BaseMessage]:
    """Reasoning that led to nothing is left out: providers refuse it."""
    if all(isinstance(turn, Reasoning) for turn in group.values()):
        return
    answers = [turn for turn in group.values() if isinstance(turn, Answer)]
    refusal = next((answer.refusal for answer in answers if answer.refusal), None)
    message_id = next((answer.id for answer in answers if answer.id), None)
    blocks = [block for turn in group.values() for block in _model_blocks(turn)]
    content = _plain([block for block in blocks if block["type"] not in _CALLS])
    v1 = {"output_version": "v1"}  # how LangChain marks content whose blocks are all standard, calls included
    yield AIMessage(
        content if isinstance(content, str) else blocks,  # type: ignore[arg-type]
        tool_calls=[block for block in blocks if block["type"] == "tool_call"],
        invalid_tool_calls=[block for block in blocks if block["type"] == "invalid_tool_call"],
        id=message_id,
        additional_kwargs={"refusal": refusal} if refusal else {},
        response_metadata={} if isinstance(content, str) else v1,
    )
    for place, turn in group.items():
        if isinstance(turn, Call):
            output = outputs[place]
            yield ToolMessage(
                content_of(output.parts),  # type: ignore[arg-type]
                tool_call_id=turn.id,
                name=turn.name,
                status="error" if output.failed else "success",
            )


def _model_blocks(turn: _ModelTurn) -> list[dict[str, Any]]:
    if isinstance(turn, Call):
        call = {"id": turn.id, "name": turn.name}
        if isinstance(turn.args, str):
            return [{"type": "invalid_tool_call", **call, "args": turn.args, "error": None}]
        return [{"type": "tool_call", **call, "args": dict(turn.args)}]
    if isinstance(turn, Reasoning):
        block: dict[str, Any] = {"type": "reasoning", "reasoning": turn.text}
        if turn.encrypted:
            block |= {"id": turn.id} if turn.id else {}
            block["extras"] = {"encrypted_content": turn.encrypted}
        return [block]
    parts = (*turn.parts, Text(turn.refusal)) if turn.refusal else turn.parts
    return [_block(part) for part in parts]


def _message(turn: Message) -> BaseMessage:
    content: Any = content_of(turn.parts)
    if turn.role == "user":
        return HumanMessage(content, id=turn.id)
    extra = {"__openai_role__": "developer"} if turn.role == "developer" else {}  # langchain_openai's mark
    return SystemMessage(content, id=turn.id, additional_kwargs=extra)


def content_of(parts: Sequence[Part]) -> str | list[dict[str, Any]]:
    """The content of a LangChain message: text where it is one text, else v1 content blocks."""
    return _plain([_block(part) for part in parts])


def _plain(blocks: list[dict[str, Any]]) -> str | list[dict[str, Any]]:
    """Text alone is plain text, which every model takes."""
    if not blocks:
        return ""
    return str(blocks[0]["text"]) if len(blocks) == 1 and blocks[0]["type"] == "text" else blocks


def _block(part: Part) -> dict[str, Any]:
    """A LangChain v1 content block."""
    if isinstance(part, Text):
        return {"type": "text", "text": part.text}
    fields = ("id", "url", "base64", "mime_type", "file_id")
    extras = {name: value for name in ("filename", "detail") if (value := getattr(part, name))}
    block = {name: value for name in fields if (value := getattr(part, name))}
    return {"type": part.kind, **block, **({"extras": extras} if extras else {})}


def _with_unique_ids(messages: list[BaseMessage]) -> list[BaseMessage]:
    seen: set[str] = set()
    for message in messages:
        if message.id is not None and (message.id in seen or not _MESSAGE_ID.fullmatch(message.id)):
            message.id = None
        elif message.id is not None:
            seen.add(message.id)
    return messages
