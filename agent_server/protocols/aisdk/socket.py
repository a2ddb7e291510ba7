"""The wire of the AI SDK's `WebSocketChatTransport` (`ai` 7), as its reference page has it.

| client | |
|---|---|
| `send` | begins a run; `body` is the rest of what HTTP would carry |
| `resume` | tells the message that is going on from its start, or after `lastSequence` |
| `abort` | stops the run that a `send` began; a `resume` only looks on, and what it looks at goes on |

The server answers `chunk`s, numbered from 0, and one `end` or `error`; before them `start` where there is something to
resume, and `no-active` alone where there is not.
"""

from __future__ import annotations

from functools import partial
from typing import Annotated, Any, Literal

import msgspec
from msgspec import Meta, Struct

from agent_server.errors import AgentServerError
from agent_server.events import Event
from agent_server.framing import Frame
from agent_server.http.typed import typed
from agent_server.http.wire import Caller, Command, Live, Message
from agent_server.protocols.aisdk.chats import Chats
from agent_server.protocols.aisdk.encoder import SdkVersion

_VERSION: SdkVersion = 7  # no other has this transport


class _Frame(Struct, frozen=True):
    type: Literal["send", "resume", "abort"]
    request_id: Annotated[str, Meta(min_length=1, max_length=256)] = msgspec.field(name="requestId")


class _Asking(Struct, frozen=True):
    id: str
    headers: dict[str, str] = {}
    body: dict[str, Any] = {}
    last_sequence: Annotated[int, Meta(ge=0)] | None = msgspec.field(default=None, name="lastSequence")


class _Send(_Asking, frozen=True, kw_only=True):
    messages: list[dict[str, Any]]
    trigger: Literal["submit-message", "regenerate-message"]
    message_id: str | None = msgspec.field(default=None, name="messageId")


class AiSdkWire:
    """The chats of one app over a WebSocket. Its client takes a frame that it does not know for the end."""

    beats = False

    def __init__(self, chats: Chats) -> None:
        self._chats = chats

    def read(self, message: Message) -> Command:
        """See the table above. Raises `RequestError`."""
        frame = typed(message, _Frame)
        if frame.type == "abort":
            return Command("cancel", frame.request_id, message)
        if frame.type == "resume":
            last = typed(message, _Asking).last_sequence
            return Command("resume", frame.request_id, message, -1 if last is None else last)
        typed(message, _Send)
        return Command("run", frame.request_id, message)

    async def begin(self, command: Command, caller: Caller) -> Live:
        """A new run. Raises `AgentServerError`."""
        sent = typed(command.body, _Send)
        own = {"id": sent.id, "messages": sent.messages, "trigger": sent.trigger, "messageId": sent.message_id}
        begun = await self._chats.begin(
            {**sent.body, **own}, identity=caller.identity, request_id=caller.request_id, version=_VERSION
        )
        stop = partial(self._chats.stop_run, begun.run_id)
        return Live(begun.run_id, sent.id, begun.log, begun.encoder, stop)

    async def find(self, command: Command, caller: Caller) -> Live | None:
        """The run of a chat that is going on."""
        chat_id = typed(command.body, _Asking).id
        found = await self._chats.active(chat_id, _VERSION)
        return None if found is None else Live(found.run_id, chat_id, found.log, found.encoder, _look_away)

    def opening(self, command: Command, live: Live | None) -> Message | None:
        """`start` or `no-active`, for a `resume`."""
        if command.kind == "run":
            return None
        return {"type": "no-active" if live is None else "start", "requestId": command.request_id}

    def frame(self, request_id: str, sequence: int, frame: Frame) -> Message | None:
        """`chunk`."""
        return {"type": "chunk", "requestId": request_id, "sequence": sequence, "chunk": frame.data}

    def closing(self, request_id: str, sequence: int, end: Event) -> Message | None:
        """`end`: how the run ended was a chunk."""
        return {"type": "end", "requestId": request_id}

    def failed(self, request_id: str, error: AgentServerError) -> Message:
        """`error`, with what HTTP would have said beside its text."""
        told = {"status": error.status, "code": error.code, "param": error.param}
        return {"type": "error", "requestId": request_id, "errorText": error.message, **told}


async def _look_away(reason: str) -> None:
    """Whoever looks on stops nothing."""
