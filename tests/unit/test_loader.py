"""Targets lead to agents, and a target that leads nowhere says where it was looked for."""

from __future__ import annotations

import json
import os
import pickle
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from langgraph.graph.state import CompiledStateGraph

from agent_server import loader
from agent_server.errors import TargetError
from agent_server.loader import load_targets

ONE = "from langchain_core.runnables import RunnableLambda\nagent = RunnableLambda(lambda value: value)\n"
GRAPH = """
from langchain_core.language_models import FakeListChatModel
from langchain_core.tools import tool
from langgraph.graph import START, MessagesState, StateGraph
@tool
def look() -> str:
    "Look."
    return ""
llm = FakeListChatModel(responses=["Hi."])
workflow = StateGraph(MessagesState)
workflow.add_node("a", lambda state: {})
workflow.add_edge(START, "a")
"""


@pytest.fixture(autouse=True)
def clean_imports(monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    """What a test imports and puts on the path goes with it."""
    monkeypatch.setattr(sys, "path", list(sys.path))
    before = set(sys.modules)
    yield
    for name in set(sys.modules) - before:
        del sys.modules[name]


def write(folder: Path, files: dict[str, str]) -> None:
    for name, text in files.items():
        path = folder / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(text)


# Names


@pytest.mark.parametrize(
    ("target", "name"),
    [
        ("bot.py", "bot"),
        ("bot.py:agent", "bot"),
        ("bot.py:helper", "helper"),
        ("./bot.py:box.inner", "inner"),
        ("{folder}/bot.py:graph", "bot"),
        ("mine=bot.py:agent", "mine"),
        ("mine=bot.py", "mine"),
        ("my bot.py", "my-bot"),
        ("bot", "bot"),
        ("bot:helper", "helper"),
        ("pack.inner:app", "inner"),
        ("pack/inner.py", "inner"),
        ("pack/__init__.py", "pack"),
        ("pack", "pack"),
        ("./a=b/bot.py", "bot"),
    ],
)
def test_an_agent_is_named_by_name_then_attribute_then_file(target: str, name: str, tmp_path: Path) -> None:
    source = ONE + "graph = app = helper = agent\nclass box: inner = agent\n"
    names = ("bot.py", "my bot.py", "pack/inner.py", "pack/__init__.py", "a=b/bot.py")
    write(tmp_path, dict.fromkeys(names, source))
    agents = load_targets([target.format(folder=tmp_path)], tmp_path)
    assert [(key, value.invoke(1)) for key, value in agents.items()] == [(name, 1)]


def test_agents_keep_the_order_in_which_they_were_named(tmp_path: Path) -> None:
    write(tmp_path, {"b.py": ONE, "a.py": ONE})
    assert list(load_targets(["b.py", "a.py", "c=a.py"], tmp_path)) == ["b", "a", "c"]


def test_two_agents_of_one_name_are_refused(tmp_path: Path) -> None:
    write(tmp_path, {"a.py": ONE, "b/a.py": ONE})
    with pytest.raises(TargetError, match=r"Two agents are named 'a'.*'other=b/a.py'"):
        load_targets(["a.py", "b/a.py"], tmp_path)


@pytest.mark.parametrize("target", ["my bot=a.py", "=a.py", "-x=a.py", "\u00e9=a.py"])
def test_a_name_of_illegal_characters_is_refused(target: str, tmp_path: Path) -> None:
    with pytest.raises(TargetError, match="is no name for an agent"):
        load_targets([target], tmp_path)


@pytest.mark.parametrize("target", ["", "name="])
def test_an_empty_target_is_refused(target: str, tmp_path: Path) -> None:
    with pytest.raises(TargetError, match="this one is empty"):
        load_targets([target], tmp_path)


# The obvious attribute


@pytest.mark.parametrize(
    ("more", "name"),
    [
        ("builder = None\ncompiled = workflow.compile()\n", "compiled"),
        ("", "workflow"),
        ("def graph(): return workflow\n", "bot"),
        ("app = object()\n", "workflow"),
        ("del workflow\n", "llm"),
        ("compiled = also = workflow.compile()\n", "compiled"),
    ],
)
def test_without_an_attribute_the_obvious_one_is_served(more: str, name: str, tmp_path: Path) -> None:
    write(tmp_path, {"bot.py": GRAPH + more})
    assert list(load_targets(["bot.py"], tmp_path)) == [name]


def test_several_candidates_are_listed(tmp_path: Path) -> None:
    write(tmp_path, {"bot.py": GRAPH + "one = workflow.compile()\ntwo = workflow.compile()\n"})
    with pytest.raises(TargetError, match=r"say which, as in 'bot.py:one'\. It has one, two\."):
        load_targets(["bot.py"], tmp_path)


def test_a_file_without_any_candidate_says_what_was_tried(tmp_path: Path) -> None:
    write(tmp_path, {"bot.py": "x = 1\n"})
    with pytest.raises(TargetError, match="no graph or Runnable; tried agent, graph, app"):
        load_targets(["bot.py"], tmp_path)


# Files and modules


def test_a_file_sees_its_neighbours_and_its_objects_can_be_pickled(tmp_path: Path) -> None:
    write(tmp_path, {"here/bot.py": "from near import agent\nclass Note: pass\n", "here/near.py": ONE})
    load_targets(["here/bot.py"], tmp_path)
    assert sys.path[0] == str(tmp_path / "here")
    note = sys.modules["bot"].Note()
    assert type(pickle.loads(pickle.dumps(note))) is type(note)


def test_files_of_one_name_and_of_a_known_modules_name_are_kept_apart(tmp_path: Path) -> None:
    source = ONE + "class Note: pass\nnote = Note()\n"
    write(tmp_path, {"a/bot.py": source, "b/bot.py": source, "c/json.py": source})
    agents = load_targets(["a=a/bot.py", "b=b/bot.py", "b2=b/bot.py", "c=c/json.py"], tmp_path)
    assert len({id(each) for each in agents.values()}) == 3
    assert sys.modules["json"] is json
    for name, value in agents.items():
        module: Any = next(m for m in list(sys.modules.values()) if getattr(m, "agent", None) is value)
        assert Path(module.__file__).parent.name == name[0]
        assert isinstance(pickle.loads(pickle.dumps(module.note)), module.Note)


def test_a_file_that_another_folder_of_the_path_hides_is_still_the_one_served(tmp_path: Path) -> None:
    write(tmp_path, {"a/bot.py": "raise RuntimeError", "b/bot.py": ONE})
    sys.path[:0] = [str(tmp_path / "a"), str(tmp_path / "b")]
    assert list(load_targets(["b/bot.py"], tmp_path)) == ["bot"]


def test_a_file_of_a_package_keeps_its_relative_imports(tmp_path: Path) -> None:
    write(tmp_path, {"pack/__init__.py": "", "pack/near.py": ONE, "pack/bot.py": "from .near import agent\n"})
    load_targets(["pack/bot.py"], tmp_path)
    assert "pack.bot" in sys.modules


def test_a_missing_file_suggests_one_like_it(tmp_path: Path) -> None:
    write(tmp_path, {"agent.py": ONE})
    with pytest.raises(TargetError, match=rf"There is no file {tmp_path}/agnt.py. Did you mean 'agent.py'\?"):
        load_targets(["agnt.py"], tmp_path)
    with pytest.raises(TargetError, match=r"There is no file .*/nowhere/agent.py\.$"):
        load_targets(["nowhere/agent.py"], tmp_path)


def test_a_missing_attribute_suggests_one_like_it(tmp_path: Path) -> None:
    write(tmp_path, {"bot.py": ONE + "helper = agent\n"})
    with pytest.raises(TargetError, match=r"bot.py has no 'helpr'. Did you mean 'helper'\?"):
        load_targets(["bot.py:helpr"], tmp_path)
    with pytest.raises(TargetError, match=r"bot.py has no 'agent.xyzzy'\.$"):
        load_targets(["bot.py:agent.xyzzy"], tmp_path)


@pytest.mark.parametrize("target", ["nowhere_at_all", "nowhere_at_all.agent:x", "pack.missing"])
def test_a_missing_module_is_told_from_a_module_that_misses_one(target: str, tmp_path: Path) -> None:
    write(tmp_path, {"pack/__init__.py": ""})
    with pytest.raises(TargetError, match=f"There is no module '{target.partition(':')[0]}'") as raised:
        load_targets([target], tmp_path)
    assert raised.value.__cause__ is None


def test_a_package_that_misses_a_module_is_not_itself_missing(tmp_path: Path) -> None:
    write(tmp_path, {"pack/__init__.py": "import nowhere_at_all\n", "pack/bot.py": ONE})
    with pytest.raises(TargetError, match=r"The target 'pack\.bot' cannot be imported"):
        load_targets(["pack.bot"], tmp_path)


@pytest.mark.parametrize("target", ["bot.py", "bot"])
@pytest.mark.parametrize(
    ("source", "kind"),
    [
        ("import nowhere_at_all\n", ModuleNotFoundError),
        ("def (:\n", SyntaxError),
        ("1 / 0\n", ZeroDivisionError),
        ("raise SystemExit(3)\n", SystemExit),
    ],
)
def test_an_exception_of_the_operators_file_is_the_cause(
    target: str, source: str, kind: type[BaseException], tmp_path: Path
) -> None:
    write(tmp_path, {"bot.py": source})
    with pytest.raises(TargetError, match=f"The target '{target}' cannot be imported") as raised:
        load_targets([target], tmp_path)
    assert isinstance(raised.value.__cause__, kind)
    assert "bot" not in sys.modules


# langgraph.json


def configure(folder: Path, **config: Any) -> None:
    write(folder, {"langgraph.json": json.dumps(config)})


def test_langgraph_json_names_the_agents_where_no_target_does(tmp_path: Path) -> None:
    write(tmp_path, {"src/bot.py": "from lib import agent\n", "libs/lib.py": ONE, "other.py": ONE})
    configure(
        tmp_path,
        graphs={"first": "./src/bot.py:agent", "second": {"path": "other:agent", "description": "x"}},
        dependencies=["langchain_openai", ".", "./libs"],
    )
    assert list(load_targets([], tmp_path)) == ["first", "second"]
    assert list(load_targets(["other.py"], tmp_path)) == ["other"]


@pytest.mark.parametrize("env", [".env", {"SPAM_A": "file", "SPAM_B": 2}])
def test_env_of_langgraph_json_is_set_before_the_import_and_never_overrides(
    env: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(os, "environ", {**os.environ, "SPAM_A": "shell"})
    source = "import os\nassert (os.environ['SPAM_A'], os.environ['SPAM_B']) == ('shell', '2')\n" + ONE
    write(tmp_path, {"bot.py": source, ".env": "SPAM_A=file\nexport SPAM_B='2'\nSPAM_C\n"})
    configure(tmp_path, graphs={"bot": "bot.py:agent"}, env=env)
    assert list(load_targets([], tmp_path)) == ["bot"]


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ("{", "is not JSON: .*line 1"),
        ("[]", "names no graphs"),
        ('{"graphs": {}}', "names no graphs"),
        ('{"graphs": ["a.py"]}', "names no graphs"),
        ('{"graphs": {"a": 1}}', "the graph 'a' is to be"),
        ('{"graphs": {"a": {"description": "x"}}}', "the graph 'a' is to be"),
        ('{"graphs": {"a b": "a.py"}}', "'a b' is no name"),
        ('{"graphs": {"a": "a.py"}, "env": "missing.env"}', "no env file .*missing.env"),
        ('{"graphs": {"a": "a.py"}}', "There is no file"),
    ],
)
def test_a_bad_langgraph_json_says_what_is_wrong(text: str, said: str, tmp_path: Path) -> None:
    write(tmp_path, {"langgraph.json": text})
    with pytest.raises(TargetError, match=said):
        load_targets([], tmp_path)


def test_without_any_target_the_demo_agent_is_served(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    write(tmp_path, {"stand_in.py": GRAPH + "agent = workflow.compile()\n"})
    assert loader.DEMO == "demo=agent_server.demo.agent:agent"
    monkeypatch.setattr(loader, "DEMO", "demo=stand_in:agent")
    ((name, agent),) = load_targets([], tmp_path).items()
    assert name == "demo"
    assert isinstance(agent, CompiledStateGraph)
