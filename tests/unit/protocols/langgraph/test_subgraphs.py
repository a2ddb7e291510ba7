"""Subgraphs, as the API shows them: their schemas, their drawing, their states while they wait."""

from __future__ import annotations

from langgraph.graph import START, StateGraph
from langgraph.types import interrupt

from agent_server.protocols.langgraph.assistants import default_id
from tests.support.platform import Said, platform


def nested() -> object:
    def ask(state: Said) -> Said:
        return {"approved": interrupt("inner?")}

    inner = StateGraph(Said)
    inner.add_node("ask", ask)
    inner.add_edge(START, "ask")
    outer = StateGraph(Said)
    outer.add_node("child", inner.compile())
    outer.add_edge(START, "child")
    return outer.compile()


async def test_a_subgraph_is_described_and_drawn() -> None:
    async with platform({"nested": nested()}) as (client, _):
        one = f"/assistants/{default_id('nested')}"
        for path in ("subgraphs", "subgraphs?recurse=true", "subgraphs/child"):
            found = (await client.get(f"{one}/{path}")).json()
            assert {name: each["input_schema"]["type"] for name, each in found.items()} == {"child": "object"}
        assert (await client.get(f"{one}/subgraphs/nobody")).json() == {}
        drawn = [(await client.get(f"{one}/graph?xray={deep}")).json()["nodes"] for deep in ("false", "1")]
        assert [[each["id"] for each in nodes] for nodes in drawn] == [
            ["__start__", "child", "__end__"],
            ["__start__", "__end__", "child:ask"],
        ]


async def test_the_state_of_a_subgraph_that_waits_is_shown_inside_and_by_its_namespace() -> None:
    async with platform({"nested": nested()}) as (client, _):
        thread = (await client.post("/threads", json={})).json()["thread_id"]
        asked = {"assistant_id": "nested", "input": {"said": ["x"]}}
        stopped = (await client.post(f"/threads/{thread}/runs/wait", json=asked)).json()
        (task,) = (await client.get(f"/threads/{thread}/state")).json()["tasks"]
        assert (task["name"], task["state"]) == ("child", None)
        assert task["interrupts"][0]["id"] == stopped["__interrupt__"][0]["id"]
        (whole,) = (await client.get(f"/threads/{thread}/state?subgraphs=true")).json()["tasks"]
        assert (whole["state"]["next"], whole["state"]["checkpoint"]["thread_id"]) == (["ask"], thread)
        place = {"checkpoint": {"checkpoint_ns": task["checkpoint"]["checkpoint_ns"]}}
        inner = (await client.post(f"/threads/{thread}/state/checkpoint", json=place)).json()
        assert (inner["values"], inner["next"]) == ({"said": ["x"]}, ["ask"])
        assert len((await client.post(f"/threads/{thread}/history", json=place)).json()) == 2
        refused = await client.post(f"/threads/{thread}/state", json={"values": {"said": ["y"]}, **place})
        assert refused.status_code == 422
