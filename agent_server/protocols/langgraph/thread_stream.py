"""`GET /threads/{t}/stream`: the frames of a thread's runs, from run to run, for whoever joins the thread."""

from __future__ import annotations

from collections.abc import Callable, Collection
from typing import Any

import orjson

from agent_server.events import TERMINAL, RunStarted, StatePart
from agent_server.protocols.langgraph.encoder_v1 import V1Encoder
from agent_server.protocols.langgraph.frames import Cursor, Frame
from agent_server.protocols.langgraph.shown import RunRecord, shown_run_id
from agent_server.runs.stores.port import RunRow
from agent_server.runs.thread_log import Placed

THREAD_MODES = ("run_modes", "lifecycle", "state_update")
_DONE = 9
"""Place of the frame that ends a run, among those of its last event."""


class ThreadEncoder:
    """Folds the events of a thread into frames.

    `run_modes` tells what each run's own stream tells, `lifecycle` only that it begins and is done, `state_update`
    its values. `record_of` tells what was asked for with a run. Frames up to `after` are left out.
    """

    def __init__(self, modes: Collection[str], record_of: Callable[[RunRow], RunRecord], after: Cursor | None) -> None:
        self._modes = frozenset(modes)
        self._record_of = record_of
        self._after = after
        self._run: V1Encoder | None = None

    def feed(self, placed: Placed) -> list[Frame]:
        """The frames that one event causes."""
        place, event, row = placed
        if isinstance(event, RunStarted) and row is not None:
            self._run = self._encoder(self._record_of(row), place)
        frames = self._run.feed(event) if self._run is not None else []
        if isinstance(event, StatePart) and event.mode == "values" and not event.ns and "state_update" in self._modes:
            frames.append(Frame("state_update", orjson.dumps(event.data), f"{place}-{_DONE}"))
        if type(event) in TERMINAL and row is not None:
            done = {"status": "run_done", "run_id": shown_run_id(row.id)}
            frames = [frame for frame in frames if frame.event != "end"]  # the stream goes on
            frames.append(Frame("metadata", orjson.dumps(done), f"{place}-{_DONE}"))
        return frames if self._after is None else self._left(place, frames)

    def _left(self, place: int, frames: list[Frame]) -> list[Frame]:
        assert self._after is not None
        return [frame for frame in frames if Cursor(place, int(frame.id.partition("-")[2])) > self._after]

    def _encoder(self, record: RunRecord, base: int) -> V1Encoder:
        asked: Any = record.kwargs.get("stream_mode", ("values", "messages-tuple"))
        subgraphs = bool(record.kwargs.get("subgraphs", False))
        modes = asked if "run_modes" in self._modes else ()
        return V1Encoder(modes, subgraphs=subgraphs, base=lambda: base, about=about(record))


def about(record: RunRecord) -> dict[str, Any]:
    """What every message's metadata says of its run."""
    return {key: record.metadata[key] for key in ("graph_id", "assistant_id") if key in record.metadata}
