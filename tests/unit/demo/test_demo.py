"""The demo: its tools, its choice of a model, and the whole of `python -m agent_server.demo`."""

from __future__ import annotations

import subprocess
import sys

import pytest
from langchain_core.language_models import BaseChatModel
from pydantic import ValidationError

from agent_server.demo.agent import agent, calculate, get_current_time
from agent_server.demo.ask import QUESTION, _missing


@pytest.mark.parametrize(
    ("expression", "expected"),
    [
        ("17 * 23", "17 * 23 = 391"),
        ("(8 - 3) / 2", "(8 - 3) / 2 = 2.5"),
        ("2 ** 10", "2 ** 10 = 1024"),
        ("1 / 0", "1 / 0 has no value"),
        ("9 ** 9 ** 9", "9 ** 9 ** 9 has no value"),
        ("1 +", "1 + has no value"),
    ],
)
def test_sums_are_done_and_bad_ones_are_told(expression: str, expected: str) -> None:
    assert calculate.invoke({"expression": expression}) == expected


def test_the_time_is_told_where_there_is_one() -> None:
    assert get_current_time.invoke({"timezone": "Asia/Tokyo"}).startswith("In Tokyo it is ")
    with pytest.raises(ValidationError, match="pattern"):
        get_current_time.invoke({"timezone": "Mars/Olympus"})


def test_another_provider_serves_the_same_agent(monkeypatch: pytest.MonkeyPatch) -> None:
    from agent_server.demo.agent import _model

    monkeypatch.setenv("AGENT_SERVER_MODEL", "openai:some-model")
    monkeypatch.setenv("AGENT_SERVER_MODEL_BASE_URL", "http://127.0.0.1:9/v1")
    monkeypatch.setenv("OPENAI_API_KEY", "none")
    model = _model()
    assert isinstance(model, BaseChatModel)
    assert model.openai_api_base == "http://127.0.0.1:9/v1"  # type: ignore[attr-defined]
    assert agent().name == "demo"


def test_the_check_of_the_demo_can_fail() -> None:
    from collections import Counter

    assert "exactly one completed response" in _missing(QUESTION, Counter(), [])
    kinds = Counter({"response.completed": 1, "response.output_text.delta": 3})
    assert _missing(QUESTION, kinds, []) == "a call of get_current_time for Asia/Tokyo, the output of the call"
    assert _missing("Hello", kinds, []) == ""


@pytest.mark.model
@pytest.mark.xdist_group("model")
def test_the_demo_asks_the_real_model_and_prints_every_event() -> None:
    command = [sys.executable, "-m", "agent_server.demo", "--port", "0"]
    done = subprocess.run(command, capture_output=True, text=True, timeout=110, check=False)
    assert done.returncode == 0, done.stdout + done.stderr
    for kind in ("created", "function_call_arguments.delta", "output_text.delta", "completed"):
        assert f"\nresponse.{kind}  {{" in done.stdout
    assert '\\"timezone\\": \\"Asia/Tokyo\\"' in done.stdout
