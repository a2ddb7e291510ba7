"""Webhooks: off by default, to allowed hosts alone, signed, without redirects, to the address that was looked up."""

from __future__ import annotations

import asyncio
import hashlib
import hmac
import json
from concurrent.futures import Future
from typing import Any
from urllib.parse import urlsplit

import httpx
import pytest
from starlette.applications import Starlette
from starlette.requests import Request
from starlette.responses import Response
from starlette.routing import Route

from agent_server.errors import RequestError
from agent_server.events import RunFinished, RunStarted
from agent_server.protocols.langgraph.webhooks import SIGNATURE, Webhooks
from agent_server.runs.log import EventLog
from agent_server.settings import Settings
from tests.support.platform import echo, platform
from tests.support.serve import running

SECRET = "0123456789abcdef"
OVER = EventLog([RunStarted("r", "agent", 0), RunFinished(1)])


async def told(run_id: str) -> dict[str, Any]:
    return {"run_id": run_id, "status": "success"}


def webhooks(*hosts: str, answer: Any = None) -> tuple[Webhooks, list[httpx.Request]]:
    asked: list[httpx.Request] = []

    def handle(request: httpx.Request) -> httpx.Response:
        asked.append(request)
        return answer or httpx.Response(200)

    settings = Settings(webhook_hosts=hosts, secret=SECRET)  # type: ignore[arg-type]
    return Webhooks(settings, told, httpx.MockTransport(handle)), asked


REFUSED = {
    "off": ((), "https://localhost/"),
    "another host": (("hooks.example",), "https://localhost/"),
    "another port": (("localhost:8443",), "https://localhost/"),
    "no scheme": (("localhost",), "localhost/x"),
    "a file": (("localhost",), "file:///etc/passwd"),
    "a password": (("localhost",), "https://u:p@localhost/"),
    "another host behind a password": (("localhost",), "https://localhost@evil.example/"),
    "no address": (("localhost",), "https://[::1"),
}


@pytest.mark.parametrize(("hosts", "url"), REFUSED.values(), ids=REFUSED)
async def test_an_address_that_is_not_allowed_is_refused(hosts: tuple[str, ...], url: str) -> None:
    with pytest.raises(RequestError) as refused:
        await webhooks(*hosts)[0].check(url)
    assert (refused.value.status, refused.value.param) == (422, "webhook")


async def test_a_runs_end_is_told_with_a_signature_to_a_pinned_address() -> None:
    hooks, asked = webhooks("localhost")
    await hooks.tell("https://localhost/hook?x=1", "r", OVER)
    (request,) = asked
    assert json.loads(request.content) == {"run_id": "r", "status": "success"}
    assert request.url.host in ("127.0.0.1", "::1")
    assert (request.headers["host"], request.url.raw_path) == ("localhost", b"/hook?x=1")
    assert request.extensions["sni_hostname"] == "localhost"
    at, _, signature = request.headers[SIGNATURE].partition(",v1=")
    signed = hmac.new(SECRET.encode(), at.removeprefix("t=").encode() + b"." + request.content, hashlib.sha256)
    assert signature == signed.hexdigest()


async def test_a_redirect_is_not_followed() -> None:
    hooks, asked = webhooks("localhost", answer=httpx.Response(302, headers={"location": "https://evil.example/"}))
    await hooks.tell("https://localhost/hook", "r", OVER)
    assert len(asked) == 1


async def test_it_is_told_when_the_run_is_over_and_not_before() -> None:
    hooks, asked = webhooks("localhost")
    log = EventLog([RunStarted("r", "agent", 0)])
    telling = asyncio.create_task(hooks.tell("https://localhost/hook", "r", log))
    await asyncio.sleep(0)
    assert asked == []
    log.append(RunFinished(1))
    await telling
    assert len(asked) == 1


async def test_a_client_hears_of_its_run_where_its_host_is_allowed() -> None:
    heard: Future[dict[str, Any]] = Future()

    async def hook(request: Request) -> Response:
        heard.set_result(await request.json())
        return Response()

    with running(Starlette(routes=[Route("/hook", hook, methods=["POST"])])) as url:
        async with platform({"agent": echo()}, webhook_hosts=(urlsplit(url).netloc,)) as (client, _):
            asked = {"assistant_id": "agent", "input": {"messages": [{"role": "user", "content": "hi"}]}}
            run = (await client.post("/runs", json={**asked, "webhook": f"{url}/hook"})).json()
            told = await asyncio.wait_for(asyncio.wrap_future(heard), 20)
            assert run["kwargs"]["webhook"] == "set"
            assert (await client.post("/runs", json={**asked, "webhook": "https://x.example/"})).status_code == 422
    assert (told["run_id"], told["status"], told["error"]) == (run["run_id"], "success", None)
    assert told["values"]["messages"][-1]["content"] == "You said: hi"
