"""Content parts of a client's messages -> parts of turns, and blocks for what a tool puts out."""

from __future__ import annotations

import binascii
from typing import Any, Literal

from agent_server.errors import RequestError
from agent_server.graph.inputs import Media, Part, Text, content_of
from agent_server.protocols.agui.input import (
    AudioPart,
    BinaryPart,
    ContentPart,
    DataSource,
    FileSource,
    ImagePart,
    Source,
    TextPart,
)

Kind = Literal["image", "file", "audio"]
_WEB = ("http://", "https://")  # another could make a model library read from this server's own disk


def parts_of(content: str | list[ContentPart], path: str) -> tuple[Part, ...]:
    """The parts of a message. Raises `RequestError` naming the one that cannot be taken."""
    if isinstance(content, str):
        return (Text(content),)
    return tuple(_part(part, f"{path}[{place}]") for place, part in enumerate(content))


def output_of(content: str | list[ContentPart], path: str) -> str | list[dict[str, Any]]:
    """A tool's output: a text, or LangChain v1 content blocks."""
    return content_of(parts_of(content, path))


def _part(part: ContentPart, path: str) -> Part:
    if isinstance(part, TextPart):
        return Text(part.text)
    if isinstance(part, BinaryPart):
        return _binary(part, path)
    kind: Kind = "image" if isinstance(part, ImagePart) else "audio" if isinstance(part, AudioPart) else "file"
    return _media(kind, part.source, f"{path}.source.value")


def _media(kind: Kind, source: Source, path: str) -> Media:
    if isinstance(source, DataSource):
        return Media(kind, base64=_checked(source.value, path), mime_type=source.mime_type)
    if isinstance(source, FileSource):
        return Media(kind, file_id=source.value, mime_type=source.mime_type)
    return _located(kind, source.value, source.mime_type, path)


def _located(kind: Kind, url: str, mime_type: str | None, path: str) -> Media:
    """An address of the web, or a data URL (RFC 2397)."""
    if url[:8].lower().startswith(_WEB):
        return Media(kind, url=url, mime_type=mime_type)
    head, comma, data = url.partition(",")
    if not head.startswith("data:") or not head.endswith(";base64") or not comma:
        raise _invalid(path, "it must be an http, https or base64 data URL")
    named = head.removeprefix("data:").removesuffix(";base64").partition(";")[0]
    return Media(kind, base64=_checked(data, path), mime_type=named or mime_type or "application/octet-stream")


def _binary(part: BinaryPart, path: str) -> Media:
    family = part.mime_type.partition("/")[0]
    kind: Kind = "image" if family == "image" else "audio" if family == "audio" else "file"
    if part.data is not None:
        data = _checked(part.data, f"{path}.data")
        return Media(kind, base64=data, mime_type=part.mime_type, filename=part.filename)
    if part.url is not None:
        return _located(kind, part.url, part.mime_type, f"{path}.url")
    if part.id is not None:
        return Media(kind, file_id=part.id, mime_type=part.mime_type, filename=part.filename)
    raise _invalid(path, "it needs 'data', 'url' or 'id'")


def _checked(data: str, path: str) -> str:
    """Base64 (RFC 4648, section 4) of at least one byte."""
    try:
        decoded = binascii.a2b_base64(data, strict_mode=True)
    except ValueError:
        decoded = b""
    if not decoded:
        raise _invalid(path, "it must be base64 data")
    return data


def _invalid(path: str, why: str) -> RequestError:
    return RequestError(f"Invalid '{path}': {why}.", param=path)
