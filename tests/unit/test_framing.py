"""Frame -> bytes, exactly."""

from __future__ import annotations

import orjson
import pytest

from agent_server.framing import DATA_ONLY, DONE, SSE, Frame, Framing, data_only, ndjson, sse, to_json

FRAME = Frame("response.created", {"type": "response.created", "n": 1})
BODY = b'{"type":"response.created","n":1}'


def test_an_event_has_a_name_a_line_of_data_and_a_blank_line() -> None:
    assert sse(FRAME) == b"event: response.created\ndata: " + BODY + b"\n\n"


def test_data_alone_has_no_name() -> None:
    assert data_only(FRAME) == b"data: " + BODY + b"\n\n"


def test_a_line_of_ndjson_is_the_value() -> None:
    assert ndjson(FRAME) == BODY + b"\n"


def test_a_body_is_the_value() -> None:
    assert to_json(FRAME.data) == BODY


@pytest.mark.parametrize(
    "text", ["\n", "\r", "\r\n", "\0", "\u2028", "\u2029", "\x85", "\x0b\x0c", "event: x\n\ndata: y"]
)
def test_no_text_breaks_its_line(text: str) -> None:
    written = sse(Frame("x", {"text": text}))
    assert len(written.decode().splitlines()) == 3
    assert b"\r" not in written
    assert orjson.loads(written.split(b"data: ", 1)[1]) == {"text": text}


def test_text_beyond_ascii_is_written_as_utf8() -> None:
    assert data_only(Frame("x", {"text": "ä😀"})) == 'data: {"text":"ä😀"}\n\n'.encode()


@pytest.mark.parametrize("framing", [SSE, DATA_ONLY])
def test_a_stream_ends_with_done_and_says_that_it_is_utf8(framing: Framing) -> None:
    assert framing.end == DONE == b"data: [DONE]\n\n"
    assert framing.media_type == "text/event-stream; charset=utf-8"


def test_heartbeats_are_what_each_dialects_clients_pass_over() -> None:
    assert SSE.heartbeat == b": ping\n\n"
    assert DATA_ONLY.heartbeat == b"\n"
