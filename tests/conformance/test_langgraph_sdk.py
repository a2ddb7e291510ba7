"""langgraph_sdk for Python over every method of its clients, and LangGraph's own `RemoteGraph`."""

from __future__ import annotations

from collections.abc import AsyncIterator, Iterator
from pathlib import Path
from typing import Any
from uuid import uuid4

import httpx
import pytest
from langgraph.pregel.remote import RemoteException, RemoteGraph
from langgraph.types import Command
from langgraph_sdk import get_client, get_sync_client
from langgraph_sdk.client import LangGraphClient
from langgraph_sdk.errors import ConflictError, NotFoundError, UnprocessableEntityError

from agent_server.settings import Settings
from tests.support.platform import echo, hitl, remembering, steps
from tests.support.serve import serving

AGENT = "fe096781-5601-53d2-b2f6-0d3403f7e9ca"
"""The id that LangGraph's servers give to the default assistant of a graph called "agent"."""

HI = {"messages": [{"role": "user", "content": "hi"}]}
GO = {"said": ["go"]}


@pytest.fixture(scope="module", params=["memory", "sqlite"])
def url(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Iterator[str]:
    folder: Path = tmp_path_factory.mktemp("langgraph")
    store = "memory" if request.param == "memory" else f"sqlite:///{folder}/runs.db"
    agents = {"agent": echo(), "hitl": hitl(), "steps": steps(), "notes": remembering()}
    with serving(agents, Settings(store=store)) as base_url:
        yield base_url


@pytest.fixture
async def client(url: str) -> AsyncIterator[LangGraphClient]:
    async with get_client(url=url, api_key=None) as opened:
        yield opened


async def test_assistants(client: LangGraphClient) -> None:
    default = await client.assistants.get(AGENT)
    assert (default["graph_id"], default["version"], default["metadata"]) == ("agent", 1, {"created_by": "system"})
    assert {each["graph_id"] for each in await client.assistants.search()} >= {"agent", "hitl", "steps"}
    assert [each["assistant_id"] for each in await client.assistants.search(graph_id="agent", limit=1)]
    made = await client.assistants.create(
        "steps", {"recursion_limit": 2}, name="Short", metadata={"team": "a"}, description="stops early"
    )
    assert await client.assistants.count(metadata={"team": "a"}) == 1
    assert (await client.assistants.search(name="shor"))[0]["description"] == "stops early"
    stopped = await client.runs.wait(None, made["assistant_id"], input=GO, raise_error=False)
    assert stopped["__error__"]["error"] == "GraphRecursionError"
    longer = await client.assistants.update(made["assistant_id"], config={"recursion_limit": 9}, metadata={"b": 1})
    assert (longer["version"], longer["metadata"]) == (2, {"team": "a", "b": 1})
    assert (await client.runs.wait(None, made["assistant_id"], input=GO))["said"][-1] == "third"
    assert [each["version"] for each in await client.assistants.get_versions(made["assistant_id"])] == [2, 1]
    assert (await client.assistants.set_latest(made["assistant_id"], 1))["config"] == {"recursion_limit": 2}
    with pytest.raises(ConflictError):
        await client.assistants.create("steps", assistant_id=made["assistant_id"])
    again = await client.assistants.create("agent", assistant_id=made["assistant_id"], if_exists="do_nothing")
    assert again["graph_id"] == "steps"
    await client.assistants.delete(made["assistant_id"])
    with pytest.raises(NotFoundError):
        await client.assistants.get(made["assistant_id"])
    page = await client.assistants.search(limit=1, response_format="object")
    assert (len(page["assistants"]), page["next"]) == (1, "1")


async def test_what_a_graph_is(client: LangGraphClient) -> None:
    schemas = await client.assistants.get_schemas(AGENT)
    assert schemas["graph_id"] == "agent"
    assert "messages" in (schemas["input_schema"] or {})["properties"]
    drawn = await client.assistants.get_graph(AGENT, xray=True)
    assert [each["id"] for each in drawn["nodes"]] == ["__start__", "model", "__end__"]
    assert {"source": "model", "target": "__end__"} in drawn["edges"]
    assert await client.assistants.get_subgraphs(AGENT, recurse=True) == {}


async def test_threads(client: LangGraphClient) -> None:
    thread_id, mark = str(uuid4()), uuid4().hex
    made = await client.threads.create(thread_id=thread_id, metadata={"mark": mark, "n": 1}, ttl=60)
    assert (made["thread_id"], made["status"], made["values"]) == (thread_id, "idle", None)
    with pytest.raises(ConflictError, match="already exists"):
        await client.threads.create(thread_id=thread_id)
    assert (await client.threads.create(thread_id=thread_id, if_exists="do_nothing"))["metadata"]["n"] == 1
    changed = await client.threads.update(thread_id, metadata={"title": "x"})
    assert changed["metadata"] == {"mark": mark, "n": 1, "title": "x"}
    assert await client.threads.update(thread_id, metadata={"title": "y"}, return_minimal=True) is None
    assert (await client.threads.get(thread_id, include=["ttl"]))["ttl"]["ttl_minutes"] == 60
    await client.runs.wait(thread_id, "agent", input=HI)
    found = await client.threads.search(metadata={"mark": mark, "graph_id": "agent"})
    assert [each["values"]["messages"][-1]["content"] for each in found] == ["You said: hi"]
    assert found[0]["metadata"]["assistant_id"] == AGENT
    assert await client.threads.count(metadata={"mark": mark}) == 1
    assert await client.threads.count(status="busy", metadata={"mark": mark}) == 0
    only = await client.threads.search(ids=[thread_id], select=["thread_id", "status"], sort_by="created_at")
    assert only == [{"thread_id": thread_id, "status": "idle"}]
    picked = await client.threads.search(ids=[thread_id], extract={"last": "values.messages[-1].content"})
    assert picked[0]["extracted"] == {"last": "You said: hi"}
    copy = await client.threads.copy(thread_id)
    copied = await client.runs.wait(copy["thread_id"], "agent", input=HI)
    assert len(copied["messages"]) == 4
    assert len((await client.threads.get_state(thread_id))["values"]["messages"]) == 2
    assert (await client.threads.prune([copy["thread_id"]], strategy="keep_latest"))["pruned_count"] == 1
    assert len(await client.threads.get_history(copy["thread_id"])) == 1
    assert len((await client.runs.wait(copy["thread_id"], "agent", input=HI))["messages"]) == 6
    assert (await client.threads.prune([copy["thread_id"]]))["pruned_count"] == 1
    await client.threads.delete(thread_id)
    with pytest.raises(NotFoundError, match="not found"):
        await client.threads.get(thread_id)


async def test_a_thread_is_made_of_supersteps(client: LangGraphClient) -> None:
    steps_ = [
        {"updates": [{"values": GO, "as_node": "__start__"}]},
        {"updates": [{"values": {"said": ["by hand"]}, "as_node": "first"}]},
    ]
    made = await client.threads.create(graph_id="steps", supersteps=steps_)
    state = await client.threads.get_state(made["thread_id"])
    assert (state["values"]["said"], state["next"]) == (["go", "by hand"], ["second"])
    assert (await client.threads.get(made["thread_id"]))["status"] == "interrupted"
    ended = await client.runs.wait(made["thread_id"], "steps", input=None)
    assert ended["said"] == ["go", "by hand", "second", "third"]


async def test_states_are_read_written_and_gone_back_to(client: LangGraphClient) -> None:
    thread_id = (await client.threads.create())["thread_id"]
    assert (await client.threads.get_state(thread_id))["values"] == {}
    assert await client.threads.get_history(thread_id) == []
    await client.runs.wait(thread_id, "steps", input=GO)
    history = await client.threads.get_history(thread_id)
    assert [each["next"] for each in history] == [[], ["third"], ["second"], ["first"], ["__start__"]]
    at = history[2]["checkpoint"]
    assert (await client.threads.get_state(thread_id, at))["values"]["said"] == ["go", "first"]
    assert (await client.threads.get_state(thread_id, checkpoint_id=at["checkpoint_id"]))["next"] == ["second"]
    assert [each["checkpoint"] for each in await client.threads.get_history(thread_id, limit=1, before=at)] == [
        history[3]["checkpoint"]
    ]
    forked = await client.runs.wait(thread_id, "steps", input=None, checkpoint_id=at["checkpoint_id"])
    assert forked["said"] == ["go", "first", "second", "third"]
    placed = await client.threads.update_state(thread_id, {"said": ["edited"]}, as_node="first", checkpoint=at)
    assert (await client.threads.get_state(thread_id))["checkpoint"] == placed["checkpoint"]
    ended = await client.runs.wait(thread_id, "steps", input=None)
    assert ended["said"] == ["go", "first", "edited", "second", "third"]
    with pytest.raises(UnprocessableEntityError, match="as_node"):
        await client.threads.update_state(thread_id, {"said": ["x"]}, as_node="nobody")
    assert len(await client.runs.list(thread_id)) == 3


async def test_runs(client: LangGraphClient) -> None:
    thread_id = (await client.threads.create())["thread_id"]
    made: dict[str, Any] = {}
    run = await client.runs.create(
        thread_id, "agent", input=HI, metadata={"m": 1}, on_run_created=lambda told: made.update(told)
    )
    assert made == {"run_id": run["run_id"], "thread_id": thread_id}
    joined = await client.runs.join(thread_id, run["run_id"])
    assert joined["messages"][-1]["content"] == "You said: hi"
    told = await client.runs.get(thread_id, run["run_id"])
    assert (told["status"], told["metadata"]["m"], told["assistant_id"]) == ("success", 1, AGENT)
    failed = await client.runs.wait(thread_id, "steps", input={"said": ["boom"]}, raise_error=False)
    assert failed["__error__"] == {"error": "ValueError", "message": "boom"}
    assert (await client.threads.get(thread_id))["status"] == "error"
    assert [each["status"] for each in await client.runs.list(thread_id)] == ["error", "success"]
    assert [each["run_id"] for each in await client.runs.list(thread_id, status="success")] == [run["run_id"]]
    await client.runs.delete(thread_id, run["run_id"])
    with pytest.raises(NotFoundError):
        await client.runs.get(thread_id, run["run_id"])
    with pytest.raises(NotFoundError, match="No runs found"):
        await client.runs.cancel(thread_id, run["run_id"])
    batch = await client.runs.create_batch(
        [{"assistant_id": "agent", "input": HI}, {"assistant_id": "agent", "input": HI, "thread_id": thread_id}]  # type: ignore[typeddict-item]
    )
    assert batch[1]["thread_id"] == thread_id
    await client.runs.join(thread_id, batch[1]["run_id"])
    waits = await client.runs.create(thread_id, "agent", input=HI, after_seconds=3600)
    await client.runs.cancel_many(thread_id=thread_id, run_ids=[waits["run_id"]])
    assert (await client.runs.get(thread_id, waits["run_id"]))["status"] == "interrupted"
    for _ in range(2):
        await client.runs.create(thread_id, "agent", input=HI, after_seconds=3600)
    await client.runs.cancel_many(status="pending", action="rollback")
    assert "pending" not in {each["status"] for each in await client.runs.list(thread_id)}


async def test_runs_are_streamed_and_joined(client: LangGraphClient) -> None:
    thread_id = (await client.threads.create())["thread_id"]
    made: list[str] = []
    parts = [
        part
        async for part in client.runs.stream(
            thread_id,
            "agent",
            input=HI,
            stream_mode=["values"],
            on_run_created=lambda told: made.append(told["run_id"]),
        )
    ]
    assert parts[0].event == "metadata"
    assert parts[-1].event == "end"
    values = [part.data for part in parts if part.event == "values"]
    assert values[-1]["messages"][-1]["content"] == "You said: hi"
    joined = [part async for part in client.runs.join_stream(thread_id, made[0], stream_mode="values")]
    assert [part.event for part in joined] == [part.event for part in parts]
    stateless = [part.event async for part in client.runs.stream(None, "agent", input=HI, stream_mode="updates")]
    assert stateless == ["metadata", "updates", "end"]


async def test_a_graph_that_asks_is_answered(client: LangGraphClient) -> None:
    thread_id = (await client.threads.create())["thread_id"]
    stopped = await client.runs.wait(thread_id, "hitl", input=GO)
    question = stopped["__interrupt__"][0]
    assert question["value"] == {"question": "Proceed?"}
    thread = await client.threads.get(thread_id)
    assert thread["status"] == "interrupted"
    assert [each[0]["id"] for each in thread["interrupts"].values()] == [question["id"]]
    assert (await client.threads.get_state(thread_id))["tasks"][0]["interrupts"][0]["id"] == question["id"]
    assert (await client.runs.list(thread_id))[0]["status"] == "success"
    with pytest.raises(httpx.HTTPStatusError, match="409"):
        await client.runs.wait(thread_id, "hitl", command={"resume": {uuid4().hex: "no"}})
    answered = await client.runs.wait(thread_id, "hitl", command={"resume": "yes"})
    assert answered == {"said": ["go", "approved=yes"], "approved": "yes"}
    assert (await client.threads.get(thread_id))["status"] == "idle"


async def test_a_graph_stops_before_and_after_its_nodes_and_goes_on(client: LangGraphClient) -> None:
    thread_id = (await client.threads.create())["thread_id"]
    before = await client.runs.wait(thread_id, "steps", input=GO, interrupt_before=["second"])
    assert before["said"] == ["go", "first"]
    assert (await client.threads.get(thread_id))["status"] == "interrupted"
    after = await client.runs.wait(thread_id, "steps", input=None, interrupt_after=["second"])
    assert after["said"] == ["go", "first", "second"]
    gone_on = await client.runs.wait(thread_id, "steps", command={"update": {"said": ["extra"]}, "goto": "third"})
    assert gone_on["said"][:4] == ["go", "first", "second", "extra"]
    assert gone_on["said"][-1] == "third"


async def test_items(client: LangGraphClient) -> None:
    await client.store.put_item(["a", "b"], "k", {"x": 1})
    await client.store.put_item(["a", "c"], "l", {"x": 2})
    found = await client.store.get_item(["a", "b"], "k")
    assert (found["value"], found["namespace"]) == ({"x": 1}, ["a", "b"])
    assert await client.store.get_item(["a", "b"], "nobody") is None
    assert [each["key"] for each in (await client.store.search_items(["a"], filter={"x": 2}))["items"]] == ["l"]
    assert (await client.store.list_namespaces(prefix=["a"]))["namespaces"] == [["a", "b"], ["a", "c"]]
    await client.store.delete_item(["a", "b"], "k")
    await client.store.delete_item(["a", "c"], "l")
    assert (await client.store.search_items(["a"]))["items"] == []
    assert (await client.runs.wait(None, "notes", input=GO))["said"] == ["go", "noted 1"]
    assert (await client.store.get_item(["notes"], "last"))["value"] == {"text": "go"}


async def test_crons(client: LangGraphClient) -> None:
    thread_id = (await client.threads.create())["thread_id"]
    made = await client.crons.create_for_thread(
        thread_id, "agent", schedule="0 9 * * 1", timezone="Europe/Berlin", input=HI, metadata={"team": thread_id}
    )
    cron_id = made["cron_id"]  # type: ignore[typeddict-item]
    assert made["next_run_date"] is not None  # type: ignore[typeddict-item]
    stateless = await client.crons.create("agent", schedule="*/5 * * * *", input=HI, metadata={"team": thread_id})
    assert stateless["on_run_completed"] == "delete"  # type: ignore[typeddict-item]
    assert await client.crons.count(metadata={"team": thread_id}) == 2
    assert [each["cron_id"] for each in await client.crons.search(thread_id=thread_id)] == [cron_id]
    off = await client.crons.update(cron_id, enabled=False, schedule="0 8 * * *")
    assert (off["enabled"], off["schedule"], off["next_run_date"]) == (False, "0 8 * * *", None)
    assert off["payload"]["input"] == HI
    await client.crons.delete(cron_id)
    await client.crons.delete(stateless["cron_id"])  # type: ignore[typeddict-item]
    assert await client.crons.count(metadata={"team": thread_id}) == 0
    with pytest.raises(UnprocessableEntityError, match="schedule"):
        await client.crons.create("agent", schedule="now and then", input=HI)


def test_the_synchronous_client(url: str) -> None:
    with get_sync_client(url=f"{url}/api", api_key=None) as client:
        thread_id = client.threads.create()["thread_id"]
        assert client.runs.wait(thread_id, "agent", input=HI)["messages"][-1]["content"] == "You said: hi"
        events = [part.event for part in client.runs.stream(thread_id, "agent", input=HI)]
        assert (events[0], events[-1]) == ("metadata", "end")
        assert client.threads.get_state(thread_id)["next"] == []


async def test_a_remote_graph_is_a_graph(client: LangGraphClient) -> None:
    remote = RemoteGraph("steps", client=client)
    thread = {"configurable": {"thread_id": str(uuid4())}}
    assert (await remote.ainvoke(GO))["said"] == ["go", "first", "second", "third"]
    assert (await remote.ainvoke(GO, thread))["said"][-1] == "third"
    assert [each async for each in remote.astream(GO, stream_mode="updates")] == [
        {name: {"said": [name]}} for name in ("first", "second", "third")
    ]
    state = await remote.aget_state(thread)
    assert (state.values["said"][0], state.next) == ("go", ())
    assert len([each async for each in remote.aget_state_history(thread)]) == 5
    await remote.aupdate_state(thread, {"said": ["edited"]}, as_node="first")
    assert (await remote.ainvoke(None, thread))["said"][-3:] == ["edited", "second", "third"]
    with pytest.raises(RemoteException):
        await remote.ainvoke({"said": ["boom"]})
    asking = RemoteGraph("hitl", client=client)
    place = {"configurable": {"thread_id": str(uuid4())}}
    stopped = await asking.ainvoke(GO, place)
    assert stopped["__interrupt__"][0]["value"] == {"question": "Proceed?"}
    assert (await asking.ainvoke(Command(resume="yes"), place))["said"] == ["go", "approved=yes"]
    drawn = await RemoteGraph(AGENT, client=client).aget_graph()
    assert list(drawn.nodes) == ["__start__", "model", "__end__"]
