"""`/threads`: everything but runs and streams."""

from __future__ import annotations

import asyncio
import re
from collections.abc import Mapping, Sequence
from typing import Any
from uuid import uuid4

from starlette.requests import Request
from starlette.responses import Response
from starlette.routing import Route

from agent_server.errors import ConflictError, NotFoundError
from agent_server.events import RunCancelled
from agent_server.graph.agent import RunnableAgent
from agent_server.graph.converter import now_ms
from agent_server.graph.history import Update
from agent_server.http.identity import TENANT
from agent_server.protocols.langgraph.assistants import Assistants
from agent_server.protocols.langgraph.reading import (
    MOST,
    Body,
    Page,
    answer,
    contains,
    nothing,
    query_flag,
    query_whole,
    read_object,
    route,
    selected,
    uuid_of,
)
from agent_server.protocols.langgraph.refusals import UnprocessableError, no_thread
from agent_server.protocols.langgraph.results import Results
from agent_server.protocols.langgraph.shown import THREAD_STATUS, ended_at, error_of, interrupts_of, iso
from agent_server.protocols.langgraph.thread_notes import Note, Noted, ThreadNotes, Ttl
from agent_server.protocols.langgraph.thread_states import Place, ThreadStates
from agent_server.runs.stores.port import TERMINAL_STATUSES
from agent_server.runs.threads import Threads
from agent_server.settings import Settings

SORTS = ("updated_at", "created_at", "state_updated_at", "status", "thread_id")
STATUSES = ("idle", "busy", "interrupted", "error")
FILTERS = ("metadata", "values", "status", "ids")
STATEFUL = frozenset({"values", "interrupts", "error"})
"""Fields of a thread that cost a look at its state."""

_STEP = re.compile(r"([^.\[\]]+)|\[(-?\d{1,6})\]")


class ThreadRoutes:
    """The endpoints of one app."""

    def __init__(
        self,
        assistants: Assistants,
        notes: ThreadNotes,
        states: ThreadStates,
        results: Results,
        threads: Threads,
        settings: Settings,
    ) -> None:
        self._assistants = assistants
        self._notes = notes
        self._states = states
        self._results = results
        self._threads = threads
        self._limit = settings.max_body_bytes

    def routes(self, mount: str) -> list[Route]:
        """The routes below a mount."""
        one = f"{mount}/threads/{{thread_id}}"
        return [
            route(f"{mount}/threads", self._create, "POST"),
            route(f"{mount}/threads/search", self._search, "POST"),
            route(f"{mount}/threads/count", self._count, "POST"),
            route(f"{mount}/threads/prune", self._prune, "POST"),
            route(one, self._get),
            route(one, self._update, "PATCH"),
            route(one, self._delete, "DELETE"),
            route(f"{one}/copy", self._copy, "POST"),
            route(f"{one}/state", self._state),
            route(f"{one}/state", self._update_state, "POST"),
            route(f"{one}/state/checkpoint", self._state_of, "POST"),
            route(f"{one}/state/{{checkpoint_id}}", self._state),
            route(f"{one}/history", self._history_by_query),
            route(f"{one}/history", self._history, "POST"),
        ]

    async def _body(self, request: Request) -> Body:
        return Body(await read_object(request, self._limit))

    # -- threads -------------------------------------------------------------------------------------------

    async def _create(self, request: Request) -> Response:
        """`POST /threads`: with an id of the client's own, metadata, and a state made of supersteps."""
        body = (await self._body(request)).only("thread_id", "metadata", "if_exists", "supersteps", "ttl")
        if_exists = body.choice("if_exists", ("raise", "do_nothing"), "raise")
        given = body.text("thread_id")
        thread_id = str(uuid4()) if given is None else uuid_of(given, "thread")
        metadata, ttl = body.mapping("metadata"), Ttl.read(body.values.get("ttl"))
        steps = _supersteps(body.values.get("supersteps"))
        agent = await self._agent_named(metadata) if steps else None
        note = Note().with_metadata(metadata).with_more(ttl=None if ttl is None else ttl._asdict())
        thread = await self._notes.create(thread_id, note)
        if thread is None:
            if if_exists == "raise":
                raise ConflictError(f"Thread with ID {thread_id} already exists", param="thread_id")
            thread, _ = await self._notes.find(thread_id)
        elif steps and agent is not None:
            await self._states.build(thread_id, agent, steps)
        return answer(await self._shown(await self._notes.one(thread)))

    async def _agent_named(self, metadata: Mapping[str, Any]) -> RunnableAgent:
        """The graph whose state a new thread is to have. Raises `UnprocessableError`."""
        agents = await self._assistants.agents()
        name = metadata.get("graph_id")
        agent = next(iter(agents.values())) if name is None and len(agents) == 1 else agents.get(str(name))
        if not isinstance(agent, RunnableAgent):
            message = "'supersteps' need to know their graph: name it in metadata.graph_id."
            raise UnprocessableError(message, param="metadata.graph_id")
        return agent

    async def _get(self, request: Request) -> Response:
        """`GET /threads/{t}?include=ttl`."""
        thread, note = await self._notes.find(request.path_params["thread_id"])
        shown = await self._shown(await self._notes.one(thread))
        if "ttl" in request.query_params.get("include", "").split(","):
            shown["ttl"] = _ttl_shown(note, shown)
        return answer(shown)

    async def _update(self, request: Request) -> Response:
        """`PATCH /threads/{t}`: merges metadata; `Prefer: return=minimal` is answered with nothing."""
        thread, _ = await self._notes.find(request.path_params["thread_id"])
        body = (await self._body(request)).only("metadata", "ttl")
        more: dict[str, Any] = {"updated_at": now_ms()}
        if "ttl" in body:
            ttl = Ttl.read(body.values["ttl"])
            more["ttl"] = None if ttl is None else ttl._asdict()
        await self._notes.change(thread.id, merge=body.mapping("metadata"), **more)
        if "return=minimal" in request.headers.get("prefer", ""):
            return nothing()
        thread, _ = await self._notes.find(thread.id)
        return answer(await self._shown(await self._notes.one(thread)))

    async def _delete(self, request: Request) -> Response:
        thread, _ = await self._notes.find(request.path_params["thread_id"])
        if not await self._notes.delete(thread.id):
            raise no_thread(thread.id)
        return nothing()

    async def _copy(self, request: Request) -> Response:
        """`POST /threads/{t}/copy`: a new thread that knows what this one knows."""
        thread, note = await self._notes.find(request.path_params["thread_id"])
        made = await self._notes.create(str(uuid4()), Note().with_metadata(note.metadata()))
        if made is None:
            raise ConflictError("Try again.")
        await self._states.copy(thread.id, made.id)
        return answer(await self._shown(await self._notes.one(made)))

    async def _prune(self, request: Request) -> Response:
        """`POST /threads/prune`: deletes threads, or all of their states but the last."""
        body = (await self._body(request)).only("thread_ids", "strategy")
        thread_ids = body.texts("thread_ids")
        if not thread_ids or len(thread_ids) > MOST:
            raise UnprocessableError(f"'thread_ids' must be a list of 1 to {MOST} ids.", param="thread_ids")
        strategy = body.choice("strategy", ("delete", "keep_latest"), "delete")
        known = [each for text in thread_ids if (each := await self._notes.known(text)) is not None]
        prune = self._notes.delete if strategy == "delete" else self._states.keep_latest
        return answer({"pruned_count": sum([await prune(each.id) for each in known])})

    # -- search --------------------------------------------------------------------------------------------

    async def _search(self, request: Request) -> Response:
        """`POST /threads/search`: the page's place in the whole is in its headers."""
        body = (await self._body(request)).only(
            *FILTERS, "limit", "offset", "sort_by", "sort_order", "select", "extract"
        )
        page, extract = Page.of(body, SORTS, "updated_at"), body.mapping("extract")
        found = await self._found(body)
        found.sort(key=lambda each: (_sorted_by(each, page.sort_by), each.id), reverse=page.descending)
        shown = await asyncio.gather(
            *(self._shown(each, None if extract else page.select) for each in page.shown(found))
        )
        listed = []
        for each in shown:
            extracted = {name: _extracted(each, str(path)) for name, path in extract.items()}
            listed.append({**selected(each, page.select), **({"extracted": extracted} if extract else {})})
        return answer(listed, headers=page.headers(len(found)))

    async def _count(self, request: Request) -> Response:
        return answer(len(await self._found((await self._body(request)).only(*FILTERS))))

    async def _found(self, body: Body) -> list[Noted]:
        metadata, values, ids = body.mapping("metadata"), body.mapping("values"), body.texts("ids")
        status = None if "status" not in body else body.choice("status", STATUSES, "idle")
        found = [
            each
            for each in await self._notes.listed()
            if (ids is None or each.id in ids)
            and (status is None or THREAD_STATUS[each.status] == status)
            and contains(each.note.metadata(), metadata)
        ]
        if not values:
            return found
        states = [await self._states.at(each.id) for each in found]
        return [
            each for each, state in zip(found, states, strict=True) if contains((state or {}).get("values"), values)
        ]

    async def _shown(self, noted: Noted, select: Sequence[str] | None = None) -> dict[str, Any]:
        """A thread's object; what needs a look at its state only if it is selected."""
        rows = await self._threads.rows(TENANT, noted.id)
        ran = sorted((row for row in rows if row.status in TERMINAL_STATUSES), key=lambda each: each.base)
        last = ran[-1] if ran else None
        end = None if last is None else await self._results.last_event(last)
        over_at = 0 if last is None else ended_at(end, last.created_at)
        shown: dict[str, Any] = {
            "thread_id": noted.id,
            "created_at": iso(noted.thread.created_at),
            "updated_at": iso(max(noted.updated_at, over_at)),
            "state_updated_at": iso(max(noted.thread.created_at, over_at)),
            "metadata": noted.note.metadata(),
            "status": _status(noted, end),
            "config": {"configurable": {}} if rows else {},
            "values": None,
        }
        if not rows or (select is not None and not STATEFUL & set(select)):
            return shown
        state = await self._states.at(noted.id) or {}
        has_state = state.get("checkpoint") is not None or state.get("values")
        return {
            **shown,
            "values": state.get("values") if has_state else None,
            "error": error_of(end),
            "interrupts": interrupts_of(state.get("tasks", ())),
        }

    # -- states --------------------------------------------------------------------------------------------

    async def _state(self, request: Request) -> Response:
        """`GET /threads/{t}/state[/{checkpoint_id}]?subgraphs=`."""
        thread, _ = await self._notes.find(request.path_params["thread_id"])
        place = Place(request.path_params.get("checkpoint_id", ""))
        select = request.query_params.getlist("select") or None
        return await self._state_answer(thread.id, place, query_flag(request, "subgraphs"), select)

    async def _state_of(self, request: Request) -> Response:
        """`POST /threads/{t}/state/checkpoint`."""
        thread, _ = await self._notes.find(request.path_params["thread_id"])
        body = (await self._body(request)).only("checkpoint", "subgraphs", "select")
        place = Place.read(body.values.get("checkpoint"))
        return await self._state_answer(thread.id, place, body.flag("subgraphs", False), body.texts("select"))

    async def _state_answer(
        self, thread_id: str, place: Place, subgraphs: bool, select: Sequence[str] | None
    ) -> Response:
        state = await self._states.at(thread_id, place, subgraphs=subgraphs)
        if state is None:
            raise NotFoundError("Checkpoint not found.", param="checkpoint_id")
        return answer(selected(state, select))

    async def _update_state(self, request: Request) -> Response:
        """`POST /threads/{t}/state`: as if a node had written it; what comes next goes on from there."""
        thread, note = await self._notes.find(request.path_params["thread_id"])
        body = (await self._body(request)).only("values", "as_node", "checkpoint", "checkpoint_id")
        place = Place.read(body.values.get("checkpoint"), body.text("checkpoint_id"))
        if place.namespace:
            message = "'checkpoint.checkpoint_ns' must be empty: the state of a subgraph is its graph's to write."
            raise UnprocessableError(message, param="checkpoint.checkpoint_ns")
        values = body.values.get("values")
        if values is not None and not isinstance(values, dict | list):
            raise UnprocessableError("'values' must be an object or a list.", param="values")
        named = note.metadata().get("graph_id")
        agent = (await self._assistants.agents()).get(named) if isinstance(named, str) else None
        update = Update(values, body.text("as_node"))
        empty = agent if isinstance(agent, RunnableAgent) else None
        placed = await self._states.update(thread.id, update, place, empty)
        return answer({"checkpoint": placed, "configurable": placed, "checkpoint_id": placed["checkpoint_id"]})

    async def _history(self, request: Request) -> Response:
        """`POST /threads/{t}/history`."""
        thread, _ = await self._notes.find(request.path_params["thread_id"])
        body = (await self._body(request)).only("limit", "before", "metadata", "checkpoint", "select")
        before = body.values.get("before")
        states = await self._states.history(
            thread.id,
            limit=body.whole("limit", 10, least=1, most=MOST),
            before=Place(before) if isinstance(before, str) else Place.read(_placed(before)),
            metadata=body.mapping("metadata"),
            place=Place.read(body.values.get("checkpoint")),
        )
        return answer([selected(each, body.texts("select")) for each in states])

    async def _history_by_query(self, request: Request) -> Response:
        """`GET /threads/{t}/history?limit=&before=`."""
        thread, _ = await self._notes.find(request.path_params["thread_id"])
        states = await self._states.history(
            thread.id,
            limit=max(1, query_whole(request, "limit", 10, MOST)),
            before=Place(request.query_params.get("before", "")),
            metadata={},
            place=Place(),
        )
        return answer(states)


def _status(noted: Noted, end: Any) -> str:
    """A run that was cancelled before it left anything leaves its thread as idle as it was."""
    status = THREAD_STATUS[noted.status]
    error = None if end is None or status == "busy" else error_of(end)
    if isinstance(end, RunCancelled) or error is None:
        return status
    return "error"


def _sorted_by(noted: Noted, name: str) -> Any:
    match name:
        case "thread_id":
            return noted.id
        case "status":
            return THREAD_STATUS[noted.status]
        case "created_at":
            return noted.thread.created_at
        case "state_updated_at":
            return noted.at
    return noted.updated_at


def _placed(before: Any) -> Any:
    """Clients also name a checkpoint as LangGraph's config does."""
    return before.get("configurable", before) if isinstance(before, Mapping) else before


def _ttl_shown(note: Note, shown: Mapping[str, Any]) -> dict[str, Any] | None:
    ttl = note.more.get("ttl")
    return None if ttl is None else {"strategy": ttl["strategy"], "ttl_minutes": ttl["minutes"]}


def _supersteps(value: Any) -> list[list[Update]]:
    """`[{"updates": [{"values", "as_node", "command"}]}]`. Raises `UnprocessableError`."""
    if value is None:
        return []
    wrong = UnprocessableError("'supersteps' must be a list of objects with a list of updates.", param="supersteps")
    if not isinstance(value, list):
        raise wrong
    steps = []
    for step in value:
        updates = step.get("updates") if isinstance(step, Mapping) else None
        if not isinstance(updates, list) or not all(isinstance(each, Mapping) for each in updates):
            raise wrong
        steps.append(
            [Update(each.get("values"), each.get("as_node"), _command(each.get("command"))) for each in updates]
        )
    return steps


def _command(value: Any) -> Mapping[str, Any] | None:
    if value is None:
        return None
    if not isinstance(value, Mapping) or not set(value) <= {"update", "goto", "resume"}:
        raise UnprocessableError("'supersteps' commands have update, goto and resume.", param="supersteps")
    return {key: each for key, each in value.items() if each is not None}


def _extracted(thread: Mapping[str, Any], path: str) -> Any:
    """What is at a path such as `values.messages[-1].content`; None where nothing is."""
    value: Any = thread
    for key, place in _STEP.findall(path):
        if key:
            value = value.get(key) if isinstance(value, Mapping) else None
        elif isinstance(value, list) and -len(value) <= int(place) < len(value):
            value = value[int(place)]
        else:
            return None
    return value
