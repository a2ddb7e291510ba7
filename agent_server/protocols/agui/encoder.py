"""Events -> AG-UI 1.0 events.

Every message, tool call, reasoning span and step has an entry of its own, so that any number of them may be open at
once (AG-UI 1.0, "Events"). Message ids are those of the agent's state. What an earlier run has told is never streamed
again; snapshots restate it.
"""

from __future__ import annotations

from typing import Any, assert_never

from agent_server import events as ev
from agent_server.framing import Frame, to_json
from agent_server.protocols.agui.messages import CallNames, Seen, content, result_id
from agent_server.protocols.agui.questions import questions
from agent_server.protocols.agui.scopes import Scopes, frame
from agent_server.protocols.agui.snapshots import Snapshots

PROTOCOL_VERSION = "1.0"

Json = dict[str, Any]


class _Message:
    """A message that is being streamed. `owner` is the subagent it is from, or ""."""

    __slots__ = ("calls", "id", "owner", "spans", "state_id", "texts")

    def __init__(self, name: str, state_id: str, owner: str) -> None:
        self.id = name
        self.state_id = state_id
        self.owner = owner
        self.spans = 0
        self.texts: list[str] = []
        self.calls: list[Json] = []


class AguiEncoder:
    """A fold of a run's events into frames.

    `thread_id`, `run_id` and `parent_run_id` are the client's own words for them, `seen` is what it has of the thread.
    `raw` shows LangChain's own events where the run has recorded them.
    """

    def __init__(
        self,
        thread_id: str = "",
        run_id: str = "",
        *,
        parent_run_id: str = "",
        seen: Seen | None = None,
        raw: bool = False,
    ) -> None:
        self.seen = seen or Seen()
        self.thread_id = thread_id
        self.run_id = run_id
        self._parent_run_id = parent_run_id
        self._raw = raw
        self._client_tools: frozenset[str] = frozenset()
        self._messages: dict[str, _Message] = {}
        self._names: set[str] = set(self.seen.ids)  # ids of messages that are taken
        self._texts: dict[str, str] = {}  # message -> its id, while its text is open
        self._spans: dict[tuple[str, int], str] = {}  # open reasoning
        self._args: dict[tuple[str, int], str] = {}  # open tool calls
        self._calls = CallNames(name for names in self.seen.calls.values() for name in names)
        self._running: dict[str, str] = {}  # calls whose tools run, and their wire ids
        self._owners: dict[str, str] = {}  # wire id of a call -> the subagent that made it
        self._known = {name for names in self.seen.calls.values() for name in names}  # calls that the client has
        self._pending: dict[str, None] = {}  # calls of the client's tools
        self._scopes = Scopes()
        self._models: set[tuple[str, str]] = set()
        self.snapshots = Snapshots(self.seen)
        self._has_values = False

    def feed(self, event: ev.Event) -> list[Frame]:
        """The frames that one event causes."""
        if type(event) is ev.TextDelta:  # the hot path
            name = self._texts.get(event.message_id)
            if name is not None:
                return [_text(name, event.text)]
        return self._dispatch(event)

    def _dispatch(self, event: ev.Event) -> list[Frame]:
        match event:
            case ev.TextDelta() | ev.RefusalDelta() | ev.ReasoningDelta() | ev.ArgsDelta():
                return self._on_delta(event)
            case ev.MessageStarted() | ev.BlockStarted() | ev.BlockFinished() | ev.MessageFinished():
                return self._on_message(event)
            case ev.ToolStarted():
                return self._on_tool_started(event)
            case ev.ToolFinished():
                return self._on_tool_finished(event)
            case ev.StepStarted():
                return self._scopes.step_started(event)
            case ev.StepFinished():
                return self._scopes.step_finished(event)
            case ev.StatePart():
                return self._on_state(event)
            case ev.Custom() | ev.ToolProgress() | ev.RawEvent():
                return self._on_other(event)
            case ev.Annotated():
                return []  # the end of its text has all annotations
            case ev.RunStarted():
                return self._on_started(event)
            case ev.RunRetried():
                return self._on_retried()
            case ev.RunFinished() | ev.RunInterrupted() | ev.RunFailed() | ev.RunCancelled():
                return self._on_terminal(event)
            case _:
                assert_never(event)

    def _on_other(self, event: ev.Custom | ev.ToolProgress | ev.RawEvent) -> list[Frame]:
        match event:
            case ev.Custom():
                return [_custom(event.name, event.data)]
            case ev.ToolProgress():
                call = self._calls.of(event.call_id)
                return [_custom("tool_progress", {"toolCallId": call, "data": event.data})]
            case ev.RawEvent():
                return [frame("RAW", event=event.event, source="langchain")] if self._raw else []
            case _:
                assert_never(event)

    # -- the run -------------------------------------------------------------------------------------------

    def _on_started(self, event: ev.RunStarted) -> list[Frame]:
        self.run_id = self.run_id or event.run_id
        self.thread_id = self.thread_id or event.thread_id or event.run_id
        self._client_tools = frozenset(event.client_tools)
        return [self.started()]

    def started(self) -> Frame:
        """The first frame of the run."""
        return frame(
            "RUN_STARTED",
            threadId=self.thread_id,
            runId=self.run_id,
            protocolVersion=PROTOCOL_VERSION,
            parentRunId=self._parent_run_id,
        )

    def _on_retried(self) -> list[Frame]:
        """Whatever the last attempt left open is closed; the state's next snapshot tells what holds of it."""
        frames = [frame("TEXT_MESSAGE_END", messageId=name) for name in self._texts.values()]
        frames += [each for name in self._spans.values() for each in _span_end(name)]
        frames += [_call_end(call) for call in self._args.values()]
        for table in (self._messages, self._texts, self._spans, self._args):
            table.clear()
        return [*frames, *self._scopes.close_steps(), *self._scopes.close("suspended")]

    def _on_terminal(self, event: ev.Terminal) -> list[Frame]:
        usage = self._usage(event.usage)
        match event:
            case ev.RunFailed():
                frames = self._scopes.close("error")
                return [*frames, frame("RUN_ERROR", message=event.message, code=event.code, usage=usage)]
            case ev.RunCancelled():
                return [*self._scopes.close("suspended"), self._finished({"type": "cancelled"}, usage)]
            case ev.RunInterrupted():
                return self._ask(event, usage)
            case ev.RunFinished():
                frames = [*self._scopes.close("success"), *self.snapshots.messages(whole=False)]
                incomplete = {"incomplete": event.incomplete} if event.incomplete else None
                return [
                    *frames,
                    self._finished(self._success(), usage, result=event.custom_outputs or None, metadata=incomplete),
                ]
            case _:
                assert_never(event)

    def _ask(self, event: ev.RunInterrupted, usage: list[Json] | None) -> list[Frame]:
        """A run that waits for the client's tools alone has succeeded; one that asks anything else is interrupted."""
        frames = [*self._scopes.close("suspended"), *self.snapshots.state(), *self.snapshots.messages(whole=True)]
        if event.interrupts and all(each.kind == "client_tool" for each in event.interrupts):
            for interrupt in event.interrupts:
                self._pending |= {self._calls.of(call): None for call in interrupt.call_ids}
            return [*frames, self._finished(self._success(), usage)]
        asked = questions(event.interrupts, self.run_id, self._calls.of)
        return [*frames, self._finished({"type": "interrupt", "interrupts": asked}, usage)]

    def _success(self) -> Json:
        pending = list(self._pending)
        return {"type": "success", **({"pendingToolCallIds": pending} if pending else {})}

    def _finished(self, outcome: Json, usage: list[Json] | None, **more: Any) -> Frame:
        ends = {"threadId": self.thread_id, "runId": self.run_id, "outcome": outcome, "usage": usage}
        return frame("RUN_FINISHED", **ends, **more)

    def _usage(self, usage: ev.Usage | None) -> list[Json] | None:
        """Totals, labelled with the model where there was only one."""
        if usage is None:
            return None
        provider, model = next(iter(self._models)) if len(self._models) == 1 else ("", "")
        parts = {
            "reasoningTokens": usage.reasoning_tokens,
            "cachedInputTokens": usage.cached_tokens,
            "cacheWriteInputTokens": usage.cache_write_tokens,
        }
        return [
            {
                **{name: value for name, value in (("provider", provider), ("model", model)) if value},
                "inputTokens": usage.input_tokens,
                "outputTokens": usage.output_tokens,
                "totalTokens": usage.total_tokens,
                **{name: value for name, value in parts.items() if value},
            }
        ]

    # -- messages ------------------------------------------------------------------------------------------

    def _on_message(
        self, event: ev.MessageStarted | ev.BlockStarted | ev.BlockFinished | ev.MessageFinished
    ) -> list[Frame]:
        match event:
            case ev.MessageStarted():
                return self._on_message_started(event)
            case ev.BlockStarted():
                return self._on_block_started(event)
            case ev.BlockFinished():
                return self._on_block_finished(event)
            case ev.MessageFinished():
                return self._on_message_finished(event)
            case _:
                assert_never(event)

    def _on_message_started(self, event: ev.MessageStarted) -> list[Frame]:
        owner, frames = self._scopes.of_message(event)
        name = event.source_id or f"{self.run_id}:{event.message_id}"
        if name in self._names:  # some providers use their ids again
            name = f"{name}:{event.message_id}"
        self._names.add(name)
        self._messages[event.message_id] = _Message(name, event.source_id, owner)
        metadata = event.metadata
        self._models.add((metadata.get("ls_provider", ""), metadata.get("ls_model_name", "")))
        return frames

    def _on_block_started(self, event: ev.BlockStarted) -> list[Frame]:
        message = self._messages[event.message_id]
        if event.kind == "reasoning":
            message.spans += 1
            name = self._spans[event.message_id, event.index] = f"{message.id}:reasoning:{message.spans}"
            owner = message.owner
            return [
                frame("REASONING_START", messageId=name, subagentRunId=owner),
                frame("REASONING_MESSAGE_START", messageId=name, role="reasoning", subagentRunId=owner),
            ]
        if event.kind == "tool_call":
            call = self._args[event.message_id, event.index] = self._calls.add(event.call_id)
            self._owners[call] = message.owner
            return [self._call_start(call, event.name, message.id, message.owner)]
        return []  # a text begins with its first piece

    def _call_start(self, call: str, name: str, parent: str, owner: str) -> Frame:
        self._known.add(call)
        if name in self._client_tools:
            self._pending[call] = None
        start = {"toolCallId": call, "toolCallName": name, "parentMessageId": parent, "subagentRunId": owner}
        return frame("TOOL_CALL_START", **start)

    def _on_delta(self, event: ev.TextDelta | ev.RefusalDelta | ev.ReasoningDelta | ev.ArgsDelta) -> list[Frame]:
        place = (event.message_id, event.index)
        match event:
            case ev.ArgsDelta():
                body = {"type": "TOOL_CALL_ARGS", "toolCallId": self._args[place], "delta": event.text}
                return [Frame("TOOL_CALL_ARGS", body)]
            case ev.ReasoningDelta():
                kind = "REASONING_MESSAGE_CONTENT"
                return [Frame(kind, {"type": kind, "messageId": self._spans[place], "delta": event.text})]
            case ev.TextDelta() | ev.RefusalDelta():
                return self._on_text(event)
            case _:
                assert_never(event)

    def _on_text(self, event: ev.TextDelta | ev.RefusalDelta) -> list[Frame]:
        message = self._messages[event.message_id]
        frames: list[Frame] = []
        if event.message_id not in self._texts:
            self._texts[event.message_id] = message.id
            start = frame("TEXT_MESSAGE_START", messageId=message.id, role="assistant", subagentRunId=message.owner)
            frames.append(start)
        return [*frames, _text(message.id, event.text)]

    def _on_block_finished(self, event: ev.BlockFinished) -> list[Frame]:
        message = self._messages[event.message_id]
        match event.kind:
            case "text" | "refusal":
                message.texts.append(event.text)
                annotations = {"annotations": list(event.annotations)} if event.annotations else None
                name = self._texts.pop(event.message_id, None)
                return [frame("TEXT_MESSAGE_END", messageId=name, metadata=annotations)] if name is not None else []
            case "reasoning":
                name = self._spans.pop((event.message_id, event.index))
                return _span_end(name, str(event.data.get("encrypted") or ""))
            case "tool_call":
                call = self._args.pop((event.message_id, event.index))
                if event.invalid:  # nobody can run it
                    self._pending.pop(call, None)
                function = {"name": event.name, "arguments": event.text}
                message.calls.append({"id": call, "type": "function", "function": function})
                return [_call_end(call)]
            case "media":
                return [_custom("media", {"messageId": message.id, "content": event.data})]
            case _:
                assert_never(event.kind)

    def _on_message_finished(self, event: ev.MessageFinished) -> list[Frame]:
        message = self._messages.pop(event.message_id)
        if not message.texts and not message.calls:
            return []
        told: Json = {"id": message.id, "role": "assistant"}
        if (text := "".join(message.texts)) or not message.calls:
            told["content"] = text
        if message.calls:
            told["toolCalls"] = message.calls
        if message.owner:
            told["subagentRunId"] = message.owner
        self.snapshots.tell(told, str(event.message.get("id") or message.state_id))
        return []

    # -- tools ---------------------------------------------------------------------------------------------

    def _on_tool_started(self, event: ev.ToolStarted) -> list[Frame]:
        """A call that the client has not heard of is announced: one by code, or by a model that is not shown."""
        is_new = event.call_id not in self._calls and event.call_id not in self._known
        call = self._calls.add(event.call_id) if is_new else self._calls.of(event.call_id)
        self._running[event.call_id] = call
        parent = self._calls.of(event.parent_call_id) if event.parent_call_id else ""
        owner = self._owners.setdefault(call, self._owner_inside(parent))
        self._scopes.tool_started(event, call, owner)
        if call in self._known:
            return []
        frames = [self._call_start(call, event.name, "", owner)]
        if event.input:
            arguments = to_json(event.input).decode()
            frames.append(Frame("TOOL_CALL_ARGS", {"type": "TOOL_CALL_ARGS", "toolCallId": call, "delta": arguments}))
        return [*frames, _call_end(call)]

    def _owner_inside(self, call: str) -> str:
        """The subagent that is inside a call, where it has been heard."""
        return call if self._scopes.is_open(call) else self._owners.get(call, "")

    def _on_tool_finished(self, event: ev.ToolFinished) -> list[Frame]:
        frames = self._scopes.tool_finished(event)
        call = self._running.pop(event.call_id, None) or self._calls.of(event.call_id)
        if event.status == "pending":
            return frames
        self._pending.pop(call, None)
        owner = self._owners.get(call, "")
        result: Json = {"messageId": result_id(call), "toolCallId": call, "content": content(event.output)}
        tagged = {"subagentRunId": owner} if owner else {}
        failed = {"metadata": {"status": "error"}} if event.status == "error" else {}
        self.snapshots.tell(
            {"id": result_id(call), "role": "tool", "content": result["content"], "toolCallId": call, **tagged}
        )
        body = {"type": "TOOL_CALL_RESULT", **result, "role": "tool", **tagged, **failed}
        return [*frames, Frame("TOOL_CALL_RESULT", body)]

    # -- state ---------------------------------------------------------------------------------------------

    def _on_state(self, event: ev.StatePart) -> list[Frame]:
        if event.mode != "values" or event.ns:
            return []  # other modes are recorded for other wires
        frames = self.snapshots.take(event.data)
        if not self._has_values:  # the state that the run found
            self._has_values = True
            self._names |= self.snapshots.ids()
            if not self._owners:
                self._calls = self.snapshots.names()
        return frames


def _text(name: str, text: str) -> Frame:
    return Frame("TEXT_MESSAGE_CONTENT", {"type": "TEXT_MESSAGE_CONTENT", "messageId": name, "delta": text})


def _span_end(name: str, encrypted: str = "") -> list[Frame]:
    frames = [frame("REASONING_MESSAGE_END", messageId=name)]
    if encrypted:
        value = {"subtype": "message", "entityId": name, "encryptedValue": encrypted}
        frames.append(frame("REASONING_ENCRYPTED_VALUE", **value))
    return [*frames, frame("REASONING_END", messageId=name)]


def _call_end(call: str) -> Frame:
    return Frame("TOOL_CALL_END", {"type": "TOOL_CALL_END", "toolCallId": call})


def _custom(name: str, value: Any) -> Frame:
    return Frame("CUSTOM", {"type": "CUSTOM", "name": name, "value": value})
