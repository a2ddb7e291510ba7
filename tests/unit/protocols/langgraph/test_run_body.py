"""The body of a run: every field is read, or refused by its name."""

from __future__ import annotations

from dataclasses import fields
from typing import Any

import pytest
from msgspec import UNSET

from agent_server.errors import RequestError
from agent_server.protocols.langgraph.run_body import HARMLESS_MODES, STREAM_MODES, Command, RunBody, Send, read_run

ASKED = {"assistant_id": "agent", "input": {"messages": []}}

READ: dict[str, tuple[dict[str, Any], dict[str, Any]]] = {
    "nothing but an assistant": (
        {"input": None},
        {"input": None, "stream_mode": ("values",), "on_disconnect": "continue"},
    ),
    "a mode": ({"stream_mode": "updates"}, {"stream_mode": ("updates",)}),
    "modes, each once": ({"stream_mode": ["values", "debug", "values"]}, {"stream_mode": ("values", "debug")}),
    "newer modes": ({"stream_mode": ["tools", "values", "lifecycle"]}, {"stream_mode": ("values",)}),
    "all nodes": (
        {"interrupt_before": "*", "interrupt_after": ["*"]},
        {"interrupt_before": "*", "interrupt_after": "*"},
    ),
    "some nodes": ({"interrupt_after": ["a", "b"]}, {"interrupt_after": ("a", "b")}),
    "no nodes": ({"interrupt_after": []}, {"interrupt_after": None}),
    "an answer": ({"input": None, "command": {"resume": False}}, {"command": Command(resume=False)}),
    "no answer": ({"command": {"resume": None, "update": None, "goto": []}}, {"command": None}),
    "an update": (
        {"input": {}, "command": {"update": {"a": 1}, "goto": "b"}},
        {"command": Command(update={"a": 1}, goto=("b",))},
    ),
    "an update in pairs": (
        {"input": None, "command": {"update": [["a", 1], ["a", 2]]}},
        {"command": Command(update=[("a", 1), ("a", 2)])},
    ),
    "a node with its input": (
        {"input": None, "command": {"goto": [{"node": "b", "input": {"x": 1}}, "c"]}},
        {"command": Command(goto=(Send("b", {"x": 1}), "c"))},
    ),
    "what RemoteGraph makes of a command": (
        {"input": None, "command": {"graph": None, "update": None, "resume": "yes", "goto": []}},
        {"command": Command(resume="yes")},
    ),
    "a checkpoint": (
        {"checkpoint": {"checkpoint_id": "c", "checkpoint_ns": "", "checkpoint_map": {}}},
        {"checkpoint_id": "c"},
    ),
    "no checkpoint": ({"checkpoint": {"thread_id": "t", "checkpoint_id": None}}, {"checkpoint_id": None}),
    "the same checkpoint twice": ({"checkpoint": {"checkpoint_id": "c"}, "checkpoint_id": "c"}, {"checkpoint_id": "c"}),
    "no checkpoints on the way": ({"checkpoint_during": False}, {"durability": "exit"}),
    "durability before what it replaced": ({"checkpoint_during": False, "durability": "sync"}, {"durability": "sync"}),
    "services of LangSmith's": ({"feedback_keys": ["a"], "langsmith_tracer": {"project_name": "p"}}, {}),
    "a delay": ({"after_seconds": 3}, {"after_seconds": 3.0}),
    "context": ({"context": {"model": "m"}, "config": {"recursion_limit": 3}}, {"context": {"model": "m"}}),
}


@pytest.mark.parametrize(("given", "expected"), READ.values(), ids=READ)
def test_a_field_is_read(given: dict[str, Any], expected: dict[str, Any]) -> None:
    read = read_run({**ASKED, **given})
    assert {name: getattr(read, name) for name in expected} == expected


WRONG: dict[str, dict[str, Any]] = {
    "assistant_id": {"assistant_id": 3},
    "stream_mode": {"stream_mode": ["values", "nope"]},
    "stream_subgraphs": {"stream_subgraphs": 1},
    "stream_resumable": {"stream_resumable": "yes"},
    "interrupt_before": {"interrupt_before": [1]},
    "interrupt_after": {"interrupt_after": {}},
    "multitask_strategy": {"multitask_strategy": "queue"},
    "if_not_exists": {"if_not_exists": "maybe"},
    "on_disconnect": {"on_disconnect": "stay"},
    "on_completion": {"on_completion": "delete"},
    "durability": {"durability": "never"},
    "after_seconds": {"after_seconds": -1},
    "webhook": {"webhook": 1},
    "context": {"context": []},
    "metadata": {"metadata": "m"},
    "strict_resume": {"strict_resume": "no"},
    "checkpoint": {"checkpoint": "c"},
    "checkpoint.checkpoint_ns": {"checkpoint": {"checkpoint_ns": "child"}},
    "checkpoint.checkpoint_map": {"checkpoint": {"checkpoint_map": {"": "c"}}},
    "checkpoint_id": {"checkpoint": {"checkpoint_id": "c"}, "checkpoint_id": "d"},
    "command": {"input": None, "command": "go"},
    "command.update": {"input": None, "command": {"update": 1}},
    "command.goto": {"input": None, "command": {"goto": [{"input": 1}]}},
    "command.graph": {"input": None, "command": {"graph": "__parent__"}},
    "config": {"config": []},
    "config.tags": {"config": {"tags": "t"}},
    "config.recursion_limit": {"config": {"recursion_limit": 0}},
    "config.callbacks": {"config": {"callbacks": []}},
    "config.configurable.__pregel_resuming": {"config": {"configurable": {"__pregel_resuming": True}}},
    "brand_new": {"brand_new": 1},
}


@pytest.mark.parametrize(("name", "given"), WRONG.items(), ids=WRONG)
def test_what_cannot_be_done_is_refused_by_its_name(name: str, given: dict[str, Any]) -> None:
    with pytest.raises(RequestError) as refused:
        read_run({**ASKED, **given})
    assert (refused.value.status, refused.value.param) == (422, name)
    assert name in refused.value.message


def test_an_assistant_must_be_named() -> None:
    with pytest.raises(RequestError, match="'assistant_id' is required"):
        read_run({"input": {}, "assistant_id": None})


CONTRADICTIONS = {
    "config.configurable and context": ({"config": {"configurable": {"a": 1}}, "context": {"b": 1}}, False),
    "an input and a command": ({"command": {"resume": 1}}, False),
    "an answer without a thread": ({"input": None, "command": {"resume": 1}}, True),
}


@pytest.mark.parametrize(("given", "stateless"), CONTRADICTIONS.values(), ids=CONTRADICTIONS)
def test_what_contradicts_itself_is_a_bad_request(given: dict[str, Any], stateless: bool) -> None:
    with pytest.raises(RequestError) as refused:
        read_run({**ASKED, "input": {"x": 1}, **given}, stateless=stateless)
    assert refused.value.status == 400


def test_a_stateless_run_has_no_checkpoint_to_begin_at_but_may_be_kept() -> None:
    with pytest.raises(RequestError) as refused:
        read_run({**ASKED, "checkpoint_id": "c"}, stateless=True)
    assert refused.value.status == 422
    assert (
        read_run({**ASKED, "on_completion": "keep", "if_not_exists": "create"}, stateless=True).on_completion == "keep"
    )


def test_the_servers_own_keys_of_a_config_are_left_out() -> None:
    sent = {"thread_id": "t", "user_id": "root", "checkpoint_id": "c", "request": {}, "model": "m"}
    read = read_run({**ASKED, "config": {"configurable": sent, "tags": ["a"], "metadata": {"k": 1}, "run_name": "r"}})
    assert read.config.configurable == {"model": "m"}
    assert (read.config.tags, read.config.metadata, read.config.run_name) == (("a",), {"k": 1}, "r")


def test_nothing_of_a_body_is_dropped_in_silence() -> None:
    """Each field of a `RunBody` can be told apart from its default by something that a body says."""
    said = {
        "assistant_id": "a", "input": 1, "config": {"tags": ["t"]}, "metadata": {"m": 1}, "stream_mode": "debug",
        "stream_subgraphs": True, "stream_resumable": True, "interrupt_before": "*", "interrupt_after": "*",
        "checkpoint_id": "c", "durability": "sync", "multitask_strategy": "reject", "if_not_exists": "create",
        "on_disconnect": "cancel", "on_completion": "keep", "after_seconds": 1, "webhook": "https://x.example/",
        "strict_resume": True, "context": {"c": 1},
    }  # fmt: skip
    read, default = read_run(said), RunBody("")
    same = [field.name for field in fields(RunBody) if getattr(read, field.name) == getattr(default, field.name)]
    assert same == ["command"]


def test_every_mode_of_the_contract_is_known_or_harmless() -> None:
    told = {"values", "updates", "messages", "messages-tuple", "events", "debug", "tasks", "checkpoints", "custom"}
    assert set(STREAM_MODES) == told
    assert {"tools", "lifecycle"} <= HARMLESS_MODES
    assert Command().resume is UNSET
