"""An agent as its author writes it, in a module beside others: what the tests log as a model."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

from forecasts import ANSWER, forecast
from langchain.agents import create_agent
from langchain_core.callbacks import CallbackManagerForLLMRun
from langchain_core.language_models import BaseChatModel
from langchain_core.messages import AIMessageChunk, BaseMessage, HumanMessage
from langchain_core.messages.tool import tool_call_chunk
from langchain_core.outputs import ChatGenerationChunk, ChatResult
from langchain_core.runnables import Runnable


class ScriptedModel(BaseChatModel):
    """Asks for the forecast, then tells it; asked to fail, it raises. It has no other way than to stream."""

    @property
    def _llm_type(self) -> str:
        return "scripted"

    def bind_tools(self, tools: Any, **kwargs: Any) -> Runnable[Any, Any]:
        return self

    def _generate(self, *args: Any, **kwargs: Any) -> ChatResult:
        raise NotImplementedError

    def _stream(
        self,
        messages: list[BaseMessage],
        stop: list[str] | None = None,
        run_manager: CallbackManagerForLLMRun | None = None,
        **kwargs: Any,
    ) -> Iterator[ChatGenerationChunk]:
        asked = messages[-1]
        if "fail" in asked.text:
            raise RuntimeError("the provider's secret")
        if isinstance(asked, HumanMessage):
            call = tool_call_chunk(name="forecast", args='{"city": "Oslo"}', id="call_oslo", index=0)
            yield ChatGenerationChunk(message=AIMessageChunk(content="", tool_call_chunks=[call]))
            return
        for piece in ANSWER:
            yield ChatGenerationChunk(message=AIMessageChunk(content=piece))


agent = create_agent(ScriptedModel(), tools=[forecast])
