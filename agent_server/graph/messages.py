"""One chat model call while it streams: a table of open blocks, keyed as the provider keys them.

Text, reasoning and refusal blocks are sequential: a block is closed when another one starts. Tool calls may
interleave by index, so a call stays open until the message ends, or until its arguments are a whole JSON
object when something else starts.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping
from typing import Any

import orjson

from agent_server import ids
from agent_server.events import (
    Annotated,
    ArgsDelta,
    BlockFinished,
    BlockKind,
    BlockStarted,
    Event,
    ReasoningDelta,
    RefusalDelta,
    TextDelta,
)
from agent_server.graph.content import Piece, pieces
from agent_server.graph.jsonable import to_jsonable, to_unicode

_DELTAS: dict[str, type[TextDelta | ReasoningDelta | RefusalDelta]] = {
    "text": TextDelta,
    "reasoning": ReasoningDelta,
    "refusal": RefusalDelta,
}


class Block:
    """One block under construction."""

    __slots__ = ("annotations", "call_id", "data", "index", "key", "kind", "name", "open", "part", "texts")

    def __init__(self, index: int, kind: BlockKind, key: Any) -> None:
        self.index = index
        self.kind = kind
        self.key = key
        self.call_id = ""
        self.name = ""
        self.part: Any = None
        self.texts: list[str] = []
        self.annotations: list[dict[str, Any]] = []
        self.data: dict[str, Any] = {}
        self.open = False


class OpenMessage:
    """The blocks of one model call; every method returns the events it causes.

    `on_call` is told the id and name of each tool call when it starts.
    """

    __slots__ = (
        "_on_call",
        "blocks",
        "calls",
        "current",
        "id",
        "kinds",
        "parent_call_id",
        "run_id",
        "source_id",
    )

    def __init__(
        self,
        run_id: str,
        ordinal: int,
        on_call: Callable[[str, str], None],
        *,
        source_id: str,
        parent_call_id: str,
    ) -> None:
        self.run_id = run_id
        self.id = f"m{ordinal}"
        self.source_id = source_id
        self.parent_call_id = parent_call_id
        self._on_call = on_call
        self.blocks: list[Block] = []
        self.calls: dict[Any, Block] = {}
        self.current: Block | None = None
        self.kinds: set[str] = set()

    def add_chunk(self, chunk: Any) -> list[Event]:
        """A streamed `AIMessageChunk`."""
        content = chunk.content
        block = self.current
        plain = type(content) is str and not chunk.additional_kwargs
        if plain and block is not None and block.kind == "text" and block.key is None:  # the hot path
            events: list[Event] = []
            if content:
                content = to_unicode(content)
                block.texts.append(content)
                events.append(TextDelta(self.id, block.index, content))
        else:
            events = self.add_pieces(pieces(chunk))
        if chunk.tool_call_chunks:
            for call in chunk.tool_call_chunks:
                events += self.add_call_chunk(call)
        return events

    def add_text(self, text: str) -> list[Event]:
        """A streamed piece of plain text, from a model or Runnable without messages."""
        return self.add_pieces((Piece("text", None, text),)) if text else []

    def add_pieces(self, parts: Iterable[Piece]) -> list[Event]:
        """Pieces of content blocks."""
        events: list[Event] = []
        for piece in parts:
            if piece.kind == "media":
                events += self._add_media(piece)
            else:
                events += self._add_piece(piece)
        return events

    def add_whole(self, message: Any) -> list[Event]:
        """The finished message: announce what never streamed (non-streaming models, late or invalid calls)."""
        late = [p for p in pieces(message) if p.kind not in self.kinds]
        events = self.add_pieces(late)
        called = [block.call_id for block in self.blocks if block.kind == "tool_call"]
        for number, call in enumerate(_whole_calls(message)):
            if call["id"] in called if call["id"] else number < len(called):
                continue
            events += self.add_call_chunk({**call, "index": ("whole", number)})
        return events + self.close_blocks()

    def close_blocks(self, *, complete: bool = True) -> list[Event]:
        """Finish every open block, in the order in which they started."""
        return [event for block in self.blocks for event in self._close(block, complete=complete)]

    def _start(self, kind: BlockKind, key: Any) -> Block:
        block = Block(len(self.blocks), kind, key)
        self.blocks.append(block)
        self.kinds.add(kind)
        return block

    def _make_room(self) -> list[Event]:
        """Close what nothing can be added to any more, now that another block starts."""
        events: list[Event] = []
        for block in self.blocks:
            if block.open and (block.kind != "tool_call" or _is_object("".join(block.texts))):
                events += self._close(block)
        self.current = None
        return events

    def _add_piece(self, piece: Piece) -> list[Event]:
        events: list[Event] = []
        block = self.current
        if block is None or block.kind != piece.kind or not _same_key(block.key, piece.key):
            events += self._make_room()
            block = self._start(piece.kind, piece.key)
            block.open = True
            self.current = block
            events.append(BlockStarted(self.id, block.index, piece.kind))
        text = to_unicode(piece.text)
        if text and piece.part != block.part:
            text = f"\n\n{text}" if block.texts else text
            block.part = piece.part
        if text:
            block.texts.append(text)
            events.append(_DELTAS[piece.kind](self.id, block.index, text))
        for annotation in piece.annotations:
            block.annotations.append(annotation)
            events.append(Annotated(self.id, block.index, annotation))
        if piece.data:
            block.data.update(piece.data)
        return events

    def _add_media(self, piece: Piece) -> list[Event]:
        events = self._make_room()
        block = self._start("media", piece.key)
        block.open = True
        block.data = piece.data or {}
        return [*events, BlockStarted(self.id, block.index, "media"), *self._close(block)]

    def add_call_chunk(self, call: Mapping[str, Any]) -> list[Event]:
        """A piece of a tool call: `index` or `id` says of which, `name` comes once, `args` is JSON text."""
        block = self._find_call(call)
        if block is None:
            block = self._start("tool_call", None)
            self.calls[_call_key(call, len(self.calls))] = block
        if not block.call_id and call.get("id"):
            block.call_id = str(call["id"])
        events: list[Event] = []
        if not block.name and call.get("name"):
            block.name = to_unicode(str(call["name"]))
            block.call_id = block.call_id or ids.call_id(self.run_id, int(self.id[1:]) * 256 + block.index)
            events += self._make_room()
            block.open = True
            self._on_call(block.call_id, block.name)
            events.append(BlockStarted(self.id, block.index, "tool_call", block.call_id, block.name))
            events += [ArgsDelta(self.id, block.index, text) for text in block.texts]
        args = to_unicode(call.get("args") or "")
        if args:
            block.texts.append(args)
            if block.open:
                events.append(ArgsDelta(self.id, block.index, args))
        return events

    def _find_call(self, call: Mapping[str, Any]) -> Block | None:
        index, call_id = call.get("index"), call.get("id")
        if index is not None:
            found = self.calls.get(index)
            if found is None or not call_id or not found.call_id or found.call_id == call_id:
                return found
        if call_id:  # some providers give every parallel call index 0: another id is another call
            return next((b for b in self.blocks if b.call_id == call_id), None)
        return None if call.get("name") else next(reversed(self.calls.values()), None)

    def _close(self, block: Block, *, complete: bool = True) -> list[Event]:
        if not block.open:
            return []
        block.open = False
        if block is self.current:
            self.current = None
        events: list[Event] = []
        text = "".join(block.texts)
        is_call = block.kind == "tool_call"
        if is_call and not text and complete:  # a call without arguments is a call with an empty object
            text = "{}"
            events.append(ArgsDelta(self.id, block.index, text))
        finished = BlockFinished(
            self.id,
            block.index,
            block.kind,
            text,
            call_id=block.call_id,
            name=block.name,
            complete=complete,
            invalid=is_call and not _is_object(text),
            annotations=tuple(block.annotations),
            data=block.data,
        )
        return [*events, finished]


def _same_key(one: Any, other: Any) -> bool:
    return one == other or one is None or other is None


def _call_key(call: Mapping[str, Any], ordinal: int) -> Any:
    index = call.get("index")
    return index if index is not None else ("ordinal", ordinal)


def _is_object(text: str) -> bool:
    if not text.startswith("{") and not text.lstrip().startswith("{"):
        return False
    try:
        return isinstance(orjson.loads(text), dict)
    except orjson.JSONDecodeError:
        return False


def _whole_calls(message: Any) -> list[dict[str, Any]]:
    """The calls of a finished message, valid and invalid, with their arguments as text."""
    calls = [
        {"id": call.get("id"), "name": call["name"], "args": orjson.dumps(to_jsonable(call["args"])).decode()}
        for call in getattr(message, "tool_calls", None) or ()
    ]
    calls += [
        {"id": call.get("id"), "name": call.get("name") or "invalid", "args": call.get("args") or ""}
        for call in getattr(message, "invalid_tool_calls", None) or ()
    ]
    return calls
