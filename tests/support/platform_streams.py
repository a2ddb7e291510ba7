"""A server for LangGraph's clients over each kind of store, and its streams read byte for byte."""

from __future__ import annotations

import json
from collections.abc import AsyncIterator, Iterator
from pathlib import Path
from typing import Any

import httpx
import pytest
from langgraph_sdk import get_client
from langgraph_sdk.client import LangGraphClient

from agent_server.settings import Settings
from tests.support.asking import ASKING
from tests.support.gates import PATIENCE, Gate
from tests.support.scripted import SCENARIOS, gated_text
from tests.support.serve import serving

HI: Any = {"messages": [{"role": "user", "content": "hi"}]}
EVERY_MODE: Any = [
    "values",
    "updates",
    "messages",
    "messages-tuple",
    "events",
    "custom",
    "debug",
    "tasks",
    "checkpoints",
]


class Gated:
    """An agent that waits in the middle of its answer."""

    def __init__(self) -> None:
        self.gate = Gate()
        self.agent = gated_text(["One ", "two "], self.gate, ["three ", "four."])


@pytest.fixture
def gated() -> Gated:
    return Gated()


@pytest.fixture(params=["memory", "sqlite"])
def url(request: pytest.FixtureRequest, tmp_path: Path, gated: Gated) -> Iterator[str]:
    store = "memory" if request.param == "memory" else f"sqlite:///{tmp_path}/runs.db"
    names = ("one_tool", "subgraph", "custom_events", "failing_runnable", "model_error_before_first_token")
    agents = {name: SCENARIOS[name]() for name in names}
    agents |= {"question": ASKING["question"](), "gated": gated.agent}
    with serving(agents, Settings(store=store, heartbeat_seconds=0.2, allowed_origins=("https://page.example",))) as at:
        yield at


@pytest.fixture
async def client(url: str) -> AsyncIterator[LangGraphClient]:
    async with get_client(url=url, api_key=None) as opened:
        yield opened


def frames(text: str) -> list[tuple[str, Any, str]]:
    """(event name, data, id) of each frame; comments are passed over."""
    blocks = [block.split("\r\n") for block in text.split("\r\n\r\n") if block and not block.startswith(":")]
    fields = [dict(line.split(": ", 1) for line in block) for block in blocks]
    return [(each["event"], json.loads(each["data"]), each["id"]) for each in fields]


async def streamed(url: str, path: str, headers: dict[str, str] | None = None, **body: Any) -> httpx.Response:
    async with httpx.AsyncClient(base_url=url, timeout=PATIENCE) as http:
        method = "POST" if body else "GET"
        return await http.request(method, path, json=body or None, headers=headers)


async def thread_of(client: LangGraphClient) -> str:
    return str((await client.threads.create())["thread_id"])
