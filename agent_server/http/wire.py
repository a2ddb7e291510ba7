"""What a protocol has to say to be spoken over a WebSocket: how to read a frame, how to begin a run, how to tell it."""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Mapping
from dataclasses import dataclass, field
from typing import Any, Final, Literal, Protocol

from agent_server.errors import AgentServerError
from agent_server.events import Event
from agent_server.framing import Frame
from agent_server.http.identity import Identity
from agent_server.http.stream import Encoder
from agent_server.runs.log import EventLog

Message = dict[str, Any]
"""One JSON object, sent as one text."""

HEARTBEAT: Final[Mapping[str, str]] = {"type": "heartbeat"}


@dataclass(frozen=True, slots=True)
class Caller:
    """Who is on the connection; the names of `headers` are in lower case."""

    identity: Identity = field(default_factory=Identity)
    headers: Mapping[str, str] = field(default_factory=dict)
    request_id: str = ""


@dataclass(frozen=True, slots=True)
class Command:
    """A frame of the client. `body` is the protocol's own; `after` is the number of the last frame it has.

    `timeout` is the silence, in seconds, after which the request is to end.
    """

    kind: Literal["run", "cancel", "resume", "ping"]
    request_id: str
    body: Mapping[str, Any]
    after: int = -1
    timeout: float | None = None


@dataclass(frozen=True, slots=True)
class Live:
    """A run that is told: just begun, or found again.

    `left` is what is done when its client is gone before its end.
    """

    run_id: str
    thread_id: str
    log: EventLog
    encoder: Encoder
    cancel: Callable[[str], Awaitable[object]]
    left: Callable[[], Awaitable[object]] | None = None


class Wire(Protocol):
    """One protocol over a WebSocket. Frames of a request are numbered from 0.

    A request ends with exactly one message: `closing` after a run, or `failed` where there is none or it is given up.
    """

    @property
    def beats(self) -> bool:
        """Whether `HEARTBEAT` may be sent into a long silence."""
        ...

    def read(self, message: Message) -> Command:
        """What a client says. Raises `RequestError` for what is not of this protocol: the connection ends then."""
        ...

    async def begin(self, command: Command, caller: Caller) -> Live:
        """Begin the run that is asked for. Raises `AgentServerError`."""
        ...

    async def find(self, command: Command, caller: Caller) -> Live | None:
        """The run that a client wants to go on with. Raises `AgentServerError`."""
        ...

    def opening(self, command: Command, live: Live | None) -> Message | None:
        """What is sent before a run's frames, if anything; `live` is None where nothing was found to resume."""
        ...

    def frame(self, request_id: str, sequence: int, frame: Frame) -> Message | None:
        """One frame of the run's encoder; None for one that this wire leaves out, and does not count."""
        ...

    def closing(self, request_id: str, sequence: int, end: Event) -> Message | None:
        """What is sent after the last frame; None where that was the end itself."""
        ...

    def failed(self, request_id: str, error: AgentServerError) -> Message:
        """The end of a request that came to nothing."""
        ...
