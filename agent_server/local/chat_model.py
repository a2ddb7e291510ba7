"""`LocalChatModel`: LangChain's chat model interface over llama.cpp in this process."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Callable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

from langchain_core.callbacks import AsyncCallbackManagerForLLMRun, CallbackManagerForLLMRun
from langchain_core.language_models import BaseChatModel, LanguageModelInput
from langchain_core.language_models.chat_models import generate_from_stream
from langchain_core.messages import AIMessage, AIMessageChunk, BaseMessage, HumanMessage, ToolMessage
from langchain_core.messages.ai import UsageMetadata
from langchain_core.messages.tool import ToolCallChunk
from langchain_core.outputs import ChatGenerationChunk, ChatResult
from langchain_core.runnables import Runnable
from langchain_core.tools import BaseTool
from langchain_core.utils.function_calling import convert_to_openai_tool

from agent_server import ids
from agent_server.local import prompts
from agent_server.local.llama import Llama, Piece, load
from agent_server.local.model_file import model_path

_ROLES = {"human": "user", "ai": "assistant", "system": "system", "tool": "user"}


class LocalChatModel(BaseChatModel):
    """A small language model on this CPU: SmolLM2-135M-Instruct, or the GGUF file that `path` names.

    Streams, calls the tools bound to it, and keeps to a JSON schema given as `response_format`. The file is fetched
    and loaded when it is first asked, once in a process. Deterministic unless `temperature` is above 0.
    """

    path: Path | None = None
    temperature: float = 0.0
    top_p: float = 1.0
    max_tokens: int = 256
    seed: int = 1

    @property
    def _llm_type(self) -> str:
        return "agent-server-local"

    @property
    def _identifying_params(self) -> dict[str, Any]:
        return {"path": str(self.path or "SmolLM2-135M-Instruct")}

    def bind_tools(
        self, tools: Sequence[dict[str, Any] | type | Callable[..., Any] | BaseTool], **kwargs: Any
    ) -> Runnable[LanguageModelInput, AIMessage]:
        """The model with tools to choose from. Forced choices ("required", a name) are kept to."""
        return self.bind(tools=[_bound(tool) for tool in tools], **kwargs)

    def _generate(
        self,
        messages: list[BaseMessage],
        stop: list[str] | None = None,
        run_manager: CallbackManagerForLLMRun | None = None,
        **kwargs: Any,
    ) -> ChatResult:
        return generate_from_stream(self._stream(messages, stop, **kwargs))

    def _stream(
        self,
        messages: list[BaseMessage],
        stop: list[str] | None = None,
        run_manager: CallbackManagerForLLMRun | None = None,
        **kwargs: Any,
    ) -> Iterator[ChatGenerationChunk]:
        llama = load(self.path or model_path())
        for message in self._answer(llama, messages, stop, **kwargs):
            chunk = ChatGenerationChunk(message=message)
            if run_manager is not None:
                run_manager.on_llm_new_token(chunk.text, chunk=chunk)
            yield chunk

    async def _astream(
        self,
        messages: list[BaseMessage],
        stop: list[str] | None = None,
        run_manager: AsyncCallbackManagerForLLMRun | None = None,
        **kwargs: Any,
    ) -> AsyncIterator[ChatGenerationChunk]:
        chunks = self._stream(messages, stop, **kwargs)
        step: asyncio.Future[ChatGenerationChunk | None] | None = None
        try:
            while True:
                step = asyncio.ensure_future(asyncio.to_thread(next, chunks, None))
                chunk = await asyncio.shield(step)
                if chunk is None:
                    return
                if run_manager is not None:
                    await run_manager.on_llm_new_token(chunk.text, chunk=chunk)
                yield chunk
        finally:
            if step is not None and not step.done():  # a generator must not be closed while it runs
                step.add_done_callback(lambda _: chunks.close())  # type: ignore[attr-defined]
            else:
                await asyncio.to_thread(chunks.close)  # type: ignore[attr-defined]

    def _answer(
        self, llama: Llama, messages: list[BaseMessage], stop: list[str] | None, **kwargs: Any
    ) -> Iterator[AIMessageChunk]:
        wishes = {k: kwargs[k] for k in ("temperature", "top_p", "max_tokens") if kwargs.get(k) is not None}
        options = {
            "temperature": self.temperature,
            "top_p": self.top_p,
            "max_tokens": self.max_tokens,
            "seed": self.seed,
            **({"stop": stop} if stop else {}),
            **wishes,
        }
        tools = [_tool(bound) for bound in kwargs.get("tools") or ()]
        question = _question(messages)
        outputs = _outputs(messages)
        counted = _Counter()
        if tools and not outputs and not kwargs.get("response_format"):
            tool = _forced(tools, kwargs.get("tool_choice")) or _chosen(llama, tools, question, counted)
            if tool is not None:
                yield from _call(llama, tool, question, counted)
                yield counted.last("tool_calls")
                return
        chat = prompts.answer(question, outputs) if outputs else [_turn(message) for message in messages]
        if kwargs.get("response_format"):
            options["response_format"] = kwargs["response_format"]
        for piece in llama.stream(chat, **options):
            counted.add(piece)
            if piece.text:
                yield AIMessageChunk(content=piece.text)
        yield counted.last(counted.reason)


class _Counter:
    """The tokens of all questions that one answer took."""

    def __init__(self) -> None:
        self.input = self.output = 0
        self.reason = "stop"

    def add(self, piece: Piece) -> None:
        self.input += piece.input_tokens
        self.output += piece.output_tokens
        self.reason = piece.finish_reason or self.reason

    def last(self, reason: str) -> AIMessageChunk:
        usage = UsageMetadata(input_tokens=self.input, output_tokens=self.output, total_tokens=self.input + self.output)
        metadata = {"finish_reason": reason, "model_name": "SmolLM2-135M-Instruct"}
        return AIMessageChunk(content="", usage_metadata=usage, response_metadata=metadata, chunk_position="last")


def _chosen(llama: Llama, tools: Sequence[prompts.Tool], question: str, counted: _Counter) -> prompts.Tool | None:
    chat, grammar, by_topic = prompts.topic(tools, question)
    text = ""
    for piece in llama.stream(chat, temperature=0, seed=1, max_tokens=20, grammar=grammar):
        counted.add(piece)
        text += piece.text
    return by_topic.get(text)


def _call(llama: Llama, tool: prompts.Tool, question: str, counted: _Counter) -> Iterator[AIMessageChunk]:
    """The call's name at once, then its arguments as the model writes them."""
    yield _call_chunk("", name=tool.name, call_id=f"call_{ids.new_run_id()[:24]}")
    schema = {"type": "json_schema", "json_schema": {"name": "arguments", "schema": dict(tool.schema)}}
    chat = prompts.arguments(tool, question)
    for piece in llama.stream(chat, temperature=0, seed=1, max_tokens=256, response_format=schema):
        counted.add(piece)
        if piece.text:
            yield _call_chunk(piece.text)


def _call_chunk(args: str, *, name: str | None = None, call_id: str | None = None) -> AIMessageChunk:
    chunk = ToolCallChunk(name=name, args=args, id=call_id, index=0, type="tool_call_chunk")
    return AIMessageChunk(content="", tool_call_chunks=[chunk])


def _forced(tools: Sequence[prompts.Tool], choice: Any) -> prompts.Tool | None:
    """The tool that a tool choice leaves no choice about."""
    if choice in ("any", "required", True) and len(tools) == 1:
        return tools[0]
    name = choice.get("function", choice).get("name") if isinstance(choice, dict) else choice
    return next((tool for tool in tools if tool.name == name), None)


def _bound(tool: Any) -> dict[str, Any]:
    """A tool as OpenAI's API has it, with what its metadata tells of its use."""
    told = (tool.metadata or {}) if isinstance(tool, BaseTool) else {}
    return {**convert_to_openai_tool(tool), **{key: told[key] for key in ("topic", "examples") if key in told}}


def _tool(bound: Mapping[str, Any]) -> prompts.Tool:
    function = bound["function"]
    return prompts.Tool(
        name=function["name"],
        description=str(function.get("description") or function["name"]).strip().rstrip("."),
        schema=function.get("parameters") or {"type": "object", "properties": {}},
        topic=str(bound.get("topic", "")),
        examples=tuple(bound.get("examples", ())),
    )


def _question(messages: Sequence[BaseMessage]) -> str:
    last = next((m for m in reversed(messages) if isinstance(m, HumanMessage)), None)
    return str(last.text) if last is not None else ""


def _outputs(messages: Sequence[BaseMessage]) -> list[str]:
    """What tools have said since the last question."""
    found: list[str] = []
    for message in reversed(messages):
        if isinstance(message, HumanMessage):
            break
        if isinstance(message, ToolMessage):
            found.append(str(message.text))
    return found[::-1]


def _turn(message: BaseMessage) -> dict[str, str]:
    return {"role": _ROLES.get(message.type, "user"), "content": str(message.text)}
