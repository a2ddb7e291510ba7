"""The benchmark counts nothing that is not whole: each broken answer here is refused by name."""

from __future__ import annotations

import pytest

from tests.benchmarks.catalogue import PEERS, Wire
from tests.benchmarks.client import IncompleteAnswer, check
from tests.benchmarks.fake_agent import TOKEN

OURS = PEERS["ours"].wire
BARE = PEERS["bare"].wire


def frame(kind: str, text: str = "") -> bytes:
    return f'event: {kind}\ndata: {{"type":"{kind}","delta":"{text}"}}\n\n'.encode()


CREATED = frame("response.created")
DELTA = frame("response.output_text.delta", TOKEN)
MERGED = frame("response.output_text.delta", TOKEN * 2)
COMPLETED = frame("response.completed", TOKEN * 3)
DONE = b"data: [DONE]\n\n"


@pytest.mark.parametrize(
    ("body", "frames"),
    [(CREATED + DELTA * 3 + COMPLETED + DONE, 3), (CREATED + DELTA + MERGED + COMPLETED + DONE, 2)],
)
def test_tokens_are_counted_by_text_however_they_are_framed(body: bytes, frames: int) -> None:
    assert check(200, body, _wire(OURS), expected=3) == (3, frames)


@pytest.mark.parametrize(
    ("status", "body", "reason"),
    [
        (500, b"oops", "answered 500"),
        (200, CREATED + DELTA * 3 + COMPLETED, "did not end its stream"),
        (200, CREATED + DELTA * 2 + COMPLETED + DONE, "sent 2 of 3 tokens"),
        (200, CREATED + DELTA * 4 + COMPLETED + DONE, "sent 4 of 3 tokens"),
        (200, CREATED + DELTA * 3 + DONE, r"sent \[\] tokens in"),
        (200, CREATED + DELTA * 3 + COMPLETED * 2 + DONE, r"sent \[3, 3\] tokens in"),
        (200, CREATED + DELTA * 3 + frame("response.completed", TOKEN) + DONE, r"sent \[1\] tokens in"),
        (200, CREATED + DELTA * 3 + frame("response.failed") + DONE, "response.failed"),
        (200, CREATED + DELTA * 3 + frame("error") + COMPLETED + DONE, "error"),
        (200, DELTA * 3 + COMPLETED + DONE, "did not begin with"),
    ],
)
def test_an_answer_that_is_not_whole_is_refused(status: int, body: bytes, reason: str) -> None:
    with pytest.raises(IncompleteAnswer, match=reason):
        check(status, body, _wire(OURS), expected=3)


def test_the_bare_line_without_its_last_token_is_refused() -> None:
    line = f'data: {{"delta":"{TOKEN}"}}\n\n'.encode()
    assert check(200, line * 3 + DONE, _wire(BARE), expected=3) == (3, 3)
    with pytest.raises(IncompleteAnswer, match="sent 2 of 3 tokens"):
        check(200, line * 2 + DONE, _wire(BARE), expected=3)


def _wire(wire: Wire | None) -> Wire:
    assert wire is not None
    return wire
