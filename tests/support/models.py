"""Chat models that play a script: the same chunks for the same conversation, whoever asks."""

from __future__ import annotations

from collections.abc import AsyncIterator, Callable, Iterator, Sequence
from dataclasses import dataclass, field
from typing import Any

from langchain_core.callbacks import AsyncCallbackManagerForLLMRun, CallbackManagerForLLMRun
from langchain_core.language_models import BaseChatModel, LanguageModelInput
from langchain_core.messages import (
    AIMessage,
    AIMessageChunk,
    BaseMessage,
    HumanMessage,
    message_chunk_to_message,
)
from langchain_core.outputs import ChatGeneration, ChatGenerationChunk, ChatResult
from langchain_core.runnables import Runnable
from pydantic import ConfigDict, Field

from tests.support.gates import Calls, Gate, Opens

SECRET = "SECRET-7f3a"
"""What every scripted error says. It must reach a log and never a client."""


class ModelError(RuntimeError):
    """The provider of a scripted model failed."""

    def __init__(self) -> None:
        super().__init__(f"401 from https://provider.invalid: api key {SECRET}")


@dataclass
class Call:
    """What a scripted model was asked: the conversation and the keyword arguments bound to the call."""

    messages: list[BaseMessage]
    kwargs: dict[str, Any] = field(default_factory=dict)


Step = AIMessageChunk | type[Exception] | Gate | Opens | Calls
"""A chunk to send, an exception to raise, a gate to wait at, a gate to open, a function to call."""

Turn = Sequence[Step] | Callable[[Call], Sequence[Step]]
"""What the model does when asked; a function may look at the question."""


class SilentChatModel(BaseChatModel):
    """Plays `turns` as whole messages; it cannot stream.

    The turn is the number of AI messages since the last human message, the last turn for all beyond. `calls`
    collects what the model was asked; `bind_tools` binds OpenAI tool schemas, as providers do.
    """

    model_config = ConfigDict(arbitrary_types_allowed=True)

    turns: list[Any]
    calls: list[Call] = Field(default_factory=list)
    model_name: str = "scripted-1"

    @property
    def _llm_type(self) -> str:
        return "scripted"

    def bind_tools(
        self, tools: Sequence[Any], *, tool_choice: str | None = None, **kwargs: Any
    ) -> Runnable[LanguageModelInput, AIMessage]:
        choice = {} if tool_choice is None else {"tool_choice": tool_choice}
        return self.bind(tools=list(tools), **choice, **kwargs)

    def steps(self, messages: list[BaseMessage], kwargs: dict[str, Any]) -> Sequence[Step]:
        """The steps of the turn that this conversation has come to."""
        call = Call(list(messages), kwargs)
        self.calls.append(call)
        turn: Turn = self.turns[min(_answers(messages), len(self.turns) - 1)]
        return turn(call) if callable(turn) else turn

    def _generate(
        self,
        messages: list[BaseMessage],
        stop: list[str] | None = None,
        run_manager: CallbackManagerForLLMRun | None = None,
        **kwargs: Any,
    ) -> ChatResult:
        return _whole(list(_play(self.steps(messages, kwargs))))

    async def _agenerate(
        self,
        messages: list[BaseMessage],
        stop: list[str] | None = None,
        run_manager: AsyncCallbackManagerForLLMRun | None = None,
        **kwargs: Any,
    ) -> ChatResult:
        return _whole([chunk async for chunk in _aplay(self.steps(messages, kwargs))])


class ScriptedChatModel(SilentChatModel):
    """Plays `turns` chunk by chunk, in a thread or in an event loop."""

    def _stream(
        self,
        messages: list[BaseMessage],
        stop: list[str] | None = None,
        run_manager: CallbackManagerForLLMRun | None = None,
        **kwargs: Any,
    ) -> Iterator[ChatGenerationChunk]:
        for chunk in _play(self.steps(messages, kwargs)):
            yield ChatGenerationChunk(message=chunk)

    async def _astream(
        self,
        messages: list[BaseMessage],
        stop: list[str] | None = None,
        run_manager: AsyncCallbackManagerForLLMRun | None = None,
        **kwargs: Any,
    ) -> AsyncIterator[ChatGenerationChunk]:
        async for chunk in _aplay(self.steps(messages, kwargs)):
            yield ChatGenerationChunk(message=chunk)


def _answers(messages: Sequence[BaseMessage]) -> int:
    count = 0
    for message in reversed(messages):
        if isinstance(message, HumanMessage):
            break
        count += isinstance(message, AIMessage)
    return count


def _play(steps: Sequence[Step]) -> Iterator[AIMessageChunk]:
    for step in steps:
        if isinstance(step, Gate):
            step.wait()
        elif (chunk := _act(step)) is not None:
            yield chunk


async def _aplay(steps: Sequence[Step]) -> AsyncIterator[AIMessageChunk]:
    for step in steps:
        if isinstance(step, Gate):
            await step.passed()
        elif (chunk := _act(step)) is not None:
            yield chunk


def _act(step: AIMessageChunk | type[Exception] | Opens | Calls) -> AIMessageChunk | None:
    if isinstance(step, Opens):
        step.gate.open()
    elif isinstance(step, Calls):
        step.function()
    elif isinstance(step, type):
        raise step
    else:
        return step.model_copy(deep=True)
    return None


def _whole(chunks: list[AIMessageChunk]) -> ChatResult:
    total = chunks[0]
    for chunk in chunks[1:]:
        total = total + chunk
    return ChatResult(generations=[ChatGeneration(message=message_chunk_to_message(total))])
