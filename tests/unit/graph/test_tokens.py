"""The newest turns of a conversation, as many as fit."""

from __future__ import annotations

from itertools import chain

from hypothesis import given
from hypothesis import strategies as st
from langchain_core.messages import AIMessage, AnyMessage, HumanMessage, SystemMessage, ToolMessage
from langchain_core.messages.utils import count_tokens_approximately

from agent_server.graph.tokens import newest_turns

CALL = {"name": "look", "args": {}, "id": "call_1"}

texts = st.text("ab ", max_size=200)
answers = st.one_of(
    texts.map(lambda text: [AIMessage(text)]),
    texts.map(
        lambda text: [AIMessage("", tool_calls=[CALL]), ToolMessage(text, tool_call_id="call_1"), AIMessage("k")]
    ),
    texts.map(lambda text: [SystemMessage(text)]),
)
turns = st.lists(
    st.builds(lambda text, rest: [HumanMessage(text), *chain(*rest)], texts, st.lists(answers, max_size=3)),
    min_size=1,
    max_size=6,
)


def size(messages: list[AnyMessage]) -> int:
    return count_tokens_approximately(messages)


@given(turns, st.lists(answers, max_size=2).map(lambda rest: list(chain(*rest))), st.integers(-10, 400))
def test_no_more_turns_go_than_must(turns: list[list[AnyMessage]], greeting: list[AnyMessage], tokens: int) -> None:
    whole = [greeting, *turns]
    left = newest_turns([each for turn in whole for each in turn], tokens)

    def without(count: int) -> list[AnyMessage]:
        """What is left if so many of the oldest go."""
        system = [each for turn in whole[:count] for each in turn if isinstance(each, SystemMessage)]
        return [*system, *(each for turn in whole[count:] for each in turn)]

    candidates = [without(count) for count in range(len(whole))]
    assert left == next((each for each in candidates if size(each) <= tokens), candidates[-1])


def test_a_conversation_without_a_user_stays_whole() -> None:
    messages: list[AnyMessage] = [SystemMessage("a" * 99), AIMessage("b" * 99)]
    assert newest_turns(messages, 1) == messages
    assert newest_turns([], 0) == []
