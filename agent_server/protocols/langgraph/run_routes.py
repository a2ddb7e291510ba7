"""`/threads/{t}/runs` and `/runs`: everything but streams."""

from __future__ import annotations

import asyncio
from collections.abc import Coroutine
from functools import partial
from typing import Any

from starlette.requests import Request
from starlette.responses import Response
from starlette.routing import Route
from starlette.types import ASGIApp

from agent_server.errors import NotFoundError
from agent_server.http.identity import TENANT
from agent_server.protocols.langgraph.beginning import Beginning, Begun, recorded
from agent_server.protocols.langgraph.reading import (
    MOST,
    Body,
    answer,
    nothing,
    query_choice,
    query_flag,
    query_whole,
    read_object,
    read_value,
    route,
    run_id_of,
    selected,
    uuid_of,
)
from agent_server.protocols.langgraph.refusals import UnprocessableError
from agent_server.protocols.langgraph.results import Results, is_edit
from agent_server.protocols.langgraph.run_body import RunBody, read_run
from agent_server.protocols.langgraph.shown import location
from agent_server.protocols.langgraph.thread_notes import ThreadNotes
from agent_server.protocols.langgraph.waiting import WaitedJson
from agent_server.runs.engine import Engine
from agent_server.runs.stores.port import TERMINAL_STATUSES, RunRow
from agent_server.settings import Settings

LARGEST_BATCH = 100
NONE_TO_CANCEL = "No runs found to cancel."
ACTIVE = {"pending": ("queued",), "running": ("running",), "all": ("queued", "running")}
STATUSES = ("pending", "running", "error", "success", "timeout", "interrupted")
ACTIONS = ("interrupt", "rollback")


class RunRoutes:
    """The endpoints of one app."""

    def __init__(
        self, beginning: Beginning, results: Results, notes: ThreadNotes, engine: Engine, settings: Settings
    ) -> None:
        self._beginning = beginning
        self._results = results
        self._notes = notes
        self._engine = engine
        self._limit = settings.max_body_bytes
        self._tasks: set[asyncio.Task[None]] = set()

    def routes(self, mount: str) -> list[Route]:
        """The routes below a mount."""
        runs = f"{mount}/threads/{{thread_id}}/runs"
        one = f"{runs}/{{run_id}}"
        return [
            route(f"{mount}/runs", self._create, "POST"),
            route(f"{mount}/runs/wait", self._wait, "POST"),
            route(f"{mount}/runs/batch", self._batch, "POST"),
            route(f"{mount}/runs/cancel", self._cancel_many, "POST"),
            route(runs, self._create, "POST"),
            route(f"{runs}/wait", self._wait, "POST"),
            route(runs, self._list),
            route(one, self._get),
            route(one, self._delete, "DELETE"),
            route(f"{one}/join", self._join),
            route(f"{one}/cancel", self._cancel, "POST"),
        ]

    async def aclose(self) -> None:
        """Let what is being cancelled be cancelled."""
        if self._tasks:
            await asyncio.wait(self._tasks)

    # -- beginning -----------------------------------------------------------------------------------------

    async def _asked(self, request: Request) -> tuple[RunBody, str | None]:
        thread = request.path_params.get("thread_id")
        body = read_run(await read_object(request, self._limit), stateless=thread is None)
        return body, thread

    async def _create(self, request: Request) -> Response:
        """`POST .../runs`: a run in the background, as it is when it has been accepted."""
        body, thread = await self._asked(request)
        begun = await self._beginning.begin(request, body, thread)
        return answer(await self._accepted(begun), headers=begun.headers())

    async def _accepted(self, begun: Begun) -> dict[str, Any]:
        row = await self._engine.keeper.row(TENANT, begun.run_id)
        if row is None:
            raise NotFoundError("The run was rolled back.")
        return await self._results.shown(row)

    async def _wait(self, request: Request) -> ASGIApp:
        """`POST .../runs/wait`: the values at the end of a run."""
        body, thread = await self._asked(request)
        begun = await self._beginning.begin(request, body, thread, record=recorded(body) | {"values"})
        return WaitedJson(
            begun.log,
            partial(self._came_to, begun.thread_id, begun.run_id, begun.log),
            headers=begun.headers("join"),
            left=begun.left,
            delivered=begun.delivered,
        )

    async def _came_to(self, thread_id: str, run_id: str, log: Any) -> Any:
        row = await self._engine.keeper.store.run(TENANT, run_id)
        return {} if row is None else await self._results.values(row, log)  # it was rolled back

    async def _batch(self, request: Request) -> Response:
        """`POST /runs/batch`: several runs in the background; all of their bodies are read before one begins."""
        bodies = await read_value(request, self._limit)
        if not isinstance(bodies, list) or not 1 <= len(bodies) <= LARGEST_BATCH:
            raise UnprocessableError(f"The body must be a list of 1 to {LARGEST_BATCH} runs.")
        asked = []
        for each in bodies:
            if not isinstance(each, dict):
                raise UnprocessableError("Each run of a batch must be an object.")
            thread = each.get("thread_id")
            if thread is not None and not isinstance(thread, str):
                raise UnprocessableError("'thread_id' must be a text.", param="thread_id")
            fields = {name: value for name, value in each.items() if name != "thread_id"}
            asked.append((read_run(fields, stateless=thread is None), thread))
        begun = [await self._beginning.begin(None, body, thread) for body, thread in asked]
        return answer([await self._accepted(each) for each in begun])

    # -- reading -------------------------------------------------------------------------------------------

    async def _thread_id(self, request: Request) -> str:
        return (await self._notes.find(request.path_params["thread_id"]))[0].id

    async def _list(self, request: Request) -> Response:
        """`GET /threads/{t}/runs`: the newest first; `limit`, `offset`, `status`, `select`."""
        thread_id = await self._thread_id(request)
        limit, offset = query_whole(request, "limit", 10, MOST), query_whole(request, "offset", 0)
        status = query_choice(request, "status", (*STATUSES, ""), "")
        select = request.query_params.getlist("select") or None
        shown = [await self._results.shown(row) for row in reversed(await self._results.rows(thread_id))]
        found = [each for each in shown if not status or each["status"] == status]
        return answer([selected(each, select) for each in found[offset : offset + limit]])

    async def _get(self, request: Request) -> Response:
        run_id_of(request.path_params["run_id"])
        found = await self._results.find(await self._thread_id(request), request.path_params["run_id"])
        return answer(await self._results.shown(found.row))

    async def _join(self, request: Request) -> ASGIApp:
        """`GET .../join`: the values at the end of a run, whoever began it."""
        thread_id = await self._thread_id(request)
        found = await self._results.find(thread_id, request.path_params["run_id"])
        place = location(thread_id, found.row.id)
        return WaitedJson(
            found.log,
            partial(self._came_to, thread_id, found.row.id, found.log),
            headers={"content-location": place, "location": f"{place}/join"},
            left=partial(self._engine.cancel_run, TENANT, found.row.id, "client disconnected")
            if query_flag(request, "cancel_on_disconnect")
            else None,
        )

    # -- ending --------------------------------------------------------------------------------------------

    async def _delete(self, request: Request) -> Response:
        """`DELETE .../runs/{r}`: with its events; one that has not ended is cancelled first."""
        found = await self._results.find(await self._thread_id(request), request.path_params["run_id"])
        await self._end(found.row, "deleted", deletes=True)
        return nothing()

    async def _cancel(self, request: Request) -> ASGIApp:
        """`POST .../cancel?wait=0|1&action=interrupt|rollback`: a run that is rolled back never was."""
        wait, action = query_flag(request, "wait"), query_choice(request, "action", ACTIONS, "interrupt")
        thread_id = await self._thread_id(request)
        try:
            found = await self._results.find(thread_id, request.path_params["run_id"])
        except NotFoundError:
            raise NotFoundError(NONE_TO_CANCEL, param="run_id") from None
        if found.row.status in TERMINAL_STATUSES:
            raise NotFoundError(NONE_TO_CANCEL, param="run_id")
        ending = self._end(found.row, action, deletes=action == "rollback")
        if not wait:
            self._do(ending)
            return nothing(202)
        await ending
        place = location(thread_id, found.row.id)
        return answer({}, headers={"content-location": place, "location": f"{place}/join"})

    async def _cancel_many(self, request: Request) -> Response:
        """`POST /runs/cancel?action=`: runs of a thread by their ids, or all of a status."""
        body = Body(await read_object(request, self._limit)).only("thread_id", "run_ids", "status")
        action = query_choice(request, "action", ACTIONS, "interrupt")
        rows = await self._meant(body)
        if not rows:
            raise NotFoundError(NONE_TO_CANCEL)
        for row in reversed(rows):  # those that wait in line before the one that they wait for
            await self._end(row, action, deletes=action == "rollback")
        return nothing()

    async def _meant(self, body: Body) -> list[RunRow]:
        thread, run_ids, status = body.text("thread_id"), body.texts("run_ids"), body.text("status")
        if status is not None and status not in ACTIVE:
            raise UnprocessableError(f"'status' must be one of: {', '.join(ACTIVE)}.", param="status")
        if status is None and not (thread and run_ids):
            raise UnprocessableError("Name 'thread_id' and 'run_ids', or a 'status'.", param="status")
        if thread is not None:
            threads = [(await self._notes.find(thread))[0].id]
        else:
            threads = [each.id for each in await self._notes.listed() if each.status in ACTIVE["all"]]
        wanted = None if run_ids is None else {uuid_of(each, "run").replace("-", "") for each in run_ids}
        store = self._engine.keeper.store
        return [
            row
            for thread_id in threads
            for row in await store.runs(TENANT, thread_id)
            if row.status in ACTIVE[status or "all"] and (wanted is None or row.id in wanted) and not is_edit(row)
        ]

    async def _end(self, row: RunRow, reason: str, *, deletes: bool) -> None:
        ended: RunRow | None = row
        if row.status not in TERMINAL_STATUSES:
            ended = await self._engine.cancel_run(TENANT, row.id, reason)
        if deletes and ended is not None:
            await self._engine.keeper.delete_run(TENANT, ended)

    def _do(self, work: Coroutine[Any, Any, None]) -> None:
        task = asyncio.create_task(work)
        self._tasks.add(task)
        task.add_done_callback(self._tasks.discard)
