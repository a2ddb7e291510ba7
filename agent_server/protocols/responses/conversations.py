"""`/v1/conversations`: threads of responses, and of items that clients add themselves.

A conversation that was named by `context.conversation_id` or `custom_inputs.thread_id` is found here under that name.
It lasts as long as the responses in it are kept, and without any as long as one would be.

What is added reaches the agent with the next response of the conversation. What is deleted is not listed any more,
nor given to agents that are told the whole conversation with each request. A graph remembers by itself: what it has
been given it keeps until the conversation is deleted. The store, too, keeps what was said until then, or until it
expires.
"""

from __future__ import annotations

import asyncio
import re
from collections.abc import Collection, Mapping
from typing import Any

import msgspec
from starlette.requests import Request
from starlette.responses import Response
from starlette.routing import Route

from agent_server import framing, ids
from agent_server.errors import NotFoundError, RequestError
from agent_server.events import RunStarted
from agent_server.graph.converter import now_ms
from agent_server.graph.inputs import pair_calls
from agent_server.http.body import read_json
from agent_server.http.identity import TENANT
from agent_server.protocols.responses.fields import Fields, missing, too_long
from agent_server.protocols.responses.items import read_turns
from agent_server.protocols.responses.kept import PROTOCOL, Archive, Record, input_items
from agent_server.protocols.responses.origin import Origins
from agent_server.protocols.responses.pages import check_include, page
from agent_server.protocols.responses.request import read_metadata
from agent_server.protocols.responses.sealed import opened
from agent_server.protocols.responses.threads import GOES_ON, Item, Note, find_conversation, note_of, said_by
from agent_server.runs.engine import Engine
from agent_server.runs.keeper import Keeping
from agent_server.runs.stores.port import TERMINAL_STATUSES, Thread
from agent_server.settings import Settings

MOST_ITEMS = 20
"""Items of one request (OpenAI API reference, "Create a conversation" and "Create items")."""

_ASKABLE = re.compile(r"[\w.-]{1,128}", re.ASCII)
_CALLS = frozenset({"function_call", "function_call_output", "custom_tool_call_output", "reasoning", "mcp_call"})


class ConversationsApi:
    """The endpoints of one app."""

    def __init__(self, origins: Origins, engine: Engine, settings: Settings) -> None:
        self._origins = origins
        self._engine = engine
        self._archive = Archive(engine)
        self._limit = settings.max_body_bytes
        self._kept_ms = round(settings.retention_days * 86_400_000)
        self._writing = asyncio.Lock()  # notes are read, changed and written; across processes the last one wins

    def routes(self) -> list[Route]:
        """The routes, for an app's own visible list."""
        mount = "/v1/conversations"
        return [
            Route(mount, self._create, methods=["POST"]),
            Route(f"{mount}/{{id}}", self._retrieve, methods=["GET"]),
            Route(f"{mount}/{{id}}", self._update, methods=["POST"]),
            Route(f"{mount}/{{id}}", self._delete, methods=["DELETE"]),
            Route(f"{mount}/{{id}}/items", self._add, methods=["POST"]),
            Route(f"{mount}/{{id}}/items", self._list, methods=["GET"]),
            Route(f"{mount}/{{id}}/items/{{item}}", self._item, methods=["GET"]),
            Route(f"{mount}/{{id}}/items/{{item}}", self._delete_item, methods=["DELETE"]),
        ]

    # -- conversations -------------------------------------------------------------------------------------

    async def _create(self, request: Request) -> Response:
        """`POST /v1/conversations`: with metadata, and up to 20 items."""
        body = await self._body(request)
        note = Note(read_metadata(body))
        items = await self._read_items(body)
        now = now_ms()
        thread = Thread(ids.new_conversation_id(), now, msgspec.json.encode(note), self._expires_at(now))
        await self._engine.keeper.store.create_thread(TENANT, thread)
        await self._put(thread, items)
        return _json(_conversation(thread))

    async def _retrieve(self, request: Request) -> Response:
        """`GET /v1/conversations/{id}`."""
        return _json(_conversation(await self._find(request)))

    async def _update(self, request: Request) -> Response:
        """`POST /v1/conversations/{id}`: replaces the metadata, which must be given; null empties it."""
        body = await self._body(request)
        if "metadata" not in body.values():
            raise missing("metadata")
        metadata = read_metadata(body)
        async with self._writing:
            thread = await self._find(request)
            return _json(
                _conversation(await self._write(thread, msgspec.structs.replace(note_of(thread), metadata=metadata)))
            )

    async def _delete(self, request: Request) -> Response:
        """`DELETE /v1/conversations/{id}`: with its responses, which are cancelled first, and all that they left."""
        thread = await self._find(request)
        runs = await self._engine.keeper.store.runs(TENANT, thread.id)
        for run in reversed(runs):  # those that wait in line before the one that they wait for
            if run.status not in TERMINAL_STATUSES:
                await self._engine.cancel_run(TENANT, run.id, "deleted")
        await self._engine.keeper.delete_thread(TENANT, thread.id)
        return _json({"id": thread.id, "object": "conversation.deleted", "deleted": True})

    # -- items ---------------------------------------------------------------------------------------------

    async def _add(self, request: Request) -> Response:
        """`POST /v1/conversations/{id}/items`: up to 20 items; the list of them as they were added."""
        check_include(request.query_params)
        thread = await self._find(request)
        body = await self._body(request)
        body.required("items")
        taken = {*note_of(thread).deleted, *(item["id"] for item in await self._items(thread))}
        items = await self._read_items(body, taken)
        added = await self._put(thread, items)
        return _json(page(added, {"order": "asc", "limit": "100"}))

    async def _list(self, request: Request) -> Response:
        """`GET /v1/conversations/{id}/items`: `after`, `limit`, `order`, the newest first."""
        check_include(request.query_params)
        return _json(page(await self._items(await self._find(request)), request.query_params))

    async def _item(self, request: Request) -> Response:
        """`GET /v1/conversations/{id}/items/{item}`."""
        check_include(request.query_params)
        return _json(dict(await self._find_item(await self._find(request), request)))

    async def _delete_item(self, request: Request) -> Response:
        """`DELETE /v1/conversations/{id}/items/{item}`: the conversation without it."""
        async with self._writing:
            thread = await self._find(request)
            item, note = await self._find_item(thread, request), note_of(thread)
            note = msgspec.structs.replace(note, deleted=[*note.deleted, item["id"]])
            return _json(_conversation(await self._write(thread, note)))

    # -- reading -------------------------------------------------------------------------------------------

    async def _body(self, request: Request) -> Fields:
        await self._engine.open()
        return Fields(await read_json(request.receive, request.headers, limit=self._limit))

    async def _find(self, request: Request) -> Thread:
        await self._engine.open()
        thread_id = request.path_params["id"]
        thread = await find_conversation(self._engine.keeper.store, TENANT, thread_id)
        if thread is None:
            raise NotFoundError(
                f"Conversation with id '{thread_id[:100]}' not found.",
                param="conversation_id",
                code="conversation_not_found",
            )
        return thread

    async def _items(self, thread: Thread) -> list[Item]:
        """What a conversation shows, oldest first: each item once, whoever sent it along again."""
        found: list[Item] = []
        for row in await self._engine.keeper.store.runs(TENANT, thread.id):
            kept = await self._archive.run(TENANT, row.id) if row.status in GOES_ON else None
            if kept is not None:
                found += await said_by(self._archive, TENANT, kept, found)
                found += kept.output()
        deleted = frozenset(note_of(thread).deleted)
        return [item for item in found if item["id"] not in deleted]

    async def _find_item(self, thread: Thread, request: Request) -> Item:
        item_id = request.path_params["item"]
        for item in await self._items(thread):
            if item["id"] == item_id:
                return item
        message = f"Item with id '{item_id[:100]}' not found in conversation '{thread.id[:100]}'."
        raise NotFoundError(message, param="item_id", code="item_not_found")

    async def _read_items(self, body: Fields, taken: Collection[str] = ()) -> list[dict[str, Any]]:
        """Items to be added: each one that an agent can be given, and every call with its output."""
        declared = [child.values() for child in body.children("items")]
        if len(declared) > MOST_ITEMS:
            raise too_long("items", f"at most {MOST_ITEMS} items", len(declared), "array")
        items = [await self._origins.referenced(TENANT, item, f"items[{n}]") for n, item in enumerate(declared)]
        for place, item in enumerate(items):
            self._origins.check_seal(TENANT, item, f"items[{place}]")
        turns = read_turns([opened(item) for item in items], "items")
        try:
            pair_calls(turns)
        except RequestError as error:
            raise RequestError(error.message, param="items", code=error.code) from error
        known = set(taken)
        return [_without_taken_id(item, known) for item in items]

    # -- writing -------------------------------------------------------------------------------------------

    async def _put(self, thread: Thread, items: list[dict[str, Any]]) -> list[dict[str, Any]]:
        """Add items to a conversation, as a run that nobody ran."""
        if not items:
            return []
        now, run_id = now_ms(), ids.new_run_id()
        added = [_with_status(item) for item in input_items(run_id, items)]
        keeping = Keeping(
            TENANT,
            thread_id=thread.id,
            wire=msgspec.json.encode(Record("none", added, thread.id)),
            expires_at=self._expires_at(now),
            protocol=PROTOCOL,
        )
        await self._engine.keeper.note(RunStarted(run_id=run_id, agent="", at=now, thread_id=thread.id), keeping)
        return added

    async def _write(self, thread: Thread, note: Note) -> Thread:
        metadata = msgspec.json.encode(note)
        await self._engine.keeper.store.update_thread(TENANT, thread.id, metadata)
        return msgspec.structs.replace(thread, metadata=metadata)

    def _expires_at(self, now: int) -> int | None:
        return now + self._kept_ms if self._kept_ms else None


def _conversation(thread: Thread) -> dict[str, Any]:
    return {
        "id": thread.id,
        "object": "conversation",
        "created_at": thread.created_at // 1000,
        "metadata": note_of(thread).metadata,
    }


def _without_taken_id(item: Mapping[str, Any], known: set[str]) -> dict[str, Any]:
    """An item keeps the id it came with, if that can be asked for and no other item has it."""
    item_id = item.get("id")
    if isinstance(item_id, str) and _ASKABLE.fullmatch(item_id) and item_id not in known:
        known.add(item_id)
        return dict(item)
    return {key: value for key, value in item.items() if key != "id"}


def _with_status(item: dict[str, Any]) -> dict[str, Any]:
    return {**item, "status": item.get("status") or "completed"} if item["type"] in _CALLS else item


def _json(body: dict[str, Any]) -> Response:
    return Response(framing.to_json(body), media_type="application/json")
