"""`RunAgentInput` of AG-UI 1.0, as typed structs, and what is read off it: a body checked in all its parts.

Members that the protocol does not know are passed over, with a warning in the log (AG-UI 1.0, "Extensibility").
"""

from __future__ import annotations

import logging
from collections.abc import Iterable, Mapping
from typing import Any, Literal, get_args

import msgspec
from msgspec import UNSET

from agent_server.errors import RequestError
from agent_server.http.typed import typed

logger = logging.getLogger("agent_server.protocols.agui")

Json = dict[str, Any]
MAX_MESSAGES = 10_000
LONGEST_ID = 512


class _Part(msgspec.Struct, frozen=True, rename="camel"):
    """Base of the structs of the wire."""


class DataSource(_Part, frozen=True, tag="data"):
    """Data in base64."""

    value: str
    mime_type: str


class UrlSource(_Part, frozen=True, tag="url"):
    """Data at an address."""

    value: str
    mime_type: str | None = None


class FileSource(_Part, frozen=True, tag="file"):
    """Data that a provider keeps."""

    value: str
    provider: str | None = None
    mime_type: str | None = None


Source = DataSource | UrlSource | FileSource


class TextPart(_Part, frozen=True, tag="text"):
    """Text."""

    text: str


class ImagePart(_Part, frozen=True, tag="image"):
    """An image."""

    source: Source


class AudioPart(_Part, frozen=True, tag="audio"):
    """A sound."""

    source: Source


class VideoPart(_Part, frozen=True, tag="video"):
    """A film."""

    source: Source


class DocumentPart(_Part, frozen=True, tag="document"):
    """A document."""

    source: Source


class BinaryPart(_Part, frozen=True, tag="binary"):
    """Any data, as clients before 1.0 send it."""

    mime_type: str
    id: str | None = None
    url: str | None = None
    data: str | None = None
    filename: str | None = None


ContentPart = TextPart | ImagePart | AudioPart | VideoPart | DocumentPart | BinaryPart


class _Message(msgspec.Struct, frozen=True, rename="camel", tag_field="role"):
    """Base of messages."""

    id: str


class UserMessage(_Message, frozen=True, tag="user"):
    """What the user says."""

    content: str | list[ContentPart]
    name: str | None = None
    subagent_run_id: str | None = None


class Function(_Part, frozen=True):
    """A function and its arguments, as JSON text."""

    name: str
    arguments: str


class ToolCall(_Part, frozen=True):
    """A call in an assistant's message."""

    id: str
    function: Function
    type: Literal["function"] = "function"


class AssistantMessage(_Message, frozen=True, tag="assistant"):
    """What the agent said, as the client remembers it."""

    content: str | None = None
    tool_calls: list[ToolCall] | None = None
    name: str | None = None
    subagent_run_id: str | None = None


class ToolMessage(_Message, frozen=True, tag="tool"):
    """The result of a tool call."""

    content: str | list[ContentPart]
    tool_call_id: str
    error: str | None = None
    subagent_run_id: str | None = None


class SystemMessage(_Message, frozen=True, tag="system"):
    """Instructions, which are not a client's to give."""

    content: str


class DeveloperMessage(_Message, frozen=True, tag="developer"):
    """Instructions, which are not a client's to give."""

    content: str


class ReasoningMessage(_Message, frozen=True, tag="reasoning"):
    """What the agent thought."""

    content: str
    encrypted_value: str | None = None


class ActivityMessage(_Message, frozen=True, tag="activity"):
    """What the client shows of something."""

    activity_type: str
    content: dict[str, Any]


AnyMessage = (
    UserMessage | AssistantMessage | ToolMessage | SystemMessage | DeveloperMessage | ReasoningMessage | ActivityMessage
)


class Tool(_Part, frozen=True):
    """A tool of the client's own; `parameters` is a JSON schema."""

    name: str
    description: str
    parameters: Any = None


class Context(_Part, frozen=True):
    """Something the application tells the agent of itself."""

    description: str
    value: str


class ResumeEntry(_Part, frozen=True):
    """The answer to an interrupt."""

    interrupt_id: str
    status: Literal["resolved", "cancelled"]
    payload: Any = None


class RunInput(_Part, frozen=True):
    """The body of a request. `state` is any JSON value, UNSET where there is none."""

    thread_id: str
    run_id: str
    messages: list[AnyMessage]
    state: Any = UNSET
    tools: list[Tool] | None = None
    context: list[Context] | None = None
    forwarded_props: Any = None
    resume: list[ResumeEntry] | None = None
    parent_run_id: str | None = None
    protocol_version: str | None = None


def parse(body: Mapping[str, Any]) -> RunInput:
    """A body, checked. Raises `RequestError` naming the parameter, such as `messages[2].content`."""
    asked = typed(body, RunInput)
    for name, value in (("threadId", asked.thread_id), ("runId", asked.run_id)):
        _check_id(name, value)
    if len(asked.messages) > MAX_MESSAGES:
        message = f"'messages' holds {len(asked.messages)} messages; at most {MAX_MESSAGES} are taken."
        raise RequestError(message, param="messages", code="array_above_max_length")
    for place, each in enumerate(asked.messages):
        _check_id(f"messages[{place}].id", each.id)
    for place, tool in enumerate(asked.tools or ()):
        if not tool.name:
            raise RequestError(f"'tools[{place}].name' must not be empty.", param=f"tools[{place}].name")
        if not isinstance(tool.parameters, dict | None):
            param = f"tools[{place}].parameters"
            raise RequestError(f"'{param}' must be a JSON schema of an object.", param=param, code="invalid_type")
    _warn_of_unknown(body)
    return asked


def _check_id(name: str, value: str) -> None:
    if not 1 <= len(value) <= LONGEST_ID or "\0" in value:
        raise RequestError(f"'{name}' must have 1 to {LONGEST_ID} characters, none of them NUL.", param=name)


# Unknown members

_EVERYWHERE = frozenset({"metadata", "name", "encryptedValue", "subagentRunId"})


def _known(kind: type[msgspec.Struct]) -> frozenset[str]:
    return frozenset(kind.__struct_encode_fields__) | _EVERYWHERE


_MESSAGES = frozenset({"role"}).union(*map(_known, get_args(AnyMessage)))
_LISTS = (
    ("messages", _MESSAGES),
    ("tools", _known(Tool)),
    ("context", _known(Context)),
    ("resume", _known(ResumeEntry)),
)


def _warn_of_unknown(body: Mapping[str, Any]) -> None:
    unknown = _others("", body, frozenset(RunInput.__struct_encode_fields__))
    for name, known in _LISTS:
        for place, value in enumerate(body.get(name) or ()):
            unknown += _others(f"{name}[{place}].", value, known)
    if unknown:
        logger.warning("members that AG-UI does not know are passed over: %s", ", ".join(unknown[:10]))


def _others(path: str, value: Mapping[str, Any], known: Iterable[str]) -> list[str]:
    return [f"{path}{key[:64]}" for key in value if key not in known]
