"""The commands of LangGraph's streaming protocol: what a client says on a thread.

What is no command at all is answered with 400; a command that cannot be done is answered like one that can.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, NamedTuple

import orjson
from starlette.requests import Request

from agent_server.errors import ConflictError, RequestError
from agent_server.http.identity import TENANT
from agent_server.protocols.langgraph.beginning import Beginning, Begun
from agent_server.protocols.langgraph.encoder_v2 import V2Encoder, seq_before
from agent_server.protocols.langgraph.results import Results
from agent_server.protocols.langgraph.run_body import RunBody, read_run
from agent_server.protocols.langgraph.shown import shown_run_id
from agent_server.protocols.langgraph.subscription import Subscription
from agent_server.runs.engine import Engine
from agent_server.runs.thread_log import Placed
from agent_server.runs.threads import Threads

RECORD = frozenset({"values", "updates", "tasks", "checkpoint_refs", "custom", "messages", "subgraphs", "errors"})
"""What the log of a run holds that these clients begin: they may ask for any channel at any time."""

_RENAMED = {"multitaskStrategy": "multitask_strategy", "interruptBefore": "interrupt_before",
            "interruptAfter": "interrupt_after", "forkFrom": "checkpoint_id"}  # fmt: skip
_NOT_SERVED = ("input.inject", "state.get", "state.listCheckpoints", "state.fork")

Answer = dict[str, Any]


class Command(NamedTuple):
    """One command. `params` is an object."""

    id: int
    method: str
    params: Mapping[str, Any]


def read_command(message: Any) -> Command:
    """A command as JSON has it. Raises `RequestError` for anything else."""
    given = message if isinstance(message, Mapping) else {}
    command_id, method, params = given.get("id"), given.get("method"), given.get("params")
    if not isinstance(command_id, int) or isinstance(command_id, bool) or not isinstance(method, str):
        raise RequestError("Protocol commands must include an integer id and string method.", code="invalid_argument")
    if params is not None and not isinstance(params, Mapping):
        raise RequestError("'params' must be an object.", param="params", code="invalid_argument")
    return Command(command_id, method, params or {})


def success(command_id: int, result: Mapping[str, Any], through: int) -> Answer:
    """A command was done; `through` is the last `seq` before what came of it."""
    return {"type": "success", "id": command_id, "result": result, "meta": {"applied_through_seq": through}}


def refusal(command_id: int | None, error: str, message: str) -> Answer:
    """A command was not done."""
    return {"type": "error", "id": command_id, "error": error, "message": message}


class Commands:
    """Does the commands of one app."""

    def __init__(self, beginning: Beginning, results: Results, threads: Threads, engine: Engine) -> None:
        self._beginning = beginning
        self._results = results
        self._threads = threads
        self._engine = engine

    async def do(self, request: Request, thread_id: str, command: Command) -> Answer:
        """The answer to one command. Raises `OverloadedError` and `StoreError` alone."""
        try:
            return await self._do(request, thread_id, command)
        except RequestError as error:
            known = "no_such_interrupt" if error.code == "interrupt_not_pending" else "invalid_argument"
            return refusal(command.id, known, error.message)

    async def _do(self, request: Request, thread_id: str, command: Command) -> Answer:
        match command.method:
            case "run.start":
                return await self._start(request, thread_id, command)
            case "input.respond":
                return await self._respond(request, thread_id, command)
            case "agent.getTree":
                return await self._tree(thread_id, command)
            case method if method in _NOT_SERVED or method.startswith("subscription."):
                return refusal(command.id, "not_supported", f"This server does not do {method} here.")
            case method:
                return refusal(command.id, "unknown_command", f"Unknown protocol command: {method[:100]}")

    # -- runs ----------------------------------------------------------------------------------------------

    async def _start(self, request: Request, thread_id: str, command: Command) -> Answer:
        """A run; its thread is made where it is not there yet."""
        begun = await self._begin(request, thread_id, _body({"if_not_exists": "create", **command.params}))
        return success(command.id, {"run_id": shown_run_id(begun.run_id)}, await self._before(begun))

    async def _respond(self, request: Request, thread_id: str, command: Command) -> Answer:
        """Answers to questions of the thread's last run, all in one run."""
        params = command.params
        entries = params.get("responses") if "responses" in params else [params]
        if not isinstance(entries, list) or not entries or not all(isinstance(each, Mapping) for each in entries):
            raise RequestError("'responses' must be a list of objects.", param="responses")
        answers = {str(each.get("interrupt_id")): each.get("response") for each in entries}
        waiting = {each.id for each in await self._threads.waiting(TENANT, thread_id)}
        if unknown := [each for each in answers if each not in waiting]:
            message = f"Unknown or already-consumed interrupt: {unknown[0][:100]}"
            return refusal(command.id, "no_such_interrupt", message)
        rows = await self._results.rows(thread_id)
        resume = {"resume": answers, **{key: params[key] for key in ("update", "goto") if key in params}}
        more = {key: params[key] for key in ("config", "metadata") if key in params}
        asked = {"assistant_id": self._results.record(rows[-1]).assistant_id, "command": resume, **more}
        try:
            begun = await self._begin(request, thread_id, _body(asked))
        except ConflictError as error:
            return refusal(command.id, "no_such_interrupt", error.message)
        return success(command.id, {}, await self._before(begun))

    async def _begin(self, request: Request, thread_id: str, body: RunBody) -> Begun:
        return await self._beginning.begin(request, body, thread_id, record=RECORD)

    async def _before(self, begun: Begun) -> int:
        """The last `seq` that was before the run, as far as that is certain: it may wait in line."""
        rows = await self._threads.rows(TENANT, begun.thread_id)
        places = [row.base for row in rows if row.id == begun.run_id and row.status != "queued"]
        return seq_before(places[0] if places else max((row.base + row.length for row in rows), default=0))

    # -- the agents of a run -------------------------------------------------------------------------------

    async def _tree(self, thread_id: str, command: Command) -> Answer:
        """The graph of the thread's last run, and the subgraphs that ran in it."""
        found = await self._threads.last(TENANT, thread_id)
        wanted = command.params.get("run_id")
        if isinstance(wanted, str):
            found = await self._threads.find(TENANT, wanted.replace("-", ""))
        if found is None or found.row.thread_id != thread_id:
            return refusal(command.id, "no_such_run", "There is no such run on this thread.")
        encoder = V2Encoder(Subscription(frozenset({"lifecycle"})))
        events = found.log.read(0)
        frames = [each for place, event in enumerate(events) for each in encoder.feed(Placed(place, event))]
        return success(command.id, {"tree": _grown(frames)}, seq_before(found.log.base + len(events)))


def _body(params: Mapping[str, Any]) -> RunBody:
    """The body of a run, from the names that these clients give its fields."""
    given = {_RENAMED.get(name, name): value for name, value in params.items()}
    config = given.get("config")
    if isinstance(config, Mapping) and isinstance(config.get("configurable"), Mapping):
        at = config["configurable"].get("checkpoint_id")  # where the client's "fork from" is to be found
        given = {"checkpoint_id": at, **given} if isinstance(at, str) else given
    return read_run(given)


def _grown(frames: list[Any]) -> dict[str, Any]:
    """A tree of what the lifecycle tells (AgentTreeNode)."""
    nodes: dict[tuple[str, ...], dict[str, Any]] = {}
    for frame in frames:
        params = orjson.loads(frame.data)["params"]
        ns, data = tuple(params["namespace"]), params["data"]
        if ns not in nodes:
            nodes[ns] = {"namespace": list(ns), "status": "", "graph_name": data["graph_name"], "children": []}
            if ns:
                nodes[ns[:-1]]["children"].append(nodes[ns])
        nodes[ns]["status"] = data["event"]
    return nodes.get((), {"namespace": [], "status": "started", "graph_name": "", "children": []})
