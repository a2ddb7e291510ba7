"""What a client asks for, however it came, and what is read off it before a run can begin."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any, NamedTuple, Protocol

import msgspec

from agent_server import framing
from agent_server.context import RequestContext
from agent_server.errors import NotFoundError, RequestError
from agent_server.graph.agent import Agent
from agent_server.graph.drive import Invocation
from agent_server.graph.inputs import Turn
from agent_server.graph.steering import Steering
from agent_server.http.identity import Identity
from agent_server.protocols.responses.encoder import TOOL_ITEMS, ToolItems
from agent_server.protocols.responses.fields import Fields, wrong_type
from agent_server.protocols.responses.origin import Origin
from agent_server.protocols.responses.request import ResponsesRequest
from agent_server.runs.engine import Watcher
from agent_server.runs.log import EventLog


@dataclass(frozen=True, slots=True)
class Dialect:
    """What differs between the mounts of the same API."""

    path: str
    framing: framing.Framing
    tool_items: ToolItems
    keeps: bool = False  # whether a response is stored where its request does not say
    names_agent: bool = True  # False: the address is the agent, `model` only a label where it names none
    ends_with_trace: bool = False  # who asks for the trace's id gets it in a last frame, too


@dataclass(frozen=True, slots=True)
class Said:
    """A body and what came with it; the names of `headers` are in lower case.

    One that does not `generate` is only prepared to be gone on from. `steering` is for whoever may stop the run.
    """

    body: Mapping[str, Any]
    headers: Mapping[str, str]
    identity: Identity = field(default_factory=Identity)
    request_id: str = ""
    generate: bool = True
    steering: Steering | None = None


class Agents(Protocol):
    """The agents that are served, by name."""

    async def opened(self) -> Mapping[str, Agent]:
        """All of them, opened. The first is the default."""
        ...


class RunTrace(Watcher, Protocol):
    """The trace of one run."""

    @property
    def id(self) -> str:
        """Its id, for the client."""
        ...

    async def finished(self, log: EventLog) -> dict[str, Any] | None:
        """The whole trace of a run that is over, as JSON; None where it cannot be had soon."""
        ...


class Tracer(Protocol):
    """Who traces runs."""

    def begin(
        self, invocation: Invocation, body: Mapping[str, Any], headers: Mapping[str, str], *, tool_items: ToolItems
    ) -> RunTrace | None:
        """The trace of a run that is about to start; None if it is to have none."""
        ...


class Asked(NamedTuple):
    """A request that has been understood. `new` are the turns that were not said before."""

    dialect: Dialect
    said: Said
    request: ResponsesRequest
    context: RequestContext
    origin: Origin
    agent: Agent
    tool_items: ToolItems
    run_id: str
    keeps: bool
    new: tuple[Turn, ...] = ()

    @property
    def follows(self) -> bool:
        """Whether it goes on from whatever the conversation's head is when its turn comes."""
        return bool(self.origin.conversation) and self.said.body.get("previous_response_id") is None

    @property
    def asks_for_trace(self) -> bool:
        """By MLflow's header, or by Databricks' option."""
        header = self.said.headers.get("x-mlflow-return-trace-id", "")
        return self.request.return_trace or header.lower() == "true"

    def echo(self, trace: RunTrace | None) -> dict[str, Any]:
        """What the response object repeats; the trace's id stands in its metadata, as MLflow has it."""
        body, request = self.said.body, self.request
        echo = {**request.echo, "store": self.keeps, "background": request.background}
        if isinstance(previous := body.get("previous_response_id"), str):
            echo["previous_response_id"] = previous
        if body.get("conversation") is not None or (self.origin.conversation and self.origin.resume is not None):
            echo["conversation"] = {"id": self.origin.conversation}
        return echo if trace is None else {**echo, "metadata": {**echo["metadata"], "trace_id": trace.id}}

    def framing(self, trace: RunTrace | None) -> framing.Framing:
        """Of its stream. MLflow's AgentServer ends with a frame like this where the client asked for the trace."""
        dialect = self.dialect
        if trace is None or not dialect.ends_with_trace:
            return dialect.framing
        frame = b'data: {"trace_id": "%b"}\n\n' % trace.id.encode()
        return msgspec.structs.replace(dialect.framing, end=frame + dialect.framing.end)


def conversation_of(body: Fields) -> tuple[str, bool]:
    """The conversation a request names, and whether naming it is enough to have it."""
    value = body.get("conversation")
    if isinstance(value, dict):
        return Fields(value, "conversation").required_text("id", longest=512), False
    if value is not None:
        if not isinstance(value, str):
            raise wrong_type("conversation", "a string or an object", value)
        return body.required_text("conversation", longest=512), False
    context, custom = body.child("context"), body.child("custom_inputs")
    named = context.text("conversation_id", longest=512) if context else None
    thread = custom.get("thread_id") if custom else None
    return named or (thread if isinstance(thread, str) and len(thread) <= 512 else ""), True


def remembers(agent: Agent, origin: Origin) -> bool:
    """Whether the agent itself knows what comes before the request."""
    row = origin.previous.row if origin.previous is not None else None
    return row is not None and agent.remembers and bool(row.checkpoints) and row.agent == agent.name


def check_key(key: str, store: bool | None) -> bool:
    """Whether a request with this Idempotency-Key is stored: it is, or it is refused."""
    if not 1 <= len(key) <= 255:
        raise RequestError("Idempotency-Key must have 1 to 255 characters.", param="idempotency-key")
    if store is False:
        message = "A request with an Idempotency-Key has to be stored, or it could not be answered again."
        raise RequestError(message, param="store")
    return True


def tool_items_of(headers: Mapping[str, str], dialect: Dialect) -> ToolItems:
    """How the response shows the tools of the server: as the header says, or as is usual here."""
    wanted = headers.get("x-tool-items")
    for style in TOOL_ITEMS:
        if wanted == style:
            return style
    if wanted is not None:
        raise RequestError(f"x-tool-items must be one of {', '.join(TOOL_ITEMS)}.", param="x-tool-items")
    return dialect.tool_items


def choose(agents: Mapping[str, Agent], model: str | None, dialect: Dialect, default: str | None) -> Agent:
    """The agent that a request means. Raises `NotFoundError` where it names one that is not there."""
    if model is not None and model in agents:
        return agents[model]
    if model is not None and dialect.names_agent:
        names = ", ".join(agents)
        raise NotFoundError(
            f"The model {model[:100]!r} does not exist. This server has: {names}.",
            param="model",
            code="model_not_found",
        )
    return agents[default] if default is not None else next(iter(agents.values()))
