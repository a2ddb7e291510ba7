"""The UI message streams that are written down keep the rules of each version of the AI SDK."""

from __future__ import annotations

import pytest

from agent_server import events as ev
from tests.golden.conversations import AI_SDK_5, CONVERSATIONS, FOLDER
from tests.support.aisdk import VERSIONS, check_chunks, frames, read, sse


@pytest.mark.parametrize("name", CONVERSATIONS)
def test_a_written_stream_keeps_the_rules_of_every_version(name: str) -> None:
    events = [ev.decode(line) for line in (FOLDER / "events" / f"{name}.jsonl").read_bytes().splitlines()]
    for version in VERSIONS:
        check_chunks([frame.data for frame in frames(events, version)], version)
    written = (FOLDER / "aisdk" / f"{name}.sse").read_bytes()
    assert sse(events, 6) == sse(events, 7) == written
    assert (sse(events, 5) == written) == (name not in AI_SDK_5)
    check_chunks(read(written))
