"""MLflow's own clients as judges of what they are told of traces."""

from __future__ import annotations

import json
import os
import secrets
import subprocess
import sys
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import pytest
from starlette.applications import Starlette
from starlette.responses import JSONResponse
from starlette.routing import Mount, Route

from agent_server.app import create_app
from agent_server.settings import Settings
from tests.support.scripted import SCENARIOS
from tests.support.serve import running
from tests.support.traced import PATIENCE, QUIET, TIMEOUT, Traced, root, scenario, sqlite_store, tree

pytestmark = [pytest.mark.xdist_group("tracing"), TIMEOUT]
ROOT = Path(__file__).parents[3]


def run(script: str, *arguments: str, **environment: str) -> Any:
    """What a script prints last, as JSON. MLflow's tracing has one state per process, so each has its own."""
    done = subprocess.run(
        [sys.executable, "-c", script, *arguments],
        env={**os.environ, **QUIET, "PYTHONPATH": str(ROOT), "AGENT_SERVER_TRACING": "true", **environment},
        cwd=ROOT,
        capture_output=True,
        text=True,
        check=False,
        timeout=PATIENCE,
    )
    assert done.returncode == 0, done.stderr
    return json.loads(done.stdout.splitlines()[-1])


# Callers with a trace of their own

CALLER = """
import sys, httpx, json, mlflow
from mlflow.tracing import get_tracing_context_headers_for_http_request

with mlflow.start_span("caller") as span:
    headers = get_tracing_context_headers_for_http_request()
    body = {"model": "one_tool", "input": "What?"}
    answer = httpx.post(sys.argv[1] + "/responses", json=body, headers=headers, timeout=60).json()
    httpx.post(sys.argv[1] + "/feedback", json={"response_id": answer["id"], "value": 0.5}, timeout=60)
    span.set_outputs("done")
mlflow.flush_trace_async_logging()
print(json.dumps(span.trace_id))
"""


def test_a_run_is_part_of_the_trace_of_its_caller(traced: Traced, tracking_uri: str) -> None:
    trace_id = run(CALLER, traced.url, MLFLOW_TRACKING_URI=tracking_uri)
    trace = traced.trace(trace_id)
    parents = {name: parent for name, _, parent in tree(trace)}
    assert parents["caller"] == ""
    assert parents["one_tool"] == "caller"
    assert parents["LangGraph"] == "one_tool"
    assert trace.info.state == "OK"
    assert trace.data.response == '"done"', "the caller tells what its trace came to"
    about = [each for each in trace.info.assessments if each.name == "feedback"]
    assert [each.span_id for each in about] == [root(trace).span_id], "feedback on the response is on our part"


def traceparent(flags: str = "01") -> tuple[str, str]:
    trace_id = secrets.token_hex(16)
    return f"tr-{trace_id}", f"00-{trace_id}-{secrets.token_hex(8)}-{flags}"


def test_a_caller_that_never_ends_its_trace_leaves_none_in_progress(traced: Traced) -> None:
    trace_id, header = traceparent()

    def ask(model: str) -> int:
        body = scenario(model, context={"conversation_id": "talk-2"}, store=False)  # what is stored comes one by one
        return traced.http.post("/responses", json=body, headers={"traceparent": header}).status_code

    with ThreadPoolExecutor(4) as pool:
        assert list(pool.map(ask, ["one_tool", "plain_text", "one_tool", "subgraph"])) == [200] * 4
    trace = traced.trace(trace_id)
    assert trace.info.state == "OK"
    assert trace.info.trace_metadata["mlflow.trace.session"] == "talk-2"
    names = sorted(span.name for span in trace.data.spans if span.span_type == "AGENT")
    assert names == ["one_tool", "one_tool", "plain_text", "subgraph"]


@pytest.mark.parametrize("header", [f"00-{'a' * 32}-{'b' * 16}-00", "00-zz-1-01", f"00-{'0' * 32}-{'1' * 16}-01", "ff"])
def test_a_caller_that_does_not_sample_or_makes_no_sense_is_not_joined(traced: Traced, header: str) -> None:
    answer = traced.http.post("/responses", json=scenario("plain_text"), headers={"traceparent": header})
    trace = traced.trace_of(answer.json())
    assert root(trace).parent_id is None


# Agents whose own code uses MLflow

OWN_SPANS = """
import httpx, json, mlflow
from langchain.agents import create_agent
from langchain_core.tools import tool
from tests.support.scripted import ScriptedChatModel, chunks
from tests.support.traced import Traced, tree
from tests.support.serve import serving

mlflow.langchain.autolog()

@mlflow.trace
def look_up(city):
    return "sunny in " + city

@tool
def weather(city: str) -> str:
    "The weather."
    return look_up(city)

call = [*chunks.call("weather", '{"city": "Oslo"}', id="c1"), *chunks.finish("tool_calls")]
agent = create_agent(ScriptedChatModel(turns=[call, [*chunks.text("Sunny."), *chunks.finish()]]), tools=[weather])
with serving({"agent": agent}) as url:
    server = Traced(url, mlflow.get_tracking_uri())
    trace = server.trace_of(server.ask())
    server.http.close()
print(json.dumps([trace.info.state, tree(trace), len(mlflow.search_traces(return_type="list", locations=["0"]))]))
"""


def test_spans_of_the_agents_own_code_are_in_the_same_trace_and_autologging_doubles_none(tmp_path: Path) -> None:
    state, spans, traces = run(OWN_SPANS, MLFLOW_TRACKING_URI=sqlite_store(tmp_path))
    assert (state, traces) == ("OK", 1)
    assert ["look_up", "UNKNOWN", "agent"] in spans
    assert [name for name, *_ in spans].count("LangGraph") == 1


# Feedback


def test_feedback_becomes_an_assessment_by_a_person(traced: Traced) -> None:
    answer = traced.ask(**scenario("plain_text"))
    for subject, value in (
        ({"trace_id": answer["metadata"]["trace_id"]}, True),
        ({"response_id": answer["id"]}, {"tone": 3, "length": "short"}),
    ):
        body = {**subject, "name": "user_feedback", "value": value, "rationale": "well said", "user": "ann"}
        kept = traced.http.post("/feedback", json=body)
        assert kept.status_code == 201, kept.text
        assert kept.json()["trace_id"] == answer["metadata"]["trace_id"]
    given = [each for each in traced.trace_of(answer).info.assessments if each.name == "user_feedback"]
    assert [each.feedback.value for each in given] == [True, {"tone": 3, "length": "short"}]
    assert {(str(each.source.source_type), each.source.source_id, each.rationale) for each in given} == {
        ("HUMAN", "ann", "well said")
    }


def test_the_person_is_who_the_proxy_says(traced: Traced) -> None:
    answer = traced.ask(**scenario("plain_text"))
    body = {"response_id": answer["id"], "value": 1, "user": "ann"}
    kept = traced.http.post("/feedback", json=body, headers={"x-forwarded-user": "eve"}).json()
    assert kept["source"]["source_id"] == "eve"


@pytest.mark.parametrize("subject", [{"trace_id": f"tr-{'0' * 32}"}, {"response_id": f"resp_{'0' * 32}"}])
def test_feedback_on_what_is_not_there_is_404(traced: Traced, subject: dict[str, str]) -> None:
    answer = traced.http.post("/feedback", json={**subject, "value": 1})
    assert answer.status_code == 404
    assert answer.json()["error"]["code"] == "trace_not_found"
    assert answer.json()["error"]["param"] == next(iter(subject))


# Evaluation

EVALUATION = """
import json, mlflow
from mlflow.genai import to_predict_fn

mlflow.set_experiment("evaluation")
predict = to_predict_fn("endpoints:/agent")
answer = predict(input=[{"role": "user", "content": "What?"}])
trace = mlflow.get_trace(mlflow.get_last_active_trace_id(), flush=True)
print(json.dumps([answer["output"][-1]["content"][0]["text"], [span.name for span in trace.data.spans]]))
"""


def test_evaluation_of_an_endpoint_copies_the_trace_that_comes_back(tracking_uri: str, tmp_path: Path) -> None:
    """`to_predict_fn("endpoints:/...")` against the paths of a Databricks workspace."""
    with pytest.MonkeyPatch.context() as patch:
        for name, value in {**QUIET, "MLFLOW_TRACKING_URI": tracking_uri}.items():
            patch.setenv(name, value)
        app = create_app({"one_tool": SCENARIOS["one_tool"]}, Settings(tracing=True, trace_flush_seconds=PATIENCE))
        about = {"name": "agent", "endpoint_type": "CUSTOM_MODEL_SERVING"}
        workspace = Starlette(
            routes=[
                Route("/api/2.0/serving-endpoints/agent", lambda _: JSONResponse(about)),
                Mount("/serving-endpoints/agent", app),
            ],
            lifespan=lambda _: app.router.lifespan_context(app),
        )
        with running(workspace) as host:
            own = sqlite_store(tmp_path)
            said, names = run(EVALUATION, MLFLOW_TRACKING_URI=own, DATABRICKS_HOST=host, DATABRICKS_TOKEN="none")
    assert said == "It is sunny."
    assert {"one_tool", "LangGraph", "get_weather"} <= set(names)
