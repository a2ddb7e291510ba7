"""A client that vanishes says nothing: its packets are lost, and no end of the connection ever comes."""

from __future__ import annotations

import sys
import time
from typing import Any

import httpx
import pytest

from tests.faults.test_restart import server
from tests.support.wire import Wire

SEND_TIMEOUT = 1.0
SOON = 5.0


def body(text: str, conversation: str, **options: Any) -> dict[str, Any]:
    return {"input": text, "context": {"conversation_id": conversation}, **options}


@pytest.mark.skipif(sys.platform != "linux", reason="only Linux lets a socket lose what comes in")
def test_runs_whose_clients_vanished_end_and_free_their_conversations() -> None:
    """One is sent heartbeats that nobody acknowledges, the other one nothing."""
    times = {"AGENT_SERVER_SEND_TIMEOUT_SECONDS": str(SEND_TIMEOUT), "AGENT_SERVER_HEARTBEAT_SECONDS": "0.2"}
    with server("memory", **times) as (program, url), Wire(url) as streamed, Wire(url) as whole:
        streamed.post("/v1/responses", body("wait", "streamed", stream=True))
        streamed.read_until(b'"delta":"a "')
        whole.post("/v1/responses", body("wait", "whole"))
        while httpx.get(f"{url}/v1/conversations/whole").status_code == 404:  # not accepted yet
            time.sleep(0.01)
        streamed.vanish()
        whole.vanish()
        vanished = time.monotonic()
        for conversation in ("streamed", "whole"):  # each next one waits for its turn
            other = httpx.post(f"{url}/v1/responses", json=body("next", conversation), timeout=SOON)
            assert other.json()["output"][0]["content"][0]["text"] == "Half a sentence."
            assert time.monotonic() - vanished > SEND_TIMEOUT / 2, "it ended of something else"
        assert program.stop() == 0
