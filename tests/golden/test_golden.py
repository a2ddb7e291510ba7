"""Every named conversation, byte for byte, as events and in every dialect. `--update-golden` writes them anew."""

from __future__ import annotations

import pytest

from tests.golden.conversations import CONVERSATIONS, FOLDER, events_of, files_of, rendered


@pytest.mark.parametrize("name", CONVERSATIONS)
async def test_a_conversation_is_told_as_it_is_written_down(name: str, update_golden: bool) -> None:
    for path, told in rendered(name, await events_of(name)).items():
        if update_golden:
            path.parent.mkdir(exist_ok=True)
            path.write_bytes(told)
            continue
        assert path.exists(), f"{path.relative_to(FOLDER)} is not written down yet: run with --update-golden"
        written = path.read_bytes()
        assert told.splitlines() == written.splitlines(), path.relative_to(FOLDER)
        assert told == written, path.relative_to(FOLDER)


def test_no_golden_file_is_left_of_a_conversation_that_is_gone(update_golden: bool) -> None:
    wanted = {path for name in CONVERSATIONS for path in files_of(name)}
    for path in {path for kind in ("*.sse", "*.jsonl") for path in FOLDER.rglob(kind)} - wanted:
        if update_golden:
            path.unlink()
        else:
            pytest.fail(f"{path.relative_to(FOLDER)} belongs to no conversation: run with --update-golden")
