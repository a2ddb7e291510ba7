"""The habits of Databricks Apps and of the clients that come with them."""

from __future__ import annotations

from typing import Any

import httpx
import pytest
from langchain_core.runnables import RunnableConfig, RunnableLambda
from pydantic import ValidationError

from agent_server.context import RequestContext
from agent_server.settings import Settings
from tests.support.scripted import SCENARIOS
from tests.support.serve import serving

MOUNTS = ("/invocations", "/responses", "/v1/responses")


def test_the_platform_names_the_port_and_the_app(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("AGENT_SERVER_PORT", raising=False)
    monkeypatch.setenv("DATABRICKS_APP_PORT", "8123")
    monkeypatch.setenv("DATABRICKS_APP_NAME", "my-app")
    assert Settings().port == 8123
    with serving({"agent": SCENARIOS["plain_text"]}, Settings()) as url:
        assert httpx.get(f"{url}/agent/info").json()["name"] == "my-app"
    monkeypatch.setenv("AGENT_SERVER_PORT", "9000")
    assert Settings().port == 9000
    assert Settings(port=9001, app_name="other").app_name == "other"


@pytest.mark.parametrize("value", ["eighty", "70000", "-1"])
def test_a_port_that_is_none_is_refused(monkeypatch: pytest.MonkeyPatch, value: str) -> None:
    monkeypatch.delenv("AGENT_SERVER_PORT", raising=False)
    monkeypatch.setenv("DATABRICKS_APP_PORT", value)
    with pytest.raises(ValidationError):
        Settings()


def test_without_the_platform_the_agent_names_itself(monkeypatch: pytest.MonkeyPatch) -> None:
    for name in ("DATABRICKS_APP_PORT", "DATABRICKS_APP_NAME", "AGENT_SERVER_PORT"):
        monkeypatch.delenv(name, raising=False)
    assert (Settings().port, Settings().app_name) == (8000, None)


@pytest.mark.parametrize("path", MOUNTS)
def test_memory_that_a_client_goes_on_with_is_named_in_custom_outputs(path: str) -> None:
    with serving({"agent": SCENARIOS["plain_text"]}) as url:

        def outputs(**custom: Any) -> Any:
            return (
                httpx.post(f"{url}{path}", json={"input": "hi", "custom_inputs": custom}).json().get("custom_outputs")
            )

        assert outputs(thread_id="t", session_id="s", other=1) == {"thread_id": "t", "session_id": "s"}
        assert outputs(thread_id="t", session_id=None) == {"thread_id": "t"}
        assert outputs(other=1) is None


def test_what_the_agent_puts_out_wins_over_what_came_in() -> None:
    def answer(_: Any) -> dict[str, Any]:
        return {"output": "hi", "custom_outputs": {"thread_id": "mine", "more": 1}}

    with serving({"agent": RunnableLambda(answer)}) as url:
        body = {"input": "hi", "custom_inputs": {"thread_id": "theirs", "session_id": "s"}}
        answered = httpx.post(f"{url}/invocations", json=body).json()
    assert answered["custom_outputs"] == {"thread_id": "mine", "session_id": "s", "more": 1}


def test_conversation_and_user_reach_the_agent() -> None:
    seen: list[RequestContext] = []

    def look(_: Any, config: RunnableConfig) -> str:
        seen.append(config["configurable"]["request"])
        return "fine"

    with serving({"agent": RunnableLambda(look)}) as url:
        context = {"conversation_id": "talk-1", "user_id": "ann"}
        httpx.post(f"{url}/invocations", json={"input": "hi", "context": context}).raise_for_status()
    assert (seen[0].conversation_id, seen[0].user_id) == ("talk-1", "ann")
