"""Ids and cursors that nobody was given: a clear refusal each time, and never an error of the server."""

from __future__ import annotations

from urllib.parse import quote

from tests.support.exchange import Exchange, ask, opened, response_id
from tests.support.scripted import SCENARIOS
from tests.support.stores import on_every_store, own_store

__all__ = ["own_store"]

IDS = (
    "resp_",
    "resp_" + "0" * 32,
    "resp_" + "0" * 31,
    "resp_" + "0" * 33,
    "resp_" + "G" * 32,
    "RESP_" + "0" * 32,
    "resp_" + "0" * 32 + "\n",
    "resp_" + "٠" * 32,
    "resp_" + "a" * 100_000,
    "' or '1'='1",
    "resp_%00",
    "\x00",
    "..",
    "%2e%2e%2fetc%2fpasswd",
    "null",
    "-1",
    "💥",
    "\udce2".encode("utf-8", "surrogateescape").decode("latin-1"),
)
ROUTES = (
    ("GET", ""),
    ("GET", "?stream=true"),
    ("GET", "?stream=true&starting_after=3"),
    ("DELETE", ""),
    ("POST", "/cancel"),
    ("GET", "/input_items"),
)
CURSORS = {
    "-1": 400,
    "": 400,
    "abc": 400,
    "1.5": 400,
    "1e3": 400,
    "+1": 400,
    " 1": 400,
    "٣": 400,
    "0x10": 400,
    "9" * 16: 400,
    "9" * 4000: 400,
    "null": 400,
    "%00": 400,
    "0": 200,
    "00": 200,
    "999999999999999": 200,
}


@on_every_store
async def test_an_id_that_was_never_given_is_not_found(store: str) -> None:
    async with opened({"agent": SCENARIOS["plain_text"]}, store) as app:
        for each in IDS:
            for method, rest in ROUTES:
                path, _, query = rest.partition("?")
                async with Exchange(app, method, f"/v1/responses/{each}{path}?{query}") as exchange:
                    await exchange.whole()
                assert exchange.status in (404, 405), (each[:50], method, rest, exchange.received[:200])
                if exchange.status == 404 and exchange.received.startswith(b"{"):
                    assert (await exchange.json())["error"]["code"]
                assert len(exchange.received) < 1000


@on_every_store
async def test_an_id_that_was_never_given_is_nothing_to_go_on_from(store: str) -> None:
    async with opened({"agent": SCENARIOS["plain_text"]}, store) as app:
        for each in IDS:
            for asked in (
                {"input": "Hi", "previous_response_id": each},
                {"input": "Hi", "conversation": each},
                {"input": [{"type": "item_reference", "id": each}]},
                {"input": [{"type": "mcp_approval_response", "approval_request_id": each, "approve": True}]},
            ):
                answer = await ask(app, "POST", "/v1/responses", asked)
                assert answer.status in (400, 404), (each[:50], asked.keys(), answer.received[:200])


@on_every_store
async def test_a_cursor_is_a_number_of_the_stream(store: str) -> None:
    async with opened({"agent": SCENARIOS["plain_text"]}, store) as app:
        live = await ask(app, "POST", "/v1/responses", {"input": "Hi", "stream": True})
        kept = response_id(live.received)
        for cursor, status in CURSORS.items():
            value = cursor if "%" in cursor else quote(cursor)
            answer = await ask(app, "GET", f"/v1/responses/{kept}?stream=true&starting_after={value}")
            assert answer.status == status, (cursor[:50], answer.received[:200])
            if status == 400:
                assert (await answer.json())["error"]["param"] == "starting_after"
            else:
                assert answer.received.endswith(b"data: [DONE]\n\n")
        for query in ("stream=perhaps", "starting_after=1"):
            assert (await ask(app, "GET", f"/v1/responses/{kept}?{query}")).status == 400
