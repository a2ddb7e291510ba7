"""Tracks: the state of what is open on the wire for one message, and for one tool call.

A track is fed the events of its blocks, in order, and is `open` while an item of its own must not be
interrupted by another item.
"""

from __future__ import annotations

from typing import Any

import msgspec

from agent_server import events as ev
from agent_server.framing import Frame
from agent_server.protocols.responses import output
from agent_server.protocols.responses.emitter import Emitter, Item
from agent_server.protocols.responses.output import Phase


class MessageEnd(msgspec.Struct, frozen=True):
    """No more parts come for a message item: the message is over, or a tool call follows."""

    phase: Phase
    complete: bool = True


class Track:
    """Base of both kinds."""

    open = False
    text_block: tuple[str, int] | None = None  # the text block whose part is open

    def text_delta(self, event: ev.TextDelta) -> Frame:
        """The hot path: more text for the part that is open."""
        raise NotImplementedError

    def feed(self, event: Any) -> None:
        """Emit what one event of this track causes."""
        raise NotImplementedError


class MessageTrack(Track):
    """Text, refusals and media of one message become parts of message items; reasoning becomes items."""

    def __init__(self, emitter: Emitter, *, hosted: bool) -> None:
        self._emitter = emitter
        self._hosted = hosted
        self._item: Item | None = None
        self._parts: list[dict[str, Any]] = []
        self._annotations: list[dict[str, Any]] = []
        self._length = 0
        self._complete = True
        self._reasoning: Item | None = None
        self._summary_open = False

    def text_delta(self, event: ev.TextDelta) -> Frame:
        item, text = self._item, event.text
        if item is None:
            raise RuntimeError("no part is open")
        self._length += len(text)
        emitter = self._emitter
        number = emitter.sequence_number
        emitter.sequence_number = number + 1
        return Frame(
            "response.output_text.delta",
            {
                "type": "response.output_text.delta",
                "sequence_number": number,
                "item_id": item.id,
                "output_index": item.index,
                "content_index": len(self._parts),
                "delta": text,
                "logprobs": [],
            },
        )

    def feed(self, event: Any) -> None:
        match event:
            case ev.TextDelta():
                self._emitter.push(self.text_delta(event))
            case ev.BlockStarted():
                self._start(event)
            case ev.RefusalDelta():
                self._delta("response.refusal.delta", event.text)
            case ev.ReasoningDelta():
                self._reason(event.text)
            case ev.Annotated():
                self._annotate(event)
            case ev.BlockFinished():
                self._finish(event)
            case MessageEnd():
                self._end_item(event)

    def _start(self, event: ev.BlockStarted) -> None:
        if event.kind == "reasoning":
            self._end_item(MessageEnd(phase="commentary"))
            self._reasoning = item = self._emitter.open("rs")
            self._emitter.add(item, output.reasoning(item.id, "in_progress", None))
            self.open = True
        elif event.kind == "text":
            self._start_part(output.output_text(""))
            self._annotations, self._length = [], 0
            self.text_block = (event.message_id, event.index)
        elif event.kind == "refusal":
            self._start_part(output.refusal(""))

    def _start_part(self, part: dict[str, Any]) -> None:
        item = self._item
        if item is None:
            self._item = item = self._emitter.open("msg")
            self._parts, self._complete = [], True
            self._emitter.add(item, output.message(item.id, "in_progress", [], None))
            self.open = True
        self._emitter.about(item, "response.content_part.added", content_index=len(self._parts), part=part)

    def _delta(self, event: str, text: str, **more: Any) -> None:
        if self._item is not None:
            place = len(self._parts)
            self._emitter.about(self._item, event, content_index=place, delta=text, **more)

    def _reason(self, text: str) -> None:
        item = self._reasoning
        if item is None:
            return
        if not self._summary_open:
            self._summary_open = True
            empty = output.summary_text("")
            self._emitter.about(item, "response.reasoning_summary_part.added", summary_index=0, part=empty)
        self._emitter.about(item, "response.reasoning_summary_text.delta", summary_index=0, delta=text)

    def _annotate(self, event: ev.Annotated) -> None:
        found = output.annotation(event.annotation, self._length)
        if found is None or self._item is None:
            return
        place, number = len(self._parts), len(self._annotations)
        self._annotations.append(found)
        self._emitter.about(
            self._item,
            "response.output_text.annotation.added",
            content_index=place,
            annotation_index=number,
            annotation=found,
        )

    def _finish(self, event: ev.BlockFinished) -> None:
        self.text_block = None
        self._complete = self._complete and event.complete
        if event.kind == "reasoning":
            self._end_reasoning(event)
        elif event.kind == "text":
            text = event.text
            self._end_part(
                "response.output_text.done",
                output.output_text(text, self._annotations),
                text=text,
                logprobs=[],
            )
        elif event.kind == "refusal":
            self._end_part("response.refusal.done", output.refusal(event.text), refusal=event.text)
        elif event.kind == "media":
            self._show_media(event.data)

    def _end_part(self, event: str, part: dict[str, Any], **done: Any) -> None:
        item = self._item
        if item is not None:
            place = len(self._parts)
            self._emitter.about(item, event, content_index=place, **done)
            self._emitter.about(item, "response.content_part.done", content_index=place, part=part)
            self._parts.append(part)

    def _end_item(self, end: MessageEnd) -> None:
        item = self._item
        if item is not None:
            status = "completed" if self._complete and end.complete else "incomplete"
            self._emitter.close(item, output.message(item.id, status, self._parts, end.phase))  # type: ignore[arg-type]
            self._item = None
        self.open = False

    def _end_reasoning(self, event: ev.BlockFinished) -> None:
        item = self._reasoning
        if item is None:
            return
        if self._summary_open:
            part = output.summary_text(event.text)
            self._emitter.about(item, "response.reasoning_summary_text.done", summary_index=0, text=event.text)
            self._emitter.about(item, "response.reasoning_summary_part.done", summary_index=0, part=part)
        status = "completed" if event.complete else "incomplete"
        text = event.text if self._summary_open else None
        encrypted = str(event.data.get("encrypted", ""))
        self._emitter.close(item, output.reasoning(item.id, status, text, encrypted))  # type: ignore[arg-type]
        self._reasoning, self._summary_open, self.open = None, False, False

    def _show_media(self, block: dict[str, Any]) -> None:
        """An image with its bytes is an item of its own where clients know hosted items; else Markdown."""
        data = block.get("base64")
        if self._hosted and block.get("type") == "image" and isinstance(data, str):
            self._end_item(MessageEnd(phase="commentary"))
            item = self._emitter.open("ig")
            self._emitter.add(item, output.image_generation_call(item.id, "in_progress", None))
            self._emitter.about(item, "response.image_generation_call.in_progress")
            self._emitter.about(item, "response.image_generation_call.completed")
            self._emitter.close(item, output.image_generation_call(item.id, "completed", data))
            return
        url = output.media_url(block)
        if url:
            text = f"{'!' if block.get('type') == 'image' else ''}[{block.get('type')}]({url})"
            self._start_part(output.output_text(""))
            self._delta("response.output_text.delta", text, logprobs=[])
            self._end_part("response.output_text.done", output.output_text(text), text=text, logprobs=[])


class CallTrack(Track):
    """A tool call: a `function_call` item and its output item, or one `mcp_call` item for both."""

    def __init__(
        self, emitter: Emitter, call_id: str, name: str, *, hosted: bool, label: str, approval: str = ""
    ) -> None:
        self._emitter = emitter
        self._call_id = call_id
        self._name = name
        self._hosted = hosted
        self._label = label
        self._approval = approval
        self._item: Item | None = None
        self._arguments = ""
        self._early: ev.ToolFinished | None = None  # an output that came before the arguments were whole

    def feed(self, event: Any) -> None:
        match event:
            case ev.BlockStarted():
                self._start()
            case ev.ArgsDelta() if self._item is not None:
                self._emitter.about(self._item, f"{self._events}_arguments.delta", delta=event.text)
            case ev.BlockFinished():
                self._finish_arguments(event.text, complete=event.complete)
            case ev.ToolStarted():  # a call that no model made
                self._start()
                arguments = msgspec.json.encode(event.input).decode()
                self.feed(ev.ArgsDelta("", 0, arguments))
                self._finish_arguments(arguments, complete=True)
            case ev.ToolFinished() if self.open:
                self._early = event
            case ev.ToolFinished():
                self._finish_tool(event)

    @property
    def _events(self) -> str:
        return "response.mcp_call" if self._hosted else "response.function_call"

    def _body(self, status: Any, finished: ev.ToolFinished | None = None) -> dict[str, Any]:
        item = self._item
        if item is None:
            raise RuntimeError("the item is not open")
        if self._hosted:
            return output.mcp_call(item.id, status, self._label, self._name, self._arguments, finished, self._approval)
        return output.function_call(item.id, status, self._call_id, self._name, self._arguments)

    def _start(self) -> None:
        self._item = self._emitter.open("mcp" if self._hosted else "fc")
        self._emitter.add(self._item, self._body("in_progress"))
        if self._hosted:
            self._emitter.about(self._item, "response.mcp_call.in_progress")
        self.open = True

    def _finish_arguments(self, arguments: str, *, complete: bool) -> None:
        self.open = False
        item = self._item
        if item is None:
            return
        self._arguments = arguments
        named = {} if self._hosted else {"name": self._name}
        self._emitter.about(item, f"{self._events}_arguments.done", arguments=arguments, **named)
        if not self._hosted:
            self._emitter.close(item, self._body("completed" if complete else "incomplete"))
        if self._early is not None:
            self._finish_tool(self._early)

    def _finish_tool(self, event: ev.ToolFinished) -> None:
        item = self._item
        if item is None:
            return
        if not self._hosted:
            if event.status != "pending":
                companion = self._emitter.open("fco")
                body = output.function_call_output(companion.id, event)
                self._emitter.add(companion, body)
                self._emitter.close(companion, body)
        elif not item.done and event.status != "pending":
            status = "completed" if event.status == "success" else "failed"
            self._emitter.about(item, f"response.mcp_call.{status}")
            self._emitter.close(item, self._body(status, event))

    def give_up(self) -> None:
        """No output will come."""
        if self._hosted and self._item is not None and not self._item.done:
            self._emitter.close(self._item, self._body("incomplete"))
