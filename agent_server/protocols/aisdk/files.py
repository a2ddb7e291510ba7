"""A file of a UI message -> a part of a message to the agent."""

from __future__ import annotations

import base64
import binascii
from collections.abc import Mapping
from typing import Any, Literal
from urllib.parse import unquote_to_bytes, urlsplit

from agent_server.errors import RequestError
from agent_server.graph.inputs import Media

_SCHEMES = ("http", "https")


def file_part(part: Mapping[str, Any], path: str) -> Media:
    """`{type: "file", url, mediaType, filename?}`; the URL is a data URL or a web address.

    Raises `RequestError` that names the field below `path`.
    """
    url, media_type = _text(part, "url", path), _text(part, "mediaType", path, required=False)
    filename = _text(part, "filename", path, required=False) or None
    if not url.startswith("data:"):
        if urlsplit(url).scheme not in _SCHEMES:
            raise RequestError("A file has a data URL, or an address of http or https.", param=f"{path}.url")
        return Media(_kind(media_type), url=url, mime_type=media_type or None, filename=filename)
    declared, content = _data(url, f"{path}.url")
    full = media_type if "/" in media_type and "*" not in media_type else declared or media_type
    return Media(_kind(full), base64=content, mime_type=full or "text/plain", filename=filename)


def _data(url: str, param: str) -> tuple[str, str]:
    """The media type of a data URL and its content in base64 (RFC 2397)."""
    head, comma, body = url.removeprefix("data:").partition(",")
    if not comma:
        raise RequestError("The data URL has no data.", param=param)
    media_type, *parameters = head.split(";")
    content = unquote_to_bytes(body)
    if "base64" not in [each.strip().lower() for each in parameters]:
        return media_type.lower(), base64.b64encode(content).decode()
    try:
        base64.b64decode(content, validate=True)
    except binascii.Error:
        raise RequestError("The data URL is not base64.", param=param) from None
    return media_type.lower(), content.decode()


def _kind(media_type: str) -> Literal["image", "audio", "file"]:
    top = media_type.partition("/")[0].lower()
    return "image" if top == "image" else "audio" if top == "audio" else "file"


def _text(part: Mapping[str, Any], name: str, path: str, *, required: bool = True) -> str:
    value = part.get(name)
    if isinstance(value, str) and (value or not required):
        return value
    if value is None and not required:
        return ""
    raise RequestError(f"'{path}.{name}' must be a string.", param=f"{path}.{name}", code="invalid_type")
