"""What a request asks of the model reaches each model call of its run, and nothing else."""

from __future__ import annotations

import json
from collections.abc import Callable, Sequence
from typing import Any

import pytest
from langchain.agents import create_agent
from langchain.agents.middleware import AgentMiddleware, HumanInTheLoopMiddleware, SummarizationMiddleware
from langchain.agents.structured_output import ToolStrategy
from langchain_core.messages import AIMessage, HumanMessage, SystemMessage, ToolMessage
from langchain_core.tools import BaseTool, tool
from langchain_openai import ChatOpenAI
from langgraph.checkpoint.memory import InMemorySaver
from langgraph.graph import START, MessagesState, StateGraph
from langgraph.types import Command
from pydantic import BaseModel

from agent_server.context import ModelOptions, RequestContext
from agent_server.graph.agent import OPTIONS_CHANNEL, open_agent
from agent_server.middleware import RequestOptions, RequestOptionsState
from tests.support.scripted import Call, SilentChatModel, chunks

Json = dict[str, Any]


@tool
def add(a: int, b: int) -> str:
    """Add two numbers."""
    return str(a + b)


@tool
def shout(text: str) -> str:
    """Say it loudly."""
    return text.upper()


LOOK = {
    "name": "look",
    "description": "Look at the screen.",
    "parameters": {"type": "object", "properties": {}},
}
ADD = {"name": "add", "args": {"a": 1, "b": 2}, "id": "call_add"}
SHOUT = {"name": "shout", "args": {"text": "hi"}, "id": "call_shout"}
CLIENT = {"name": "look", "args": {"at": "door"}, "id": "call_look"}
SCHEMA = {"type": "object", "properties": {"city": {"type": "string"}}, "required": ["city"]}


def answers(*turns: str | Sequence[Json]) -> SilentChatModel:
    """A model whose turns are texts or lists of tool calls."""
    return SilentChatModel(turns=[_turn(turn) for turn in turns])


def _turn(turn: str | Sequence[Json]) -> list[Any]:
    if isinstance(turn, str):
        return [*chunks.text(turn), *chunks.finish()]
    calls = [{**call, "args": json.dumps(call["args"]), "index": n} for n, call in enumerate(turn)]
    return [chunks.AIMessageChunk(content="", tool_call_chunks=calls)]


def agent_of(model: Any, tools: Sequence[BaseTool] = (add, shout), **more: Any) -> Any:
    middleware = [*more.pop("before", ()), RequestOptions(), *more.pop("after", ())]
    return create_agent(model, list(tools), middleware=middleware, **more)


def config_of(thread: str = "t", **options: Any) -> Any:
    request = RequestContext(options=ModelOptions(**options))
    return {"configurable": {"request": request, "thread_id": thread}}


def asked(text: str = "Hello") -> Json:
    return {"messages": [HumanMessage(text)]}


def bound(call: Call) -> list[str]:
    return [each["function"]["name"] if isinstance(each, dict) else each.name for each in call.kwargs.get("tools", [])]


@pytest.fixture(params=["sync", "async"])
def invoke(request: pytest.FixtureRequest) -> Callable[..., Any]:
    """Runs a graph through its synchronous and its asynchronous hooks."""

    async def run(graph: Any, value: Any, config: Any) -> Any:
        if request.param == "async":
            return await graph.ainvoke(value, config)
        return graph.invoke(value, config)

    return run


# Instructions


async def test_instructions_follow_the_system_prompt_and_are_never_kept(invoke: Callable[..., Any]) -> None:
    model = answers("Hi.")
    graph = agent_of(model, system_prompt="Be kind.", checkpointer=InMemorySaver())
    state = await invoke(graph, asked(), config_of(instructions="Be brief."))
    assert model.calls[0].messages[0] == SystemMessage("Be kind.\n\nBe brief.")
    assert [each.type for each in state["messages"]] == ["human", "ai"]
    await invoke(graph, asked("And now?"), config_of(temperature=0.5))
    assert model.calls[1].messages[0] == SystemMessage("Be kind.")


@pytest.mark.parametrize(
    ("prompt", "content"),
    [
        (None, "Be brief."),
        (
            SystemMessage([{"type": "text", "text": "Be kind."}]),
            [{"type": "text", "text": "Be kind."}, {"type": "text", "text": "Be brief."}],
        ),
    ],
)
async def test_instructions_join_any_system_prompt(prompt: Any, content: Any) -> None:
    model = answers("Hi.")
    await agent_of(model, system_prompt=prompt).ainvoke(asked(), config_of(instructions="Be brief."))
    assert model.calls[0].messages[0] == SystemMessage(content)


# Client tools


async def test_server_tools_of_a_turn_run_before_it_waits_for_the_client(invoke: Callable[..., Any]) -> None:
    model = answers([ADD, CLIENT, SHOUT], "Done.")
    state = await invoke(agent_of(model), asked(), config_of(tools=(LOOK,)))
    assert bound(model.calls[0]) == ["add", "shout", "look"]
    assert {each.tool_call_id: each.content for each in state["messages"][2:]} == {
        "call_add": "3",
        "call_shout": "HI",
    }
    assert [each.value for each in state["__interrupt__"]] == [
        {"type": "client_tool_call", "tool_call_id": "call_look", "name": "look", "args": {"at": "door"}}
    ]


@pytest.mark.parametrize(
    ("output", "content"),
    [
        ("A cat.", "A cat."),
        ([{"type": "text", "text": "A cat."}], [{"type": "text", "text": "A cat."}]),
        ({"seen": "cat"}, '{"seen": "cat"}'),
        (ToolMessage("A cat.", tool_call_id="call_look", name="look"), "A cat."),
    ],
)
async def test_the_clients_output_continues_the_run(output: Any, content: Any, invoke: Callable[..., Any]) -> None:
    model = answers([CLIENT, ADD], "Done.")
    graph = agent_of(model, checkpointer=InMemorySaver())
    config = config_of(tools=(LOOK,))
    state = await invoke(graph, asked(), config)
    waiting = state["__interrupt__"][0]
    state = await invoke(graph, Command(resume={waiting.id: output}), config)
    outputs = {each.tool_call_id: each.content for each in state["messages"] if each.type == "tool"}
    assert outputs == {"call_add": "3", "call_look": content}
    assert state["messages"][-1].text == "Done."


async def test_every_pending_client_call_has_its_own_interrupt() -> None:
    other = {**CLIENT, "id": "call_look_2"}
    graph = agent_of(answers([CLIENT, other], "Done."), tools=(), checkpointer=InMemorySaver())
    config = config_of(tools=(LOOK,))
    state = await graph.ainvoke(asked(), config)
    answers_ = {each.id: each.value["tool_call_id"] for each in state["__interrupt__"]}
    assert sorted(answers_.values()) == ["call_look", "call_look_2"]
    state = await graph.ainvoke(Command(resume=answers_), config)
    assert [(each.tool_call_id, each.content) for each in state["messages"][2:4]] == [
        ("call_look", "call_look"),
        ("call_look_2", "call_look_2"),
    ]


async def test_interrupts_show_in_the_stream_without_a_checkpointer() -> None:
    stream = agent_of(answers([CLIENT])).astream(asked(), config_of(tools=(LOOK,)), stream_mode="updates")
    updates = [update async for update in stream]
    assert updates[-1]["__interrupt__"][0].value["tool_call_id"] == "call_look"


async def test_a_call_to_no_tool_at_all_is_answered_by_the_tool_node() -> None:
    model = answers([{**CLIENT, "name": "lok"}], "Sorry.")
    state = await agent_of(model).ainvoke(asked(), config_of(tools=(LOOK,)))
    assert state["messages"][2].status == "error"
    assert "__interrupt__" not in state


async def test_the_servers_tool_wins_over_a_client_tool_of_its_name() -> None:
    model = answers([ADD], "Three.")
    state = await agent_of(model).ainvoke(asked(), config_of(tools=({**LOOK, "name": "add"},)))
    assert bound(model.calls[0]) == ["add", "shout"]
    assert state["messages"][2].content == "3"


async def test_a_client_tool_is_bound_in_the_form_all_providers_take() -> None:
    model = answers("Hi.")
    bare = {"name": "bare", "description": None, "parameters": None, "strict": True}
    await agent_of(model, tools=()).ainvoke(asked(), config_of(tools=(LOOK, bare)))
    assert model.calls[0].kwargs["tools"] == [
        {"type": "function", "function": LOOK},
        {
            "type": "function",
            "function": {"name": "bare", "parameters": {"type": "object", "properties": {}}, "strict": True},
        },
    ]


# Tool choice


@pytest.mark.parametrize(
    ("choice", "tools", "first"),
    [
        ("auto", ["add", "shout", "look"], None),
        ("none", [], None),
        ("required", ["add", "shout", "look"], "any"),
        ({"type": "function", "name": "add"}, ["add"], "add"),
        ({"type": "mcp", "server_label": "agent", "name": "add"}, ["add"], "add"),
        ({"type": "function", "name": "look"}, ["look"], "look"),
        (
            {
                "type": "allowed_tools",
                "mode": "auto",
                "tools": [{"type": "function", "name": "add"}, {"type": "function", "name": "look"}],
            },
            ["add", "look"],
            None,
        ),
        (
            {"type": "allowed_tools", "mode": "required", "tools": [{"type": "function", "name": "add"}]},
            ["add"],
            "any",
        ),
    ],
)
async def test_the_model_sees_only_the_tools_it_may_choose(choice: Any, tools: list[str], first: str | None) -> None:
    model = answers("Hi.")
    await agent_of(model).ainvoke(asked(), config_of(tools=(LOOK,), tool_choice=choice))
    assert bound(model.calls[0]) == tools
    assert model.calls[0].kwargs.get("tool_choice") == first


@pytest.mark.parametrize(
    "choice",
    [
        "required",
        {"type": "function", "name": "add"},
        {"type": "allowed_tools", "mode": "required", "tools": [{"type": "function", "name": "add"}]},
    ],
)
async def test_a_call_is_forced_once_per_run(choice: Any, invoke: Callable[..., Any]) -> None:
    model = answers([ADD], "Three.")
    graph = agent_of(model, checkpointer=InMemorySaver())
    for _ in range(2):
        await invoke(graph, asked(), config_of(tool_choice=choice))
    forced = [call.kwargs.get("tool_choice") for call in model.calls]
    assert forced[0] is not None
    assert forced == [forced[0], None, forced[0], None]


async def test_after_a_forced_function_the_other_tools_are_back() -> None:
    model = answers([ADD], "Three.")
    await agent_of(model).ainvoke(asked(), config_of(tool_choice={"type": "function", "name": "add"}))
    assert [bound(call) for call in model.calls] == [["add"], ["add", "shout"]]


@pytest.mark.parametrize(
    "choice",
    ["none", {"type": "allowed_tools", "mode": "auto", "tools": [{"type": "function", "name": "shout"}]}],
)
@pytest.mark.parametrize("call", [ADD, CLIENT], ids=["server", "client"])
async def test_a_tool_that_is_ruled_out_does_not_run_when_called_all_the_same(choice: Any, call: Json) -> None:
    state = await agent_of(answers([call], "Sorry.")).ainvoke(asked(), config_of(tools=(LOOK,), tool_choice=choice))
    assert [each.status for each in state["messages"] if each.type == "tool"] == ["error"]
    assert "__interrupt__" not in state


async def test_parallel_tool_calls_reach_the_model_only_with_tools() -> None:
    model = answers("Hi.")
    await agent_of(model).ainvoke(asked(), config_of(parallel_tool_calls=False))
    await agent_of(model, tools=()).ainvoke(asked(), config_of(parallel_tool_calls=False))
    assert [call.kwargs.get("parallel_tool_calls") for call in model.calls] == [False, None]


# Tool call limit


async def test_calls_over_the_limit_fail_and_then_the_model_has_no_server_tools(
    invoke: Callable[..., Any],
) -> None:
    model = answers([ADD, CLIENT, SHOUT], "Done.")
    graph = agent_of(model, checkpointer=InMemorySaver())
    config = config_of(tools=(LOOK,), max_tool_calls=1)
    state = await invoke(graph, asked(), config)
    by_call = {each.tool_call_id: each for each in state["messages"] if each.type == "tool"}
    assert (by_call["call_add"].content, by_call["call_add"].status) == ("3", "success")
    assert by_call["call_shout"].status == "error"
    assert len(state["__interrupt__"]) == 1


async def test_the_limit_counts_over_the_turns_of_a_run_and_starts_anew_with_the_next(
    invoke: Callable[..., Any],
) -> None:
    model = answers([ADD], [{**ADD, "id": "call_2"}], [{**ADD, "id": "call_3"}], "Done.")
    graph = agent_of(model, checkpointer=InMemorySaver())
    for _ in range(2):
        model.calls.clear()
        state = await invoke(graph, asked(), config_of(max_tool_calls=2))
        assert [each.status for each in state["messages"][-7:] if each.type == "tool"] == ["success"] * 2 + ["error"]
        assert [bound(call) for call in model.calls] == [["add", "shout"], ["add", "shout"], [], []]


async def test_the_limit_leaves_the_clients_own_tools() -> None:
    model = answers([ADD], "Done.")
    await agent_of(model).ainvoke(asked(), config_of(tools=(LOOK,), max_tool_calls=1))
    assert [bound(call) for call in model.calls] == [["add", "shout", "look"], ["look"]]


# Structured output


async def test_a_json_schema_becomes_the_models_response_format(invoke: Callable[..., Any]) -> None:
    model = answers('{"city": "Oslo"}')
    wanted = {"type": "json_schema", "name": "place", "schema": SCHEMA, "strict": True}
    state = await invoke(agent_of(model), asked(), config_of(response_format=wanted))
    assert model.calls[0].kwargs["response_format"] == {
        "type": "json_schema",
        "json_schema": {"name": "place", "schema": {**SCHEMA, "title": "place"}, "strict": True},
    }
    assert json.loads(state["messages"][-1].text) == {"city": "Oslo"}


async def test_a_json_object_is_asked_for_by_name_where_no_tools_are_bound() -> None:
    model = answers("{}")
    await agent_of(model, tools=()).ainvoke(asked(), config_of(response_format={"type": "json_object"}))
    assert model.calls[0].kwargs["response_format"] == {"type": "json_object"}


async def test_the_requests_format_replaces_the_agents_own() -> None:
    class Place(BaseModel):
        city: str

    model = answers('{"city": "Oslo"}')
    graph = agent_of(model, response_format=ToolStrategy(Place))
    wanted = {"type": "json_schema", "name": "place", "schema": SCHEMA}
    state = await graph.ainvoke(asked(), config_of(response_format=wanted))
    assert bound(model.calls[0]) == ["add", "shout"]
    assert state["messages"][-1].text == '{"city": "Oslo"}'
    assert "strict" not in model.calls[0].kwargs["response_format"]["json_schema"]


# Settings


@pytest.mark.parametrize(
    ("options", "settings"),
    [
        ({"max_output_tokens": 64}, {"max_tokens": 64}),
        ({"temperature": 0.0}, {"temperature": 0.0}),
        ({"top_p": 0.5}, {"top_p": 0.5}),
        ({"top_logprobs": 0}, {"top_logprobs": 0, "logprobs": True}),
        ({"verbosity": "low"}, {"verbosity": "low"}),
        ({"reasoning": {"effort": "low", "summary": None}}, {"reasoning_effort": "low"}),
        (
            {"reasoning": {"effort": "low", "summary": "auto"}},
            {"reasoning": {"effort": "low", "summary": "auto"}},
        ),
        ({"reasoning": {"effort": None}, "instructions": "Hi."}, {}),
    ],
)
async def test_settings_reach_the_model_by_langchains_names_only_when_asked_for(options: Json, settings: Json) -> None:
    model = answers("Hi.")
    await agent_of(model, tools=()).ainvoke(asked(), config_of(**options))
    assert model.calls[0].kwargs == settings


async def test_a_model_that_declares_its_settings_gets_no_others() -> None:
    class Provider(SilentChatModel):
        temperature: float | None = None
        max_tokens: int | None = None

    model = Provider(turns=[_turn("Hi.")])
    options: Json = {
        "temperature": 0.1,
        "max_output_tokens": 9,
        "verbosity": "low",
        "parallel_tool_calls": True,
    }
    await agent_of(model).ainvoke(asked(), config_of(**options))
    assert model.calls[0].kwargs.keys() - {"tools"} == {"temperature", "max_tokens"}


@pytest.mark.parametrize("wanted", [{"type": "json_object"}, {"type": "json_schema", "name": "p", "schema": SCHEMA}])
@pytest.mark.parametrize("tools", [(), (LOOK,)], ids=["without tools", "with tools"])
@pytest.mark.parametrize("responses_api", [False, True])
def test_openais_own_model_takes_every_option(wanted: Json, tools: Any, responses_api: bool) -> None:
    model = ChatOpenAI(model="gpt-5", api_key="none", use_responses_api=responses_api)
    seen = []

    class Look(AgentMiddleware):
        def wrap_model_call(self, request: Any, handler: Any) -> Any:
            settings = request.model_settings
            call = (
                request.model.bind_tools(request.tools, **settings) if request.tools else request.model.bind(**settings)
            )
            seen.append(model._get_request_payload([HumanMessage("Hi")], **call.kwargs))
            return AIMessage("Hi.")

    graph = agent_of(model, tools=[add] if tools else [], after=[Look()])
    graph.invoke(
        asked(),
        config_of(
            tools=tools,
            response_format=wanted,
            max_output_tokens=9,
            top_p=0.5,
            top_logprobs=2,
            verbosity="low",
            parallel_tool_calls=False,
            reasoning={"effort": "low"},
        ),
    )
    payload = seen[0]
    if responses_api:
        assert payload["text"]["format"]["type"].startswith("json_")
        assert (payload["max_output_tokens"], payload["reasoning"]) == (9, {"effort": "low"})
    else:
        assert payload["response_format"]["type"].startswith("json_")
        assert (payload["max_completion_tokens"], payload["reasoning_effort"]) == (9, "low")
    assert payload.get("parallel_tool_calls") == (False if tools else None)


async def test_a_request_without_options_changes_nothing_of_the_call(invoke: Callable[..., Any]) -> None:
    plain, with_options = answers("Hi."), answers("Hi.")
    config: Any = {"configurable": {"request": RequestContext(request_id="r")}}
    await create_agent(plain, [add, shout], system_prompt="Be kind.").ainvoke(asked(), config)
    graph = agent_of(with_options, system_prompt="Be kind.")
    await invoke(graph, asked(), config)
    await invoke(graph, asked(), {})
    assert with_options.calls[0].kwargs == plain.calls[0].kwargs
    assert with_options.calls[0].messages[0] == with_options.calls[1].messages[0] == SystemMessage("Be kind.")


# Beside other middleware, and inside other graphs


async def test_an_approval_comes_first_and_the_clients_call_after_it(invoke: Callable[..., Any]) -> None:
    model = answers([ADD, CLIENT], "Done.")
    approvals = HumanInTheLoopMiddleware(interrupt_on={"add": True})
    graph = agent_of(model, before=[approvals], checkpointer=InMemorySaver())
    config = config_of(tools=(LOOK,), instructions="Be brief.")
    state = await invoke(graph, asked(), config)
    assert [each.value["action_requests"][0]["name"] for each in state["__interrupt__"]] == ["add"]
    state = await invoke(graph, Command(resume={"decisions": [{"type": "approve"}]}), config)
    assert [each.value["name"] for each in state["__interrupt__"]] == ["look"]
    resume = {state["__interrupt__"][0].id: "A cat."}
    state = await invoke(graph, Command(resume=resume), config)
    assert [each.content for each in state["messages"][2:]] == ["3", "A cat.", "Done."]


@pytest.mark.parametrize("outside", [True, False])
async def test_options_spare_the_models_call_that_summarizes(outside: bool) -> None:
    model, summarizer = answers("Hi."), answers("They greeted.")
    summary = SummarizationMiddleware(summarizer, trigger=("messages", 3), keep=("messages", 1))
    graph = agent_of(model, **{"after" if outside else "before": [summary]})
    history = [HumanMessage("a"), AIMessage("b"), HumanMessage("c"), AIMessage("d"), HumanMessage("e")]
    state = await graph.ainvoke({"messages": history}, config_of(instructions="Be brief.", temperature=0.1))
    assert "They greeted." in state["messages"][0].text
    assert "temperature" not in summarizer.calls[0].kwargs
    assert model.calls[0].kwargs["temperature"] == 0.1
    assert model.calls[0].messages[0] == SystemMessage("Be brief.")


async def test_options_reach_an_agent_that_is_a_node_of_a_graph() -> None:
    model = answers([CLIENT], "Done.")
    outer = StateGraph(MessagesState)
    outer.add_node("agent", agent_of(model))
    outer.add_edge(START, "agent")
    state = await outer.compile().ainvoke(asked(), config_of(tools=(LOOK,)))
    assert [each.value["name"] for each in state["__interrupt__"]] == ["look"]


# Truncation


WORDS = "word " * 80  # 103 tokens as a message


def small(window: int | None = 400) -> SilentChatModel:
    model = answers("Hi.")
    model.profile = {"max_input_tokens": window} if window else None
    return model


def long_history() -> Json:
    call = AIMessage("", tool_calls=[ADD])
    output = ToolMessage(WORDS, tool_call_id="call_add")
    return {"messages": [HumanMessage(f"1 {WORDS}"), call, output, AIMessage("3"), HumanMessage(f"2 {WORDS}")]}


async def test_the_oldest_turn_goes_with_its_calls_when_the_models_window_is_full(invoke: Callable[..., Any]) -> None:
    model = small()
    graph = agent_of(model, system_prompt="Be kind.", checkpointer=InMemorySaver())
    state = await invoke(graph, long_history(), config_of(truncation="auto"))
    assert [each.text[:8] for each in model.calls[0].messages] == ["Be kind.", "2 word w"]
    assert len(state["messages"]) == 6  # the conversation is as long as ever


async def test_what_is_beside_the_turns_takes_room_too(invoke: Callable[..., Any]) -> None:
    long = {**LOOK, "description": WORDS * 3}
    for options in ({}, {"instructions": WORDS * 3}, {"tools": (long,)}):
        model = small(window=800)
        await invoke(agent_of(model), long_history(), config_of(truncation="auto", **options))
        told = [each for each in model.calls[0].messages if each.type != "system"]
        assert len(told) == (1 if options else 5), options


@pytest.mark.parametrize(("window", "truncation"), [(None, "auto"), (10_000, "auto"), (400, None)])
async def test_nothing_goes_that_fits_or_is_not_to_go(
    invoke: Callable[..., Any], window: int | None, truncation: str | None
) -> None:
    model = small(window)
    await invoke(agent_of(model), long_history(), config_of(truncation=truncation))
    assert [each.content for each in model.calls[0].messages] == [each.content for each in long_history()["messages"]]


async def test_a_last_turn_that_does_not_fit_is_for_the_model_to_refuse(invoke: Callable[..., Any]) -> None:
    model = small(window=10)
    await invoke(agent_of(model), long_history(), config_of(truncation="auto"))
    assert [each.text[:1] for each in model.calls[0].messages] == ["2"]


# Detection


def test_the_channel_of_the_middleware_is_the_one_agents_are_known_by() -> None:
    assert RequestOptionsState.__annotations__.keys() - {"messages", "jump_to", "structured_response"} == {
        OPTIONS_CHANNEL
    }


async def test_an_agent_tells_that_it_takes_options_and_hides_how() -> None:
    graph = agent_of(answers("Hi."))
    async with open_agent("a", graph) as agent:
        assert agent.takes_options
    async with open_agent("b", create_agent(answers("Hi."))) as agent:
        assert not agent.takes_options
    assert OPTIONS_CHANNEL not in graph.get_input_jsonschema()["properties"]
    assert OPTIONS_CHANNEL not in graph.get_output_jsonschema()["properties"]
    values = [each async for each in graph.astream(asked(), config_of(instructions="x"), stream_mode="values")]
    assert all(OPTIONS_CHANNEL not in each for each in values)


async def test_the_count_is_neither_output_nor_checkpointed() -> None:
    graph = agent_of(answers([ADD], "Three."), checkpointer=InMemorySaver())
    state = await graph.ainvoke(asked(), config_of(max_tool_calls=3))
    assert OPTIONS_CHANNEL not in state
    assert OPTIONS_CHANNEL not in (await graph.aget_state(config_of())).values
