"""Responses stream events -> events, from whoever sends them, in whatever style.

Read are the facts: texts, reasoning, refusals, citations, calls, outputs, approvals, usage. Ids, indexes, numbers
and the skeleton of the stream are passed over: whoever encodes makes them anew. Understood are full streams of the
specification, MLflow's (items in `response.output_item.done`, with or without deltas before), streams of one
response per model call, and bare responses. What is told twice is taken once.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any

from agent_server import ids
from agent_server.events import (
    Event,
    IncompleteReason,
    Interrupt,
    RunCancelled,
    RunFailed,
    RunFinished,
    RunInterrupted,
    ToolFinished,
    ToolStarted,
    Usage,
)
from agent_server.graph.content import Piece, PieceKind, annotation
from agent_server.graph.converter import now_ms
from agent_server.graph.jsonable import to_jsonable
from agent_server.protocols.responses import decoded
from agent_server.protocols.responses.composer import CALLS, CLIENT_CALLS, Composer, Item
from agent_server.protocols.responses.decoded import BrokenStreamError, Data, integer, text

__all__ = ["BrokenStreamError", "ResponsesDecoder"]


class ResponsesDecoder:
    """A fold of the Responses stream events of one run into events. `clock` gives Unix milliseconds."""

    def __init__(self, run_id: str, *, clock: Callable[[], int] = now_ms) -> None:
        self.run_id = run_id
        self._clock = clock
        self._composer = Composer(run_id)
        self._arguments: dict[str, str] = {}  # of calls, by call id
        self._answered: set[str] = set()
        self._interrupts: dict[str, Interrupt] = {}
        self._usage: dict[str, Usage] = {}  # by response id
        self._incomplete: IncompleteReason | None = None
        self._custom_outputs: dict[str, Any] = {}
        self._events: dict[str, Callable[[Data], list[Event]]] = {
            "response.output_text.delta": self._on_text,
            "response.refusal.delta": self._on_refusal,
            "response.reasoning_summary_text.delta": self._on_reasoning,
            "response.reasoning_text.delta": self._on_reasoning,
            "response.function_call_arguments.delta": self._on_arguments,
            "response.mcp_call_arguments.delta": self._on_arguments,
            "response.output_text.annotation.added": self._on_annotation,
            "response.output_item.added": self._on_added,
            "response.output_item.done": self._on_done,
            "response.completed": self._on_terminal,
            "response.incomplete": self._on_terminal,
            "response.failed": self._on_failed,
            "error": self._on_failed,
        }
        self._whole_items: dict[str, Callable[[Data], list[Event]]] = {
            "message": self._finish_message,
            "reasoning": self._finish_reasoning,
            "image_generation_call": self._finish_image,
            "mcp_approval_request": self._finish_approval,
        }

    def feed(self, event: Any) -> list[Event]:
        """The events that one stream event causes. Types not in the table cause none.

        Raises `BrokenStreamError` for what is no stream event, and for one that says that the agent failed.
        """
        if not isinstance(event, Mapping) or not isinstance(event.get("type"), str):
            raise BrokenStreamError(f"no stream event: {to_jsonable(event)!r:.500}")
        self._note_custom_outputs(event)
        read = self._events.get(event["type"])
        return read(event) if read is not None else []

    def _note_custom_outputs(self, holder: Data) -> None:
        if found := holder.get("custom_outputs"):
            self._custom_outputs |= to_jsonable(decoded.mapping(found, "custom_outputs"))

    def _note_usage(self, response: Data) -> None:
        if counted := decoded.usage(response):
            self._usage[text(response, "id", f"#{len(self._usage)}")] = counted

    # -- ends: exactly one of these, once ------------------------------------------------------------------

    def finish(self, *, incomplete: IncompleteReason | None = None) -> list[Event]:
        """The stream ended: `RunFinished`, or `RunInterrupted` where it asked for approvals."""
        events = self._composer.close()
        if self._interrupts:
            interrupts = tuple(self._interrupts.values())
            return [*events, RunInterrupted(at=self._clock(), interrupts=interrupts, usage=self._total())]
        finished = RunFinished(
            at=self._clock(),
            usage=self._total(),
            incomplete=incomplete or self._incomplete,
            custom_outputs=self._custom_outputs,
        )
        return [*events, finished]

    def fail(self, *, code: str, message: str, error_id: str, raised: BaseException | None = None) -> list[Event]:
        """The agent raised, or its stream is broken."""
        failed = RunFailed(at=self._clock(), code=code, message=message, error_id=error_id, usage=self._total())
        return [*self._composer.close(complete=False), failed]

    def cancel(self, reason: str) -> list[Event]:
        """The run was stopped."""
        cancelled = RunCancelled(at=self._clock(), reason=reason, usage=self._total())
        return [*self._composer.close(complete=False), cancelled]

    def _total(self) -> Usage | None:
        return sum(self._usage.values(), start=Usage()) if self._usage else None

    # -- stream events -------------------------------------------------------------------------------------

    def _current(self, kind: str, event: Data) -> Item:
        """The item that an event is about: by its id, else the latest of its kind that is not done, else a new one."""
        item_id = text(event, "item_id", "")
        return self._composer.find(kind, item_id) or self._composer.open(kind, item_id)

    def _on_text(self, event: Data) -> list[Event]:
        item = self._current("message", event)
        return self._composer.tell(item, "text", integer(event, "content_index"), text(event, "delta"))

    def _on_refusal(self, event: Data) -> list[Event]:
        item = self._current("message", event)
        return self._composer.tell(item, "refusal", integer(event, "content_index"), text(event, "delta"))

    def _on_reasoning(self, event: Data) -> list[Event]:
        part = integer(event, "summary_index") or integer(event, "content_index")
        return self._composer.tell(self._current("reasoning", event), "reasoning", part, text(event, "delta"))

    def _on_arguments(self, event: Data) -> list[Event]:
        kind = event["type"].removeprefix("response.").partition("_arguments")[0]
        return self._composer.arguments(self._current(kind, event), text(event, "delta"))

    def _on_annotation(self, event: Data) -> list[Event]:
        item, raw = self._current("message", event), decoded.mapping(event.get("annotation"), "annotation")
        return self._composer.annotate(item, integer(event, "content_index"), annotation(raw))

    def _on_added(self, event: Data) -> list[Event]:
        raw = decoded.mapping(event.get("item"), "item")
        kind, item_id = text(raw, "type"), text(raw, "id", "")
        if kind not in ("message", "reasoning", *CALLS) or (item_id and self._composer.find(kind, item_id)):
            return []
        item = self._composer.open(kind, item_id)
        return self._named(item, raw) if kind in CALLS else []

    def _on_done(self, event: Data) -> list[Event]:
        return self._finish_item(decoded.mapping(event.get("item"), "item"))

    def _on_terminal(self, event: Data) -> list[Event]:
        """A response ended; not the stream, where each model call has a response of its own."""
        response = decoded.mapping(event.get("response"), "response")
        self._note_custom_outputs(response)
        self._note_usage(response)
        if response.get("status") == "cancelled":
            raise BrokenStreamError("the stream says that it was cancelled")
        if event["type"] == "response.incomplete":
            self._incomplete = decoded.incomplete_reason(response)
        events: list[Event] = []
        told = {(item.kind, item.call_id or item.told) for item in self._composer.items if item.done}
        for raw in decoded.mappings(response.get("output"), "output"):
            if (raw.get("type"), decoded.gist(raw)) not in told:
                events += self._finish_item(raw)
        return events

    def _on_failed(self, event: Data) -> list[Event]:
        response = decoded.mapping(event.get("response", event), "response")
        self._note_usage(response)
        raise decoded.failure(response)

    # -- whole items ---------------------------------------------------------------------------------------

    def _finish_item(self, raw: Data) -> list[Event]:
        kind = text(raw, "type")
        if kind in CALLS or kind in CLIENT_CALLS:
            return self._finish_call(kind, raw)
        if kind.endswith("_output"):
            return self._finish_tool(text(raw, "call_id"), decoded.tool_output(raw), raw)
        if kind in self._whole_items:
            return self._whole_items[kind](raw)
        return self._finish_hosted(kind, raw) if kind.endswith("_call") else []

    def _finish_message(self, raw: Data) -> list[Event]:
        item = self._whole("message", raw)
        if item is None:
            return []
        events: list[Event] = []
        parts, known = decoded.content(raw), item.annotations
        for number, (part, rest) in enumerate(zip(parts, decoded.untold(parts, item.told), strict=True)):
            kind: PieceKind = "refusal" if part.get("type") == "refusal" else "text"
            events += self._composer.tell(item, kind, number, rest)
            for each in decoded.mappings(part.get("annotations"), "annotations")[known:]:
                events += self._composer.annotate(item, number, annotation(each))
            known = 0
        return events + self._done(item, raw)

    def _finish_reasoning(self, raw: Data) -> list[Event]:
        item = self._whole("reasoning", raw)
        if item is None:
            return []
        events: list[Event] = []
        for number, rest in enumerate(decoded.untold(decoded.thoughts(raw, item.told), item.told)):
            events += self._composer.tell(item, "reasoning", number, rest)
        if encrypted := text(raw, "encrypted_content", ""):
            events += self._composer.add(item, Piece("reasoning", item.key, data={"encrypted": encrypted}))
        return events + self._done(item, raw)

    def _whole(self, kind: str, raw: Data) -> Item | None:
        """The item that a whole text belongs to; None when all of it has been told as such before.

        Sloppy streams give the item another id than its deltas: then it is the one whose text it goes on with.
        """
        item_id, whole = text(raw, "id", ""), decoded.gist(raw)
        if item_id and (item := self._composer.find(kind, item_id)):
            return item
        for item in reversed(self._composer.items):
            if item.kind == kind and item.told and not item.done and whole.startswith(item.told):
                return item
            if item.kind == kind and item.done and item_id and (item.id, item.told) == (item_id, whole):
                return None
        return self._composer.open(kind, item_id)

    def _named(self, item: Item, raw: Data) -> list[Event]:
        """Begin a call, once its name is known."""
        if item.name:
            return []
        item.name = text(raw, "name", "") or raw["type"].removesuffix("_call")
        item.call_id = text(raw, "call_id", "") or text(raw, "id", "") or ids.call_id(self.run_id, 0xE000 + item.key)
        return self._composer.arguments(item, "")

    def _finish_call(self, kind: str, raw: Data) -> list[Event]:
        item = self._call(kind, raw)
        events = self._named(item, raw)
        if not item.done:
            rest = decoded.arguments(raw)
            rest = rest.removeprefix(item.told) if rest.startswith(item.told) else ""
            events += [*self._composer.arguments(item, rest), *self._done(item, raw)]
        self._arguments[item.call_id] = item.told
        output = decoded.mcp_output(raw) if kind == "mcp_call" else None
        return events if output is None else events + self._finish_tool(item.call_id, output, raw)

    def _call(self, kind: str, raw: Data) -> Item:
        """The item of a call, by its own id, else by the call's, else a new one."""
        item_id, call_id = text(raw, "id", ""), text(raw, "call_id", "")
        if item_id and (item := self._composer.find(kind, item_id)):
            return item
        for item in reversed(self._composer.items):
            if item.kind == kind and (item.call_id == call_id if call_id else item_id and item.id == item_id):
                if item.done and kind != "mcp_call" and item.call_id in self._answered:
                    break  # some providers use their ids again
                return item
        return self._composer.open(kind, item_id)

    def _finish_tool(self, call_id: str, output: str | list[dict[str, Any]], raw: Data) -> list[Event]:
        """A tool has put out; what the model said before that is said."""
        if call_id in self._answered:
            return []
        self._answered.add(call_id)
        name = self._composer.names.get(call_id) or text(raw, "name", "") or "tool"
        asked = decoded.parsed(self._arguments.get(call_id) or "{}")
        return [
            *self._composer.close(),
            ToolStarted(call_id, name, asked if isinstance(asked, dict) else {"input": asked}),
            ToolFinished(call_id, name, output, "error" if decoded.failed(raw) else "success", text(raw, "id", "")),
        ]

    def _finish_hosted(self, kind: str, raw: Data) -> list[Event]:
        """A built-in tool of the agent's provider, such as `web_search_call`."""
        call_id = text(raw, "id", "") or ids.call_id(self.run_id, 0xE000 + len(self._answered))
        if call_id in self._answered:
            return []
        self._answered.add(call_id)
        name, status = kind.removesuffix("_call"), "error" if decoded.failed(raw) else "success"
        return [
            *self._composer.close(),
            ToolStarted(call_id, name, decoded.hosted_input(raw)),
            ToolFinished(call_id, name, decoded.hosted_output(raw), status),  # type: ignore[arg-type]
        ]

    def _finish_image(self, raw: Data) -> list[Event]:
        item_id, kind = text(raw, "id", ""), text(raw, "type")
        known = item_id and any(item.kind == kind and item.id == item_id for item in self._composer.items)
        if known or not raw.get("result"):
            return []
        item = self._composer.open(kind, item_id)
        block = {"type": "image", "base64": text(raw, "result"), "mime_type": "image/png"}
        return self._composer.add(item, Piece("media", item.key, data=block)) + self._done(item, raw)

    def _finish_approval(self, raw: Data) -> list[Event]:
        asked = decoded.approval(raw)
        self._interrupts[asked.id or f"#{len(self._interrupts)}"] = asked
        return []

    def _done(self, item: Item, raw: Data) -> list[Event]:
        return self._composer.end(item, complete=raw.get("status") != "incomplete")
