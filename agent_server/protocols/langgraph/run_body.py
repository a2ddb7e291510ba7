"""The body of a request for a run, read field by field. Pure: no store, no graph, no clock.

Every field changes what happens, or is refused by its name (422); the two that name services of LangSmith's are
accepted and do nothing. A field that is null is not given.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import Any, Literal, cast, get_args

from msgspec import UNSET

from agent_server.errors import RequestError
from agent_server.protocols.langgraph.refusals import UnprocessableError

StreamMode = Literal[
    "values", "updates", "messages", "messages-tuple", "events", "custom", "debug", "tasks", "checkpoints"
]
Durability = Literal["sync", "async", "exit"]
Multitask = Literal["reject", "enqueue", "interrupt", "rollback"]
Nodes = tuple[str, ...] | Literal["*"]

STREAM_MODES: tuple[StreamMode, ...] = get_args(StreamMode)
HARMLESS_MODES = frozenset({"tools", "lifecycle", "input", "tasks-tuple", "state_update", "run_modes"})
"""Modes of newer clients that a stream of this API says nothing about: asking for them changes nothing."""

IGNORED = frozenset({"feedback_keys", "langsmith_tracer"})
LONGEST_WAIT = 366 * 86_400.0
"""Seconds that a run may be put off."""

_SERVERS_OWN = frozenset(
    {
        "thread_id", "run_id", "assistant_id", "graph_id", "user_id", "request",
        "checkpoint_id", "checkpoint_ns", "checkpoint_map",
    }
)  # fmt: skip


@dataclass(frozen=True, slots=True)
class Send:
    """A node to go to, with an input of its own."""

    node: str
    input: Any = None


@dataclass(frozen=True, slots=True)
class Command:
    """Instructions to a graph that is at rest. `resume` is `UNSET` where nothing is resumed.

    `update` is a mapping of the state's keys, or pairs of key and value.
    """

    resume: Any = UNSET
    update: Any = None
    goto: tuple[str | Send, ...] = ()

    @property
    def resumes(self) -> bool:
        """Whether it answers what a graph waits for."""
        return self.resume is not UNSET


@dataclass(frozen=True, slots=True)
class RunConfig:
    """What of a `RunnableConfig` a client may set. The server's own keys are not in `configurable`."""

    tags: tuple[str, ...] = ()
    recursion_limit: int | None = None
    max_concurrency: int | None = None
    run_name: str | None = None
    metadata: Mapping[str, Any] = field(default_factory=dict)
    configurable: Mapping[str, Any] = field(default_factory=dict)


@dataclass(frozen=True, slots=True)
class RunBody:
    """What a client asks of one run. `stream_mode` holds the known modes in the order asked for, each once."""

    assistant_id: str
    input: Any = None
    command: Command | None = None
    config: RunConfig = RunConfig()
    context: Mapping[str, Any] | None = None
    metadata: Mapping[str, Any] = field(default_factory=dict)
    stream_mode: tuple[StreamMode, ...] = ("values",)
    stream_subgraphs: bool = False
    stream_resumable: bool = False
    interrupt_before: Nodes | None = None
    interrupt_after: Nodes | None = None
    checkpoint_id: str | None = None
    durability: Durability = "async"
    multitask_strategy: Multitask = "enqueue"
    if_not_exists: Literal["reject", "create"] = "reject"
    on_disconnect: Literal["cancel", "continue"] = "continue"
    on_completion: Literal["delete", "keep"] = "delete"
    after_seconds: float = 0.0
    webhook: str | None = None
    strict_resume: bool = False

    @property
    def resumes(self) -> bool:
        """Whether the run answers what its thread waits for."""
        return self.command is not None and self.command.resumes


def read_run(body: Mapping[str, Any], *, stateless: bool = False) -> RunBody:
    """A body as JSON has it.

    Raises `UnprocessableError` (422), and `RequestError` (400) for what contradicts itself.
    """
    given = {name: value for name, value in body.items() if value is not None and name not in IGNORED}
    if "assistant_id" not in given:
        raise UnprocessableError("'assistant_id' is required.", param="assistant_id")
    for name in given:
        if name not in _READERS:
            raise UnprocessableError(f"{name[:100]!r} is no field of a run here.", param=name[:100])
    _check_together(given, stateless)
    read = {name: _READERS[name](value, name) for name, value in given.items()}
    checkpoint = read.pop("checkpoint", None)
    if checkpoint is not None:
        read["checkpoint_id"] = checkpoint
    during = read.pop("checkpoint_during", None)
    if during is not None and "durability" not in read:
        read["durability"] = "async" if during else "exit"
    return RunBody(**read)


def _check_together(given: Mapping[str, Any], stateless: bool) -> None:
    """What each field may say by itself, but not beside another."""
    config, command = given.get("config"), given.get("command")
    if given.get("context") and isinstance(config, Mapping) and config.get("configurable"):
        message = "Cannot specify both config.configurable and context. Prefer context alone."
        raise RequestError(message, param="context")
    if stateless and isinstance(command, Mapping) and command.get("resume") is not None:
        raise RequestError("You must provide a thread_id when resuming.", param="command")
    if isinstance(command, Mapping) and any(v not in (None, []) for v in command.values()) and given.get("input"):
        raise RequestError("Cannot specify both input and command.", param="command")
    if stateless and ("checkpoint" in given or "checkpoint_id" in given):
        name = "checkpoint" if "checkpoint" in given else "checkpoint_id"
        raise UnprocessableError(f"{name!r} needs a thread: a stateless run has none to go on from.", param=name)
    if not stateless and given.get("on_completion") == "delete":
        raise UnprocessableError("'on_completion' is for stateless runs: a thread stays.", param="on_completion")
    ids = {given.get("checkpoint_id"), *_checkpoint_ids(given.get("checkpoint"))} - {None}
    if len(ids) > 1:
        raise UnprocessableError("'checkpoint' and 'checkpoint_id' name two checkpoints.", param="checkpoint_id")


def _checkpoint_ids(checkpoint: Any) -> tuple[Any, ...]:
    return (checkpoint.get("checkpoint_id"),) if isinstance(checkpoint, Mapping) else ()


# -- fields


def _wrong(name: str, what: str) -> UnprocessableError:
    return UnprocessableError(f"'{name}' must be {what}.", param=name)


def _anything(value: Any, _: str) -> Any:
    return value


def _text(value: Any, name: str) -> str:
    if not isinstance(value, str) or not value:
        raise _wrong(name, "a text")
    return value


def _flag(value: Any, name: str) -> bool:
    if not isinstance(value, bool):
        raise _wrong(name, "true or false")
    return value


def _mapping(value: Any, name: str) -> dict[str, Any]:
    if not isinstance(value, dict):
        raise _wrong(name, "an object")
    return value


def _one_of(*allowed: str) -> Callable[[Any, str], str]:
    def read(value: Any, name: str) -> str:
        if value not in allowed:
            raise _wrong(name, " or ".join((", ".join(allowed[:-1]), allowed[-1])))
        return str(value)

    return read


def _texts(value: Any, name: str) -> tuple[str, ...]:
    if not isinstance(value, list) or not all(isinstance(each, str) for each in value):
        raise _wrong(name, "a list of texts")
    return tuple(value)


def _nodes(value: Any, name: str) -> Nodes | None:
    if value in ("*", ["*"]):
        return "*"
    return _texts([value] if isinstance(value, str) else value, name) or None


def _modes(value: Any, name: str) -> tuple[StreamMode, ...]:
    asked = _texts([value] if isinstance(value, str) else value, name)
    for mode in asked:
        if mode not in STREAM_MODES and mode not in HARMLESS_MODES:
            raise UnprocessableError(
                f"'stream_mode' has no mode {mode[:50]!r}. Modes: {', '.join(STREAM_MODES)}.", param="stream_mode"
            )
    return cast("tuple[StreamMode, ...]", tuple(dict.fromkeys(mode for mode in asked if mode in STREAM_MODES)))


def _number(value: Any, name: str, least: float, most: float) -> float:
    if isinstance(value, bool) or not isinstance(value, int | float) or not least <= value <= most:
        raise _wrong(name, f"a number from {least:g} to {most:g}")
    return value


def _seconds(value: Any, name: str) -> float:
    return float(_number(value, name, 0, LONGEST_WAIT))


def _count(value: Any, name: str) -> int:
    if not isinstance(value, int):
        raise _wrong(name, "a whole number")
    return int(_number(value, name, 1, 1_000_000))


def _checkpoint(value: Any, name: str) -> str | None:
    """The id of a checkpoint of the thread itself; those of its subgraphs are no places to begin at."""
    place = _mapping(value, name)
    if place.get("checkpoint_ns"):
        raise UnprocessableError(
            "'checkpoint.checkpoint_ns' must be empty: a run begins at its graph's own checkpoints.",
            param="checkpoint.checkpoint_ns",
        )
    if place.get("checkpoint_map"):
        raise UnprocessableError(
            "'checkpoint.checkpoint_map' is not served: a run begins at its graph's own checkpoints.",
            param="checkpoint.checkpoint_map",
        )
    return None if place.get("checkpoint_id") is None else _text(place["checkpoint_id"], f"{name}.checkpoint_id")


def _command(value: Any, name: str) -> Command | None:
    command = _mapping(value, name)
    for key in command:
        # `graph` is in what `dataclasses.asdict` makes of LangGraph's own Command (RemoteGraph)
        if key not in ("resume", "update", "goto") and command[key] is not None:
            raise UnprocessableError(f"'{name}.{key[:50]}' is not served.", param=f"{name}.{key[:50]}")
    read = Command(
        resume=UNSET if command.get("resume") is None else command["resume"],
        update=_update(command.get("update"), f"{name}.update"),
        goto=_goto(command.get("goto"), f"{name}.goto"),
    )
    return None if read == Command() else read


def _update(value: Any, name: str) -> Any:
    if value is None or isinstance(value, dict):
        return value
    if isinstance(value, list) and all(isinstance(e, list) and len(e) == 2 and isinstance(e[0], str) for e in value):
        return [(key, item) for key, item in value]
    raise _wrong(name, "an object, or a list of pairs of key and value")


def _goto(value: Any, name: str) -> tuple[str | Send, ...]:
    if value is None:
        return ()
    return tuple(_target(each, name) for each in (value if isinstance(value, list | tuple) else [value]))


def _target(value: Any, name: str) -> str | Send:
    if isinstance(value, str) and value:
        return value
    if isinstance(value, dict) and isinstance(value.get("node"), str):
        return Send(value["node"], value.get("input", value.get("arg")))
    raise _wrong(name, "the name of a node, or an object with node and input, or a list of them")


def _config(value: Any, name: str) -> RunConfig:
    given = {key: item for key, item in _mapping(value, name).items() if item is not None}
    for key in given:
        if key not in _CONFIG_READERS:
            raise UnprocessableError(f"'{name}.{key[:50]}' is not served.", param=f"{name}.{key[:50]}")
    return RunConfig(**{key: _CONFIG_READERS[key](item, f"{name}.{key}") for key, item in given.items()})


def _configurable(value: Any, name: str) -> dict[str, Any]:
    """Without what is the server's to say. What LangGraph keeps for itself is refused."""
    given = _mapping(value, name)
    for key in given:
        if key.startswith("__"):
            raise UnprocessableError(f"'{name}.{key[:50]}' is LangGraph's own.", param=f"{name}.{key[:50]}")
    return {key: item for key, item in given.items() if key not in _SERVERS_OWN}


_CONFIG_READERS: Mapping[str, Callable[[Any, str], Any]] = {
    "tags": _texts,
    "recursion_limit": _count,
    "max_concurrency": _count,
    "run_name": _text,
    "metadata": _mapping,
    "configurable": _configurable,
}

_READERS: Mapping[str, Callable[[Any, str], Any]] = {
    "assistant_id": _text,
    "input": _anything,
    "command": _command,
    "config": _config,
    "context": _mapping,
    "metadata": _mapping,
    "stream_mode": _modes,
    "stream_subgraphs": _flag,
    "stream_resumable": _flag,
    "interrupt_before": _nodes,
    "interrupt_after": _nodes,
    "checkpoint": _checkpoint,
    "checkpoint_id": _text,
    "checkpoint_during": _flag,
    "durability": _one_of(*get_args(Durability)),
    "multitask_strategy": _one_of(*get_args(Multitask)),
    "if_not_exists": _one_of("reject", "create"),
    "on_disconnect": _one_of("cancel", "continue"),
    "on_completion": _one_of("delete", "keep"),
    "after_seconds": _seconds,
    "webhook": _text,
    "strict_resume": _flag,
}
