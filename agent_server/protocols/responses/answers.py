"""Items that answer the questions a response ended with -> what resumes its run.

| question | answered by | resumes with |
|---|---|---|
| approval, one request for each action | `mcp_approval_response` for each | `{"decisions": [...]}` |
| call of a client's tool | `function_call_output` | its output |
| any other value | `mcp_approval_response` | `edited_arguments`, else `reason`, else `approve` |
| the same, of a client with a tool `request_human_input` | `function_call_output` | its output |

`edited_arguments`, an object or its JSON text, is this server's addition to `mcp_approval_response`.
"""

from __future__ import annotations

from collections.abc import Callable, Collection, Iterator, Mapping, Sequence
from typing import Any

from agent_server.errors import RequestError
from agent_server.events import Interrupt, RunInterrupted
from agent_server.graph.answers import Verdict, decision_of, decisions_allowed, requests_of
from agent_server.graph.inputs import content_of
from agent_server.http.body import parse_json
from agent_server.protocols.responses.fields import Fields, invalid
from agent_server.protocols.responses.output import HUMAN_INPUT, human_input_call
from agent_server.protocols.responses.parts import read_parts

ANSWERED = {"type": "mcp_list_tools"}
"""Stands where an answer stood in the input: an item that says nothing."""


_OF_THE_AGENT = frozenset({"reasoning", "function_call", "custom_tool_call", "mcp_call", "image_generation_call"})


def without_old_answers(items: Any) -> Any:
    """The items without the answers that the agent has gone on from since: clients repeat them with the history."""
    return _without(items, _is_of_the_agent)


def without_passed_answers(items: Any) -> Any:
    """The items without the answers that a message comes after, where none is waited for."""
    return _without(items, lambda item: isinstance(item, dict) and item.get("role") is not None)


def _without(items: Any, is_later: Callable[[Any], bool]) -> Any:
    if not isinstance(items, list):
        return items
    said = max((place for place, item in enumerate(items) if is_later(item)), default=0)
    return [ANSWERED if is_approval(item) and place < said else item for place, item in enumerate(items)]


def is_approval(item: Any) -> bool:
    """Whether an item answers an approval request."""
    return isinstance(item, dict) and item.get("type") == "mcp_approval_response"


def _is_of_the_agent(item: Any) -> bool:
    return isinstance(item, dict) and (item.get("role") == "assistant" or item.get("type") in _OF_THE_AGENT)


class Answers:
    """The answers among the items of an input, to a response that `ended` so with this `output`."""

    def __init__(self, items: Sequence[Any], ended: RunInterrupted, output: Sequence[Mapping[str, Any]]) -> None:
        self._ended = ended
        self._asked = [item["id"] for item in output if item["type"] == "mcp_approval_request"]
        made = {item["call_id"] for item in output if item["type"] == "function_call"}
        self._calls = {each.id: call for each in ended.interrupts if (call := _call(each, made)) is not None}
        self._given: dict[str, Fields] = {}
        self._places: list[int] = []
        for place, item in enumerate(items):
            if isinstance(item, dict) and (key := self._key(item)) is not None:
                if key in self._given and self._given[key].values() != item:
                    raise _refused(f"'{key[:64]}' is answered twice, and differently.", "approval_already_answered")
                self._given[key] = Fields(item, f"input[{place}]")
                self._places.append(place)

    def __bool__(self) -> bool:
        return bool(self._given)

    @property
    def tools(self) -> set[str]:
        """The names of the client's tools whose calls wait."""
        waiting = [each for each in self._ended.interrupts if each.id in self._calls]
        return {each.value["name"] if each.kind == "client_tool" else HUMAN_INPUT for each in waiting}

    def _key(self, item: dict[str, Any]) -> str | None:
        if item.get("type") == "mcp_approval_response":
            key = item.get("approval_request_id")
            return key if key in self._asked else None
        if item.get("type") == "function_call_output" and item.get("call_id") in self._calls.values():
            return str(item["call_id"])
        return None

    def rest(self, items: Sequence[Any]) -> list[Any]:
        """What else the input says. Answers resume a run that waits, so nothing new may come after them."""
        last = max(self._places)
        for place, item in enumerate(items[last + 1 :], last + 1):
            if isinstance(item, dict) and item.get("role") is not None:
                raise invalid(f"input[{place}]", "a message cannot be combined with answers to a waiting response")
        return [ANSWERED if place in self._places else item for place, item in enumerate(items)]

    def resume(self) -> dict[str, Any]:
        """Interrupt id -> what it is resumed with. Raises `RequestError` while one is not answered."""
        asked = iter(self._asked)
        return {each.id: self._value(each, asked) for each in self._ended.interrupts}

    def approvals(self) -> dict[str, str]:
        """Call id -> the approval request that was about it, as far as that is known."""
        asked = iter(self._asked)
        found: dict[str, str] = {}
        for each in self._ended.interrupts:
            if each.id not in self._calls:
                requests = [next(asked) for _ in (requests_of(each) if each.kind == "approval" else "?")]
                if len(requests) == len(each.call_ids):
                    found |= zip(each.call_ids, requests, strict=True)
        return found

    def _value(self, interrupt: Interrupt, asked: Iterator[str]) -> Any:
        if interrupt.id in self._calls:
            return self._output(self._calls[interrupt.id])
        if interrupt.kind == "approval":
            allowed = decisions_allowed(interrupt)
            return {"decisions": [_decision(self._approval(next(asked)), r, allowed) for r in requests_of(interrupt)]}
        answer = self._approval(next(asked))
        approve = _approve(answer)
        edited, reason = _edited(answer), answer.text("reason")
        return edited if edited is not None else reason if reason is not None else approve

    def _output(self, call_id: str) -> Any:
        given = self._given.get(call_id)
        if given is None:
            raise _refused(f"No tool output found for function call {call_id[:64]}.", "invalid_value")
        parts, _ = read_parts(given, "output", answer=False)
        return content_of(parts)

    def _approval(self, request_id: str) -> Fields:
        given = self._given.get(request_id)
        if given is None:
            raise _refused(f"The approval request {request_id} waits for an answer.", "approval_required")
        return given


def _call(interrupt: Interrupt, made: Collection[str]) -> str | None:
    """The id of the call that asks, of those that were `made`, if none is an approval request."""
    if interrupt.kind == "client_tool":
        return interrupt.call_ids[0]
    call_id = human_input_call(interrupt.id)
    return call_id if interrupt.kind == "free" and call_id in made else None


def _decision(answer: Fields, request: dict[str, Any], allowed: Mapping[str, Collection[str]]) -> dict[str, Any]:
    decision = decision_of(_verdict(answer), request)
    if decision["type"] not in allowed.get(request["name"], (decision["type"],)):
        kinds = ", ".join(allowed[request["name"]])
        raise invalid(answer.path, f"a call of '{request['name']}' takes only: {kinds}")
    return decision


def _verdict(answer: Fields) -> Verdict:
    if not _approve(answer):
        return Verdict(approve=False, reason=answer.text("reason"))
    edited = _edited(answer)
    if edited is not None and not isinstance(edited, dict):
        raise invalid(answer.at("edited_arguments"), "it must be an object")
    return Verdict(edited=edited)


def _approve(answer: Fields) -> bool:
    answer.required("approve")
    return answer.flag("approve") or False


def _edited(answer: Fields) -> Any:
    value = answer.get("edited_arguments")
    return parse_json(value, param=answer.at("edited_arguments")) if isinstance(value, str) else value


def _refused(message: str, code: str) -> RequestError:
    return RequestError(message, param="input", code=code)
