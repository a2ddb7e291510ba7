"""Events -> a Responses stream: what the golden files do not show."""

from __future__ import annotations

from typing import Any

import pytest

from agent_server import events as ev
from agent_server import ids
from agent_server.events import Event, Usage
from agent_server.protocols.responses.encoder import TOOL_ITEMS, ResponsesEncoder, ToolItems
from agent_server.protocols.responses.request import default_echo
from tests.conformance.rules import check_stream
from tests.support.play import AT, RUN_ID, frames

STARTED = ev.RunStarted(run_id=RUN_ID, agent="agent", at=AT, model="demo", client_tools=("ask_user",))
FINISHED = ev.RunFinished(at=AT + 5000)


def text(message: str, said: str, index: int = 0, *, complete: bool = True) -> list[Event]:
    """A text block of one delta."""
    return [
        ev.BlockStarted(message, index, "text"),
        ev.TextDelta(message, index, said),
        ev.BlockFinished(message, index, "text", said, complete=complete),
    ]


def call(message: str, call_id: str, index: int = 0, name: str = "look", args: str = "{}") -> list[Event]:
    """A tool call of one delta."""
    return [
        ev.BlockStarted(message, index, "tool_call", call_id, name),
        ev.ArgsDelta(message, index, args),
        ev.BlockFinished(message, index, "tool_call", args, call_id=call_id, name=name),
    ]


def message(name: str, *inside: list[Event], parent: str = "", reason: str = "stop") -> list[Event]:
    """A whole message."""
    started = ev.MessageStarted(name, parent_call_id=parent)
    return [started, *(event for events in inside for event in events), ev.MessageFinished(name, finish_reason=reason)]


def ran(
    call_id: str, output: str = "found", name: str = "look", parent: str = "", status: Any = "success"
) -> list[Event]:
    """A tool's run."""
    return [
        ev.ToolStarted(call_id, name, {"a": 1}, parent_call_id=parent),
        ev.ToolFinished(call_id, name, output, status),
    ]


def told(*events: list[Event], end: Event = FINISHED, style: ToolItems = "function_call") -> list[dict[str, Any]]:
    """The stream's events, after it was checked against every rule."""
    whole = [STARTED, *(event for each in events for event in each), end]
    stream = [frame.data for frame in frames(whole, style)]
    check_stream(stream)
    return stream


def items(*events: list[Event], end: Event = FINISHED, style: ToolItems = "function_call") -> list[dict[str, Any]]:
    """The items of the final response."""
    found: list[dict[str, Any]] = told(*events, end=end, style=style)[-1]["response"]["output"]
    return found


def kinds(stream: list[dict[str, Any]]) -> list[str]:
    """The types of the events between the opening two and the terminal one."""
    return [event["type"].removeprefix("response.") for event in stream[2:-1]]


# The response


def test_the_response_opens_before_anything_else_and_repeats_the_request() -> None:
    encoder = ResponsesEncoder()
    created, in_progress = encoder.feed(STARTED)
    assert (created.event, in_progress.event) == ("response.created", "response.in_progress")
    response = created.data["response"]
    assert response == in_progress.data["response"]
    assert {key: response[key] for key in ("id", "created_at", "status", "model", "output", "usage")} == {
        "id": f"resp_{RUN_ID}",
        "created_at": AT // 1000,
        "status": "in_progress",
        "model": "demo",
        "output": [],
        "usage": None,
    }
    assert default_echo().items() <= response.items()


def test_an_echo_that_is_given_is_used_and_an_agent_stands_for_a_model() -> None:
    encoder = ResponsesEncoder()
    (created, _) = encoder.feed(ev.RunStarted(run_id=RUN_ID, agent="agent", at=AT, echo={"instructions": "Be kind."}))
    assert created.data["response"]["instructions"] == "Be kind."
    assert created.data["response"]["model"] == "agent"


USAGE = Usage(10, 5, 15)
ENDS: dict[str, tuple[Event, str, dict[str, Any]]] = {
    "finished": (
        FINISHED,
        "response.completed",
        {"status": "completed", "completed_at": AT // 1000 + 5, "incomplete_details": None, "error": None},
    ),
    "at the token limit": (
        ev.RunFinished(at=AT, incomplete="max_output_tokens"),
        "response.incomplete",
        {"status": "incomplete", "completed_at": None, "incomplete_details": {"reason": "max_output_tokens"}},
    ),
    "filtered": (
        ev.RunFinished(at=AT, incomplete="content_filter"),
        "response.incomplete",
        {"status": "incomplete", "incomplete_details": {"reason": "content_filter"}},
    ),
    "at the recursion limit": (
        ev.RunFinished(at=AT, incomplete="recursion_limit"),
        "response.incomplete",
        {"status": "incomplete", "incomplete_details": {"reason": "max_messages"}},
    ),
    "interrupted": (
        ev.RunInterrupted(at=AT, interrupts=()),
        "response.completed",
        {"status": "completed", "completed_at": AT // 1000},
    ),
    "failed": (
        ev.RunFailed(at=AT, code="rate_limit_exceeded", message="Busy.", error_id="err_1"),
        "response.failed",
        {
            "status": "failed",
            "completed_at": None,
            "error": {"code": "rate_limit_exceeded", "message": "Busy.", "type": "server_error", "param": None},
        },
    ),
    "cancelled": (
        ev.RunCancelled(at=AT, reason="gone"),
        "response.incomplete",
        {"status": "cancelled", "completed_at": None, "incomplete_details": {"reason": "cancelled"}},
    ),
}


@pytest.mark.parametrize("name", ENDS)
def test_every_end_has_its_event_and_its_status(name: str) -> None:
    end, event, expected = ENDS[name]
    last = told(end=end)[-1]
    assert last["type"] == event
    assert expected.items() <= last["response"].items()
    assert last["response"]["usage"]["total_tokens"] == 0


def test_usage_and_custom_outputs_come_with_the_end() -> None:
    last = told(end=ev.RunFinished(at=AT, usage=USAGE, custom_outputs={"score": 1}))[-1]["response"]
    assert last["usage"]["total_tokens"] == 15
    assert last["custom_outputs"] == {"score": 1}


def test_a_failure_is_told_flat_and_nested() -> None:
    error = told(end=ENDS["failed"][0])[-2]
    assert error == {
        "type": "error",
        "sequence_number": 2,
        "code": "rate_limit_exceeded",
        "message": "Busy.",
        "param": None,
        "error": {"type": "server_error", "code": "rate_limit_exceeded", "message": "Busy.", "param": None},
    }


@pytest.mark.parametrize(
    "event",
    [
        ev.StepStarted("node", "1"),
        ev.StepFinished("node", "1"),
        ev.ToolProgress("call_1", {"percent": 50}),
        ev.StatePart("values", {"a": 1}),
        ev.Custom("progress", {"percent": 50}),
        ev.RawEvent({"event": "on_chain_start"}),
    ],
)
def test_events_that_the_wire_has_no_form_for_cause_nothing(event: Event) -> None:
    encoder = ResponsesEncoder()
    encoder.feed(STARTED)
    assert encoder.feed(event) == []


# Messages


def test_items_are_named_after_their_run_and_place() -> None:
    found = items(message("m0", text("m0", "a"), call("m0", "call_1", 1)), ran("call_1"))
    assert [item["id"] for item in found] == [
        ids.item_id("msg", RUN_ID, 0),
        ids.item_id("fc", RUN_ID, 1),
        ids.item_id("fco", RUN_ID, 2),
    ]


def test_text_before_a_call_is_commentary_and_text_after_it_is_an_item_of_its_own() -> None:
    found = items(message("m0", text("m0", "a"), call("m0", "call_1", 1), text("m0", "b", 2)))
    assert [(item["type"], item.get("phase")) for item in found] == [
        ("message", "commentary"),
        ("function_call", None),
        ("message", "final_answer"),
    ]


def test_blocks_of_text_are_parts_of_one_item() -> None:
    (item,) = items(message("m0", text("m0", "a"), text("m0", "b", 1)))
    assert [part["text"] for part in item["content"]] == ["a", "b"]


@pytest.mark.parametrize(
    ("reason", "status"), [("stop", "completed"), ("length", "incomplete"), ("content_filter", "incomplete")]
)
def test_a_message_that_was_cut_is_incomplete(reason: str, status: str) -> None:
    (item,) = items(message("m0", text("m0", "a"), reason=reason))
    assert item["status"] == status


def test_a_message_that_was_left_off_is_incomplete() -> None:
    (item,) = items(message("m0", text("m0", "a", complete=False)), end=ENDS["cancelled"][0])
    assert item["status"] == "incomplete"


def test_reasoning_ends_the_item_before_it() -> None:
    thought: list[Event] = [
        ev.BlockStarted("m0", 1, "reasoning"),
        ev.ReasoningDelta("m0", 1, "hm"),
        ev.BlockFinished("m0", 1, "reasoning", "hm"),
    ]
    found = items(message("m0", text("m0", "a"), thought, text("m0", "b", 2)))
    assert [item["type"] for item in found] == ["message", "reasoning", "message"]


def test_annotations_that_the_wire_has_no_form_for_leave_no_gap() -> None:
    started, said, finished = text("m0", "abc")
    cites = [
        ev.Annotated("m0", 0, annotation)
        for annotation in (
            {"type": "citation", "title": "no address"},
            {"type": "citation", "url": "u"},
            {"type": "citation", "url": "v", "start_index": 0, "end_index": 1},
        )
    ]
    stream = told(message("m0", [started, said, *cites, finished]))
    added = [event for event in stream if event["type"] == "response.output_text.annotation.added"]
    assert [(event["annotation_index"], event["annotation"]["url"]) for event in added] == [(0, "u"), (1, "v")]
    assert added[0]["annotation"]["start_index"] == 3


MEDIA: dict[str, tuple[dict[str, Any], str]] = {
    "an image by address": ({"type": "image", "url": "https://a.example/i.png"}, "![image](https://a.example/i.png)"),
    "an image's bytes": ({"type": "image", "base64": "aGk="}, "![image](data:application/octet-stream;base64,aGk=)"),
    "a file by address": ({"type": "file", "url": "https://a.example/f.pdf"}, "[file](https://a.example/f.pdf)"),
}


@pytest.mark.parametrize("name", MEDIA)
def test_media_is_shown_as_markdown(name: str) -> None:
    block, expected = MEDIA[name]
    media: list[Event] = [ev.BlockStarted("m0", 0, "media"), ev.BlockFinished("m0", 0, "media", data=block)]
    (item,) = items(message("m0", media))
    assert [part["text"] for part in item["content"]] == [expected]


def test_media_that_has_no_address_is_left_out() -> None:
    media: list[Event] = [
        ev.BlockStarted("m0", 0, "media"),
        ev.BlockFinished("m0", 0, "media", data={"type": "audio", "id": "a"}),
    ]
    assert items(message("m0", media)) == []


def test_an_image_between_texts_is_an_item_where_hosted_items_are() -> None:
    media: list[Event] = [
        ev.BlockStarted("m0", 1, "media"),
        ev.BlockFinished("m0", 1, "media", data={"type": "image", "base64": "aGk="}),
    ]
    found = items(message("m0", text("m0", "a"), media, text("m0", "b", 2)), style="mcp_call")
    assert [item["type"] for item in found] == ["message", "image_generation_call", "message"]


# One open item at a time


def test_a_message_that_starts_beside_another_waits_for_it() -> None:
    left, right = message("m0", text("m0", "left")), message("m1", text("m1", "right"))
    stream = told(left[:2], right[:3], left[2:], right[3:])
    deltas = [(event["output_index"], event["delta"]) for event in stream if event["type"].endswith(".delta")]
    assert deltas == [(0, "left"), (1, "right")]
    assert stream.index(next(e for e in stream if e["type"] == "response.output_item.done")) < next(
        place for place, event in enumerate(stream) if event.get("output_index") == 1
    )


def test_what_has_waited_takes_turns_item_by_item() -> None:
    open_text = message("m0", text("m0", "a"))
    second = message("m1", text("m1", "b"), call("m1", "call_1", 1), text("m1", "c", 2))
    third = message("m2", text("m2", "d"))
    found = items(open_text[:2], second, third, open_text[2:])
    shown = [item["content"][0]["text"] if item["type"] == "message" else item["type"] for item in found]
    assert shown == ["a", "b", "function_call", "d", "c"]


def test_a_hosted_call_stays_open_beside_other_items_while_its_tool_runs() -> None:
    started, finished = ran("call_1")
    stream = told(
        message("m0", call("m0", "call_1")), [started], message("m1", text("m1", "a")), [finished], style="mcp_call"
    )
    done = [event["output_index"] for event in stream if event["type"] == "response.output_item.done"]
    assert done == [1, 0]


def test_an_output_that_comes_before_the_arguments_are_whole_waits_for_them() -> None:
    started, args, finished = call("m0", "call_1")
    for style in TOOL_ITEMS:
        told([ev.MessageStarted("m0"), started, *ran("call_1"), args, finished, ev.MessageFinished("m0")], style=style)
    early = [ev.MessageStarted("m0"), started, *ran("call_1"), args, finished, ev.MessageFinished("m0")]
    assert [item["type"] for item in items(early)] == ["function_call", "function_call_output"]
    assert [item["output"] for item in items(early, style="mcp_call")] == ["found"]


# Tool calls


def test_a_client_tool_is_a_function_call_in_every_style() -> None:
    for style in TOOL_ITEMS:
        (item,) = items(message("m0", call("m0", "call_1", name="ask_user")), style=style)
        assert (item["type"], item["name"]) == ("function_call", "ask_user")


def test_what_happens_inside_a_tool_is_not_shown() -> None:
    inside = message("m1", text("m1", "secret"), call("m1", "call_2", 1, name="inner"), parent="call_1")
    started, finished = ran("call_1")
    for style in TOOL_ITEMS:
        found = items(
            message("m0", call("m0", "call_1")),
            [started],
            inside,
            ran("call_2", name="inner", parent="call_1"),
            [finished],
            style=style,
        )
        assert "secret" not in str(found)
        assert "inner" not in str(found)
    assert [item["type"] for item in items(message("m0", call("m0", "call_1")), [started], inside, [finished])] == [
        "function_call",
        "function_call_output",
    ]


def test_a_tool_that_no_model_called_is_shown_with_its_input() -> None:
    made, output = items(ran("call_9"))
    assert (made["call_id"], made["arguments"], output["output"]) == ("call_9", '{"a":1}', "found")
    (hosted,) = items(ran("call_9"), style="mcp_call")
    assert (hosted["arguments"], hosted["output"], hosted["status"]) == ('{"a":1}', "found", "completed")
    assert items(ran("call_9"), style="none") == []


@pytest.mark.parametrize(
    ("status", "hosted", "companions"),
    [("success", "completed", 1), ("error", "failed", 1), ("pending", "incomplete", 0)],
)
def test_a_tool_that_ended_is_shown_as_it_ended(status: str, hosted: str, companions: int) -> None:
    told_of = (message("m0", call("m0", "call_1")), ran("call_1", status=status))
    (item,) = items(*told_of, style="mcp_call")
    assert item["status"] == hosted
    assert len(items(*told_of)) == 1 + companions


def test_a_call_that_nobody_answered_is_incomplete_even_when_its_id_was_used_again() -> None:
    first, second = message("m0", call("m0", "call_1")), message("m1", call("m1", "call_1"))
    found = items(first, second, ran("call_1"), style="mcp_call")
    assert [item["status"] for item in found] == ["incomplete", "completed"]


# Questions


def approval(*requests: dict[str, Any]) -> ev.Interrupt:
    return ev.Interrupt("i", {"action_requests": list(requests)}, "approval")


QUESTIONS: dict[str, tuple[ev.Interrupt, list[tuple[str, str]]]] = {
    "each request of an approval": (
        approval({"name": "send", "args": {"to": "a"}}, {"name": "look", "arguments": {"at": "b"}}),
        [("send", '{"to":"a"}'), ("look", '{"at":"b"}')],
    ),
    "a request that says little": (approval({}), [("", "{}")]),
    "any other object": (ev.Interrupt("i", {"question": "?"}), [("request_human_input", '{"question":"?"}')]),
    "a text": (ev.Interrupt("i", "ä?"), [("request_human_input", '{"value":"ä?"}')]),
    "nothing": (ev.Interrupt("i", None), [("request_human_input", '{"value":null}')]),
    "a client tool's call, which is its own question": (
        ev.Interrupt("i", {"type": "client_tool_call"}, "client_tool", ("call_1",)),
        [],
    ),
}


@pytest.mark.parametrize("name", QUESTIONS)
def test_questions_become_approval_requests(name: str) -> None:
    interrupt, expected = QUESTIONS[name]
    for style in TOOL_ITEMS:
        found = items(end=ev.RunInterrupted(at=AT, interrupts=(interrupt,)), style=style)
        assert [(item["name"], item["arguments"]) for item in found] == expected
        assert {item["type"] for item in found} <= {"mcp_approval_request"}
