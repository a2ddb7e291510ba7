"""Assistants: configured agents, each with its versions. Every agent has a default one, whose id derives from its name.

A default assistant is written down only when somebody changes it.
"""

from __future__ import annotations

import asyncio
from collections.abc import Mapping
from typing import Any, Protocol
from uuid import UUID, uuid4, uuid5

import msgspec

from agent_server.errors import ConflictError
from agent_server.graph.agent import Agent
from agent_server.graph.converter import now_ms
from agent_server.http.identity import TENANT
from agent_server.protocols.langgraph.reading import Body, Page, contains, uuid_of
from agent_server.protocols.langgraph.refusals import UnprocessableError, no_assistant
from agent_server.protocols.langgraph.shown import iso
from agent_server.runs.engine import Engine
from agent_server.runs.stores.port import Document

NAMESPACE = UUID("6ba7b821-9dad-11d1-80b4-00c04fd430c8")
"""The namespace in which LangGraph's servers make the ids of default assistants."""

KIND = "langgraph.assistant"
VERSIONS = "langgraph.assistant-version"
SORTS = ("created_at", "updated_at", "name", "graph_id", "assistant_id")
FIELDS = ("graph_id", "config", "context", "metadata", "name", "description")


class Agents(Protocol):
    """The agents that are served, by name."""

    async def opened(self) -> Mapping[str, Agent]:
        """All of them, opened. The first is the default."""
        ...


class Assistant(msgspec.Struct, frozen=True):
    """An agent, and what its runs are given where their requests say nothing. Times are Unix milliseconds."""

    assistant_id: str
    graph_id: str
    name: str
    created_at: int
    updated_at: int
    config: dict[str, Any] = {}
    context: dict[str, Any] = {}
    metadata: dict[str, Any] = {}
    version: int = 1
    description: str | None = None

    def shown(self) -> dict[str, Any]:
        """As the API shows it."""
        times = {"created_at": iso(self.created_at), "updated_at": iso(self.updated_at)}
        return {**msgspec.structs.asdict(self), **times}

    def shown_version(self) -> dict[str, Any]:
        """As a version of itself: when it was made is when the assistant became so."""
        return {key: value for key, value in self.shown().items() if key != "updated_at"} | {
            "created_at": iso(self.updated_at)
        }


_assistant: msgspec.json.Decoder[Assistant] = msgspec.json.Decoder(Assistant)


def default_id(agent_name: str) -> str:
    """The id of an agent's default assistant."""
    return str(uuid5(NAMESPACE, agent_name))


class Assistants:
    """The assistants of one app."""

    def __init__(self, agents: Agents, engine: Engine) -> None:
        self._agents = agents
        self._engine = engine
        self._began = now_ms()
        self._writing = asyncio.Lock()

    async def agents(self) -> Mapping[str, Agent]:
        """The agents, by name."""
        return await self._agents.opened()

    async def agent(self, assistant: Assistant) -> Agent:
        """The agent of an assistant. Raises `NotFoundError` for one that is not served any more."""
        agent = (await self.agents()).get(assistant.graph_id)
        if agent is None:
            raise no_assistant(assistant.assistant_id)
        return agent

    async def chosen(self, name: str) -> Assistant:
        """The assistant that a run's body names, by its id or by its graph's name. Raises 422 and 404."""
        agents = await self.agents()
        if name in agents:
            return await self.get(default_id(name))
        try:
            assistant_id = str(UUID(name))
        except ValueError:
            raise UnprocessableError(
                f"Invalid assistant: '{name[:100]}'. Must be either:\n- A valid assistant UUID, or\n"
                f"- One of the registered graphs: {', '.join(agents)}",
                param="assistant_id",
            ) from None
        return await self.get(assistant_id)

    async def get(self, assistant_id: str) -> Assistant:
        """An assistant by its id. Raises `NotFoundError`."""
        found = await self._find(assistant_id)
        if found is None:
            raise no_assistant(assistant_id)
        return found

    async def _find(self, assistant_id: str) -> Assistant | None:
        await self._engine.open()
        kept = await self._engine.keeper.store.document(TENANT, KIND, assistant_id)
        if kept is not None:
            return _assistant.decode(kept.value)
        return next((each for each in await self._defaults() if each.assistant_id == assistant_id), None)

    async def _defaults(self) -> list[Assistant]:
        made = {"created_by": "system"}
        return [
            Assistant(default_id(name), name, name, self._began, self._began, metadata=made)
            for name in await self.agents()
        ]

    async def all(self) -> list[Assistant]:
        """Every assistant, the defaults first."""
        await self._engine.open()
        kept = [_assistant.decode(each.value) for each in await self._engine.keeper.store.documents(TENANT, KIND)]
        changed = {each.assistant_id for each in kept}
        return [*(each for each in await self._defaults() if each.assistant_id not in changed), *kept]

    async def found(self, body: Body) -> list[Assistant]:
        """Those that a search asks for."""
        metadata, graph_id, name = body.mapping("metadata"), body.text("graph_id"), body.text("name")
        return [
            each
            for each in await self.all()
            if contains(each.metadata, metadata)
            and (graph_id is None or each.graph_id == graph_id)
            and (name is None or name.lower() in each.name.lower())
        ]

    def sorted(self, found: list[Assistant], page: Page) -> list[Assistant]:
        """In the order that a page asks for."""
        key = page.sort_by
        return sorted(found, key=lambda each: (getattr(each, key), each.assistant_id), reverse=page.descending)

    # -- changing ------------------------------------------------------------------------------------------

    async def create(self, body: Body) -> Assistant:
        """A new one. Raises `ConflictError` for an id that is taken, unless that is to be left as it is."""
        body.only(*FIELDS, "assistant_id", "if_exists")
        if_exists = body.choice("if_exists", ("raise", "do_nothing"), "raise")
        given = body.text("assistant_id")
        assistant_id = str(uuid4()) if given is None else uuid_of(given, "assistant")
        graph_id = await self._graph(body.required("graph_id"))
        now = now_ms()
        made = Assistant(
            assistant_id,
            graph_id,
            body.text("name") or "Untitled",
            now,
            now,
            body.mapping("config"),
            body.mapping("context"),
            body.mapping("metadata"),
            description=body.text("description"),
        )
        async with self._writing:
            known = await self._find(assistant_id)
            if known is None and await self._add(made):
                return made
        if if_exists == "raise":
            raise ConflictError(f"Assistant {assistant_id} already exists")
        return known or await self.get(assistant_id)

    async def _graph(self, name: str) -> str:
        agents = await self.agents()
        if name not in agents:
            message = f"Invalid graph: '{name[:100]}'. Must be one of: {', '.join(agents)}"
            raise UnprocessableError(message, param="graph_id")
        return name

    async def update(self, assistant_id: str, body: Body) -> Assistant:
        """A new version of one: what is given takes the place of what was, metadata are merged."""
        body.only(*FIELDS)
        changes: dict[str, Any] = {name: body.mapping(name) for name in ("config", "context") if name in body}
        changes |= {name: body.text(name) for name in ("name", "description") if name in body}
        if "graph_id" in body:
            changes["graph_id"] = await self._graph(body.required("graph_id"))
        async with self._writing:
            while True:
                known = await self.get(assistant_id)
                versions = await self.versions(known)
                if "metadata" in body:
                    changes["metadata"] = {**known.metadata, **body.mapping("metadata")}
                version = max(each.version for each in versions) + 1
                changed = msgspec.structs.replace(known, **changes, version=version, updated_at=now_ms())
                if await self._add_version(changed):  # else another process made one of this number
                    await self._put(changed)
                    return changed

    async def versions(self, assistant: Assistant) -> list[Assistant]:
        """All versions of one, the newest first."""
        kept = await self._engine.keeper.store.documents(TENANT, VERSIONS, f"{assistant.assistant_id}/")
        found = sorted((_assistant.decode(each.value) for each in kept), key=lambda each: -each.version)
        if found and found[-1].version == 1:
            return found
        first = next(
            (each for each in await self._defaults() if each.assistant_id == assistant.assistant_id), assistant
        )
        return [*found, first]  # a default one, whose first version nobody wrote down

    async def set_latest(self, assistant_id: str, version: int) -> Assistant:
        """Make an older version the one that runs get. Raises `NotFoundError`."""
        async with self._writing:
            known = await self.get(assistant_id)
            chosen = next((each for each in await self.versions(known) if each.version == version), None)
            if chosen is None:
                raise no_assistant(assistant_id)
            latest = msgspec.structs.replace(chosen, created_at=known.created_at, updated_at=now_ms())
            await self._put(latest)
            return latest

    async def delete(self, assistant_id: str) -> None:
        """Delete one with its versions. Raises `ConflictError` for an agent's default one: runs name it."""
        if assistant_id in {each.assistant_id for each in await self._defaults()}:
            raise ConflictError("The default assistant of a graph cannot be deleted.")
        await self.get(assistant_id)
        store = self._engine.keeper.store
        for each in await store.documents(TENANT, VERSIONS, f"{assistant_id}/"):
            await store.delete_document(TENANT, VERSIONS, each.id)
        await store.delete_document(TENANT, KIND, assistant_id)

    async def _add(self, made: Assistant) -> bool:
        is_new = await self._engine.keeper.store.put_document(TENANT, _document(KIND, made), replace=False)
        return is_new and await self._add_version(made)

    async def _add_version(self, made: Assistant) -> bool:
        document = _document(VERSIONS, made, f"{made.assistant_id}/{made.version:08}")
        return await self._engine.keeper.store.put_document(TENANT, document, replace=False)

    async def _put(self, made: Assistant) -> None:
        await self._engine.keeper.store.put_document(TENANT, _document(KIND, made))


def _document(kind: str, assistant: Assistant, name: str = "") -> Document:
    return Document(kind, name or assistant.assistant_id, msgspec.json.encode(assistant))
