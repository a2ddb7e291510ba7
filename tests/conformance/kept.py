"""What the judges of stored responses share: servers over each kind of store, and two ways to ask."""

from __future__ import annotations

import json
from collections.abc import Iterable, Mapping
from typing import Any, Literal

from openai import OpenAI

from tests.conformance.rules import check_stream
from tests.support.sse import Answer, read_events

Mode = Literal["create", "stream", "accumulate"]
MODES: tuple[Mode, ...] = ("create", "stream", "accumulate")

Item = Mapping[str, Any]


def ask(client: OpenAI, mode: Mode, **body: Any) -> dict[str, Any]:
    """The response object, as it came. Every stream is judged on the way, and read by the client's own accumulator."""
    if mode == "create":
        raw = client.responses.with_raw_response.create(**body)
        assert raw.parse().output_text == said(json.loads(raw.text))
        return dict(json.loads(raw.text))
    if mode == "accumulate":
        with client.responses.stream(**body) as events:
            return retrieved(client, events.get_final_response().id)
    with client.responses.with_streaming_response.create(**body, stream=True) as streamed:
        return check_stream(read_events(Answer(streamed.status_code, dict(streamed.headers), (streamed.read(),))))


def retrieved(client: OpenAI, response_id: str) -> dict[str, Any]:
    """The response object, as it is kept."""
    return dict(json.loads(client.responses.with_raw_response.retrieve(response_id).text))


def said(response: Mapping[str, Any]) -> str:
    """The texts of a response's messages."""
    messages = [item for item in response["output"] if item["type"] == "message"]
    return "".join(part["text"] for message in messages for part in message["content"])


def of_type(response: Mapping[str, Any], kind: str) -> list[Item]:
    """The output items of one type."""
    return [item for item in response["output"] if item["type"] == kind]


def approve(request: Item, **more: Any) -> dict[str, Any]:
    """The approval of a request."""
    return {"type": "mcp_approval_response", "approval_request_id": request["id"], "approve": True, **more}


def reject(request: Item, reason: str | None = None) -> dict[str, Any]:
    """The refusal of a request."""
    return {**approve(request, approve=False), **({"reason": reason} if reason else {})}


def approvals(response: Mapping[str, Any]) -> list[dict[str, Any]]:
    """The approval of everything a response asks for."""
    return [approve(request) for request in of_type(response, "mcp_approval_request")]


def types(items: Iterable[Item]) -> list[str]:
    """Their types."""
    return [item["type"] for item in items]
