"""`AgentCapabilities` of AG-UI 1.0: what an agent, served here, can do. What is absent is unknown."""

from __future__ import annotations

from typing import Any

from agent_server.graph.agent import Agent


def capabilities_of(agent: Agent) -> dict[str, Any]:
    """The capabilities of one agent."""
    named = {"name": agent.name, "type": "langgraph"}
    return {
        "identity": {**named, **({"description": agent.description} if agent.description else {})},
        "transport": {"streaming": True, "resumable": True},
        "tools": {"supported": bool(agent.tool_names) or agent.takes_options, "clientProvided": agent.takes_options},
        "state": {"snapshots": agent.remembers, "deltas": agent.remembers, "persistentState": agent.remembers},
        "humanInTheLoop": {
            "supported": agent.remembers,
            "interrupts": agent.remembers,
            "approvals": agent.asks,
            "approveWithEdits": agent.asks,
        },
        "custom": {"protocolVersion": "1.0", "serverTools": sorted(agent.tool_names)},
    }
