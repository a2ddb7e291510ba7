"""Events -> the frames of a turn: `trace`, then one `command_output` or one `error`.

Frames are numbered from 0 by `sequence`. The answer to a request that does not stream is the fold of the same
events: `TurnEncoder.turn`.
"""

from __future__ import annotations

from typing import Any, assert_never

import msgspec

from agent_server import events as ev
from agent_server.framing import Frame, Framing, ndjson, sse, to_json
from agent_server.protocols.turns.request import turn_id

COMMAND = "agent_to_workflow"
RESULT = "workflow_to_agent"
QUERY = "user_to_agent"
NEWS = "agent_to_user"
"""Directions of a trace: a command, what came of it, the user's own words, and what the agent tells in between."""


def _ndjson(frame: Frame) -> bytes:
    return ndjson(Frame(frame.event, {"type": frame.event, "data": frame.data}))


SSE = Framing(write=sse, heartbeat=b": ping\n\n", end=b"")
NDJSON = Framing(write=_ndjson, heartbeat=b"\n", end=b"", media_type="application/x-ndjson")


class TurnEncoder:
    """A fold of a run's events into frames; `turn` is the turn as it stands after the last event.

    Traces that are not to be shown count all the same, so that a number names one frame for everybody; frames up to
    number `after` are left out.
    """

    def __init__(self, *, query: str = "", user_id: str = "", traces: bool = True, after: int = -1) -> None:
        self._query = query
        self._user = {"user_id": user_id} if user_id else {}
        self._traces = traces
        self._after = after
        self._sequence = 0
        self._texts: dict[str, list[str]] = {}  # of the open messages that the user is to read
        self._media: dict[str, list[dict[str, Any]]] = {}
        self._commands: dict[str, dict[str, Any]] = {}  # the latest of each call id
        self._told: list[dict[str, Any]] = []  # traces
        self.turn: dict[str, Any] = {}

    def feed(self, event: ev.Event) -> list[Frame]:
        """The frames that one event causes."""
        match event:
            case ev.TextDelta() | ev.ReasoningDelta() | ev.RefusalDelta() | ev.ArgsDelta() | ev.Annotated():
                return []  # whole blocks are read
            case ev.RunStarted():
                return self._on_started(event)
            case ev.MessageStarted():
                if not event.parent_call_id:
                    self._texts[event.message_id] = []
                return []
            case ev.BlockFinished():
                return self._on_block(event)
            case ev.MessageFinished():
                self._on_message(event)
                return []
            case ev.ToolStarted():
                return self._on_command(event.call_id, event.name, event.input)
            case ev.ToolProgress():
                name = self._commands.get(event.call_id, {}).get("command_name", "")
                return self._trace(NEWS, command_name=name, response_text=_text(event.data), call_id=event.call_id)
            case ev.ToolFinished():
                return self._on_result(event)
            case ev.Custom():
                return self._trace(NEWS, command_name=event.name, response_text=_text(event.data))
            case ev.RunRetried():
                self._texts.clear()
                self._media.clear()
                return self._trace(NEWS, response_text=f"Attempt {event.attempt}: {event.reason}")
            case ev.RunFinished() | ev.RunInterrupted() | ev.RunFailed() | ev.RunCancelled():
                return self._on_terminal(event)
            case ev.BlockStarted() | ev.StepStarted() | ev.StepFinished() | ev.StatePart() | ev.RawEvent():
                return []  # this wire has no form for them
            case _:
                assert_never(event)

    def _on_started(self, event: ev.RunStarted) -> list[Frame]:
        turn = turn_id(event.run_id)
        self.turn = {
            "turn_id": turn,
            "turn_key": turn,
            "session_id": event.thread_id,
            "agent": event.agent,
            "started_at": event.at,
            "exec_state": "running",
            "status": "running",
            "success": None,
            "answer": "",
            "command_responses": [],
            "command_outputs": [],
        }
        if not self._query:
            return []
        return self._trace(QUERY, raw_command=self._query, timestamp_ms=event.at)

    # -- commands ------------------------------------------------------------------------------------------

    def _on_block(self, event: ev.BlockFinished) -> list[Frame]:
        if event.kind == "tool_call":
            return self._on_command(event.call_id, event.name, event.text) if event.complete else []
        if event.message_id in self._texts:
            if event.kind in ("text", "refusal") and event.text:
                self._texts[event.message_id].append(event.text)
            elif event.kind == "media":
                self._media.setdefault(event.message_id, []).append(event.data)
        return []

    def _on_command(self, call_id: str, name: str, given: dict[str, Any] | str) -> list[Frame]:
        """A call is told once: when the model has made it, or else when its tool begins."""
        known = self._commands.get(call_id)
        if known is not None and known["success"] is None:
            return []
        raw = given if isinstance(given, str) else to_json(given).decode()
        parameters = _object(given) if isinstance(given, str) else given
        command: dict[str, Any] = {"command_name": name, "parameters": parameters, "success": None}
        command["command_responses"] = []
        self._commands[call_id] = command
        self.turn["command_outputs"].append(command)
        told = {"raw_command": f"{name}({raw})", "command_name": name, "parameters": parameters}
        return self._trace(COMMAND, **told, call_id=call_id)

    def _on_result(self, event: ev.ToolFinished) -> list[Frame]:
        if event.status == "pending":
            return []  # it goes on once its question is answered
        success, text = event.status == "success", _text(event.output)
        command = self._commands.get(event.call_id)
        if command is not None:
            command["success"] = success
            command["command_responses"] = [{"response": text, "success": success}]
        return self._trace(RESULT, command_name=event.name, response_text=text, success=success, call_id=event.call_id)

    def _on_message(self, event: ev.MessageFinished) -> None:
        texts, media = self._texts.pop(event.message_id, []), self._media.pop(event.message_id, [])
        if texts or media:
            text = "".join(texts)
            said = {"response": text, "success": True, **({"artifacts": {"media": media}} if media else {})}
            self.turn["command_responses"].append(said)
            self.turn["answer"] = text or self.turn["answer"]

    # -- the end -------------------------------------------------------------------------------------------

    def _on_terminal(self, event: ev.Terminal) -> list[Frame]:
        turn = self.turn
        turn["finished_at"] = event.at
        turn["usage"] = _usage(event.usage)
        match event:
            case ev.RunFinished():
                status = "completed" if event.incomplete is None else "incomplete"
                turn |= {"exec_state": "completed", "status": status, "success": event.incomplete is None}
                turn |= {"reason": event.incomplete} if event.incomplete else {}
                turn |= {"custom_outputs": event.custom_outputs} if event.custom_outputs else {}
            case ev.RunInterrupted():
                turn |= {"exec_state": "waiting", "status": "awaiting_user", "success": True}
                turn["interrupts"] = [_interrupt(each) for each in event.interrupts]
                turn["answer"] = "\n".join(map(question, event.interrupts)) or turn["answer"]
            case ev.RunFailed():
                error = {"code": event.code, "message": event.message, "error_id": event.error_id}
                turn |= {"exec_state": "failed", "status": "failed", "success": False, "error": error}
                return self._frame("error", {**error, "exec_state": "failed"})
            case ev.RunCancelled():
                error = {"code": "cancelled", "message": f"The turn was stopped: {event.reason}."}
                turn |= {"exec_state": "cancelled", "status": "cancelled", "success": False, "error": error}
                return self._frame("error", {**error, "exec_state": "cancelled"})
            case _:
                assert_never(event)
        return self._frame("command_output", turn)

    # -- frames --------------------------------------------------------------------------------------------

    def _trace(self, direction: str, **told: Any) -> list[Frame]:
        if not self._traces:
            self._sequence += 1
            return []
        empty = {"raw_command": None, "command_name": None, "parameters": None, "response_text": None, "success": None}
        frames = self._frame("trace", {"direction": direction, **empty, **told, **self._user})
        self._told += [frame.data for frame in frames]
        return frames

    def _frame(self, event: str, data: dict[str, Any]) -> list[Frame]:
        frame = Frame(event, {"sequence": self._sequence, "turn_id": self.turn["turn_id"], **data})
        self._sequence += 1
        return [frame] if self._sequence > self._after + 1 else []

    @property
    def whole(self) -> dict[str, Any]:
        """The turn with the traces that were told."""
        return {**self.turn, "traces": self._told} if self._traces else self.turn


def question(interrupt: ev.Interrupt) -> str:
    """What an interrupt asks, in words."""
    value = interrupt.value
    if interrupt.kind == "approval":
        return "\n".join(map(_request, value["action_requests"]))
    if isinstance(value, dict):
        words = next((value[key] for key in ("question", "message", "prompt") if isinstance(value.get(key), str)), None)
        return words if words is not None else _text(value)
    return _text(value)


def _request(request: dict[str, Any]) -> str:
    return str(request.get("description") or f"{request.get('name', '')}({_text(request.get('args', {}))})")


def _interrupt(interrupt: ev.Interrupt) -> dict[str, Any]:
    calls = list(interrupt.call_ids)
    return {"id": interrupt.id, "kind": interrupt.kind, "value": interrupt.value, "call_ids": calls}


def _object(arguments: str) -> Any:
    """Arguments as the model wrote them: as JSON, or as they stand where they are none."""
    try:
        return msgspec.json.decode(arguments) if arguments else {}
    except msgspec.DecodeError:
        return arguments


def _usage(usage: ev.Usage | None) -> dict[str, int] | None:
    return None if usage is None else {name: getattr(usage, name) for name in usage.__struct_fields__}


def _text(value: Any) -> str:
    """Text as it stands; content blocks by their texts; anything else as JSON."""
    if isinstance(value, str):
        return value
    if isinstance(value, list) and value and all(isinstance(b, dict) and b.get("type") == "text" for b in value):
        return "".join(str(block.get("text", "")) for block in value)
    return to_json(value).decode()
