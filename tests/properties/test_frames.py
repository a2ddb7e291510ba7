"""Every text survives its framing, in one line, through a strict reader and through ones that split lines anywhere."""

from __future__ import annotations

from typing import Any

import orjson
from hypothesis import given
from hypothesis import strategies as st

from agent_server.framing import DATA_ONLY, DONE, SSE, Frame, Framing, ndjson
from tests.support.sse import Answer, Dialect, read_events, strict_json

tricky = st.sampled_from(
    ["\r", "\n", "\r\n", "\0", "\u2028", "\u2029", "\x85", "\x0b", "\x0c", "\x1c", "\ufeff", "data: "]
)
texts = st.lists(tricky | st.text(st.characters(exclude_categories=["Cs"]), max_size=10), max_size=5).map("".join)
values = st.recursive(
    texts
    | st.integers(-(2**63), 2**64 - 1)
    | st.booleans()
    | st.none()
    | st.floats(allow_nan=False, allow_infinity=False),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(texts, inner, max_size=3),
    max_leaves=8,
)
bodies = st.dictionaries(texts, values, max_size=4)


def _read(frames: list[Frame], framing: Framing, dialect: Dialect) -> list[dict[str, Any]]:
    writes = (*map(framing.write, frames), framing.heartbeat, framing.end)
    return read_events(Answer(200, {"content-type": framing.media_type}, writes), dialect)


@given(st.lists(bodies, max_size=3))
def test_server_sent_events_are_read_as_they_were_written(written: list[dict[str, Any]]) -> None:
    frames = [Frame("response.created", {**body, "type": "response.created"}) for body in written]
    assert _read(frames, SSE, "named") == [frame.data for frame in frames]


@given(st.lists(bodies, max_size=3))
def test_data_only_events_are_read_as_they_were_written(written: list[dict[str, Any]]) -> None:
    assert _read([Frame("any", body) for body in written], DATA_ONLY, "data_only") == written


@given(bodies)
def test_a_frame_is_one_data_line_wherever_a_client_splits_lines(body: dict[str, Any]) -> None:
    frame = Frame("response.created", body)
    data = "data: " + orjson.dumps(body).decode().translate({0x2028: "\\u2028", 0x2029: "\\u2029", 0x85: "\\u0085"})
    assert SSE.write(frame).decode().splitlines() == ["event: response.created", data, ""]
    assert DATA_ONLY.write(frame).decode().splitlines() == [data, ""]
    assert len(ndjson(frame).decode().splitlines()) == 1


@given(bodies)
def test_a_line_of_ndjson_is_its_value(body: dict[str, Any]) -> None:
    assert strict_json(ndjson(Frame("any", body))) == body


def test_the_end_of_a_stream_is_a_frame_of_its_own() -> None:
    assert DONE == b"data: [DONE]\n\n" == SSE.end == DATA_ONLY.end
