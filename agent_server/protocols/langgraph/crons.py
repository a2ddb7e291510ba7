"""Runs that begin by the clock: each due time is fired once, by whichever process claims it first.

What was due while no process ran is fired once when one runs again, however often it was due.
"""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Callable, Mapping
from datetime import UTC, datetime, tzinfo
from typing import Any
from uuid import uuid4
from zoneinfo import ZoneInfo

import msgspec
from cronsim import CronSim, CronSimError

from agent_server.errors import AgentServerError, NotFoundError
from agent_server.graph.converter import now_ms
from agent_server.http.identity import TENANT
from agent_server.protocols.langgraph.assistants import Assistants
from agent_server.protocols.langgraph.beginning import Beginning
from agent_server.protocols.langgraph.reading import Body, contains
from agent_server.protocols.langgraph.refusals import UnprocessableError
from agent_server.protocols.langgraph.run_body import RunBody, read_run
from agent_server.protocols.langgraph.shown import iso
from agent_server.protocols.langgraph.thread_notes import ThreadNotes
from agent_server.protocols.langgraph.thread_states import ThreadStates
from agent_server.runs.engine import Engine
from agent_server.runs.stores.port import Claim, Document

logger = logging.getLogger("agent_server.crons")

KIND = "langgraph.cron"
ROUTE = "langgraph.cron"
LOOK_SECONDS = 30.0
"""Seconds after which a process looks for what others have written down, at the latest."""
CLAIM_MS = 7 * 86_400_000
SORTS = ("created_at", "updated_at", "next_run_date", "end_time", "cron_id", "assistant_id", "thread_id")
OWN = ("schedule", "timezone", "end_time", "enabled", "on_run_completed", "metadata")
"""Fields of a body that are the cron's; all others are its runs'."""


class Cron(msgspec.Struct, frozen=True):
    """A schedule, and the body of the runs that it begins. Times are Unix milliseconds."""

    cron_id: str
    assistant_id: str
    thread_id: str | None
    schedule: str
    created_at: int
    updated_at: int
    next_run_date: int | None
    payload: dict[str, Any]
    metadata: dict[str, Any] = {}
    timezone: str | None = None
    end_time: int | None = None
    enabled: bool = True
    on_run_completed: str = "delete"

    def shown(self) -> dict[str, Any]:
        """As the API shows it."""
        times = {
            name: None if value is None else iso(value)
            for name in ("created_at", "updated_at", "next_run_date", "end_time")
            for value in (getattr(self, name),)
        }
        completed = None if self.thread_id else self.on_run_completed
        return {**msgspec.structs.asdict(self), **times, "on_run_completed": completed, "user_id": None}

    def due_after(self, at: int) -> int | None:
        """The next time that it is due; None if it is never due again."""
        try:
            due = next(CronSim(self.schedule, datetime.fromtimestamp(at / 1000, _zone(self.timezone))))
        except StopIteration:
            return None
        ms = round(due.timestamp() * 1000)
        return None if self.end_time is not None and ms > self.end_time else ms

    def body(self) -> RunBody:
        """The run that it begins."""
        given = {**self.payload, "assistant_id": self.assistant_id}
        if self.thread_id is None:
            given["on_completion"] = self.on_run_completed
        return read_run({**given, "metadata": {"cron_id": self.cron_id}}, stateless=self.thread_id is None)


_cron: msgspec.json.Decoder[Cron] = msgspec.json.Decoder(Cron)


class Crons:
    """The crons of one app, and the clock that fires them. `now` is in Unix milliseconds."""

    def __init__(
        self,
        assistants: Assistants,
        beginning: Beginning,
        notes: ThreadNotes,
        states: ThreadStates,
        engine: Engine,
        now: Callable[[], int] = now_ms,
    ) -> None:
        self._assistants = assistants
        self._beginning = beginning
        self._notes = notes
        self._states = states
        self._engine = engine
        self._now = now
        self._changed = asyncio.Event()
        self._clock: asyncio.Task[None] | None = None

    # -- the clock -----------------------------------------------------------------------------------------

    def start(self) -> None:
        """Begin to look at the clock."""
        if self._clock is None:
            self._clock = asyncio.create_task(self._watch(), name="crons")

    async def aclose(self) -> None:
        """Stop looking."""
        if self._clock is not None:
            self._clock.cancel()
            await asyncio.wait({self._clock})

    async def _watch(self) -> None:
        while True:
            pause = LOOK_SECONDS
            try:
                await self.tick()
                pause = await self._pause()
            except AgentServerError as error:
                logger.warning("crons: %s", error.message)
            self._changed.clear()
            try:
                async with asyncio.timeout(pause):
                    await self._changed.wait()
            except TimeoutError:
                pass

    async def _pause(self) -> float:
        due = [each.next_run_date for each in await self.all() if each.enabled and each.next_run_date is not None]
        return max(0.0, min([LOOK_SECONDS, *((each - self._now()) / 1000 for each in due)]))

    async def tick(self) -> None:
        """Fire what is due, and let threads go whose time is over."""
        now = self._now()
        for cron in await self.all():
            if cron.enabled and cron.next_run_date is not None and cron.next_run_date <= now:
                await self._fire(cron, now)
        for thread_id, ttl in await self._notes.expired(now):
            if ttl.strategy == "delete":
                await self._notes.delete(thread_id)
            else:
                await self._states.keep_latest(thread_id)
                await self._notes.change(thread_id, merge={}, updated_at=now)

    async def _fire(self, cron: Cron, now: int) -> None:
        key, claim = f"{cron.cron_id}@{cron.next_run_date}", Claim("", cron.cron_id)
        taken = await self._engine.keeper.store.claim(TENANT, ROUTE, key, claim, now=now, expires_at=now + CLAIM_MS)
        if taken is not None:
            return  # another process fires it, and writes down the next time
        await self._put(msgspec.structs.replace(cron, next_run_date=cron.due_after(now)))
        try:
            await self._beginning.begin(None, cron.body(), cron.thread_id)
        except AgentServerError as error:
            logger.warning("cron %s was due and could not run: %s", cron.cron_id, error.message)

    # -- crons ---------------------------------------------------------------------------------------------

    async def all(self) -> list[Cron]:
        """Every cron, oldest first."""
        await self._engine.open()
        return [_cron.decode(each.value) for each in await self._engine.keeper.store.documents(TENANT, KIND)]

    async def find(self, cron_id: str) -> Cron:
        """A cron. Raises `NotFoundError`."""
        await self._engine.open()
        found = await self._engine.keeper.store.document(TENANT, KIND, cron_id)
        if found is None:
            raise NotFoundError(f"Cron {cron_id} not found", param="cron_id")
        return _cron.decode(found.value)

    async def found(self, body: Body) -> list[Cron]:
        """Those that a search asks for."""
        assistant_id, thread_id, metadata = body.text("assistant_id"), body.text("thread_id"), body.mapping("metadata")
        enabled = body.flag("enabled", True) if "enabled" in body else None
        return [
            each
            for each in await self.all()
            if (assistant_id is None or each.assistant_id == assistant_id)
            and (thread_id is None or each.thread_id == thread_id)
            and (enabled is None or each.enabled == enabled)
            and contains(each.metadata, metadata)
        ]

    async def create(self, values: Mapping[str, Any], thread_id: str | None) -> Cron:
        """A new cron. What its runs cannot be is refused now."""
        body = Body(values)
        assistant = await self._assistants.chosen(body.required("assistant_id"))
        now = self._now()
        payload = {key: value for key, value in values.items() if key not in OWN and key != "assistant_id"}
        made = Cron(
            str(uuid4()),
            assistant.assistant_id,
            thread_id,
            _schedule(body.required("schedule")),
            now,
            now,
            None,
            payload,
            **self._own(body),
        )
        return await self._scheduled(made)

    async def update(self, cron: Cron, values: Mapping[str, Any]) -> Cron:
        """Change a cron: what is given takes the place of what was. An `end_time` of null takes it away."""
        body = Body({key: value for key, value in values.items() if value is not None})
        changes = {name: value for name, value in self._own(body).items() if name in values}
        if "schedule" in body:
            changes["schedule"] = _schedule(body.required("schedule"))
        payload = {key: value for key, value in body.values.items() if key not in OWN}
        changed = msgspec.structs.replace(cron, **changes, payload={**cron.payload, **payload}, updated_at=self._now())
        return await self._scheduled(changed)

    def _own(self, body: Body) -> dict[str, Any]:
        return {
            "metadata": body.mapping("metadata"),
            "timezone": _timezone(body.text("timezone")),
            "end_time": _time(body.text("end_time")),
            "enabled": body.flag("enabled", True),
            "on_run_completed": body.choice("on_run_completed", ("delete", "keep"), "delete"),
        }

    async def _scheduled(self, cron: Cron) -> Cron:
        cron.body()  # refuses what no run could be
        due = cron.due_after(self._now()) if cron.enabled else None
        scheduled = msgspec.structs.replace(cron, next_run_date=due)
        await self._put(scheduled)
        self._changed.set()
        return scheduled

    async def _put(self, cron: Cron) -> None:
        await self._engine.keeper.store.put_document(TENANT, Document(KIND, cron.cron_id, msgspec.json.encode(cron)))

    async def delete(self, cron: Cron) -> None:
        """Let a cron go."""
        await self._engine.keeper.store.delete_document(TENANT, KIND, cron.cron_id)


def _schedule(text: str) -> str:
    try:
        CronSim(text, datetime.now(UTC))
    except CronSimError:
        raise UnprocessableError(
            "'schedule' must be a cron expression, such as '*/5 * * * *'.", param="schedule"
        ) from None
    return text


def _zone(name: str | None) -> tzinfo:
    return ZoneInfo(name) if name else UTC


def _timezone(name: str | None) -> str | None:
    try:
        _zone(name)
    except (KeyError, ValueError, OSError):  # ZoneInfo's, for what it does not find and what is no name
        raise UnprocessableError("'timezone' must be a name such as 'Europe/Berlin'.", param="timezone") from None
    return name


def _time(text: str | None) -> int | None:
    if text is None:
        return None
    try:
        at = datetime.fromisoformat(text)
    except ValueError:
        raise UnprocessableError("'end_time' must be a time as ISO 8601 writes it.", param="end_time") from None
    return round((at if at.tzinfo else at.replace(tzinfo=UTC)).timestamp() * 1000)
