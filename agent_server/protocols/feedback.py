"""`POST /feedback`: what a person says of an answer, as an MLflow assessment of its trace.

    {"trace_id": "tr-...", "name": "user_feedback", "value": true, "rationale": "...", "user": "..."}

or `response_id` in the place of `trace_id`. A value is a boolean, a number, a string, or a list or an object of
such. The answer is 201 and the assessment as MLflow keeps it.
"""

from __future__ import annotations

import re
from typing import Any, Protocol

from starlette.requests import Request
from starlette.responses import Response
from starlette.routing import Route

from agent_server import framing
from agent_server.errors import NotFoundError, OverloadedError, RequestError
from agent_server.http.body import read_json
from agent_server.http.identity import Network, identity_of
from agent_server.protocols.responses.fields import Fields, invalid, missing, wrong_type

_TRACE_ID = re.compile(r"tr-[0-9a-f]{32}|trace:/[^/\s]+/[^/\s]+")
_RESPONSE_ID = re.compile(r"resp_[0-9a-f]{32}")
_SCALARS = (bool, int, float, str)


class Outcome(Protocol):
    """What became of feedback: `error` is "", "not_found", "invalid" or "unavailable"."""

    body: Any
    error: str


class Assessor(Protocol):
    """Who keeps feedback."""

    async def assess(self, trace_id: str | None, response_id: str | None, **feedback: Any) -> Outcome:
        """Keep feedback (name, value, rationale, user) on a trace, or on the trace of a response."""
        ...


class FeedbackApi:
    """The endpoint of one app; without an `assessor` it says that there are no traces."""

    def __init__(self, assessor: Assessor | None, proxies: tuple[Network, ...], *, max_body_bytes: int) -> None:
        self._assessor = assessor
        self._proxies = proxies
        self._limit = max_body_bytes

    def routes(self) -> list[Route]:
        """The route, for an app's own visible list."""
        return [Route("/feedback", self._create, methods=["POST"])]

    async def _create(self, request: Request) -> Response:
        fields = Fields(await read_json(request.receive, request.headers, limit=self._limit))
        trace_id, response_id = _subject(fields)
        feedback = {
            "name": fields.text("name", longest=250) or "feedback",
            "value": _value(fields),
            "rationale": fields.text("rationale", longest=65_536) or "",
            "user": identity_of(request.scope, self._proxies).user or fields.text("user", longest=250) or "",
        }
        if self._assessor is None:
            raise RequestError("This server does not trace: there is nothing to assess.", code="tracing_off")
        outcome = await self._assessor.assess(trace_id, response_id, **feedback)
        if outcome.error:
            raise _refusal(outcome.error, "trace_id" if trace_id else "response_id")
        return Response(framing.to_json(outcome.body), 201, media_type="application/json")


def _subject(fields: Fields) -> tuple[str | None, str | None]:
    """The ids, of which one must be given."""
    trace_id, response_id = fields.text("trace_id"), fields.text("response_id")
    if trace_id is None and response_id is None:
        raise missing("trace_id")
    if trace_id is not None and response_id is not None:
        raise invalid("response_id", "'trace_id' is given, too; only one of them can be")
    if trace_id is not None and not _TRACE_ID.fullmatch(trace_id):
        raise invalid("trace_id", "it is no id of a trace, such as 'tr-' and 32 hexadecimal digits")
    if response_id is not None and not _RESPONSE_ID.fullmatch(response_id):
        raise invalid("response_id", "it is no id of a response of this server")
    return trace_id, response_id


def _value(fields: Fields) -> Any:
    value = fields.required("value")
    inner = value if isinstance(value, list) else value.values() if isinstance(value, dict) else [value]
    if not all(isinstance(each, _SCALARS) for each in inner):
        raise wrong_type("value", "a boolean, a number, a string, or a list or an object of such", value)
    return value


def _refusal(error: str, param: str) -> Exception:
    if error == "not_found":
        return NotFoundError("There is no such trace.", param=param, code="trace_not_found")
    if error == "invalid":
        return RequestError("MLflow does not take this feedback.")
    return OverloadedError("The tracking server does not answer. Try again later.")
