"""Every named conversation as both generations of LangGraph's clients are told it. `--update-golden` writes anew."""

from __future__ import annotations

from pathlib import Path

import pytest

from agent_server.events import Event
from agent_server.protocols.langgraph.run_body import STREAM_MODES
from tests.golden.conversations import CONVERSATIONS, FOLDER
from tests.support.langgraph import MODES, RECORD, played, text, v1, v2

EACH_MODE = ("one_tool", "free_interrupt", "subgraph")
"""The conversations that are written down in every stream mode by itself."""

V1, V2 = FOLDER / "langgraph_v1", FOLDER / "langgraph_v2"


def rendered(name: str, events: list[Event]) -> dict[Path, bytes]:
    """What the golden files of a conversation must hold."""
    return {V1 / f"{name}.frames": text(v1(events, MODES)), V2 / f"{name}.frames": text(v2(events))}


def alone(name: str, mode: str, events: list[Event]) -> dict[Path, bytes]:
    """The same for one mode alone."""
    return {V1 / f"{name}.{mode}.frames": text(v1(events, [mode]))}


def compare(files: dict[Path, bytes], update: bool) -> None:
    for path, told in files.items():
        if update:
            path.parent.mkdir(exist_ok=True)
            path.write_bytes(told)
        written = path.read_bytes()
        assert told.splitlines() == written.splitlines(), path.relative_to(FOLDER)
        assert told == written, path.relative_to(FOLDER)


@pytest.mark.parametrize("name", CONVERSATIONS)
async def test_a_conversation_is_told_to_langgraphs_clients_as_it_is_written_down(
    name: str, update_golden: bool
) -> None:
    compare(rendered(name, await played(name)), update_golden)


@pytest.mark.parametrize("mode", STREAM_MODES)
@pytest.mark.parametrize("name", EACH_MODE)
async def test_each_stream_mode_is_told_by_itself(name: str, mode: str, update_golden: bool) -> None:
    record = {*RECORD, mode} - {"checkpoint_refs"} | ({"checkpoints"} if mode == "checkpoints" else set())
    compare(alone(name, mode, await played(name, record)), update_golden)


def test_no_langgraph_file_is_left_of_a_conversation_that_is_gone() -> None:
    wanted = {path for name in CONVERSATIONS for path in rendered(name, [])}
    wanted |= {path for name in EACH_MODE for mode in STREAM_MODES for path in alone(name, mode, [])}
    assert {*V1.iterdir(), *V2.iterdir()} == wanted
