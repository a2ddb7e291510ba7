"""LangChain's React hooks, unmodified and in a DOM, against the LangGraph routes: `useStream` of three packages."""

from __future__ import annotations

from collections.abc import Iterator

import pytest

from agent_server.settings import Settings
from tests.conformance import node_judges
from tests.conformance.node_judges import FOLDER, Verdict
from tests.support.hooks import agents
from tests.support.serve import serving

HERE = FOLDER / "usestream"
CHECKS = ("tool_turn", "question", "failure", "stop", "reload", "old_thread", "fork", "custom_events", "queue")
FIRST = frozenset({"fork", "custom_events"})
"""What the hook of the streaming protocol has other words for."""

HOOKS = {"sdk1": CHECKS, "sdk2": CHECKS, "react": tuple(check for check in CHECKS if check not in FIRST)}


@pytest.fixture(scope="module")
def url() -> Iterator[str]:
    node_judges.ready(HERE)
    with serving(agents(), Settings(store="memory", allowed_origins=("*",))) as base_url:
        yield base_url


@pytest.fixture(scope="module", params=HOOKS)
def judged(request: pytest.FixtureRequest, url: str) -> dict[str, Verdict]:
    """The verdicts of one hook on all that it can judge: starting it takes longer than judging."""
    checks = HOOKS[request.param]
    tasks = [{"url": url, "hook": request.param, "check": check} for check in checks]
    return dict(zip(checks, node_judges.verdicts("judge", tasks, HERE), strict=True))


@pytest.mark.parametrize("check", CHECKS)
def test_a_hook_does_what_its_page_needs(judged: dict[str, Verdict], check: str) -> None:
    if check in judged:
        assert judged[check]["ok"], judged[check]["note"]
