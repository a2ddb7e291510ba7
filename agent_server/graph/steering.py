"""Stopping a graph on purpose where it can be gone on from with something new."""

from __future__ import annotations

from collections.abc import Callable

from langgraph.runtime import RunControl


class Steering(RunControl):
    """The control of one run: once asked, the graph stops between two of its steps, and its state is saved.

    It stops only at rest: a tool call without its output could not be followed by anything else. A run that never
    comes to rest ends by itself.
    """

    __slots__ = ("_at_rest",)

    def __init__(self) -> None:
        super().__init__()
        self._at_rest: Callable[[], bool] = bool

    def watch(self, at_rest: Callable[[], bool]) -> None:
        """Let `at_rest` tell, at the end of a step, whether the run can stop there."""
        self._at_rest = at_rest

    def stop(self) -> None:
        """Ask the run to stop. Asking twice is the same as once."""
        self.request_drain("steered")

    @property
    def drain_requested(self) -> bool:
        """Asked by LangGraph before it begins a step, in the graph and in its subgraphs."""
        return super().drain_requested and self._at_rest()
