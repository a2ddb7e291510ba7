"""Whatever a run tells, in whatever order, and wherever it ends: its UI message stream keeps the rules."""

from __future__ import annotations

from hypothesis import given
from hypothesis import strategies as st

from agent_server.events import Event
from agent_server.protocols.aisdk.encoder import AiSdkEncoder, SdkVersion
from agent_server.protocols.aisdk.stream import FRAMING
from tests.properties.interleavings import runs
from tests.support.aisdk import VERSIONS, check_chunks, frames, read, sse

versions = st.sampled_from(VERSIONS)


@given(runs(), versions)
def test_every_stream_keeps_the_rules_of_its_version(events: list[Event], version: SdkVersion) -> None:
    chunks = [frame.data for frame in frames(events, version)]
    check_chunks(chunks, version)
    assert read(sse(events, version)) == chunks


@given(runs(), runs(), versions)
def test_a_message_of_two_runs_is_one_stream(first: list[Event], second: list[Event], version: SdkVersion) -> None:
    encoder = AiSdkEncoder(version, runs=2)
    check_chunks([frame.data for event in [*first, *second] for frame in encoder.feed(event)], version)


@given(runs())
def test_frames_own_their_data(events: list[Event]) -> None:
    encoder = AiSdkEncoder()
    told = [(frame, FRAMING.write(frame)) for event in events for frame in encoder.feed(event)]
    for frame, written in told:
        assert FRAMING.write(frame) == written, "a frame shows what came after it"


@given(runs())
def test_a_client_never_sees_what_an_exception_says(events: list[Event]) -> None:
    assert b"secret" not in sse(events)
