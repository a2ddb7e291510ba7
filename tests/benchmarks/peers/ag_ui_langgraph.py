"""Peer "ag_ui_langgraph": the AG-UI integration of LangGraph on FastAPI, raw events off, as its documents have it.

LangGraph's integration needs a checkpointer; it is the one in memory, as ours is asked with.
"""

from __future__ import annotations

import sys

from ag_ui_langgraph import LangGraphAgent, add_langgraph_fastapi_endpoint
from fastapi import FastAPI
from langgraph.checkpoint.memory import InMemorySaver

from tests.benchmarks.fake_agent import agent
from tests.benchmarks.peers.serving import serve

app = FastAPI()
graph = agent.copy({"checkpointer": InMemorySaver()})
add_langgraph_fastapi_endpoint(app, LangGraphAgent(name="agent", graph=graph, emit_raw_events=False), "/agui")

if __name__ == "__main__":
    serve(app, int(sys.argv[1]))
