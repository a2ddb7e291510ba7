"""The agent of the storm: `wait` waits for ever, `count` tells what the process holds, `tidy` after a collection."""

from __future__ import annotations

import asyncio
import gc
import json
import os
from typing import Any

from langchain_core.messages import AIMessage
from langgraph.graph import START, MessagesState, StateGraph

waiting = 0


async def _answer(state: MessagesState) -> dict[str, Any]:
    global waiting
    asked = state["messages"][-1].text
    if asked == "tidy":
        gc.collect()
    if asked in ("tidy", "count"):
        held = {"waiting": waiting, "tasks": len(asyncio.all_tasks()), "descriptors": len(os.listdir("/proc/self/fd"))}
        return {"messages": [AIMessage(json.dumps(held))]}
    waiting += 1
    try:
        await asyncio.get_running_loop().create_future()
    finally:
        waiting -= 1
    return {}


_graph = StateGraph(MessagesState)
_graph.add_node("answer", _answer)
_graph.add_edge(START, "answer")
agent = _graph.compile()
