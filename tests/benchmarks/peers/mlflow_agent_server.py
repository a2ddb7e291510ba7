"""Peers "mlflow_off" and "mlflow_on": MLflow's AgentServer with its documented LangGraph recipe.

A `@stream` handler over `astream` in the stream modes `updates` and `messages`: tokens through
`create_text_delta`, whole messages through `output_to_responses_items_stream`. With tracing off it is
disabled altogether; with it on, LangChain autologging writes to the store that MLFLOW_TRACKING_URI names.
"""

from __future__ import annotations

import sys
from collections.abc import AsyncIterator
from typing import Any

import mlflow
from langchain_core.messages import AIMessageChunk
from mlflow.genai.agent_server import AgentServer, stream
from mlflow.types.responses import (
    ResponsesAgentRequest,
    ResponsesAgentStreamEvent,
    create_text_delta,
    output_to_responses_items_stream,
    to_chat_completions_input,
)

from tests.benchmarks.fake_agent import agent
from tests.benchmarks.peers.serving import serve


@stream()
async def stream_handler(request: ResponsesAgentRequest) -> AsyncIterator[ResponsesAgentStreamEvent]:
    messages = to_chat_completions_input([item.model_dump() for item in request.input])
    parts: AsyncIterator[Any] = agent.astream({"messages": messages}, stream_mode=["updates", "messages"])
    async for mode, part in parts:
        if mode == "updates":
            for update in part.values():
                for event in output_to_responses_items_stream(update.get("messages", [])):
                    yield event
        elif isinstance(part[0], AIMessageChunk) and part[0].content:
            delta = create_text_delta(delta=part[0].content, item_id=part[0].id)  # type: ignore[arg-type]
            yield ResponsesAgentStreamEvent(**delta)


def main(port: int, tracing: str) -> None:
    """Serve with tracing "on" or "off"."""
    if tracing == "on":
        mlflow.langchain.autolog()
    else:
        mlflow.tracing.disable()
    serve(AgentServer("ResponsesAgent").app, port)


if __name__ == "__main__":
    main(int(sys.argv[1]), sys.argv[2])
