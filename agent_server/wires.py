"""What `/ws` speaks: the protocols' own requests and encoders, as wires."""

from __future__ import annotations

from collections.abc import Awaitable, Callable
from functools import partial
from typing import Any

from msgspec import Struct

from agent_server import framing
from agent_server.errors import AgentServerError, RequestError
from agent_server.events import Event
from agent_server.framing import Frame
from agent_server.http.identity import TENANT
from agent_server.http.typed import typed
from agent_server.http.wire import Caller, Command, Live, Message, Wire
from agent_server.protocols.agui.runs import AguiRuns, encoder_of, wire_of
from agent_server.protocols.agui.runs import Caller as AguiCaller
from agent_server.protocols.aisdk.chats import Chats
from agent_server.protocols.aisdk.socket import AiSdkWire
from agent_server.protocols.responses.asked import Agents, Dialect, Said
from agent_server.protocols.responses.creation import Creation
from agent_server.protocols.responses.encoder import ResponsesEncoder
from agent_server.protocols.responses.kept import Archive
from agent_server.protocols.responses.lanes import error_event
from agent_server.protocols.websocket.envelope import read_command
from agent_server.protocols.websocket.langchain import LangChainWire, found_by
from agent_server.runs.engine import Engine
from agent_server.runs.threads import Threads
from agent_server.settings import Settings


def wires_of(
    agents: Agents,
    threads: Threads,
    engine: Engine,
    settings: Settings,
    creation: Creation,
    chats: Chats,
    agui: AguiRuns,
) -> dict[str, Wire]:
    """Subprotocol -> its wire."""
    return {
        "agui.v1": AguiWire(agui, threads),
        "ai-sdk.v1": AiSdkWire(chats),
        "langchain.v2": LangChainWire(agents, threads, settings),
        "responses.v1": ResponsesWire(creation, engine, settings),
    }


class ResponsesWire:
    """`responses.v1`: a `run` frame is the body of `POST /v1/responses`; each frame is one event of its stream.

    The last is `response.completed`, `response.incomplete` or `response.failed`; before there is a response, `error`.
    `runId` of a `resume` frame is the response's id.
    """

    beats = True

    def __init__(self, creation: Creation, engine: Engine, settings: Settings) -> None:
        self._creation = creation
        self._engine = engine
        self._archive = Archive(engine)
        self._dialect = Dialect("/v1/responses", framing.SSE, settings.tool_items_v1, keeps=True)

    def read(self, message: Message) -> Command:
        """The common envelope."""
        return read_command(message)

    async def begin(self, command: Command, caller: Caller) -> Live:
        """A new response. Raises `RequestError`."""
        body = {key: value for key, value in command.body.items() if key not in _ENVELOPE}
        asked = await self._creation.understand(Said(body, {}, caller.identity, caller.request_id), self._dialect)
        begun = await self._creation.begin(asked)
        cancel = partial(self._cancel, begun.run_id, None if asked.keeps else begun.left)
        thread = asked.origin.conversation or begun.run_id
        return Live(begun.run_id, thread, begun.log, ResponsesEncoder(begun.tool_items), cancel, begun.left)

    async def _cancel(self, run_id: str, unstored: Callable[[], Awaitable[object]] | None, reason: str) -> None:
        """Stop a run; the store knows nothing of one that is not stored."""
        if unstored is None:
            await self._engine.cancel_run(TENANT, run_id, reason)
        else:
            await unstored()

    async def find(self, command: Command, caller: Caller) -> Live | None:
        """A response that is stored. Raises `NotFoundError`."""
        wanted = command.body.get("runId")
        if not isinstance(wanted, str):
            raise RequestError("Missing required parameter: 'runId'.", param="runId")
        kept = await self._archive.response(TENANT, wanted)
        cancel = partial(self._engine.cancel_run, TENANT, kept.row.id)
        encoder = ResponsesEncoder(kept.record.tool_items)
        return Live(kept.row.id, kept.row.thread_id, kept.log, encoder, cancel)

    def opening(self, command: Command, live: Live | None) -> Message | None:
        """Nothing: `response.created` is the first."""
        return None

    def frame(self, request_id: str, sequence: int, frame: Frame) -> Message | None:
        """The event, with the request's id and the frame's number beside its own."""
        if frame.event == "error":  # on this wire the end of what never became a response
            return None
        return {**frame.data, "requestId": request_id, "sequence": sequence}

    def closing(self, request_id: str, sequence: int, end: Event) -> Message | None:
        """Nothing: the response's own last event was the end."""
        return None

    def failed(self, request_id: str, error: AgentServerError) -> Message:
        """`error`, as on `/v1/responses`."""
        return {**error_event(error), "requestId": request_id}


class AguiWire:
    """`agui.v1`: each frame is one AG-UI event, with `requestId` and `sequence` in its `metadata` (AG-UI 1.0).

    A `run` frame has a RunAgentInput as `input`, and may name an `agent`; `raw` asks for LangChain's own events, too.
    """

    beats = False  # its client warns of whatever is no event

    def __init__(self, runs: AguiRuns, threads: Threads) -> None:
        self._runs = runs
        self._threads = threads

    def read(self, message: Message) -> Command:
        """The common envelope."""
        return read_command(message)

    async def begin(self, command: Command, caller: Caller) -> Live:
        """A new run of the thread. Raises `RequestError`."""
        asked = typed(command.body, _AguiRun)
        who = AguiCaller(caller.identity, caller.request_id, raw=asked.raw)
        begun = await self._runs.begin(asked.input, asked.agent, who)
        cancel = partial(self._threads.cancel, TENANT, begun.run_id)
        return Live(begun.run_id, begun.thread_id, begun.log, begun.encoder, cancel)

    async def find(self, command: Command, caller: Caller) -> Live | None:
        """The run of that id, or the last of that thread. Raises `RequestError`."""
        resume = typed(command.body, _AguiResume)
        found = await found_by(self._threads, resume.run_id, resume.thread_id)
        if found is None:
            return None
        run_id, thread_id = found.row.id, found.row.thread_id
        encoder = encoder_of(thread_id, wire_of(found))
        return Live(run_id, thread_id, found.log, encoder, partial(self._threads.cancel, TENANT, run_id))

    def opening(self, command: Command, live: Live | None) -> Message | None:
        """Nothing: `RUN_STARTED` is the first."""
        return None

    def frame(self, request_id: str, sequence: int, frame: Frame) -> Message | None:
        """The event."""
        metadata = {**frame.data.get("metadata", {}), "requestId": request_id, "sequence": sequence}
        return {**frame.data, "metadata": metadata}

    def closing(self, request_id: str, sequence: int, end: Event) -> Message | None:
        """Nothing: `RUN_FINISHED` or `RUN_ERROR` was the end."""
        return None

    def failed(self, request_id: str, error: AgentServerError) -> Message:
        """`RUN_ERROR`, which may come first."""
        told = {"type": "RUN_ERROR", "message": error.message, "code": error.code}
        return {**told, "metadata": {"requestId": request_id, "status": error.status, "param": error.param}}


class _AguiRun(Struct, frozen=True):
    input: dict[str, Any]
    agent: str | None = None
    raw: bool = False


class _AguiResume(Struct, frozen=True, rename="camel"):
    run_id: str | None = None
    thread_id: str | None = None


_ENVELOPE = frozenset({"type", "requestId", "lastSequence", "timeout", "stream", "background"})
