"""An agent whose model takes no time: what every server of the benchmark serves.

The last user message orders the answer: "tokens N" asks for N tokens (default 200), "tokens N yield K" for N
tokens with control given back to the event loop after each K of them, as a model behind a socket does.
Without "yield" the model never suspends, and a whole answer is ready at once.

Built with `create_agent`, as most users write one. It stands alone, so that any server can load it by path.
"""

from __future__ import annotations

import asyncio
import re
from collections.abc import AsyncIterator, Iterator
from typing import Any

from langchain.agents import create_agent
from langchain_core.callbacks import AsyncCallbackManagerForLLMRun, CallbackManagerForLLMRun
from langchain_core.language_models import BaseChatModel
from langchain_core.language_models.chat_models import generate_from_stream
from langchain_core.messages import AIMessageChunk, BaseMessage
from langchain_core.outputs import ChatGenerationChunk, ChatResult
from langgraph.graph.state import CompiledStateGraph

TOKEN = " lorem"
_ORDER = re.compile(r"tokens (\d+)(?: yield (\d+))?")


def order(prompt: str) -> tuple[int, int]:
    """What a prompt asks for: how many tokens, and after how many the model yields (0 is never)."""
    match = _ORDER.search(prompt)
    return (int(match[1]), int(match[2] or 0)) if match else (200, 0)


def _chunk(total: int, position: int) -> ChatGenerationChunk:
    """The token at `position`, 1 to `total`. The last one tells usage and finish reason, as providers do."""
    if position < total:
        return ChatGenerationChunk(message=AIMessageChunk(content=TOKEN))
    return ChatGenerationChunk(
        message=AIMessageChunk(
            content=TOKEN,
            chunk_position="last",
            response_metadata={"finish_reason": "stop"},
            usage_metadata={"input_tokens": 2, "output_tokens": total, "total_tokens": total + 2},
        )
    )


class InstantChatModel(BaseChatModel):
    """Streams the same token as often as it was asked to, without delay."""

    @property
    def _llm_type(self) -> str:
        return "instant"

    def _generate(
        self,
        messages: list[BaseMessage],
        stop: list[str] | None = None,
        run_manager: CallbackManagerForLLMRun | None = None,
        **kwargs: Any,
    ) -> ChatResult:
        return generate_from_stream(self._stream(messages))

    def _stream(
        self,
        messages: list[BaseMessage],
        stop: list[str] | None = None,
        run_manager: CallbackManagerForLLMRun | None = None,
        **kwargs: Any,
    ) -> Iterator[ChatGenerationChunk]:
        total, _ = order(str(messages[-1].text))
        for position in range(1, total + 1):
            yield _chunk(total, position)

    async def _astream(
        self,
        messages: list[BaseMessage],
        stop: list[str] | None = None,
        run_manager: AsyncCallbackManagerForLLMRun | None = None,
        **kwargs: Any,
    ) -> AsyncIterator[ChatGenerationChunk]:
        total, pause = order(str(messages[-1].text))
        for position in range(1, total + 1):
            yield _chunk(total, position)
            if pause and position % pause == 0:
                await asyncio.sleep(0)


agent: CompiledStateGraph[Any, Any, Any, Any] = create_agent(InstantChatModel(), tools=[])
