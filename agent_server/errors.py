"""The one error tree. Every protocol renders the same error in its own envelope.

    AgentServerError            code, status, retryable
    ├── RequestError            400 invalid_request_error: the client can mend it; names the parameter
    │   ├── UnsupportedError    400 unsupported_parameter: legal on the wire, not served here
    │   ├── NotFoundError       404 not_found (or a narrower code, such as model_not_found)
    │   ├── ConflictError       409 conflict: not now, or not twice
    │   ├── GoneError           410 expired: it was here, and its time is over
    │   ├── BodyTooLargeError   413 request_too_large
    │   └── MediaTypeError      415 unsupported_media_type
    ├── OverloadedError         503 overloaded: try again later
    ├── RunRefusedError         500 a run that was accepted, and cannot be done now that its turn has come
    ├── AgentError              500 server_error: the agent failed; an error id leads to the log
    └── TargetError             what the operator named cannot be served; ends the command line with 2

Messages of this tree are public: they are written for the client and never hold an exception's text.
"""

from __future__ import annotations

from typing import ClassVar


class AgentServerError(Exception):
    """Base of every error this package raises on purpose."""

    status: ClassVar[int] = 500
    type: ClassVar[str] = "server_error"
    code: str = "server_error"
    param: str | None = None

    def __init__(self, message: str) -> None:
        super().__init__(message)
        self.message = message


class RequestError(AgentServerError):
    """The request is wrong. `param` is the path of the offending parameter, such as `input[2].content`."""

    status: ClassVar[int] = 400
    type: ClassVar[str] = "invalid_request_error"

    def __init__(self, message: str, *, param: str | None = None, code: str = "invalid_value") -> None:
        super().__init__(message)
        self.param = param
        self.code = code


class UnsupportedError(RequestError):
    """A parameter of the protocol that this server, or this agent, does not serve."""

    def __init__(self, message: str, *, param: str, code: str = "unsupported_parameter") -> None:
        super().__init__(message, param=param, code=code)


class NotFoundError(RequestError):
    """What the request names does not exist, or is not the caller's."""

    status: ClassVar[int] = 404

    def __init__(self, message: str, *, param: str | None = None, code: str = "not_found") -> None:
        super().__init__(message, param=param, code=code)


class ConflictError(RequestError):
    """What the request asks for does not go together with what is going on, or has been done."""

    status: ClassVar[int] = 409

    def __init__(self, message: str, *, param: str | None = None, code: str = "conflict") -> None:
        super().__init__(message, param=param, code=code)


class GoneError(RequestError):
    """What the request names was kept, and is no longer."""

    status: ClassVar[int] = 410

    def __init__(self, message: str, *, param: str | None = None, code: str = "expired") -> None:
        super().__init__(message, param=param, code=code)


class BodyTooLargeError(RequestError):
    """The body passed the limit while it was being read."""

    status: ClassVar[int] = 413

    def __init__(self, limit: int) -> None:
        super().__init__(f"The request body is larger than {limit} bytes.", code="request_too_large")


class MediaTypeError(RequestError):
    """The body is not declared as JSON."""

    status: ClassVar[int] = 415

    def __init__(self, got: str) -> None:
        super().__init__(
            f"Content-Type must be application/json, not {got!r}.",
            param="content-type",
            code="unsupported_media_type",
        )


class OverloadedError(AgentServerError):
    """The server takes no more runs at this moment."""

    status: ClassVar[int] = 503
    type: ClassVar[str] = "overloaded_error"
    code = "overloaded"


class RunRefusedError(AgentServerError):
    """A run was accepted, waited in line, and cannot be done as things stand now."""

    def __init__(self, message: str, *, code: str = "conflict") -> None:
        super().__init__(message)
        self.code = code


class AgentError(AgentServerError):
    """The agent failed. `error_id` finds the exception in the server's log; its text goes nowhere else."""

    def __init__(self, error_id: str, *, code: str = "server_error") -> None:
        super().__init__(f"The agent failed. Error id: {error_id}")
        self.error_id = error_id
        self.code = code


class TargetError(AgentServerError):
    """A target on the command line or in langgraph.json cannot be loaded or served."""
