"""What a logged model holds is read off the agent's source: its own modules, and the distributions they import."""

from __future__ import annotations

import subprocess
import sys
import warnings
from importlib.metadata import version
from pathlib import Path

import pytest

import agent_server
from agent_server.errors import TargetError
from agent_server.loader import Target, load_targets

with warnings.catch_warnings():
    warnings.simplefilter("ignore")  # mlflow's own imports warn
    from agent_server.mlflow_models import log_agent, needs_of, pinned

ROOT = Path(__file__).parents[3]

SOURCES = {
    "lonely_agent.py": "import json\n",
    "weather_agent.py": "import yaml, os.path\nfrom orjson import loads\nimport helper_module, helper_package.deep\n",
    "helper_module.py": "def late():\n    import httpx\n    import not_there_at_all\n",
    "helper_package/__init__.py": "",
    "helper_package/deep.py": "from . import other\nimport click\n",
    "helper_package/other.py": "import further_module\n",
    "helper_package/prompt.txt": "Be brief.",
    "helper_package/__pycache__/x.pyc": "",
    "helper_package/node_modules/x.py": "import uvicorn\n",
    "further_module.py": "import weather_agent\n",
    "unrelated.py": "import starlette\n",
}


@pytest.fixture
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    for name, source in SOURCES.items():
        file = tmp_path / name
        file.parent.mkdir(exist_ok=True)
        file.write_text(source)
    monkeypatch.syspath_prepend(str(tmp_path))
    return tmp_path


def test_the_agents_own_modules_are_taken_and_no_others(folder: Path) -> None:
    needs = needs_of("weather_agent", folder / "weather_agent.py")
    taken = {path.relative_to(folder).as_posix() for path in needs.code}
    assert taken == {"weather_agent.py", "helper_module.py", "helper_package", "further_module.py"}


def test_distributions_are_those_that_any_of_its_modules_imports(folder: Path) -> None:
    needs = needs_of("weather_agent", folder / "weather_agent.py")
    assert {name.lower() for name in needs.distributions} == {"pyyaml", "orjson", "httpx", "click"}
    assert needs_of("lonely_agent", folder / "lonely_agent.py").distributions == set()


def test_an_installed_agent_is_a_requirement_and_no_code() -> None:
    import langchain.agents

    assert langchain.agents.__file__ is not None
    needs = needs_of("langchain.agents", Path(langchain.agents.__file__))
    assert (needs.code, "langchain" in needs.distributions) == ([], True)


def test_requirements_are_pinned_to_what_is_installed() -> None:
    requirements = dict(line.split("==") for line in pinned({"PyYAML"}))
    for name in ("agent-server", "langchain", "langchain-core", "langgraph", "mlflow", "pyyaml", "starlette"):
        assert requirements[name] == version(name).partition("+")[0]
    assert "xllamacpp" not in requirements  # an extra's


def test_what_cannot_be_logged_is_told(folder: Path) -> None:
    (folder / "json.py").write_text(
        "from langchain_core.runnables import RunnableLambda\nagent = RunnableLambda(str)\n"
    )
    for target, message in (
        ("models:/weather/1", "is a logged model already"),
        ("json.py:agent", "another module is named 'json' already"),
        ("nobody.py:agent", "There is no file"),
        ("lonely_agent.py", "has no graph or Runnable"),
    ):
        with pytest.raises(TargetError, match=message):
            log_agent(target, folder=folder)


def test_a_package_named_as_this_one_cannot_be_logged(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(agent_server, "__path__", list(agent_server.__path__))
    (folder / "agent_server").mkdir()
    (folder / "agent_server/__init__.py").touch()
    source = "from langchain_core.runnables import RunnableLambda\nagent = RunnableLambda(str)\n"
    (folder / "agent_server/mine.py").write_text(source)
    try:
        with pytest.raises(TargetError, match="its package must not be named 'agent_server'"):
            log_agent("agent_server.mine:agent", folder=folder)
    finally:
        del sys.modules["agent_server.mine"]


@pytest.mark.parametrize(
    ("target", "name"),
    [
        ("models:/weather/3", "weather"),
        ("models:/weather@champion", "weather"),
        ("models:/main.weather.agent/3", "main.weather.agent"),
        ("models:/m-0123", "m-0123"),
        ("runs:/0123/agent", "agent"),
        ("runs:/0123/deep/agent", "agent"),
        ("mine=models:/weather/3", "mine"),
    ],
)
def test_a_served_model_is_named_after_its_address(target: str, name: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("agent_server.mlflow_served.load_model", lambda uri: uri)
    parsed = Target.parse(target)
    assert parsed.is_model
    assert load_targets([target], Path.cwd()) == {name: target.removeprefix("mine=")}


@pytest.mark.parametrize("command", [["serve", "models:/weather/1", "--port", "0"], ["log-model", "weather.py"]])
def test_without_mlflow_the_command_line_says_what_to_install(command: list[str]) -> None:
    script = "import sys; sys.modules['mlflow'] = None; from agent_server.cli import cli; cli()"
    done = subprocess.run(
        [sys.executable, "-c", script, *command], cwd=ROOT, capture_output=True, text=True, check=False, timeout=60
    )
    assert done.returncode == 2
    assert "pip install 'agent-server[mlflow]'" in done.stderr
