"""How a graph is to be run, where a protocol lets its client say so: LangGraph's config and stream options."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import Any, Literal

from langchain_core.runnables import RunnableConfig
from langgraph.types import Command, Send

Nodes = Sequence[str] | Literal["*"]

_STRICT_RESUME = "__pregel_strict_resume"  # LangGraph's key for it, which RemoteGraph strips on its way


@dataclass(frozen=True, slots=True)
class Tuning:
    """What a client may say of a run beside its input. None, or nothing, is the graph's own default.

    `configurable` and `metadata` never hold what is the server's to say: its keys are laid over them. `checkpoint` is
    the id of a checkpoint of the thread to go on from, in the place of the last one. A run that `continues` brings
    nothing new to its thread.
    """

    tags: Sequence[str] = ()
    recursion_limit: int | None = None
    max_concurrency: int | None = None
    run_name: str | None = None
    metadata: Mapping[str, Any] = field(default_factory=dict)
    configurable: Mapping[str, Any] = field(default_factory=dict)
    interrupt_before: Nodes | None = None
    interrupt_after: Nodes | None = None
    durability: Literal["sync", "async", "exit"] | None = None
    strict_resume: bool = False
    checkpoint: str = ""
    continues: bool = False

    def config(self, config: RunnableConfig) -> RunnableConfig:
        """The server's config of a run with what the client says of it."""
        tuned: RunnableConfig = {
            **config,
            "metadata": {**self.metadata, **config.get("metadata", {})},
            "configurable": {**self.configurable, **config.get("configurable", {})},
        }
        if self.tags:
            tuned["tags"] = list(self.tags)
        if self.recursion_limit is not None:
            tuned["recursion_limit"] = self.recursion_limit
        if self.max_concurrency is not None:
            tuned["max_concurrency"] = self.max_concurrency
        if self.run_name is not None:
            tuned["run_name"] = self.run_name
        if self.strict_resume:
            tuned["configurable"][_STRICT_RESUME] = True
        return tuned

    def options(self, *, remembers: bool) -> dict[str, Any]:
        """What a graph's `stream` gets of it. Durability is for a graph that remembers."""
        given = {"interrupt_before": self.interrupt_before, "interrupt_after": self.interrupt_after}
        if remembers and self.durability is not None:
            given["durability"] = self.durability
        return {name: value for name, value in given.items() if value is not None}


UNTUNED = Tuning()
"""A run that its client says nothing of."""


def command(*, update: Any = None, goto: Sequence[str | tuple[str, Any]] = (), resume: Any = None) -> Any:
    """A command to a graph at rest. A pair in `goto` is a node with an input of its own."""
    targets = [each if isinstance(each, str) else Send(*each) for each in goto]
    return Command(update=update, goto=targets, resume=resume)


def answering(value: Any, resume: Mapping[str, Any]) -> Any:
    """The command that answers a graph's questions, and does what another command says beside."""
    return replace(value if isinstance(value, Command) else Command(), resume=dict(resume))
