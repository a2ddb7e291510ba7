from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import pytest
from langchain_core.messages import AIMessage, BaseMessage, HumanMessage, SystemMessage, ToolMessage
from langchain_openai import ChatOpenAI

from agent_server.errors import RequestError
from agent_server.graph.inputs import (
    Answer,
    Call,
    Media,
    Message,
    Reasoning,
    Text,
    ToolOutput,
    Turn,
    pair_calls,
    system_turn,
    to_messages,
)

V1 = {"output_version": "v1"}


def user(text: str, message_id: str | None = None) -> Message:
    return Message("user", (Text(text),), message_id)


def answer(text: str, message_id: str | None = None) -> Answer:
    return Answer((Text(text),), None, message_id)


def call(call_id: str, name: str = "get_time", *, complete: bool = True, **args: Any) -> Call:
    return Call(call_id, name, args, complete)


def output(call_id: str, text: str, *, failed: bool = False) -> ToolOutput:
    return ToolOutput(call_id, (Text(text),), failed)


def tool_call(call_id: str, name: str = "get_time", **args: Any) -> dict[str, Any]:
    return {"type": "tool_call", "id": call_id, "name": name, "args": args}


def text_block(text: str) -> dict[str, Any]:
    return {"type": "text", "text": text}


def said(text: str, *calls: dict[str, Any], message_id: str | None = None) -> AIMessage:
    return AIMessage(text, tool_calls=list(calls), id=message_id)


def result(call_id: str, text: str, name: str = "get_time", status: Any = "success") -> ToolMessage:
    return ToolMessage(text, tool_call_id=call_id, name=name, status=status)


CONVERSATIONS: dict[str, tuple[list[Turn], list[BaseMessage]]] = {
    "nothing": ([], []),
    "one text": ([user("Hi")], [HumanMessage("Hi")]),
    "roles": (
        [system_turn("Be kind."), Message("developer", (Text("Use tools."),)), user("Hi"), answer("Hello")],
        [
            SystemMessage("Be kind."),
            SystemMessage("Use tools.", additional_kwargs={"__openai_role__": "developer"}),
            HumanMessage("Hi"),
            AIMessage("Hello"),
        ],
    ),
    "ids": (
        [user("Hi", "msg_1"), answer("Hello", "msg_2")],
        [HumanMessage("Hi", id="msg_1"), AIMessage("Hello", id="msg_2")],
    ),
    "ids given twice or unfit": (
        [user("a", "msg_1"), user("b", "msg_1"), user("c", "no id\n"), user("d", "x" * 129), user("e", "")],
        [HumanMessage("a", id="msg_1"), HumanMessage("b"), HumanMessage("c"), HumanMessage("d"), HumanMessage("e")],
    ),
    "several parts": (
        [
            Message(
                "user",
                (
                    Text("Look:"),
                    Media("image", url="https://example.org/a.png", detail="high"),
                    Media("image", base64="AAAA", mime_type="image/png"),
                    Media("file", base64="AAAA", mime_type="application/pdf", filename="a.pdf"),
                    Media("file", file_id="file-1"),
                    Media("audio", base64="AAAA", mime_type="audio/wav"),
                ),
            )
        ],
        [
            HumanMessage(
                [
                    text_block("Look:"),
                    {"type": "image", "url": "https://example.org/a.png", "extras": {"detail": "high"}},
                    {"type": "image", "base64": "AAAA", "mime_type": "image/png"},
                    {
                        "type": "file",
                        "base64": "AAAA",
                        "mime_type": "application/pdf",
                        "extras": {"filename": "a.pdf"},
                    },
                    {"type": "file", "file_id": "file-1"},
                    {"type": "audio", "base64": "AAAA", "mime_type": "audio/wav"},
                ]
            )
        ],
    ),
    "two texts stay two": (
        [Message("user", (Text("a"), Text("b")))],
        [HumanMessage([text_block("a"), text_block("b")])],
    ),
    "parallel calls are one message": (
        [user("Hi"), call("1", zone="Asia/Tokyo"), call("2"), output("1", "9:00"), output("2", "1:00"), answer("So.")],
        [
            HumanMessage("Hi"),
            said("", tool_call("1", zone="Asia/Tokyo"), tool_call("2")),
            result("1", "9:00"),
            result("2", "1:00"),
            said("So."),
        ],
    ),
    "text and calls of one model call are one message": (
        [answer("Let me see.", "msg_1"), call("1"), output("1", "9:00")],
        [said("Let me see.", tool_call("1"), message_id="msg_1"), result("1", "9:00")],
    ),
    "text after the call": (
        [call("1"), answer("One moment."), output("1", "9:00")],
        [said("One moment.", tool_call("1")), result("1", "9:00")],
    ),
    "text before, between and after the calls of one model call": (
        [answer("a"), call("1"), answer("b"), call("2"), answer("c"), output("1", "x"), output("2", "y"), answer("d")],
        [
            AIMessage(
                [text_block("a"), tool_call("1"), text_block("b"), tool_call("2"), text_block("c")],
                tool_calls=[tool_call("1"), tool_call("2")],
                response_metadata=V1,
            ),
            result("1", "x"),
            result("2", "y"),
            said("d"),
        ],
    ),
    "calls one after another are two messages": (
        [call("1"), output("1", "9:00"), call("2"), output("2", "1:00")],
        [said("", tool_call("1")), result("1", "9:00"), said("", tool_call("2")), result("2", "1:00")],
    ),
    "an output moves up to its call": (
        [call("1"), call("2"), output("2", "b"), user("And?"), output("1", "a"), answer("So.")],
        [
            said("", tool_call("1"), tool_call("2")),
            result("1", "a"),
            result("2", "b"),
            HumanMessage("And?"),
            said("So."),
        ],
    ),
    "an id may be used again once it was answered": (
        [call("1"), output("1", "a"), user("Again"), call("1"), output("1", "b")],
        [said("", tool_call("1")), result("1", "a"), HumanMessage("Again"), said("", tool_call("1")), result("1", "b")],
    ),
    "one answer after another is two messages": (
        [answer("a"), answer("b"), Reasoning("hm"), answer("c")],
        [
            said("a"),
            said("b"),
            AIMessage([{"type": "reasoning", "reasoning": "hm"}, text_block("c")], response_metadata=V1),
        ],
    ),
    "reasoning, text and call": (
        [Reasoning("hm", id="rs_1"), answer("Let me see."), call("1"), output("1", "9:00")],
        [
            AIMessage(
                [{"type": "reasoning", "reasoning": "hm"}, text_block("Let me see."), tool_call("1")],
                tool_calls=[tool_call("1")],
                response_metadata=V1,
            ),
            result("1", "9:00"),
        ],
    ),
    "encrypted reasoning keeps its id": (
        [Reasoning("", "gAAA", "rs_1"), answer("So.")],
        [
            AIMessage(
                [
                    {"type": "reasoning", "reasoning": "", "id": "rs_1", "extras": {"encrypted_content": "gAAA"}},
                    text_block("So."),
                ],
                response_metadata=V1,
            )
        ],
    ),
    "reasoning that led to nothing": ([Reasoning("hm"), user("Well?")], [HumanMessage("Well?")]),
    "a refusal": (
        [Answer((), "I will not.")],
        [AIMessage("I will not.", additional_kwargs={"refusal": "I will not."})],
    ),
    "an image the model made": (
        [Answer((Media("image", base64="AAAA", mime_type="image/png", id="ig_1"),))],
        [
            AIMessage(
                [{"type": "image", "id": "ig_1", "base64": "AAAA", "mime_type": "image/png"}], response_metadata=V1
            )
        ],
    ),
    "a failed tool": (
        [call("1"), output("1", "no such zone", failed=True)],
        [said("", tool_call("1")), result("1", "no such zone", status="error")],
    ),
    "an output with an image": (
        [call("1"), ToolOutput("1", (Text("Here:"), Media("image", url="https://example.org/a.png")))],
        [
            said("", tool_call("1")),
            ToolMessage(
                [text_block("Here:"), {"type": "image", "url": "https://example.org/a.png"}],
                tool_call_id="1",
                name="get_time",
            ),
        ],
    ),
    "an output without content": (
        [call("1"), ToolOutput("1", ())],
        [said("", tool_call("1")), result("1", "")],
    ),
    "a call whose arguments are no object": (
        [
            call("1"),
            Call("2", "f", "zone: UTC", complete=False),
            output("1", "a"),
            output("2", "malformed", failed=True),
        ],
        [
            AIMessage(
                "",
                tool_calls=[tool_call("1")],
                invalid_tool_calls=[
                    {"type": "invalid_tool_call", "id": "2", "name": "f", "args": "zone: UTC", "error": None}
                ],
            ),
            result("1", "a"),
            result("2", "malformed", "f", "error"),
        ],
    ),
    "a call that was cut short": ([answer("a"), call("1", complete=False), user("b")], [said("a"), HumanMessage("b")]),
    "a call that was cut short, yet answered": (
        [call("1", complete=False), output("1", "cut off", failed=True)],
        [said("", tool_call("1")), result("1", "cut off", status="error")],
    ),
}


@pytest.mark.parametrize(("turns", "messages"), CONVERSATIONS.values(), ids=CONVERSATIONS.keys())
def test_turns_become_messages(turns: Sequence[Turn], messages: list[BaseMessage]) -> None:
    assert to_messages(turns) == messages


def test_the_content_blocks_of_a_model_call_are_all_standard() -> None:
    [message, *_] = to_messages([Reasoning("hm"), answer("Let me see."), call("1", zone="UTC"), output("1", "9")])
    assert isinstance(message, AIMessage)
    assert message.content_blocks == message.content
    assert [block["type"] for block in message.content_blocks] == ["reasoning", "text", "tool_call"]
    assert message.tool_calls == [tool_call("1", zone="UTC")]
    assert message.text == "Let me see."


UNPAIRED: dict[str, tuple[list[Turn], str]] = {
    "no output": ([call("1"), user("Hi")], "No tool output found for function call 1."),
    "no call": ([output("1", "a")], "No tool call found for function call output with call_id 1."),
    "output before its call": (
        [output("1", "a"), call("1")],
        "No tool call found for function call output with call_id 1.",
    ),
    "two outputs": (
        [call("1"), output("1", "a"), output("1", "b")],
        "No tool call found for function call output with call_id 1.",
    ),
    "two open calls with one id": (
        [call("1"), call("1"), output("1", "a")],
        "Two open function calls have the call_id 1.",
    ),
    "second of two calls": ([call("1"), call("2"), output("1", "a")], "No tool output found for function call 2."),
    "a long id": ([output("x" * 1000, "a")], f"call output with call_id {'x' * 64}."),
}


@pytest.mark.parametrize(("turns", "message"), UNPAIRED.values(), ids=UNPAIRED.keys())
def test_calls_and_outputs_that_do_not_pair_are_refused(turns: Sequence[Turn], message: str) -> None:
    for check in (pair_calls, to_messages):
        with pytest.raises(RequestError) as raised:
            check(turns)
        assert raised.value.message.endswith(message)
        assert raised.value.param == "input"


HISTORY: list[Turn] = [
    Message("developer", (Text("Use tools."),)),
    Message("user", (Text("Look:"), Media("image", base64="AAAA", mime_type="image/png"))),
    Reasoning("hm", "gAAA", "rs_1"),
    answer("Let me see.", "msg_1"),
    call("call_1", zone="Asia/Tokyo"),
    call("call_2", zone="UTC"),
    output("call_1", "9:00"),
    output("call_2", "0:00"),
    Answer((), "I will not.", "msg_2"),
    user("Why?"),
]


def sent_by_openai(*, responses_api: bool) -> dict[str, Any]:
    """What LangChain's own client for OpenAI makes of the messages."""
    model = ChatOpenAI(model="m", api_key="none", use_responses_api=responses_api)  # type: ignore[arg-type]
    return model._get_request_payload(to_messages(HISTORY))


def test_a_chat_completions_model_gets_legal_messages() -> None:
    assert sent_by_openai(responses_api=False)["messages"] == [
        {"role": "developer", "content": "Use tools."},
        {
            "role": "user",
            "content": [
                text_block("Look:"),
                {"type": "image_url", "image_url": {"url": "data:image/png;base64,AAAA"}},
            ],
        },
        {
            "role": "assistant",
            "content": [text_block("Let me see.")],
            "tool_calls": [
                {
                    "type": "function",
                    "id": call_id,
                    "function": {"name": "get_time", "arguments": f'{{"zone": "{zone}"}}'},
                }
                for call_id, zone in (("call_1", "Asia/Tokyo"), ("call_2", "UTC"))
            ],
        },
        {"role": "tool", "tool_call_id": "call_1", "content": "9:00"},
        {"role": "tool", "tool_call_id": "call_2", "content": "0:00"},
        {"role": "assistant", "content": "I will not."},
        {"role": "user", "content": "Why?"},
    ]


def test_a_responses_model_gets_the_items_back() -> None:
    items = sent_by_openai(responses_api=True)["input"]
    assert [item.get("type", item.get("role")) for item in items] == [
        "message",
        "message",
        "reasoning",
        "message",
        "function_call",
        "function_call",
        "function_call_output",
        "function_call_output",
        "message",
        "message",
    ]
    assert items[2] == {
        "type": "reasoning",
        "id": "rs_1",
        "encrypted_content": "gAAA",
        "summary": [{"type": "summary_text", "text": "hm"}],
    }
