"""What is to be gone is gone: expired, deleted, or never stored at all. The database itself is looked into."""

from __future__ import annotations

import sqlite3
from contextlib import closing
from pathlib import Path

import pytest
from starlette.applications import Starlette

from agent_server.graph.converter import now_ms
from tests.support.exchange import ask, opened, response_id
from tests.support.scripted import SCENARIOS

AGENTS = {"agent": SCENARIOS["one_tool"], "asks": SCENARIOS["approval"]}
PER_PATH = ("GET", "/v1/responses/{}"), ("GET", "/v1/responses/{}?stream=true"), ("DELETE", "/v1/responses/{}")
MORE = ("POST", "/v1/responses/{}/cancel"), ("GET", "/v1/responses/{}/input_items")


def contents(path: Path) -> dict[str, int]:
    """How many rows each table holds, without those that hold something about the tables."""
    with closing(sqlite3.connect(path)) as database:
        names = [name for (name,) in database.execute("select name from sqlite_master where type = 'table'")]
        counts = {name: database.execute(f'select count(*) from "{name}"').fetchone()[0] for name in names}
    return {
        name: count for name, count in counts.items() if count and "migrations" not in name and name[:6] != "sqlite"
    }


@pytest.fixture
def path(tmp_path: Path) -> Path:
    return tmp_path / "runs.db"


async def streamed(app: Starlette, **options: object) -> str:
    answer = await ask(app, "POST", "/v1/responses", {"model": "agent", "input": "Hello", "stream": True, **options})
    return response_id(answer.received)


async def test_an_expired_response_is_gone_and_says_so(path: Path) -> None:
    async with opened(AGENTS, f"sqlite:///{path}", retention_days=1e-7) as app:
        kept = await streamed(app)
        store = app.state.engine.keeper.store
        for swept in (False, True):
            if swept:
                assert await store.expire(now_ms(), 10) == 1
            for method, target in (*PER_PATH, *MORE):
                answer = await ask(app, method, target.format(kept))
                assert answer.status == 410, (method, target, swept)
                assert (await answer.json())["error"]["code"] == "response_expired"
    assert "events" not in contents(path)
    assert "runs" not in contents(path)


async def test_a_deleted_response_leaves_nothing_behind(path: Path) -> None:
    async with opened(AGENTS, f"sqlite:///{path}") as app:
        before = contents(path)
        for background in (False, True):
            kept = await streamed(app, background=background)
            assert {"events", "runs", "checkpoints"} <= contents(path).keys()
            deleted = await (await ask(app, "DELETE", f"/v1/responses/{kept}")).json()
            assert deleted == {"id": kept, "object": "response", "deleted": True}
            assert contents(path).keys() - before.keys() <= {"threads"}
            for method, target in (*PER_PATH, *MORE):
                assert (await ask(app, method, target.format(kept))).status == 404


@pytest.mark.parametrize("model", ["agent", "asks"])
@pytest.mark.parametrize("stream", [True, False])
async def test_what_is_not_stored_leaves_no_row(path: Path, model: str, stream: bool) -> None:
    async with opened(AGENTS, f"sqlite:///{path}") as app:
        asked = {"model": model, "input": "Hello", "store": False, "stream": stream}
        answer = await ask(app, "POST", "/v1/responses", asked)
        assert answer.status == 200
        assert contents(path) == {}
        kept = response_id(answer.received) if stream else (await answer.json())["id"]
        assert (await ask(app, "GET", f"/v1/responses/{kept}")).status == 404


async def test_what_is_not_stored_leaves_no_row_though_it_goes_on_from_what_is(path: Path) -> None:
    async with opened(AGENTS, f"sqlite:///{path}") as app:
        kept = await streamed(app)
        before = contents(path)
        asked = {"model": "agent", "input": "And?", "store": False, "previous_response_id": kept}
        assert (await ask(app, "POST", "/v1/responses", asked)).status == 200
        assert contents(path) == before
