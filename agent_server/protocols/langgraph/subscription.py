"""What one reader of a thread's stream wants: channels, namespaces, how deep, and from where on.

Namespaces are prefixes. A segment without its run-time part (`child` for `child:uuid`) stands for all its runs, as
LangGraph's clients have it.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from agent_server.errors import RequestError

CHANNELS = ("values", "updates", "messages", "tools", "custom", "lifecycle", "input", "tasks", "checkpoints")
_MOST = 64  # channels or namespaces of one subscription
_LARGEST = 2**53 - 1

Namespace = tuple[str, ...]


@dataclass(frozen=True, slots=True)
class Subscription:
    """One reader's wishes. `namespaces` is None for all, `depth` None for any; frames up to `since` are known."""

    channels: frozenset[str]
    namespaces: tuple[Namespace, ...] | None = None
    depth: int | None = None
    since: int = 0

    def wants(self, channel: str, ns: Namespace) -> bool:
        """Whether an event is to be told. A named custom channel is part of `custom`."""
        known = channel in self.channels or (channel.startswith("custom:") and "custom" in self.channels)
        return known and any(self._reaches(prefix, ns) for prefix in self.namespaces or ((),))

    def _reaches(self, prefix: Namespace, ns: Namespace) -> bool:
        if len(prefix) > len(ns) or not all(map(_stands_for, prefix, ns)):
            return False
        return self.depth is None or len(ns) - len(prefix) <= self.depth


def _stands_for(wanted: str, segment: str) -> bool:
    return wanted == segment or (":" not in wanted and segment.partition(":")[0] == wanted)


def read_subscription(body: Mapping[str, Any]) -> Subscription:
    """A subscription as JSON has it. Raises `RequestError`, whose message names the field."""
    channels = _texts(body.get("channels"), "channels")
    unknown = [each for each in channels if each not in CHANNELS and not each.startswith("custom:")]
    if unknown or not channels:
        named = f"unsupported entries: {', '.join(unknown)[:200]}" if unknown else "no entries"
        allowed = f"Allowed: {', '.join(CHANNELS)}, or any `custom:<name>`."
        raise RequestError(f"channels contains {named}. {allowed}", param="channels", code="invalid_argument")
    spaces = body.get("namespaces")
    if spaces is not None and (not isinstance(spaces, list) or len(spaces) > _MOST):
        raise _wrong("namespaces", f"a list of at most {_MOST} lists of texts")
    namespaces = tuple(_texts(each, "namespaces") for each in spaces) if spaces else None
    depth, since = _count(body.get("depth"), "depth"), _count(body.get("since"), "since")
    return Subscription(frozenset(channels), namespaces, depth, since or 0)


def _texts(value: Any, name: str) -> tuple[str, ...]:
    whole = isinstance(value, list) and len(value) <= _MOST and all(isinstance(each, str) for each in value)
    if not whole:
        raise _wrong(name, f"a list of at most {_MOST} texts")
    return tuple(value)


def _count(value: Any, name: str) -> int | None:
    if value is None:
        return None
    if not isinstance(value, int) or isinstance(value, bool) or not 0 <= value <= _LARGEST:
        raise _wrong(name, "a whole number that is not negative")
    return value


def _wrong(name: str, what: str) -> RequestError:
    return RequestError(f"'{name}' must be {what}.", param=name, code="invalid_argument")
