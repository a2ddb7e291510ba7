"""Agents elsewhere: a graph on another LangGraph server, driven through its `/runs/stream`.

Every LangGraph thread here has one of its own there, so that the graph remembers and waits for answers there. What a
run goes on from is found by the run's id, which each checkpoint there is marked with. Who asks here asks there,
too: the token that a trusted proxy gave travels on.
"""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Mapping
from contextlib import asynccontextmanager
from dataclasses import asdict, dataclass, field
from typing import Any, NamedTuple, cast
from urllib.parse import unquote, urlsplit
from uuid import NAMESPACE_URL, uuid5

import httpx
from langchain_core.messages import AIMessage, AIMessageChunk, BaseMessage, ToolMessage
from langgraph.errors import GraphRecursionError
from langgraph.types import Command, Interrupt
from langgraph_sdk.client import LangGraphClient
from msgspec import UNSET

from agent_server.errors import RunRefusedError, TargetError
from agent_server.events import Event, IncompleteReason, StatePart
from agent_server.graph.agent import Agent, SelfOpening
from agent_server.graph.checkpoints import CheckpointGoneError, Memory
from agent_server.graph.converter import Converter
from agent_server.graph.drive import ForeignAgent, Invocation, Recorder
from agent_server.graph.inputs import system_turn, to_messages
from agent_server.graph.jsonable import to_jsonable

SCHEMES = ("langgraph+http://", "langgraph+https://")
RUN = "agent_server_run"
"""The key of the metadata that marks a checkpoint there with the run here."""
TIMEOUT = httpx.Timeout(300.0, connect=5.0)
LAST_WORD = 0.8
"""Seconds that a cancelled run has to pass it on."""

_MODES = frozenset({"values", "updates", "debug", "tasks", "checkpoints", "custom"})
_KINDS: Mapping[str, type[BaseMessage]] = {"ai": AIMessage, "AIMessageChunk": AIMessageChunk, "tool": ToolMessage}
_REFUSALS: Mapping[int, tuple[str, str]] = {
    401: ("The agent's server wants to know who asks.", "remote_unauthorized"),
    403: ("The agent's server does not let this caller in.", "remote_forbidden"),
    404: ("The agent's server does not know this agent.", "remote_not_found"),
    409: ("The agent's server is busy with this thread.", "remote_conflict"),
    422: ("The agent's server does not take this request.", "remote_refused"),
    429: ("The agent's server is asked too often.", "rate_limit_exceeded"),
}


class Part(NamedTuple):
    """One frame of the other server's: its mode, its namespace, and its data."""

    mode: str
    ns: tuple[str, ...]
    data: Any


@dataclass(frozen=True)
class Elsewhere(SelfOpening):
    """A target on another server: `langgraph+https://host[/base]/assistant`. `headers` go with every request."""

    url: str
    assistant: str
    headers: Mapping[str, str] = field(default_factory=dict, repr=False)

    @classmethod
    def at(cls, place: str, headers: Mapping[str, str] | None = None) -> Elsewhere:
        """From a target's place. Raises `TargetError`."""
        parts = urlsplit(place.removeprefix("langgraph+"))
        base, _, assistant = parts.path.rstrip("/").rpartition("/")
        if not parts.hostname or not assistant or parts.query or parts.fragment or parts.username is not None:
            raise TargetError(f"{place!r} is to be langgraph+https://host/assistant, without a query or a password.")
        return cls(f"{parts.scheme}://{parts.netloc}{base}", unquote(assistant), dict(headers or {}))

    @asynccontextmanager
    async def opened(self, name: str) -> AsyncIterator[Agent]:
        """The agent. Nothing is asked of the other server before there is a run."""
        about = f"The agent {self.assistant} at {urlsplit(self.url).netloc}."
        yield RemoteAgent(name, about, frozenset(), takes_options=False, place=self)


@dataclass(frozen=True, slots=True)
class RemoteAgent(ForeignAgent):
    """An agent on another server."""

    place: Elsewhere

    @property
    def remembers(self) -> bool:
        return True

    def fold(self, run_id: str) -> RemoteFold:
        """The other server's frames become what a graph here would tell."""
        return RemoteFold(run_id)

    async def drive(self, invocation: Invocation, recorder: Recorder) -> None:
        """Run there to the end. Raises `RunRefusedError` for what the other server does not do."""
        token = invocation.context.access_token
        headers = {**self.place.headers, **({"authorization": f"Bearer {token}"} if token else {})}
        try:
            async with httpx.AsyncClient(base_url=self.place.url, headers=headers, timeout=TIMEOUT) as http:
                await self._follow(LangGraphClient(http), invocation, recorder)
        except httpx.HTTPStatusError as error:
            message, code = _REFUSALS.get(error.response.status_code, ("The agent's server failed.", "remote_failed"))
            raise RunRefusedError(message, code=code) from error
        except httpx.HTTPError as error:
            raise RunRefusedError("The agent's server cannot be reached.", code="remote_unavailable") from error

    async def _follow(self, client: LangGraphClient, invocation: Invocation, recorder: Recorder) -> None:
        memory, tuning = invocation.memory, invocation.tuning
        thread_id = str(uuid5(NAMESPACE_URL, memory.thread_id)) if memory is not None else None
        made: dict[str, Any] = {}
        asked: dict[str, Any] = {
            **_said(invocation),
            "stream_mode": sorted({"messages-tuple", "updates", *(invocation.record & _MODES)}),
            "stream_subgraphs": "subgraphs" in invocation.record,
            "metadata": {**tuning.metadata, RUN: invocation.run_id},
            "config": _config(invocation),
            "context": dict(invocation.context.custom_inputs) or None,
            "interrupt_before": tuning.interrupt_before,
            "interrupt_after": tuning.interrupt_after,
            "checkpoint_id": tuning.checkpoint or await _place(client, thread_id, memory),
            "if_not_exists": "create" if thread_id is not None else None,
            "multitask_strategy": "enqueue",
            "on_disconnect": "cancel",
            "on_run_created": made.update,
        }
        given = {name: value for name, value in asked.items() if value is not None}
        try:
            async for part in cast("Any", client.runs.stream)(thread_id, self.place.assistant, **given):
                mode, *ns = part.event.split("|")
                if mode == "error":
                    raise _failure(part.data)
                recorder.feed(Part(mode, tuple(ns), part.data))
        except asyncio.CancelledError:
            await _pass_on_cancel(client, made)
            raise


def _said(invocation: Invocation) -> dict[str, Any]:
    """The input or the command of the run there."""
    value = invocation.value
    if invocation.resume is not None or isinstance(value, Command):
        told = asdict(value) if isinstance(value, Command) else {}
        command = {key: to_jsonable(told[key]) for key in ("update", "goto", "resume") if told.get(key)}
        return {"command": {**command, **({"resume": dict(invocation.resume)} if invocation.resume else {})}}
    if value is not UNSET:
        return {"input": value}
    wishes = invocation.context.options.instructions
    turns = [system_turn(wishes), *invocation.turns] if wishes else invocation.turns
    messages = [to_jsonable(each.model_dump(exclude_none=True)) for each in to_messages(turns)]
    return {"input": {"messages": messages, **to_jsonable(dict(invocation.state))}}


def _config(invocation: Invocation) -> dict[str, Any] | None:
    """What the client said of the run; where it gave a context, that alone says how the graph is configured."""
    tuning = invocation.tuning
    config: dict[str, Any] = {"tags": list(tuning.tags), "recursion_limit": tuning.recursion_limit}
    if not invocation.context.custom_inputs:
        config["configurable"] = dict(tuning.configurable)
    return {key: value for key, value in config.items() if value} or None


async def _place(client: LangGraphClient, thread_id: str | None, memory: Memory | None) -> str | None:
    """The checkpoint that the run `memory.after` left there; None where that is the thread's last one anyway."""
    if thread_id is None or memory is None or not memory.after:
        return None
    last = await client.threads.get_state(thread_id)
    if (last["metadata"] or {}).get(RUN) == memory.after:
        return None
    found = await client.threads.get_history(thread_id, limit=1, metadata={RUN: memory.after})
    if not found:
        raise CheckpointGoneError(f"The run {memory.after} has left no checkpoint there to go on from.")
    return found[0]["checkpoint"]["checkpoint_id"]


async def _pass_on_cancel(client: LangGraphClient, made: Mapping[str, Any]) -> None:
    """The other server also hears that the stream is gone; this comes first, and says why."""
    if made.get("thread_id") and made.get("run_id"):
        try:
            async with asyncio.timeout(LAST_WORD):
                await client.runs.cancel(made["thread_id"], made["run_id"])
        except (httpx.HTTPError, TimeoutError):
            pass


def _failure(told: Any) -> Exception:
    name = str(told.get("error", "")) if isinstance(told, Mapping) else ""
    if name == "GraphRecursionError":
        return GraphRecursionError(name)
    return RunRefusedError("The agent failed on its own server.", code="server_error")


class RemoteFold:
    """Folds the other server's frames: messages into the converter that all graphs here go through, states as they
    come."""

    def __init__(self, run_id: str) -> None:
        self.run_id = run_id
        self._converter = Converter(run_id)
        self._told: set[str] = set()

    def feed(self, event: Part, /) -> list[Event]:
        """The events of one frame."""
        match event.mode:
            case "messages":
                return self._message(*event.data)
            case "metadata" | "end":
                return []
            case "updates":
                return [*self._updates(event), *_part(event)]
            case "custom":
                return self._root(event)
        return _part(event)

    def finish(self, *, incomplete: IncompleteReason | None = None) -> list[Event]:
        """See `Fold`."""
        return self._converter.finish(incomplete=incomplete)

    def fail(self, *, code: str, message: str, error_id: str, raised: BaseException | None = None) -> list[Event]:
        """See `Fold`."""
        return self._converter.fail(code=code, message=message, error_id=error_id)

    def cancel(self, reason: str) -> list[Event]:
        """See `Fold`."""
        return self._converter.cancel(reason)

    def _message(self, said: Mapping[str, Any], metadata: Mapping[str, Any]) -> list[Event]:
        message = _read(said)
        if isinstance(message, AIMessageChunk) and message.id not in self._told:
            return self._stream_event("on_chat_model_stream", str(message.id), {"chunk": message}, metadata)
        return []  # whole ones come with the updates of their node

    def _updates(self, part: Part) -> list[Event]:
        if not isinstance(part.data, Mapping):
            return []
        events: list[Event] = []
        if "__interrupt__" in part.data:
            found = tuple(Interrupt(value=each.get("value"), id=each["id"]) for each in part.data["__interrupt__"])
            events += self._root(part._replace(data={"__interrupt__": found}))
        for node, update in part.data.items():
            said = update.get("messages") if isinstance(update, Mapping) else None
            for each in said if isinstance(said, list) else ():
                message = _read(each) if isinstance(each, Mapping) else None
                if message is not None and str(message.id) not in self._told:
                    self._told.add(str(message.id))
                    events += self._whole(message, {"langgraph_node": node})
        return events

    def _whole(self, message: BaseMessage, metadata: Mapping[str, Any]) -> list[Event]:
        if isinstance(message, ToolMessage):
            key, name = f"tool-{message.id}", message.name or ""
            data = {"input": {}, "tool_call_id": message.tool_call_id}
            return [
                *self._stream_event("on_tool_start", key, data, metadata, name),
                *self._stream_event("on_tool_end", key, {**data, "output": message}, metadata, name),
            ]
        return self._stream_event("on_chat_model_end", str(message.id), {"output": message}, metadata)

    def _root(self, part: Part) -> list[Event]:
        return self._stream_event("on_chain_stream", "root", {"chunk": (part.ns, part.mode, part.data)}, {}, parents=[])

    def _stream_event(
        self,
        kind: str,
        run_id: str,
        data: Mapping[str, Any],
        metadata: Mapping[str, Any],
        name: str = "",
        parents: list[str] | None = None,
    ) -> list[Event]:
        told = {
            "event": kind,
            "run_id": run_id,
            "name": name,
            "data": dict(data),
            "metadata": dict(metadata),
            "tags": [],
            "parent_ids": ["root"] if parents is None else parents,
        }
        return self._converter.feed(cast("Any", told))


def _read(said: Mapping[str, Any]) -> BaseMessage | None:
    kind = _KINDS.get(str(said.get("type")))
    if kind is None:
        return None
    return kind(**{key: value for key, value in said.items() if key in kind.model_fields and value is not None})


def _part(part: Part) -> list[Event]:
    return [StatePart(part.mode, part.data, part.ns)]
