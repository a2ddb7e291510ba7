"""What a request means for its thread: which run to go on from, with what, and in which message.

The thread on the server is the only history there is. A request adds the messages at its end that the thread does
not have, answers what the thread waits for, or asks for another answer to what was said before.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from itertools import takewhile
from typing import Any

import msgspec

from agent_server.errors import ConflictError, GoneError, NotFoundError, RequestError
from agent_server.events import Event, Interrupt
from agent_server.graph.answers import Verdict, requests_of, resume_value
from agent_server.graph.inputs import Message, Text, Turn
from agent_server.graph.transcript import told
from agent_server.http.identity import TENANT
from agent_server.protocols.aisdk.encoder import SdkVersion, approval_id, message_id
from agent_server.protocols.aisdk.request import Answers, ChatRequest
from agent_server.runs.rows import protocol_of, turns_of, wire_of
from agent_server.runs.stores.port import TERMINAL_STATUSES, RunRow
from agent_server.runs.threads import GOES_ON, Threads

PROTOCOL = "aisdk"


class Record(msgspec.Struct, frozen=True, omit_defaults=True):
    """What is stored of a request. `name` is the id of the message where it is not the run's own, `before` are the
    earlier runs of that message, `denied` the calls that were refused in it. `replaces` is the run whose answer this
    one is given instead of. `said` is the message that answered a question, by id, `resume` its answer."""

    version: SdkVersion = 6
    name: str = ""
    before: list[str] = []
    denied: list[str] = []
    replaces: str = ""
    said: str = ""
    resume: dict[str, Any] = {}


@dataclass(frozen=True, slots=True)
class Plan:
    """A run to be asked for. With both `resume` and `turns`, there are two: one that answers, one that goes on.

    `previous` is the run to go on from: None for the thread's head, "" for none.
    """

    record: Record
    turns: Sequence[Turn] = ()
    resume: Mapping[str, Any] | None = None
    previous: str | None = None
    agent: str = ""  # of the run that is done again
    after: Record = field(default_factory=Record)  # of the second run


def record_of(row: RunRow, version: SdkVersion) -> Record:
    """What is stored of a run; of another protocol's, what a client of this one needs."""
    return msgspec.json.decode(wire_of(row), type=Record) if protocol_of(row) == PROTOCOL else Record(version)


class History:
    """A thread as the planner of one request sees it."""

    def __init__(self, threads: Threads, rows: Sequence[RunRow], request: ChatRequest, version: SdkVersion) -> None:
        self._threads = threads
        self._rows = [row for row in rows if row.agent]
        self._request = request
        self._version = version

    async def plan(self) -> Plan:
        """What to do. Raises `RequestError` for what cannot be done."""
        request = self._request
        if request.trigger == "regenerate-message" and (row := self._target()) is not None:
            return self._again(row)
        if request.last is None and not request.answers.values:
            raise self._nothing()
        if request.answered is not None:
            return await self._answered()
        edited = self._run_of(request.message_id) if request.message_id else None
        if edited is not None:
            return self._edited(edited, request.message_id or "")
        waiting = await self._waiting()
        turns = request.new_messages(self._known())
        if waiting or request.answers.values:
            return await self._after_questions(waiting, turns)
        if not turns:  # it is sent once more: nobody heard the answer
            row = self._target()
            if row is None:
                raise self._nothing()
            return self._again(row)
        return Plan(self._record(), [*await self._unheard(), *turns])

    def _edited(self, row: RunRow, name: str) -> Plan:
        """Another message in the place of one of that id, which began a run or answered a question."""
        turns = self._request.new_messages(self._known() - {name})
        if not turns:
            raise self._nothing()
        record = record_of(row, self._version)
        if record.said == name and len(turns) == 1 and _text(turns[0]):
            return self._saying(next(iter(record.resume)), turns[0], row)
        return Plan(self._record(row.id), [*_before(turns_of(row), name), *turns], previous=row.previous)

    def _record(self, replaces: str = "") -> Record:
        return Record(self._version, replaces=replaces)

    # -- questions -----------------------------------------------------------------------------------------

    async def _waiting(self) -> tuple[Interrupt, ...]:
        return await self._threads.waiting(TENANT, self._request.chat_id)

    async def _answered(self) -> Plan:
        """The message of the assistant that stands last goes on."""
        waiting = await self._waiting()
        if not waiting:
            raise _nothing_waits()
        resume = answers_to(waiting, self._request.answers)
        _check_whole(waiting, resume)
        assert self._request.answered is not None
        return Plan(await self._same_message(waiting, self._request.answered.id or ""), resume=resume)

    async def _after_questions(self, waiting: Sequence[Interrupt], turns: Sequence[Message]) -> Plan:
        """People said something, where the thread waits for answers."""
        if not waiting:
            raise _nothing_waits()
        resume = answers_to(waiting, self._request.answers)
        if not resume and len(waiting) == len(turns) == 1 and _text(turns[0]) and _is_plain(waiting[0]):
            return self._saying(waiting[0].id, turns[0])
        _check_whole(waiting, resume)
        record = await self._same_message(waiting, "") if turns else self._record()
        return Plan(record, turns, resume, after=self._record())

    def _saying(self, question: str, message: Message, instead_of: RunRow | None = None) -> Plan:
        """A message that answers a question, or does so instead of another one."""
        resume = {question: _text(message)}
        replaces, previous = (instead_of.id, instead_of.previous) if instead_of is not None else ("", None)
        record = Record(self._version, replaces=replaces, said=message.id or "", resume=resume)
        return Plan(record, resume=resume, previous=previous)

    async def _same_message(self, waiting: Sequence[Interrupt], name: str) -> Record:
        head = await self._threads.head(TENANT, self._request.chat_id)
        assert head is not None  # it waits
        earlier = record_of(head, self._version)
        before = [*earlier.before, head.id]
        denied = [*earlier.denied, *_denied(waiting, self._request.answers)]
        return Record(self._version, name or earlier.name or message_id(before[0]), before, denied)

    # -- earlier runs --------------------------------------------------------------------------------------

    def _known(self) -> set[str]:
        """The ids of the messages that people said in this thread."""
        return {name for row in self._rows for name in self._said_in(row)}

    def _said_in(self, row: RunRow) -> list[str]:
        said = [turn.id for turn in turns_of(row) if isinstance(turn, Message) and turn.id]
        answer = record_of(row, self._version).said
        return [*said, answer] if answer else said

    def _run_of(self, name: str) -> RunRow | None:
        """The run that a message of people began, the latest if there are several."""
        for row in reversed(self._rows):
            if name in self._said_in(row):
                return row
        return None

    def _run_saying(self, name: str) -> RunRow | None:
        """The run that a message of the assistant begins with."""
        for row in reversed(self._rows):
            record = record_of(row, self._version)
            first = record.before[0] if record.before else row.id
            if name in (record.name, message_id(first)):
                return next((each for each in self._rows if each.id == first), row)
        return None

    def _target(self) -> RunRow | None:
        """The run whose answer is to be given again: by the answer's id, else by what it answers. None where that has
        not been said yet. Raises `NotFoundError`."""
        name, last = self._request.message_id, self._request.last_user_id()
        row = (self._run_saying(name) or self._run_of(name)) if name else None
        row = row or (self._run_of(last) if last else None)
        if row is None and self._rows and not name and not last:
            row = self._run_saying(message_id(self._rows[-1].id))
        if row is None and not self._request.messages:
            message = f"There is no message '{(name or '')[:100]}' in this chat."
            raise NotFoundError(message, param="messageId", code="message_not_found")
        return row

    def _nothing(self) -> RequestError:
        return RequestError("'messages' holds no message of a person's.", param="messages")

    def _again(self, row: RunRow) -> Plan:
        if row.status not in TERMINAL_STATUSES:
            message = "The answer is still being given."
            raise ConflictError(message, param="id", code="conversation_locked")
        record = record_of(row, self._version)
        if record.resume:
            record = msgspec.structs.replace(record, version=self._version, replaces=row.id)
            return Plan(record, resume=record.resume, previous=row.previous, agent=row.agent)
        turns, last = turns_of(row), self._request.last_user_id()
        found = [turn for turn in turns if isinstance(turn, Message) and turn.id and turn.id == last]
        said = [*_before(turns, last or ""), *found] if found else turns
        return Plan(self._record(row.id), said, previous=row.previous, agent=row.agent)

    async def _unheard(self) -> list[Turn]:
        """What was said in runs that were stopped or failed since the thread's head: no other run goes on from them."""
        late = list(takewhile(lambda row: row.status not in GOES_ON, reversed(self._rows)))[::-1]
        replaced = {record_of(row, self._version).replaces for row in late}
        turns: list[Turn] = []
        for row in late:
            if row.status in TERMINAL_STATUSES and row.id not in replaced:
                turns += [*turns_of(row), *told(await kept_events(self._threads, row.id))]
        return turns


async def kept_events(threads: Threads, run_id: str) -> list[Event]:
    """What a run told so far; nothing where it is kept no longer."""
    try:
        found = await threads.find(TENANT, run_id)
    except GoneError:
        return []
    return found.log.read(0) if found is not None else []


def answers_to(waiting: Sequence[Interrupt], answers: Answers) -> dict[str, Any]:
    """Interrupt id -> what it is resumed with, for the questions that are answered."""
    resume: dict[str, Any] = {}
    for interrupt in waiting:
        if interrupt.id in answers.values:
            resume[interrupt.id] = answers.values[interrupt.id]
        elif (result := _result(interrupt, answers)) is not None:
            resume[interrupt.id] = resume_value(interrupt, [Verdict(value=result)])
        elif verdicts := _verdicts(interrupt, answers):
            resume[interrupt.id] = resume_value(interrupt, verdicts)
    if unknown := sorted(answers.values.keys() - {interrupt.id for interrupt in waiting}):
        message = f"Nobody waits for an answer to '{unknown[0][:100]}'."
        raise ConflictError(message, param="resume", code="interrupt_not_pending")
    return resume


def _result(interrupt: Interrupt, answers: Answers) -> Any:
    """The output of the call that waits for one. Nobody asks a client for the output of a call to be approved."""
    if interrupt.kind == "approval" or len(interrupt.call_ids) != 1:
        return None
    result = answers.results.get(interrupt.call_ids[0])
    if result is None:
        return None
    return f"Error: {result.output}" if result.failed else result.output if result.output is not None else ""


def _verdicts(interrupt: Interrupt, answers: Answers) -> list[Verdict]:
    """What people said to each request; none unless they answered all of them."""
    count = len(requests_of(interrupt)) or 1
    given = [answers.approvals.get(approval_id(interrupt, place)) for place in range(count)]
    return [Verdict(each.approved, each.reason) for each in given if each is not None] if None not in given else []


def _denied(waiting: Sequence[Interrupt], answers: Answers) -> list[str]:
    return [
        call_id
        for interrupt in waiting
        if interrupt.kind == "approval" and len(interrupt.call_ids) == len(requests_of(interrupt))
        for place, call_id in enumerate(interrupt.call_ids)
        if (approval := answers.approvals.get(approval_id(interrupt, place))) and not approval.approved
    ]


def _check_whole(waiting: Sequence[Interrupt], resume: Mapping[str, Any]) -> None:
    missing = [interrupt for interrupt in waiting if interrupt.id not in resume]
    if missing:
        about = f" about the call '{missing[0].call_ids[0][:64]}'" if missing[0].call_ids else ""
        message = f"The chat waits for an answer{about} (question '{missing[0].id}'). Answer it first."
        raise ConflictError(message, param="messages", code="answer_required")


def _nothing_waits() -> ConflictError:
    message = "There is no new message, and nothing waits for an answer."
    return ConflictError(message, param="messages", code="interrupt_not_pending")


def _before(turns: Sequence[Turn], name: str) -> list[Turn]:
    """The turns before a message of people's."""
    return list(takewhile(lambda turn: not isinstance(turn, Message) or turn.id != name, turns))


def _is_plain(interrupt: Interrupt) -> bool:
    return interrupt.kind == "free" and not interrupt.call_ids


def _text(message: Message) -> str:
    return "".join(part.text for part in message.parts if isinstance(part, Text))
