"""One Idempotency-Key makes one run, however often and however fast it is used."""

from __future__ import annotations

import asyncio
import signal
import subprocess
import sys
from pathlib import Path

import pytest

from agent_server.http.identity import TENANT
from tests.faults import dying
from tests.faults.dying import KEY
from tests.faults.test_cancel import body
from tests.support.exchange import Exchange, ask, opened
from tests.support.gates import Gate
from tests.support.scripted import SCENARIOS, gated_text

ROOT = Path(__file__).parents[2]


@pytest.fixture(params=["memory", "sqlite"])
def store(request: pytest.FixtureRequest, tmp_path: Path) -> str:
    return "memory" if request.param == "memory" else f"sqlite:///{tmp_path}/runs.db"


@pytest.mark.parametrize("stream", [False, True], ids=["whole", "streamed"])
async def test_fifty_posts_at_once_make_one_run_and_get_one_answer(store: str, stream: bool) -> None:
    asked = {"input": "Hello", "conversation": None, "context": {"conversation_id": "c1"}, "stream": stream}
    async with opened({"agent": SCENARIOS["plain_text"]}, store) as app:
        answers = await asyncio.gather(*(ask(app, "POST", "/v1/responses", asked, KEY) for _ in range(50)))
        accepted = [each for each in answers if each.status == 200]
        assert {each.status for each in answers} <= {200, 409}
        assert len({each.received for each in accepted}) == 1
        for each in answers:
            if each.status == 409:
                assert (await each.json())["error"]["code"] == "idempotency_key_in_use"
        assert len(await app.state.engine.keeper.store.runs(TENANT, "c1")) == 1
        again = await ask(app, "POST", "/v1/responses", asked, KEY)
        assert (again.status, again.received) == (200, accepted[0].received)


async def test_a_key_that_is_used_while_its_run_goes_on_joins_it(store: str) -> None:
    gate = Gate()
    async with (
        opened({"agent": gated_text(["Hel", "lo"], gate, [" wor", "ld"])}, store) as app,
        Exchange(app, "POST", "/v1/responses", body(stream=True), KEY) as first,
    ):
        await first.until(b'"delta":"lo"')
        async with Exchange(app, "POST", "/v1/responses", body(stream=True), KEY) as second:
            await second.until(b'"delta":"lo"')
            second.leave()
        async with Exchange(app, "POST", "/v1/responses", body(stream=True), KEY) as third:
            gate.open()
            assert await first.whole() == await third.whole()
        assert b"response.completed" in first.received


async def test_a_key_with_another_body_is_refused_and_on_another_route_is_another_key(store: str) -> None:
    async with opened({"agent": SCENARIOS["plain_text"]}, store) as app:
        first = await (await ask(app, "POST", "/v1/responses", {"input": "a"}, KEY)).json()
        other = await ask(app, "POST", "/v1/responses", {"input": "b"}, KEY)
        assert (other.status, (await other.json())["error"]["param"]) == (422, "idempotency-key")
        elsewhere = await ask(app, "POST", "/responses", {"input": "b"}, KEY)
        assert elsewhere.status == 200
        assert (await elsewhere.json())["id"] != first["id"]


@pytest.mark.parametrize("kind", ["sqlite", "postgres"])
async def test_a_key_whose_process_was_killed_before_it_made_a_run_is_free_again(
    kind: str, request: pytest.FixtureRequest, tmp_path: Path
) -> None:
    store = str(request.getfixturevalue("postgres")) if kind == "postgres" else f"sqlite:///{tmp_path}/runs.db"
    killed = subprocess.run([sys.executable, "-m", dying.__name__, store], cwd=ROOT, check=False, timeout=60)
    assert killed.returncode == -signal.SIGKILL
    async with opened({"agent": SCENARIOS["plain_text"]}, store, lease_seconds=1) as app, asyncio.timeout(10):
        assert await app.state.engine.keeper.store.runs(TENANT, "c1") == []
        while (answer := await ask(app, "POST", "/v1/responses", body(), KEY)).status == 409:
            await asyncio.sleep(0.05)
        assert answer.status == 200
        assert (await ask(app, "POST", "/v1/responses", body(), KEY)).received == answer.received
        assert len(await app.state.engine.keeper.store.runs(TENANT, "c1")) == 1


@pytest.mark.parametrize("key", ["", "x" * 256])
async def test_a_key_has_a_length(key: str) -> None:
    async with opened({"agent": SCENARIOS["plain_text"]}) as app:
        refused = await ask(app, "POST", "/v1/responses", {"input": "a"}, {"idempotency-key": key})
        assert (refused.status, (await refused.json())["error"]["param"]) == (400, "idempotency-key")


async def test_what_is_not_stored_cannot_be_repeated() -> None:
    async with opened({"agent": SCENARIOS["plain_text"]}) as app:
        refused = await ask(app, "POST", "/v1/responses", {"input": "a", "store": False}, KEY)
        assert (refused.status, (await refused.json())["error"]["param"]) == (400, "store")
