"""What is inside a chat model's chunk or message, in every provider's shape, as a list of pieces.

Shapes: LangChain v1 content blocks, OpenAI (chat completions and Responses), Anthropic, Bedrock, and the
`additional_kwargs` that providers without content lists use for reasoning and refusals.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from typing import Any, Literal, NamedTuple

from agent_server.events import Usage
from agent_server.graph.jsonable import to_jsonable

PieceKind = Literal["text", "reasoning", "refusal", "media"]


class Piece(NamedTuple):
    """A part of one block.

    `key` is the provider's own index of the block: another key is another block. `part` is the place inside a
    reasoning block of several paragraphs (OpenAI's summary parts).
    """

    kind: PieceKind
    key: Any
    text: str = ""
    annotations: tuple[dict[str, Any], ...] = ()
    data: dict[str, Any] | None = None
    part: Any = None


def pieces(message: Any) -> Iterator[Piece]:
    """The pieces of a message or chunk, in order. Tool calls are not among them: messages carry those apart."""
    extra = message.additional_kwargs
    if extra:
        reasoning = extra.get("reasoning_content")
        if isinstance(reasoning, str) and reasoning:
            yield Piece("reasoning", None, reasoning)
    content = message.content
    if isinstance(content, str):
        if content:
            yield Piece("text", None, content)
    else:
        for block in content:
            if not isinstance(block, str):
                yield from _read_block(block)
            elif block:
                yield Piece("text", None, block)
    if extra:
        refusal = extra.get("refusal")
        if isinstance(refusal, str) and refusal:
            yield Piece("refusal", None, refusal)


def _read_block(block: Mapping[str, Any]) -> Iterator[Piece]:
    read = _READERS.get(block.get("type", ""))
    if read is not None:
        yield from read(block)


def _text(block: Mapping[str, Any]) -> Iterator[Piece]:
    raw = block.get("annotations") or block.get("citations") or ()
    annotations = tuple(annotation(a) for a in raw if isinstance(a, Mapping))
    text = block.get("text") or ""
    if text or annotations:
        yield Piece("text", block.get("index"), text, annotations)


def _reasoning(block: Mapping[str, Any]) -> Iterator[Piece]:
    key = block.get("index")
    data = _encrypted(block)
    summary = block.get("summary")
    if isinstance(summary, list):
        for part in summary:
            yield Piece("reasoning", key, part.get("text") or "", part=part.get("index"))
        if data:
            yield Piece("reasoning", key, data=data)
        return
    text = block.get("reasoning") or block.get("thinking") or ""
    if text or data:
        yield Piece("reasoning", key, text, data=data)


def _encrypted(block: Mapping[str, Any]) -> dict[str, Any] | None:
    extras = block.get("extras") or {}
    value = block.get("encrypted_content") or extras.get("encrypted_content")
    value = value or block.get("signature") or extras.get("signature")
    return {"encrypted": value} if isinstance(value, str) and value else None


def _redacted(block: Mapping[str, Any]) -> Iterator[Piece]:
    yield Piece("reasoning", block.get("index"), data={"encrypted": str(block.get("data", ""))})


def _bedrock_reasoning(block: Mapping[str, Any]) -> Iterator[Piece]:
    inner = block.get("reasoning_content")
    if isinstance(inner, Mapping):
        yield from _reasoning({**inner, "reasoning": inner.get("text"), "index": block.get("index")})


def _refusal(block: Mapping[str, Any]) -> Iterator[Piece]:
    yield Piece("refusal", block.get("index"), str(block.get("refusal") or ""))


def _media(block: Mapping[str, Any]) -> Iterator[Piece]:
    yield Piece("media", (block.get("index"), block.get("id")), data=to_jsonable(dict(block)))


def _image_url(block: Mapping[str, Any]) -> Iterator[Piece]:
    source = block.get("image_url")
    url = source.get("url") if isinstance(source, Mapping) else source
    yield Piece("media", block.get("index"), data={"type": "image", "url": str(url or "")})


_READERS: dict[str, Callable[[Mapping[str, Any]], Iterator[Piece]]] = {
    "text": _text,
    "text_delta": _text,
    "output_text": _text,
    "reasoning": _reasoning,
    "thinking": _reasoning,
    "redacted_thinking": _redacted,
    "reasoning_content": _bedrock_reasoning,
    "refusal": _refusal,
    "image": _media,
    "audio": _media,
    "video": _media,
    "file": _media,
    "image_url": _image_url,
}


def annotation(raw: Mapping[str, Any]) -> dict[str, Any]:
    """A citation in any provider's shape as a LangChain v1 annotation block."""
    kind = raw.get("type")
    if kind in ("citation", "non_standard_annotation"):
        return dict(to_jsonable(dict(raw)))
    if kind in {"url_citation", "web_search_result_location"}:
        fields = ("url", "title", "start_index", "end_index", "cited_text")
        return {"type": "citation", **{f: raw[f] for f in fields if raw.get(f) is not None}}
    if "cited_text" in raw:
        title = raw.get("document_title") or raw.get("title")
        known = {"title": title, "url": raw.get("source"), "cited_text": raw["cited_text"]}
        return {"type": "citation", **{k: v for k, v in known.items() if isinstance(v, str)}}
    return {"type": "non_standard_annotation", "value": to_jsonable(dict(raw))}


def usage(message: Any) -> Usage | None:
    """The token counts of a message (LangChain `UsageMetadata`), or None where the provider gave none."""
    raw = getattr(message, "usage_metadata", None)
    if not raw:
        return None
    given, made = raw.get("input_token_details") or {}, raw.get("output_token_details") or {}
    return Usage(
        input_tokens=raw.get("input_tokens") or 0,
        output_tokens=raw.get("output_tokens") or 0,
        total_tokens=raw.get("total_tokens") or 0,
        cached_tokens=given.get("cache_read") or 0,
        cache_write_tokens=given.get("cache_creation") or 0,
        reasoning_tokens=made.get("reasoning") or 0,
    )


_FINISH_KEYS = ("finish_reason", "stop_reason", "done_reason", "finishReason", "stopReason")
_LENGTH = frozenset({"length", "max_tokens", "max_output_tokens", "model_length"})
_FILTERED = frozenset({"content_filter", "safety", "refusal", "content_filtered", "guardrail_intervened"})


def finish_reason(message: Any) -> str:
    """Why the model stopped: "length", "content_filter", or the provider's own word ("" where it gave none)."""
    metadata = getattr(message, "response_metadata", None) or {}
    details = metadata.get("incomplete_details")
    reason = details.get("reason") if isinstance(details, Mapping) else None
    reason = str(reason or next((metadata[k] for k in _FINISH_KEYS if metadata.get(k)), ""))
    if reason.lower() in _LENGTH:
        return "length"
    return "content_filter" if reason.lower() in _FILTERED else reason
