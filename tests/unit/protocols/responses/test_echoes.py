from __future__ import annotations

import pytest

from agent_server.graph.inputs import Answer, Call, Message, Reasoning, Text, ToolOutput, Turn
from agent_server.ids import item_id, run_of
from agent_server.protocols.responses.echoes import unsaid

HERE, ELSEWHERE = "a" * 32, "b" * 32


def user(text: str) -> Message:
    return Message("user", (Text(text),))


def answer(text: str, run: str | None = None) -> Answer:
    return Answer((Text(text),), None, item_id("msg", run, 1) if run else None)


CALL, OUTPUT = Call("call_1", "f", {}), ToolOutput("call_1", (Text("x"),))
BEFORE: tuple[Turn, ...] = (user("One."), CALL, OUTPUT, answer("Yes.", HERE))


@pytest.mark.parametrize(
    ("turns", "new"),
    [
        ([user("Two.")], [user("Two.")]),
        ([user("One."), answer("Yes."), user("Two.")], [user("Two.")]),
        ([answer("Yes."), user("Two.")], [user("Two.")]),
        ([user("One."), CALL, OUTPUT, answer("Yes."), user("One.")], [user("One.")]),
        ([user("One."), answer("Yes."), CALL, OUTPUT, user("Two.")], [user("Two.")]),
        ([user("One.")], [user("One.")]),
        ([user("One."), user("Two.")], [user("One."), user("Two.")]),
        ([user("One."), answer("No."), user("Two.")], [user("One."), answer("No."), user("Two.")]),
    ],
)
def test_what_repeats_the_end_of_the_conversation_is_not_new(turns: list[Turn], new: list[Turn]) -> None:
    assert list(unsaid(turns, BEFORE)) == new


def test_an_id_tells_a_repetition_whatever_became_of_its_text() -> None:
    edited = [user("One (edited)."), CALL, OUTPUT, answer("<b>Yes.</b>", HERE), user("Two.")]
    assert list(unsaid(edited, BEFORE)) == [user("Two.")]
    thought = Reasoning("Hm.", None, item_id("rs", HERE, 0))
    assert list(unsaid([user("One."), thought, CALL, OUTPUT, user("Two.")], BEFORE)) == [user("Two.")]


def test_what_was_handed_out_elsewhere_is_new() -> None:
    quoted = answer("A quotation.", ELSEWHERE)
    assert list(unsaid([quoted, answer("Yes.", HERE), user("Two.")], BEFORE)) == [quoted, user("Two.")]
    assert list(unsaid([quoted, user("Two.")], BEFORE)) == [quoted, user("Two.")]


def test_ids_of_other_kinds_name_no_run() -> None:
    assert run_of(item_id("msg", HERE, 1)) == HERE
    assert [run_of(other) for other in ("", "msg_1", f"resp_{HERE}", f"msg_{HERE}0001x", "call_abc")] == [None] * 5
