"""The converter and the encoders without the server."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from typing import Any

from agent_server.events import RunStarted
from agent_server.graph.converter import Converter, now_ms
from agent_server.graph.drive import Recorder
from agent_server.protocols.responses.encoder import ResponsesEncoder, ToolItems
from agent_server.runs.execute import execute
from agent_server.runs.log import EventLog


async def responses_events(
    stream_events: AsyncIterator[Any], *, model: str = "agent", tool_items: ToolItems = "function_call"
) -> AsyncIterator[dict[str, Any]]:
    """LangChain stream events -> OpenAI Responses stream events, as dictionaries.

    `stream_events` is what `astream_events(..., version="v2")` of any Runnable or graph returns. The events are
    those of one response, from `response.created` to its terminal event: `response.completed`, `.incomplete`, or
    `error` and `response.failed` when the stream raises (the exception goes to the log). Leaving the loop early
    stops the agent.
    """

    async def consume(recorder: Recorder) -> None:
        async for event in stream_events:
            recorder.feed(event)

    converter, log, encoder = Converter(), EventLog(), ResponsesEncoder(tool_items)
    log.append(RunStarted(run_id=converter.run_id, agent=model, at=now_ms()))
    task = asyncio.create_task(execute(consume, converter, log))
    try:
        async for batch in log.batches():
            for event in batch:
                for frame in encoder.feed(event):
                    yield frame.data
    finally:
        task.cancel()
        await asyncio.wait({task})
