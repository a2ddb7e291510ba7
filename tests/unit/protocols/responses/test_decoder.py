"""Responses streams in every style are read as the same facts, and encoded again as one legal stream."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from agent_server import events as ev
from agent_server.events import Event, RunFailed, RunInterrupted, RunStarted
from agent_server.protocols.responses.decoder import BrokenStreamError, ResponsesDecoder
from agent_server.protocols.responses.encoder import ToolItems
from tests.conformance.rules import check_stream
from tests.golden.conversations import FOLDER
from tests.support.play import AT, RUN_ID, frames

Data = dict[str, Any]
STARTED = RunStarted(run_id=RUN_ID, agent="model", at=AT, model="model")


def decoder() -> ResponsesDecoder:
    return ResponsesDecoder(RUN_ID, clock=lambda: AT)


def decoded(stream: Iterable[Any], started: RunStarted = STARTED) -> list[Event]:
    """The events of a run whose agent streams this."""
    fold = decoder()
    events: list[Event] = [started]
    try:
        for event in stream:
            events += fold.feed(event)
    except BrokenStreamError:
        return [*events, *fold.fail(code="server_error", message="The agent failed.", error_id="err_1")]
    return [*events, *fold.finish()]


def encoded(stream: Iterable[Any], style: ToolItems = "function_call") -> Data:
    """The response that comes of it; its stream is checked against every rule."""
    return check_stream([frame.data for frame in frames(decoded(stream), style)])


def seen(stream: Iterable[Any]) -> list[Any]:
    """The output in short: texts, (name, arguments) of calls, {call id: output}."""
    return [short(item) for item in encoded(stream)["output"]]


def short(item: Data) -> Any:
    match item["type"]:
        case "message":
            return "".join(part.get("text") or part.get("refusal") for part in item["content"])
        case "function_call":
            return item["name"], item["arguments"]
        case "function_call_output":
            return {item["call_id"]: item["output"]}
        case "reasoning":
            return [part["text"] for part in item["summary"]]
    return item["type"]


# Pieces of streams, as short as sloppy servers make them


def delta(text: str, item_id: str = "msg_1", **more: Any) -> Data:
    return {"type": "response.output_text.delta", "item_id": item_id, "delta": text, **more}


def done(**item: Any) -> Data:
    return {"type": "response.output_item.done", "item": item}


def message(text: str, item_id: str = "msg_1", **more: Any) -> Data:
    content = [{"type": "output_text", "text": text, "annotations": []}]
    return done(**({"type": "message", "id": item_id, "role": "assistant", "content": content} | more))


def call(call_id: str = "call_1", name: str = "look", arguments: str = '{"at":"sky"}', **more: Any) -> Data:
    item = {"type": "function_call", "id": f"fc_{call_id}", "call_id": call_id, "name": name, "arguments": arguments}
    return done(**(item | more))


def output(call_id: str = "call_1", text: Any = "blue", **more: Any) -> Data:
    return done(**({"type": "function_call_output", "call_id": call_id, "output": text} | more))


def completed(*outputs: Data, kind: str = "completed", **response: Any) -> Data:
    items = [each["item"] for each in outputs]
    return {"type": f"response.{kind}", "response": {"id": "resp_1", "status": kind, "output": items, **response}}


LOOK = ("look", '{"at":"sky"}')
BLUE = {"call_1": "blue"}

STYLES: dict[str, tuple[list[Data], list[Any]]] = {
    "nothing": ([], []),
    "items alone, as MLflow's helpers make them": ([message("Hello")], ["Hello"]),
    "deltas and their item": ([delta("Hel"), delta("lo"), message("Hello")], ["Hello"]),
    "deltas without an item": ([delta("Hel"), delta("lo")], ["Hello"]),
    "a bare response": ([completed(message("Hello"))], ["Hello"]),
    "an item and a response": ([message("Hello"), completed(message("Hello"))], ["Hello"]),
    "deltas, item and response": ([delta("Hello"), message("Hello"), completed(message("Hello"))], ["Hello"]),
    "a response that repeats under other ids": ([message("Hello"), completed(message("Hello", "x"))], ["Hello"]),
    "deltas and item under different ids": ([delta("Hel", "a"), delta("lo", "a"), message("Hello", "b")], ["Hello"]),
    "deltas without ids": ([{"type": "response.output_text.delta", "delta": "Hello"}, message("Hello")], ["Hello"]),
    "an item that goes on where its deltas ended": ([delta("Hel"), message("Hello")], ["Hello"]),
    "an item told twice": ([message("Hello"), message("Hello")], ["Hello"]),
    "an id used again": ([message("Hello"), message("again")], ["Hello", "again"]),
    "an id used again, with deltas": (
        [delta("Hello"), message("Hello"), delta("again"), message("again")],
        ["Hello", "again"],
    ),
    "content that is plain text": ([message("", content="Hello")], ["Hello"]),
    "two parts in one item": (
        [
            delta("Hel", content_index=0),
            delta("lo", content_index=1),
            message("", content=[{"type": "output_text", "text": "Hel"}, {"type": "output_text", "text": "lo"}]),
        ],
        ["Hello"],
    ),
    "two parts told as one": (
        [
            delta("Hello"),
            message("", content=[{"type": "output_text", "text": "Hel"}, {"type": "output_text", "text": "lo"}]),
        ],
        ["Hello"],
    ),
    "an empty message": ([message("")], []),
    "a tool round of whole items": (
        [call(), output(), message("Blue.", "msg_2")],
        [LOOK, BLUE, "Blue."],
    ),
    "text that never ends before a call": (
        [delta("Let me see."), call(), output(), delta("Blue.", "msg_2"), message("Blue.", "msg_2")],
        ["Let me see.", LOOK, BLUE, "Blue."],
    ),
    "one response for each model call": (
        [
            {"type": "response.created", "response": {"id": "resp_1"}},
            delta("See."),
            call(),
            completed(call()),
            output(),
            {"type": "response.created", "response": {"id": "resp_2"}},
            delta("Blue.", "msg_2"),
            message("Blue.", "msg_2"),
            completed(message("Blue.", "msg_2"), id="resp_2"),
        ],
        ["See.", LOOK, BLUE, "Blue."],
    ),
    "a call in pieces, its name first": (
        [
            {"type": "response.output_item.added", "item": call(arguments="")["item"]},
            {"type": "response.function_call_arguments.delta", "item_id": "fc_call_1", "delta": '{"at":'},
            {"type": "response.function_call_arguments.delta", "item_id": "fc_call_1", "delta": '"sky"}'},
            call(),
        ],
        [LOOK],
    ),
    "a call in pieces, its name last": (
        [
            {"type": "response.function_call_arguments.delta", "item_id": "fc_call_1", "delta": '{"at":"sky"}'},
            call(),
        ],
        [LOOK],
    ),
    "a call whose item never ends": (
        [
            {"type": "response.output_item.added", "item": call(arguments="")["item"]},
            {"type": "response.function_call_arguments.delta", "item_id": "fc_call_1", "delta": '{"at":"sky"}'},
        ],
        [LOOK],
    ),
    "two calls under one item id": (
        [call("call_1", id="run-1"), call("call_2", id="run-1"), output("call_1"), output("call_2", "grey")],
        [LOOK, LOOK, BLUE, {"call_2": "grey"}],
    ),
    "a call id used again": (
        [call(), output(), call(arguments="{}"), completed(call(), output())],
        [LOOK, BLUE, ("look", "{}")],
    ),
    "arguments that are an object": ([call(arguments={"at": "sky"})], [LOOK]),
    "a call without arguments": ([call(arguments=None)], [("look", "{}")]),
    "an output without its call": ([output()], [("tool", "{}"), BLUE]),
    "an output told twice": ([call(), output(), output()], [LOOK, BLUE]),
    "an output that is a list": (
        [call(), output(text=[{"type": "input_text", "text": "bl"}, {"type": "output_text", "text": "ue"}])],
        [LOOK, {"call_1": "bl\nue"}],
    ),
    "reasoning of two paragraphs": (
        [
            done(
                type="reasoning",
                id="rs_1",
                summary=[{"type": "summary_text", "text": "A."}, {"type": "summary_text", "text": "B."}],
            )
        ],
        [["A.\n\nB."]],
    ),
    "reasoning in pieces, then whole": (
        [
            {"type": "response.reasoning_summary_text.delta", "item_id": "rs_1", "summary_index": 0, "delta": "A."},
            {"type": "response.reasoning_summary_text.delta", "item_id": "rs_1", "summary_index": 1, "delta": "B."},
            done(type="reasoning", id="rs_1", summary=[{"text": "A."}, {"text": "B."}]),
        ],
        [["A.\n\nB."]],
    ),
    "raw reasoning": (
        [
            {"type": "response.reasoning_text.delta", "item_id": "rs_1", "delta": "Hm."},
            done(type="reasoning", id="rs_1", summary=[{"text": "In short."}], content=[{"text": "Hm."}]),
        ],
        [["Hm."]],
    ),
    "a refusal": ([message("", content=[{"type": "refusal", "refusal": "No."}])], ["No."]),
    "a refusal in pieces": (
        [
            {"type": "response.refusal.delta", "item_id": "msg_1", "delta": "N"},
            message("", content=[{"type": "refusal", "refusal": "No."}]),
        ],
        ["No."],
    ),
    "a search by the provider": (
        [
            done(type="web_search_call", id="ws_1", status="completed", action={"type": "search", "query": "sky"}),
            message("Blue."),
        ],
        [("web_search", '{"action":{"type":"search","query":"sky"}}'), {"ws_1": ""}, "Blue."],
    ),
    "a call by a server's own tool": (
        [
            done(
                type="mcp_call",
                id="mcp_1",
                server_label="x",
                name="look",
                arguments='{"at":"sky"}',
                output="blue",
                status="completed",
            )
        ],
        [LOOK, {"mcp_1": "blue"}],
    ),
    "unknown types": (
        [{"type": "response.heartbeat"}, done(type="mcp_list_tools", id="x"), message("Hello")],
        ["Hello"],
    ),
}


@pytest.mark.parametrize("style", STYLES)
def test_every_style_becomes_one_legal_stream_that_tells_everything_once(style: str) -> None:
    stream, wanted = STYLES[style]
    assert seen(stream) == wanted


GOLDEN = sorted(path.stem for path in (FOLDER / "events").glob("*.jsonl") if not path.stem.startswith("cancelled"))


@pytest.mark.parametrize("style", ["function_call", "mcp_call"])
@pytest.mark.parametrize("name", GOLDEN)
def test_what_this_server_streams_is_read_back_as_it_was(name: str, style: ToolItems) -> None:
    events = [ev.decode(line) for line in (FOLDER / "events" / f"{name}.jsonl").read_bytes().splitlines()]
    started, last = events[0], events[-1]
    assert isinstance(started, RunStarted)
    first = frames(events, style)
    second = frames(decoded([frame.data for frame in first], started), style)
    if isinstance(last, RunFailed):  # the error is the server's own
        first, second = first[:-2], second[:-2]
    assert [frame.data for frame in second] == [frame.data for frame in first]


def text_events(name: str) -> list[Data]:
    events = [ev.decode(line) for line in (FOLDER / "events" / f"{name}.jsonl").read_bytes().splitlines()]
    return [frame.data for frame in frames(events)]


WHOLE = text_events("text_tool_text")
SKELETON = [
    place
    for place, event in enumerate(WHOLE)
    if event["type"].endswith((".created", ".in_progress", ".added", "_text.done", "part.done", "arguments.done"))
]


@given(st.sets(st.sampled_from(SKELETON)), st.booleans(), st.booleans())
def test_the_skeleton_of_a_stream_may_be_missing_in_any_part(gone: set[int], numbers: bool, response: bool) -> None:
    stream = [dict(event) for place, event in enumerate(WHOLE) if place not in gone]
    if numbers:
        stream = [{k: v for k, v in e.items() if not k.endswith(("_index", "_number"))} for e in stream]
    if response:
        stream = stream[:-1]
    assert [short(item) for item in WHOLE[-1]["response"]["output"]] == seen(stream)


DELTAS = [place for place, event in enumerate(WHOLE) if event["type"].endswith(".delta")]


@given(st.sets(st.sampled_from(DELTAS)))
def test_whole_items_make_up_for_deltas_that_are_missing_at_the_end(gone: set[int]) -> None:
    first: dict[str, int] = {}
    for place in gone:
        item = WHOLE[place]["item_id"]
        first[item] = min(first.get(item, place), place)
    stream = [
        event
        for place, event in enumerate(WHOLE)
        if place < first.get(str(event.get("item_id")), len(WHOLE)) or place not in DELTAS
    ]
    assert [short(item) for item in WHOLE[-1]["response"]["output"]] == seen(stream)


@pytest.mark.parametrize(
    "junk",
    [
        None,
        "text",
        7,
        [],
        {},
        {"type": None},
        {"delta": "x"},
        delta("x") | {"delta": 7},
        delta("x") | {"item_id": []},
        done(type="message", id="m", content=7),
        done(type="message", id="m", content=["x"]),
        {"type": "response.output_item.done"},
        {"type": "response.output_item.done", "item": "x"},
        done(),
        done(type="function_call_output", output="x"),
        {"type": "response.completed"},
        {"type": "response.completed", "response": {"output": "x"}},
        {"type": "error", "message": "secret"},
        {"type": "error"},
        {"type": "response.failed", "response": {"error": {"message": "secret"}}},
        {"type": "response.failed"},
        {"type": "response.incomplete", "response": {"status": "cancelled"}},
        {"type": "response.output_text.annotation.added", "item_id": "m", "annotation": 7},
        message("x") | {"custom_outputs": 7},
    ],
    ids=str,
)
@pytest.mark.parametrize("before", [[], [delta("Hello")]], ids=["first", "middle"])
def test_junk_and_errors_end_a_legal_stream_as_failed_and_keep_what_came_before(before: list[Data], junk: Any) -> None:
    response = encoded([*before, junk])
    assert response["status"] == "failed"
    assert [short(item) for item in response["output"]] == (["Hello"] if before else [])
    assert "secret" not in str(response)


@given(
    st.recursive(
        st.none() | st.booleans() | st.integers() | st.floats() | st.text(),
        lambda inner: (
            st.lists(inner) | st.dictionaries(st.sampled_from(["type", "item", "id", "delta", "response"]), inner)
        ),
    )
)
def test_no_junk_raises_anything_but_its_own_error(junk: Any) -> None:
    encoded([junk, {"type": "response.output_item.done", "item": junk}, delta("x") | {"delta": junk}])


def test_usage_is_summed_over_responses_and_taken_once_of_each() -> None:
    def used(response_id: str, tokens: int) -> Data:
        details = {"input_tokens_details": {"cached_tokens": 1}, "output_tokens_details": {"reasoning_tokens": 2}}
        counts = {"input_tokens": tokens, "output_tokens": 5, "total_tokens": tokens + 5, **details}
        return completed(id=response_id, usage=counts)

    usage = encoded([used("resp_1", 10), used("resp_1", 10), used("resp_2", 20)])["usage"]
    assert (usage["input_tokens"], usage["output_tokens"], usage["total_tokens"]) == (30, 10, 40)
    assert usage["input_tokens_details"]["cached_tokens"] == 2
    assert usage["output_tokens_details"]["reasoning_tokens"] == 4


def test_custom_outputs_of_events_and_responses_are_kept() -> None:
    response = encoded([message("x") | {"custom_outputs": {"a": 1}}, completed(custom_outputs={"b": 2})])
    assert response["custom_outputs"] == {"a": 1, "b": 2}


@pytest.mark.parametrize(
    ("reason", "wanted"),
    [
        ("max_output_tokens", "max_output_tokens"),
        ("content_filter", "content_filter"),
        ("max_messages", "max_messages"),
    ],
)
def test_an_incomplete_response_stays_incomplete_for_its_reason(reason: str, wanted: str) -> None:
    cut = message("Once", status="incomplete")
    response = encoded([cut, completed(cut, kind="incomplete", incomplete_details={"reason": reason})])
    assert (response["status"], response["incomplete_details"]) == ("incomplete", {"reason": wanted})
    assert response["output"][0]["status"] == "incomplete"


def test_an_approval_request_interrupts_the_run() -> None:
    item = {"type": "mcp_approval_request", "id": "a_1", "name": "send", "arguments": '{"to":"a"}', "server_label": "x"}
    events = decoded([done(**item), completed(done(**item))])
    last = events[-1]
    assert isinstance(last, RunInterrupted)
    assert [(each.id, each.kind, each.value["action_requests"]) for each in last.interrupts] == [
        ("a_1", "approval", [{"name": "send", "args": {"to": "a"}}])
    ]
    assert seen([done(**item)]) == ["mcp_approval_request"]


def test_citations_are_told_once() -> None:
    cited = {"type": "url_citation", "url": "https://a.example", "title": "A", "start_index": 0, "end_index": 1}
    added = {"type": "response.output_text.annotation.added", "item_id": "msg_1", "annotation": cited}
    whole = message("x", content=[{"type": "output_text", "text": "x", "annotations": [cited]}])
    for stream in ([delta("x"), added, whole], [whole], [delta("x"), whole]):
        (item,) = encoded(stream)["output"]
        assert item["content"][0]["annotations"] == [cited]


def test_an_output_keeps_its_images() -> None:
    parts = [{"type": "input_text", "text": "see"}, {"type": "input_image", "image_url": "data:image/png;base64,AAAA"}]
    item = encoded([call(), output(text=parts)])["output"][1]
    assert item["output"][1] == {"type": "input_image", "image_url": "data:image/png;base64,AAAA", "detail": "auto"}


@pytest.mark.parametrize("item", [output(status="incomplete"), output(status="failed")])
def test_a_failed_tool_stays_failed(item: Data) -> None:
    assert encoded([call(), item])["output"][1]["status"] == "incomplete"


def test_text_before_a_call_is_commentary_and_text_after_it_the_answer() -> None:
    items = encoded([message("See."), call(), output(), message("Blue.", "msg_2")])["output"]
    assert [item.get("phase") for item in items] == ["commentary", None, None, "final_answer"]
