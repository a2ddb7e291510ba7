"""How long a conversation is in tokens, as far as that can be known without asking the model that would read it.

LangChain's estimate is all there is: about four characters a token.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from langchain_core.messages import AnyMessage, HumanMessage, SystemMessage
from langchain_core.messages.utils import count_tokens_approximately
from langchain_core.runnables import RunnableSequence
from langchain_core.tools import BaseTool
from langgraph.prebuilt import ToolNode
from langgraph.pregel import Pregel

from agent_server.graph.agent import Agent, RunnableAgent
from agent_server.graph.inputs import Turn, system_turn, to_messages
from agent_server.graph.shape import unbound


def estimate_tokens(
    agent: Agent, turns: Sequence[Turn], *, instructions: str | None = None, tools: Sequence[Mapping[str, Any]] = ()
) -> int:
    """What the agent's model would be given.

    Counted are the instructions, the turns, the client's `tools` and the agent's own where a graph shows them; not
    what the agent itself adds, such as its system prompt. Raises `RequestError` for calls that are not paired.
    """
    messages = to_messages([*([system_turn(instructions)] if instructions else ()), *turns])
    declared = [{"type": "function", "function": dict(tool)} for tool in tools]
    return count_tokens_approximately(messages, tools=[*_tools_of(agent), *declared] or None)


def newest_turns(messages: Sequence[AnyMessage], tokens: int) -> list[AnyMessage]:
    """The messages without the oldest turns, as many as must go for the rest to be so many tokens.

    A turn is a message of the user's with all that follows it, so calls keep their outputs. The last turn stays
    however long it is, and so do system messages.
    """
    sizes = [count_tokens_approximately([message]) for message in messages]
    excess, start = sum(sizes) - tokens, 0
    for place, message in enumerate(messages):
        if excess <= 0:
            break
        if isinstance(message, HumanMessage):
            old = zip(messages[start:place], sizes[start:place], strict=True)
            excess -= sum(size for each, size in old if not isinstance(each, SystemMessage))
            start = place
    return [each for place, each in enumerate(messages) if place >= start or isinstance(each, SystemMessage)]


def _tools_of(agent: Agent) -> list[BaseTool]:
    graph = unbound(agent.runnable) if isinstance(agent, RunnableAgent) and agent.runnable is not None else None
    if not isinstance(graph, Pregel):
        return []
    bounds = [node.bound for node in graph.nodes.values()]
    steps = [step for bound in bounds for step in (bound.steps if isinstance(bound, RunnableSequence) else (bound,))]
    found = {tool.name: tool for step in steps if isinstance(step, ToolNode) for tool in step.tools_by_name.values()}
    return list(found.values())
