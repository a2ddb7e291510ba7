"""Every protocol as its clients speak it, over HTTP: what they send, and how they read what they get.

Each is a `Tongue`, so that tests can take them in pairs.
"""

from __future__ import annotations

import json
from collections.abc import Awaitable, Callable
from dataclasses import dataclass, field
from typing import Any, NamedTuple
from uuid import UUID

from starlette.applications import Starlette

from tests.support.agui import Client
from tests.support.agui_asking import body, user
from tests.support.exchange import Exchange, ask

THREAD = "7b6f5d0e-4c1a-4f5e-9a53-0f5a3c9d2e11"
"""LangGraph's clients know no other ids than UUIDs."""

PARAMETERS = {"type": "object", "properties": {"city": {"type": "string"}}}
"""Of the client's tool `get_weather`."""

Frames = list[tuple[str, Any]]


@dataclass
class Place:
    """An app, and what clients know of its one thread and of the run that is going on there."""

    app: Starlette
    run: str = ""
    token: dict[str, str] = field(default_factory=dict)  # a session's, once one is open

    def exchange(self, method: str, target: str, said: Any = None) -> Exchange:
        return Exchange(self.app, method, target, said, self.token)

    async def ask(self, method: str, target: str, said: Any = None) -> Exchange:
        return await ask(self.app, method, target, said, self.token)

    async def told(self, target: str) -> Any:
        return await (await self.ask("GET", target)).json()


class Ends(NamedTuple):
    """The terminals of runs, as a protocol tells them."""

    over: str
    cancelled: str
    waiting: str


class Tongue:
    """One protocol."""

    ends: Ends
    sees = b"Hello"
    """What it tells of a run in the middle of its text."""
    tools: Any = None
    """How its clients declare the tool `get_weather` of their own; None where they cannot."""

    request: Callable[[str], tuple[str, Any]]  # text -> where a run is asked for, and how
    again: Callable[[Place], str]  # where a run is read again
    approve: Callable[[Place], Awaitable[Exchange]]  # says yes to the question that there is
    deliver: Callable[[Place], Awaitable[Exchange]] | None = None  # the output "Rainy" of the call `call_oslo`
    stop: Callable[[Place], str]
    text: Callable[[Frames], str]
    terminals: Callable[[Frames], list[str]]

    async def enter(self, place: Place) -> None:
        """What a client does first."""

    async def begin(self, place: Place) -> Exchange:
        return place.exchange("POST", *self.request("Hi"))

    async def watch(self, place: Place) -> Exchange:
        return place.exchange("GET", self.again(place))

    async def refusal(self, place: Place) -> str:
        """Why it may not begin a run now."""
        refused = await place.ask("POST", *self.request("Me, too!"))
        assert refused.status == 409
        return str(await refused.json())

    async def whole(self, exchange: Exchange, end: str) -> Frames:
        """All that is told of a run, up to its end."""
        return frames_of(await exchange.whole())


def frames_of(stream: bytes) -> Frames:
    """The events of a stream, by the names they have on it."""
    found: Frames = []
    for block in stream.decode().replace("\r\n", "\n").strip("\n").split("\n\n"):
        fields = dict(line.split(": ", 1) for line in block.split("\n") if not line.startswith(":"))
        if fields.get("data", "[DONE]") != "[DONE]":
            data = json.loads(fields["data"])
            found.append((fields.get("event") or data["type"], data))
    return found


class Responses(Tongue):
    tools = ({"type": "function", "name": "get_weather", "parameters": PARAMETERS},)
    ends = Ends("response.completed completed", "response.incomplete cancelled", "response.completed completed")

    def request(self, said: str) -> tuple[str, Any]:
        return "/v1/responses", {"input": said, "stream": True, "context": {"conversation_id": THREAD}}

    def again(self, place: Place) -> str:
        return f"/v1/responses/resp_{place.run}?stream=true"

    async def approve(self, place: Place) -> Exchange:
        items = (await place.told(f"/v1/conversations/{THREAD}/items?order=asc"))["data"]
        assert items[-1]["type"] == "mcp_approval_request"
        answer = {"type": "mcp_approval_response", "approval_request_id": items[-1]["id"], "approve": True}
        return self._answers(place, answer)

    async def deliver(self, place: Place) -> Exchange:
        return self._answers(place, {"type": "function_call_output", "call_id": "call_oslo", "output": "Rainy"})

    def _answers(self, place: Place, answer: Any) -> Exchange:
        return place.exchange("POST", "/v1/responses", {"input": [answer], "conversation": THREAD, "stream": True})

    def stop(self, place: Place) -> str:
        return f"/v1/responses/resp_{place.run}/cancel"

    def text(self, frames: Frames) -> str:
        return "".join(data["delta"] for name, data in frames if name == "response.output_text.delta")

    def terminals(self, frames: Frames) -> list[str]:
        names = ("response.completed", "response.incomplete", "response.failed")
        return [f"{name} {data['response']['status']}" for name, data in frames if name in names]


_ASKS = {"assistant_id": "agent", "stream_mode": "messages-tuple", "multitask_strategy": "reject"}


class LangGraph(Tongue):
    ends = Ends("end success", "end interrupted", "end success")

    def request(self, said: str) -> tuple[str, Any]:
        given = {"messages": [{"role": "user", "content": said}]}
        return f"/threads/{THREAD}/runs/stream", {**_ASKS, "input": given, "if_not_exists": "create"}

    def again(self, place: Place) -> str:
        return f"/threads/{THREAD}/runs/{UUID(place.run)}/stream?stream_mode=messages-tuple"

    async def approve(self, place: Place) -> Exchange:
        return await self._resumes(place, {"decisions": [{"type": "approve"}]})

    async def deliver(self, place: Place) -> Exchange:
        return await self._resumes(place, "Rainy")

    async def _resumes(self, place: Place, value: Any) -> Exchange:
        (question,) = (await place.told(f"/threads/{THREAD}/state"))["interrupts"]
        command = {"resume": {question["id"]: value}}
        return place.exchange("POST", f"/threads/{THREAD}/runs/stream", {**_ASKS, "command": command})

    def stop(self, place: Place) -> str:
        return f"/threads/{THREAD}/runs/{UUID(place.run)}/cancel?wait=true"

    def text(self, frames: Frames) -> str:
        chunks = [data[0] for name, data in frames if name == "messages"]
        return "".join(chunk["content"] for chunk in chunks if chunk["type"] == "AIMessageChunk")

    def terminals(self, frames: Frames) -> list[str]:
        return [f"{name} {data['status']}" for name, data in frames if name in ("end", "error")]


class LangGraphEvents(LangGraph):
    """The second generation: commands, and a stream of the thread that outlives its runs."""

    ends = Ends("completed", "interrupted", "interrupted")

    async def begin(self, place: Place) -> Exchange:
        return await self._after(place, await self._command(place, "run.start", self._run("Hi")))

    def _run(self, said: str) -> dict[str, Any]:
        given = {"messages": [{"role": "user", "content": said}]}
        return {"assistant_id": "agent", "input": given, "multitaskStrategy": "reject"}

    async def _command(self, place: Place, method: str, params: Any) -> Any:
        said = {"id": 1, "method": method, "params": params}
        return await (await place.ask("POST", f"/threads/{THREAD}/commands", said)).json()

    async def _after(self, place: Place, done: Any) -> Exchange:
        assert done["type"] == "success", done
        return self._events(place, done["meta"]["applied_through_seq"])

    def _events(self, place: Place, since: int) -> Exchange:
        said = {"channels": ["messages", "lifecycle", "input"], "since": since}
        return place.exchange("POST", f"/threads/{THREAD}/stream/events", said)

    async def watch(self, place: Place) -> Exchange:
        return self._events(place, 0)

    async def refusal(self, place: Place) -> str:
        refused = await self._command(place, "run.start", self._run("Me, too!"))
        assert refused["type"] == "error"
        return str(refused)

    async def _resumes(self, place: Place, value: Any) -> Exchange:
        async with await self.watch(place) as seen:
            frames = await self.whole(seen, "interrupted")
        (asked,) = [data["params"]["data"] for name, data in frames if name == "input.requested"]
        answer = {"interrupt_id": asked["interrupt_id"], "response": value}
        return await self._after(place, await self._command(place, "input.respond", answer))

    async def whole(self, exchange: Exchange, end: str) -> Frames:
        return frames_of(await exchange.until(b'"data":{"event":"%b"' % end.encode()))

    def text(self, frames: Frames) -> str:
        told = [data["params"]["data"] for name, data in frames if name == "messages"]
        said = {each["id"] for each in told if each["event"] == "message-start" and each["role"] == "ai"}
        deltas = [each for each in told if each["event"] == "content-block-delta"]
        return "".join(each["delta"]["text"] for each in deltas if each["id"] in said)

    def terminals(self, frames: Frames) -> list[str]:
        told = [data["params"]["data"]["event"] for name, data in frames if name == "lifecycle"]
        return [event for event in told if event != "running"]


class AgUi(Tongue):
    tools = ({"name": "get_weather", "description": "The weather.", "parameters": PARAMETERS},)
    ends = Ends("success", "cancelled", "interrupt")

    def request(self, said: str) -> tuple[str, Any]:
        return "/agui", body(user(said, said), thread=THREAD)

    def again(self, place: Place) -> str:
        return f"/agui/agent/threads/{THREAD}/events"

    async def approve(self, place: Place) -> Exchange:
        _, end = frames_of((await place.ask("GET", self.again(place))).received)[-1]
        (question,) = end["outcome"]["interrupts"]
        answer = {"interruptId": question["id"], "status": "resolved", "payload": {"approved": True}}
        return place.exchange("POST", "/agui", body(thread=THREAD, run="r2", resume=[answer]))

    async def deliver(self, place: Place) -> Exchange:
        output = {"id": "o1", "role": "tool", "toolCallId": "call_oslo", "content": "Rainy"}
        return place.exchange("POST", "/agui", body(output, thread=THREAD, run="r2"))

    def stop(self, place: Place) -> str:
        return f"/agui/agent/threads/{THREAD}/cancel"

    def text(self, frames: Frames) -> str:
        return str(Client().read([data for _, data in frames]).text()[-1])

    def terminals(self, frames: Frames) -> list[str]:
        return [data["outcome"]["type"] for name, data in frames if name in ("RUN_FINISHED", "RUN_ERROR")]


class AiSdk(Tongue):
    tools = {"get_weather": {"parameters": PARAMETERS}}  # noqa: RUF012 - as JSON has it
    ends = Ends("finish stop", "abort", "finish tool-calls")

    def request(self, said: str) -> tuple[str, Any]:
        return self._says({"id": said, "role": "user", "parts": [{"type": "text", "text": said}]})

    def _says(self, message: Any) -> tuple[str, Any]:
        return "/api/chat", {"id": THREAD, "message": message}

    def again(self, place: Place) -> str:
        return f"/api/chat/{THREAD}/stream"

    async def approve(self, place: Place) -> Exchange:
        (question,) = (await place.told(f"/threads/{THREAD}/state"))["interrupts"]
        approval = {"id": f"{question['id']}.0", "approved": True}
        return self._answers(place, state="approval-responded", approval=approval)

    async def deliver(self, place: Place) -> Exchange:
        return self._answers(place, state="output-available", toolName="get_weather", input={}, output="Rainy")

    def _answers(self, place: Place, **given: Any) -> Exchange:
        part = {"type": "dynamic-tool", "toolCallId": "call_oslo", **given}
        return place.exchange("POST", *self._says({"id": "a1", "role": "assistant", "parts": [part]}))

    def stop(self, place: Place) -> str:
        return f"/api/chat/{THREAD}/stop"

    def text(self, frames: Frames) -> str:
        return "".join(data["delta"] for name, data in frames if name == "text-delta")

    def terminals(self, frames: Frames) -> list[str]:
        told = [data for name, data in frames if name in ("finish", "abort", "error")]
        return [
            " ".join([data["type"], *([data["finishReason"]] if data["type"] == "finish" else ())]) for data in told
        ]


class Turns(Tongue):
    ends = Ends("completed", "cancelled", "waiting")
    sees = b'"Hi"'  # its text comes as a whole; until then there is the query

    async def enter(self, place: Place) -> None:
        if not place.token:
            opened = await (await place.ask("POST", "/initialize", {"session_id": THREAD})).json()
            place.token = {"authorization": f"Bearer {opened['token']}"}

    def request(self, said: str) -> tuple[str, Any]:
        return "/invoke_agent_stream", {"user_query": said}

    def again(self, place: Place) -> str:
        return f"/turns/turn_{place.run}/events"

    async def approve(self, place: Place) -> Exchange:
        return place.exchange("POST", "/invoke_agent_stream", {"decision": "approve"})

    def stop(self, place: Place) -> str:
        return f"/turns/turn_{place.run}/cancel"

    def text(self, frames: Frames) -> str:
        return str(frames[-1][1]["answer"])

    def terminals(self, frames: Frames) -> list[str]:
        return [data["exec_state"] for name, data in frames if name in ("command_output", "error")]


TONGUES = {
    "responses": Responses(),
    "langgraph": LangGraph(),
    "langgraph-events": LangGraphEvents(),
    "ag-ui": AgUi(),
    "ai-sdk": AiSdk(),
    "turns": Turns(),
}
