"""What is served: a graph, any other Runnable, or a factory of one, behind one small surface.

What an agent takes and offers (its input's shape, its tools, its context schema) is read off once, when it is
opened; nothing of it is looked up again per run.
"""

from __future__ import annotations

import asyncio
import dataclasses
import inspect
from abc import ABC, abstractmethod
from collections.abc import AsyncIterator, Callable, Mapping, Sequence
from contextlib import (
    AbstractAsyncContextManager,
    AbstractContextManager,
    AsyncExitStack,
    asynccontextmanager,
    contextmanager,
    nullcontext,
)
from dataclasses import dataclass
from functools import partial
from types import TracebackType
from typing import Any

from langchain.agents.middleware import HumanInTheLoopMiddleware
from langchain_core.messages import BaseMessage
from langchain_core.runnables import Runnable, RunnableConfig, RunnableSequence
from langgraph.graph import StateGraph
from langgraph.prebuilt import ToolNode
from langgraph.pregel import Pregel
from pydantic import BaseModel, ValidationError
from typing_extensions import is_typeddict

from agent_server.context import RequestContext
from agent_server.errors import AgentServerError, RequestError, TargetError
from agent_server.graph.checkpoints import AnyGraph, AnyRunnable
from agent_server.graph.shape import Shape, input_shape, unbound

OPTIONS_CHANNEL = "request_options"
"""State channel by which a compiled graph tells that it applies a request's model options."""

Opener = Callable[[RunnableConfig], AbstractAsyncContextManager[AnyRunnable]]

_APPROVALS = HumanInTheLoopMiddleware.__name__

_KNOWN = frozenset(field.name for field in dataclasses.fields(RequestContext)) - {"options"}


@dataclass(frozen=True, slots=True)
class Agent:
    """One served agent, as protocols know it.

    `tool_names` are the tools that run on this server, as far as they are known. `takes_options` tells whether
    the agent applies `RequestContext.options` to its model calls.
    """

    name: str
    description: str
    tool_names: frozenset[str]
    takes_options: bool

    @property
    def remembers(self) -> bool:
        """Whether its runs leave checkpoints, from which others can go on."""
        return False

    @property
    def asks(self) -> bool:
        """Whether it is known to stop for approvals, so that its runs have to be kept to be gone on with."""
        return False

    def context_for(self, request: RequestContext) -> Any:
        """What this agent is given of a request. Raises `RequestError` for one it cannot take."""
        return None


@dataclass(frozen=True, slots=True)
class RunnableAgent(Agent):
    """A graph or any other Runnable; `runnable` is None when a factory makes it anew for each run."""

    runnable: AnyRunnable | None
    is_graph: bool
    context_schema: type | None
    _shape: Shape
    _declared: Mapping[str, bool]
    _open: Opener

    _asks: bool

    @property
    def remembers(self) -> bool:
        return self.is_graph

    @property
    def asks(self) -> bool:
        return self._asks

    def for_run(self, config: RunnableConfig) -> AbstractAsyncContextManager[AnyRunnable]:
        """The runnable of one run. A per-run factory is called with `config`, and closed with the run.

        Raises `TargetError` when the factory fails; the factory's own exception is its cause.
        """
        return self._open(config)

    def input_for(self, messages: Sequence[BaseMessage]) -> Any:
        """The input this agent takes for a conversation."""
        return self._shape(messages)

    def context_for(self, request: RequestContext) -> Any:
        """The `context=` of a run: None for what is no graph; the request for a graph without a schema.

        A graph with a context schema gets a dict of the fields that it declares: those of `RequestContext`
        by name, any other from `custom_inputs`. Identity never comes from `custom_inputs`. A field known by
        name but without a value is left to its default, and is None where it has none.

        Raises `RequestError` naming `custom_inputs` when a field is missing or of the wrong type.
        """
        if not self.is_graph:
            return None
        if self.context_schema is None or self.context_schema is RequestContext:
            return request
        values = dict(self._context_values(request))
        if issubclass(self.context_schema, BaseModel):
            try:
                self.context_schema(**values)
            except ValidationError as error:
                raise _context_error(error.errors()[0]["loc"][0], "is not what the agent takes") from error
        return values

    def _context_values(self, request: RequestContext) -> list[tuple[str, Any]]:
        values: list[tuple[str, Any]] = []
        for name, required in self._declared.items():
            if name in _KNOWN:
                value = getattr(request, name)
                if value is not None or required:
                    values.append((name, value))
            elif name in request.custom_inputs:
                values.append((name, request.custom_inputs[name]))
            elif required:
                raise _context_error(name, "is required by the agent")
        return values


def _context_error(name: int | str, what: str) -> RequestError:
    return RequestError(f"{name!r} {what}.", param=f"custom_inputs.{name}")


class SelfOpening(ABC):
    """A target that knows by itself how to become an agent."""

    @abstractmethod
    def opened(self, name: str) -> AbstractAsyncContextManager[Agent]:
        """The agent under this name, open as long as the block lasts. Raises `TargetError`."""


def agent_of(name: str, target: AnyRunnable | StateGraph[Any, Any, Any, Any]) -> Agent:
    """The agent behind a graph or Runnable, which needs no event loop to be opened. Raises as `open_agent` does."""
    with blaming(f"The agent {name!r} cannot be opened"):
        runnable = target.compile() if isinstance(target, StateGraph) else target
    return _described(name, target, runnable, lambda _: nullcontext(runnable))


@asynccontextmanager
async def open_agent(name: str, target: Any) -> AsyncIterator[Agent]:
    """The agent behind a target, open as long as the block lasts.

    A target is a compiled graph or any other Runnable, a `StateGraph` (compiled here), or a factory: a
    function, a generator function or a context manager function, of either colour. A factory without
    required parameters is opened once. One with a required parameter gets the `RunnableConfig` of each run;
    now it gets an empty config, so that its agent can be described, as on LangGraph Platform.

    Any other target opens itself (`SelfOpening`).

    Raises `TargetError` naming the target; an exception of the target's own code is its cause.
    """
    if isinstance(target, SelfOpening):
        async with target.opened(name) as opened:
            yield opened
    elif _takes_config(name, target):
        per_run = partial(_open_for_run, name, target)
        async with per_run({"tags": [], "metadata": {}, "configurable": {}}) as probe:
            agent = _described(name, target, probe, per_run)
        yield dataclasses.replace(agent, runnable=None)
    else:
        async with AsyncExitStack() as stack:
            runnable = await _opened(name, target, (), stack)
            yield _described(name, target, runnable, lambda _: nullcontext(runnable))


@asynccontextmanager
async def _open_for_run(name: str, factory: Any, config: RunnableConfig) -> AsyncIterator[AnyRunnable]:
    async with AsyncExitStack() as stack:
        yield await _opened(name, factory, (config,), stack)


async def _opened(name: str, target: Any, args: tuple[RunnableConfig, ...], stack: AsyncExitStack) -> AnyRunnable:
    with blaming(f"The agent {name!r} cannot be opened"):
        made = target if isinstance(target, Runnable | StateGraph) else await _made(target, args, stack)
        if isinstance(made, StateGraph):
            made = made.compile()
    if not isinstance(made, Runnable):
        raise TargetError(f"The agent {name!r} cannot be served: its factory made {_kind(made)}.")
    return made


class blaming(AbstractContextManager[None]):  # noqa: N801 - reads as a phrase, as contextlib's own do
    """Turns what the operator's own code raises inside the block into a `TargetError` caused by it."""

    def __init__(self, what: str) -> None:
        self.what = what

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        if isinstance(error, Exception | SystemExit) and not isinstance(error, AgentServerError):
            raise TargetError(f"{self.what}: its code raised {type(error).__name__}.") from error


# Factories


def _takes_config(name: str, target: Any) -> bool:
    """Whether the target is a factory that wants the config of each run."""
    if isinstance(target, Runnable | StateGraph):
        return False
    if inspect.isclass(target) or not callable(target):
        raise TargetError(
            f"The agent {name!r} cannot be served: it is {_kind(target)}, not a graph, Runnable or factory."
        )
    try:
        parameters = inspect.signature(target).parameters.values()
    except (TypeError, ValueError) as error:
        raise TargetError(f"The agent {name!r} cannot be served: its signature is unknown.") from error
    variadic = (inspect.Parameter.VAR_POSITIONAL, inspect.Parameter.VAR_KEYWORD)
    required = [each for each in parameters if each.default is each.empty and each.kind not in variadic]
    if len(required) > 1 or any(each.kind is each.KEYWORD_ONLY for each in required):
        raise TargetError(
            f"The agent {name!r} cannot be served: its factory requires "
            f"({', '.join(each.name for each in required)}), and only the run's config can be given."
        )
    return bool(required)


async def _made(factory: Callable[..., Any], args: tuple[RunnableConfig, ...], stack: AsyncExitStack) -> Any:
    """What a factory makes. Its synchronous code runs in worker threads; `stack` closes what it opened."""
    if inspect.iscoroutinefunction(factory) or inspect.isasyncgenfunction(factory):
        made = factory(*args)
    else:
        made = await asyncio.to_thread(factory, *args)
    if inspect.isawaitable(made):
        made = await made
    if inspect.isasyncgen(made):
        made = asynccontextmanager(lambda: made)()
    elif inspect.isgenerator(made):
        made = contextmanager(lambda: made)()
    if isinstance(made, Runnable | StateGraph):
        return made
    if isinstance(made, AbstractAsyncContextManager):
        return await stack.enter_async_context(made)
    if isinstance(made, AbstractContextManager):
        return await stack.enter_async_context(_Threaded(made))
    return made


class _Threaded(AbstractAsyncContextManager[Any]):
    """A synchronous context, entered and left in worker threads; left, too, if cancelled while entering."""

    def __init__(self, context: AbstractContextManager[Any]) -> None:
        self.context = context

    async def __aenter__(self) -> Any:
        entering = asyncio.ensure_future(asyncio.to_thread(self.context.__enter__))
        try:
            return await asyncio.shield(entering)
        except asyncio.CancelledError:
            await entering
            await self.__aexit__(None, None, None)
            raise

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> bool | None:
        return await asyncio.to_thread(self.context.__exit__, kind, error, trace)


def _kind(value: Any) -> str:
    return f"the class {value.__name__}" if inspect.isclass(value) else f"of type {type(value).__name__}"


# Description


def _described(name: str, target: Any, runnable: AnyRunnable, opener: Opener) -> RunnableAgent:
    core = unbound(runnable)
    graphs = _graphs(core)
    schema = graphs[0].context_schema if graphs else None
    with blaming(f"The agent {name!r} cannot be described"):
        return RunnableAgent(
            name=name,
            runnable=runnable,
            description=_description(target, core),
            tool_names=frozenset(tool for graph in graphs for tool in _tool_names(graph)),
            takes_options=any(OPTIONS_CHANNEL in graph.channels for graph in graphs),
            is_graph=bool(graphs),
            context_schema=schema,
            _shape=input_shape(runnable),
            _declared=_declared(schema) if schema else {},
            _open=opener,
            _asks=any(name.startswith(_APPROVALS) for graph in graphs for name in graph.nodes),
        )


def _graphs(runnable: AnyRunnable) -> list[AnyGraph]:
    """The graph and its subgraphs; nothing for what is no graph."""
    if not isinstance(runnable, Pregel):
        return []
    below = [graph for _, graph in runnable.get_subgraphs(recurse=True) if isinstance(graph, Pregel)]
    return [runnable, *below]


def _tool_names(graph: AnyGraph) -> list[str]:
    names: list[str] = []
    for node in graph.nodes.values():
        bound = node.bound
        for step in bound.steps if isinstance(bound, RunnableSequence) else (bound,):
            names.extend(step.tools_by_name if isinstance(step, ToolNode) else ())
    return names


def _description(target: Any, runnable: AnyRunnable) -> str:
    """The runnable's own description, or the first paragraph of the factory's docstring."""
    said = getattr(runnable, "description", None)
    if isinstance(said, str) and said:
        return said
    doc = "" if isinstance(target, Runnable | StateGraph) else inspect.getdoc(target) or ""
    return " ".join(doc.partition("\n\n")[0].split())


def _declared(schema: type) -> dict[str, bool]:
    """Field name -> whether the run's context must have it. A TypedDict must have what is known by name."""
    if issubclass(schema, BaseModel):
        return {info.alias or name: info.is_required() for name, info in schema.model_fields.items()}
    if dataclasses.is_dataclass(schema):
        none = dataclasses.MISSING
        fields = [each for each in dataclasses.fields(schema) if each.init]
        return {each.name: each.default is none and each.default_factory is none for each in fields}
    if is_typeddict(schema):
        names: frozenset[str] = vars(schema)["__required_keys__"] | vars(schema)["__optional_keys__"]
        return {name: name in _KNOWN for name in names}
    return {}
