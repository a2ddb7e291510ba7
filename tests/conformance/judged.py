"""The scenarios that every client judges, and what all client tests share."""

from __future__ import annotations

import json
from dataclasses import replace
from typing import Any

from pydantic import BaseModel

from tests.conformance.expected import EXPECTED, QUESTION, REQUESTS, Seen

STYLES = ("function_call", "mcp_call", "none")

GOOD = (
    "plain_text",
    "one_tool",
    "two_parallel_tools",
    "reasoning_then_text",
    "refusal",
    "structured_output",
    "client_tool",
    "tool_error_handled",
)
"""Runs that end well in the eyes of a client, whatever happened inside."""

BAD = ("tool_error_fatal", "model_error_before_first_token", "model_error_after_first_token")
"""Runs that fail: before the first token, after it, and in a tool."""

FAILURE = "The agent failed. Error id: err_"
"""How the public message of every failure begins."""


class Forecast(BaseModel):
    """What `structured_output` answers."""

    city: str
    celsius: int


def body(scenario: str, **more: Any) -> dict[str, Any]:
    """The request of a scenario."""
    return {"model": scenario, "input": QUESTION, **REQUESTS.get(scenario, {}), **more}


def expected(scenario: str, style: str) -> Seen:
    """Without tool items nothing is seen of the server's calls; with hosted ones, images are items of their own."""
    seen = EXPECTED[scenario]
    if style == "none":
        return replace(seen, calls=())
    if style == "mcp_call":
        return replace(seen, text=seen.text.partition("![image]")[0])
    return seen


def agrees(seen: Seen, wanted: Seen) -> None:
    """Texts of framework errors are compared by their beginnings."""
    assert len(seen.calls) == len(wanted.calls), seen
    for got, want in zip(seen.calls, wanted.calls, strict=True):
        assert got[0] == want[0]
        assert _json_or_text(got[1]) == _json_or_text(want[1])
        assert got[2] == want[2] or (got[2] and want[2] and got[2].startswith(want[2]))
    assert vars(seen) | {"calls": ()} == vars(wanted) | {"calls": ()}


def _json_or_text(arguments: str) -> Any:
    try:
        return json.loads(arguments)
    except ValueError:
        return arguments
