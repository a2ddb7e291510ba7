"""What is written for an agent behind the same API is read there as the same conversation."""

from __future__ import annotations

import pytest

from agent_server.graph.inputs import Answer, Call, Media, Message, Reasoning, Text, ToolOutput, Turn
from agent_server.protocols.responses.fields import Fields
from agent_server.protocols.responses.input_items import write_input
from agent_server.protocols.responses.items import read_input

HELLO = Message("user", (Text("Hello"),))
LOOK = Call("call_1", "look", {"at": "sky"})
BLUE = ToolOutput("call_1", (Text("blue"),))
IMAGE = Media("image", base64="AAAA", mime_type="image/png", detail="low")

CONVERSATIONS: dict[str, list[Turn]] = {
    "a question": [HELLO],
    "every role": [Message("system", (Text("Be brief."),)), Message("developer", (Text("In verse."),)), HELLO],
    "several parts": [Message("user", (Text("What is"), Text("this?"), IMAGE))],
    "media by address": [Message("user", (Media("image", url="https://a.example/x.png"),))],
    "a file": [Message("user", (Media("file", base64="AAAA", mime_type="application/pdf", filename="a.pdf"),))],
    "a file by address": [Message("user", (Media("file", url="https://a.example/x.pdf"),))],
    "media by id": [Message("user", (Media("file", file_id="file_1"), Media("image", file_id="file_2")))],
    "sound": [Message("user", (Media("audio", base64="AAAA", mime_type="audio/wav"),))],
    "an answer": [HELLO, Answer((Text("Hi."),), id="msg_1"), HELLO],
    "a refusal": [HELLO, Answer((), refusal="No.", id="msg_1"), HELLO],
    "reasoning": [HELLO, Reasoning("Hm.", "c2VjcmV0", "rs_1"), Answer((Text("Hi."),), id="msg_1"), HELLO],
    "a tool round": [HELLO, LOOK, BLUE, Answer((Text("Blue."),), id="msg_1"), HELLO],
    "a tool that failed": [HELLO, LOOK, ToolOutput("call_1", (Text("clouds"),), failed=True)],
    "a tool that shows": [HELLO, LOOK, ToolOutput("call_1", (Text("see"), IMAGE))],
    "an image of its own": [HELLO, Answer((Media("image", base64="AAAA", mime_type="image/png", id="ig_1"),)), HELLO],
}


@pytest.mark.parametrize("name", CONVERSATIONS)
def test_a_conversation_survives_the_way_there(name: str) -> None:
    turns = CONVERSATIONS[name]
    assert list(read_input(Fields({"input": write_input(turns)}))) == turns


def test_a_call_that_was_cut_short_is_left_out_unless_it_was_answered() -> None:
    cut = Call("call_1", "look", {}, complete=False)
    assert write_input([HELLO, cut]) == write_input([HELLO])
    assert list(read_input(Fields({"input": write_input([HELLO, cut, BLUE])}))) == [HELLO, cut, BLUE]


def test_arguments_that_are_no_object_travel_as_the_text_they_are() -> None:
    (item,) = write_input([Call("call_1", "look", "at: sky")])
    assert item["arguments"] == "at: sky"
