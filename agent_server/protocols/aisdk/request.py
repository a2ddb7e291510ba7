"""What a chat client sends -> what is asked for: new messages, answers to questions, or another answer.

The body is that of `DefaultChatTransport`, `{id, messages, trigger, messageId, ...}`, or the shorter
`{id, message, ...}` that the AI SDK's guides on persistence send. Further keys:

| key | meaning |
|---|---|
| `agent` | the agent to ask; else `model`, where it is the name of one |
| `tools` | tools that the client runs itself: name -> `{description, parameters or inputSchema}`, or a list |
| `sdkVersion` | 5, 6 or 7: the `ai` that reads the answer |
| `resume` | interrupt id -> value: answers to questions that no approval and no tool output can answer |

Everything else is the app's own, and reaches the agent as `custom_inputs`. Of the history that clients repeat nothing
is believed: not what the assistant said, nor its tools, nor a system message.
"""

from __future__ import annotations

import re
from collections.abc import Collection, Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Literal, NamedTuple

import msgspec

from agent_server.context import ModelOptions
from agent_server.errors import RequestError
from agent_server.graph.inputs import Message, Part, Text
from agent_server.http.typed import typed
from agent_server.protocols.aisdk.encoder import SdkVersion
from agent_server.protocols.aisdk.files import file_part
from agent_server.runs.threads import check_id

Trigger = Literal["submit-message", "regenerate-message"]

MAX_MESSAGES = 10_000
_TOOL_NAME = re.compile(r"[a-zA-Z0-9_-]{1,64}")
_OWN_KEYS = frozenset(
    {"id", "messages", "message", "trigger", "messageId", "agent", "tools", "sdkVersion", "resume", "system"}
)


class Said(msgspec.Struct, frozen=True):
    """A UI message. Its parts are read where they are needed; `content` is what clients sent before `ai` 5."""

    role: str
    id: str | None = None
    parts: list[dict[str, Any]] | None = None
    content: Any = None


class _Body(msgspec.Struct, frozen=True):
    id: str
    messages: list[Said] | None = None
    message: Said | None = None
    trigger: Trigger | None = None
    messageId: str | None = None  # noqa: N815
    agent: str | None = None
    model: Any = None
    tools: list[dict[str, Any]] | dict[str, dict[str, Any]] | None = None
    sdkVersion: SdkVersion | None = None  # noqa: N815
    resume: dict[str, Any] | None = None


class _Approval(msgspec.Struct, frozen=True):
    id: str
    approved: bool | None = None
    reason: str | None = None


class _ToolPart(msgspec.Struct, frozen=True):
    type: str
    toolCallId: str  # noqa: N815
    state: str = ""
    output: Any = None
    errorText: str | None = None  # noqa: N815
    approval: _Approval | None = None


class _Function(msgspec.Struct, frozen=True):
    description: str | None = None
    parameters: dict[str, Any] | None = None
    inputSchema: dict[str, Any] | None = None  # noqa: N815


class Approval(NamedTuple):
    """What people said to a `tool-approval-request`."""

    approved: bool
    reason: str | None


class ToolResult(NamedTuple):
    """What the client says that a tool call brought."""

    output: Any
    failed: bool


@dataclass(frozen=True, slots=True)
class Answers:
    """What a message of the assistant came back with: by approval id, by call id, by interrupt id."""

    approvals: Mapping[str, Approval]
    results: Mapping[str, ToolResult]
    values: Mapping[str, Any]


@dataclass(frozen=True, slots=True)
class ChatRequest:
    """A request that is well-formed. `messages` are the client's, with the places that errors name them by."""

    chat_id: str
    trigger: Trigger
    message_id: str | None
    messages: Sequence[tuple[str, Said]]
    agent: str | None
    model: str | None
    options: ModelOptions
    version: SdkVersion | None
    answers: Answers
    custom_inputs: Mapping[str, Any]

    @property
    def last(self) -> Said | None:
        """The last message that is anybody's."""
        return next((said for _, said in reversed(self.messages) if said.role in ("user", "assistant")), None)

    @property
    def answered(self) -> Said | None:
        """The message of the assistant that goes on, if one does."""
        last = self.last
        if last is None or last.role == "user":
            return None
        named = (said for _, said in self.messages if said.role == "assistant" and said.id == self.message_id)
        return next(named, last) if self.message_id else last

    def new_messages(self, known: Collection[str]) -> list[Message]:
        """The messages of people after the assistant's last one, without those that the thread has: by their ids.

        Raises `RequestError` for one that says nothing, or something that cannot be read.
        """
        tail: list[tuple[str, Said]] = []
        for place, said in reversed(self.messages):
            if said.role == "assistant":
                break
            if said.role == "user" and (not said.id or said.id not in known):
                tail.append((place, said))
        return [_turn(place, said) for place, said in reversed(tail)]

    def last_user_id(self) -> str | None:
        """The id of the last message of a person's."""
        return next((said.id for _, said in reversed(self.messages) if said.role == "user" and said.id), None)


def parse_chat(body: Mapping[str, Any]) -> ChatRequest:
    """Read a request's body. Raises `RequestError` that names the parameter."""
    asked = typed(body, _Body)
    check_id(asked.id, "id")
    if asked.messages is not None:
        if len(asked.messages) > MAX_MESSAGES:
            raise RequestError(f"A request holds at most {MAX_MESSAGES} messages.", param="messages")
        messages = [(f"messages[{place}]", said) for place, said in enumerate(asked.messages)]
    elif asked.message is not None:
        messages = [("message", asked.message)]
    elif asked.resume or asked.trigger == "regenerate-message":
        messages = []
    else:
        message = "Missing required parameter: 'messages'."
        raise RequestError(message, param="messages", code="missing_required_parameter")
    return ChatRequest(
        chat_id=asked.id,
        trigger=asked.trigger or "submit-message",
        message_id=asked.messageId or None,
        messages=messages,
        agent=asked.agent,
        model=asked.model if isinstance(asked.model, str) else None,
        options=ModelOptions(tools=_tools(asked.tools)),
        version=asked.sdkVersion,
        answers=_answers(messages, asked.resume or {}),
        custom_inputs={key: value for key, value in body.items() if key not in _OWN_KEYS},
    )


# Messages


def _turn(place: str, said: Said) -> Message:
    parts: list[Part] = []
    if said.parts is None and isinstance(said.content, str) and said.content:
        parts.append(Text(said.content))
    for number, part in enumerate(said.parts or ()):
        path = f"{place}.parts[{number}]"
        match part.get("type"):
            case "text":
                if not isinstance(text := part.get("text"), str):
                    raise RequestError(f"'{path}.text' must be a string.", param=f"{path}.text", code="invalid_type")
                parts += [Text(text)] if text else []
            case "file":
                parts.append(file_part(part, path))
            case _:
                pass  # an app's own data, a step, a source: nothing that people say to an agent
    if not parts:
        raise RequestError(f"'{place}.parts' holds neither text nor files.", param=f"{place}.parts")
    return Message("user", tuple(parts), said.id or None)


# Answers


def _answers(messages: Sequence[tuple[str, Said]], values: Mapping[str, Any]) -> Answers:
    approvals: dict[str, Approval] = {}
    results: dict[str, ToolResult] = {}
    for part in _tool_parts(messages):
        approval = part.approval
        if approval is not None and approval.approved is not None:
            approvals[approval.id] = Approval(approval.approved, approval.reason or None)
        if part.state == "output-available":
            results[part.toolCallId] = ToolResult(part.output, failed=False)
        elif part.state == "output-error":
            results[part.toolCallId] = ToolResult(part.errorText or "", failed=True)
    return Answers(approvals, results, values)


def _tool_parts(messages: Sequence[tuple[str, Said]]) -> Iterator[_ToolPart]:
    for place, said in messages:
        if said.role != "assistant":
            continue
        for number, part in enumerate(said.parts or ()):
            kind = part.get("type")
            if isinstance(kind, str) and (kind == "dynamic-tool" or kind.startswith("tool-")):
                yield _placed(part, f"{place}.parts[{number}]")


def _placed(part: Mapping[str, Any], path: str) -> _ToolPart:
    try:
        return typed(part, _ToolPart)
    except RequestError as error:
        param = f"{path}.{error.param}" if error.param else path
        message = f"'{param}' is not what a tool's part has there."
        raise RequestError(message, param=param, code=error.code) from None


# Tools


def _tools(declared: list[dict[str, Any]] | dict[str, dict[str, Any]] | None) -> tuple[Mapping[str, Any], ...]:
    named = declared.items() if isinstance(declared, dict) else _by_name(declared or [])
    tools: list[Mapping[str, Any]] = []
    for name, tool in named:
        if not _TOOL_NAME.fullmatch(name):
            message = f"The name of a tool has 1 to 64 letters, digits, underscores or dashes, unlike {name[:64]!r}."
            raise RequestError(message, param="tools")
        try:
            function = typed(tool, _Function)
        except RequestError as error:
            raise RequestError(error.message, param=f"tools.{name}.{error.param}", code=error.code) from None
        parameters = function.inputSchema if function.inputSchema is not None else function.parameters
        if parameters is not None and isinstance(parameters.get("jsonSchema"), dict):
            parameters = parameters["jsonSchema"]  # the AI SDK's own wrapper of a schema
        tools.append({"name": name, "description": function.description, "parameters": parameters, "strict": None})
    if len({tool["name"] for tool in tools}) < len(tools):
        raise RequestError("Two tools have the same name.", param="tools", code="duplicate_tool")
    return tuple(tools)


def _by_name(declared: Sequence[Mapping[str, Any]]) -> Iterator[tuple[str, Mapping[str, Any]]]:
    for place, tool in enumerate(declared):
        name = tool.get("name")
        if not isinstance(name, str):
            message = f"Missing required parameter: 'tools[{place}].name'."
            raise RequestError(message, param=f"tools[{place}].name", code="missing_required_parameter")
        yield name, tool
