"""Feedback that cannot be taken is refused by the name of the parameter."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import httpx
import pytest

from agent_server.settings import Settings
from tests.support.scripted import SCENARIOS
from tests.support.serve import serving

TRACE, RESPONSE = f"tr-{'a' * 32}", f"resp_{'a' * 32}"


@pytest.fixture(scope="module")
def client() -> Iterator[httpx.Client]:
    """A client of a server that does not trace: what is right but for that says so."""
    agents = {"agent": SCENARIOS["plain_text"]}
    with serving(agents, Settings(tracing=False)) as url, httpx.Client(base_url=url) as client:
        yield client


@pytest.mark.parametrize(
    ("body", "param", "code"),
    [
        ({"value": 1}, "trace_id", "missing_required_parameter"),
        ({"trace_id": TRACE, "response_id": RESPONSE, "value": 1}, "response_id", "invalid_value"),
        ({"trace_id": "tr-1", "value": 1}, "trace_id", "invalid_value"),
        ({"trace_id": 7, "value": 1}, "trace_id", "invalid_type"),
        ({"trace_id": f"{TRACE}\n", "value": 1}, "trace_id", "invalid_value"),
        ({"response_id": "resp_../../x", "value": 1}, "response_id", "invalid_value"),
        ({"trace_id": TRACE}, "value", "missing_required_parameter"),
        ({"trace_id": TRACE, "value": None}, "value", "missing_required_parameter"),
        ({"trace_id": TRACE, "value": [[1]]}, "value", "invalid_type"),
        ({"trace_id": TRACE, "value": {"a": None}}, "value", "invalid_type"),
        ({"trace_id": TRACE, "value": 1, "name": 3}, "name", "invalid_type"),
        ({"trace_id": TRACE, "value": 1, "name": "n" * 251}, "name", "string_above_max_length"),
        ({"trace_id": TRACE, "value": 1, "rationale": ["x"]}, "rationale", "invalid_type"),
        ({"trace_id": TRACE, "value": 1, "user": {}}, "user", "invalid_type"),
    ],
)
def test_bad_feedback_is_refused_by_name(client: httpx.Client, body: dict[str, Any], param: str, code: str) -> None:
    answer = client.post("/feedback", json=body)
    assert answer.status_code == 400
    assert (answer.json()["error"]["param"], answer.json()["error"]["code"]) == (param, code)


@pytest.mark.parametrize("value", [True, 0, 1.5, "good", [1, "a"], {"tone": 3}, [], ""])
def test_a_server_that_does_not_trace_says_so(client: httpx.Client, value: Any) -> None:
    answer = client.post("/feedback", json={"trace_id": TRACE, "value": value})
    assert answer.status_code == 400
    assert answer.json()["error"]["code"] == "tracing_off"


@pytest.mark.parametrize(("content", "status"), [(b"[]", 400), (b"{", 400), (b'{"value": NaN}', 400)])
def test_what_is_no_json_object_is_refused(client: httpx.Client, content: bytes, status: int) -> None:
    answer = client.post("/feedback", content=content, headers={"content-type": "application/json"})
    assert answer.status_code == status


def test_only_posting_is_allowed(client: httpx.Client) -> None:
    assert client.get("/feedback").status_code == 405
