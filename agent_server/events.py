"""The events of a run: a closed union of small frozen facts, their codec, and which of them are terminal.

A run is the list of its events. It starts with `RunStarted`, ends with exactly one terminal event, and is
well nested in between: blocks inside messages, everything closed before the end. Encoders are folds of this
list and need nothing else: no clock (times are in the events), no chance (ids derive from the run id).

Ids: `message_id` is the message's ordinal in the run ("m0", "m1", ...); (message_id, index) names a block;
`call_id` is the model's own tool call id, which links a call to its execution and its output.
Texts are whole Unicode strings, times are Unix milliseconds, everything else is JSON-safe.
"""

from __future__ import annotations

from typing import Any, Literal

import msgspec

RunKind = Literal["input", "resume", "continue", "fork"]
BlockKind = Literal["text", "reasoning", "refusal", "tool_call", "media"]
ToolStatus = Literal["success", "error", "pending"]
IncompleteReason = Literal["max_output_tokens", "content_filter", "recursion_limit", "steered"]


class Usage(msgspec.Struct, frozen=True):
    """Tokens of model calls, inclusive totals: cached, cache-written and reasoning tokens are parts of them."""

    input_tokens: int = 0
    output_tokens: int = 0
    total_tokens: int = 0
    cached_tokens: int = 0
    cache_write_tokens: int = 0
    reasoning_tokens: int = 0

    def __add__(self, other: Usage) -> Usage:
        return Usage(*(getattr(self, name) + getattr(other, name) for name in self.__struct_fields__))


class _Event(msgspec.Struct, frozen=True, tag=True, tag_field="type", omit_defaults=True):
    """Base of all events; the tag is the class name."""


class RunStarted(_Event, frozen=True):
    """First event, appended before the graph starts.

    `echo` is what a wire must repeat of the request in its own envelope; `client_tools` names the tools that
    the client runs itself; `approvals` maps calls to the ids of the approval requests that were answered for them.
    """

    run_id: str
    agent: str
    at: int
    thread_id: str = ""
    kind: RunKind = "input"
    model: str = ""
    client_tools: tuple[str, ...] = ()
    approvals: dict[str, str] = {}
    echo: dict[str, Any] = {}


class RunRetried(_Event, frozen=True):
    """A new owner goes on. Open messages, blocks and tools of the old attempt are void."""

    attempt: int
    reason: str


class StepStarted(_Event, frozen=True):
    """A node of the graph began. Several may be open at once; `task_id` tells them apart."""

    step: str
    task_id: str
    ns: tuple[str, ...] = ()


class StepFinished(_Event, frozen=True):
    """A node of the graph ended."""

    step: str
    task_id: str


class MessageStarted(_Event, frozen=True):
    """First chunk of a model call.

    `source_id` is the id the message has in the graph's state; `parent_call_id` is set when the model was
    called inside that tool call (an agent used as a tool); `metadata` holds LangGraph's own keys. `whole`, told by
    runs that record messages, marks a message that did not come from its model piece by piece.
    """

    message_id: str
    step: str = ""
    ns: tuple[str, ...] = ()
    source_id: str = ""
    parent_call_id: str = ""
    metadata: dict[str, Any] = {}
    whole: bool = False


class BlockStarted(_Event, frozen=True):
    """First chunk of a block. `call_id` and `name` are set for a tool call."""

    message_id: str
    index: int
    kind: BlockKind
    call_id: str = ""
    name: str = ""


class TextDelta(_Event, frozen=True, gc=False):
    """More text of a text block."""

    message_id: str
    index: int
    text: str


class ReasoningDelta(_Event, frozen=True, gc=False):
    """More text of a reasoning block."""

    message_id: str
    index: int
    text: str


class RefusalDelta(_Event, frozen=True, gc=False):
    """More text of a refusal block."""

    message_id: str
    index: int
    text: str


class ArgsDelta(_Event, frozen=True, gc=False):
    """More of a tool call's arguments, a piece of JSON text."""

    message_id: str
    index: int
    text: str


class Annotated(_Event, frozen=True):
    """A citation on a text block: a LangChain v1 annotation block."""

    message_id: str
    index: int
    annotation: dict[str, Any]


class BlockFinished(_Event, frozen=True):
    """A block is over.

    `text` is the whole text, or the whole arguments as the model wrote them; it equals the deltas joined.
    `complete` is false when the run ended before the model had finished it, `invalid` marks arguments that
    are no JSON object. `data` holds media (a LangChain v1 content block) and
    what a reasoning block carries beside its text (`encrypted`).
    """

    message_id: str
    index: int
    kind: BlockKind
    text: str = ""
    call_id: str = ""
    name: str = ""
    complete: bool = True
    invalid: bool = False
    annotations: tuple[dict[str, Any], ...] = ()
    data: dict[str, Any] = {}


class MessageFinished(_Event, frozen=True):
    """End of a model call. `message` is the whole message as plain JSON; usage is this call's own."""

    message_id: str
    message: dict[str, Any] = {}
    usage: Usage | None = None
    finish_reason: str = ""


class ToolStarted(_Event, frozen=True):
    """A tool began to run on this server. `parent_call_id` is set when it runs inside another tool call.

    `ns` and `metadata` are told by runs that record messages.
    """

    call_id: str
    name: str
    input: dict[str, Any] = {}
    step: str = ""
    parent_call_id: str = ""
    ns: tuple[str, ...] = ()
    metadata: dict[str, Any] = {}


class ToolProgress(_Event, frozen=True):
    """Something a running tool tells of itself."""

    call_id: str
    data: Any


class ToolFinished(_Event, frozen=True):
    """A tool ended. `output` is text, or a list of LangChain v1 content blocks.

    `message_id` is the id of the tool message in the graph's state, where known. Status "pending" means that
    an interrupt stopped the tool before it had an output.
    """

    call_id: str
    name: str
    output: str | list[dict[str, Any]] = ""
    status: ToolStatus = "success"
    message_id: str = ""


class StatePart(_Event, frozen=True):
    """State of the graph, in one of LangGraph's stream modes that the run was asked to record.

    Mode "checkpoint_refs" is no mode of LangGraph's: `data` has `id`, `parent_id`, `step`, `source` of a checkpoint.
    """

    mode: str
    data: Any
    ns: tuple[str, ...] = ()


class Custom(_Event, frozen=True):
    """Data from a stream writer or a dispatched custom event."""

    name: str
    data: Any
    ns: tuple[str, ...] = ()


class RawEvent(_Event, frozen=True):
    """One LangChain stream event as JSON, for runs asked to record them."""

    event: dict[str, Any]


class Interrupt(msgspec.Struct, frozen=True, omit_defaults=True):
    """One question a run stopped at.

    Kind "approval" carries LangChain's action requests, kind "client_tool" is a call the client must run
    itself, "free" is any other value given to `interrupt()`.
    """

    id: str
    value: Any
    kind: Literal["approval", "client_tool", "free"] = "free"
    call_ids: tuple[str, ...] = ()


class RunFinished(_Event, frozen=True):
    """Terminal: the graph ran to its end, or to a limit that `incomplete` names."""

    at: int
    usage: Usage | None = None
    finish_reason: str = ""
    incomplete: IncompleteReason | None = None
    custom_outputs: dict[str, Any] = {}


class RunInterrupted(_Event, frozen=True):
    """Terminal for the run: the graph waits for answers."""

    at: int
    interrupts: tuple[Interrupt, ...]
    usage: Usage | None = None


class RunFailed(_Event, frozen=True):
    """Terminal: the agent failed. `message` is public; `error_id` leads to the exception in the log.

    `error` and `detail` are told by runs that record errors: the exception's type, and its text where it is one whose
    text is meant to be read.
    """

    at: int
    code: str
    message: str
    error_id: str
    usage: Usage | None = None
    error: str = ""
    detail: str = ""


class RunCancelled(_Event, frozen=True):
    """Terminal: the run was stopped on purpose."""

    at: int
    reason: str
    action: Literal["interrupt", "rollback"] = "interrupt"
    usage: Usage | None = None


Terminal = RunFinished | RunInterrupted | RunFailed | RunCancelled
Event = (
    RunStarted
    | RunRetried
    | StepStarted
    | StepFinished
    | MessageStarted
    | BlockStarted
    | TextDelta
    | ReasoningDelta
    | RefusalDelta
    | ArgsDelta
    | Annotated
    | BlockFinished
    | MessageFinished
    | ToolStarted
    | ToolProgress
    | ToolFinished
    | StatePart
    | Custom
    | RawEvent
    | Terminal
)

TERMINAL: frozenset[type] = frozenset({RunFinished, RunInterrupted, RunFailed, RunCancelled})
"""The types of events that no event may follow."""

_decoder: msgspec.json.Decoder[Event] = msgspec.json.Decoder(Event)
_encoder = msgspec.json.Encoder()


def encode(event: Event) -> bytes:
    """The event as tagged JSON, the form in which a log stores it."""
    return _encoder.encode(event)


def decode(data: bytes) -> Event:
    """The event back from its stored form. Raises `msgspec.ValidationError` for anything else."""
    return _decoder.decode(data)
