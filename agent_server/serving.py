"""Serving processes: one that answers requests, or several that share a port under a supervisor.

uvicorn serves. Added here: the operator's code is imported before the event loop starts, what an app raises in
its lifespan is reported in one line, synchronous agents get threads enough, and the moment of listening is told.
"""

from __future__ import annotations

import asyncio
import gc
import logging.config
import multiprocessing
import os
import signal
import socket
import sys
import sysconfig
import threading
import time
import traceback
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import AsyncExitStack, contextmanager
from functools import partial
from math import ceil
from multiprocessing.connection import Connection, wait
from multiprocessing.process import BaseProcess
from pathlib import Path
from typing import Any, NamedTuple

import click
import uvicorn
from starlette.applications import Starlette

from agent_server.errors import AgentServerError, TargetError
from agent_server.settings import Settings

logger = logging.getLogger("agent_server")

EXTRAS = {
    "xllamacpp": "local",
    "rich": "local",
    "langchain_openai": "openai",
    "mlflow": "mlflow",
    "psycopg": "postgres",
    "psycopg_pool": "postgres",
}
"""Module -> the extra of this package that brings it."""

LAST_WORDS = 2.0
"""Seconds that a stream has, after the grace, to send its terminal event."""

Announce = Callable[[Sequence[str]], Any]


class Plan(NamedTuple):
    """What to serve and how; travels to worker processes."""

    targets: tuple[str, ...]
    folder: Path
    settings: Settings


# One process


def serve(plan: Plan, sock: socket.socket, announce: Announce) -> None:
    """Serve until SIGTERM or SIGINT. `announce` gets the names of the agents once the socket listens.

    Raises `TargetError` when an agent cannot be loaded or opened.
    """
    from agent_server.app import create_app  # here, because a supervisor needs none of it
    from agent_server.http.connection import OneRequestAtATime, limit_silence
    from agent_server.http.socket import LAST_WORD, MAX_MESSAGE_BYTES
    from agent_server.loader import load_targets

    settings = plan.settings
    logging.config.dictConfig(_logging(settings.log_level))
    agents = load_targets(plan.targets, plan.folder)
    app = create_app(agents, settings)
    patience = settings.send_timeout_seconds
    limit_silence(sock, patience + min(patience, LAST_WORD))  # who is given up can still hear why
    config = uvicorn.Config(
        app,
        http=OneRequestAtATime,
        ws="websockets-sansio",
        ws_max_size=MAX_MESSAGE_BYTES,
        lifespan="off",
        log_config=None,
        access_log=settings.log_level in ("info", "debug"),
        proxy_headers=False,
        server_header=False,
        timeout_graceful_shutdown=ceil(settings.shutdown_grace_seconds + LAST_WORDS),
    )
    Server(config, app, settings, partial(announce, list(agents))).run(sockets=[sock])
    _leave_threads_behind()


class Server(uvicorn.Server):
    """uvicorn's server around a Starlette app, with the app's lifespan in its own hands."""

    def __init__(self, config: uvicorn.Config, app: Starlette, settings: Settings, announce: Callable[[], Any]) -> None:
        super().__init__(config)
        self._app = app
        self._announce = announce
        self._grace = settings.shutdown_grace_seconds
        self._executor = ThreadPoolExecutor(settings.sync_threads, thread_name_prefix="agent")
        self._life = AsyncExitStack()

    async def startup(self, sockets: list[socket.socket] | None = None) -> None:
        """Open the app, then listen."""
        asyncio.get_running_loop().set_default_executor(self._executor)
        state = await self._life.enter_async_context(self._app.router.lifespan_context(self._app))
        self.lifespan.state.update(state or {})
        try:
            for each in sockets or ():
                each.listen(self.config.backlog)  # uvloop would pass over its failure
        except OSError as error:
            await self._life.aclose()
            raise AgentServerError(f"cannot listen: {error.strerror}") from error
        await super().startup(sockets)
        _calm_the_collector()
        if not self.should_exit:
            self._announce()

    async def shutdown(self, sockets: list[socket.socket] | None = None) -> None:
        """Stop listening, give open requests their grace, close the app, and wait for no thread.

        Runs that outlast the grace are cancelled, so that their streams end with a terminal event.
        """
        self._app.state.ready = False
        ending = asyncio.create_task(self._end_runs())
        await super().shutdown(sockets)
        ending.cancel()
        await self._life.aclose()
        self._executor.shutdown(wait=False, cancel_futures=True)
        asyncio.get_running_loop().set_default_executor(ThreadPoolExecutor(1))

    async def _end_runs(self) -> None:
        await asyncio.sleep(self._grace)
        await self._app.state.engine.aclose()

    @contextmanager
    def capture_signals(self) -> Iterator[None]:
        """A signal that ended the server in good order is not raised again: the exit code is 0."""
        with super().capture_signals():
            yield
            self._captured_signals.clear()


def _calm_the_collector() -> None:
    """Take what is loaded out of the garbage collector's sight, and let it look less often.

    A run makes thousands of small objects that reference counts free; LangChain alone brings some 100,000 that
    every full collection would walk over again.
    """
    gc.collect()
    gc.freeze()
    gc.set_threshold(25_000, 20, 200)


def _leave_threads_behind(patience: float = 1.0) -> None:
    """Exit at once if synchronous code still runs: Python would wait for its threads, possibly for ever."""
    deadline = time.monotonic() + patience
    others = [each for each in threading.enumerate() if not each.daemon and each is not threading.main_thread()]
    for thread in others:
        thread.join(max(0.0, deadline - time.monotonic()))
    if stuck := sum(thread.is_alive() for thread in others):
        logger.warning("%d threads still run synchronous code; they end here.", stuck)
        sys.stdout.flush()
        sys.stderr.flush()
        os._exit(0)


def bind(host: str, port: int) -> socket.socket:
    """A socket bound to the address, not listening yet. Raises `AgentServerError` if that cannot be had."""
    try:
        found = socket.getaddrinfo(host, port, type=socket.SOCK_STREAM, flags=socket.AI_PASSIVE)
        family, kind, protocol, _, address = min(found, key=lambda each: each[0] != socket.AF_INET)
        sock = socket.socket(family, kind, protocol)
    except OSError as error:
        raise AgentServerError(f"cannot listen on {host}:{port}: {error.strerror}") from error
    try:
        sock.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        sock.bind(address)
    except OSError as error:
        sock.close()
        raise AgentServerError(f"cannot listen on {host}:{port}: {error.strerror}") from error
    return sock


def _logging(level: str) -> dict[str, Any]:
    """Everything to stderr; libraries from warnings up."""
    shown = level.upper()
    return {
        "version": 1,
        "disable_existing_loggers": False,
        "formatters": {"line": {"format": "%(asctime)s %(levelname)s %(name)s: %(message)s"}},
        "handlers": {"stderr": {"class": "logging.StreamHandler", "formatter": "line"}},
        "loggers": {"agent_server": {"level": shown}, "uvicorn": {"level": shown}},
        "root": {"handlers": ["stderr"], "level": shown if level in ("critical", "error") else "WARNING"},
    }


# Several processes


class Supervisor:
    """Worker processes that accept from one socket.

    The first worker shows whether the agents can be served; the others follow. A worker that dies is replaced;
    one that never came to listen ends the server.
    """

    def __init__(self, plan: Plan, sock: socket.socket, announce: Announce) -> None:
        self._plan = plan
        self._sock = sock
        self._announce = announce
        self._spawn = multiprocessing.get_context("spawn")
        self._workers: dict[BaseProcess, Connection] = {}
        self._starting: set[BaseProcess] = set()
        self._names: Sequence[str] = ()

    def run(self) -> int:
        """Serve until SIGTERM or SIGINT; the exit code."""
        logging.config.dictConfig(_logging(self._plan.settings.log_level))
        with _signals() as stopped:
            try:
                self._start()
                while True:
                    sentinels = [each.sentinel for each in self._workers]
                    ready = wait([stopped, *sentinels, *(self._workers[each] for each in self._starting)])
                    if stopped in ready:
                        return 0
                    for worker in [each for each in self._workers if each.sentinel in ready]:
                        worker.join()
                        if worker in self._starting:
                            return 2 if worker.exitcode == 2 else 1
                        self._replace(worker)
                    for worker in [each for each in self._starting if self._workers[each] in ready]:
                        self._listens(worker)
            finally:
                self._stop()

    def _start(self) -> None:
        ours, its = self._spawn.Pipe()
        worker = self._spawn.Process(target=_work, args=(self._plan, self._sock, its))
        worker.start()
        its.close()
        self._workers[worker] = ours
        self._starting.add(worker)

    def _replace(self, worker: BaseProcess) -> None:
        logger.warning("Worker %s ended with %s; another one starts.", worker.pid, worker.exitcode)
        self._workers.pop(worker).close()
        self._start()

    def _listens(self, worker: BaseProcess) -> None:
        try:
            names = self._workers[worker].recv()
        except EOFError:  # it is ending; its sentinel tells how
            return
        self._starting.remove(worker)
        while len(self._workers) < self._plan.settings.workers:
            self._start()
        if not self._starting and not self._names:
            self._names = names
            self._announce(names)

    def _stop(self) -> None:
        deadline = time.monotonic() + self._plan.settings.shutdown_grace_seconds + 5
        for worker in self._workers:
            worker.terminate()
        for worker in self._workers:
            worker.join(max(0.0, deadline - time.monotonic()))
            if worker.is_alive():
                worker.kill()
                worker.join()


def _work(plan: Plan, sock: socket.socket, supervisor: Connection) -> None:
    """The life of a worker process."""
    signal.signal(signal.SIGINT, signal.SIG_IGN)  # a terminal sends it to all; the supervisor passes on what counts
    threading.Thread(target=_end_with, args=(supervisor,), daemon=True).start()
    sys.exit(exit_code(lambda: serve(plan, sock, supervisor.send)))


def _end_with(supervisor: Connection) -> None:
    try:
        supervisor.recv()
    except (EOFError, OSError):
        os.kill(os.getpid(), signal.SIGTERM)


@contextmanager
def _signals() -> Iterator[socket.socket]:
    """A socket that becomes readable with SIGTERM or SIGINT."""
    reader, writer = socket.socketpair()
    writer.setblocking(False)
    caught = (signal.SIGTERM, signal.SIGINT)
    before = [signal.signal(each, lambda *_: None) for each in caught]
    descriptor = signal.set_wakeup_fd(writer.fileno())
    try:
        yield reader
    finally:
        signal.set_wakeup_fd(descriptor)
        for each, handler in zip(caught, before, strict=True):
            signal.signal(each, handler)
        reader.close()
        writer.close()


# Errors


def exit_code(call: Callable[[], int | None]) -> int:
    """Run it; what it raises on purpose becomes a line on stderr and the exit code: 2 for targets, else 1."""
    try:
        return call() or 0
    except TargetError as error:
        click.echo(f"agent-server: {error.message}{_origin(error.__cause__)}", err=True)
        return 2
    except AgentServerError as error:
        click.echo(f"agent-server: {error.message}", err=True)
        return 1


def _origin(error: BaseException | None) -> str:
    """The operator's own exception and the last line of the operator's own code that led to it."""
    if error is None:
        return ""
    lines = [] if isinstance(error, SyntaxError) else _line(error)
    lines += "".join(traceback.format_exception_only(error)).splitlines()
    extra = EXTRAS.get((error.name or "").partition(".")[0]) if isinstance(error, ImportError) else None
    if extra:
        lines.append(f"It comes with an extra: pip install 'agent-server[{extra}]'")
    return "".join(f"\n  {line}" for line in lines)


def _line(error: BaseException) -> list[str]:
    ours = (str(Path(__file__).parent), sysconfig.get_path("stdlib"), sysconfig.get_path("purelib"), "<")
    frames = traceback.extract_tb(error.__traceback__)
    theirs = [frame for frame in frames if not frame.filename.startswith(ours)]
    return [f'File "{frame.filename}", line {frame.lineno}: {frame.line}' for frame in theirs[-1:]]
