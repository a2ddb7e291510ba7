"""What a graph is, for those who draw it or fill in its forms: schemas, nodes and edges, subgraphs."""

from __future__ import annotations

import warnings
from collections.abc import Callable
from typing import Any

from langchain_core.runnables import Runnable
from langgraph.graph.state import CompiledStateGraph
from langgraph.pregel import Pregel
from pydantic import TypeAdapter
from pydantic.errors import PydanticUserError

from agent_server.graph.agent import Agent, RunnableAgent
from agent_server.graph.jsonable import to_jsonable
from agent_server.graph.shape import unbound

Schema = dict[str, Any] | None

_NO_SCHEMA = (PydanticUserError, NotImplementedError, NameError, TypeError, AttributeError, ValueError)
NONE: dict[str, Schema] = dict.fromkeys(
    ("input_schema", "output_schema", "state_schema", "config_schema", "context_schema")
)


async def schemas(agent: Agent) -> dict[str, Schema]:
    """JSON schemas of an agent's input, output, state, config and context; None for what has none."""
    if not isinstance(agent, RunnableAgent):
        return NONE
    async with agent.for_run({"configurable": {}}) as runnable:
        return _schemas(unbound(runnable))


async def drawn(agent: Agent, xray: int | bool) -> dict[str, list[dict[str, Any]]]:
    """The nodes and edges of an agent, with those of its subgraphs to the depth `xray`."""
    if not isinstance(agent, RunnableAgent):
        node = {"id": agent.name, "type": "runnable", "data": {"name": agent.name}}
        return {"nodes": [node], "edges": []}
    async with agent.for_run({"configurable": {}}) as runnable:
        core = unbound(runnable)
        graph = await core.aget_graph(xray=xray) if isinstance(core, Pregel) else core.get_graph()
        told = graph.to_json()
        return {"nodes": [_node(each) for each in told["nodes"]], "edges": to_jsonable(told["edges"])}


async def subgraphs(agent: Agent, namespace: str | None, *, recurse: bool) -> dict[str, dict[str, Schema]]:
    """The schemas of a graph's subgraphs, by namespace."""
    if not isinstance(agent, RunnableAgent):
        return {}
    async with agent.for_run({"configurable": {}}) as runnable:
        core = unbound(runnable)
        if not isinstance(core, Pregel):
            return {}
        found = core.aget_subgraphs(namespace=namespace, recurse=recurse)
        return {name: _schemas(each) async for name, each in found if isinstance(each, Pregel)}


def _schemas(core: Runnable[Any, Any]) -> dict[str, Schema]:
    graph = core if isinstance(core, Pregel) else None
    return {
        "input_schema": _made(core.get_input_jsonschema),
        "output_schema": _made(core.get_output_jsonschema),
        "state_schema": _made(lambda: _state_schema(core)),
        "config_schema": _made(lambda: _config_schema(core)),
        "context_schema": None if graph is None else _made(graph.get_context_jsonschema),
    }


def _made(make: Callable[[], Schema]) -> Schema:
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        try:
            schema = make()
        except _NO_SCHEMA:
            return None
    return None if schema is None else to_jsonable(schema)


def _state_schema(core: Runnable[Any, Any]) -> Schema:
    if not isinstance(core, CompiledStateGraph):
        return None
    return TypeAdapter(core.builder.state_schema).json_schema()


def _config_schema(core: Runnable[Any, Any]) -> Schema:
    schema = core.config_schema().model_json_schema()
    configurable: Schema = schema.get("$defs", {}).get("Configurable", {})
    return configurable


def _node(node: dict[str, Any]) -> dict[str, Any]:
    """A node with its name; where it comes from in Python concerns nobody."""
    told = {"id": node["id"]}
    if node["id"] != "__end__":
        data = node.get("data")
        name = data.get("name") if isinstance(data, dict) else None
        told |= {"type": node.get("type", "runnable"), "data": {"name": name or str(node["id"])}}
    return told | ({"metadata": to_jsonable(node["metadata"])} if node.get("metadata") else {})
