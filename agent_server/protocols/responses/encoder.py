"""Events -> OpenAI Responses stream events.

One response per run. Items are serialised: while one item is open, the events of others wait, as some clients
take one open item at a time for granted; only a server tool call (`mcp_call`) stays open beside others while
its tool runs. Order and required fields: OpenAI API reference, "Streaming events"; specification of Open
Responses, "Items are streamable".
"""

from __future__ import annotations

from typing import Any, Literal, assert_never

import msgspec

from agent_server import events as ev
from agent_server import ids
from agent_server.framing import Frame
from agent_server.protocols.responses import output
from agent_server.protocols.responses.emitter import Emitter
from agent_server.protocols.responses.request import default_echo
from agent_server.protocols.responses.tracks import CallTrack, MessageEnd, MessageTrack, Track

ToolItems = Literal["function_call", "mcp_call", "none"]
TOOL_ITEMS: tuple[ToolItems, ...] = ("function_call", "mcp_call", "none")
_REASONS = {"recursion_limit": "max_messages"}  # the nearest of the reasons the wire knows


class ResponsesEncoder:
    """A fold of a run's events into frames; `response` is the response object after the last event."""

    def __init__(self, tool_items: ToolItems = "function_call") -> None:
        self.response: dict[str, Any] = {}
        self._tool_items = tool_items
        self._emitter = Emitter()
        self._client_tools: frozenset[str] = frozenset()
        self._approvals: dict[str, str] = {}
        self._label = "agent"
        self._hidden: set[str] = set()  # messages and calls inside a tool
        self._messages: dict[str, MessageTrack] = {}
        self._calls: dict[str, CallTrack] = {}  # the latest of each call id
        self._made: list[CallTrack] = []
        self._blocks: dict[tuple[str, int], Track] = {}
        self._head: Track | None = None
        self._held: dict[Track, list[Any]] = {}

    def feed(self, event: ev.Event) -> list[Frame]:
        """The frames that one event causes."""
        if type(event) is ev.TextDelta:  # the hot path
            head = self._head
            if head is not None and head.text_block == (event.message_id, event.index):
                return [head.text_delta(event)]
        self._dispatch(event)
        return self._emitter.take()

    def response_so_far(self) -> dict[str, Any]:
        """The response object with the items that are done; after the last event, `response`."""
        return {**self.response, "output": self._emitter.output()}

    def _dispatch(self, event: ev.Event) -> None:
        match event:
            case ev.RunStarted():
                self._on_started(event)
            case ev.MessageStarted():
                self._on_message_started(event)
            case ev.BlockStarted():
                self._on_block_started(event)
            case ev.TextDelta() | ev.ReasoningDelta() | ev.RefusalDelta() | ev.ArgsDelta() | ev.Annotated():
                self._to_block(event)
            case ev.BlockFinished():
                self._to_block(event)
            case ev.MessageFinished():
                self._on_message_finished(event)
            case ev.ToolStarted():
                self._on_tool_started(event)
            case ev.ToolFinished():
                self._on_tool_finished(event)
            case ev.RunFinished() | ev.RunInterrupted() | ev.RunFailed() | ev.RunCancelled():
                self._on_terminal(event)
            case ev.RunRetried():
                self._close_calls()
            case ev.StepStarted() | ev.StepFinished() | ev.ToolProgress() | ev.StatePart() | ev.Custom():
                pass  # this wire has no form for them
            case ev.RawEvent():
                pass  # recorded for other wires
            case _:
                assert_never(event)

    # -- the response --------------------------------------------------------------------------------------

    def _on_started(self, event: ev.RunStarted) -> None:
        self._emitter.run_id = event.run_id
        self._client_tools = frozenset(event.client_tools)
        self._approvals = event.approvals
        self._label = event.agent or self._label
        self.response = {
            "id": ids.response_id(event.run_id),
            "object": "response",
            "created_at": event.at // 1000,
            "completed_at": None,
            "status": "in_progress",
            "error": None,
            "incomplete_details": None,
            "model": event.model or event.agent,
            "output": [],
            "usage": None,
            **(event.echo or default_echo()),
        }
        self._emit_response("response.created")
        self._emit_response("response.in_progress")

    def _emit_response(self, event: str) -> None:
        self._emitter.emit(event, {"response": dict(self.response)})

    def _on_terminal(self, event: ev.Terminal) -> None:
        self._close_calls()
        response = self.response
        response["usage"] = output.usage(event.usage)
        match event:
            case ev.RunFinished():
                self._finish(event)
            case ev.RunInterrupted():
                self._ask(event)
                response["status"] = "completed"
            case ev.RunFailed():
                self._emit_error(event)
                response |= {"status": "failed", "error": {"code": event.code, **_public(event)}}
            case ev.RunCancelled():
                response |= {"status": "cancelled", "incomplete_details": {"reason": "cancelled"}}
            case _:
                assert_never(event)
        if response["status"] == "completed":
            response["completed_at"] = event.at // 1000
        response["output"] = self._emitter.output()
        self._emit_response(_TERMINAL[response["status"]])

    def _finish(self, event: ev.RunFinished) -> None:
        response = self.response
        response["status"] = "completed" if event.incomplete is None else "incomplete"
        if event.incomplete is not None:
            response["incomplete_details"] = {"reason": _REASONS.get(event.incomplete, event.incomplete)}
        if event.custom_outputs:
            response["custom_outputs"] = {**response.get("custom_outputs", {}), **event.custom_outputs}

    def _emit_error(self, event: ev.RunFailed) -> None:
        """Both forms of the error event: flat for the SDKs, nested for those who read `error`."""
        nested = {"type": "server_error", "code": event.code, "message": event.message, "param": None}
        flat = {"code": event.code, "message": event.message, "param": None}
        self._emitter.emit("error", {**flat, "error": nested})

    def _ask(self, event: ev.RunInterrupted) -> None:
        for interrupt in event.interrupts:
            if interrupt.kind == "client_tool":
                continue  # its function_call item is the question
            if interrupt.kind == "free" and output.HUMAN_INPUT in self._client_tools:
                call_id = output.human_input_call(interrupt.id)
                call = self._make_call(call_id, output.HUMAN_INPUT, hosted=False)
                call.feed(ev.ToolStarted(call_id, output.HUMAN_INPUT, _as_arguments(interrupt.value)))
                continue
            for name, arguments in _questions(interrupt):
                item = self._emitter.open("mcpr")
                body = output.mcp_approval_request(item.id, self._label, name, arguments)
                self._emitter.add(item, body)
                self._emitter.close(item, body)

    # -- messages and tool calls ---------------------------------------------------------------------------

    def _on_message_started(self, event: ev.MessageStarted) -> None:
        if event.parent_call_id:
            self._hidden.add(event.message_id)
        else:
            hosted = self._tool_items == "mcp_call"
            self._messages[event.message_id] = MessageTrack(self._emitter, hosted=hosted)

    def _on_block_started(self, event: ev.BlockStarted) -> None:
        if event.message_id in self._hidden:
            if event.call_id:
                self._hidden.add(event.call_id)
            return
        message = self._messages[event.message_id]
        track: Track = message
        if event.kind == "tool_call":
            self._route(message, MessageEnd(phase="commentary"))
            style = "function_call" if event.name in self._client_tools else self._tool_items
            if style == "none":
                self._hidden.add(event.call_id)
                return
            track = self._make_call(event.call_id, event.name, hosted=style == "mcp_call")
        self._blocks[event.message_id, event.index] = track
        self._route(track, event)

    def _to_block(
        self,
        event: ev.TextDelta | ev.ReasoningDelta | ev.RefusalDelta | ev.ArgsDelta | ev.Annotated | ev.BlockFinished,
    ) -> None:
        track = self._blocks.get((event.message_id, event.index))
        if track is not None:
            self._route(track, event)

    def _on_message_finished(self, event: ev.MessageFinished) -> None:
        track = self._messages.get(event.message_id)
        if track is not None:
            cut = event.finish_reason in ("length", "content_filter")
            self._route(track, MessageEnd(phase="final_answer", complete=not cut))

    def _on_tool_started(self, event: ev.ToolStarted) -> None:
        if event.parent_call_id:
            self._hidden.add(event.call_id)
        if event.call_id in self._calls or event.call_id in self._hidden or self._tool_items == "none":
            return
        track = self._make_call(event.call_id, event.name, hosted=self._tool_items == "mcp_call")
        self._route(track, event)

    def _make_call(self, call_id: str, name: str, *, hosted: bool) -> CallTrack:
        """A new call. Another of the same id may still wait for its output: some providers use ids again."""
        approval = self._approvals.get(call_id, "")
        track = CallTrack(self._emitter, call_id, name, hosted=hosted, label=self._label, approval=approval)
        self._calls[call_id] = track
        self._made.append(track)
        return track

    def _on_tool_finished(self, event: ev.ToolFinished) -> None:
        track = self._calls.get(event.call_id)
        if track is not None:
            self._route(track, event)

    def _close_calls(self) -> None:
        """The run is over: a server tool call without output is done as incomplete."""
        for track in self._made:
            track.give_up()

    # -- one open item at a time ---------------------------------------------------------------------------

    def _route(self, track: Track, event: Any) -> None:
        if self._head is not None and self._head is not track:
            self._held.setdefault(track, []).append(event)
            return
        self._head = track
        track.feed(event)
        while self._head is not None and not self._head.open:
            self._head = None
            if self._held:
                self._release(next(iter(self._held)))

    def _release(self, track: Track) -> None:
        """Let a waiting track catch up; it becomes the head while it has an item open."""
        waiting = self._held.pop(track)
        self._head = track
        for place, event in enumerate(waiting):
            track.feed(event)
            if not track.open and place + 1 < len(waiting) and self._held:
                self._held[track] = waiting[place + 1 :]  # back in line, behind the others
                return


_TERMINAL = {
    "completed": "response.completed",
    "incomplete": "response.incomplete",
    "cancelled": "response.incomplete",  # the wire has no event for it
    "failed": "response.failed",
}


def _public(event: ev.RunFailed) -> dict[str, Any]:
    return {"message": event.message, "type": "server_error", "param": None}


def _questions(interrupt: ev.Interrupt) -> list[tuple[str, str]]:
    """(name, arguments as JSON text) of each question in an interrupt."""
    if interrupt.kind == "approval":
        requests = interrupt.value["action_requests"]
        return [(str(r.get("name", "")), _json(r.get("args", r.get("arguments", {})))) for r in requests]
    return [(output.HUMAN_INPUT, _json(_as_arguments(interrupt.value)))]


def _as_arguments(value: Any) -> dict[str, Any]:
    return value if isinstance(value, dict) else {"value": value}


def _json(value: Any) -> str:
    return msgspec.json.encode(value).decode()
