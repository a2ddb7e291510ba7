"""Every named conversation as AG-UI, one event a line. `--update-golden` writes them anew."""

from __future__ import annotations

from pathlib import Path

import orjson
import pytest

from agent_server.framing import ndjson
from agent_server.protocols.agui.encoder import AguiEncoder
from agent_server.protocols.agui.messages import Seen
from tests.conformance.expected import QUESTION
from tests.golden.conversations import CONVERSATIONS, FOLDER
from tests.support.agui import Client, in_order
from tests.support.play import RUN_ID, Settled, play

RECORD = ("values", "custom")
HERE = FOLDER / "agui"


def file_of(name: str) -> Path:
    return HERE / f"{name}.ndjson"


@pytest.mark.parametrize("name", CONVERSATIONS)
async def test_a_conversation_is_told_in_ag_ui_as_it_is_written_down(name: str, update_golden: bool) -> None:
    told = CONVERSATIONS[name]()
    request = {"input": QUESTION, **told.request}
    played = await play(name, told.target, request, record=RECORD, cancel_at=told.cancel_at)
    encoder = AguiEncoder("thread-1", "run-1", seen=Seen(ids=(f"input-{RUN_ID}-0",)))
    lines = b"".join(ndjson(frame) for event in Settled().events(played) for frame in encoder.feed(event))
    client = Client([{"id": f"input-{RUN_ID}-0", "role": "user", "content": QUESTION}]).read(
        map(orjson.loads, lines.splitlines())
    )
    assert client.end is not None
    in_order(client.messages)
    if update_golden:
        HERE.mkdir(exist_ok=True)
        file_of(name).write_bytes(lines)
    written = file_of(name).read_bytes()
    assert lines.splitlines() == written.splitlines()
    assert lines == written


def test_no_ag_ui_file_is_left_of_a_conversation_that_is_gone() -> None:
    assert {path.name for path in HERE.iterdir()} == {file_of(name).name for name in CONVERSATIONS}
