"""What the page on MLflow shows is what happens: its files are written, its commands run."""

from __future__ import annotations

import json
import re
import runpy
import shlex
import socket
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import httpx
import pytest
import yaml

from agent_server.settings import Settings
from tests.support.processes import running
from tests.support.tracking import ROOT, mlflow, store, tracking_uri

__all__ = ["store", "tracking_uri"]

pytestmark = [pytest.mark.xdist_group("mlflow"), pytest.mark.filterwarnings("ignore")]  # mlflow warns of its own

PAGE = (ROOT / "docs/mlflow.md").read_text()
BLOCKS = re.findall(r"^```(\w+)\n(.*?)^```$", PAGE, re.MULTILINE | re.DOTALL)
FILES = {match[1]: code for kind, code in BLOCKS if kind == "python" and (match := re.match(r"# (\w+\.py)\n", code))}
CONSOLE = [line for kind, code in BLOCKS if kind == "console" for line in code.splitlines()]
APP = yaml.safe_load((ROOT / "docs/app.yaml").read_text())


def command(*start: str) -> list[str]:
    """The one command of the page that begins so."""
    (found,) = [words for line in CONSOLE if (words := shlex.split(line))[1 : 1 + len(start)] == list(start)]
    return found[1:]


@pytest.fixture(scope="module")
def folder(store: dict[str, str], tmp_path_factory: pytest.TempPathFactory) -> Iterator[Path]:
    """The page's files, and its model logged."""
    folder = tmp_path_factory.mktemp("page")
    for name, code in FILES.items():
        (folder / name).write_text(code)
    (folder / "question.json").write_text('{"input": [{"role": "user", "content": "Hello!"}]}')
    before = set(sys.modules), list(sys.path)
    with running(command("agent-server", "log-model"), store, folder) as program:
        assert program.ended() == 0, program.output
    shown = CONSOLE[CONSOLE.index("$ agent-server log-model agent.py --register echo") + 2]
    assert shown in program.output
    yield folder
    for name in {"agent", "agent_model"} & (set(sys.modules) - before[0]):
        del sys.modules[name]
    sys.path[:] = before[1]


def test_the_scripts_run(folder: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> None:
    monkeypatch.chdir(folder)
    runpy.run_path("load.py")
    lines = capsys.readouterr().out.splitlines()
    assert (lines[0], lines[1], lines[-1]) == ("You said: Hello!", "response.created", "response.completed")
    runpy.run_path("evaluate.py")
    assert re.search(r"'repeats/mean': .*1\.0", capsys.readouterr().out)


def test_a_model_file_of_ones_own_can_be_logged(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(folder)
    monkeypatch.syspath_prepend(str(folder))  # where a script that does this would lie
    monkeypatch.delitem(sys.modules, "agent", raising=False)
    logged = mlflow.pyfunc.log_model(name="own", python_model="model.py", code_paths=["agent.py"], pip_requirements=[])
    response = mlflow.pyfunc.load_model(logged.model_uri).predict(json.loads(Path("question.json").read_text()))
    assert response["output"][0]["content"][0]["text"] == "You said: Hello!"


def test_mlflow_predicts_and_runs_the_project(folder: Path, store: dict[str, str]) -> None:
    with running(command("mlflow", "models", "predict"), store, folder) as program:
        assert program.ended() == 0, program.output
    assert '"text": "You said: Hello!"' in program.output
    log_model = command("mlflow", "run", ".", "--env-manager", "local", "-e", "log_model")
    with running([word.replace("/path/to", str(folder)) for word in log_model], store, ROOT) as program:
        assert program.ended() == 0, program.output
    assert "serve it: agent-server serve models:/m-" in program.output


def test_a_decorated_module_is_served(folder: Path, store: dict[str, str]) -> None:
    with running([*command("agent-server", "serve", "service"), "--port", "0"], store, folder) as program:
        line = program.line_with("listening on")
        assert "(agents: service)" in line
        answer = httpx.post(f"{line.split()[3]}/invocations", json={"input": "Hello!"}, timeout=60).json()
        assert answer["output"][0]["content"][0]["text"] == "You said: Hello!"
        program.stop()


def test_the_app_of_databricks_starts_as_its_file_says(folder: Path, store: dict[str, str]) -> None:
    declared: dict[str, Any] = {each["name"]: each.get("value") for each in APP["env"]}
    own = {f"AGENT_SERVER_{name.upper()}" for name in Settings.model_fields}
    assert {name for name in declared if name.startswith("AGENT_SERVER_")} <= own
    with socket.create_server(("127.0.0.1", 0)) as probe:
        port = probe.getsockname()[1]
    here = {"AGENT_SERVER_HOST": "127.0.0.1", "DATABRICKS_APP_PORT": str(port), "DATABRICKS_APP_NAME": "my-app"}
    environment = {**{name: value for name, value in declared.items() if value}, **store, **here}
    with running(APP["command"], environment, folder) as program:
        assert f"listening on http://127.0.0.1:{port} " in program.line_with("listening on")
        url = f"http://127.0.0.1:{port}"
        assert httpx.get(f"{url}/agent/info").json()["name"] == "my-app"
        assert httpx.get(f"{url}/health", headers={"x-request-id": "mine"}).headers["x-request-id"] == "mine"
        assert httpx.get(url).json()["error"]["message"] == "The chat UI is not running."
        program.stop()


def test_every_command_of_the_page_is_run_by_a_test() -> None:
    here = {"log-model agent.py", "models predict", "serve service", "-e log_model"}
    elsewhere = {"models serve", "serve models:/", "run . --env-manager local -P", "export"}  # test_mlflow_model.py
    for line in CONSOLE:
        assert not line.startswith("$ ") or any(part in line for part in here | elsewhere), line
