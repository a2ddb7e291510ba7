"""What a request goes on from: a response, a conversation, or the questions that a response stopped at."""

from __future__ import annotations

import hashlib
from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import Any

from agent_server import framing
from agent_server.errors import ConflictError, GoneError, NotFoundError, RequestError
from agent_server.graph.inputs import Turn, pair_calls
from agent_server.protocols.responses.answers import Answers, is_approval, without_old_answers, without_passed_answers
from agent_server.protocols.responses.echoes import unsaid
from agent_server.protocols.responses.fields import Fields, invalid
from agent_server.protocols.responses.kept import Archive, Kept
from agent_server.protocols.responses.sealed import Seal, opened
from agent_server.protocols.responses.threads import (
    GOES_ON,
    Item,
    find_conversation,
    head,
    not_given,
    note_of,
    said_by,
    turns_of,
    without,
)
from agent_server.runs.stores.port import TERMINAL_STATUSES, Store


@dataclass(frozen=True, slots=True)
class Origin:
    """`previous` is what the request goes on from, None for a beginning.

    `input` is the request's input with references resolved and answers taken out. `resume` are those answers, and
    `approvals` maps calls to the requests that they answer; `tools` are the client's tools that were called. Answers
    are `late` when the conversation has moved on.
    `added` maps runs to the items they hold, which were added to the conversation since and come before the input.
    """

    input: Any
    previous: Kept | None = None
    conversation: str = ""
    resume: dict[str, Any] | None = None
    approvals: Mapping[str, str] = field(default_factory=dict)
    tools: tuple[Mapping[str, Any], ...] = ()
    late: bool = False
    added: Mapping[str, list[Item]] = field(default_factory=dict)

    @property
    def goes_on(self) -> bool:
        """Whether anything comes before the input."""
        return self.previous is not None or any(self.added.values())

    def needed(self, body: Mapping[str, Any]) -> dict[str, Any]:
        """What of the request it goes on from holds for this one, too: calls that wait are of tools declared there."""
        declared = body.get("tools") or []
        if not self.tools or not isinstance(declared, list):
            return {}
        names = {name for tool in declared if isinstance(tool, dict) for name in (tool.get("name"), _nested_name(tool))}
        return {"tools": [*declared, *(tool for tool in self.tools if tool["name"] not in names)]}

    def agent(self, agents: Collection[str]) -> str | None:
        """The agent that goes on where a request names none."""
        return self.previous.row.agent if self.previous is not None and self.previous.row.agent in agents else None

    def check_agent(self, name: str) -> None:
        """Only the agent that asked can be given the answers. Raises `RequestError`."""
        if self.resume is not None and self.previous is not None and self.previous.row.agent != name:
            message = f"The agent {self.previous.row.agent!r} asked, and {name!r} cannot be given the answer."
            raise RequestError(message, param="model")

    def check_time(self) -> None:
        """What nobody has answered before it is too late. Raises `ConflictError`."""
        if self.late:
            message = "The conversation has gone on since this was asked; the answer comes too late."
            raise ConflictError(message, param="input", code="approval_too_late")

    @property
    def digest(self) -> str:
        """Tells one set of answers from another."""
        return hashlib.sha256(framing.to_json(self.resume)).hexdigest()


class Origins:
    """Finds the origins of requests."""

    def __init__(self, archive: Archive, store: Store, seal: Seal) -> None:
        self._archive = archive
        self._store = store
        self.seal = seal

    async def of(self, tenant: str, body: Fields, conversation: str, *, is_made: bool) -> Origin:
        """The origin of a request in a conversation ("" for none), which must exist unless it `is_made` when named.

        Raises `RequestError`: for what is not there, not over, or not the question that was asked.
        """
        response_id = body.text("previous_response_id")
        if response_id is not None and conversation and not is_made:
            message = "'previous_response_id' and 'conversation' cannot be combined: each names what comes before."
            raise RequestError(message, param="previous_response_id")
        value = body.get("input")
        value = without_old_answers(await self.resolved(tenant, value))
        asked = await self._asked(tenant, value)
        late = False
        added: Mapping[str, list[Item]] = {}
        if response_id is not None:
            previous: Kept | None = await self._named(tenant, response_id)
        elif conversation:
            previous, added = await self._in_conversation(tenant, conversation, is_made=is_made)
        else:
            previous, conversation = asked, asked.record.conversation if asked is not None else ""
        if asked is not None and previous is not None and previous.row.id != asked.row.id:
            value = without_passed_answers(value)
            asked = await self._asked(tenant, value)
        if response_id is None and asked is not None and conversation and asked.record.conversation == conversation:
            last = head(await self._store.runs(tenant, conversation))
            previous, late = asked, last is not None and last.id != asked.row.id
        origin = self._answered(value, previous, conversation)
        return replace(origin, late=late) if origin.resume is not None else replace(origin, added=added)

    async def resolved(self, tenant: str, value: Any) -> Any:
        """An input with the items that it refers to, and with what compacted ones stand for."""
        if not isinstance(value, list):
            return value
        found = [await self.referenced(tenant, item, f"input[{place}]") for place, item in enumerate(value)]
        for place, item in enumerate(found):
            self.check_seal(tenant, item, f"input[{place}]")
        return [opened(item) if isinstance(item, dict) else item for item in found]

    async def _in_conversation(
        self, tenant: str, conversation: str, *, is_made: bool
    ) -> tuple[Kept | None, Mapping[str, list[Item]]]:
        """The last response of a conversation that others can go on from, and what has been added since."""
        thread = await find_conversation(self._store, tenant, conversation)
        if thread is None:
            if is_made:
                return None, {}
            message = f"Conversation with id '{conversation[:100]}' not found."
            raise NotFoundError(message, param="conversation", code="conversation_not_found")
        rows = await self._store.runs(tenant, conversation)
        last, deleted = head(rows), note_of(thread).deleted
        added = {row.id: without(record.input, deleted) for row, record in not_given(rows)}
        return None if last is None else await self._archive.run(tenant, last.id), added

    async def _named(self, tenant: str, response_id: str) -> Kept:
        """OpenAI's servers answer 400 where the parameter of a request, not its address, names what is not there."""
        try:
            kept = await self._archive.response(tenant, response_id)
        except (NotFoundError, GoneError) as error:
            message = f"Previous response with id '{response_id[:100]}' not found."
            raise RequestError(message, param="previous_response_id", code="previous_response_not_found") from error
        if kept.row.status not in TERMINAL_STATUSES and not kept.log.over:
            message = f"The response '{kept.id}' is still in progress."
            raise ConflictError(message, param="previous_response_id", code="previous_response_in_progress")
        if kept.row.status in ("failed", "cancelled"):  # it left nothing to go on from
            return await self._before(tenant, kept)
        return kept

    async def _before(self, tenant: str, kept: Kept) -> Kept:
        for each in reversed(await self._archive.before(tenant, kept)):
            if each.row.status in GOES_ON:
                return each
        message = f"The response '{kept.id}' has {kept.row.status}, and nothing comes before it."
        raise RequestError(message, param="previous_response_id", code="previous_response_not_completed")

    def check_seal(self, tenant: str, item: Any, path: str) -> None:
        """Raises `RequestError` for a `compaction` item that this server did not make."""
        if not isinstance(item, dict) or item.get("type") != "compaction":
            return
        if not self.seal.holds(tenant, Fields(item, path).required_text("encrypted_content")):
            raise invalid(f"{path}.encrypted_content", "it is not what this server handed out")

    async def referenced(self, tenant: str, item: Any, path: str) -> Any:
        """The item that a reference means; any other as it is. Raises `RequestError` for one that is not there."""
        if not isinstance(item, dict) or (item.get("type") or "item_reference") != "item_reference":
            return item
        item_id = item.get("id")
        if item.get("role") is not None or item.get("content") is not None or not isinstance(item_id, str):
            return item
        found = await self._archive.item(tenant, item_id)
        if found is None:
            raise RequestError(f"Item with id '{item_id[:100]}' not found.", param=f"{path}.id", code="item_not_found")
        return found[1]

    async def _asked(self, tenant: str, items: Any) -> Kept | None:
        """The response whose approval request is answered: its id tells."""
        for item in items if isinstance(items, list) else ():
            if is_approval(item):
                found = await self._archive.item(tenant, str(item.get("approval_request_id")))
                if found is not None:
                    return found[0]
        return None

    def _answered(self, value: Any, previous: Kept | None, conversation: str) -> Origin:
        ended = previous.interrupted() if previous is not None else None
        if previous is None or ended is None:
            return Origin(_without_answers(value), previous, conversation)
        items = value if isinstance(value, list) else []
        answers = Answers(items, ended, previous.output())
        resume = answers.resume()  # refuses an input without answers, too
        rest = _without_answers(answers.rest(items))
        declared = {tool["name"]: tool for tool in previous.response()["tools"] if tool["type"] == "function"}
        tools = tuple(declared.get(name, {"type": "function", "name": name}) for name in sorted(answers.tools))
        return Origin(rest, previous, conversation, resume, answers.approvals(), tools)

    # -- what was said before ------------------------------------------------------------------------------

    async def turns_before(self, tenant: str, kept: Kept) -> tuple[Turn, ...]:
        """The whole conversation up to a response, and with it; without what was deleted from it."""
        items: list[Item] = []
        deleted: set[str] = set()
        for each in await self._archive.before(tenant, kept):
            if each.record.conversation:
                thread = await self._store.thread(tenant, each.row.thread_id)
                deleted |= set(note_of(thread).deleted if thread is not None else ())
            for run_id in each.record.added:
                added = await self._archive.run(tenant, run_id)
                items += added.record.input if added is not None else ()
            items += await said_by(self._archive, tenant, each, items)
            as_listed = any(each.row.id in item_id for item_id in deleted)  # the ids of other styles are others
            items += each.output(None if as_listed else "function_call")
        return turns_of(without(items, deleted))

    async def new_turns(
        self, tenant: str, turns: Sequence[Turn], origin: Origin, *, whole: bool
    ) -> tuple[tuple[Turn, ...], tuple[Turn, ...]]:
        """The turns that are new, and those that an agent is given: with the `whole` conversation for one that
        remembers nothing.

        Raises `RequestError` for tool calls without outputs, and the other way round.
        """
        added = turns_of([item for items in origin.added.values() for item in items])
        before: tuple[Turn, ...] = ()
        if origin.previous is not None and (whole or len(turns) > 1):
            before = await self.turns_before(tenant, origin.previous)
        new = (*added, *unsaid(turns, (*before, *added)))
        given = (*before, *new) if whole else new
        pair_calls(given)
        return new, given

    async def is_head(self, tenant: str, origin: Origin) -> bool:
        """Whether the conversation still ends with what the origin goes on from."""
        last = head(await self._store.runs(tenant, origin.conversation))
        previous = origin.previous.row.id if origin.previous is not None else ""
        return (last.id if last is not None else "") == previous


def _nested_name(tool: Mapping[str, Any]) -> Any:
    """Where Chat Completions has the name."""
    function = tool.get("function")
    return function.get("name") if isinstance(function, dict) else None


def _without_answers(value: Any) -> Any:
    """An answer to a question that nobody asked is refused; the questions themselves say nothing new."""
    for place, item in enumerate(value if isinstance(value, list) else ()):
        if is_approval(item):
            what = f"no response waits for an answer to '{str(item.get('approval_request_id'))[:100]}'"
            raise invalid(f"input[{place}].approval_request_id", what, code="approval_not_pending")
    return value
