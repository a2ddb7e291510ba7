"""A client comes back to a run: what is there by now in one snapshot, then the rest as it comes."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from agent_server.events import Event
from agent_server.framing import Frame
from agent_server.protocols.agui.encoder import AguiEncoder
from agent_server.protocols.agui.snapshots import put

Json = dict[str, Any]

_OPENS = {
    "STEP_STARTED": ("STEP_FINISHED", ("subagentRunId", "stepName")),
    "SUBAGENT_STARTED": ("SUBAGENT_FINISHED", ("subagentRunId",)),
    "TEXT_MESSAGE_START": ("TEXT_MESSAGE_END", ("messageId",)),
    "TOOL_CALL_START": ("TOOL_CALL_END", ("toolCallId",)),
    "REASONING_START": ("REASONING_END", ("messageId",)),
    "REASONING_MESSAGE_START": ("REASONING_MESSAGE_END", ("messageId",)),
}
_CLOSES = {end: (start, keys) for start, (end, keys) in _OPENS.items()} | {
    "SUBAGENT_ERROR": ("SUBAGENT_STARTED", ("subagentRunId",))
}


class View:
    """What a client that has read these frames has of the run: its messages, and what is open."""

    def __init__(self) -> None:
        self._messages: dict[str, Json] = {}
        self._texts: dict[str, list[str]] = {}  # of messages, and of the arguments of calls
        self._calls: dict[str, Json] = {}
        self._open: dict[tuple[str, ...], Frame] = {}

    def feed(self, frame: Frame) -> None:
        """One frame of the run."""
        kind, data = frame.event, frame.data
        if kind in _OPENS:
            self._open[_place(kind, _OPENS[kind][1], data)] = frame
        elif kind in _CLOSES:
            start, keys = _CLOSES[kind]
            self._open.pop(_place(start, keys, data), None)
        match kind:
            case "TEXT_MESSAGE_START" | "REASONING_MESSAGE_START":
                self._message(data["messageId"], data["role"], data)["content"] = ""
            case "TEXT_MESSAGE_CONTENT" | "REASONING_MESSAGE_CONTENT":
                self._texts.setdefault(data["messageId"], []).append(data["delta"])
            case "TOOL_CALL_START":
                call = {"id": data["toolCallId"], "type": "function", "function": {"name": data["toolCallName"]}}
                self._calls[data["toolCallId"]] = call
                message = self._message(data.get("parentMessageId", data["toolCallId"]), "assistant", data)
                message.setdefault("toolCalls", []).append(call)
            case "TOOL_CALL_ARGS":
                self._texts.setdefault(data["toolCallId"], []).append(data["delta"])
            case "TOOL_CALL_RESULT":
                result = {"content": data["content"], "toolCallId": data["toolCallId"]}
                self._message(data["messageId"], "tool", data).update(result)
            case "REASONING_ENCRYPTED_VALUE":
                self._messages[data["entityId"]]["encryptedValue"] = data["encryptedValue"]
            case _:
                pass

    def _message(self, key: str, role: str, data: Json) -> Json:
        owner = data.get("subagentRunId")
        made = {"id": key, "role": role, **({"subagentRunId": owner} if owner else {})}
        return self._messages.setdefault(key, made)

    def messages(self) -> list[Json]:
        """The messages, as far as they have come."""
        for call_id, call in self._calls.items():
            call["function"]["arguments"] = "".join(self._texts.get(call_id, ()))
        for key, message in self._messages.items():
            if key in self._texts:
                message["content"] = "".join(self._texts[key])
        return list(self._messages.values())

    def opened(self) -> list[Frame]:
        """The beginnings of what is open, again."""
        return list(self._open.values())


def _place(kind: str, keys: Sequence[str], data: Json) -> tuple[str, ...]:
    return (kind, *(data.get(key, "") for key in keys))


class Reattached:
    """A fold of a run's events: the first `upto` of them become one snapshot, the others are told as always.

    For a run that has recorded nothing of its state, `before` are the LangChain messages of its thread, and `state` the
    values of the thread's state. `said` is what the user said for the run.
    """

    def __init__(
        self, encoder: AguiEncoder, before: Sequence[Json], said: Sequence[Json], state: Any, upto: int
    ) -> None:
        self._encoder = encoder
        self._before = before
        self._said = said
        self._state = state
        self._left = max(upto, 1)
        self._view = View()

    def feed(self, event: Event) -> list[Frame]:
        """The frames that one event causes."""
        frames = self._encoder.feed(event)
        if self._left <= 0:
            return frames
        self._left -= 1
        for frame in frames:
            self._view.feed(frame)
        return [] if self._left else self._caught_up()

    def _caught_up(self) -> list[Frame]:
        snapshots = self._encoder.snapshots
        if not snapshots.is_told and self._state is not None:
            snapshots.take(self._state)
        messages = snapshots.read(self._before if snapshots.said is None else snapshots.said)
        for message in self._said:
            put(messages, message, ())
        before = {message["id"] for message in self._said}
        for message in self._view.messages():
            put(messages, message, before)
            before.add(message["id"])
        told = Frame("MESSAGES_SNAPSHOT", {"type": "MESSAGES_SNAPSHOT", "messages": messages})
        return [self._encoder.started(), *snapshots.state(), told, *self._view.opened()]
