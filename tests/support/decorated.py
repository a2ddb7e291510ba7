"""A module as its author writes it for MLflow's AgentServer: it repeats what it was asked, word by word."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator

from mlflow.genai.agent_server import get_request_headers, invoke, stream
from mlflow.types.responses import (
    ResponsesAgentRequest,
    ResponsesAgentResponse,
    ResponsesAgentStreamEvent,
    create_text_delta,
    create_text_output_item,
)

both = asyncio.Barrier(2)


@invoke()
async def answer(request: ResponsesAgentRequest) -> ResponsesAgentResponse:
    """Repeats it whole."""
    items = [event.item async for event in repeat(request) if event.type == "response.output_item.done"]
    return ResponsesAgentResponse(output=items, custom_outputs=request.custom_inputs)


@stream()
async def repeat(request: ResponsesAgentRequest) -> AsyncIterator[ResponsesAgentStreamEvent]:
    """Repeats it; two requests that are to `meet` wait for each other, and tell whose token they came with."""
    asked, said = request.custom_inputs or {}, [request.input[-1].content]
    if request.context is not None:
        said += [request.context.conversation_id, request.context.user_id]
    if asked.get("meet"):
        await both.wait()
        said.append(get_request_headers()["x-forwarded-access-token"])
    for word in said:
        yield ResponsesAgentStreamEvent(**create_text_delta(f"{word} ", "msg_1"))
    if asked.get("fail"):
        raise RuntimeError("the provider's secret")
    item = create_text_output_item("".join(f"{word} " for word in said), "msg_1")
    yield ResponsesAgentStreamEvent(type="response.output_item.done", item=item)
