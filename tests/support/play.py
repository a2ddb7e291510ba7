"""Plays a scripted agent through the real path, from its request to its events and their bytes, without HTTP."""

from __future__ import annotations

import asyncio
import re
from collections.abc import Iterable, Mapping
from functools import partial
from typing import Any

from agent_server import events as ev
from agent_server.context import RequestContext
from agent_server.events import Event
from agent_server.framing import SSE, Frame, Framing
from agent_server.graph.agent import open_agent
from agent_server.graph.converter import Converter
from agent_server.graph.drive import Invocation, drive
from agent_server.graph.source import SourceName
from agent_server.protocols.responses.encoder import ResponsesEncoder, ToolItems
from agent_server.protocols.responses.request import parse_request
from agent_server.runs.execute import execute
from agent_server.runs.log import EventLog
from tests.support.gates import Gate

RUN_ID = "0123456789abcdef0123456789abcdef"
AT = 1_700_000_000_000
"""When everything happens, in Unix milliseconds."""


async def play(
    name: str,
    target: Any,
    request: Mapping[str, Any],
    *,
    source: SourceName = "tap",
    record: Iterable[str] = (),
    cancel_at: Gate | None = None,
) -> list[Event]:
    """The events of one run of an agent, served under `name`, that answers `request`.

    `record` names stream modes to record, as in `Invocation`. With `cancel_at` the run is cancelled once its agent
    waits at that gate.
    """
    asked = parse_request(request)
    async with open_agent(name, target) as agent:
        context = RequestContext(options=asked.options)
        invocation = Invocation(RUN_ID, agent, asked.turns, context, source, frozenset(record))
        started = ev.RunStarted(
            run_id=RUN_ID,
            agent=name,
            at=AT,
            model=asked.model or name,
            client_tools=tuple(str(tool["name"]) for tool in asked.options.tools),
            echo=asked.echo,
        )
        log = EventLog()
        log.append(started)
        run = asyncio.create_task(execute(partial(drive, invocation), fixed_converter(record), log))
        if cancel_at is not None:
            await cancel_at.reached()
            run.cancel("client disconnected")
        await run
    return log.read(0)


def fixed_converter(record: Iterable[str] = ()) -> Converter:
    """A converter whose run id and clock never change."""
    return Converter(RUN_ID, clock=lambda: AT, record=frozenset(record))


_CHANCE = re.compile(
    r"(?P<error>err_[0-9a-f]{16})"
    r"|(?P<uuid>[0-9a-f]{8}-[0-9a-f]{4}-[0-9a-f]{4}-[0-9a-f]{4}-[0-9a-f]{12})"
    r"|(?<![0-9a-f])(?P<hash>[0-9a-f]{32})(?![0-9a-f])"
)
_OWN = (RUN_ID, "01234567-89ab-cdef-0123-456789abcdef")


class Settled:
    """Replaces ids that chance made by their order of appearance; the same id gets the same number again."""

    def __init__(self) -> None:
        self._numbers: dict[str, str] = {}

    def text(self, text: str) -> str:
        """The text with its ids settled: the same length, so that what is cut to a length stays as it was."""
        return _CHANCE.sub(self._settle, text)

    def _settle(self, found: re.Match[str]) -> str:
        value, kind = found[0], str(found.lastgroup)
        if value in _OWN:
            return value
        if value not in self._numbers:
            number = len(self._numbers) + 1
            forms = {
                "error": f"err_{number:016x}",
                "uuid": f"00000000-0000-0000-0000-{number:012x}",
                "hash": f"{number:032x}",
            }
            self._numbers[value] = forms[kind]
        return self._numbers[value]

    def events(self, events: Iterable[Event]) -> list[Event]:
        """The events with their ids settled."""
        return [ev.decode(self.text(ev.encode(event).decode()).encode()) for event in events]


def frames(events: Iterable[Event], style: ToolItems = "function_call") -> list[Frame]:
    """The events folded into the frames of a Responses stream."""
    encoder = ResponsesEncoder(style)
    return [frame for event in events for frame in encoder.feed(event)]


def sse(events: Iterable[Event], style: ToolItems = "function_call", framing: Framing = SSE) -> bytes:
    """The events folded into the bytes of a Responses stream, to its very end."""
    return b"".join(map(framing.write, frames(events, style))) + framing.end
