"""Answers to the questions a run stopped at, as values that any protocol can make -> what resumes it.

| question | answered by | resumes with |
|---|---|---|
| approval | one verdict for each of its action requests | `{"decisions": [...]}`, as LangChain's middleware reads it |
| call of a client's tool | the output, `Verdict(value=...)` | the output |
| any other value | one verdict | its `value`, else `edited`, else `reason`, else `approve` |
"""

from __future__ import annotations

from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from msgspec import UNSET

from agent_server.errors import RequestError
from agent_server.events import Interrupt


@dataclass(frozen=True, slots=True)
class Verdict:
    """What somebody decided. `edited` are other arguments for the call; `value` answers a free question."""

    approve: bool = True
    reason: str | None = None
    edited: Mapping[str, Any] | None = None
    value: Any = UNSET


def requests_of(interrupt: Interrupt) -> list[dict[str, Any]]:
    """The action requests that an interrupt asks about; none where it is no approval."""
    found: list[dict[str, Any]] = interrupt.value["action_requests"] if interrupt.kind == "approval" else []
    return found


def decisions_allowed(interrupt: Interrupt) -> dict[str, Collection[str]]:
    """Tool name -> the decisions that the agent takes for its calls, where it says so."""
    configs = interrupt.value.get("review_configs") if isinstance(interrupt.value, Mapping) else None
    return {each["action_name"]: each["allowed_decisions"] for each in configs} if isinstance(configs, list) else {}


def resume_value(interrupt: Interrupt, verdicts: Sequence[Verdict]) -> Any:
    """What an interrupt is resumed with.

    Raises `RequestError` for too few or too many verdicts, and for one that the agent does not take.
    """
    requests = requests_of(interrupt)
    if len(verdicts) != max(len(requests), 1):
        message = f"The question {interrupt.id} takes {max(len(requests), 1)} answers, not {len(verdicts)}."
        raise RequestError(message, param="resume", code="approval_required")
    if interrupt.kind != "approval":
        return _plain(verdicts[0])
    allowed = decisions_allowed(interrupt)
    return {"decisions": [_decision(*each, allowed) for each in zip(verdicts, requests, strict=True)]}


def _plain(verdict: Verdict) -> Any:
    if verdict.value is not UNSET:
        return verdict.value
    if verdict.edited is not None:
        return dict(verdict.edited)
    return verdict.reason if verdict.reason is not None else verdict.approve


def _decision(verdict: Verdict, request: Mapping[str, Any], allowed: Mapping[str, Collection[str]]) -> dict[str, Any]:
    decision, name = decision_of(verdict, request), request["name"]
    if decision["type"] not in allowed.get(name, (decision["type"],)):
        raise RequestError(f"A call of '{name}' takes only: {', '.join(allowed[name])}.", param="resume")
    return decision


def decision_of(verdict: Verdict, request: Mapping[str, Any]) -> dict[str, Any]:
    """A verdict on an action request as a decision of LangChain's HumanInTheLoopMiddleware."""
    if not verdict.approve:
        return {"type": "reject", **({"message": verdict.reason} if verdict.reason else {})}
    if verdict.edited is None:
        return {"type": "approve"}
    return {"type": "edit", "edited_action": {"name": request["name"], "args": dict(verdict.edited)}}
