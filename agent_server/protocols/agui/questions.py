"""The questions a run stopped at, as interrupts of the wire; and from its resume entries to what resumes the graph.

An approval of several calls is several interrupts, each bound to its call (AG-UI 1.0, "Interrupts").
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import Any

from agent_server.errors import ConflictError, RequestError
from agent_server.events import Interrupt
from agent_server.graph.answers import Verdict, decisions_allowed, requests_of, resume_value
from agent_server.protocols.agui.input import ResumeEntry

Json = dict[str, Any]

BREAKPOINT = "breakpoint:"
"""Begins the id of a stop that asks nothing: a graph's static breakpoint."""

_CANCELLED = "The user abandoned the question."


def questions(interrupts: Sequence[Interrupt], run_id: str, wire_id: Callable[[str], str]) -> list[Json]:
    """Interrupts as the wire has them; there is always one. `wire_id` names a tool call on the wire."""
    found = [question for interrupt in interrupts for question in _questions(interrupt, wire_id)]
    return found or [{"id": f"{BREAKPOINT}{run_id}", "reason": "langgraph:breakpoint"}]


def _questions(interrupt: Interrupt, wire_id: Callable[[str], str]) -> list[Json]:
    calls = [wire_id(call_id) for call_id in interrupt.call_ids]
    metadata = {"langgraph": {"id": interrupt.id, "value": interrupt.value}}
    if interrupt.kind != "approval":
        question: Json = {"id": interrupt.id, **_described(interrupt.value, calls), "metadata": metadata}
        if interrupt.kind == "client_tool":
            question |= {"reason": "tool_call", "message": "Run this tool and answer with its output."}
        return [question]
    requests = requests_of(interrupt)
    asked: list[Json] = []
    for place, request in enumerate(requests):
        question = {"id": _id(interrupt, place), "reason": "tool_call" if place < len(calls) else "confirmation"}
        if message := request.get("description"):
            question["message"] = str(message)
        if place < len(calls):
            question["toolCallId"] = calls[place]
        question["responseSchema"] = _schema(decisions_allowed(interrupt).get(str(request.get("name"))))
        asked.append({**question, "metadata": metadata})
    return asked


def _id(interrupt: Interrupt, place: int) -> str:
    return interrupt.id if len(requests_of(interrupt)) == 1 else f"{interrupt.id}:{place}"


def _described(value: Any, calls: Sequence[str]) -> Json:
    """What a free interrupt says of itself, by the names of the wire."""
    said = value if isinstance(value, Mapping) else {}
    reason = said.get("reason")
    message = value if isinstance(value, str) else said.get("message", said.get("question"))
    schema = said.get("responseSchema", said.get("response_schema"))
    call = next(iter(calls), "")
    return {
        "reason": reason if isinstance(reason, str) and reason else "langgraph:interrupt",
        **({"message": message} if isinstance(message, str) else {}),
        **({"toolCallId": call} if call else {}),
        **({"responseSchema": schema} if isinstance(schema, Mapping) else {}),
    }


def _schema(allowed: Any) -> Json:
    """The payload of an approval; `editedArgs` shows that the arguments may be edited."""
    properties: Json = {"approved": {"type": "boolean"}, "reason": {"type": "string"}}
    if allowed is None or "edit" in allowed:
        properties["editedArgs"] = {"type": "object", "description": "All arguments of the call, in place of its own."}
    return {"type": "object", "properties": properties, "required": ["approved"]}


# Answers


def answers(waiting: Sequence[Interrupt], entries: Sequence[ResumeEntry], outputs: Mapping[str, Any]) -> dict[str, Any]:
    """What each of the waiting interrupts is resumed with. `outputs` are those of the client's tools, by call.

    Raises `ConflictError` for an answer to what does not wait, and `RequestError` for a question without one.
    """
    given = {entry.interrupt_id: (place, entry) for place, entry in enumerate(entries)}
    used: set[str] = set()
    resume: dict[str, Any] = {}
    for interrupt in waiting:
        call = next(iter(interrupt.call_ids), "")
        if interrupt.kind == "client_tool" and interrupt.id not in given and call in outputs:
            resume[interrupt.id] = outputs[call]
            continue
        wanted = [_id(interrupt, place) for place in range(max(len(requests_of(interrupt)), 1))]
        if missing := next((each for each in wanted if each not in given and interrupt.id not in given), None):
            raise _unanswered(interrupt, missing)
        found = [given.get(each) or given[interrupt.id] for each in wanted]
        used |= {entry.interrupt_id for _, entry in found}
        resume[interrupt.id] = _value(interrupt, found)
    for entry_id, (place, _) in given.items():
        if entry_id not in used:
            message = f"Nothing waits for an answer to the interrupt '{entry_id[:100]}'."
            raise ConflictError(message, param=f"resume[{place}].interruptId", code="interrupt_not_pending")
    return resume


def _unanswered(interrupt: Interrupt, question: str) -> RequestError:
    if interrupt.kind == "client_tool":
        message = f"The tool call '{next(iter(interrupt.call_ids), '')[:100]}' waits for its result."
        return RequestError(message, param="messages", code="tool_result_required")
    message = f"The interrupt '{question[:100]}' waits for an answer."
    return RequestError(message, param="resume", code="answer_required")


def _value(interrupt: Interrupt, entries: Sequence[tuple[int, ResumeEntry]]) -> Any:
    first = entries[0][1]
    decisions = first.payload.get("decisions") if isinstance(first.payload, dict) else None
    if interrupt.kind == "approval":
        if first.status == "resolved" and isinstance(decisions, list):
            return first.payload  # LangChain's own form
        return resume_value(interrupt, [_verdict(*entry) for entry in entries])
    return first.payload if first.status == "resolved" else None


def _verdict(place: int, entry: ResumeEntry) -> Verdict:
    param = f"resume[{place}].payload"
    payload = entry.payload
    if entry.status == "cancelled":
        return Verdict(approve=False, reason=_CANCELLED)
    if isinstance(payload, bool):
        return Verdict(approve=payload)
    if not isinstance(payload, dict) or not isinstance(payload.get("approved"), bool):
        raise RequestError(f"'{param}.approved' must be true or false.", param=f"{param}.approved", code="invalid_type")
    edited, reason = payload.get("editedArgs"), payload.get("reason")
    if edited is not None and not isinstance(edited, dict):
        raise RequestError(f"'{param}.editedArgs' must be an object.", param=f"{param}.editedArgs", code="invalid_type")
    return Verdict(approve=payload["approved"], edited=edited, reason=reason if isinstance(reason, str) else None)
