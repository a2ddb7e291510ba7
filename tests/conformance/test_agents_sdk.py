"""The OpenAI Agents SDK for Python as the judge: it lets a hosted MCP tool, the agent itself, ask for approval."""

from __future__ import annotations

from collections.abc import AsyncIterator, Iterator
from typing import Any, Literal

import pytest
from agents import Agent, HostedMCPTool, ModelBehaviorError, OpenAIResponsesModel, RunConfig, Runner
from agents.result import RunResultBase
from openai import AsyncOpenAI, BadRequestError

from agent_server.settings import Settings
from tests.support.asking import ASKING
from tests.support.serve import serving
from tests.support.stores import on_every_store, store

__all__ = ["store"]

Mode = Literal["run", "stream"]
modes = pytest.mark.parametrize("mode", ["run", "stream"])
QUIET = RunConfig(tracing_disabled=True)


@pytest.fixture(scope="module")
def url(store: str) -> Iterator[str]:
    with serving(ASKING, Settings(store=store)) as base_url:
        yield base_url


@pytest.fixture
async def client(url: str) -> AsyncIterator[AsyncOpenAI]:
    async with AsyncOpenAI(base_url=f"{url}/v1", api_key="none", max_retries=0) as openai:
        yield openai


def agent(client: AsyncOpenAI, model: str, *, declared: bool = True, asked: Any = None, **config: Any) -> Agent[Any]:
    """An agent whose model is the server's, and whose only tool are the server's own."""
    tool = HostedMCPTool(
        {"type": "mcp", "server_label": model, "server_url": "https://mcp.invalid", **config},  # type: ignore[typeddict-item]
        on_approval_request=asked,
    )
    return Agent(name="chat", model=OpenAIResponsesModel(model, client), tools=[tool] if declared else [])


async def run(asking: Agent[Any], mode: Mode, given: Any, **more: Any) -> RunResultBase:
    if mode == "run":
        return await Runner.run(asking, given, run_config=QUIET, **more)
    result = Runner.run_streamed(asking, given, run_config=QUIET, **more)
    async for _ in result.stream_events():
        pass
    return result


@modes
@pytest.mark.parametrize("follows", [False, True], ids=["whole history", "previous response"])
async def test_an_interruption_is_approved_and_the_run_goes_on(client: AsyncOpenAI, mode: Mode, follows: bool) -> None:
    asking = agent(client, "approval", require_approval="always")
    more = {"auto_previous_response_id": True} if follows else {}
    first = await run(asking, mode, "Write!", **more)
    (interruption,) = first.interruptions  # type: ignore[attr-defined]
    assert (interruption.name, interruption.raw_item.server_label) == ("send_email", "approval")
    state = first.to_state()  # type: ignore[attr-defined]
    state.approve(interruption)
    second = await run(asking, mode, state)
    assert second.final_output == "Outputs: Sent to oslo@b.example."


@modes
async def test_an_interruption_is_rejected(client: AsyncOpenAI, mode: Mode) -> None:
    asking = agent(client, "approval", require_approval="always")
    first = await run(asking, mode, "Write!")
    state = first.to_state()  # type: ignore[attr-defined]
    state.reject(first.interruptions[0], rejection_message="Not today.")  # type: ignore[attr-defined]
    second = await run(asking, mode, state)
    assert second.final_output.endswith("Not today.")


@modes
async def test_two_interruptions_are_answered_each_its_own_way(client: AsyncOpenAI, mode: Mode) -> None:
    asking = agent(client, "two_approvals")
    first = await run(asking, mode, "Write!")
    state = first.to_state()  # type: ignore[attr-defined]
    oslo, rome = first.interruptions  # type: ignore[attr-defined]
    state.approve(oslo)
    state.reject(rome)
    second = await run(asking, mode, state)
    assert "Sent to oslo@b.example." in second.final_output
    assert "Sent to rome" not in second.final_output


@modes
async def test_a_callback_approves_within_one_run(client: AsyncOpenAI, mode: Mode) -> None:
    asked: list[str] = []

    def approve(request: Any) -> Any:
        asked.append(request.data.name)
        return {"approve": True}

    result = await run(agent(client, "approval", asked=approve), mode, "Write!")
    assert result.final_output == "Outputs: Sent to oslo@b.example."
    assert asked == ["send_email"]


@modes
async def test_the_history_that_it_sends_back_is_heard_once(client: AsyncOpenAI, mode: Mode) -> None:
    hearing = agent(client, "hearing", declared=False)
    first = await run(hearing, mode, "One.")
    second = await run(hearing, mode, [*first.to_input_list(), {"role": "user", "content": "Two."}])
    assert second.final_output == "I heard [u:One. | a:I heard [u:One.] | u:Two.]"
    third = await run(hearing, mode, "Three.", previous_response_id=second.last_response_id)
    assert (
        third.final_output == f"I heard [u:One. | a:{first.final_output} | u:Two. | a:{second.final_output} | u:Three.]"
    )


@on_every_store
@modes
async def test_after_an_approval_the_dialogue_goes_on(client: AsyncOpenAI, mode: Mode) -> None:
    asking = agent(client, "approval", asked=lambda _: {"approve": True})
    first = await run(asking, mode, "Write!")
    second = await run(asking, mode, [*first.to_input_list(), {"role": "user", "content": "Again!"}])
    assert second.final_output == "Outputs: Sent to oslo@b.example."


@modes
async def test_without_the_declaration_the_client_knows_no_approvals(client: AsyncOpenAI, mode: Mode) -> None:
    with pytest.raises(ModelBehaviorError, match="MCP server label approval not found"):
        await run(agent(client, "approval", declared=False), mode, "Write!")


@pytest.mark.parametrize(
    ("model", "config", "param"),
    [
        ("approval", {"server_label": "other"}, "tools[0].server_label"),
        ("approval", {"allowed_tools": ["get_tides"]}, "tools[0].allowed_tools"),
        ("looking", {"require_approval": "always"}, "tools[0].require_approval"),
    ],
)
async def test_what_the_declaration_asks_for_in_vain_is_refused(
    client: AsyncOpenAI, model: str, config: dict[str, Any], param: str
) -> None:
    with pytest.raises(BadRequestError) as raised:
        await run(agent(client, model, **config), "run", "Write!")
    assert raised.value.param == param
