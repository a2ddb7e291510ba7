"""Events -> the events of LangGraph's streaming protocol: a thread's stream, from run to run (protocol.cddl 0.0.20).

| channel       | of                                                                                        |
|---------------|-------------------------------------------------------------------------------------------|
| `lifecycle`   | runs and subgraphs: running, started, completed, failed, interrupted                      |
| `messages`    | message-start, content-block-start, -delta, -finish, message-finish; tools' messages, too |
| `tools`       | tool-started, tool-output-delta, tool-finished, tool-error                                |
| `input`       | the questions a run stopped at                                                            |
| `values` `updates` `tasks` `checkpoints` `custom` | what the run was asked to record of them              |

`seq` is a function of the event's place in its thread and of the frame's among those of its event, whoever listens to
what: it is the same for every connection, and names a place that any of them can go on from. Times are those of the
run's begin and end.
"""

from __future__ import annotations

from collections.abc import Mapping
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
from agent_server.protocols.langgraph.encoder_v1 import RECURSION_LIMIT, failure
from agent_server.protocols.langgraph.frames import Frame
from agent_server.protocols.langgraph.pieces import tool_message
from agent_server.protocols.langgraph.subscription import Namespace, Subscription
from agent_server.runs.thread_log import Placed

STRIDE = 4096
"""Frames that one event may have; `seq` counts in steps of it, from 1."""


def place_of(seq: int) -> int:
    """The place of the event that a frame of this `seq` is of."""
    return max(seq - 1, 0) // STRIDE


def seq_before(place: int) -> int:
    """The greatest `seq` that a frame before an event at this place of its thread can have."""
    return place * STRIDE


class _Message:
    """A message that streams: where it is told, and the text that each of its deltas begins with."""

    __slots__ = ("cut", "head", "id", "node", "ns", "wanted")

    def __init__(self, started: MessageStarted, wanted: bool) -> None:
        self.id, self.ns, self.node, self.wanted = started.source_id, started.ns, started.step, wanted
        self.cut = False
        self.head = b""


class V2Encoder:
    """Folds the events of a thread into frames, for one subscription."""

    def __init__(self, subscription: Subscription) -> None:
        self._subscription = subscription
        self._since = subscription.since
        self._place = 0
        self._frames: list[Frame] = []
        self._index = 0
        self._begin(RunStarted(run_id="0" * 32, agent="", at=0))

    def _begin(self, started: RunStarted) -> None:
        self._run_id, self._graph, self._at = str(ids.run_uuid(started.run_id)), started.agent, started.at
        self._messages: dict[str, _Message] = {}
        self._tools: dict[str, ToolStarted] = {}
        self._paths: dict[str, Namespace] = {}  # of nodes that run, by task
        self._subgraphs: set[Namespace] = set()
        self._ended: list[Namespace] = []  # subgraphs whose end is told with the next event, which says what end it was

    def feed(self, placed: Placed) -> list[Frame]:
        """The frames that one event causes."""
        self._place, event = placed.place, placed.event
        self._frames, self._index = [], 0
        if isinstance(event, TextDelta):  # the hot path
            self._text(event)
        else:
            if self._ended and not isinstance(event, StepFinished):
                self._end_subgraphs(event)
            self._feed(event)
        return self._frames

    def _feed(self, event: Event) -> None:
        match event:
            case RunStarted() | RunRetried():
                self._begun(event)
            case StepStarted() | StepFinished():
                self._step(event)
            case MessageStarted():
                self._message_started(event)
            case TextDelta():
                self._text(event)
            case BlockStarted() | ReasoningDelta() | ArgsDelta() | BlockFinished():
                self._block(event)
            case MessageFinished():
                self._message_finished(event)
            case ToolStarted() | ToolProgress() | ToolFinished():
                self._tool(event)
            case StatePart() | Custom():
                self._state(event)
            case RunFinished() | RunInterrupted() | RunFailed() | RunCancelled():
                self._end(event)
            case RefusalDelta() | Annotated():
                pass  # a block's end tells of them: there is no delta that adds to what they add to
            case RawEvent():
                pass  # of a run that another generation of clients asked for
            case _:
                assert_never(event)

    def _begun(self, event: RunStarted | RunRetried) -> None:
        if isinstance(event, RunStarted):
            self._begin(event)
        for message in self._messages.values():
            self._of_message(message, {"event": "error", "message": "The run began anew.", "code": "retried"})
        self._messages.clear()
        self._lifecycle("running")

    def _step(self, event: StepStarted | StepFinished) -> None:
        if isinstance(event, StepStarted):
            self._paths[event.task_id] = (*event.ns, f"{event.step}:{event.task_id}")
            self._enter(event.ns)
            return
        path = self._paths.pop(event.task_id, ())
        if path in self._subgraphs:
            self._subgraphs.remove(path)
            self._ended.append(path)

    # -- frames --------------------------------------------------------------------------------------------

    def _emit(self, channel: str, method: str, ns: Namespace, data: Any, node: str = "") -> None:
        place = self._next()
        if place > self._since and self._subscription.wants(channel, ns):
            params = {"namespace": ns, "timestamp": self._at, **({"node": node} if node else {}), "data": data}
            told = {"type": "event", "event_id": str(place), "seq": place, "method": method, "params": params}
            self._frames.append(Frame(method, orjson.dumps(told), str(place)))

    def _next(self) -> int:
        """The `seq` of the event's next frame, be it told or not."""
        self._index += 1
        return self._place * STRIDE + min(self._index, STRIDE)

    def _lifecycle(self, event: str, ns: Namespace = (), **more: Any) -> None:
        name = ns[-1].partition(":")[0] if ns else self._graph
        self._emit("lifecycle", "lifecycle", ns, {"event": event, "graph_name": name, **more})

    def _enter(self, ns: Namespace) -> None:
        """A node runs in this namespace: the subgraphs around it have begun."""
        for depth in range(1, len(ns) + 1):
            path = ns[:depth]
            if path not in self._subgraphs:
                self._subgraphs.add(path)
                called = (t.call_id for t in self._tools.values() if _within(t) == path)
                call_id = next(called, None)
                cause = {"cause": {"type": "toolCall", "tool_call_id": call_id}} if call_id is not None else {}
                self._lifecycle("started", path, **cause)

    def _end_subgraphs(self, event: Event) -> None:
        """Nodes end one after the other when their run does: what the run's own end is, theirs is."""
        status = {RunFailed: "failed", RunInterrupted: "interrupted", RunCancelled: "interrupted"}
        for path in self._ended:
            self._lifecycle(status.get(type(event), "completed"), path)
        self._ended.clear()

    # -- messages ------------------------------------------------------------------------------------------

    def _message_started(self, event: MessageStarted) -> None:
        message = _Message(event, self._subscription.wants("messages", event.ns))
        self._messages[event.message_id] = message
        params = {"namespace": event.ns, "timestamp": self._at, **({"node": event.step} if event.step else {})}
        message.head = b'","method":"messages","params":%b,"data":{"event":"content-block-delta","id":%b,"index":' % (
            orjson.dumps(params)[:-1],
            orjson.dumps(message.id),
        )
        known = {"provider": "ls_provider", "model": "ls_model_name", "model_type": "ls_model_type"}
        metadata = {name: event.metadata[key] for name, key in known.items() if key in event.metadata}
        if event.step:
            metadata["langgraph_node"] = event.step
        start = {"event": "message-start", "role": "ai", "metadata": {**metadata, "run_id": self._run_id}}
        self._of_message(message, start)

    def _of_message(self, message: _Message, data: Mapping[str, Any]) -> None:
        self._emit("messages", "messages", message.ns, {**data, "id": message.id}, message.node)

    def _text(self, event: TextDelta) -> None:
        message = self._messages.get(event.message_id)
        place = self._next()
        if message is None or not message.wanted or place <= self._since:
            return
        data = b'{"type":"event","seq":%d,"event_id":"%d%b%d,"delta":{"type":"text-delta","text":%b}}}}' % (
            place,
            place,
            message.head,
            event.index,
            orjson.dumps(event.text),
        )
        self._frames.append(Frame("messages", data, str(place)))

    def _block(self, event: BlockStarted | ReasoningDelta | ArgsDelta | BlockFinished) -> None:
        message = self._messages.get(event.message_id)
        if message is None:
            return
        for data in _block_events(event):
            self._of_message(message, {**data, "index": event.index})
        message.cut = message.cut or (isinstance(event, BlockFinished) and not event.complete)

    def _message_finished(self, event: MessageFinished) -> None:
        message = self._messages.pop(event.message_id, None)
        if message is None:
            return
        if message.cut:
            cut = {"event": "error", "message": "The run ended before the message did.", "code": "incomplete"}
            self._of_message(message, cut)
            return
        usage = event.message.get("usage_metadata")
        told = {"usage": usage} if usage else {}
        reason = {"reason": event.finish_reason} if event.finish_reason else {}
        self._of_message(message, {"event": "message-finish", **told, **reason})

    # -- tools ---------------------------------------------------------------------------------------------

    def _tool(self, event: ToolStarted | ToolProgress | ToolFinished) -> None:
        if isinstance(event, ToolStarted):
            self._tools[event.call_id] = event
        started = self._tools.get(event.call_id)
        ns, node = (started.ns, started.step) if started is not None else ((), "")
        for data in _tool_events(event):
            self._emit("tools", "tools", ns, {**data, "tool_call_id": event.call_id}, node)
        if isinstance(event, ToolFinished):
            self._tools.pop(event.call_id, None)
            if event.message_id and event.status != "pending":
                self._tool_message(event, (*ns, f"tools:{event.call_id}"))

    def _tool_message(self, event: ToolFinished, ns: Namespace) -> None:
        """The message that answers the call, in the call's own namespace."""
        whole = {"type": "text", "text": event.output} if isinstance(event.output, str) else None
        blocks = [whole] if whole is not None else [block for block in event.output if isinstance(block, dict)]
        start = {"event": "message-start", "role": "tool", "tool_call_id": event.call_id}
        told: list[dict[str, Any]] = [start]
        for index, block in enumerate(blocks):
            is_text = block.get("type") == "text"
            told.append({"event": "content-block-start", "index": index, "content": _emptied(block)})
            if is_text:
                delta = {"type": "text-delta", "text": block.get("text", "")}
                told.append({"event": "content-block-delta", "index": index, "delta": delta})
            told.append({"event": "content-block-finish", "index": index, "content": block})
        for data in (*told, {"event": "message-finish"}):
            self._emit("messages", "messages", ns, {**data, "id": event.message_id})

    # -- state ---------------------------------------------------------------------------------------------

    def _state(self, event: StatePart | Custom) -> None:
        data = event.data
        if isinstance(event, Custom):
            named = {"name": event.name} if event.name != "custom" else {}
            channel = f"custom:{event.name}" if named else "custom"
            self._emit(channel, "custom", event.ns, {**named, "payload": data})
            return
        match event.mode:
            case "values":
                shown = {key: value for key, value in data.items() if key != "__interrupt__"}
                self._emit("values", "values", event.ns, shown)
            case "updates":
                for node, values in data.items():
                    if node != "__interrupt__":
                        self._emit("updates", "updates", event.ns, {"node": node, "values": values})
            case "tasks":
                self._emit("tasks", "tasks", event.ns, data)
            case "checkpoint_refs":
                self._emit("checkpoints", "checkpoints", event.ns, data)
            case _:
                pass  # `checkpoints` and `debug` are of the other generation

    def _end(self, event: RunFinished | RunInterrupted | RunFailed | RunCancelled) -> None:
        self._at = event.at
        for path in sorted(self._subgraphs, key=len, reverse=True):  # of agents that tell of no nodes' ends
            self._subgraphs.remove(path)
            self._ended.append(path)
        self._end_subgraphs(event)
        match event:
            case RunFinished(incomplete="recursion_limit"):
                self._lifecycle("failed", error=RECURSION_LIMIT)
            case RunFinished():
                self._lifecycle("completed")
            case RunInterrupted():
                for asked in event.interrupts:
                    question = {"interrupt_id": asked.id, "payload": asked.value, "value": asked.value}
                    self._emit("input", "input.requested", (), question)
                self._lifecycle("interrupted")
            case RunFailed():
                self._lifecycle("failed", error=str(failure(event)["message"]))
            case RunCancelled():
                self._lifecycle("interrupted", reason=event.reason)


def _within(tool: ToolStarted) -> Namespace:
    """The namespace of what runs inside a tool call."""
    return tuple(str(tool.metadata.get("langgraph_checkpoint_ns", "")).split("|"))


def _block_events(event: BlockStarted | ReasoningDelta | ArgsDelta | BlockFinished) -> list[dict[str, Any]]:
    match event:
        case BlockStarted(kind="media"):
            return []  # it is told in one piece
        case BlockStarted():
            return [{"event": "content-block-start", "content": _opened(event)}]
        case ReasoningDelta():
            delta = {"type": "reasoning-delta", "reasoning": event.text}
            return [{"event": "content-block-delta", "delta": delta}]
        case ArgsDelta():  # two forms of the same: older clients read `content`, others `delta`
            piece = {"type": "tool_call_chunk", "args": event.text}
            return [{"event": "content-block-delta", "delta": {"type": "tool-call-delta", "args": event.text},
                     "content": piece}]  # fmt: skip
        case BlockFinished():
            content = _closed(event)
            start = [{"event": "content-block-start", "content": content}] if event.kind == "media" else []
            return [*start, {"event": "content-block-finish", "content": content}]


def _opened(event: BlockStarted) -> dict[str, Any]:
    match event.kind:
        case "tool_call":
            call = {"id": event.call_id, "name": event.name, "args": "", "index": event.index}
            return {"type": "tool_call_chunk", **call}
        case "reasoning":
            return {"type": "reasoning", "reasoning": ""}
        case "refusal":
            return {"type": "non_standard", "value": {"refusal": ""}}
        case _:
            return {"type": "text", "text": ""}


def _closed(event: BlockFinished) -> dict[str, Any]:
    match event.kind:
        case "tool_call" if event.invalid:
            call = {"id": event.call_id, "name": event.name, "args": event.text}
            return {"type": "invalid_tool_call", **call, "error": None}
        case "tool_call":
            return {"type": "tool_call", "id": event.call_id, "name": event.name, "args": orjson.loads(event.text)}
        case "reasoning":
            encrypted = event.data.get("encrypted")
            extras = {"extras": {"encrypted_content": encrypted}} if encrypted else {}
            return {"type": "reasoning", "reasoning": event.text, **extras}
        case "refusal":
            return {"type": "non_standard", "value": {"refusal": event.text}}
        case "media":
            return event.data
        case "text":
            cited = {"annotations": list(event.annotations)} if event.annotations else {}
            return {"type": "text", "text": event.text, **cited}


def _emptied(block: Mapping[str, Any]) -> dict[str, Any]:
    return {"type": "text", "text": ""} if block.get("type") == "text" else dict(block)


def _tool_events(event: ToolStarted | ToolProgress | ToolFinished) -> list[dict[str, Any]]:
    match event:
        case ToolStarted():
            return [{"event": "tool-started", "tool_name": event.name, "input": event.input}]
        case ToolProgress():
            text = event.data if isinstance(event.data, str) else orjson.dumps(event.data).decode()
            return [{"event": "tool-output-delta", "delta": text}]
        case ToolFinished(status="pending"):
            return []
        case ToolFinished(status="error"):
            text = event.output if isinstance(event.output, str) else orjson.dumps(event.output).decode()
            return [{"event": "tool-error", "message": text}]
        case ToolFinished():
            message = orjson.loads(tool_message(event, event.message_id)) if event.message_id else event.output
            return [{"event": "tool-finished", "output": message}]
