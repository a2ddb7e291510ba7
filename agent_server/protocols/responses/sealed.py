"""Compacted conversations on their way through a client: signed, so that what comes back is what was handed out.

The text is signed and packed, not hidden: it came from the client or was told to it.
"""

from __future__ import annotations

import base64
import binascii
import hashlib
import hmac
import zlib
from collections.abc import Mapping
from typing import Any

_SIGNATURE = hashlib.sha256().digest_size
_LARGEST = 2**20
"""Bytes of a text that is unpacked."""

INTRODUCTION = "Here is what was said earlier in this conversation, shortened:\n\n"
"""How the message begins that a compacted conversation becomes."""


class Seal:
    """Signs texts, so that they can be told from what the server never handed out."""

    def __init__(self, secret: str) -> None:
        self._key = hashlib.sha256(secret.encode()).digest()

    def close(self, tenant: str, text: str) -> str:
        """The text for a client of this tenant: signature and packed text, in base64."""
        packed = zlib.compress(text.encode())
        return base64.b64encode(self._signature(tenant, packed) + packed).decode()

    def holds(self, tenant: str, sealed: str) -> bool:
        """Whether a client of this tenant was given this."""
        try:
            data = base64.b64decode(sealed, validate=True)
        except (binascii.Error, ValueError):
            return False
        return hmac.compare_digest(data[:_SIGNATURE], self._signature(tenant, data[_SIGNATURE:]))

    def _signature(self, tenant: str, packed: bytes) -> bytes:
        return hmac.digest(self._key, b"%b\0%b" % (tenant.encode(), packed), "sha256")


def opened(item: Mapping[str, Any]) -> dict[str, Any]:
    """A `compaction` item, whose seal has been found to hold, as the message an agent is given; others as they are."""
    if item.get("type") != "compaction":
        return dict(item)
    packed = base64.b64decode(item["encrypted_content"])[_SIGNATURE:]
    text = zlib.decompressobj().decompress(packed, _LARGEST).decode()
    return {"type": "message", "role": "user", "content": INTRODUCTION + text}
