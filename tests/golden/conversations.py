"""The conversations that have golden files, and what of each is written down."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from langchain.agents import create_agent
from langchain_core.tools import tool

from agent_server import events as ev
from agent_server.events import Event
from agent_server.framing import DATA_ONLY
from agent_server.protocols.responses.encoder import TOOL_ITEMS
from agent_server.protocols.turns.encoder import NDJSON
from tests.conformance.expected import QUESTION, REQUESTS
from tests.support import aisdk, turns
from tests.support.gates import Gate
from tests.support.play import Settled, play, sse
from tests.support.scripted import SCENARIOS, ScriptedChatModel, chunks, gated_text

FOLDER = Path(__file__).parent

INVOCATIONS = (
    "plain_text",
    "unicode_split",
    "text_tool_text",
    "two_parallel_tools",
    "image_out",
    "approval",
    "length_limit",
    "tool_error_fatal",
    "model_error_after_first_token",
)
"""The scenarios that are written down in the framing of `/invocations` too."""

AI_SDK_5 = ("approval", "two_approvals", "tool_interrupt")
"""The scenarios that `ai` 5 is told of in other words."""


@dataclass(frozen=True)
class Conversation:
    """What is asked of which agent.

    `record` names the stream modes to record; `cancel_at` is the gate at which the run is cancelled.
    """

    target: Any
    request: Mapping[str, Any] = field(default_factory=dict)
    record: tuple[str, ...] = ()
    cancel_at: Gate | None = None


def _cancelled_mid_text() -> Conversation:
    gate = Gate()
    return Conversation(gated_text(["Partial ", "answer"], gate, [" never said"]), cancel_at=gate)


def _cancelled_mid_arguments() -> Conversation:
    gate = Gate()
    head, *pieces = chunks.call("get_weather", '{"city": "Os', 'lo"}', id="call_oslo")
    model = ScriptedChatModel(turns=[[head, pieces[0], gate, *pieces[1:], *chunks.finish("tool_calls")]])
    return Conversation(create_agent(model, tools=[]), cancel_at=gate)


def _cancelled_mid_tool() -> Conversation:
    gate = Gate()

    @tool
    async def slow_weather(city: str) -> str:
        """The weather in a city, some day."""
        await gate.passed()
        return f"It was sunny in {city}."

    call = chunks.call("slow_weather", '{"city": ', '"Oslo"}', id="call_oslo")
    model = ScriptedChatModel(turns=[[*chunks.text("Let me look. "), *call, *chunks.finish("tool_calls")]])
    return Conversation(create_agent(model, tools=[slow_weather]), cancel_at=gate)


def _scenario(name: str) -> Callable[[], Conversation]:
    record = ("custom",) if name == "custom_events" else ()
    return lambda: Conversation(SCENARIOS[name], REQUESTS.get(name, {}), record)


CONVERSATIONS: dict[str, Callable[[], Conversation]] = {
    **{name: _scenario(name) for name in SCENARIOS},
    "cancelled_mid_text": _cancelled_mid_text,
    "cancelled_mid_arguments": _cancelled_mid_arguments,
    "cancelled_mid_tool": _cancelled_mid_tool,
}


async def events_of(name: str) -> list[Event]:
    """The events of a conversation, with every id settled."""
    told = CONVERSATIONS[name]()
    request = {"input": QUESTION, **told.request}
    return Settled().events(await play(name, told.target, request, record=told.record, cancel_at=told.cancel_at))


def files_of(name: str) -> list[Path]:
    """The golden files of a conversation."""
    return [path for path, _ in _rendered(name, [])]


def rendered(name: str, events: list[Event]) -> dict[Path, bytes]:
    """What the golden files of a conversation must hold."""
    return {path: render() for path, render in _rendered(name, events)}


def _rendered(name: str, events: list[Event]) -> Iterator[tuple[Path, Callable[[], bytes]]]:
    yield FOLDER / "events" / f"{name}.jsonl", lambda: b"".join(ev.encode(event) + b"\n" for event in events)
    for style in TOOL_ITEMS:
        yield FOLDER / "responses" / f"{name}.{style}.sse", lambda style=style: sse(events, style)  # type: ignore[misc]
    yield FOLDER / "aisdk" / f"{name}.sse", lambda: aisdk.sse(events)
    if name in AI_SDK_5:
        yield FOLDER / "aisdk" / f"{name}.5.sse", lambda: aisdk.sse(events, 5)
    yield FOLDER / "turns" / f"{name}.sse", lambda: turns.told(events)
    if name in INVOCATIONS:
        yield FOLDER / "turns" / f"{name}.jsonl", lambda: turns.told(events, NDJSON)
        yield FOLDER / "turns" / f"{name}.answer.jsonl", lambda: turns.answer(events)
        yield FOLDER / "invocations" / f"{name}.sse", lambda: sse(events, framing=DATA_ONLY)
