"""What holds of LangGraph's streams in every conversation: they resume anywhere, add up, and say nothing twice."""

from __future__ import annotations

from collections import defaultdict
from typing import Any

import orjson
import pytest

from agent_server.events import Event, RunFailed, RunFinished
from agent_server.protocols.langgraph.frames import Cursor, Frame
from tests.golden.conversations import CONVERSATIONS
from tests.support.langgraph import MODES, chunks, played, said, text, v1, v2
from tests.support.models import SECRET

EVERYTHING = (*MODES, "messages", "tasks", "events", "debug", "checkpoints")


@pytest.fixture(params=CONVERSATIONS)
async def events(request: pytest.FixtureRequest) -> list[Event]:
    return await played(request.param)


def cursor(frame: Frame) -> Cursor:
    event, _, place = frame.id.partition("-")
    return Cursor(int(event), int(place))


def data_of(frames: list[Frame], *methods: str) -> list[dict[str, Any]]:
    told = [orjson.loads(frame.data) for frame in frames]
    return [each for each in told if each["method"] in methods]


# The first generation


@pytest.mark.parametrize("base", [0, 700])
def test_a_stream_goes_on_from_each_of_its_ids(events: list[Event], base: int) -> None:
    whole = v1(events, (*MODES, "messages"), base=base)
    for place, frame in enumerate(whole):
        assert v1(events, (*MODES, "messages"), base=base, after=cursor(frame)) == whole[place + 1 :]


def test_ids_grow_and_do_not_depend_on_the_modes_that_are_asked_for(events: list[Event]) -> None:
    whole = v1(events, EVERYTHING)
    places = [cursor(frame) for frame in whole]
    assert places == sorted(set(places))
    for mode in EVERYTHING:
        assert {*v1(events, [mode])} <= {*whole}


def test_a_stream_begins_with_metadata_and_ends_with_its_status(events: list[Event]) -> None:
    names = [frame.event for frame in v1(events, ())]
    failed = isinstance(events[-1], RunFailed) or (
        isinstance(events[-1], RunFinished) and events[-1].incomplete == "recursion_limit"
    )
    assert names == ["metadata", *(("error",) if failed else ()), "end"]


def test_chunks_add_up_to_the_messages_of_the_state(events: list[Event]) -> None:
    frames = v1(events)
    state = said(frames)
    for message_id, message in chunks(frames).items():
        if message_id not in state or message.chunk_position != "last":
            continue  # hidden from the state by its graph, or cut off
        whole = state[message_id]
        plain = whole["content"] if isinstance(whole["content"], str) else ""
        blocks = [each for each in whole["content"] if isinstance(each, dict)] if not plain else []
        texts = plain or "".join(each.get("text") or "" for each in blocks if each.get("type") != "reasoning")
        assert str(message.text) == texts
        assert [(c["name"], c["args"], c["id"]) for c in message.tool_calls] == [
            (c["name"], c["args"], c["id"]) for c in whole["tool_calls"]
        ]


def test_a_message_that_is_told_piece_by_piece_is_whole_in_the_end(events: list[Event]) -> None:
    partial: dict[str, Any] = {}
    for frame in v1(events, ["messages"]):
        if frame.event.startswith(("messages/partial", "messages/complete")):
            (message,) = orjson.loads(frame.data)
            partial[message["id"]] = message
    whole = said(v1(events))
    for message_id in partial.keys() & whole.keys():
        if partial[message_id]["usage_metadata" if partial[message_id]["type"] == "ai" else "content"]:
            assert partial[message_id]["content"] == whole[message_id]["content"]


# The second generation


def test_a_thread_goes_on_from_each_seq(events: list[Event]) -> None:
    whole = v2(events, base=50)
    for place, frame in enumerate(whole):
        assert v2(events, base=50, since=int(frame.id)) == whole[place + 1 :]


def test_a_seq_is_the_same_for_every_subscription(events: list[Event]) -> None:
    whole = v2(events)
    seqs = [int(frame.id) for frame in whole]
    assert seqs == sorted(set(seqs))
    for channel in ("messages", "tools", "lifecycle", "values"):
        assert v2(events, [channel]) == [frame for frame in whole if frame.event == channel]
    roots = [each for each in whole if orjson.loads(each.data)["params"]["namespace"] == []]
    assert v2(events, namespaces=((),), depth=0) == roots


def test_every_frame_is_an_event_of_the_protocol(events: list[Event]) -> None:
    for frame in v2(events):
        told = orjson.loads(frame.data)
        assert told["type"] == "event"
        assert told["method"] == frame.event
        assert str(told["seq"]) == told["event_id"] == frame.id
        assert {"namespace", "timestamp", "data"} <= told["params"].keys()


def test_deltas_add_up_to_what_their_block_ends_with(events: list[Event]) -> None:
    told: dict[tuple[str, int], list[str]] = defaultdict(list)
    for each in data_of(v2(events), "messages"):
        data = each["params"]["data"]
        if data["event"] == "content-block-delta":
            delta = data["delta"]
            told[data["id"], data["index"]].append(
                delta.get("text") or delta.get("reasoning") or delta.get("args") or ""
            )
        if data["event"] == "content-block-finish":
            content = data["content"]
            pieces = "".join(told.pop((data["id"], data["index"]), []))
            if content["type"] == "tool_call":
                assert orjson.loads(pieces) == content["args"]
            elif content["type"] in ("text", "reasoning", "invalid_tool_call"):
                assert pieces == content.get("text", content.get("reasoning", content.get("args")))
    assert not told


def test_every_message_and_subgraph_that_begins_ends(events: list[Event]) -> None:
    open_messages: set[str] = set()
    open_graphs: list[list[str]] = []
    for each in data_of(v2(events), "messages", "lifecycle"):
        namespace, data = each["params"]["namespace"], each["params"]["data"]
        match data["event"]:
            case "message-start":
                assert data["id"] not in open_messages
                open_messages.add(data["id"])
            case "message-finish" | "error":
                open_messages.remove(data["id"])
            case "running" | "started":
                open_graphs.append(namespace)
            case "completed" | "failed" | "interrupted":
                open_graphs.remove(namespace)
    assert not open_messages
    assert not open_graphs


def test_no_stream_tells_a_secret(events: list[Event]) -> None:
    if isinstance(events[-1], RunFailed) and events[-1].error == "ValueError":
        return  # its text is for clients to read (LangGraph Platform)
    assert SECRET.encode() not in text(v2(events))
    assert SECRET.encode() not in text(v1(events))


async def test_a_checkpoint_is_told_right_before_the_values_that_it_holds() -> None:
    told = data_of(v2(await played("free_interrupt")), "values", "checkpoints")
    assert [each["method"] for each in told] == [
        *("checkpoints", "checkpoints", "values"),  # that of the input holds no values yet
        *("checkpoints", "values"),
        "values",  # the question
    ]
    refs = [each["params"]["data"] for each in told if each["method"] == "checkpoints"]
    assert [each["step"] for each in refs] == [-1, 0, 1]
    assert [each.get("parent_id") for each in refs[1:]] == [each["id"] for each in refs[:-1]]
