"""The one place that owns ids, output indexes and sequence numbers of a Responses stream.

Whoever encodes asks it to open, change and close items; it cannot be made to leave a gap, to use an index
twice, or to end a response with an item open.
"""

from __future__ import annotations

from typing import Any

from agent_server import ids
from agent_server.framing import Frame


class Item:
    """An output item on the wire: its id and place never change once it was added."""

    __slots__ = ("done", "id", "index")

    def __init__(self, item_id: str, index: int) -> None:
        self.id = item_id
        self.index = index
        self.done = False


class Emitter:
    """Collects the frames that one event causes; `take` hands them over."""

    def __init__(self) -> None:
        self.run_id = ""
        self.sequence_number = 0  # of the next frame
        self._output: list[dict[str, Any] | None] = []
        self._frames: list[Frame] = []

    def take(self) -> list[Frame]:
        """The frames since the last call."""
        frames, self._frames = self._frames, []
        return frames

    def emit(self, event: str, data: dict[str, Any]) -> None:
        """One frame, with its type and the next sequence number."""
        frame = {"type": event, "sequence_number": self.sequence_number, **data}
        self.sequence_number += 1
        self._frames.append(Frame(event, frame))

    def push(self, frame: Frame) -> None:
        """A frame that has its number already."""
        self._frames.append(frame)

    def open(self, prefix: str) -> Item:
        """A new item at the next place of the output; `add` must follow."""
        item = Item(ids.item_id(prefix, self.run_id, len(self._output)), len(self._output))
        self._output.append(None)
        return item

    def add(self, item: Item, body: dict[str, Any]) -> None:
        """`response.output_item.added`."""
        self.emit("response.output_item.added", {"output_index": item.index, "item": body})

    def about(self, item: Item, event: str, **data: Any) -> None:
        """An event inside an item."""
        self.emit(event, {"item_id": item.id, "output_index": item.index, **data})

    def close(self, item: Item, body: dict[str, Any]) -> None:
        """`response.output_item.done`: the item is final."""
        item.done = True
        self._output[item.index] = body
        self.emit("response.output_item.done", {"output_index": item.index, "item": body})

    def output(self) -> list[dict[str, Any]]:
        """The final items, in order."""
        return [body for body in self._output if body is not None]
