"""Some conversations as `langchain.v2`, one message a line. `--update-golden` writes them anew.

LangChain's events are its own and differ from version to version: written down is what clients build on, and the
envelope around it.
"""

from __future__ import annotations

from pathlib import Path
from typing import Any

import orjson
import pytest

from agent_server.framing import to_json
from agent_server.protocols.websocket.envelope import Envelope
from agent_server.protocols.websocket.langchain import LangChainEncoder
from agent_server.settings import Settings
from tests.conformance.expected import QUESTION
from tests.golden.conversations import CONVERSATIONS, FOLDER
from tests.support.play import Settled, play

HERE = FOLDER / "langchain_v2"
NAMES = (
    "plain_text",
    "unicode_split",
    "text_tool_text",
    "interleaved_arguments",
    "two_nodes_streaming_at_once",
    "reasoning_anthropic",
    "usage_details",
    "tool_error_handled",
    "tool_error_fatal",
    "approval",
    "free_interrupt",
    "length_limit",
    "model_error_after_first_token",
    "cancelled_mid_text",
    "plain_runnable",
)
_OF_A_MESSAGE = ("type", "content", "tool_call_chunks", "tool_calls", "tool_call_id", "status", "usage_metadata")


def file_of(name: str) -> Path:
    return HERE / f"{name}.ndjson"


@pytest.mark.parametrize("name", NAMES)
async def test_a_conversation_is_told_in_langchains_events_as_it_is_written_down(
    name: str, update_golden: bool
) -> None:
    told = CONVERSATIONS[name]()
    request = {"input": QUESTION, **told.request}
    recorded = {"source": "astream_events", "record": ("events",)}
    played = await play(name, told.target, request, cancel_at=told.cancel_at, **recorded)  # type: ignore[arg-type]
    events = Settled().events(played)
    encoder, envelope = LangChainEncoder(Settings().socket_events), Envelope()
    frames = [frame for event in events for frame in encoder.feed(event)]
    messages = [envelope.frame("1", sequence, frame) for sequence, frame in enumerate(frames)]
    messages.append(envelope.closing("1", len(frames), events[-1]))
    lines = b"".join(to_json(_stable(orjson.loads(to_json(message)))) + b"\n" for message in messages)
    if update_golden:
        HERE.mkdir(exist_ok=True)
        file_of(name).write_bytes(lines)
    assert lines.splitlines() == file_of(name).read_bytes().splitlines()


def test_no_file_is_left_of_a_conversation_that_is_gone() -> None:
    assert {path.name for path in HERE.iterdir()} == {file_of(name).name for name in NAMES}


def _stable(message: dict[str, Any]) -> dict[str, Any]:
    """A message without what is LangChain's own affair: ids of its runs, metadata, what it repeats of the input."""
    if message["type"] != "event":
        return message
    event = message["event"]
    data = {key: _message(value) for key, value in event["data"].items() if key in ("chunk", "output", "input")}
    if event["event"] != "on_tool_start":
        data.pop("input", None)
    node = event["metadata"].get("langgraph_node")
    return {**message, "event": {"event": event["event"], "name": event["name"], "node": node, "data": data}}


def _message(value: Any) -> Any:
    if not isinstance(value, dict) or "content" not in value:
        return value
    return {key: value[key] for key in _OF_A_MESSAGE if value.get(key) not in (None, [])}
