"""The agent of the sockets: says the time once a second, as often as it is asked to, from a moment of its own."""

from __future__ import annotations

import asyncio
import random
import time
from collections.abc import AsyncIterator
from typing import Any

from langchain_core.callbacks import AsyncCallbackManagerForLLMRun
from langchain_core.language_models import BaseChatModel
from langchain_core.messages import AIMessageChunk, BaseMessage
from langchain_core.outputs import ChatGenerationChunk, ChatResult
from langgraph.graph import START, MessagesState, StateGraph


class Clock(BaseChatModel):
    """Each token is the moment at which it was made, in seconds of the machine's monotonic clock."""

    @property
    def _llm_type(self) -> str:
        return "clock"

    def _generate(self, *_: Any, **__: Any) -> ChatResult:
        raise NotImplementedError

    async def _astream(
        self,
        messages: list[BaseMessage],
        stop: list[str] | None = None,
        run_manager: AsyncCallbackManagerForLLMRun | None = None,
        **kwargs: Any,
    ) -> AsyncIterator[ChatGenerationChunk]:
        due = time.monotonic() + random.random()
        for _ in range(int(messages[-1].text)):
            due += 1
            await asyncio.sleep(due - time.monotonic())
            yield ChatGenerationChunk(message=AIMessageChunk(content=f"{time.monotonic():.6f} "))


async def _say(state: MessagesState) -> dict[str, Any]:
    return {"messages": [await Clock().ainvoke(state["messages"])]}


_graph = StateGraph(MessagesState)
_graph.add_node("say", _say)
_graph.add_edge(START, "say")
agent = _graph.compile()
