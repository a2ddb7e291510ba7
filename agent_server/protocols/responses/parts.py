"""Content parts of input items -> parts of a turn. Nothing is fetched: URLs go to the model as they are."""

from __future__ import annotations

import binascii
import mimetypes
import re
from collections.abc import Callable

from agent_server.graph.inputs import Media, Part, Text
from agent_server.protocols.responses.fields import Fields, invalid, missing, not_among, wrong_type

_DETAILS = ("auto", "low", "high", "original")
_AUDIO_FORMATS = ("mp3", "wav")
_SCHEMES = ("http://", "https://")  # others could make a model library read from this server's own disk
_ANY_FILE = "application/octet-stream"
_MIME_TYPE = re.compile(r"[\w.+-]+/[\w.+-]+", re.ASCII)


def read_parts(item: Fields, key: str, *, answer: bool) -> tuple[tuple[Part, ...], str | None]:
    """The content of an item, a string or an array of parts, and the refusal in an `answer` of the model.

    An answer holds text and refusals alone. Raises `RequestError` naming the path of the part.
    """
    value = item.required(key)
    if isinstance(value, str):
        return (Text(value),), None
    if not isinstance(value, list):
        raise wrong_type(item.at(key), "a string or an array of content parts", value)
    readers = _ANSWER_PARTS if answer else _PARTS
    parts: list[Part] = []
    refusals: list[str] = []
    for part in item.children(key):
        kind = part.required_text("type")
        if answer and kind == "refusal":
            refusals.append(part.required_text("refusal"))
        elif kind in readers:
            parts.append(readers[kind](part))
        else:
            raise not_among(part.at("type"), kind, [*readers, *(["refusal"] if answer else [])])
    return tuple(parts), "\n".join(refusals) or None


def _text(part: Fields) -> Part:
    return Text(part.required_text("text", empty=True))


def _image(part: Fields) -> Part:
    detail = part.choice("detail", _DETAILS)
    key, value = _one_of(part, "image_url", "file_id")
    if key == "file_id":
        return Media("image", file_id=value, detail=detail)
    mime_type, data = _located(value, part.at(key))
    if data is None:
        return Media("image", url=value, detail=detail)
    return Media("image", base64=data, mime_type=mime_type, detail=detail)


def _file(part: Fields) -> Part:
    filename = part.text("filename")
    key, value = _one_of(part, "file_data", "file_url", "file_id")
    if key == "file_id":
        return Media("file", file_id=value, filename=filename)
    if key == "file_data" and value[:5].lower() != "data:":
        guessed = mimetypes.guess_type(filename)[0] if filename else None
        data = checked_base64(value, part.at(key))
        return Media("file", base64=data, mime_type=guessed or _ANY_FILE, filename=filename)
    mime_type, found = _located(value, part.at(key))
    if found is None:
        return Media("file", url=value, filename=filename)
    return Media("file", base64=found, mime_type=mime_type, filename=filename)


def _audio(part: Fields) -> Part:
    audio = part.required_child("input_audio")
    kind = audio.required_choice("format", _AUDIO_FORMATS)
    data = checked_base64(audio.required_text("data"), audio.at("data"))
    return Media("audio", base64=data, mime_type=f"audio/{kind}")


_TEXT_PARTS: dict[str, Callable[[Fields], Part]] = {"input_text": _text, "output_text": _text, "text": _text}
_ANSWER_PARTS = _TEXT_PARTS
_PARTS = {**_TEXT_PARTS, "input_image": _image, "input_file": _file, "input_audio": _audio}


def _one_of(part: Fields, *keys: str) -> tuple[str, str]:
    """The one field of several that says where the data is."""
    given = [key for key in keys if part.get(key) is not None]
    if not given:
        raise missing(part.at(keys[0]))
    if len(given) > 1:
        raise invalid(part.at(given[1]), f"it cannot be given beside '{given[0]}'")
    return given[0], part.required_text(given[0])


def _located(url: str, path: str) -> tuple[str, str | None]:
    """MIME type and base64 data of a data URL (RFC 2397); for an address of the web there is no data."""
    scheme = url[:8].lower()
    if scheme.startswith(_SCHEMES):
        return _ANY_FILE, None
    if not scheme.startswith("data:"):
        raise invalid(path, "it must be an http, https or data URL")
    head, _, data = url[5:].partition(",")
    mime_type, *parameters = head.split(";")
    if "base64" not in parameters or not _MIME_TYPE.fullmatch(mime_type or _ANY_FILE):
        raise invalid(path, "a data URL must have the form data:<type>;base64,<data>")
    return mime_type or _ANY_FILE, checked_base64(data, path)


def checked_base64(data: str, path: str) -> str:
    """The data, if it is base64 (RFC 4648, section 4) of at least one byte."""
    try:
        decoded = binascii.a2b_base64(data, strict_mode=True)
    except ValueError:
        decoded = b""
    if not decoded:
        raise invalid(path, "it must be base64 data")
    return data
