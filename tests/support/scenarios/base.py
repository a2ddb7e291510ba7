"""What the scenario tables are built from."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

from langchain.agents import create_agent
from langchain_core.runnables import Runnable
from langchain_core.tools import BaseTool

from tests.support.models import ScriptedChatModel, Turn

Agent = Runnable[Any, Any]
Factory = Callable[[], Agent]


def model(*turns: Turn) -> ScriptedChatModel:
    """A streaming model that plays these turns."""
    return ScriptedChatModel(turns=list(turns))


def agent(*turns: Turn, tools: Sequence[BaseTool] = (), **options: Any) -> Factory:
    """A factory of `create_agent` agents whose model plays these turns."""
    return lambda: create_agent(model(*turns), tools=list(tools), **options)


def client_agent(*turns: Turn, tools: Sequence[BaseTool] = ()) -> Factory:
    """The same, heeding what a request asks of the model: the client's tools and output format."""

    def make() -> Agent:
        from agent_server.middleware import RequestOptions

        return create_agent(model(*turns), tools=list(tools), middleware=[RequestOptions()])

    return make
