"""From the body of a request to a run: background, waited for, or streamed, on a thread or on one of its own."""

from __future__ import annotations

import asyncio
import hashlib
from collections.abc import Awaitable, Callable, Coroutine, Mapping
from dataclasses import dataclass, field
from functools import partial
from typing import Any, cast
from uuid import UUID, uuid4

import msgspec
from msgspec import UNSET
from starlette.requests import Request

from agent_server import ids
from agent_server.context import RequestContext
from agent_server.errors import AgentServerError, ConflictError, NotFoundError
from agent_server.framing import to_json
from agent_server.graph.agent import Agent, RunnableAgent
from agent_server.graph.converter import now_ms
from agent_server.graph.spoken import turns_in
from agent_server.graph.tuning import Tuning, command
from agent_server.http.identity import TENANT, Network, identity_of
from agent_server.protocols.langgraph.assistants import Assistant, Assistants
from agent_server.protocols.langgraph.refusals import UnprocessableError
from agent_server.protocols.langgraph.run_body import RunBody, RunConfig, Send
from agent_server.protocols.langgraph.shown import PROTOCOL, RunRecord, location
from agent_server.protocols.langgraph.thread_notes import Note, ThreadNotes
from agent_server.protocols.langgraph.webhooks import Webhooks
from agent_server.runs.engine import Engine, Run
from agent_server.runs.log import EventLog
from agent_server.runs.stores.port import TERMINAL_STATUSES, Claim
from agent_server.runs.threads import Ask, Threads

BUSY = "Thread is already running a task. Wait for it to finish or choose a different multitask strategy."
NO_SUCH = "Thread or assistant not found."
KEY_HOURS = 24
"""Hours that an Idempotency-Key is remembered."""
ACCEPTED_WITHIN = 30_000
"""Milliseconds after which a key is free again that was taken for a run which is not there."""
LINGERS = 60.0
"""Seconds that a run's own thread stays after its end, for a client that was cut off and comes back."""


@dataclass(frozen=True, slots=True)
class Begun:
    """A run that was begun, or that an equal request began. `left` is to be called when its client leaves before the
    end, `delivered` when the client has it all."""

    run_id: str
    thread_id: str
    body: RunBody
    record: RunRecord
    log: EventLog
    left: Callable[[], Awaitable[object]] | None = None
    _delivered: asyncio.Event = field(default_factory=asyncio.Event)

    def delivered(self) -> None:
        """The client has the whole answer: what is only kept for it may go."""
        self._delivered.set()

    def headers(self, what: str = "") -> dict[str, str]:
        """Where the run is, and what is read of it here: "stream", "join", or nothing."""
        place = location(self.thread_id, self.run_id)
        return {"content-location": place, **({"location": f"{place}/{what}"} if what else {})}


def recorded(body: RunBody) -> frozenset[str]:
    """What a run's log has to hold for the streams that its client may ask for."""
    modes = {"messages" if mode == "messages-tuple" else mode for mode in body.stream_mode}
    return frozenset({*modes, "errors", *(("subgraphs",) if body.stream_subgraphs else ())})


class Beginning:
    """Begins the runs of one app."""

    def __init__(
        self,
        assistants: Assistants,
        notes: ThreadNotes,
        threads: Threads,
        engine: Engine,
        webhooks: Webhooks,
        proxies: tuple[Network, ...],
    ) -> None:
        self._assistants = assistants
        self._notes = notes
        self._threads = threads
        self._engine = engine
        self._webhooks = webhooks
        self._proxies = proxies
        self._tasks: set[asyncio.Task[None]] = set()

    async def aclose(self) -> None:
        """Let go of what is done after runs."""
        for task in self._tasks:
            task.cancel()
        if self._tasks:
            await asyncio.wait(self._tasks)

    async def begin(
        self,
        request: Request | None,
        body: RunBody,
        thread: str | None,
        *,
        record: frozenset[str] | None = None,
        busy: str = BUSY,
    ) -> Begun:
        """Begin a run on a thread, by its id in an address, or on a thread of its own. It is committed then.

        `record` is what its log is to hold, if that is not what its stream modes need. Raises 404 for a thread or an
        assistant that is not there, 409 for a thread that is busy and for answers that nobody waits for, 422 for what
        cannot be done.
        """
        assistant = await self._assistant(body)
        agent = await self._assistants.agent(assistant)
        if body.webhook is not None:
            await self._webhooks.check(body.webhook)
        thread_id = await self._thread(thread, body)
        context = self._context(request, body, assistant, thread_id)
        key = request.headers.get("idempotency-key") if request is not None else None
        run_id = ids.new_run_id()
        if key is not None and (earlier := await self._claim(key, thread or "", body, run_id)) is not None:
            return earlier
        try:
            return await self._begin(run_id, agent, assistant, body, thread_id, context, record, thread is None)
        except AgentServerError as error:
            if key is not None:
                await self._engine.keeper.store.release(TENANT, _route(thread or ""), key, run_id)
            if isinstance(error, ConflictError) and error.code == "conversation_locked":
                raise ConflictError(busy, param="multitask_strategy", code="thread_busy") from None
            raise

    async def _begin(
        self,
        run_id: str,
        agent: Agent,
        assistant: Assistant,
        body: RunBody,
        thread_id: str,
        context: RequestContext,
        record: frozenset[str] | None,
        is_own: bool,
    ) -> Begun:
        about = {
            "created_by": "system",
            "graph_id": assistant.graph_id,
            "assistant_id": assistant.assistant_id,
            **body.metadata,
        }
        wire = RunRecord(assistant.assistant_id, about, _kwargs(body, is_own), body.multitask_strategy, is_own)
        ask = Ask(
            TENANT,
            thread_id,
            agent,
            run_id=run_id,
            context=context,
            record=recorded(body) if record is None else record,
            busy=body.multitask_strategy,
            protocol=PROTOCOL,
            wire=msgspec.json.encode(wire),
            at_each_step=body.durability != "exit",
            goes_on=TERMINAL_STATUSES,
            tuning=_tuning(body, assistant, about),
            not_before=now_ms() + round(body.after_seconds * 1000) if body.after_seconds else None,
            **await self._said(body, agent, thread_id),
        )
        if body.checkpoint_id is not None:
            await self._check_place(ask)
        run = await self._threads.begin(ask)
        if not is_own:
            await self._notes.change(
                thread_id, merge={"graph_id": assistant.graph_id, "assistant_id": assistant.assistant_id}
            )
        left = partial(self._engine.cancel, run, "client disconnected") if body.on_disconnect == "cancel" else None
        begun = Begun(run.id, thread_id, body, wire, run.log, left)
        self._look_after(run, begun, is_own)
        return begun

    # -- what is asked for ---------------------------------------------------------------------------------

    async def _assistant(self, body: RunBody) -> Assistant:
        try:
            return await self._assistants.chosen(body.assistant_id)
        except NotFoundError:
            raise NotFoundError(NO_SUCH, param="assistant_id") from None

    async def _thread(self, thread: str | None, body: RunBody) -> str:
        """The id of the run's thread, which is there then."""
        if thread is None:
            return str(uuid4())
        try:
            found, _ = await self._notes.find(thread)
        except NotFoundError:
            if body.if_not_exists == "reject":
                raise NotFoundError(NO_SUCH, param="thread_id") from None
        else:
            return found.id
        thread_id = _canonical(thread)
        await self._notes.create(thread_id, Note())
        return thread_id

    def _context(self, request: Request | None, body: RunBody, assistant: Assistant, thread_id: str) -> RequestContext:
        identity = identity_of(request.scope, self._proxies)._asdict() if request is not None else {}
        given = body.context if body.context is not None else body.config.configurable
        return RequestContext(
            request_id=request.scope.get("request_id", "") if request is not None else "",
            conversation_id=thread_id,
            custom_inputs={**assistant.context, **given},
            **identity,
        )

    async def _said(self, body: RunBody, agent: Agent, thread_id: str) -> dict[str, Any]:
        """The fields of an ask that hold what is said: a graph takes its input as it is, others take turns."""
        asked = body.command
        if asked is not None and asked.resumes:
            return await self._answers(body, thread_id)
        if asked is not None:
            return {"value": command(update=asked.update, goto=_targets(asked.goto))}
        turns = turns_in(body.input) or []
        is_plain = not turns or (isinstance(agent, RunnableAgent) and agent.is_graph)
        return {"turns": turns, "value": body.input if is_plain else UNSET}

    async def _answers(self, body: RunBody, thread_id: str) -> dict[str, Any]:
        """A thread that asks is answered by the ids of its questions; one that stopped at a breakpoint goes on."""
        asked = body.command
        if asked is None:
            return {}
        more: dict[str, Any] = {}
        if asked.update is not None or asked.goto:
            more["value"] = command(update=asked.update, goto=_targets(asked.goto))
        head = await self._threads.head(TENANT, thread_id, TERMINAL_STATUSES)
        waiting = {each.id for each in await self._threads.waiting(TENANT, thread_id)}
        if head is None or head.status != "interrupted":
            raise ConflictError("Nothing in this thread waits for an answer.", param="command.resume")
        if isinstance(asked.resume, Mapping) and asked.resume and _are_ids(asked.resume):
            return {"resume": dict(asked.resume), "partial": True, **more}
        if not waiting:
            return {"value": command(update=asked.update, goto=_targets(asked.goto), resume=asked.resume)}
        if len(waiting) > 1:
            message = "Several questions wait for answers: 'command.resume' must name each by its id."
            raise UnprocessableError(message, param="command.resume")
        return {"resume": {waiting.pop(): asked.resume}, **more}

    async def _check_place(self, ask: Ask) -> None:
        head = await self._threads.head(TENANT, ask.thread_id, TERMINAL_STATUSES)
        state = None if head is None else await self._threads.state_at(ask.agent, head, ask.tuning.checkpoint)
        if state is None:
            raise NotFoundError("Checkpoint not found.", param="checkpoint_id")

    # -- once ----------------------------------------------------------------------------------------------

    async def _claim(self, key: str, thread: str, body: RunBody, run_id: str) -> Begun | None:
        """None once the key is taken for a new run; else the run that had it first."""
        now = now_ms()
        digest = hashlib.sha256(to_json(msgspec.to_builtins(_kwargs(body, False)))).hexdigest()
        until = now + KEY_HOURS * 3_600_000
        store = self._engine.keeper.store
        earlier = await store.claim(
            TENANT, _route(thread), key, Claim(digest, run_id), now=now, expires_at=until, run_by=now + ACCEPTED_WITHIN
        )
        if earlier is None:
            return None
        if earlier.digest != digest:
            message = "This Idempotency-Key came with another request before."
            raise UnprocessableError(message, param="idempotency-key")
        found = await self._threads.find(TENANT, earlier.run_id)
        if found is None:
            raise ConflictError("An equal request is just being accepted. Try again.", param="idempotency-key")
        record = msgspec.json.decode(found.wire, type=RunRecord)
        return Begun(earlier.run_id, found.row.thread_id, body, record, found.log)

    # -- afterwards ----------------------------------------------------------------------------------------

    def _look_after(self, run: Run, begun: Begun, is_own: bool) -> None:
        if begun.body.webhook is not None:
            self._do(self._webhooks.tell(begun.body.webhook, begun.run_id, run.log))
        if is_own and begun.body.on_completion == "delete":
            self._notes.passing.add(begun.thread_id)
            self._do(self._tidy(begun))

    async def _tidy(self, begun: Begun) -> None:
        """A thread that a run had for itself goes when its client has all of it, or does not come back."""
        await begun.log.until_over()
        try:
            async with asyncio.timeout(LINGERS):
                await begun._delivered.wait()  # noqa: SLF001 - its own module's
        except TimeoutError:
            pass
        await self._notes.delete(begun.thread_id)
        self._notes.passing.discard(begun.thread_id)

    def _do(self, work: Coroutine[Any, Any, None]) -> None:
        task = asyncio.create_task(work)
        self._tasks.add(task)
        task.add_done_callback(self._tasks.discard)


def _tuning(body: RunBody, assistant: Assistant, about: Mapping[str, Any]) -> Tuning:
    """The assistant's config, and over it the request's own."""
    config, given = body.config, cast("Mapping[str, Any]", assistant.config)
    return Tuning(
        tags=(*given.get("tags", ()), *config.tags),
        recursion_limit=config.recursion_limit or given.get("recursion_limit"),
        max_concurrency=config.max_concurrency or given.get("max_concurrency"),
        run_name=config.run_name,
        metadata={**config.metadata, **about},
        configurable={**given.get("configurable", {}), **config.configurable, **(body.context or {})},
        interrupt_before=body.interrupt_before,
        interrupt_after=body.interrupt_after,
        durability=body.durability,
        strict_resume=body.strict_resume,
        checkpoint=body.checkpoint_id or "",
        continues=body.checkpoint_id is None and (body.input is None or body.command is not None),
    )


def _kwargs(body: RunBody, temporary: bool) -> dict[str, Any]:
    """What the client said of the run, as its object shows it. A webhook's address may hold a secret."""
    config: dict[str, Any] = {
        name: list(value) if isinstance(value, tuple) else value
        for name in RunConfig.__dataclass_fields__
        if (value := getattr(body.config, name))
    }
    told = body.command
    return {
        "input": body.input,
        "command": None
        if told is None
        else {
            "resume": None if told.resume is UNSET else told.resume,
            "update": told.update,
            "goto": [each if isinstance(each, str) else {"node": each.node, "input": each.input} for each in told.goto],
        },
        "config": config,
        "context": dict(body.context or {}),
        "stream_mode": list(body.stream_mode),
        "interrupt_before": body.interrupt_before,
        "interrupt_after": body.interrupt_after,
        "webhook": None if body.webhook is None else "set",
        "temporary": temporary,
        "subgraphs": body.stream_subgraphs,
        "resumable": body.stream_resumable,
        "checkpoint_id": body.checkpoint_id,
        "durability": body.durability,
        "after_seconds": body.after_seconds,
    }


def _targets(goto: tuple[str | Send, ...]) -> list[str | tuple[str, Any]]:
    return [each if isinstance(each, str) else (each.node, each.input) for each in goto]


def _are_ids(resume: Mapping[str, Any]) -> bool:
    """Whether answers are given by the ids of their questions (LangGraph: xxh3, 128 bits in hex)."""
    return all(len(key) == 32 and all(digit in "0123456789abcdef" for digit in key) for key in resume)


def _route(thread: str) -> str:
    return f"langgraph:{thread}"


def _canonical(thread: str) -> str:
    return str(UUID(thread))
