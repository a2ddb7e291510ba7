"""The peers as a table: how each is started, what to ask it, and how to tell that its answer is complete."""

from __future__ import annotations

import importlib.util
import sys
from dataclasses import dataclass, field
from pathlib import Path

from tests.support import postgres

ROOT = Path(__file__).resolve().parents[2]


@dataclass(frozen=True)
class Program:
    """A process of the benchmark.

    `{port}` in the command is its port, `{scratch}` in the environment a folder of its own, `{postgres}` the
    address of a new cluster that commits to the disk, on the load's core: as if on another machine. `ready` is
    the path that answers 200 once it serves; a program without one is no server and prints a line instead.
    """

    name: str
    command: tuple[str, ...]
    ready: str = "/health"
    needs: str = ""
    environment: dict[str, str] = field(default_factory=dict)

    def missing(self) -> str:
        """What this program needs and is not installed, or nothing."""
        if self.needs and importlib.util.find_spec(self.needs) is None:
            return self.needs
        return "Postgres" if self.needs_postgres and postgres.binaries() is None else ""

    @property
    def needs_postgres(self) -> bool:
        """Whether it needs a cluster."""
        return any("{postgres}" in value for value in self.environment.values())


@dataclass(frozen=True)
class Wire:
    """A streaming route. `delta` marks a frame that carries tokens, `whole` the one that carries all of them.

    An answer is complete when it begins with `first`, its deltas hold every token, the `whole` frame (where
    the wire has one) holds them once more, `end` comes last, and no mark of `failure` is in it.
    """

    path: str
    delta: bytes
    whole: bytes = b""
    first: bytes = b""
    end: bytes = b"data: [DONE]\n\n"
    failure: tuple[bytes, ...] = ()


@dataclass(frozen=True)
class Peer:
    """A way to be answered: a program, and the wire it is asked over (none for the one that is no server)."""

    name: str
    program: Program
    wire: Wire | None = None


def _python(*arguments: str) -> tuple[str, ...]:
    return (sys.executable, "-m", *arguments)


def _peer_module(name: str, *arguments: str) -> tuple[str, ...]:
    return _python(f"tests.benchmarks.peers.{name}", *arguments)


_TRACKING = {"MLFLOW_TRACKING_URI": "sqlite:///{scratch}/traces.db", "MLFLOW_DISABLE_TELEMETRY": "true"}
_SERVE = _python(
    "agent_server.cli",
    "serve",
    "tests/benchmarks/fake_agent.py:agent",
    "--port",
    "{port}",
    "--log-level",
    "warning",
)
_MEMORY = {"AGENT_SERVER_STORE": "memory"}

OURS = Program("ours", _SERVE, ready="/ready", environment=_MEMORY)
OURS_TRACED = Program(
    "ours_traced", (*_SERVE, "--tracing"), ready="/ready", needs="mlflow", environment=_TRACKING | _MEMORY
)
OURS_SQLITE = Program(
    "ours_sqlite", _SERVE, ready="/ready", environment={"AGENT_SERVER_STORE": "sqlite:///{scratch}/runs.db"}
)
OURS_POSTGRES = Program(
    "ours_postgres", _SERVE, ready="/ready", needs="psycopg", environment={"AGENT_SERVER_STORE": "{postgres}"}
)
LIMIT = Program("limit", _peer_module("limit"), ready="")
BARE = Program("bare", _peer_module("bare", "{port}"))
CEILING = Program("ceiling", _peer_module("ceiling", "{port}"))
MLFLOW = [
    Program(
        f"mlflow_{tracing}",
        _peer_module("mlflow_agent_server", "{port}", tracing),
        needs="mlflow",
        environment=_TRACKING,
    )
    for tracing in ("off", "on")
]


def _responses(path: str) -> Wire:
    return Wire(
        path,
        delta=b'"type":"response.output_text.delta"',
        whole=b'"type":"response.completed"',
        first=b'"type":"response.created"',
        failure=(b'"type":"response.failed"', b'"type":"error"', b'"type":"response.incomplete"'),
    )


_PLAIN = Wire("/stream", delta=b'"delta":')
_MLFLOW = Wire(
    "/responses",
    delta=b'"type": "response.output_text.delta"',
    whole=b'"type": "response.output_item.done"',
    failure=(b'data: {"error"',),
)

PEERS = {
    peer.name: peer
    for peer in (
        Peer("ours", OURS, _responses("/v1/responses")),
        Peer("ours_responses", OURS, _responses("/responses")),
        Peer("ours_invocations", OURS, _responses("/invocations")),
        Peer("ours_traced", OURS_TRACED, _responses("/v1/responses")),
        Peer("ours_sqlite", OURS_SQLITE, _responses("/v1/responses")),
        Peer("ours_postgres", OURS_POSTGRES, _responses("/v1/responses")),
        Peer("limit", LIMIT),
        Peer("bare", BARE, _PLAIN),
        Peer("mlflow_off", MLFLOW[0], _MLFLOW),
        Peer("mlflow_on", MLFLOW[1], _MLFLOW),
        Peer("ceiling", CEILING, _PLAIN),
    )
}
