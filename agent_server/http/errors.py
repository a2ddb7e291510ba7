"""The error tree as JSON over HTTP: OpenAI's envelope, with MLflow's `detail` beside it."""

from __future__ import annotations

import logging

from starlette.exceptions import HTTPException
from starlette.requests import ClientDisconnect, Request
from starlette.responses import Response

from agent_server import ids
from agent_server.errors import AgentServerError, NotFoundError, OverloadedError, RequestError
from agent_server.framing import to_json

logger = logging.getLogger("agent_server.http")


def error_response(error: AgentServerError, *, started: bool = False) -> Response:
    """An error as a response. `started` tells that the graph ran: clients must not repeat the request then."""
    body = {
        "error": {"message": error.message, "type": error.type, "param": error.param, "code": error.code},
        "detail": error.message,
    }
    headers = {"x-should-retry": "false"} if started or isinstance(error, RequestError) else {}
    if isinstance(error, OverloadedError):
        headers["retry-after"] = "1"
    return Response(to_json(body), error.status, headers, media_type="application/json")


async def on_agent_server_error(_: Request, error: Exception) -> Response:
    """Every error raised on purpose before a response began."""
    if not isinstance(error, AgentServerError):
        raise error
    return error_response(error)


async def on_http_exception(_: Request, error: Exception) -> Response:
    """Starlette's own 404 and 405, in the same envelope."""
    if not isinstance(error, HTTPException):
        raise error
    if error.status_code == 404:
        return error_response(NotFoundError("There is nothing at this address.", code="unknown_url"))
    wrong = RequestError(str(error.detail), code="method_not_allowed")
    response = error_response(wrong)
    response.status_code = error.status_code
    response.headers.update(error.headers or {})
    return response


async def on_client_disconnect(_: Request, __: Exception) -> Response:
    """The client left while its body was read: nobody reads this answer."""
    return Response(status_code=499)


async def on_bug(_: Request, error: Exception) -> Response:
    """A mistake of this package. The client gets an id, the log gets the rest."""
    error_id = ids.new_error_id()
    logger.error("internal error, error id %s", error_id, exc_info=error)
    return error_response(AgentServerError(f"Internal error. Error id: {error_id}"))


HANDLERS = {
    AgentServerError: on_agent_server_error,
    HTTPException: on_http_exception,
    ClientDisconnect: on_client_disconnect,
    Exception: on_bug,
}
