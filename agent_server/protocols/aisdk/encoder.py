"""Events -> UI message chunks of the AI SDK (UI message stream protocol, version 1; `ai` 5, 6 and 7).

One message of the assistant is one run, or several where it asked: what goes on after an approval or a client's tool
output goes on in the same message. Text and reasoning of one block are one part, named by message and block, so that
models that speak at once stay apart. A step is a model call with its tools; a new one begins when no message is open
and no call waits, as the end of a step ends the parts that are open (`processUIMessageStream`).

The three versions read the same chunks but for approvals: `ai` 5 refuses `tool-approval-request` and
`tool-output-denied`, and is told of questions by `data-interrupt`.
"""

from __future__ import annotations

from collections.abc import Collection, Iterable, Mapping
from typing import Any, Literal, assert_never

import orjson

from agent_server import events as ev
from agent_server import ids
from agent_server.framing import Frame
from agent_server.protocols.aisdk import parts

SdkVersion = Literal[5, 6, 7]
_APPROVALS_SINCE = 6
_MADE_UP = 0xE000  # places of calls that stand for questions about no call of a model
_CUT_OFF = "The call was not written to its end."
_NO_OBJECT = "The arguments are no JSON object."
_DENIED = "The call was denied."
_SERVER: Mapping[str, bool] = {"dynamic": True, "providerExecuted": True}
_CLIENT: Mapping[str, bool] = {}


def message_id(run_id: str) -> str:
    """The id of the message that begins with a run."""
    return f"msg_{run_id}"


def approval_id(interrupt: ev.Interrupt, place: int) -> str:
    """The id of one question of an interrupt."""
    return f"{interrupt.id}.{place}"


class AiSdkEncoder:
    """A fold of one message's events into chunks.

    `runs` is how many runs the message has; what stands between them is no end of it. `denied` are the calls that
    people refused. `version` is the client's, `name` the message's id where the client gave it one.
    """

    def __init__(self, version: SdkVersion = 6, *, runs: int = 1, denied: Collection[str] = (), name: str = "") -> None:
        self._asks = version >= _APPROVALS_SINCE
        self._to_come = runs
        self._denied = frozenset(denied)
        self._frames: list[Frame] = []
        self._message = name
        self._tells_start = True
        self._run_id = ""
        self._client_tools: frozenset[str] = frozenset()
        self._hidden: set[str] = set()  # messages and calls inside a tool
        self._messages: set[str] = set()  # open ones
        self._parts: dict[tuple[str, int], str] = {}  # open texts and reasoning
        self._inputs: dict[tuple[str, int], ev.BlockStarted] = {}  # calls whose arguments are being written
        self._calls: dict[str, Mapping[str, bool]] = {}  # announced: how they are marked
        self._unanswered: dict[str, None] = {}
        self._asked: list[str] = []  # calls that people were last asked about
        self._sources: set[str] = set()
        self._in_step = False
        self._usage: ev.Usage | None = None

    def feed(self, event: ev.Event) -> list[Frame]:
        """The chunks that one event causes."""
        if type(event) is ev.TextDelta:  # the hot path
            part = self._parts.get((event.message_id, event.index))
            if part is None:
                return []
            return [Frame("text-delta", {"type": "text-delta", "id": part, "delta": event.text})]
        self._dispatch(event)
        frames, self._frames = self._frames, []
        return frames

    def past(self, events: Iterable[ev.Event]) -> None:
        """What the client has of the message already. The next run tells the message's start again."""
        for event in events:
            self.feed(event)
        self._tells_start = True

    def _dispatch(self, event: ev.Event) -> None:
        match event:
            case ev.RunStarted():
                self._on_started(event)
            case ev.MessageStarted() | ev.MessageFinished():
                self._on_message(event)
            case ev.BlockStarted():
                self._on_block_started(event)
            case ev.TextDelta() | ev.RefusalDelta() | ev.ReasoningDelta() | ev.ArgsDelta():
                self._on_delta(event)
            case ev.Annotated():
                self._on_annotated(event)
            case ev.BlockFinished():
                self._on_block_finished(event)
            case ev.ToolStarted():
                self._on_tool_started(event)
            case ev.ToolProgress():
                self._output(event.call_id, "tool-output-available", output=event.data, preliminary=True)
            case ev.ToolFinished():
                self._on_tool_finished(event)
            case ev.Custom():
                self._emit(**parts.data_part(event))
            case ev.RunRetried():
                self._unanswered.clear()
                self._close()
            case ev.RunFinished() | ev.RunInterrupted() | ev.RunFailed() | ev.RunCancelled():
                self._on_terminal(event)
            case ev.StepStarted() | ev.StepFinished() | ev.StatePart() | ev.RawEvent():
                pass  # a step of this wire is a model call; state and raw events are recorded for others
            case _:
                assert_never(event)

    def _emit(self, kind: str = "", /, **data: Any) -> None:
        chunk = {"type": kind, **data} if kind else data
        self._frames.append(Frame(chunk["type"], chunk))

    # -- the message ---------------------------------------------------------------------------------------

    def _on_started(self, event: ev.RunStarted) -> None:
        self._message = self._message or message_id(event.run_id)
        self._run_id = event.run_id
        self._hidden.clear()
        self._client_tools = frozenset(event.client_tools)
        if self._tells_start:
            self._tells_start = False
            self._emit("start", messageId=self._message, messageMetadata={"runId": event.run_id})
        for call_id in self._asked:
            if call_id in self._denied:
                self._unanswered.pop(call_id, None)
                if self._asks:
                    self._emit("tool-output-denied", toolCallId=call_id)
                else:
                    self._emit("tool-output-error", toolCallId=call_id, errorText=_DENIED, **self._calls[call_id])
        self._asked.clear()

    def _close(self) -> None:
        """Nothing stays open."""
        for part in self._parts.values():
            self._emit(_ENDS[part[0]], id=part)
        for started in self._inputs.values():
            self._refuse_input(started, "", _CUT_OFF)
        self._parts.clear()
        self._inputs.clear()
        self._messages.clear()
        self._end_step()

    def _end_step(self) -> None:
        if self._in_step:
            self._in_step = False
            self._emit("finish-step")

    def _on_terminal(self, event: ev.Terminal) -> None:
        if event.usage is not None:
            self._usage = event.usage if self._usage is None else self._usage + event.usage
        self._to_come -= 1
        if isinstance(event, ev.RunInterrupted):
            self._ask(event)
        self._close()
        if self._to_come > 0:
            return
        match event:
            case ev.RunFinished():
                self._finish(parts.finish_reason(event), event.custom_outputs)
            case ev.RunInterrupted():
                self._finish("tool-calls", {})
            case ev.RunFailed():
                self._emit("error", errorText=event.message)
            case ev.RunCancelled():
                self._emit("abort", reason=event.reason)
            case _:
                assert_never(event)

    def _finish(self, reason: str, custom_outputs: Mapping[str, Any]) -> None:
        metadata: dict[str, Any] = {}
        if self._usage is not None:
            metadata["usage"] = parts.usage(self._usage)
        if custom_outputs:
            metadata["customOutputs"] = dict(custom_outputs)
        self._emit("finish", finishReason=reason, **({"messageMetadata": metadata} if metadata else {}))

    # -- questions -----------------------------------------------------------------------------------------

    def _ask(self, event: ev.RunInterrupted) -> None:
        for interrupt in event.interrupts:
            calls = self._calls_of(interrupt)
            if interrupt.kind == "client_tool":  # its call is the question, and the client has the answer
                self._unanswered = {call: None for call in self._unanswered if call not in calls}
                continue
            self._asked += calls
            if not self._asks or not calls:
                self._emit("data-interrupt", id=interrupt.id, data=parts.question(interrupt, calls))
                continue
            for place, call_id in enumerate(calls):
                why = parts.reason(interrupt, place)
                approval = {"approvalId": approval_id(interrupt, place), "toolCallId": call_id}
                self._emit("tool-approval-request", **approval, **({"reason": why} if why else {}))

    def _calls_of(self, interrupt: ev.Interrupt) -> list[str]:
        """The calls that an interrupt is about, one for each of its questions, and each of them announced."""
        questions = parts.questions(interrupt)
        calls = list(interrupt.call_ids)
        if len(calls) != len(questions):  # nobody knows which of them are which
            calls = [ids.call_id(self._run_id, _MADE_UP + len(self._calls) + n) for n in range(len(questions))]
        marks = _CLIENT if interrupt.kind == "client_tool" else _SERVER
        for call_id, (name, arguments) in zip(calls, questions, strict=True):
            if call_id not in self._calls:
                self._announce(call_id, name, arguments, marks)
        return calls

    # -- texts ---------------------------------------------------------------------------------------------

    def _on_message(self, event: ev.MessageStarted | ev.MessageFinished) -> None:
        if isinstance(event, ev.MessageFinished):
            self._messages.discard(event.message_id)
            return
        if event.parent_call_id:
            self._hidden.add(event.message_id)
            return
        if not self._messages and not self._unanswered:
            self._end_step()
        if not self._in_step:
            self._in_step = True
            self._emit("start-step")
        self._messages.add(event.message_id)

    def _on_block_started(self, event: ev.BlockStarted) -> None:
        if event.message_id in self._hidden:
            if event.call_id:
                self._hidden.add(event.call_id)
            return
        place = (event.message_id, event.index)
        if event.kind == "tool_call":
            if event.call_id in self._unanswered:
                return  # a client tells calls apart by their ids alone
            marks = self._marks(event.name)
            self._inputs[place] = event
            self._calls[event.call_id] = marks
            self._unanswered[event.call_id] = None
            self._emit("tool-input-start", toolCallId=event.call_id, toolName=event.name, **marks)
        elif event.kind != "media":
            prefix = "r" if event.kind == "reasoning" else "t"
            part = self._parts[place] = f"{prefix}.{event.message_id}.{event.index}"
            self._emit(_STARTS[prefix], id=part)

    def _on_delta(self, event: ev.TextDelta | ev.RefusalDelta | ev.ReasoningDelta | ev.ArgsDelta) -> None:
        place = (event.message_id, event.index)
        if isinstance(event, ev.ArgsDelta):
            if (started := self._inputs.get(place)) is not None:
                self._emit("tool-input-delta", toolCallId=started.call_id, inputTextDelta=event.text)
        elif (part := self._parts.get(place)) is not None:
            self._emit(_DELTAS[part[0]], id=part, delta=event.text)

    def _on_annotated(self, event: ev.Annotated) -> None:
        part = self._parts.get((event.message_id, event.index))
        source = parts.source(event.annotation) if part is not None else None
        if source is not None and (named := source.get("url") or source["title"]) not in self._sources:
            self._sources.add(named)
            self._emit(**source, sourceId=f"s.{len(self._sources) - 1}")

    def _on_block_finished(self, event: ev.BlockFinished) -> None:
        place = (event.message_id, event.index)
        if event.kind == "tool_call":
            if (started := self._inputs.pop(place, None)) is not None:
                self._on_input(started, event)
        elif event.kind == "media":
            if event.message_id not in self._hidden and (file := parts.file(event.data)) is not None:
                self._emit("file", **file)
        elif (part := self._parts.pop(place, None)) is not None:
            self._emit(_ENDS[part[0]], id=part)

    # -- tools ---------------------------------------------------------------------------------------------

    def _marks(self, name: str) -> Mapping[str, bool]:
        """A tool of the client is one that its code knows; the server's own have run by the time they are seen."""
        return _CLIENT if name in self._client_tools else _SERVER

    def _on_input(self, started: ev.BlockStarted, event: ev.BlockFinished) -> None:
        if event.invalid or not event.complete:
            self._refuse_input(started, event.text, _NO_OBJECT if event.complete else _CUT_OFF)
            return
        call = {"toolCallId": event.call_id, "toolName": event.name, **self._calls[event.call_id]}
        self._emit("tool-input-available", **call, input=orjson.loads(event.text or "{}"))

    def _refuse_input(self, started: ev.BlockStarted, text: str, why: str) -> None:
        self._unanswered.pop(started.call_id, None)
        call = {"toolCallId": started.call_id, "toolName": started.name, **self._calls[started.call_id]}
        self._emit("tool-input-error", **call, input=text, errorText=why)

    def _announce(self, call_id: str, name: str, arguments: Any, marks: Mapping[str, bool]) -> None:
        self._calls[call_id] = marks
        self._unanswered[call_id] = None
        self._emit("tool-input-available", toolCallId=call_id, toolName=name, **marks, input=arguments)

    def _on_tool_started(self, event: ev.ToolStarted) -> None:
        call_id = event.call_id
        written = next((place for place, started in self._inputs.items() if started.call_id == call_id), None)
        if event.parent_call_id:
            self._hidden.add(call_id)
        elif written is not None:  # it runs before its model has ended
            del self._inputs[written]
            self._announce(call_id, event.name, event.input, self._calls[call_id])
        elif call_id not in self._calls and call_id not in self._hidden:
            self._announce(call_id, event.name, event.input, _SERVER)

    def _on_tool_finished(self, event: ev.ToolFinished) -> None:
        if event.status == "pending":
            return  # an interrupt stopped it, or the run is over
        if event.status == "error":
            self._output(event.call_id, "tool-output-error", errorText=parts.text_of(event.output))
        else:
            self._output(event.call_id, "tool-output-available", output=event.output)
        self._unanswered.pop(event.call_id, None)

    def _output(self, call_id: str, kind: str, **output: Any) -> None:
        marks = self._calls.get(call_id)
        if marks is not None and call_id not in self._denied and call_id not in self._hidden:
            self._emit(kind, toolCallId=call_id, **output, **marks)


_STARTS = {"t": "text-start", "r": "reasoning-start"}
_DELTAS = {"t": "text-delta", "r": "reasoning-delta"}
_ENDS = {"t": "text-end", "r": "reasoning-end"}
