"""A real server for tests: uvicorn in a thread of its own, on a free loopback port."""

from __future__ import annotations

import socket
import threading
from collections.abc import Iterator, Mapping
from concurrent.futures import Future
from contextlib import contextmanager
from typing import Any

import uvicorn
from starlette.types import ASGIApp

PATIENCE = 30.0


class _Server(uvicorn.Server):
    """Tells when it listens."""

    def __init__(self, config: uvicorn.Config) -> None:
        super().__init__(config)
        self.listening: Future[None] = Future()

    async def startup(self, sockets: list[socket.socket] | None = None) -> None:
        await super().startup(sockets)
        self.listening.set_result(None)


@contextmanager
def running(app: ASGIApp, patience: float = PATIENCE, **options: Any) -> Iterator[str]:
    """Serve an ASGI app; yields its base URL, without a slash at the end. It has `patience` seconds to stop.

    `options` are uvicorn's.
    """
    listener = socket.create_server(("127.0.0.1", 0))
    server = _Server(uvicorn.Config(app, log_config=None, lifespan="on", timeout_graceful_shutdown=5, **options))

    def run() -> None:
        try:
            server.run(sockets=[listener])
        except SystemExit as failed:  # uvicorn's word for a lifespan that failed
            server.listening.set_exception(RuntimeError(f"the server did not start: exit {failed.code}"))

    thread = threading.Thread(target=run, name="uvicorn")
    thread.start()
    try:
        server.listening.result(PATIENCE)
        yield f"http://127.0.0.1:{listener.getsockname()[1]}"
    finally:
        server.should_exit = True
        thread.join(patience)
        listener.close()
        assert not thread.is_alive(), "the server did not stop"


@contextmanager
def serving(agents: Mapping[str, Any], settings: Any = None, patience: float = PATIENCE) -> Iterator[str]:
    """Serve agents by name through `create_app`; yields the base URL."""
    from agent_server.app import create_app

    with running(create_app(dict(agents), settings), patience) as base_url:
        yield base_url
