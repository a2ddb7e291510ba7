"""One prediction is one trace, which ends as the prediction does."""

from __future__ import annotations

import itertools
import warnings
from collections.abc import Iterator
from typing import Any
from uuid import uuid4

import pytest

from tests.support.scripted import SCENARIOS, SECRET, long_answer
from tests.support.tracking import EXPERIMENT, mlflow

with warnings.catch_warnings():
    warnings.simplefilter("ignore")
    from mlflow.entities import Trace
    from mlflow.exceptions import MlflowException

    from agent_server.mlflow_agent import AgentModel

pytestmark = [
    pytest.mark.xdist_group("mlflow"),
    pytest.mark.filterwarnings("ignore"),  # mlflow's store warns of its own use of SQLAlchemy
    pytest.mark.usefixtures("store"),
]

HELLO: dict[str, Any] = {"input": [{"role": "user", "content": "Hello"}]}


@pytest.fixture
def traces() -> Any:
    """All traces of a model with this name, once they are exported."""
    name = f"agent-{uuid4().hex[:8]}"

    def found() -> list[Trace]:
        mlflow.flush_trace_async_logging()
        experiment = mlflow.get_experiment_by_name(EXPERIMENT)
        everything = mlflow.search_traces(locations=[experiment.experiment_id], return_type="list")
        return [trace for trace in everything if trace.data.spans[0].name == name]

    found.name = name  # type: ignore[attr-defined]
    return found


def model(traces: Any, scenario: str) -> AgentModel:
    return AgentModel(SCENARIOS[scenario](), name=traces.name)


@pytest.mark.parametrize("scenario", ["one_tool", "subgraph"])
@pytest.mark.parametrize("streamed", [True, False])
def test_a_prediction_is_one_trace_of_an_agent(traces: Any, scenario: str, streamed: bool) -> None:
    agent = model(traces, scenario)
    answered = list(agent.predict_stream(HELLO))[-1].response if streamed else agent.predict(HELLO).model_dump()
    agent.close()
    (trace,) = traces()
    (root,) = trace.data.spans
    assert (trace.info.state, root.span_type, root.status.status_code) == ("OK", "AGENT", "OK")
    assert root.inputs == HELLO
    assert root.outputs["output"] == answered["output"]
    assert len(root.events) == 0


def test_a_trace_knows_its_conversation_and_its_user(traces: Any) -> None:
    model(traces, "plain_text").predict({**HELLO, "context": {"conversation_id": "c1", "user_id": "u1"}})
    (trace,) = traces()
    metadata = trace.info.trace_metadata
    assert (metadata["mlflow.trace.session"], metadata["mlflow.trace.user"]) == ("c1", "u1")


def test_a_stream_that_is_closed_early_ends_its_trace_as_cancelled(traces: Any) -> None:
    agent = AgentModel(long_answer(100), name=traces.name)
    stream = agent.predict_stream(HELLO)
    assert len(list(itertools.islice(stream, 6))) == 6
    stream.close()
    (trace,) = traces()
    status = trace.data.spans[0].status
    assert (trace.info.state, status.status_code, status.description) == ("ERROR", "ERROR", "cancelled")


@pytest.mark.parametrize("scenario", ["model_error_after_first_token", "tool_error_fatal"])
def test_an_agent_that_fails_fails_its_trace(traces: Any, scenario: str) -> None:
    agent = model(traces, scenario)
    list(agent.predict_stream(HELLO))
    with pytest.raises(MlflowException):
        agent.predict(HELLO)
    agent.close()
    found = traces()
    assert [trace.info.state for trace in found] == ["ERROR", "ERROR"]
    assert SECRET not in str([trace.data.spans[0].status for trace in found])


def test_a_prediction_inside_a_trace_is_part_of_it(traces: Any) -> None:
    with mlflow.start_span(traces.name):
        model(traces, "plain_text").predict(HELLO)
        list(model(traces, "plain_text").predict_stream(HELLO))
    (trace,) = traces()
    root, *inner = trace.data.spans
    assert [span.parent_id for span in inner] == [root.span_id, root.span_id]


def test_a_stream_leaves_no_span_behind_in_its_callers_context(traces: Any) -> None:
    stream = model(traces, "plain_text").predict_stream(HELLO)
    next(stream)
    assert mlflow.get_current_active_span() is None
    list(stream)
    assert mlflow.get_current_active_span() is None
    assert len(traces()) == 1


@pytest.fixture
def autologged() -> Iterator[None]:
    mlflow.langchain.autolog()
    yield
    mlflow.langchain.autolog(disable=True)


def test_the_spans_of_langchain_are_in_the_same_trace(traces: Any, autologged: None) -> None:
    for scenario in ("one_tool", "subgraph"):
        agent = model(traces, scenario)
        list(agent.predict_stream(HELLO))
        agent.close()
    found = traces()
    assert len(found) == 2
    for trace in found:
        root, *inner = trace.data.spans
        assert {"LangGraph", "get_weather"} <= {span.name for span in inner}
        assert next(span for span in inner if span.name == "LangGraph").parent_id == root.span_id
        assert all(span.status.status_code == "OK" for span in inner)
