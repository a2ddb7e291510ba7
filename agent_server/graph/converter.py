"""LangChain `astream_events` (version "v2") -> events.

The converter is a synchronous fold: feed it the stream events of one run of any Runnable or LangGraph graph,
then end it once. It closes what is open before it ends, so its output is well nested whatever happened. It is
the only place that knows how LangChain tells of a run.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Mapping
from typing import Any, ClassVar
from uuid import uuid5

from langchain_core.messages import AIMessage, AIMessageChunk, BaseMessage, ToolMessage
from langchain_core.runnables.schema import StreamEvent
from langgraph.errors import GraphBubbleUp

from agent_server import ids
from agent_server.events import (
    Custom,
    Event,
    MessageFinished,
    MessageStarted,
    RunCancelled,
    RunFailed,
    RunFinished,
    RunInterrupted,
    StepFinished,
    StepStarted,
    ToolStatus,
    Usage,
)
from agent_server.graph.content import finish_reason, usage
from agent_server.graph.interrupts import Interrupts
from agent_server.graph.jsonable import to_jsonable, to_text
from agent_server.graph.messages import OpenMessage
from agent_server.graph.outputs import messages_in, plain_answer, tool_message_in
from agent_server.graph.recording import Recording, message_metadata, raw_event, told_of
from agent_server.graph.tools import Tools

_METADATA = ("langgraph_node", "langgraph_step", "langgraph_checkpoint_ns", "ls_provider", "ls_model_name")
_OF_GRAPHS = ("on_chain_stream", "on_chain_end")
_HIDDEN_TAGS = frozenset({"nostream", "langsmith:nostream"})
_INCOMPLETE = {"length": "max_output_tokens", "content_filter": "content_filter"}


def now_ms() -> int:
    """Unix time in milliseconds."""
    return time.time_ns() // 1_000_000


class Converter:
    """Folds one run's stream events into events. `clock` gives the Unix milliseconds of the terminal event.

    `record` is what the log is to hold beside messages and tools (`recording`).
    """

    def __init__(
        self, run_id: str = "", *, clock: Callable[[], int] = now_ms, record: frozenset[str] = frozenset()
    ) -> None:
        self.run_id = run_id or ids.new_run_id()
        self._clock = clock
        self._recording = Recording(record)
        self._messages: dict[str, OpenMessage | None] = {}  # by the model's run id; None: not to be shown
        self._message_count = 0
        self._tools = Tools(self.run_id)
        self._steps: dict[str, StepStarted] = {}  # by the node's run id
        self._interrupts = Interrupts()
        self._seen: set[str] = set()  # ids of messages already told, or given as input
        self._counted: set[str | None] = set()  # ids of messages whose usage a model call told
        self._usage: Usage | None = None
        self._finish_reason = ""
        self._root_output: Any = None
        self._answered = False

    def feed(self, stream_event: StreamEvent) -> list[Event]:
        """The events that one stream event causes. Kinds of stream events not in the table cause none."""
        read = self._readers.get(stream_event["event"])
        told = read(self, stream_event) if read is not None else []
        if self._recording.raw and (raw := raw_event(stream_event)) is not None:
            told = [raw, *told]
        if self._recording.holds and told and stream_event["event"] not in _OF_GRAPHS:
            told = [*self._recording.release(), *told]
        return told

    def open_message(self, model_run_id: str) -> OpenMessage | None:
        """The message of a model call that has begun and not ended; chunks may go to its `add_chunk` directly."""
        return self._messages.get(model_run_id)

    @property
    def at_rest(self) -> bool:
        """Whether no step of the graph is open, and every tool call has its output."""
        return not self._steps and not self._tools.unanswered()

    # -- ends: exactly one of these, once ------------------------------------------------------------------

    def finish(self, *, incomplete: str | None = None) -> list[Event]:
        """The run ended by itself: what is open is closed, then `RunFinished` or `RunInterrupted`."""
        events = self._plain_answer()
        if self._interrupts.pending:
            events += self._close(tool_status="pending")
            interrupts = self._interrupts.resolve(self._tools.unanswered())
            return [*events, RunInterrupted(at=self._clock(), interrupts=interrupts, usage=self._usage)]
        events += self._close(tool_status="error")
        finished = RunFinished(
            at=self._clock(),
            usage=self._usage,
            finish_reason=self._finish_reason,
            incomplete=incomplete or _INCOMPLETE.get(self._finish_reason),  # type: ignore[arg-type]
            custom_outputs=self._custom_outputs(),
        )
        return [*events, finished]

    def fail(self, *, code: str, message: str, error_id: str, raised: BaseException | None = None) -> list[Event]:
        """The agent raised: what is open is closed, then `RunFailed`."""
        error, detail = told_of(raised) if self._recording.errors else ("", "")
        failed = RunFailed(
            at=self._clock(),
            code=code,
            message=message,
            error_id=error_id,
            usage=self._usage,
            error=error,
            detail=detail,
        )
        return [*self._close(tool_status="error"), failed]

    def cancel(self, reason: str) -> list[Event]:
        """The run was stopped: what is open is closed, then `RunCancelled`."""
        return [
            *self._close(tool_status="pending"),
            RunCancelled(at=self._clock(), reason=reason, usage=self._usage),
        ]

    def _close(self, *, tool_status: ToolStatus) -> list[Event]:
        events: list[Event] = self._recording.release()
        for message in self._messages.values():
            if message is not None:
                events += [*message.close_blocks(complete=False), MessageFinished(message.id)]
        events += self._tools.close(tool_status)
        events += [StepFinished(step.step, step.task_id) for step in reversed(self._steps.values())]
        self._messages.clear()
        self._steps.clear()
        return events

    # -- models --------------------------------------------------------------------------------------------

    def _on_model_start(self, event: Any) -> list[Event]:
        if _HIDDEN_TAGS.intersection(event.get("tags") or ()):
            self._messages[event["run_id"]] = None
        return []

    def _open(
        self, event: Any, source_id: str | None = None, *, whole: bool = False
    ) -> tuple[OpenMessage | None, list[Event]]:
        run_id = event["run_id"]
        if run_id in self._messages:
            return self._messages[run_id], []
        metadata = event.get("metadata") or {}
        message = OpenMessage(
            self.run_id,
            self._message_count,
            self._tools.called,
            source_id=source_id or f"lc_run--{run_id}",
            parent_call_id=self._tools.enclosing(event.get("parent_ids") or ()),
        )
        self._message_count += 1
        self._messages[run_id] = message
        self._answered = self._answered or not message.parent_call_id
        started = MessageStarted(
            message.id,
            step=metadata.get("langgraph_node", ""),
            ns=namespace(metadata),
            source_id=message.source_id,
            parent_call_id=message.parent_call_id,
            metadata=self._metadata(event, metadata),
            whole=whole and self._recording.messages,
        )
        return message, [started]

    def _metadata(self, event: Any, metadata: Mapping[str, Any]) -> dict[str, Any]:
        if self._recording.messages:
            return message_metadata(event)
        return dict(to_jsonable({key: metadata[key] for key in _METADATA if key in metadata}))

    def _on_model_stream(self, event: Any) -> list[Event]:
        chunk = event["data"]["chunk"]
        message, events = self._open(event, chunk.id)
        return events + message.add_chunk(chunk) if message is not None else events

    def _on_model_end(self, event: Any) -> list[Event]:
        output = event["data"]["output"]
        if not isinstance(output, BaseMessage):
            return self._end_message(event, None)
        message, events = self._open(event, output.id, whole=True)
        self._count(output)
        self._counted.add(output.id)
        if message is not None:
            self._note_finish(message, output)
            events += message.add_whole(output)
        return events + self._end_message(event, output)

    def _on_model_error(self, event: Any) -> list[Event]:
        """Told by the tap alone: the call failed, but the run may go on with another model."""
        message = self._messages.pop(event["run_id"], None)
        return [*message.close_blocks(complete=False), MessageFinished(message.id)] if message is not None else []

    def _end_message(self, event: Any, output: BaseMessage | None) -> list[Event]:
        message = self._messages.pop(event["run_id"], None)
        if message is None:
            return []
        whole = to_jsonable(output.model_dump()) if output is not None else {}
        self._seen.add(output.id if output is not None and output.id else message.source_id)
        finished = MessageFinished(message.id, whole, usage(output), finish_reason(output))
        return [*message.close_blocks(), finished]

    def _count(self, message: BaseMessage) -> None:
        counted = usage(message)
        if counted is not None:
            self._usage = counted if self._usage is None else self._usage + counted

    def _note_finish(self, opened: OpenMessage, message: BaseMessage) -> None:
        if not opened.parent_call_id:
            self._finish_reason = finish_reason(message)

    def _on_llm_stream(self, event: Any) -> list[Event]:
        message, events = self._open(event)
        chunk = event["data"]["chunk"]  # text where the model is the root, a generation where it is not
        text = chunk if isinstance(chunk, str) else chunk.text
        return events + message.add_text(text) if message is not None else events

    def _on_llm_end(self, event: Any) -> list[Event]:
        output = event["data"]["output"] or {}
        generations = output.get("generations") or [[]]
        message, events = self._open(event)
        if message is not None and not message.blocks and generations[0]:
            events += message.add_text(generations[0][0]["text"])
        return events + self._end_message(event, None)

    # -- tools ---------------------------------------------------------------------------------------------

    def _on_tool_start(self, event: Any) -> list[Event]:
        step = (event.get("metadata") or {}).get("langgraph_node", "")
        return self._tools.start(event, step, *self._placed(event))

    def _placed(self, event: Any) -> tuple[tuple[str, ...], dict[str, Any]]:
        """Where a tool runs, as runs that record messages tell it."""
        if not self._recording.messages:
            return (), {}
        return namespace(event.get("metadata") or {}), message_metadata(event)

    def _on_tool_end(self, event: Any) -> list[Event]:
        output = event["data"].get("output")
        message = tool_message_in(output, self._tools.call_of(event))
        self._name(message)
        return self._tools.end(event, message if message is not None else output)

    def _name(self, message: ToolMessage | None) -> None:
        """A tool message that is told by its id keeps it in the state; else the state would make one up."""
        if message is None:
            return
        if self._recording.messages and not message.id:
            message.id = str(uuid5(ids.run_uuid(self.run_id), f"{message.tool_call_id}/{len(self._seen)}"))
        if message.id:
            self._seen.add(message.id)

    def _on_tool_error(self, event: Any) -> list[Event]:
        error = event["data"].get("error")
        if isinstance(error, GraphBubbleUp):
            self._interrupts.raised_by(self._tools.call_of(event), error)
            return []
        self._tools.failed(event)
        return []

    # -- chains and graph nodes ----------------------------------------------------------------------------

    def _on_chain_start(self, event: Any) -> list[Event]:
        is_root = not event.get("parent_ids")
        step = None if is_root else step_of(event)
        if step is None and not is_root:
            return []
        for message in messages_in(event["data"].get("input")):
            if message.id:
                self._seen.add(message.id)
            elif is_root:
                message.id = f"input-{self.run_id}-{len(self._seen)}"
                self._seen.add(message.id)
        if step is None:
            return []
        self._steps[event["run_id"]] = step
        return [step]

    def _on_chain_stream(self, event: Any) -> list[Event]:
        if event.get("parent_ids"):
            return []
        ns, mode, chunk = unpack(event["data"].get("chunk"))
        if mode == "custom":
            return [*self._recording.values(), Custom("custom", to_jsonable(chunk), ns)]
        if isinstance(chunk, dict) and "__interrupt__" in chunk and mode in ("", "updates", "values"):
            if not ns:
                self._interrupts.seen(chunk["__interrupt__"])
            return self._recording.part(ns, mode, chunk)
        return self._recording.part(ns, mode, chunk) if mode else self._answer_chunk(event, chunk)

    def _answer_chunk(self, event: Any, chunk: Any) -> list[Event]:
        """What the root itself yields is its answer, unless a model inside it has told that already."""
        told = self._answered and event["run_id"] not in self._messages
        if told or not isinstance(chunk, str | AIMessageChunk):  # a whole message is told when the root ends
            return []
        message, events = self._open(event)
        if message is None:
            return events
        return events + (message.add_text(chunk) if isinstance(chunk, str) else message.add_chunk(chunk))

    def _on_chain_end(self, event: Any) -> list[Event]:
        output = event["data"].get("output")
        if not event.get("parent_ids"):
            self._root_output = output
            streamed = isinstance(output, AIMessage) and event["run_id"] in self._messages
            return self._on_model_end(event) if streamed else self._end_message(event, None)
        step = self._steps.pop(event["run_id"], None)
        if step is None:
            return []
        untold = self._untold(event, output)
        if self._recording.messages:
            self._recording.with_its_update(untold)
            untold = []
        return [*untold, StepFinished(step.step, step.task_id)]

    def _untold(self, event: Any, output: Any) -> list[Event]:
        """Messages that a node returned without a model or tool of LangChain's having told of them."""
        events: list[Event] = []
        for message in messages_in(output):
            if isinstance(message, ToolMessage):
                self._name(message)
                events += self._tools.answered(message, *self._placed(event))
            if not isinstance(message, AIMessage) or (message.id and message.id in self._seen):
                continue
            message.id = message.id or f"run-{self.run_id}-{self._message_count}"
            events += self._whole(event, message)
        return events

    def _whole(self, event: Any, message: BaseMessage) -> list[Event]:
        """A message that comes in one piece, under a run id of its own."""
        own = {**event, "run_id": f"{event['run_id']}/{message.id}"}
        opened, events = self._open(own, message.id, whole=True)
        if message.id not in self._counted:
            self._count(message)
        if opened is not None:
            self._note_finish(opened, message)
            events += opened.add_whole(message)
        return events + self._end_message(own, message)

    def _on_custom_event(self, event: Any) -> list[Event]:
        return [Custom(event["name"], to_jsonable(event["data"]), namespace(event.get("metadata") or {}))]

    # -- a Runnable without messages -----------------------------------------------------------------------

    def _plain_answer(self) -> list[Event]:
        """The output of a Runnable that told of no message is its answer."""
        if self._answered or self._interrupts.pending:
            return []
        answer = plain_answer(self._root_output)
        if answer is None or (isinstance(answer, AIMessage) and answer.id in self._seen):
            return []
        if isinstance(answer, BaseMessage):
            answer.id = answer.id or f"run-{self.run_id}"
            return self._whole({"run_id": "root"}, answer)
        message, events = self._open({"run_id": "root"}, f"run-{self.run_id}")
        if message is not None:
            events += message.add_text(to_text(answer))
        return events + self._end_message({"run_id": "root"}, None)

    def _custom_outputs(self) -> dict[str, Any]:
        output = self._root_output
        found = output.get("custom_outputs") if isinstance(output, Mapping) else None
        return dict(to_jsonable(found)) if isinstance(found, Mapping) else {}

    _readers: ClassVar[dict[str, Callable[[Converter, Any], list[Event]]]] = {
        "on_chat_model_start": _on_model_start,
        "on_chat_model_stream": _on_model_stream,
        "on_chat_model_end": _on_model_end,
        "on_chat_model_error": _on_model_error,
        "on_llm_start": _on_model_start,
        "on_llm_stream": _on_llm_stream,
        "on_llm_end": _on_llm_end,
        "on_tool_start": _on_tool_start,
        "on_tool_end": _on_tool_end,
        "on_tool_error": _on_tool_error,
        "on_chain_start": _on_chain_start,
        "on_chain_stream": _on_chain_stream,
        "on_chain_end": _on_chain_end,
        "on_custom_event": _on_custom_event,
    }


def namespace(metadata: Mapping[str, Any]) -> tuple[str, ...]:
    """The subgraph a run is in: LangGraph's checkpoint namespace without the node's own segment."""
    ns = metadata.get("langgraph_checkpoint_ns") or ""
    return tuple(ns.split("|"))[:-1]


def step_of(event: Any) -> StepStarted | None:
    """The node that a chain run is the run of, or None for runs inside a node."""
    metadata = event.get("metadata") or {}
    node = metadata.get("langgraph_node")
    if node != event["name"] or not any(tag.startswith("graph:step:") for tag in event.get("tags") or ()):
        return None
    return StepStarted(node, (metadata.get("langgraph_checkpoint_ns") or "").rpartition(":")[2], namespace(metadata))


def unpack(chunk: Any) -> tuple[tuple[str, ...], str, Any]:
    """A chunk of a graph's stream as (namespace, mode, data); the mode is "" for a single-mode stream."""
    match chunk if isinstance(chunk, tuple) else None:
        case (tuple() as ns, str() as mode, data):
            return ns, mode, data
        case (str() as mode, data):
            return (), mode, data
    return (), "", chunk
