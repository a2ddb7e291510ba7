"""What the README shows is what happens: its files are written, its commands run, its output compared."""

from __future__ import annotations

import ast
import os
import re
import shutil
import socket
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import httpx
import pytest

README = (Path(__file__).parents[2] / "README.md").read_text()
BLOCKS = re.findall(r"^```(\w+)\n(.*?)^```$", README, re.MULTILINE | re.DOTALL)
FILES = {match[1]: code for kind, code in BLOCKS if kind == "python" and (match := re.match(r"# (\w+\.py)\n", code))}
CONSOLE = "\n".join(code for kind, code in BLOCKS if kind == "console")
BIN = Path(sys.executable).parent
ENVIRONMENT = {name: value for name, value in os.environ.items() if not name.startswith("MLFLOW_")}

pytestmark = [pytest.mark.model, pytest.mark.xdist_group("model")]


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    for name, code in FILES.items():
        (tmp_path / name).write_text(code)
    return tmp_path


@contextmanager
def server(folder: Path, target: str = "clock.py") -> Iterator[int]:
    with socket.create_server(("127.0.0.1", 0)) as probe:
        port = int(probe.getsockname()[1])
    command = [str(BIN / "agent-server"), "serve", target, "--port", str(port)]
    with subprocess.Popen(command, cwd=folder, stdout=subprocess.PIPE, text=True, env=ENVIRONMENT) as process:
        assert process.stdout is not None
        try:
            told = process.stdout.readline().strip()
            assert told.replace(str(port), "8000") in CONSOLE.splitlines()
            yield port
        finally:
            process.terminate()
            process.wait(20)


def shape(output: str) -> list[str]:
    """The lines without their counts: how many pieces the model writes is its own affair."""
    return [line.split(maxsplit=1)[1] for line in output.splitlines() if line]


@pytest.mark.skipif(shutil.which("curl") is None, reason="needs curl")
def test_the_commands_do_what_is_shown(folder: Path) -> None:
    command, shown = next(
        (block.removeprefix("$ ").split("\n", 2)[:2], block.split("\n", 2)[2])
        for block in (code for kind, code in BLOCKS if kind == "console")
        if block.startswith("$ curl")
    )
    with server(folder) as port:
        script = "\n".join(command).replace("8000", str(port))
        done = subprocess.run(["bash", "-c", script], capture_output=True, text=True, check=True, timeout=100)
    assert shape(done.stdout) == shape(shown)


def test_the_openai_client_prints_the_answer(folder: Path) -> None:
    with server(folder) as port:
        script = folder / "ask.py"
        script.write_text(FILES["ask.py"].replace("8000", str(port)))
        done = subprocess.run([sys.executable, str(script)], capture_output=True, text=True, check=True, timeout=100)
    lines = done.stdout.splitlines()
    assert (lines[0], lines[-2]) == ("response.created", "response.completed")
    assert "Tokyo" in lines[-1]


def test_the_library_converts_without_a_server(folder: Path) -> None:
    done = subprocess.run(
        [sys.executable, "convert.py"], cwd=folder, capture_output=True, text=True, check=True, timeout=100
    )
    lines = done.stdout.splitlines()
    assert (lines[0], lines[-1]) == ("response.created", "response.completed")


def test_the_mounted_app_can_be_imported(folder: Path) -> None:
    done = subprocess.run(
        [sys.executable, "-c", "import mounted; print(mounted.app.routes[0].path)"],
        cwd=folder,
        capture_output=True,
        text=True,
        check=True,
        timeout=100,
    )
    assert done.stdout == "/agents\n"


def test_the_agent_is_logged_and_served_as_a_model(folder: Path) -> None:
    log, serve = (
        line.removeprefix("$ agent-server ").split()
        for line in CONSOLE.splitlines()
        if "clock/1" in line or "log-model" in line
    )
    subprocess.run(
        [str(BIN / "agent-server"), *log], cwd=folder, env=ENVIRONMENT, capture_output=True, check=True, timeout=110
    )
    with server(folder, serve[1]) as port:
        body = {"input": "What time is it in Tokyo?"}
        answer = httpx.post(f"http://127.0.0.1:{port}/responses", json=body, timeout=100).json()
    assert [item["type"] for item in answer["output"]] == ["function_call", "function_call_output", "message"]
    assert "Tokyo" in answer["output"][-1]["content"][0]["text"]


def test_every_example_is_one_of_these() -> None:
    assert set(FILES) == {"clock.py", "ask.py", "mounted.py", "convert.py"}
    for code in FILES.values():
        ast.parse(code)
