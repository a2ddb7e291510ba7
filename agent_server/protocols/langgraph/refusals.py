"""What this API refuses with, beyond the server's own errors: every body is `{"detail": str}`."""

from __future__ import annotations

from typing import ClassVar

from agent_server.errors import NotFoundError, RequestError


class UnprocessableError(RequestError):
    """A field of a body, or a part of an address, that is not what the API takes. The message names it."""

    status: ClassVar[int] = 422

    def __init__(self, message: str, *, param: str | None = None) -> None:
        super().__init__(message, param=param, code="unprocessable")


def no_thread(thread_id: str) -> NotFoundError:
    """There is no thread of this id."""
    return NotFoundError(f"Thread with ID {thread_id[:100]} not found", param="thread_id")


def no_run() -> NotFoundError:
    """There is no run of this id on the thread."""
    return NotFoundError("Run not found", param="run_id")


def no_assistant(assistant_id: str) -> NotFoundError:
    """There is no assistant of this id."""
    return NotFoundError(f"Assistant with ID {assistant_id[:100]} not found", param="assistant_id")
