"""Histories that clients send along: what of an input has been said before.

Most chat clients repeat the whole conversation with every turn. Where the server has that conversation, only what
comes after it is new.
"""

from __future__ import annotations

from collections.abc import Hashable, Sequence

from agent_server import ids
from agent_server.graph.inputs import Answer, Call, Message, Reasoning, Text, ToolOutput, Turn


def unsaid(turns: Sequence[Turn], before: Sequence[Turn]) -> tuple[Turn, ...]:
    """The turns without their beginning that repeats the end of `before`.

    What bears an id that was handed out before is repeated, and so is all before it, but for what was handed out
    elsewhere. Where nothing does, messages and answers are compared by what they say, in order. What repeats nothing
    that was answered is new: somebody may say the same thing twice.
    """
    runs = {run for turn in before if (run := _run_of(turn))}
    last = max((place for place, turn in enumerate(turns) if _run_of(turn) in runs), default=None)
    if last is not None:
        elsewhere = [turn for turn in turns[:last] if (run := _run_of(turn)) and run not in runs]
        return (*elsewhere, *_without_known(turns[last + 1 :], before))
    said, spine = _spine(before), _spine(turns)
    for length in range(min(len(said), len(spine)), 0, -1):
        told = [key for _, key in spine[:length]]
        if told == [key for _, key in said[-length:]] and any(_is_answer(turns[place]) for place, _ in spine[:length]):
            return _without_known(turns[spine[length - 1][0] + 1 :], before)
    return tuple(turns)


def _run_of(turn: Turn) -> str | None:
    """The run that put out an answer or a thought, if it was one of this server's."""
    return ids.run_of(turn.id or "") if isinstance(turn, Answer | Reasoning) else None


def _spine(turns: Sequence[Turn]) -> list[tuple[int, Hashable]]:
    return [(place, _key(turn)) for place, turn in enumerate(turns) if isinstance(turn, Message | Answer)]


def _key(turn: Message | Answer) -> Hashable:
    text = "".join(part.text if isinstance(part, Text) else f"[{part.kind}]" for part in turn.parts)
    return ("assistant", text, turn.refusal) if isinstance(turn, Answer) else (turn.role, text, None)


def _is_answer(turn: Turn) -> bool:
    return isinstance(turn, Answer)


def _without_known(turns: Sequence[Turn], before: Sequence[Turn]) -> tuple[Turn, ...]:
    """What hangs on the last repeated turn, such as its calls, has been said as well."""
    known = {
        turn.id if isinstance(turn, Call) else turn.call_id for turn in before if isinstance(turn, Call | ToolOutput)
    }
    return tuple(
        turn
        for turn in turns
        if not (isinstance(turn, Call) and turn.id in known)
        and not (isinstance(turn, ToolOutput) and turn.call_id in known)
    )
