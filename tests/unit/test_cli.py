"""The command line serves, says so once, ends cleanly, and tells what is wrong in a line."""

from __future__ import annotations

import asyncio
import os
import re
import select
import signal
import socket
import subprocess
import sys
from collections.abc import AsyncIterator, Sequence
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any, get_args

import click
import httpx
import pytest
from click.testing import CliRunner

from agent_server import __version__, cli
from agent_server.serving import bind
from agent_server.settings import LogLevel, Settings, ToolItems

PATIENCE = 60.0
ROOT = Path(__file__).parents[2]
LISTENING = re.compile(r"agent-server listening on (http://127\.0\.0\.1:\d+) \(agents: (.*)\)")
ECHO = "from langchain_core.runnables import RunnableLambda\nagent = RunnableLambda(lambda value: 'Hi.')\n"


class Process:
    """A server in a process of its own; its output is read line by line, each wait is bounded."""

    def __init__(self, process: asyncio.subprocess.Process) -> None:
        self._process = process
        self.pid = process.pid
        self.url = ""
        self.agents = ""

    async def line(self) -> str:
        assert self._process.stdout is not None
        async with asyncio.timeout(PATIENCE):
            return (await self._process.stdout.readline()).decode()

    async def error_with(self, text: str) -> str:
        """The first line of stderr from now on that holds this text."""
        assert self._process.stderr is not None
        async with asyncio.timeout(PATIENCE):
            while line := (await self._process.stderr.readline()).decode():
                if text in line:
                    return line
        raise AssertionError(f"no line with {text!r} on stderr")

    async def listening(self) -> None:
        found = LISTENING.fullmatch((await self.line()).strip())
        if found is None:
            raise AssertionError((await self.ended())[2])
        self.url, self.agents = found.groups()

    async def ended(self) -> tuple[int, str, str]:
        """Exit code and what was left of stdout and stderr."""
        async with asyncio.timeout(PATIENCE):
            out, err = await self._process.communicate()
        assert self._process.returncode is not None
        return self._process.returncode, out.decode(), err.decode()

    def send(self, number: signal.Signals) -> None:
        self._process.send_signal(number)


@asynccontextmanager
async def running(
    folder: Path, *args: str, module: str = "agent_server", env: dict[str, str] | None = None
) -> AsyncIterator[Process]:
    own = {key: value for key, value in os.environ.items() if not key.startswith(("AGENT_SERVER_", "MLFLOW_"))}
    process = await asyncio.create_subprocess_exec(
        sys.executable,
        *("-m", module, *args),
        cwd=folder,
        env={**own, "PYTHONPATH": str(ROOT), **(env or {})},
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
    )
    try:
        yield Process(process)
    finally:
        if process.returncode is None:
            process.kill()
            await process.communicate()


async def result(folder: Path, *args: str, env: dict[str, str] | None = None) -> tuple[int, str, str]:
    async with running(folder, *args, env=env) as process:
        return await process.ended()


def write(folder: Path, **sources: str) -> None:
    for name, source in sources.items():
        (folder / f"{name}.py").write_text(source)


def children(pid: int) -> list[int]:
    return [int(each) for each in Path(f"/proc/{pid}/task/{pid}/children").read_text().split()]


def wait_gone(pid: int) -> None:
    """Until the process has ended; it need not be a child."""
    try:
        descriptor = os.pidfd_open(pid)
    except ProcessLookupError:
        return
    try:
        assert select.select([descriptor], [], [], PATIENCE)[0], f"process {pid} is still there"
    finally:
        os.close(descriptor)


# Serving


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT])
@pytest.mark.parametrize("module", ["agent_server", "agent_server.cli"])
async def test_it_says_once_where_it_listens_is_ready_then_and_ends_with_0(
    number: signal.Signals, module: str, tmp_path: Path
) -> None:
    write(tmp_path, bot=ECHO)
    async with running(tmp_path, "serve", "bot.py", "again=bot.py", "--port", "0", module=module) as server:
        await server.listening()
        assert server.agents == "bot, again"
        ready = httpx.get(f"{server.url}/ready")
        assert ready.status_code == 200
        assert "server" not in ready.headers
        server.send(number)
        assert await server.ended() == (0, "", "")


async def test_settings_come_from_the_environment_and_requests_are_logged_when_asked(tmp_path: Path) -> None:
    write(tmp_path, bot=ECHO)
    env = {"AGENT_SERVER_PORT": "0", "AGENT_SERVER_LOG_LEVEL": "info"}
    async with running(tmp_path, "serve", "bot:agent", env=env) as server:
        await server.listening()
        httpx.get(f"{server.url}/health")
        assert "GET /health" in await server.error_with("uvicorn.access")
        server.send(signal.SIGTERM)
        code, out, _ = await server.ended()
        assert (code, out) == (0, "")


async def test_langgraph_json_in_the_folder_is_served_without_a_target(tmp_path: Path) -> None:
    write(tmp_path, bot=ECHO)
    (tmp_path / "langgraph.json").write_text('{"graphs": {"one": "./bot.py:agent", "two": "./bot.py:agent"}}')
    async with running(tmp_path, "serve", "--port", "0") as server:
        await server.listening()
        assert server.agents == "one, two"


SLOW_TO_OPEN = """
import sys
from langchain_core.runnables import RunnableLambda
def agent():
    print("opening", file=sys.stderr, flush=True)
    open("gate").read()
    return RunnableLambda(lambda value: "Hi.")
"""


async def test_nobody_can_connect_before_the_agents_are_open(tmp_path: Path) -> None:
    write(tmp_path, bot=SLOW_TO_OPEN)
    os.mkfifo(tmp_path / "gate")
    with bind("127.0.0.1", 0) as free:
        port = free.getsockname()[1]
    async with running(tmp_path, "serve", "bot.py", "--port", str(port)) as server:
        await server.error_with("opening")
        with pytest.raises(httpx.ConnectError):
            httpx.get(f"http://127.0.0.1:{port}/ready")
        (tmp_path / "gate").write_text("")
        await server.listening()
        assert httpx.get(f"{server.url}/ready").status_code == 200


TOGETHER = """
import threading
from langchain_core.runnables import RunnableLambda
barrier = threading.Barrier(12)
def meet(value):
    barrier.wait(30)
    return "Met."
agent = RunnableLambda(meet)
"""


async def test_synchronous_agents_run_side_by_side(tmp_path: Path) -> None:
    write(tmp_path, bot=TOGETHER)
    async with running(tmp_path, "serve", "bot.py", "--port", "0") as server:
        await server.listening()
        async with httpx.AsyncClient(base_url=server.url, timeout=PATIENCE) as client:
            asked = [client.post("/v1/responses", json={"input": "Hello"}) for _ in range(12)]
            answers = await asyncio.gather(*asked)
    assert [answer.json()["status"] for answer in answers] == ["completed"] * 12


STUCK = """
import sys, threading
from langchain_core.runnables import RunnableLambda
def hang(value):
    print("hanging", file=sys.stderr, flush=True)
    threading.Event().wait()
agent = RunnableLambda(hang)
"""


async def test_a_synchronous_agent_that_never_returns_does_not_hold_up_the_end(tmp_path: Path) -> None:
    write(tmp_path, bot=STUCK)
    env = {"AGENT_SERVER_SHUTDOWN_GRACE_SECONDS": "0"}
    async with running(tmp_path, "serve", "bot.py", "--port", "0", env=env) as server:
        await server.listening()
        async with httpx.AsyncClient(base_url=server.url, timeout=PATIENCE) as client:
            asked = asyncio.ensure_future(client.post("/v1/responses", json={"input": "Hello"}))
            await server.error_with("hanging")
            server.send(signal.SIGTERM)
            code, _, err = await server.ended()
            assert (await asked).json()["status"] == "cancelled"
    assert code == 0
    assert "1 threads still run synchronous code" in err


STREAMS = """
import asyncio
from langchain_core.runnables import RunnableGenerator
async def talk(values):
    yield "Hello"
    await asyncio.Event().wait()
agent = RunnableGenerator(talk)
"""


async def test_a_stream_that_outlasts_the_grace_ends_with_a_terminal_event(tmp_path: Path) -> None:
    write(tmp_path, bot=STREAMS)
    env = {"AGENT_SERVER_SHUTDOWN_GRACE_SECONDS": "0"}
    async with running(tmp_path, "serve", "bot.py", "--port", "0", env=env) as server:
        await server.listening()
        body = {"input": "Hi", "stream": True}
        async with (
            httpx.AsyncClient(base_url=server.url, timeout=PATIENCE) as client,
            client.stream("POST", "/v1/responses", json=body) as response,
        ):
            lines = response.aiter_lines()
            async for line in lines:
                if '"delta":"Hello"' in line:
                    break
            server.send(signal.SIGTERM)
            rest = [line async for line in lines]
        assert (await server.ended())[0] == 0
    assert [line for line in rest if line][-1] == "data: [DONE]"
    assert "event: response.incomplete" in rest


# Workers


async def test_workers_share_the_port_and_a_dead_one_is_replaced(tmp_path: Path) -> None:
    write(tmp_path, bot=ECHO)
    async with running(tmp_path, "serve", "bot.py", "--port", "0", "--workers", "2") as server:
        await server.listening()
        workers = [each for each in children(server.pid) if b"spawn_main" in cmdline(each)]
        assert len(workers) == 2
        assert httpx.get(f"{server.url}/ready").status_code == 200
        os.kill(workers[0], signal.SIGKILL)
        assert f"Worker {workers[0]} ended with -9" in await server.error_with("another one starts")
        now = [each for each in children(server.pid) if b"spawn_main" in cmdline(each)]
        server.send(signal.SIGTERM)
        assert await server.ended() == (0, "", "")
        for worker in {*workers, *now}:
            wait_gone(worker)


def cmdline(pid: int) -> bytes:
    return Path(f"/proc/{pid}/cmdline").read_bytes()


async def test_a_target_that_fails_in_the_workers_is_reported_once(tmp_path: Path) -> None:
    write(tmp_path, bot="1 / 0\n")
    code, out, err = await result(tmp_path, "serve", "bot.py", "--port", "0", "--workers", "3")
    assert (code, out) == (2, "")
    assert err.count("ZeroDivisionError: division by zero") == 1


async def test_workers_end_with_their_supervisor(tmp_path: Path) -> None:
    write(tmp_path, bot=ECHO)
    async with running(tmp_path, "serve", "bot.py", "--port", "0", "--workers", "2") as server:
        await server.listening()
        workers = [each for each in children(server.pid) if b"spawn_main" in cmdline(each)]
        server.send(signal.SIGKILL)
        assert (await server.ended())[0] == -9
        for worker in workers:
            wait_gone(worker)


# What is wrong


async def test_a_port_in_use_is_one_line_and_1(tmp_path: Path) -> None:
    write(tmp_path, bot=ECHO)
    with socket.create_server(("127.0.0.1", 0)) as taken:
        port = taken.getsockname()[1]
        code, out, err = await result(tmp_path, "serve", "bot.py", "--port", str(port))
    assert (code, out, err) == (1, "", f"agent-server: cannot listen on 127.0.0.1:{port}: Address already in use\n")


async def test_a_port_that_was_taken_while_the_agents_opened_is_one_line_and_1(tmp_path: Path) -> None:
    write(tmp_path, bot=SLOW_TO_OPEN)
    os.mkfifo(tmp_path / "gate")
    with bind("127.0.0.1", 0) as other:
        port = other.getsockname()[1]
        async with running(tmp_path, "serve", "bot.py", "--port", str(port)) as server:
            await server.error_with("opening")
            other.listen()
            (tmp_path / "gate").write_text("")
            assert await server.ended() == (1, "", "agent-server: cannot listen: Address already in use\n")


async def test_an_unknown_host_is_one_line_and_1(tmp_path: Path) -> None:
    code, _, err = await result(tmp_path, "serve", "bot.py", "--host", "nowhere.invalid")
    assert code == 1
    assert re.fullmatch(r"agent-server: cannot listen on nowhere.invalid:8000: .*\n", err)


@pytest.mark.parametrize(
    ("source", "lines"),
    [
        (
            "x = 1\nprint(1 / 0)\n",
            [
                "agent-server: The target 'bot.py' cannot be imported: its code raised ZeroDivisionError.",
                '  File "{bot}", line 2: print(1 / 0)',
                "  ZeroDivisionError: division by zero",
            ],
        ),
        (
            "import json\njson.loads('{')\n",
            [
                "agent-server: The target 'bot.py' cannot be imported: its code raised JSONDecodeError.",
                "  File \"{bot}\", line 2: json.loads('{{')",
                "  json.decoder.JSONDecodeError: Expecting property name enclosed in double quotes: "
                "line 1 column 2 (char 1)",
            ],
        ),
        (
            "x = 1\ndef (:\n",
            [
                "agent-server: The target 'bot.py' cannot be imported: its code raised SyntaxError.",
                '    File "{bot}", line 2',
                "      def (:",
                "          ^",
                "  SyntaxError: invalid syntax",
            ],
        ),
        (
            "raise ModuleNotFoundError(\"No module named 'mlflow'\", name='mlflow')\n",
            [
                "agent-server: The target 'bot.py' cannot be imported: its code raised ModuleNotFoundError.",
                "  File \"{bot}\", line 1: raise ModuleNotFoundError(\"No module named 'mlflow'\", name='mlflow')",
                "  ModuleNotFoundError: No module named 'mlflow'",
                "  It comes with an extra: pip install 'agent-server[mlflow]'",
            ],
        ),
        (
            "async def agent():\n    raise LookupError('no key')\n",
            [
                "agent-server: The agent 'bot' cannot be opened: its code raised LookupError.",
                "  File \"{bot}\", line 2: raise LookupError('no key')",
                "  LookupError: no key",
            ],
        ),
        ("agent = 1\n", ["agent-server: bot.py has no graph or Runnable; tried agent, graph, app and all others."]),
    ],
)
async def test_a_bad_target_shows_the_operators_own_line_and_ends_with_2(
    source: str, lines: Sequence[str], tmp_path: Path
) -> None:
    write(tmp_path, bot=source)
    code, out, err = await result(tmp_path, "serve", "bot.py", "--port", "0")
    assert (code, out) == (2, "")
    assert err.splitlines() == [line.format(bot=tmp_path / "bot.py") for line in lines]


async def test_bad_settings_are_named_line_by_line(tmp_path: Path) -> None:
    env = {"AGENT_SERVER_PORT": "eight", "AGENT_SERVER_TRUSTED_PROXIES": "10.0.0.1/8", "AGENT_SERVER_STORE": "redis"}
    code, out, err = await result(tmp_path, "serve", env=env)
    assert (code, out) == (2, "")
    assert sorted(err.splitlines()) == [
        "agent-server: AGENT_SERVER_PORT: Input should be a valid integer, unable to parse string as an integer",
        "agent-server: AGENT_SERVER_STORE: it must be memory, sqlite:///path or postgresql://user@host/database",
        "agent-server: AGENT_SERVER_TRUSTED_PROXIES: 10.0.0.1/8 has host bits set",
    ]


# Options


@pytest.mark.parametrize(
    "args",
    [
        ["--port", "65536"],
        ["--workers", "0"],
        ["--store", "disk"],
        ["--log-level", "loud"],
        ["--tool-items", "v2=none"],
    ],
)
def test_a_bad_option_is_a_usage_error(args: list[str]) -> None:
    outcome = CliRunner().invoke(cli.cli, ["serve", *args])
    assert outcome.exit_code == 2
    assert f"Invalid value for '{args[0]}'" in outcome.output


@pytest.mark.parametrize(
    ("values", "expected"),
    [
        ((), {}),
        (("none",), {"tool_items_invocations": "none", "tool_items_responses": "none", "tool_items_v1": "none"}),
        (("v1=none", "responses=mcp_call"), {"tool_items_v1": "none", "tool_items_responses": "mcp_call"}),
        (
            ("mcp_call", "v1=none"),
            {"tool_items_invocations": "mcp_call", "tool_items_responses": "mcp_call", "tool_items_v1": "none"},
        ),
    ],
)
def test_tool_items_are_set_for_all_mounts_or_one(values: tuple[str, ...], expected: dict[str, str]) -> None:
    context = cli.serve.make_context("serve", [arg for value in values for arg in ("--tool-items", value)])
    assert context.params["tool_items"] == expected
    assert expected.items() <= Settings.model_validate(expected).model_dump().items()


def test_options_offer_what_the_settings_accept() -> None:
    options: dict[str, Any] = {each.name: each for each in cli.serve.params if isinstance(each, click.Option)}
    assert set(cli.STYLES) == set(get_args(ToolItems))
    assert set(cli.LEVELS) == set(get_args(LogLevel))
    assert {f"tool_items_{mount}" for mount in cli.MOUNTS} < Settings.model_fields.keys()
    assert Settings(store=cli.STORE).store == cli.STORE
    for name in ("host", "port", "workers", "log_level"):
        default = Settings.model_fields[name].get_default(call_default_factory=True)
        assert options[name].help.endswith(f"[default: {default}]")


def test_help_and_version_import_nothing_heavy() -> None:
    code = (
        "import sys, agent_server.cli\nprint({'langchain_core', 'pydantic', 'uvicorn', 'asyncio'} & set(sys.modules))"
    )
    out = subprocess.run([sys.executable, "-c", code], cwd=ROOT, capture_output=True, text=True, check=True).stdout
    assert out == "set()\n"
    assert CliRunner().invoke(cli.cli, ["--version"]).output == f"agent-server, version {__version__}\n"
    assert "TARGET" in CliRunner().invoke(cli.cli, ["serve", "--help"]).output


def test_the_address_of_a_six_is_bracketed() -> None:
    assert cli._url("::1", 80) == "http://[::1]:80"
