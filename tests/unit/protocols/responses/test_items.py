from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from agent_server.graph.inputs import (
    Answer,
    Call,
    Media,
    Message,
    Reasoning,
    Text,
    ToolOutput,
    Turn,
    to_messages,
)
from agent_server.protocols.responses.fields import Fields
from agent_server.protocols.responses.items import read_input

GOLDEN = Path(__file__).parents[3] / "golden"
PNG = "iVBORw0KGgo="
USER = Message("user", (Text("Hi"),))
CALL = {"type": "function_call", "call_id": "c1", "name": "get_time", "arguments": '{"zone":"UTC"}'}
OUTPUT = {"type": "function_call_output", "call_id": "c1", "output": "0:00"}
CALLED = Call("c1", "get_time", {"zone": "UTC"})
ANSWERED = ToolOutput("c1", (Text("0:00"),))


def read(value: Any) -> list[Turn]:
    return list(read_input(Fields({"input": value})))


def from_user(*parts: dict[str, Any]) -> list[dict[str, Any]]:
    return [{"role": "user", "content": list(parts)}]


def of_user(*parts: Text | Media) -> list[Turn]:
    return [Message("user", parts)]


INPUTS: dict[str, tuple[Any, list[Turn]]] = {
    "a string": ("Hi", [USER]),
    "an easy message": ([{"role": "user", "content": "Hi"}], [USER]),
    "a typed message": ([{"type": "message", "role": "user", "content": "Hi", "status": "completed"}], [USER]),
    "nulls are absent": ([{"type": None, "role": "user", "content": "Hi", "id": None, "status": None}], [USER]),
    "an id": ([{"role": "user", "content": "Hi", "id": "msg_1"}], [Message("user", (Text("Hi"),), "msg_1")]),
    "an empty text": ([{"role": "user", "content": ""}], of_user(Text(""))),
    "system and developer": (
        [{"role": "system", "content": "a"}, {"role": "developer", "content": [{"type": "input_text", "text": "b"}]}],
        [Message("system", (Text("a"),)), Message("developer", (Text("b"),))],
    ),
    "every name of a text part": (
        from_user(*({"type": kind, "text": kind} for kind in ("input_text", "output_text", "text"))),
        of_user(Text("input_text"), Text("output_text"), Text("text")),
    ),
    "an image by address": (
        from_user({"type": "input_image", "image_url": "HTTPS://example.org/a.png", "detail": "high"}),
        of_user(Media("image", url="HTTPS://example.org/a.png", detail="high")),
    ),
    "an image as data": (
        from_user({"type": "input_image", "image_url": f"data:image/png;base64,{PNG}", "detail": "auto"}),
        of_user(Media("image", base64=PNG, mime_type="image/png", detail="auto")),
    ),
    "an image by id": (
        from_user({"type": "input_image", "file_id": "file-1", "image_url": None}),
        of_user(Media("image", file_id="file-1")),
    ),
    "a file as a data URL": (
        from_user(
            {"type": "input_file", "filename": "a.pdf", "file_data": f"data:application/pdf;name=a;base64,{PNG}"}
        ),
        of_user(Media("file", base64=PNG, mime_type="application/pdf", filename="a.pdf")),
    ),
    "a file as a data URL without a type": (
        from_user({"type": "input_file", "file_data": f"DATA:;base64,{PNG}"}),
        of_user(Media("file", base64=PNG, mime_type="application/octet-stream")),
    ),
    "a file as plain base64": (
        from_user({"type": "input_file", "filename": "a.pdf", "file_data": PNG}),
        of_user(Media("file", base64=PNG, mime_type="application/pdf", filename="a.pdf")),
    ),
    "a file without a name": (
        from_user({"type": "input_file", "file_data": PNG}),
        of_user(Media("file", base64=PNG, mime_type="application/octet-stream")),
    ),
    "a file by address": (
        from_user({"type": "input_file", "file_url": "https://example.org/a.pdf"}),
        of_user(Media("file", url="https://example.org/a.pdf")),
    ),
    "a file by id": (from_user({"type": "input_file", "file_id": "file-1"}), of_user(Media("file", file_id="file-1"))),
    "sound": (
        from_user({"type": "input_audio", "input_audio": {"data": PNG, "format": "mp3"}}),
        of_user(Media("audio", base64=PNG, mime_type="audio/mp3")),
    ),
    "an answer": (
        [
            {
                "type": "message",
                "id": "msg_1",
                "role": "assistant",
                "status": "completed",
                "phase": "final_answer",
                "content": [{"type": "output_text", "text": "Hello", "annotations": [], "logprobs": []}],
            }
        ],
        [Answer((Text("Hello"),), None, "msg_1")],
    ),
    "an easy answer": ([{"role": "assistant", "content": "Hello"}], [Answer((Text("Hello"),))]),
    "a refusal": (
        [{"role": "assistant", "content": [{"type": "refusal", "refusal": "No."}]}],
        [Answer((), "No.")],
    ),
    "answers without content": (
        [{"role": "assistant", "content": []}, {"role": "assistant", "content": ""}, {"role": "user", "content": "Hi"}],
        [USER],
    ),
    "a call and its output": ([CALL, OUTPUT], [CALLED, ANSWERED]),
    "a call with ids and statuses": (
        [
            {**CALL, "id": "fc_1", "status": "completed"},
            {**OUTPUT, "id": "fco_1", "status": "completed", "name": "get_time"},
        ],
        [CALLED, ANSWERED],
    ),
    "a call without arguments": ([{**CALL, "arguments": ""}, OUTPUT], [Call("c1", "get_time", {}), ANSWERED]),
    "a tool that failed": (
        [CALL, {**OUTPUT, "status": "incomplete"}],
        [CALLED, ToolOutput("c1", (Text("0:00"),), failed=True)],
    ),
    "an output of several parts": (
        [
            CALL,
            {
                **OUTPUT,
                "output": [
                    {"type": "input_text", "text": "a"},
                    {"type": "input_image", "image_url": f"data:image/png;base64,{PNG}", "detail": "auto"},
                    {"type": "input_file", "filename": "b", "file_url": "https://example.org/b"},
                ],
            },
        ],
        [
            CALLED,
            ToolOutput(
                "c1",
                (
                    Text("a"),
                    Media("image", base64=PNG, mime_type="image/png", detail="auto"),
                    Media("file", url="https://example.org/b", filename="b"),
                ),
            ),
        ],
    ),
    "an output without content": ([CALL, {**OUTPUT, "output": ""}], [CALLED, ToolOutput("c1", (Text(""),))]),
    "a call that was cut short": (
        [{**CALL, "arguments": '{"zone":"U', "status": "incomplete"}, {"role": "user", "content": "Hi"}],
        [Call("c1", "get_time", '{"zone":"U', complete=False), USER],
    ),
    **{
        f"the arguments {text}": (
            [{**CALL, "arguments": text}, {**OUTPUT, "status": "incomplete"}],
            [Call("c1", "get_time", text, complete=False), ToolOutput("c1", (Text("0:00"),), failed=True)],
        )
        for text in ("zone: UTC", "[1]", "null", '{"a":1,"a":2}', '{"a":"\\u0000"}')
    },
    "a call that never ran": (
        [{**CALL, "arguments": "zone: UTC", "status": "completed"}, {"role": "user", "content": "Hi"}],
        [Call("c1", "get_time", "zone: UTC", complete=False), USER],
    ),
    "a custom tool": (
        [
            {"type": "custom_tool_call", "call_id": "c1", "name": "run", "input": "ls"},
            {"type": "custom_tool_call_output", "call_id": "c1", "output": "a"},
        ],
        [Call("c1", "run", {"__arg1": "ls"}), ToolOutput("c1", (Text("a"),))],
    ),
    "reasoning": (
        [
            {
                "type": "reasoning",
                "id": "rs_1",
                "summary": [{"type": "summary_text", "text": "a"}, {"type": "summary_text", "text": "b"}],
                "encrypted_content": "gAAA",
                "status": "completed",
            },
            {"role": "user", "content": "Hi"},
        ],
        [Reasoning("a\n\nb", "gAAA", "rs_1"), USER],
    ),
    "raw reasoning": (
        [
            {
                "type": "reasoning",
                "summary": [{"type": "summary_text", "text": "short"}],
                "content": [{"type": "reasoning_text", "text": "long"}],
            },
            {"role": "user", "content": "Hi"},
        ],
        [Reasoning("long"), USER],
    ),
    "reasoning without anything": (
        [{"type": "reasoning", "id": "rs_1", "summary": [], "content": None}, {"role": "user", "content": "Hi"}],
        [USER],
    ),
    "a tool of the server": (
        [
            {"type": "mcp_list_tools", "id": "mcpl_1", "server_label": "agent", "tools": []},
            {
                "type": "mcp_call",
                "id": "mcp_1",
                "server_label": "agent",
                "name": "get_time",
                "arguments": '{"zone":"UTC"}',
                "output": "0:00",
                "status": "completed",
            },
        ],
        [Call("mcp_1", "get_time", {"zone": "UTC"}), ToolOutput("mcp_1", (Text("0:00"),))],
    ),
    "tools of the server without ids": (
        [{"type": "mcp_call", "name": "a", "arguments": "{}", "output": str(place)} for place in range(2)],
        [
            Call("mcp_0", "a", {}),
            ToolOutput("mcp_0", (Text("0"),)),
            Call("mcp_1", "a", {}),
            ToolOutput("mcp_1", (Text("1"),)),
        ],
    ),
    "a tool of the server that failed": (
        [
            {"type": "mcp_call", "id": "m1", "name": "a", "arguments": "{}", "error": "no", "status": "failed"},
            {
                "type": "mcp_call",
                "id": "m2",
                "name": "a",
                "arguments": "{}",
                "error": {"type": "http_error", "message": "404"},
            },
            {"type": "mcp_call", "id": "m3", "name": "a", "arguments": "{}", "error": {"content": [1, None]}},
            {
                "type": "mcp_call",
                "id": "m4",
                "name": "a",
                "arguments": "{}",
                "error": {"type": "mcp_tool_execution_error", "content": [{"type": "text", "text": "no"}]},
            },
        ],
        [
            Call("m1", "a", {}),
            ToolOutput("m1", (Text("no"),), failed=True),
            Call("m2", "a", {}),
            ToolOutput("m2", (Text("404"),), failed=True),
            Call("m3", "a", {}),
            ToolOutput("m3", (Text("[1,null]"),), failed=True),
            Call("m4", "a", {}),
            ToolOutput("m4", (Text("no"),), failed=True),
        ],
    ),
    "a tool of the server that never ended": (
        [
            {"type": "mcp_call", "id": "m1", "name": "a", "arguments": "{", "status": "incomplete"},
            {"role": "user", "content": "Hi"},
        ],
        [Call("m1", "a", "{", complete=False), USER],
    ),
    "an image the model made": (
        [{"type": "image_generation_call", "id": "ig_1", "status": "completed", "result": PNG}],
        [Answer((Media("image", base64=PNG, mime_type="image/png", id="ig_1"),))],
    ),
}


@pytest.mark.parametrize(("value", "turns"), INPUTS.values(), ids=INPUTS.keys())
def test_input_becomes_turns(value: Any, turns: list[Turn]) -> None:
    assert read(value) == turns


def put_out(file: Path) -> list[dict[str, Any]]:
    """The output of the response in a golden stream."""
    frames = [line.removeprefix("data: ") for line in file.read_text().splitlines() if line.startswith("data: {")]
    items: list[dict[str, Any]] = json.loads(frames[-1])["response"]["output"]
    return items


def answered(items: list[dict[str, Any]]) -> list[dict[str, Any]]:
    """The items with an output for each call that still waits for the client's."""
    known = {item["call_id"] for item in items if item["type"] == "function_call_output"}
    waiting = [item["call_id"] for item in items if item["type"] == "function_call" and item["call_id"] not in known]
    return [*items, *({**OUTPUT, "call_id": call_id} for call_id in waiting)]


@pytest.mark.parametrize("file", sorted((GOLDEN / "responses").glob("*.sse")), ids=lambda file: file.stem)
def test_whatever_this_server_puts_out_it_takes_back(file: Path) -> None:
    items = [item for item in put_out(file) if item["type"] != "mcp_approval_request"]
    turns = read([{"role": "user", "content": "Hi"}, *answered(items), {"role": "user", "content": "Hi"}])
    messages = to_messages(turns)
    assert [message.content for message in messages if message.type == "human"] == ["Hi", "Hi"]
    for item in items:
        for part in item.get("content", ()):
            assert any(part.get("text", part.get("refusal")) in message.text for message in messages)
        if item["type"] == "function_call_output":
            assert item["call_id"] in [getattr(message, "tool_call_id", None) for message in messages]


def test_the_golden_files_are_where_they_are_looked_for() -> None:
    assert len({item["type"] for file in (GOLDEN / "responses").glob("*.sse") for item in put_out(file)}) >= 6
