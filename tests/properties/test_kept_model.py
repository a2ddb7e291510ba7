"""Whatever clients do to stored responses, in any order, the server agrees with a small model of what there is."""

from __future__ import annotations

import asyncio
import json
from dataclasses import dataclass, field
from typing import Any

from hypothesis import HealthCheck, settings
from hypothesis import strategies as st
from hypothesis.stateful import Bundle, RuleBasedStateMachine, invariant, rule
from msgspec.structs import replace

from agent_server.http.identity import TENANT
from tests.faults.test_cancel import terminal_of
from tests.support.exchange import Exchange, ask, frames_of, opened, response_id
from tests.support.gates import Gate
from tests.support.scripted import SCENARIOS, gated_text

ENDS = {"completed": "completed", "cancelled": "cancelled", "interrupted": "completed"}


@dataclass
class Kept:
    """What the model knows of a response: its state, and the frames that anybody has seen of it."""

    id: str
    state: str
    frames: list[bytes] = field(default_factory=list)
    gate: Gate | None = None
    questions: list[str] = field(default_factory=list)


class StoredResponses(RuleBasedStateMachine):
    """The real app in memory, each request to its end before the next rule."""

    kept = Bundle("kept")

    def __init__(self) -> None:
        super().__init__()
        self.loop = asyncio.new_event_loop()
        self.all: list[Kept] = []
        self.gates: list[Gate] = []
        agents = {"quick": SCENARIOS["plain_text"], "asks": SCENARIOS["approval"], "slow": self._slow()}
        self.opening = opened(agents, busy_conversation="enqueue")
        self.app = self.do(self.opening.__aenter__())

    def _slow(self) -> Any:
        """Runs stop in mid-text; a gate lets all of them on that are there then."""
        self.gate = Gate()
        return gated_text(["Hel", "lo"], self.gate, [" wor", "ld"])

    def do(self, work: Any) -> Any:
        return self.loop.run_until_complete(work)

    def teardown(self) -> None:
        self.do(self.opening.__aexit__(None, None, None))
        self.loop.close()

    def _made(self, one: Kept) -> Kept:
        self.all.append(one)
        return one

    @rule(target=kept, model=st.sampled_from(["quick", "asks"]), background=st.booleans(), stream=st.booleans())
    def create(self, model: str, background: bool, stream: bool) -> Kept:
        asked = {"model": model, "input": "Hello", "background": background, "stream": stream}
        answer = self.do(ask(self.app, "POST", "/v1/responses", asked))
        assert answer.status == 200
        one = Kept(response_id(answer.received) if stream else json.loads(answer.received)["id"], "completed")
        one.frames = frames_of(answer.received) if stream else []
        one = self._over(one)
        one.questions = [item["id"] for item in self._object(one)["output"] if item["type"] == "mcp_approval_request"]
        return self._made(one)

    def _over(self, one: Kept) -> Kept:
        """Its whole stream, which holds what anybody saw of it before."""
        stream = frames_of(self.do(ask(self.app, "GET", f"/v1/responses/{one.id}?stream=true")).received)
        assert stream[: len(one.frames)] == one.frames
        one.frames = stream
        return one

    def _object(self, one: Kept) -> Any:
        return self.do(self.do(ask(self.app, "GET", f"/v1/responses/{one.id}")).json())

    @rule(target=kept)
    def start_and_cut(self) -> Kept:
        """A run in the background goes on when its reader leaves in mid-text."""

        async def cut() -> bytes:
            asked = {"model": "slow", "input": "Hello", "background": True, "stream": True}
            async with Exchange(self.app, "POST", "/v1/responses", asked) as exchange:
                return await exchange.until(b'"delta":"lo"' if not self.gate.is_open else b"[DONE]")

        frames = frames_of(self.do(cut()))
        state = "completed" if self.gate.is_open else "in_progress"
        return self._made(Kept(response_id(b"".join(frames)), state, frames))

    @rule()
    def let_go(self) -> None:
        self.gate.open()
        for one in self.all:
            if one.state == "in_progress":
                one.state = "completed"
                self._over(one)

    @rule(one=kept, data=st.data())
    def resume(self, one: Kept, data: st.DataObject) -> None:
        cursor = data.draw(st.integers(0, len(one.frames) + 3))
        target = f"/v1/responses/{one.id}?stream=true&starting_after={cursor}"
        if one.state in ("deleted", "expired"):
            assert self.do(ask(self.app, "GET", target)).status == {"deleted": 404, "expired": 410}[one.state]
        elif one.state != "in_progress":
            rest = self.do(ask(self.app, "GET", target)).received
            assert rest == b"".join([*one.frames[cursor + 1 : -1], one.frames[-1]])

    @rule(one=kept)
    def cancel(self, one: Kept) -> None:
        answer = self.do(ask(self.app, "POST", f"/v1/responses/{one.id}/cancel"))
        statuses = {"in_progress": 200, "cancelled": 200, "completed": 400, "deleted": 404, "expired": 410}
        assert answer.status == statuses[one.state]
        if one.state == "in_progress":
            one.state = "cancelled"
            self._over(one)

    @rule(one=kept, approve=st.booleans())
    def approve(self, one: Kept, approve: bool) -> None:
        answers = [
            {"type": "mcp_approval_response", "approval_request_id": each, "approve": approve} for each in one.questions
        ]
        if answers:
            asked = {"model": "asks", "input": answers}
            first, second = (self.do(ask(self.app, "POST", "/v1/responses", asked)) for _ in range(2))
            assert (first.status, first.received) == (second.status, second.received)
            assert first.status in ((200, 409) if one.state == "completed" else (400, 404, 410))

    @rule(one=kept)
    def delete(self, one: Kept) -> None:
        answer = self.do(ask(self.app, "DELETE", f"/v1/responses/{one.id}"))
        assert answer.status == {"deleted": 404, "expired": 410}.get(one.state, 200)
        one.state = "expired" if one.state == "expired" else "deleted"

    @rule(one=kept)
    def expire(self, one: Kept) -> None:
        """Its time is over, unless it still runs."""
        if one.state in ("completed", "cancelled"):
            run = self.app.state.engine.keeper.store._runs[TENANT, one.id.removeprefix("resp_")]
            run.row = replace(run.row, expires_at=run.row.created_at + 1_000_000)
            self.do(self.app.state.engine.keeper.store.expire(run.row.expires_at, 1))
            one.state = "expired"

    @invariant()
    def each_is_what_the_model_says(self) -> None:
        for one in self.all:
            answer = self.do(ask(self.app, "GET", f"/v1/responses/{one.id}"))
            assert answer.status == {"deleted": 404, "expired": 410}.get(one.state, 200)
            if answer.status == 200:
                assert json.loads(answer.received)["status"] == one.state
            if one.state in ("completed", "cancelled"):
                (end,) = terminal_of(b"".join(one.frames))
                assert end["response"] == json.loads(answer.received)

    @invariant()
    def what_is_over_holds_nothing(self) -> None:
        running = sum(one.state == "in_progress" for one in self.all)
        assert len(self.app.state.engine) == running


StoredResponses.TestCase.settings = settings(
    max_examples=20, stateful_step_count=20, deadline=None, suppress_health_check=list(HealthCheck)
)
TestStoredResponses = StoredResponses.TestCase
