"""What a request says beside its input: who asks, and how the model should answer.

An agent reads it where it runs: `runtime.context` in a graph without a context schema,
`config["configurable"]["request"]` in any Runnable.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any


@dataclass(frozen=True, slots=True)
class ModelOptions:
    """Wishes of one request about the model calls of its run (OpenAI Responses API, create parameters).

    `tools` are the client's own function tools, each `{"name", "description", "parameters", "strict"}`.
    `tool_choice` is "auto", "none", "required", `{"type": "function", "name"}`,
    `{"type": "mcp", "server_label", "name"}` for one of the agent's own, or
    `{"type": "allowed_tools", "mode", "tools"}`. `server_tools` names the only tools of the agent's own that may be
    called; None for all. `response_format` is the `text.format` object, flat:
    `{"type": "json_schema", "name", "schema", "strict"}`, `{"type": "json_object"}`, or None for plain text.
    `truncation` is "auto" where the oldest turns may be left out of what the model gets, or None.
    """

    instructions: str | None = None
    tools: tuple[Mapping[str, Any], ...] = ()
    server_tools: tuple[str, ...] | None = None
    tool_choice: str | Mapping[str, Any] | None = None
    parallel_tool_calls: bool | None = None
    response_format: Mapping[str, Any] | None = None
    max_output_tokens: int | None = None
    max_tool_calls: int | None = None
    temperature: float | None = None
    top_p: float | None = None
    top_logprobs: int | None = None
    reasoning: Mapping[str, Any] | None = None
    verbosity: str | None = None
    truncation: str | None = None


@dataclass(frozen=True, slots=True)
class RequestContext:
    """One request, as the agent may see it.

    `user`, `email`, `preferred_username` and `access_token` come from `x-forwarded-*` headers and are set
    only when the peer is a trusted proxy; `user_id` and `conversation_id` come from the body and are claims
    of the client.
    """

    request_id: str = ""
    user: str | None = None
    email: str | None = None
    preferred_username: str | None = None
    access_token: str | None = field(default=None, repr=False)
    conversation_id: str | None = None
    user_id: str | None = None
    custom_inputs: Mapping[str, Any] = field(default_factory=dict)
    metadata: Mapping[str, str] = field(default_factory=dict)
    options: ModelOptions = ModelOptions()

    @property
    def session(self) -> str:
        """The conversation that a trace belongs to, from where clients put it; "" for none."""
        named = (self.conversation_id, self.custom_inputs.get("session_id"), self.custom_inputs.get("thread_id"))
        return next((each for each in named if each and isinstance(each, str)), "")
