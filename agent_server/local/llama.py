"""llama.cpp in this process: one loaded model per file, asked for pieces of text.

`Llama.stream` is a plain iterator. The native call runs in a worker thread and is told to stop as soon as nobody
wants more pieces.
"""

from __future__ import annotations

import functools
import os
import queue
import threading
from collections.abc import Iterator
from pathlib import Path
from typing import Any, NamedTuple

from agent_server.errors import AgentServerError, TargetError

CONTEXT = 8192
SLOTS = 2


class ModelError(AgentServerError):
    """llama.cpp refused a request, such as a conversation longer than the model's context."""


class Piece(NamedTuple):
    """More text; at the end without text, with why the model stopped ("stop" or "length") and its token counts."""

    text: str
    finish_reason: str = ""
    input_tokens: int = 0
    output_tokens: int = 0


_loading = threading.Lock()


def load(path: Path) -> Llama:
    """The model of a file, loaded once in a process. Raises `TargetError` without the extra `local`."""
    with _loading:
        return _loaded(path)


@functools.cache
def _loaded(path: Path) -> Llama:
    try:
        import xllamacpp
    except ImportError as error:
        raise TargetError("The local model needs an extra: pip install 'agent-server[local]'") from error
    params = xllamacpp.CommonParams()
    params.model.path = str(path)
    params.n_ctx = CONTEXT
    params.n_parallel = SLOTS
    # llama.cpp's threads wait for each other without sleeping: one core stays free for everything else.
    params.cpuparams.n_threads = max(1, min((os.cpu_count() or 2) - 1, 8))
    params.verbosity = -1
    params.warmup = False
    return Llama(xllamacpp.Server(params))


class Llama:
    """A loaded model. Requests beyond its slots wait for one."""

    def __init__(self, server: Any) -> None:
        self._server = server

    def stream(self, messages: list[dict[str, str]], **options: Any) -> Iterator[Piece]:
        """The answer to chat messages, piece by piece; `options` as in OpenAI's chat completions.

        Raises `ModelError`. Closing the iterator stops the model at its next token.
        """
        # A prompt cache would make an answer depend on the questions before it.
        body = {"messages": messages, "stream": True, "stream_options": {"include_usage": True}, "cache_prompt": False}
        pieces: queue.SimpleQueue[dict[str, Any] | None] = queue.SimpleQueue()
        stopped = threading.Event()

        def take(chunk: dict[str, Any]) -> bool:
            pieces.put(chunk)
            return stopped.is_set()

        def call() -> None:
            try:
                self._server.handle_chat_completions({**body, **options}, take)
            finally:
                pieces.put(None)

        thread = threading.Thread(target=call, name="llama", daemon=True)
        thread.start()
        try:
            yield from _read(iter(pieces.get, None))
        finally:
            stopped.set()
            thread.join()


def _read(chunks: Iterator[dict[str, Any]]) -> Iterator[Piece]:
    reason = "stop"
    usage: dict[str, int] = {}
    for chunk in chunks:
        if "error" in chunk or "code" in chunk:
            raise ModelError("The local model refused the request; it may be longer than the model's context.")
        usage = chunk.get("usage") or usage
        for choice in chunk.get("choices") or ():
            reason = choice.get("finish_reason") or reason
            if text := choice["delta"].get("content"):
                yield Piece(text)
    yield Piece("", reason, usage.get("prompt_tokens", 0), usage.get("completion_tokens", 0))
