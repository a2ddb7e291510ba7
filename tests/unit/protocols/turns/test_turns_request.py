"""What a client of session turns says: decisions, and tokens."""

from __future__ import annotations

from typing import Any

import pytest

from agent_server.errors import ConflictError, RequestError
from agent_server.events import Interrupt
from agent_server.http.typed import typed
from agent_server.protocols.turns.request import Grant, Opening, Saying, Tokens, answers, bearer, run_of, turn_id

NOW = 1_700_000_000_000
GRANT = Grant("sess_1", "ann", NOW + 1)
FREE = Interrupt("i1", "Which city?")
ASKED = {"action_requests": [{"name": "send", "args": {}}, {"name": "wipe", "args": {}}]}
APPROVAL = Interrupt("i2", ASKED, "approval", ("call_a", "call_b"))
CLIENT_TOOL = Interrupt("i3", {"type": "client_tool_call"}, "client_tool", ("call_c",))


def saying(**said: Any) -> Saying:
    return typed(said, Saying).check()


def test_a_query_answers_every_free_question() -> None:
    other = Interrupt("i4", {"question": "When?"})
    assert answers([FREE, other], saying(user_query="Oslo")) == {"i1": "Oslo", "i4": "Oslo"}


@pytest.mark.parametrize("waiting", [[APPROVAL], [FREE, APPROVAL], [CLIENT_TOOL]])
def test_a_query_does_not_answer_what_waits_for_a_decision(waiting: list[Interrupt]) -> None:
    with pytest.raises(ConflictError) as refused:
        answers(waiting, saying(user_query="yes"))
    assert refused.value.code == "awaiting_decision"


@pytest.mark.parametrize(
    ("decision", "decisions"),
    [
        ("approve", [{"type": "approve"}, {"type": "approve"}]),
        ({"approve": False, "reason": "no"}, [{"type": "reject", "message": "no"}] * 2),
        (
            ["reject", {"edited": {"x": 1}}],
            [
                {"type": "reject"},
                {"type": "edit", "edited_action": {"name": "wipe", "args": {"x": 1}}},
            ],
        ),
    ],
)
def test_a_decision_is_for_all_calls_or_for_each(decision: Any, decisions: list[Any]) -> None:
    assert answers([APPROVAL], saying(decision=decision)) == {"i2": {"decisions": decisions}}


def test_a_decision_answers_a_free_question_too() -> None:
    assert answers([FREE], saying(decision="reject")) == {"i1": False}
    assert answers([FREE], saying(decision={"reason": "Oslo"})) == {"i1": "Oslo"}


@pytest.mark.parametrize(
    ("waiting", "decision", "code"),
    [
        ([], "approve", "nothing_to_decide"),
        ([APPROVAL], ["approve"], "invalid_value"),
        ([CLIENT_TOOL], "approve", "awaiting_tool_output"),
    ],
)
def test_a_decision_that_does_not_fit_is_refused(waiting: list[Interrupt], decision: Any, code: str) -> None:
    with pytest.raises(RequestError) as refused:
        answers(waiting, saying(decision=decision))
    assert (refused.value.code, refused.value.param) == (code, "decision")


@pytest.mark.parametrize(
    ("body", "param"),
    [
        ({}, "user_query"),
        ({"user_query": "a", "decision": "approve"}, "user_query"),
        ({"user_query": ""}, "user_query"),
        ({"user_query": 7}, "user_query"),
        ({"user_query": "a", "timeout_seconds": -1}, "timeout_seconds"),
        ({"user_query": "a", "timeout_seconds": 1e9}, "timeout_seconds"),
        ({"user_query": "a", "stream_format": "xml"}, "stream_format"),
        ({"user_query": "a", "show_agent_traces": "yes"}, "show_agent_traces"),
        ({"decision": "perhaps"}, "decision"),
        ({"decision": ["approve", {"approve": 1}]}, "decision[1].approve"),
    ],
)
def test_what_is_wrong_with_a_turn_is_named(body: dict[str, Any], param: str) -> None:
    with pytest.raises(RequestError) as refused:
        saying(**body)
    assert refused.value.param == param


def test_unknown_keys_are_passed_over_and_nul_is_no_name() -> None:
    assert typed({"channel_id": "c", "startup_action": {}}, Opening).channel_id == "c"
    with pytest.raises(RequestError):
        typed({"channel_id": "a\0b"}, Opening)


def test_equal_sayings_have_equal_digests() -> None:
    assert saying(user_query="a").digest == saying(user_query="a", timeout_seconds=3).digest
    assert saying(user_query="a").digest != saying(user_query="b").digest
    assert saying(decision="approve").digest != saying(user_query="approve").digest


# -- tokens --------------------------------------------------------------------------------------------------


def test_a_token_grants_what_it_was_issued_for_until_its_time_is_over() -> None:
    tokens = Tokens("0123456789abcdef")
    assert tokens.read(tokens.issue(GRANT), NOW) == GRANT
    assert tokens.read(tokens.issue(GRANT), NOW + 1) is None
    assert Tokens("another secret..").read(tokens.issue(GRANT), NOW) is None


def test_no_character_of_a_token_can_be_changed() -> None:
    tokens = Tokens("0123456789abcdef")
    token = tokens.issue(GRANT)
    for place in range(len(token)):
        changed = token[:place] + ("A" if token[place] != "A" else "B") + token[place + 1 :]
        read = tokens.read(changed, NOW)
        assert read in (None, GRANT)  # the last character of base64 has bits that mean nothing
        assert read is None or place in (token.index(".") - 1, len(token) - 1)


@pytest.mark.parametrize("token", ["", ".", "a.b", "WyJ4Il0.", "ü.ü", "W10." + "A" * 43, "=.=", "a" * 10_000])
def test_what_is_no_token_grants_nothing(token: str) -> None:
    assert Tokens("0123456789abcdef").read(token, NOW) is None


def test_the_bearer_of_a_request_is_read_from_its_header() -> None:
    assert bearer({"authorization": "Bearer abc"}) == bearer({"authorization": "bearer  abc "}) == "abc"
    assert bearer({"authorization": "Basic abc"}) is bearer({}) is None


def test_a_turns_id_names_its_run() -> None:
    assert run_of(turn_id("abc")) == "abc"
    assert run_of("abc") is None
