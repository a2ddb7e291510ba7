"""Whatever clients do to stored responses, in any order and in every store, the server agrees with the model."""

from __future__ import annotations

import asyncio
import json
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

from hypothesis import HealthCheck, settings
from hypothesis import strategies as st
from hypothesis.stateful import Bundle, RuleBasedStateMachine, invariant, rule

from agent_server.graph.converter import now_ms
from tests.faults.test_cancel import terminal_of
from tests.properties.kept_model import Kept
from tests.support.exchange import Exchange, ask, frames_of, opened, response_id
from tests.support.gates import Gate
from tests.support.scripted import SCENARIOS, gated_text

WEEK = 7 * 86_400_000


class StoredResponses(RuleBasedStateMachine):
    """The real app, each request to its end before the next rule."""

    kept = Bundle("kept")
    store = "memory"

    def __init__(self) -> None:
        super().__init__()
        self.loop = asyncio.new_event_loop()
        self.folder = TemporaryDirectory()
        self.all: list[Kept] = []
        self.gate = Gate()  # runs of `slow` stop in mid-text; it lets all of them on that are there then
        slow = gated_text(["Hel", "lo"], self.gate, [" wor", "ld"])
        agents = {"quick": SCENARIOS["plain_text"], "asks": SCENARIOS["approval"], "slow": slow}
        self.opening = opened(agents, self.store.format(Path(self.folder.name)), busy_conversation="enqueue")
        self.app = self.do(self.opening.__aenter__())

    def teardown(self) -> None:
        self.do(self.opening.__aexit__(None, None, None))
        self.loop.close()
        self.folder.cleanup()

    def do(self, work: Any) -> Any:
        return self.loop.run_until_complete(work)

    def ask(self, method: str, target: str, body: Any = None) -> Exchange:
        answer: Exchange = self.do(ask(self.app, method, f"/v1/responses{target}", body))
        return answer

    def see(self, one: Kept) -> None:
        """The whole stream of one that is over; it begins with what anybody saw before."""
        stream = frames_of(self.ask("GET", f"/{one.id}?stream=true").received)
        assert stream[: len(one.frames)] == one.frames
        one.frames = stream

    @rule(target=kept, model=st.sampled_from(["quick", "asks"]), background=st.booleans(), stream=st.booleans())
    def create(self, model: str, background: bool, stream: bool) -> Kept:
        asked = {"model": model, "input": "Hello", "background": background, "stream": stream}
        answer = self.ask("POST", "", asked)
        assert answer.status == 200
        frames = frames_of(answer.received) if stream else []
        one = Kept(response_id(answer.received) if stream else json.loads(answer.received)["id"], "completed", frames)
        self.see(one)
        output = json.loads(self.ask("GET", f"/{one.id}").received)["output"]
        one.questions = [item["id"] for item in output if item["type"] == "mcp_approval_request"]
        self.all.append(one)
        return one

    @rule(target=kept)
    def start_and_cut(self) -> Kept:
        """A run in the background goes on when its reader leaves in mid-text."""

        async def cut() -> bytes:
            asked = {"model": "slow", "input": "Hello", "background": True, "stream": True}
            async with Exchange(self.app, "POST", "/v1/responses", asked) as exchange:
                return await exchange.until(b"[DONE]\n\n" if self.gate.is_open else b'"delta":"lo"')

        seen = self.do(cut())
        one = Kept(response_id(seen), "completed" if self.gate.is_open else "in_progress", frames_of(seen))
        self.all.append(one)
        return one

    @rule()
    def let_go(self) -> None:
        self.gate.open()
        for one in self.all:
            if one.state == "in_progress":
                one.finish()
                self.see(one)

    @rule(one=kept, data=st.data())
    def resume(self, one: Kept, data: st.DataObject) -> None:
        cursor = data.draw(st.integers(0, len(one.frames) + 3))
        if one.state != "in_progress":
            answer = self.ask("GET", f"/{one.id}?stream=true&starting_after={cursor}")
            assert answer.status == one.get()
            assert answer.status != 200 or answer.received == b"".join(one.after(cursor))

    @rule(one=kept)
    def cancel(self, one: Kept) -> None:
        was_over = one.is_over
        assert self.ask("POST", f"/{one.id}/cancel").status == one.cancel()
        if one.is_over and not was_over:
            self.see(one)

    @rule(one=kept, approve=st.booleans())
    def approve(self, one: Kept, approve: bool) -> None:
        kind = {"type": "mcp_approval_response", "approve": approve}
        answers = [{**kind, "approval_request_id": each} for each in one.questions]
        if answers:
            status = one.answer(approve)
            first, second = (self.ask("POST", "", {"model": "asks", "input": answers}) for _ in range(2))
            assert (first.status, first.received) == (second.status, second.received)
            assert first.status == status

    @rule(one=kept)
    def delete(self, one: Kept) -> None:
        assert self.ask("DELETE", f"/{one.id}").status == one.delete()

    @rule()
    def let_a_week_pass(self) -> None:
        """The time of whatever is over is up."""
        self.do(self.app.state.engine.keeper.store.expire(now_ms() + WEEK + 1, 1000))
        for one in self.all:
            one.expire()

    @invariant()
    def each_is_what_the_model_says(self) -> None:
        for one in self.all:
            answer = self.ask("GET", f"/{one.id}")
            assert answer.status == one.get()
            if answer.status == 200:
                assert json.loads(answer.received)["status"] == one.state
            if one.is_over:
                (end,) = terminal_of(b"".join(one.frames))
                assert end["response"] == json.loads(answer.received)

    @invariant()
    def what_is_over_holds_nothing(self) -> None:
        assert len(self.app.state.engine) == sum(one.state == "in_progress" for one in self.all)


class StoredInSqlite(StoredResponses):
    """The same on disk."""

    store = "sqlite:///{}/runs.db"


def _tested(machine: type[StoredResponses], examples: int) -> Any:
    machine.TestCase.settings = settings(
        max_examples=examples, stateful_step_count=20, deadline=None, suppress_health_check=list(HealthCheck)
    )
    return machine.TestCase


TestInMemory = _tested(StoredResponses, 15)
TestInSqlite = _tested(StoredInSqlite, 6)
