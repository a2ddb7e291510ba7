"""Events -> the frames of `/runs/stream`: LangGraph's stream modes, under the names its clients know.

| asked for        | frames                                                              |
|------------------|---------------------------------------------------------------------|
| anything         | `metadata` first, `error` where the agent failed, `end` at the end  |
| `messages-tuple` | `messages`: a chunk or a message, with LangGraph's metadata         |
| `messages`       | `messages/metadata`, then `messages/partial` or `messages/complete` |
| `events`         | `events`                                                            |
| all others       | under the mode's own name                                           |

What a subgraph tells has its namespace behind the name (`updates|child:uuid`), and is told where subgraphs are asked
for. A frame's id is its event's place in the thread and its own among those of its event: it is the same for every
connection and every choice of modes, so that a stream goes on losslessly from any of them.
"""

from __future__ import annotations

from collections.abc import Callable, Collection, Mapping
from typing import Any, assert_never

import orjson

from agent_server import ids
from agent_server.events import (
    Annotated,
    ArgsDelta,
    BlockFinished,
    BlockStarted,
    Custom,
    Event,
    MessageFinished,
    MessageStarted,
    RawEvent,
    ReasoningDelta,
    RefusalDelta,
    RunCancelled,
    RunFailed,
    RunFinished,
    RunInterrupted,
    RunRetried,
    RunStarted,
    StatePart,
    StepFinished,
    StepStarted,
    TextDelta,
    ToolFinished,
    ToolProgress,
    ToolStarted,
)
from agent_server.protocols.langgraph.frames import Cursor, Frame
from agent_server.protocols.langgraph.pieces import Streamed, tool_message

RECURSION_LIMIT = (
    "Recursion limit reached without hitting a stop condition. You can increase the limit by setting the "
    "`recursion_limit` config key."
)
_METADATA, _PARTIAL, _TUPLE = 0, 1, 2  # places of frames among those of their event
_Read = Callable[[Any], list[Frame]]


class V1Encoder:
    """Folds the events of one run into frames.

    `modes` are the stream modes to tell, `base` is the place of the run's first event in its thread, known when that
    event is there. `about` is what every message's metadata says of the run, such as `graph_id`. Frames up to `after`
    are left out.
    """

    def __init__(
        self,
        modes: Collection[str],
        *,
        subgraphs: bool = False,
        base: Callable[[], int] = lambda: 0,
        about: Mapping[str, Any] | None = None,
        after: Cursor | None = None,
    ) -> None:
        self._modes = frozenset(modes)
        self._tuples = "messages-tuple" in self._modes
        self._partials = "messages" in self._modes
        self._subgraphs = subgraphs
        self._base = base
        self._after = after
        self._about = dict(about or {})
        self._run_id = self._thread_id = ""
        self._place = -1
        self._messages: dict[str, Streamed | MessageStarted] = {}
        self._tools: dict[str, ToolStarted] = {}
        self._readers: dict[type[Event], _Read] = {
            TextDelta: self._text,
            ArgsDelta: self._args,
            ReasoningDelta: self._reasoning,
            RefusalDelta: self._refusal,
        }

    def feed(self, event: Event) -> list[Frame]:
        """The frames that one event causes."""
        self._place += 1
        if self._place == 0:
            self._place = self._base()
        read = self._readers.get(type(event))  # the hot path
        frames = read(event) if read is not None else self._feed(event)
        if self._after is not None and frames:
            return self._left(self._after, frames)
        return frames

    def _left(self, after: Cursor, frames: list[Frame]) -> list[Frame]:
        """What the client does not have yet."""
        if self._place > after.event:
            self._after = None
            return frames
        return [frame for frame in frames if (self._place, int(frame.id.partition("-")[2])) > after]

    def _feed(self, event: Event) -> list[Frame]:
        match event:
            case RunStarted() | RunRetried():
                return self._begun(event)
            case MessageStarted() | BlockStarted() | Annotated() | BlockFinished() | MessageFinished():
                return self._message(event)
            case TextDelta() | ReasoningDelta() | RefusalDelta() | ArgsDelta():
                return self._readers[type(event)](event)
            case ToolStarted():
                self._tools[event.call_id] = event
                return []
            case ToolFinished():
                return self._tool_finished(event)
            case StatePart() | Custom() | RawEvent():
                return self._recorded(event)
            case RunFinished() | RunInterrupted() | RunFailed() | RunCancelled():
                return self._ended(event)
            case StepStarted() | StepFinished() | ToolProgress():
                return []
            case _:
                assert_never(event)

    def _begun(self, event: RunStarted | RunRetried) -> list[Frame]:
        attempt = 1
        if isinstance(event, RunStarted):
            self._run_id, self._thread_id = str(ids.run_uuid(event.run_id)), event.thread_id
        else:
            self._messages.clear()
            attempt = event.attempt
        self._about |= {"run_id": self._run_id, "thread_id": self._thread_id, "run_attempt": attempt}
        return [self._frame("metadata", {"run_id": self._run_id, "attempt": attempt})]

    # -- frames --------------------------------------------------------------------------------------------

    def _frame(self, name: str, data: Any, place: int = 0) -> Frame:
        return self._raw(name, orjson.dumps(data), place)

    def _raw(self, name: str, data: bytes, place: int) -> Frame:
        return Frame(name, data, f"{self._place}-{place}")

    def _part(self, mode: str, ns: tuple[str, ...], data: Any) -> list[Frame]:
        if mode not in self._modes or (ns and not self._subgraphs):
            return []
        return [self._frame(_named(mode, ns), data)]

    # -- messages ------------------------------------------------------------------------------------------

    def _message(
        self, event: MessageStarted | BlockStarted | Annotated | BlockFinished | MessageFinished
    ) -> list[Frame]:
        match event:
            case MessageStarted():
                return self._started(event)
            case BlockStarted():
                return self._block_started(event)
            case Annotated():
                return self._annotated(event)
            case BlockFinished():
                return self._block_finished(event)
            case MessageFinished():
                return self._finished(event)

    def _started(self, event: MessageStarted) -> list[Frame]:
        if not (self._tuples or self._partials) or (event.ns and not self._subgraphs):
            return []
        if event.whole:
            self._messages[event.message_id] = event
            return []
        metadata = self._metadata(event.metadata)
        message = Streamed(event, orjson.dumps(metadata))
        self._messages[event.message_id] = message
        return self._announced(message.id, event.ns, metadata)

    def _metadata(self, metadata: Mapping[str, Any]) -> dict[str, Any]:
        return {**metadata, **self._about}

    def _announced(self, message_id: str, ns: tuple[str, ...], metadata: Mapping[str, Any]) -> list[Frame]:
        if not self._partials:
            return []
        return [self._frame(_named("messages/metadata", ns), {message_id: {"metadata": metadata}}, _METADATA)]

    def _open(self, message_id: str) -> Streamed | None:
        message = self._messages.get(message_id)
        return message if isinstance(message, Streamed) else None

    def _told(self, message: Streamed, chunk: bytes | None) -> list[Frame]:
        """A chunk, and the message as it is with it."""
        frames: list[Frame] = []
        if self._partials:
            frames.append(self._raw(f"messages/partial{message.behind}", message.partial(), _PARTIAL))
        if self._tuples and chunk is not None:
            frames.append(self._raw(f"messages{message.behind}", chunk, _TUPLE))
        return frames

    def _text(self, event: TextDelta) -> list[Frame]:
        message = self._messages.get(event.message_id)
        if message is None or isinstance(message, MessageStarted):
            return []
        if self._partials:
            message.add_text(event.index, event.text)
            return self._told(message, message.text(event.index, event.text))
        return [Frame(f"messages{message.behind}", message.text(event.index, event.text), f"{self._place}-{_TUPLE}")]

    def _reasoning(self, event: ReasoningDelta) -> list[Frame]:
        message = self._open(event.message_id)
        if message is None:
            return []
        message.add_reasoning(event.index, event.text)
        return self._told(message, message.reasoning(event.index, event.text))

    def _refusal(self, event: RefusalDelta) -> list[Frame]:
        message = self._open(event.message_id)
        if message is None:
            return []
        message.add_refusal(event.text)
        return self._told(message, message.refusal(event.text))

    def _args(self, event: ArgsDelta) -> list[Frame]:
        message = self._open(event.message_id)
        return self._told(message, message.args(event.index, event.text)) if message is not None else []

    def _block_started(self, event: BlockStarted) -> list[Frame]:
        message = self._open(event.message_id)
        if message is None or event.kind != "tool_call":
            return []
        message.add_call(event)
        return self._told(message, message.call(event))

    def _block_finished(self, event: BlockFinished) -> list[Frame]:
        message = self._open(event.message_id)
        if message is None or event.kind not in ("tool_call", "media"):
            return []
        if event.kind == "tool_call":
            message.end_call(event)
            return self._told(message, None)
        message.add_block(event.index, event.data)
        return self._told(message, message.block(event.index, event.data))

    def _annotated(self, event: Annotated) -> list[Frame]:
        message = self._open(event.message_id)
        if message is None or not self._tuples:
            return []
        block = {"type": "text", "text": "", "annotations": [event.annotation]}
        return [self._raw(f"messages{message.behind}", message.block(event.index, block), _TUPLE)]

    def _finished(self, event: MessageFinished) -> list[Frame]:
        message = self._messages.pop(event.message_id, None)
        if message is None or not event.message:
            return []
        if isinstance(message, MessageStarted):
            return self._whole(message.source_id, message.ns, message.metadata, orjson.dumps(event.message))
        frames: list[Frame] = []
        if self._partials:
            frames.append(self._frame(f"messages/partial{message.behind}", [event.message], _PARTIAL))
        if self._tuples:
            frames.append(self._raw(f"messages{message.behind}", message.last(event.message), _TUPLE))
        return frames

    def _whole(self, message_id: str, ns: tuple[str, ...], metadata: Mapping[str, Any], message: bytes) -> list[Frame]:
        """A message in one piece."""
        metadata = self._metadata(metadata)
        frames = self._announced(message_id, ns, metadata)
        if self._partials:
            frames.append(self._raw(_named("messages/complete", ns), b"[%b]" % message, _PARTIAL))
        if self._tuples:
            frames.append(self._raw(_named("messages", ns), b"[%b,%b]" % (message, orjson.dumps(metadata)), _TUPLE))
        return frames

    def _tool_finished(self, event: ToolFinished) -> list[Frame]:
        """A tool's output is a message, unless its node only called it as a function."""
        started = self._tools.pop(event.call_id, None)
        metadata = started.metadata if started is not None else {}
        ns = started.ns if started is not None else ()
        if event.status == "pending" or (metadata and not event.message_id) or (ns and not self._subgraphs):
            return []
        message_id = event.message_id or f"{self._run_id}-{event.call_id}"
        return self._whole(message_id, ns, metadata, tool_message(event, message_id))

    # -- state ---------------------------------------------------------------------------------------------

    def _recorded(self, event: StatePart | Custom | RawEvent) -> list[Frame]:
        match event:
            case StatePart():
                return self._state(event)
            case Custom():
                is_written = event.name == "custom"  # what was dispatched is an event of LangChain's
                return self._part("custom", event.ns, event.data) if is_written else []
            case RawEvent():
                metadata = {**event.event.get("metadata", {}), **self._about}
                return self._part("events", (), {**event.event, "metadata": metadata})

    def _state(self, event: StatePart) -> list[Frame]:
        if event.mode not in self._modes or (event.ns and not self._subgraphs):
            return []
        data = event.data
        if event.mode == "checkpoints":
            data = self._placed(data)
        elif event.mode == "debug" and data.get("type") == "checkpoint":
            payload = self._placed(data["payload"])
            places = {"checkpoint": "config", "parent_checkpoint": "parent_config"}
            shown = {name: (payload.get(at) or {}).get("configurable") for name, at in places.items()}
            data = {**data, "payload": {**payload, **shown}}
        return self._part(event.mode, event.ns, data)

    def _placed(self, payload: Mapping[str, Any]) -> dict[str, Any]:
        """A checkpoint whose places name the thread and the run."""
        whose = {"thread_id": self._thread_id, "run_id": self._run_id}
        places = {
            name: {"configurable": {**payload[name]["configurable"], **whose}} if payload.get(name) else None
            for name in ("config", "parent_config")
        }
        return {**payload, **places}

    # -- the end -------------------------------------------------------------------------------------------

    def _ended(self, event: RunFinished | RunInterrupted | RunFailed | RunCancelled) -> list[Frame]:
        match event:
            case RunFinished(incomplete="recursion_limit"):
                error = {"error": "GraphRecursionError", "message": RECURSION_LIMIT}
                return [self._frame("error", error), self._frame("end", {"status": "error"}, 1)]
            case RunFinished() | RunInterrupted():
                return [self._frame("end", {"status": "success"})]
            case RunFailed():
                return [self._frame("error", failure(event)), self._frame("end", {"status": "error"}, 1)]
            case RunCancelled():
                status = "timeout" if event.reason == "timeout" else "interrupted"
                return [self._frame("end", {"status": status})]


def failure(event: RunFailed) -> dict[str, Any]:
    """A failure as clients read it. What is hidden can be found by its id in the operator's log."""
    if event.detail:
        return {"error": event.error, "message": event.detail}
    if event.error:
        return {"error": event.error, "message": "An internal error occurred", "error_id": event.error_id}
    return {"error": event.code, "message": event.message}


def _named(name: str, ns: tuple[str, ...]) -> str:
    return "|".join((name, *ns))
