"""`POST /v1/responses/input_tokens` and `POST /v1/responses/compact`: how long a conversation is, and shorter ones.

Neither calls a model. Token counts are estimates, as the model behind an agent is usually out of reach. A compacted
conversation is what the user said, word for word, and one `compaction` item with a shortened transcript of it all,
which an agent that it is sent back to reads as a message of the user's.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from starlette.requests import Request
from starlette.responses import Response
from starlette.routing import Route

from agent_server import framing, ids
from agent_server.graph.converter import now_ms
from agent_server.graph.inputs import Answer, Call, Message, Part, Reasoning, Text, ToolOutput, Turn
from agent_server.graph.tokens import estimate_tokens
from agent_server.http.body import read_json
from agent_server.http.identity import TENANT
from agent_server.protocols.responses.asked import Asked, Dialect, Said, remembers
from agent_server.protocols.responses.creation import Creation
from agent_server.protocols.responses.fields import missing
from agent_server.protocols.responses.input_items import write_input
from agent_server.protocols.responses.sealed import INTRODUCTION

LONGEST_TURN = 2_000
"""Characters of one turn in a transcript."""

LONGEST_TRANSCRIPT = 16_000
"""Characters of a transcript: about 4,000 tokens. What is older is left out."""

_MOUNT = Dialect("/v1/responses", framing.SSE, "mcp_call", keeps=True)
_RUNS_NOTHING = {"stream": None, "background": None, "store": None}
_NO_USAGE = {
    "input_tokens": 0,
    "input_tokens_details": {"cached_tokens": 0, "cache_write_tokens": 0},
    "output_tokens": 0,
    "output_tokens_details": {"reasoning_tokens": 0},
    "total_tokens": 0,
}


class CompactionApi:
    """The endpoints of one app. `max_body_bytes` bounds a request."""

    def __init__(self, creation: Creation, *, max_body_bytes: int) -> None:
        self._creation = creation
        self._limit = max_body_bytes

    def routes(self) -> list[Route]:
        """The routes, which come before those that take a response's id."""
        return [
            Route(f"{mount}/{name}", endpoint, methods=["POST"])
            for mount in ("/v1/responses", "/responses")
            for name, endpoint in (("input_tokens", self._input_tokens), ("compact", self._compact))
        ]

    async def _input_tokens(self, request: Request) -> Response:
        """`POST /v1/responses/input_tokens`: an estimate of what a response to the same request would read."""
        asked, turns = await self._read(request)
        options = asked.request.options
        count = estimate_tokens(asked.agent, turns, instructions=options.instructions, tools=options.tools)
        return _json({"object": "response.input_tokens", "input_tokens": count})

    async def _compact(self, request: Request) -> Response:
        """`POST /v1/responses/compact`. `instructions` are accepted, and told to nobody; nothing is stored."""
        asked, turns = await self._read(request, needed=("model",))
        users = [
            turn for turn in turns if isinstance(turn, Message) and turn.role == "user" and not _is_compacted(turn)
        ]
        sealed = self._creation.origins.seal.close(TENANT, transcript(turns))
        items = [{**item, "status": "completed"} for item in write_input(users)]
        output = [
            {"id": ids.item_id("msg", asked.run_id, place), **_with_parts(item)} for place, item in enumerate(items)
        ]
        output.append(
            {"id": ids.item_id("cmp", asked.run_id, len(output)), "type": "compaction", "encrypted_content": sealed}
        )
        return _json(
            {
                "id": ids.response_id(asked.run_id),
                "object": "response.compaction",
                "created_at": now_ms() // 1000,
                "output": output,
                "usage": _NO_USAGE,
            }
        )

    async def _read(self, request: Request, needed: Sequence[str] = ()) -> tuple[Asked, tuple[Turn, ...]]:
        """A request as one for a response that is not made, and the whole conversation it stands for."""
        body = await read_json(request.receive, request.headers, limit=self._limit)
        for key in needed:
            if body.get(key) is None:
                raise missing(key)
        body = {**body, **_RUNS_NOTHING, "input": body.get("input") if body.get("input") is not None else []}
        asked = await self._creation.understand(Said(body, {}, generate=False), _MOUNT)
        turns, previous = asked.request.turns, asked.origin.previous
        if previous is not None and (remembers(asked.agent, asked.origin) or asked.origin.resume is not None):
            turns = (*await self._creation.origins.turns_before(TENANT, previous), *turns)
        return asked, turns


def transcript(turns: Sequence[Turn]) -> str:
    """What was said, a paragraph for each turn, each cut to `LONGEST_TURN`; the newest `LONGEST_TRANSCRIPT`.

    What the agent thought is left out.
    """
    told: list[str] = []
    room = LONGEST_TRANSCRIPT
    for turn in reversed(turns):
        if isinstance(turn, Reasoning):
            continue
        line = _line(turn)
        room -= len(line) + 2
        if room < 0:
            told.append("[...]")
            break
        told.append(line)
    return "\n\n".join(reversed(told))


def _is_compacted(turn: Message) -> bool:
    return _text(turn.parts).startswith(INTRODUCTION)


def _line(turn: Answer | Call | Message | ToolOutput) -> str:
    if isinstance(turn, Message) and _is_compacted(turn):
        return _text(turn.parts).removeprefix(INTRODUCTION)
    if isinstance(turn, Message):
        return f"{turn.role}: {_cut(_text(turn.parts))}"
    if isinstance(turn, Answer):
        return f"assistant: {_cut(turn.refusal or _text(turn.parts))}"
    if isinstance(turn, Call):
        args = turn.args if isinstance(turn.args, str) else framing.to_json(dict(turn.args)).decode()
        return f"assistant called {turn.name}({_cut(args)})"
    return f"tool: {_cut(_text(turn.parts))}"


def _text(parts: Sequence[Part]) -> str:
    return "".join(part.text if isinstance(part, Text) else f"[{part.kind}]" for part in parts)


def _cut(text: str) -> str:
    return text if len(text) <= LONGEST_TURN else f"{text[:LONGEST_TURN]} [...]"


def _with_parts(item: Mapping[str, Any]) -> dict[str, Any]:
    """A message as responses list it: plain text as a part."""
    content = item["content"]
    return {**item, "content": [{"type": "input_text", "text": content}] if isinstance(content, str) else content}


def _json(body: dict[str, Any]) -> Response:
    return Response(framing.to_json(body), media_type="application/json")
