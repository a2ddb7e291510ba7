"""The envelope of wires that have none of their own.

| client | |
|---|---|
| `{"type": "run", "requestId", ...}` | begin a run |
| `{"type": "resume", "requestId", "runId" or "threadId", "lastSequence"?}` | go on with it, after that frame |
| `{"type": "cancel", "requestId"}` | stop it |
| `{"type": "ping"}` | answered by `{"type": "heartbeat"}` |

| server | |
|---|---|
| `{"type": "started", "requestId", "runId", "threadId"}` | before the first event |
| `{"type": "event", "requestId", "sequence", "event"}` | one event of the run, numbered from 0 |
| `{"type": "end", "requestId", "sequence", "status", ...}` | the last message of a request |
| `{"type": "error", "requestId", "code", "message", "status", "param"}` | the last message of one that failed |
| `{"type": "heartbeat"}` | into a long silence |
"""

from __future__ import annotations

from typing import Annotated, Any

import msgspec
from msgspec import Meta, Struct

from agent_server.errors import AgentError, AgentServerError, RequestError
from agent_server.events import Event, RunCancelled, RunFailed, RunFinished, RunInterrupted
from agent_server.framing import Frame
from agent_server.http.typed import typed
from agent_server.http.wire import Command, Live, Message

RequestId = Annotated[str, Meta(min_length=1, max_length=256)]


class _Told(Struct, frozen=True):
    """What every message of a client has."""

    type: str
    request_id: RequestId | None = msgspec.field(default=None, name="requestId")
    last_sequence: Annotated[int, Meta(ge=-1)] = msgspec.field(default=-1, name="lastSequence")
    timeout: Annotated[float, Meta(gt=0, le=86_400)] | None = None


def read_command(message: Message) -> Command:
    """A message of the envelope. Raises `RequestError`."""
    told = typed(message, _Told)
    if told.type not in ("run", "cancel", "resume", "ping"):
        raise RequestError("'type' is run, cancel, resume or ping.", param="type")
    if told.request_id is None and told.type != "ping":
        raise RequestError("Missing required parameter: 'requestId'.", param="requestId")
    return Command(told.type, told.request_id or "", message, told.last_sequence, told.timeout)  # type: ignore[arg-type]


class Envelope:
    """The half of a wire that the envelope settles."""

    beats = True

    def read(self, message: Message) -> Command:
        """See the table above."""
        return read_command(message)

    def opening(self, command: Command, live: Live | None) -> Message | None:
        """`started`; where there is nothing to resume, an error comes instead."""
        if live is None:
            return None
        return {
            "type": "started",
            "requestId": command.request_id,
            "runId": live.run_id,
            "threadId": live.thread_id,
        }

    def frame(self, request_id: str, sequence: int, frame: Frame) -> Message | None:
        """`event`."""
        return {"type": "event", "requestId": request_id, "sequence": sequence, "event": frame.data}

    def closing(self, request_id: str, sequence: int, end: Event) -> Message | None:
        """`end`, or `error` for a run that failed."""
        if isinstance(end, RunFailed):
            error = AgentError(end.error_id, code=end.code)
            return {**self.failed(request_id, error), "sequence": sequence, "errorId": end.error_id}
        return {"type": "end", "requestId": request_id, "sequence": sequence, **_ended(end)}

    def failed(self, request_id: str, error: AgentServerError) -> Message:
        """`error`."""
        told = {"code": error.code, "message": error.message, "status": error.status, "param": error.param}
        return {"type": "error", "requestId": request_id, **told}


def _ended(end: Event) -> dict[str, Any]:
    match end:
        case RunFinished():
            status = "completed" if end.incomplete is None else "incomplete"
            return {"status": status, **({"reason": end.incomplete} if end.incomplete else {})}
        case RunInterrupted():
            interrupts = [
                {"id": each.id, "kind": each.kind, "value": each.value, "callIds": list(each.call_ids)}
                for each in end.interrupts
            ]
            return {"status": "interrupted", "interrupts": interrupts}
        case RunCancelled():
            return {"status": "cancelled", "reason": end.reason}
        case _:
            raise AssertionError(f"{type(end).__name__} ends no run")
