"""Agents as MLflow models, judged by MLflow itself: its loader, its serving process, its evaluation, its projects.

Each process is real, answers on loopback, and uses a tracking store of the test's own.
"""

from __future__ import annotations

import importlib.util
import json
import re
import socket
import warnings
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import httpx
import pytest
import yaml

from agent_server.cli import cli
from agent_server.errors import TargetError
from agent_server.loader import load_targets
from tests.conformance.expected import EXPECTED, QUESTION, seen_in
from tests.conformance.judged import agrees, body
from tests.conformance.rules import check_stream
from tests.support.play import RUN_ID, Settled
from tests.support.processes import PATIENCE, descendants, end, running
from tests.support.scripted import SCENARIOS
from tests.support.sse import Dialect, post, read_events
from tests.support.tracking import ROOT, mlflow, store, tracking_uri

with warnings.catch_warnings():
    warnings.simplefilter("ignore")
    import mlflow.genai
    from mlflow.models.model import ModelInfo
    from mlflow.types.responses import ResponsesAgentStreamEvent

    from agent_server.mlflow_agent import AgentModel
    from agent_server.mlflow_models import INPUT_EXAMPLE, TASK, log_agent

__all__ = ["store", "tracking_uri"]

pytestmark = [
    pytest.mark.xdist_group("mlflow"),
    pytest.mark.filterwarnings("ignore"),  # mlflow warns of its own use of SQLAlchemy, pandas and pydantic
]

AGENTS = Path(__file__).parent / "logged"
SAID = "It is sunny in Oslo."
HELLO: dict[str, Any] = {"input": [{"role": "user", "content": "Is it sunny?"}]}
FAIL: dict[str, Any] = {"input": [{"role": "user", "content": "Please fail."}]}
MOUNTS: dict[str, Dialect] = {"/invocations": "data_only", "/responses": "named", "/v1/responses": "named"}


def said(response: Mapping[str, Any]) -> str:
    return "".join(part["text"] for item in response["output"] if item["type"] == "message" for part in item["content"])


# Event for event


def settled(events: list[dict[str, Any]]) -> list[Any]:
    """Events without what chance and the clock put into them."""
    run_id = str(events[0]["response"]["id"]).removeprefix("resp_")
    text = re.sub(r'"(created|completed)_at": \d+', r'"\1_at": 0', json.dumps(events))
    settled: list[Any] = json.loads(Settled().text(text.replace(run_id, RUN_ID)))
    return settled


AT_ONCE = frozenset(name for name, seen in EXPECTED.items() if len(seen.calls) > 1 and name != "two_tools_in_turn")
"""Tools that run at once, in threads or in tasks: their outputs come in the order in which they end."""


@pytest.mark.parametrize("synchronous", [True, False], ids=["in the caller's thread", "on a loop"])
@pytest.mark.parametrize("scenario", SCENARIOS)
def test_the_stream_is_that_of_the_server_event_for_event(base_url: str, scenario: str, synchronous: bool) -> None:
    asked = body(scenario, input=[{"role": "user", "content": QUESTION}], store=False)
    served = read_events(post(f"{base_url}/invocations", {**asked, "stream": True}), "data_only")
    with mlflow.tracing.context(enabled=False):
        model = AgentModel(SCENARIOS[scenario](), name=scenario, synchronous=synchronous)
        events = list(model.predict_stream(asked))
        model.close()
    assert all(isinstance(event, ResponsesAgentStreamEvent) for event in events)
    told = [event.model_dump(exclude_unset=True) for event in events]
    if scenario in AT_ONCE:
        assert [event["type"] for event in told] == [event["type"] for event in served]
        agrees(seen_in(told[-1]["response"]), EXPECTED[scenario])
    else:
        assert settled(told) == settled(served)


# Logged


@pytest.fixture(scope="module")
def weather(store: dict[str, str], tmp_path_factory: pytest.TempPathFactory) -> ModelInfo:
    """The weather agent, logged and registered from the command line in a process of its own."""
    command = ("agent-server", "log-model", "weather.py:agent", "--name", "agent", "--register", "weather")
    with running(command, store, AGENTS) as program:
        assert program.ended() == 0, program.output
    assert "serve it: agent-server serve models:/weather/1" in program.output
    mlflow.MlflowClient().set_registered_model_alias("weather", "champion", "1")
    return mlflow.models.get_model_info("models:/weather/1")


@pytest.fixture(scope="module")
def foreign(store: dict[str, str]) -> ModelInfo:
    """A model of somebody else's, logged the way MLflow documents, in a run."""
    with mlflow.start_run():
        return mlflow.pyfunc.log_model(name="foreign", python_model=str(AGENTS / "foreign.py"), pip_requirements=[])


def test_a_logged_model_is_one_of_mlflows_streaming_agents(weather: ModelInfo, foreign: ModelInfo) -> None:
    assert weather.signature is not None
    assert weather.signature == foreign.signature
    assert weather.flavors["python_function"]["streamable"]
    with pytest.raises(mlflow.MlflowException, match="signature"):
        log_agent("weather.py:agent", folder=AGENTS, signature=weather.signature)


def test_a_logged_model_holds_its_code_its_task_and_pinned_requirements(weather: ModelInfo, tmp_path: Path) -> None:
    folder = Path(mlflow.artifacts.download_artifacts(weather.model_uri, dst_path=str(tmp_path)))
    assert sorted(path.name for path in (folder / "code").iterdir()) == ["forecasts.py", "weather.py"]
    assert weather.metadata == {"task": TASK}
    assert json.loads((folder / "input_example.json").read_text()) == INPUT_EXAMPLE
    requirements = (folder / "requirements.txt").read_text().split()
    assert all(re.fullmatch(r"[a-z0-9.-]+==[\w.]+", line) for line in requirements)
    assert {"agent-server", "langchain", "langgraph", "mlflow"} <= {line.partition("==")[0] for line in requirements}


def test_logging_does_not_ask_the_agent_unless_it_is_told_to(store: dict[str, str], tmp_path: Path) -> None:
    source = "from langchain_core.runnables import RunnableLambda\nagent = RunnableLambda(lambda said: 1 / 0)\n"
    (tmp_path / "failing.py").write_text(source)
    log_agent("failing.py:agent", folder=tmp_path)
    with pytest.raises(mlflow.MlflowException, match="Error id: err_"):
        log_agent("failing.py:agent", folder=tmp_path, run_example=True)


def test_a_loaded_model_predicts_and_streams(weather: ModelInfo) -> None:
    model = mlflow.pyfunc.load_model("models:/weather@champion")
    assert said(model.predict(HELLO)) == SAID
    events = list(model.predict_stream(HELLO))
    assert "".join(event["delta"] for event in events if event["type"] == "response.output_text.delta") == SAID
    assert events[-1]["type"] == "response.completed"


def test_a_loaded_model_takes_what_mlflow_lets_a_request_hold(weather: ModelInfo) -> None:
    model = mlflow.pyfunc.load_model(weather.model_uri)
    more = {"custom_inputs": {"thread_id": "t1", "x": 1}, "context": {"user_id": "u1"}, "max_output_tokens": 9}
    response = model.predict({**HELLO, **more, "no_such_key": 1}, params={"temperature": 0.5})
    assert (said(response), response["max_output_tokens"]) == (SAID, 9)
    assert response["custom_outputs"] == {"thread_id": "t1"}
    trace = mlflow.get_trace(mlflow.get_last_active_trace_id(), flush=True)
    told = trace.info.trace_metadata
    assert (told["mlflow.trace.session"], told["mlflow.trace.user"]) == ("t1", "u1")


def test_mlflow_predicts_in_the_local_environment(weather: ModelInfo, tmp_path: Path) -> None:
    output = tmp_path / "answer.json"
    mlflow.models.predict(weather.model_uri, HELLO, env_manager="local", output_path=str(output))
    assert said(json.loads(output.read_text())) == SAID


def test_mlflow_evaluates_it(weather: ModelInfo) -> None:
    model = mlflow.pyfunc.load_model(weather.model_uri)

    @mlflow.genai.scorer  # type: ignore[untyped-decorator]
    def tells_the_weather(outputs: Any, expectations: Any) -> bool:
        return said(outputs) == expectations["answer"]

    result = mlflow.genai.evaluate(
        data=[{"inputs": HELLO, "expectations": {"answer": SAID}}],
        predict_fn=lambda input: model.predict({"input": input}),
        scorers=[tells_the_weather],
    )
    assert result.metrics == {"tells_the_weather/mean": 1.0}


def free_port() -> int:
    with socket.create_server(("127.0.0.1", 0)) as listener:
        return int(listener.getsockname()[1])


def test_mlflow_serves_it(weather: ModelInfo, store: dict[str, str], tmp_path: Path) -> None:
    port = free_port()
    command = ("mlflow", "models", "serve", "-m", "models:/weather/1", "--env-manager", "local", "-p", str(port))
    with running(command, store, tmp_path) as program:
        program.line_with("Application startup complete")
        patient = httpx.HTTPTransport(retries=8)  # uvicorn says so before it listens
        with httpx.Client(base_url=f"http://127.0.0.1:{port}", timeout=PATIENCE, transport=patient) as client:
            answer = client.post("/invocations", json=HELLO)
            assert (answer.status_code, said(answer.json())) == (200, SAID)
            failed = client.post("/invocations", json=FAIL)
            assert failed.status_code == 500
            assert re.search(r"The agent failed\. Error id: err_[0-9a-f]{16}", failed.json()["message"])
            assert "secret" not in failed.text
            bad = client.post("/invocations", json={**HELLO, "temperature": 9})
            assert (bad.status_code, "temperature" in bad.json()["message"]) == (400, True)
        program.stop()


# Served by this server


def answers(url: str, expected: str, **more: Any) -> None:
    """Every route tells this, streamed and not, and fails legally."""
    for path, dialect in MOUNTS.items():
        asked = {**HELLO, **more}
        response = check_stream(read_events(post(f"{url}{path}", {**asked, "stream": True}), dialect))
        assert (said(response), response["status"]) == (expected, "completed")
        assert said(httpx.post(f"{url}{path}", json=asked, timeout=PATIENCE).json()) == expected
        failing = {**FAIL, **more, "custom_inputs": {"fail": True}, "stream": True}
        answer = post(f"{url}{path}", failing)
        assert check_stream(read_events(answer, dialect))["status"] == "failed"
        assert b"secret" not in answer.body


def test_models_are_served_by_version_alias_and_run(
    weather: ModelInfo, foreign: ModelInfo, store: dict[str, str], tmp_path: Path
) -> None:
    named = ("models:/weather/1", "best=models:/weather@champion", f"own={weather.model_uri}")
    targets = (*named, f"runs:/{foreign.run_id}/foreign")
    with running(("agent-server", "serve", *targets, "--port", "0"), store, tmp_path) as program:
        line = program.line_with("listening on")
        assert "(agents: weather, best, own, foreign)" in line
        url = line.split()[3]
        for name, expected in (("weather", SAID), ("best", SAID), ("own", SAID), ("foreign", "Hello there.")):
            answers(url, expected, model=name)
        assert program.stop() == 0


@pytest.fixture(scope="module")
def not_an_agent(store: dict[str, str]) -> str:
    """A model that is no agent."""

    class Doubles(mlflow.pyfunc.PythonModel):  # type: ignore[misc, name-defined]
        def predict(self, context: Any, model_input: list[str]) -> list[str]:
            return model_input * 2

    return str(mlflow.pyfunc.log_model(name="doubles", python_model=Doubles(), pip_requirements=[]).model_uri)


@pytest.mark.parametrize(
    ("target", "said"),
    [
        ("models:/nobody/1", "cannot be loaded: Registered Model with name=nobody not found"),
        ("models:/weather/99", "cannot be loaded: Model Version (name=weather, version=99) not found"),
        ("models:/weather@nobody", "cannot be loaded: Registered model alias nobody not found"),
        ("runs:/0123456789abcdef0123456789abcdef/agent", "cannot be loaded: Run with id=0123456789abcdef"),
        ("models:/weather/1/2", "cannot be loaded: No such artifact: '2'"),
        ("not_an_agent", "cannot be served: it is no ResponsesAgent"),
    ],
)
def test_a_model_that_cannot_be_served_is_told_in_a_line(
    target: str, said: str, weather: ModelInfo, not_an_agent: str
) -> None:
    uri = not_an_agent if target == "not_an_agent" else target
    with pytest.raises(TargetError) as raised:
        load_targets([uri], Path.cwd())
    assert raised.value.message.startswith(f"The model {uri!r} {said}")
    assert "\n" not in raised.value.message


def test_a_model_whose_code_raises_names_the_exception(store: dict[str, str], tmp_path: Path) -> None:
    model = tmp_path / "broken.py"
    model.write_text((AGENTS / "foreign.py").read_text().replace("set_model(", "if SWITCH: set_model("))
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr("builtins.SWITCH", True, raising=False)
        uri = mlflow.pyfunc.log_model(name="broken", python_model=str(model), pip_requirements=[]).model_uri
    with pytest.raises(TargetError, match=r"cannot be loaded: .*name 'SWITCH' is not defined") as raised:
        load_targets([uri], Path.cwd())
    assert isinstance(raised.value.__cause__, NameError)


def test_a_model_that_does_not_exist_ends_the_command_line_with_2(store: dict[str, str], tmp_path: Path) -> None:
    with running(("agent-server", "serve", "models:/nobody/1", "--port", "0"), store, tmp_path) as program:
        assert program.ended() == 2
    assert "agent-server: The model 'models:/nobody/1' cannot be loaded: " in program.output
    assert "Traceback" not in program.output


# The project


def test_mlflow_runs_the_project(weather: ModelInfo, store: dict[str, str], tmp_path: Path) -> None:
    port = free_port()
    parameters = ("-P", "target=models:/weather/1", "-P", f"port={port}", "-P", "log-level=error")
    with running(("mlflow", "run", str(ROOT), "--env-manager", "local", *parameters), store, tmp_path) as program:
        assert f"listening on http://127.0.0.1:{port} " in program.line_with("listening on")
        answers(f"http://127.0.0.1:{port}", SAID)
        end(max(descendants(program.pid)))
        assert program.ended() == 0
    assert "succeeded" in program.output


def test_every_entry_point_of_the_project_is_a_command_there_is() -> None:
    project = yaml.safe_load((ROOT / "MLproject").read_text())
    commands = {name: entry["command"].split() for name, entry in project["entry_points"].items()}
    assert {name: command[:2] for name, command in commands.items()} == {
        "main": ["agent-server", "serve"],
        "demo": ["python", "-m"],
        "log_model": ["agent-server", "log-model"],
        "test": ["python", "-m"],
    }
    for name in ("main", "log_model"):
        assert commands[name][1] in cli.commands
    assert importlib.util.find_spec("agent_server.demo.__main__") is not None
