"""A server that is killed when it has claimed an Idempotency-Key and is about to make its run: `dying.py STORE`."""

from __future__ import annotations

import asyncio
import os
import signal
import sys
from typing import Any

from tests.faults.test_cancel import body
from tests.support.exchange import ask, opened
from tests.support.faulty import FaultyStore, faulty_stores
from tests.support.scripted import SCENARIOS

KEY = {"idempotency-key": "once"}


async def main(store: str) -> None:
    """Ask it, and do not come back."""
    with faulty_stores(Dying):
        async with opened({"agent": SCENARIOS["plain_text"]}, store, lease_seconds=1) as app:
            await ask(app, "POST", "/v1/responses", body(), KEY)


class Dying(FaultyStore):
    """Dies of the first run that it is to keep."""

    def __getattr__(self, verb: str) -> Any:
        if verb == "create_run":
            os.kill(os.getpid(), signal.SIGKILL)
        return super().__getattr__(verb)


if __name__ == "__main__":
    asyncio.run(main(sys.argv[1]))
