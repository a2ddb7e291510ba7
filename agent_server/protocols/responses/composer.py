"""Output items, told piece by piece, as the messages of model calls.

One model call makes reasoning, then at most one message, then tool calls: by that rule a flat list of items is
put together into messages again.
"""

from __future__ import annotations

from typing import Any

from agent_server.events import Event, MessageFinished, MessageStarted
from agent_server.graph.content import Piece, PieceKind
from agent_server.graph.messages import OpenMessage

CALLS = frozenset({"function_call", "mcp_call", "custom_tool_call"})
"""Items that are tool calls with arguments."""
CLIENT_CALLS = frozenset({"computer_call", "local_shell_call", "shell_call", "apply_patch_call"})
"""Calls of built-in tools that the client runs."""

_ENDED_BY = {
    "reasoning": CALLS | CLIENT_CALLS | {"message"},
    "message": CALLS | CLIENT_CALLS | {"message"},
    "image_generation_call": CALLS | CLIENT_CALLS,
}
"""Kind of an item -> what a model call must not have yet, to take it in."""


class Item:
    """An output item: where it belongs, and what has been told of it."""

    def __init__(self, kind: str, item_id: str, key: int) -> None:
        self.kind = kind
        self.id = item_id
        self.key = key
        self.call_id = ""
        self.name = ""
        self.told = ""
        self.annotations = 0
        self.done = False
        self.home: _Message | None = None


class _Message:
    """A model call under construction: its items, and what kinds of them it has."""

    def __init__(self, message: OpenMessage) -> None:
        self.message = message
        self.kinds: set[str] = set()
        self.items: list[Item] = []


class Composer:
    """The items and open messages of one run; every method that tells something returns the events it causes."""

    def __init__(self, run_id: str) -> None:
        self.items: list[Item] = []
        self.names: dict[str, str] = {}  # of the tools that were called, by call id
        self._run_id = run_id
        self._messages: list[_Message] = []  # the last takes new items
        self._count = 0

    def open(self, kind: str, item_id: str) -> Item:
        """A new item. It has no place among the messages before something of it is told."""
        item = Item(kind, item_id, len(self.items))
        self.items.append(item)
        return item

    def find(self, kind: str, item_id: str) -> Item | None:
        """The latest item of a kind that is not done, with this id; "" is any."""
        for item in reversed(self.items):
            if item.kind == kind and not item.done and item_id in ("", item.id):
                return item
        return None

    def tell(self, item: Item, kind: PieceKind, part: int, text: str) -> list[Event]:
        """More text, of the content part or paragraph with this number."""
        if not text:
            return []
        item.told += text
        return self.add(item, _reasoning(item, part, text) if kind == "reasoning" else _piece(item, kind, part, text))

    def annotate(self, item: Item, part: int, annotation: dict[str, Any]) -> list[Event]:
        """A citation, as a LangChain v1 annotation block."""
        item.annotations += 1
        return self.add(item, Piece("text", (item.key, part), "", (annotation,)))

    def add(self, item: Item, piece: Piece) -> list[Event]:
        """Any other piece."""
        home, events = self._settled(item)
        return events + home.message.add_pieces((piece,))

    def arguments(self, item: Item, text: str) -> list[Event]:
        """More arguments of a call; they wait until it is known by name."""
        item.told += text
        if not item.name:
            return []
        chunk: dict[str, Any] = {"index": item.key, "args": text}
        if item.home is None:
            chunk |= {"args": item.told, "id": item.call_id, "name": item.name}
        home, events = self._settled(item)
        return events + home.message.add_call_chunk(chunk)

    def end(self, item: Item, *, complete: bool = True) -> list[Event]:
        """No more comes of an item. Its blocks are closed once no other item of the message is in the making."""
        item.done = True
        home = item.home
        if home is None or (complete and not all(each.done for each in home.items)):
            return []
        return home.message.close_blocks(complete=complete)

    def close(self, *, complete: bool = True, only_done: bool = False) -> list[Event]:
        """End the open messages, or those of which every item is done. What is closed is done."""
        events: list[Event] = []
        left: list[_Message] = []
        for each in self._messages:
            if only_done and not all(item.done for item in each.items):
                left.append(each)
                continue
            events += [*each.message.close_blocks(complete=complete), MessageFinished(each.message.id)]
            for item in each.items:
                item.done, item.home = True, None
        self._messages = left
        return events

    def _settled(self, item: Item) -> tuple[_Message, list[Event]]:
        """The place of an item: in the model call that goes on, or in a new one."""
        if item.home is not None:
            return item.home, []
        events: list[Event] = []
        home = self._messages[-1] if self._messages else None
        if home is None or home.kinds & _ENDED_BY.get(item.kind, frozenset()):
            events += self.close(only_done=True)
            opened = OpenMessage(self._run_id, self._count, self._called, source_id=item.id, parent_call_id="")
            self._count += 1
            home = _Message(opened)
            self._messages.append(home)
            events.append(MessageStarted(opened.id, source_id=opened.source_id))
        home.kinds.add(item.kind)
        home.items.append(item)
        item.home = home
        return home, events

    def _called(self, call_id: str, name: str) -> None:
        self.names[call_id] = name


def _reasoning(item: Item, part: int, text: str) -> Piece:
    return Piece("reasoning", item.key, text, part=part)


def _piece(item: Item, kind: PieceKind, part: int, text: str) -> Piece:
    return Piece(kind, (item.key, part), text)
