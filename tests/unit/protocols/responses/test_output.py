"""Items and parts of the Responses API."""

from __future__ import annotations

from typing import Any

import pytest
from openai.types.responses import ResponseUsage

from agent_server.events import ToolFinished, Usage
from agent_server.protocols.responses import output

PNG = "data:image/png;base64,aGk="


def finished(said: str | list[dict[str, Any]], status: Any = "success") -> ToolFinished:
    return ToolFinished("call_1", "look", said, status)


TOOL_OUTPUTS: dict[str, tuple[Any, Any]] = {
    "text": ("found", "found"),
    "no text": ("", ""),
    "blocks of text": ([{"type": "text", "text": "a"}, {"type": "text", "text": "b"}], "a\nb"),
    "no blocks": ([], ""),
    "an image by address": (
        [{"type": "image", "url": "https://a.example/i.png"}],
        [{"type": "input_image", "image_url": "https://a.example/i.png", "detail": "auto"}],
    ),
    "an image's bytes": (
        [{"type": "text", "text": "a"}, {"type": "image", "base64": "aGk=", "mime_type": "image/png"}],
        [{"type": "input_text", "text": "a"}, {"type": "input_image", "image_url": PNG, "detail": "auto"}],
    ),
    "a file by address": (
        [{"type": "file", "url": "https://a.example/f.pdf", "filename": "f.pdf"}],
        [{"type": "input_file", "filename": "f.pdf", "file_url": "https://a.example/f.pdf"}],
    ),
    "a file's bytes": (
        [{"type": "file", "base64": "aGk=", "mime_type": "application/pdf"}],
        [{"type": "input_file", "filename": "file", "file_data": "data:application/pdf;base64,aGk="}],
    ),
    "an image without either": ([{"type": "image"}], [{"type": "input_text", "text": "[image]"}]),
    "what the wire has no part for": (
        [{"type": "audio", "url": "https://a.example/a.mp3"}],
        [{"type": "input_text", "text": "https://a.example/a.mp3"}],
    ),
}


@pytest.mark.parametrize("name", TOOL_OUTPUTS)
def test_a_tool_output_becomes_text_or_input_parts(name: str) -> None:
    said, expected = TOOL_OUTPUTS[name]
    item = output.function_call_output("fco_1", finished(said))
    assert item == {
        "id": "fco_1",
        "type": "function_call_output",
        "status": "completed",
        "call_id": "call_1",
        "output": expected,
    }


def test_the_output_of_a_failed_tool_is_incomplete() -> None:
    assert output.function_call_output("fco_1", finished("no", "error"))["status"] == "incomplete"


@pytest.mark.parametrize(
    ("ended", "more"),
    [
        (None, {}),
        (finished("", "pending"), {}),
        (finished("found"), {"output": "found"}),
        (
            finished([{"type": "text", "text": "a"}, {"type": "image", "url": "u"}, {"type": "audio"}]),
            {"output": "a\nu\n[audio]"},
        ),
        (
            finished("no", "error"),
            {"error": {"type": "mcp_tool_execution_error", "content": [{"type": "text", "text": "no"}]}},
        ),
    ],
)
def test_an_mcp_call_holds_its_output_or_its_error(ended: ToolFinished | None, more: dict[str, Any]) -> None:
    item = output.mcp_call("mcp_1", "completed", "agent", "look", "{}", ended)
    base = {"id": "mcp_1", "type": "mcp_call", "status": "completed", "server_label": "agent"}
    assert item == {**base, "name": "look", "arguments": "{}", **more}


@pytest.mark.parametrize(
    ("block", "url"),
    [
        ({"type": "image", "url": "https://a.example"}, "https://a.example"),
        ({"type": "image", "base64": "aGk=", "mime_type": "image/png"}, PNG),
        ({"type": "file", "base64": "aGk="}, "data:application/octet-stream;base64,aGk="),
        ({"type": "image", "base64": "", "url": "https://a.example"}, "https://a.example"),
        ({"type": "image_url", "image_url": {"url": "https://a.example"}}, "https://a.example"),
        ({"type": "image_url", "image_url": "https://a.example"}, "https://a.example"),
        ({"type": "image", "file_id": "file_1"}, ""),
        ({"type": "image", "url": None}, ""),
    ],
)
def test_media_is_addressed_by_its_url_or_its_bytes(block: dict[str, Any], url: str) -> None:
    assert output.media_url(block) == url


URL = {"type": "citation", "url": "u"}
ANNOTATIONS: dict[str, tuple[dict[str, Any], dict[str, Any] | None]] = {
    "whole": (
        {**URL, "title": "t", "start_index": 1, "end_index": 4, "cited_text": "c"},
        {"type": "url_citation", "url": "u", "title": "t", "start_index": 1, "end_index": 4},
    ),
    "without a place it is where the text has come to": (
        URL,
        {"type": "url_citation", "url": "u", "title": "u", "start_index": 7, "end_index": 7},
    ),
    "without an address": ({"type": "citation", "title": "t"}, None),
    "a file": (
        {
            "type": "non_standard_annotation",
            "value": {"type": "file_citation", "file_id": "f", "filename": "n", "index": 3},
        },
        {"type": "file_citation", "file_id": "f", "filename": "n", "index": 3},
    ),
    "a file without an id": ({"type": "non_standard_annotation", "value": {"type": "file_citation"}}, None),
    "what the wire has no form for": ({"type": "non_standard_annotation", "value": {"type": "aside"}}, None),
}


@pytest.mark.parametrize("name", ANNOTATIONS)
def test_a_citation_becomes_an_annotation_of_the_wire(name: str) -> None:
    block, expected = ANNOTATIONS[name]
    assert output.annotation(block, 7) == expected


@pytest.mark.parametrize(
    ("counted", "total"), [(None, 0), (Usage(10, 5, 15, 3, 2, 1), 15), (Usage(10, 5), 15), (Usage(10, 5, 20), 20)]
)
def test_usage_is_whole_even_where_nobody_counted(counted: Usage | None, total: int) -> None:
    usage = output.usage(counted)
    assert ResponseUsage.model_validate(usage).model_dump(exclude_none=True) == usage
    assert usage["total_tokens"] == total


def test_optional_fields_are_left_out_and_not_null() -> None:
    assert "phase" not in output.message("msg_1", "in_progress", [], None)
    assert output.message("msg_1", "completed", [], "final_answer")["phase"] == "final_answer"
    assert "encrypted_content" not in output.reasoning("rs_1", "completed", "a")
    assert output.reasoning("rs_1", "completed", None, "eA==") == {
        "id": "rs_1",
        "type": "reasoning",
        "summary": [],
        "status": "completed",
        "encrypted_content": "eA==",
    }
