"""The rules of UI message streams that no scenario shows, and the judge of these streams judged."""

from __future__ import annotations

from typing import Any

import pytest

from agent_server import events as ev
from agent_server.events import Event
from agent_server.protocols.aisdk.encoder import AiSdkEncoder
from tests.support.aisdk import Chunk, ChunkError, check_chunks

STARTED = ev.RunStarted("r1", "agent", 1)
FINISHED = ev.RunFinished(2, usage=ev.Usage(10, 5, 15, cached_tokens=4, reasoning_tokens=2))
CALL: list[Event] = [
    ev.MessageStarted("m0"),
    ev.BlockStarted("m0", 0, "tool_call", "c1", "send"),
    ev.ArgsDelta("m0", 0, '{"a": 1}'),
    ev.BlockFinished("m0", 0, "tool_call", '{"a": 1}', "c1", "send"),
    ev.MessageFinished("m0"),
]
ASKS = ev.Interrupt("q", {"action_requests": [{"name": "send", "args": {"a": 1}}]}, "approval", ("c1",))
INTERRUPTED = ev.RunInterrupted(2, (ASKS,), usage=ev.Usage(1, 1, 2))


def chunks(*events: Event, **options: Any) -> list[Chunk]:
    encoder = AiSdkEncoder(**options)
    return [frame.data for event in events for frame in encoder.feed(event)]


def types(told: list[Chunk]) -> list[str]:
    return [chunk["type"] for chunk in told]


def test_usage_and_outputs_are_metadata_of_the_end() -> None:
    (*_, end) = chunks(STARTED, ev.RunFinished(2, usage=FINISHED.usage, custom_outputs={"score": 1}))
    usage = {
        "inputTokens": 10,
        "outputTokens": 5,
        "totalTokens": 15,
        "reasoningTokens": 2,
        "cachedInputTokens": 4,
    }
    metadata = {"usage": usage, "customOutputs": {"score": 1}}
    assert end == {"type": "finish", "finishReason": "stop", "messageMetadata": metadata}


@pytest.mark.parametrize(
    ("incomplete", "reason"),
    [("max_output_tokens", "length"), ("content_filter", "content-filter"), ("recursion_limit", "other")],
)
def test_why_a_run_is_incomplete_is_its_finish_reason(incomplete: Any, reason: str) -> None:
    assert chunks(STARTED, ev.RunFinished(2, incomplete=incomplete))[-1]["finishReason"] == reason


def test_a_message_of_several_runs_has_one_start_and_one_end() -> None:
    done: list[Event] = [ev.ToolStarted("c1", "send", {"a": 1}), ev.ToolFinished("c1", "send", "Sent.")]
    told = chunks(STARTED, *CALL, INTERRUPTED, ev.RunStarted("r2", "agent", 3), *done, FINISHED, runs=2)
    check_chunks(told)
    assert types(told)[-4:] == ["tool-approval-request", "finish-step", "tool-output-available", "finish"]
    assert told[0]["messageId"] == "msg_r1"
    assert told[-1]["messageMetadata"]["usage"]["totalTokens"] == 17


def test_what_the_client_has_is_not_told_again() -> None:
    encoder = AiSdkEncoder(runs=2, name="mine")
    encoder.past([STARTED, *CALL, INTERRUPTED])
    rest: list[Event] = [
        ev.RunStarted("r2", "agent", 3),
        ev.ToolStarted("c1", "send"),
        ev.ToolFinished("c1", "send", "Sent."),
    ]
    told = [frame.data for event in [*rest, FINISHED] for frame in encoder.feed(event)]
    check_chunks(told, calls=["c1"])
    assert types(told) == ["start", "tool-output-available", "finish"]
    assert told[0]["messageId"] == "mine"


@pytest.mark.parametrize(("version", "kind"), [(5, "tool-output-error"), (6, "tool-output-denied")])
def test_a_denied_call_is_told_once(version: Any, kind: str) -> None:
    late: list[Event] = [ev.ToolStarted("c1", "send"), ev.ToolFinished("c1", "send", "Rejected.", "error")]
    events: list[Event] = [STARTED, *CALL, INTERRUPTED, ev.RunStarted("r2", "agent", 3), *late, FINISHED]
    told = chunks(*events, runs=2, denied=["c1"], version=version)
    check_chunks(told, version)
    assert types(told)[-2:] == [kind, "finish"]


def test_questions_whose_calls_are_unknown_get_calls_of_their_own() -> None:
    two = [{"name": "send", "args": {}}, {"name": "look", "args": {"b": 2}}]
    interrupt = ev.Interrupt("q", {"action_requests": two}, "approval", ("c1",))
    told = chunks(STARTED, *CALL, ev.RunInterrupted(2, (interrupt,)))
    check_chunks(told)
    asked = [chunk for chunk in told if chunk["type"] == "tool-approval-request"]
    made = [chunk for chunk in told if chunk["type"] == "tool-input-available"][1:]
    assert [chunk["toolName"] for chunk in made] == ["send", "look"]
    assert [chunk["toolCallId"] for chunk in asked] == [chunk["toolCallId"] for chunk in made]
    assert [chunk["approvalId"] for chunk in asked] == ["q.0", "q.1"]


def test_a_new_step_waits_for_the_outputs_of_the_last() -> None:
    """Older clients look for a call in the current step alone."""
    second: list[Event] = [ev.MessageStarted("m1"), ev.BlockStarted("m1", 0, "text"), ev.TextDelta("m1", 0, "Hi")]
    end: list[Event] = [ev.BlockFinished("m1", 0, "text", "Hi"), ev.MessageFinished("m1")]
    told = chunks(STARTED, *CALL, ev.ToolStarted("c1", "send"), *second, ev.ToolFinished("c1", "send"), *end, FINISHED)
    check_chunks(told)
    assert types(told).count("start-step") == 1


def test_two_calls_of_one_id_at_once_are_one() -> None:
    """Whoever tells calls apart by their ids cannot read two at a time."""
    twice: list[Event] = [ev.MessageStarted("m0")]
    twice += [ev.BlockStarted("m0", place, "tool_call", "c1", "send") for place in (0, 1)]
    twice += [ev.ArgsDelta("m0", place, "{}") for place in (0, 1)]
    twice += [ev.BlockFinished("m0", place, "tool_call", "{}", "c1", "send") for place in (0, 1)]
    told = chunks(STARTED, *twice, ev.MessageFinished("m0"), FINISHED)
    check_chunks(told)
    assert types(told)[2:5] == ["tool-input-start", "tool-input-delta", "tool-input-available"]


def test_a_new_attempt_closes_what_the_old_one_left_open() -> None:
    opened: list[Event] = [
        ev.MessageStarted("m0"),
        ev.BlockStarted("m0", 0, "text"),
        ev.BlockStarted("m0", 1, "tool_call", "c", "x"),
    ]
    told = chunks(STARTED, *opened, ev.RunRetried(2, "owner died"), ev.MessageStarted("m0"), FINISHED)
    check_chunks(told)


def test_progress_of_a_tool_is_a_preliminary_output() -> None:
    told = chunks(STARTED, ev.ToolStarted("c1", "send"), ev.ToolProgress("c1", {"sent": 1}), FINISHED)
    assert told[-2] | {"preliminary": True, "output": {"sent": 1}} == told[-2]


@pytest.mark.parametrize(
    ("data", "kind", "kept"),
    [
        ({"type": "chart", "id": "x", "y": 1}, "data-chart", "x"),
        ({"type": "chart"}, "data-chart", None),
        ([1], "data-custom", None),
    ],
)
def test_custom_data_names_its_part(data: Any, kind: str, kept: str | None) -> None:
    told = chunks(STARTED, ev.Custom("custom", data), FINISHED)[1]
    how = {"id": kept} if kept else {"transient": True}
    assert told == {"type": kind, "data": data, **how}


def test_citations_of_one_page_are_one_source_and_others_are_documents() -> None:
    page = {"type": "citation", "url": "https://x.example/", "title": "X"}
    cited = [page, page, {"type": "citation", "title": "Book"}, {"type": "citation"}, {"type": "other"}]
    inside: list[Event] = [ev.MessageStarted("m0"), ev.BlockStarted("m0", 0, "text")]
    told = chunks(STARTED, *inside, *(ev.Annotated("m0", 0, each) for each in cited))
    assert [(chunk["type"], chunk["sourceId"]) for chunk in told[3:]] == [
        ("source-url", "s.0"),
        ("source-document", "s.1"),
    ]


@pytest.mark.parametrize(
    ("data", "file"),
    [
        ({"type": "image", "base64": "aGk=", "mime_type": "image/png"}, ("data:image/png;base64,aGk=", "image/png")),
        ({"type": "image", "url": "https://x.example/a"}, ("https://x.example/a", "image/*")),
        ({"type": "file", "url": "https://x.example/a"}, ("https://x.example/a", "application/octet-stream")),
        ({"type": "image", "file_id": "f1"}, None),
    ],
)
def test_media_is_a_file(data: dict[str, Any], file: tuple[str, str] | None) -> None:
    told = chunks(STARTED, ev.MessageStarted("m0"), ev.BlockFinished("m0", 0, "media", data=data))[2:]
    assert [(chunk["url"], chunk["mediaType"]) for chunk in told] == ([] if file is None else [file])


START: Chunk = {"type": "start", "messageId": "m"}
FINISH: Chunk = {"type": "finish", "finishReason": "stop"}
STEP: Chunk = {"type": "start-step"}
TEXT: Chunk = {"type": "text-start", "id": "t"}
INPUT: Chunk = {"type": "tool-input-start", "toolCallId": "c", "toolName": "x"}


@pytest.mark.parametrize(
    ("broken", "rule"),
    [
        ([START], "no end"),
        ([START, FINISH, FINISH], "after the end"),
        ([START, START, FINISH], "in the place of start"),
        ([FINISH], "in the place of start"),
        ([START, TEXT, FINISH], "open at the end"),
        ([START, STEP, FINISH], "a step is open"),
        ([START, STEP, TEXT, {"type": "finish-step"}], "are open"),
        ([START, TEXT, TEXT], "open already"),
        ([START, {"type": "text-delta", "id": "t", "delta": ""}], "not open"),
        ([START, {"type": "reasoning-start", "id": "t"}, {"type": "text-end", "id": "t"}], "not open"),
        ([START, INPUT, FINISH], "being written"),
        ([START, {"type": "tool-input-delta", "toolCallId": "c", "inputTextDelta": ""}], "tool-input-delta of c"),
        ([START, {"type": "tool-output-available", "toolCallId": "c", "output": 1}], "tool-output-available of c"),
        (
            [START, {"type": "tool-approval-request", "toolCallId": "c", "approvalId": "a"}],
            "tool-approval-request of c",
        ),
        ([START, {"type": "shout"}], "no chunk is a shout"),
        ([START, {"type": "data-"}], "data without"),
        ([START, {"type": "error"}], "error.errorText"),
        ([START, {"type": "finish", "finishReason": "unknown"}], "finish: unknown"),
    ],
)
def test_the_judge_refuses_what_is_broken(broken: list[Chunk], rule: str) -> None:
    with pytest.raises(ChunkError, match=rule):
        check_chunks(broken)


def test_the_judge_knows_what_ai_5_does_not() -> None:
    available: Chunk = {"type": "tool-input-available", "toolCallId": "c", "toolName": "x", "input": {}}
    told = [START, available, {"type": "tool-approval-request", "toolCallId": "c", "approvalId": "a"}, FINISH]
    check_chunks(told, 6)
    with pytest.raises(ChunkError, match="no chunk is a tool-approval-request"):
        check_chunks(told, 5)
