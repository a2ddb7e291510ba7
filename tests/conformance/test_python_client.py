"""`agent_server.client` against a live server: sessions, streams that are cut and go on, refusals."""

from __future__ import annotations

import logging
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import httpx
import pytest
from langchain.agents import create_agent

from agent_server.app import create_app
from agent_server.client import AgentServerError, AsyncClient, Client, ConnectionLostError, Frame, Session, following
from agent_server.client.following import Following
from agent_server.settings import Settings
from tests.support.cutting import Cutting
from tests.support.gates import Gate
from tests.support.scripted import SCENARIOS, ScriptedChatModel, chunks, gated_text
from tests.support.serve import running, serving


@pytest.fixture(autouse=True)
def _quiet(caplog: pytest.LogCaptureFixture) -> None:
    caplog.set_level(logging.CRITICAL, "uvicorn.error")  # it tells of every connection that is cut


@contextmanager
def cut(agents: Any = SCENARIOS, **options: int) -> Iterator[tuple[str, Cutting]]:
    """A server that cuts its streams."""
    app = Cutting(create_app(dict(agents), Settings(store="memory")), **options)
    with running(app) as url:
        yield url, app


def kinds(frames: list[Frame]) -> list[str]:
    return [frame.event for frame in frames]


def test_a_turn_is_streamed_asked_for_and_found_again() -> None:
    with serving(SCENARIOS) as url, Client(url) as client:
        session = client.initialize(agent="text_tool_text", user_id="ann")
        frames = list(session.stream("Weather?"))
        assert kinds(frames) == ["trace", "trace", "trace", "command_output"]
        assert frames[-1].data["answer"] == session.ask("Weather?")["answer"] == "It is sunny in Oslo."
        turn = frames[0].data["turn_id"]
        assert list(session.resume(turn)) == frames
        assert list(session.resume(turn, after=1)) == frames[2:]
        assert session.turn(turn)["exec_state"] == "completed"
        assert kinds(list(session.stream("Weather?", show_agent_traces=False))) == ["command_output"]
        again = client.initialize(session_id=session.id, token=session.token)
        assert again.id == session.id


def test_a_question_is_answered() -> None:
    with serving(SCENARIOS) as url, Client(url) as client:
        session = client.initialize(agent="approval")
        assert session.ask("Write.")["exec_state"] == "waiting"
        assert session.ask(decision="approve")["answer"] == "All sent."


def test_a_turn_is_cancelled() -> None:
    gate = Gate()
    with serving({"slow": gated_text(["Slow"], gate, [])}) as url, Client(url) as client:
        session = client.initialize()
        stream = session.stream("Hi")
        turn = next(stream).data["turn_id"]
        assert session.cancel(turn)["exec_state"] == "cancelled"
        assert kinds(list(stream)) == ["error"]
        assert session.turn(turn)["exec_state"] == "cancelled"


@pytest.mark.parametrize("scenario", ["text_tool_text", "two_parallel_tools", "approval", "tool_error_fatal"])
def test_a_stream_that_is_cut_after_every_frame_is_whole(scenario: str) -> None:
    with serving(SCENARIOS) as url, Client(url) as client:
        whole = [(f.event, f.data["sequence"]) for f in client.initialize(agent=scenario).stream("Hi")]
    with cut() as (url, server), Client(url) as client:
        session = client.initialize(agent=scenario)
        frames = list(session.stream("Hi"))
        assert [(frame.event, frame.data["sequence"]) for frame in frames] == whole
        assert server.connections == len(whole)
        assert len({frame.data["turn_id"] for frame in frames}) == 1


async def test_the_asynchronous_client_goes_on_too() -> None:
    with cut() as (url, server):
        async with AsyncClient(url) as client:
            session = await client.initialize(agent="text_tool_text")
            frames = [frame async for frame in session.stream("Hi")]
            assert kinds(frames) == ["trace", "trace", "trace", "command_output"]
            assert server.connections == 4
            turn = frames[0].data["turn_id"]
            assert [frame async for frame in session.resume(turn, after=2)] == frames[3:]
            assert (await session.turn(turn))["answer"] == (await session.ask("Hi"))["answer"]
            assert (await session.cancel(turn))["exec_state"] == "completed"
            with pytest.raises(AgentServerError):
                await session.ask(decision="approve")


class Losing(httpx.HTTPTransport):
    """Loses the first answers to streams, after the server gave them."""

    def __init__(self, count: int) -> None:
        super().__init__()
        self.lost = 0
        self._count = count

    def handle_request(self, request: httpx.Request) -> httpx.Response:
        response = super().handle_request(request)
        if request.url.path == "/invoke_agent_stream" and self.lost < self._count:
            self.lost += 1
            response.close()
            raise httpx.ReadError("lost", request=request)
        return response


def test_a_connection_lost_before_the_answer_asks_again_for_the_same_turn() -> None:
    model = ScriptedChatModel(turns=[[*chunks.text("Once"), *chunks.finish()]])
    losing = Losing(3)
    with (
        serving({"agent": create_agent(model, tools=[])}) as url,
        Client(url, http=httpx.Client(transport=losing)) as client,
    ):
        frames = list(client.initialize().stream("Hi"))
    assert frames[-1].data["answer"] == "Once"
    assert (losing.lost, len(model.calls)) == (3, 1)


def test_a_server_that_stays_away_is_given_up(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(following, "TRIES", 3)
    losing = Losing(1000)
    with serving(SCENARIOS) as url, Client(url, http=httpx.Client(transport=losing)) as client:
        session = client.initialize()
        with pytest.raises(ConnectionLostError):
            list(session.stream("Hi"))
    assert losing.lost == 4


def test_a_refusal_is_raised_and_not_tried_again() -> None:
    gate = Gate()
    with serving({"slow": gated_text([], gate, ["Done"])}) as url, Client(url) as client:
        session = client.initialize()
        stream = session.stream("Hi")
        next(stream)
        with pytest.raises(AgentServerError) as refused:
            session.ask("Else")
        assert (refused.value.status, refused.value.code) == (409, "session_busy")
        gate.open()
        assert kinds(list(stream)) == ["command_output"]
        with pytest.raises(AgentServerError) as unknown:
            session.turn("turn_0")
        assert unknown.value.status == 404
        with pytest.raises(AgentServerError) as stolen:
            client.initialize(session_id=session.id)
        assert stolen.value.code == "invalid_token"


def test_a_proxy_without_its_server_is_tried_again() -> None:
    answers = iter([httpx.Response(503), httpx.Response(502), httpx.Response(400, text="<html>")])
    http = httpx.Client(transport=httpx.MockTransport(lambda _: next(answers)))
    stream = Session(Client("http://server.test", http=http), "s", "t").stream("Hi")
    with pytest.raises(AgentServerError) as refused:
        list(stream)
    assert (refused.value.status, refused.value.code) == (400, "unknown")


def test_what_was_there_before_is_not_told_twice() -> None:
    turn = Following("token", turn_id="turn_1", after=3)
    assert turn.line("") is None
    assert turn.line('{"type":"trace","data":{"sequence":3,"turn_id":"turn_1"}}') is None
    assert turn.line('{"type":"trace","data":{"sequence":4,"turn_id":"turn_1"}}') is not None
    assert turn.call().params["after"] == 4
