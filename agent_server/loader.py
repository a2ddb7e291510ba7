"""From what the operator names to what is served: targets -> {agent name: graph, Runnable or factory}.

A target is `path/file.py`, `path/file.py:attribute`, `module` or `module:attribute`, or a model in MLflow:
`models:/name/version`, `models:/name@alias` or `runs:/run/path`; with `name=` before it at will. Without one,
`langgraph.json` in the folder names the agents; without that, the demo agent is served.

Everything here is synchronous and runs the operator's own import-time code: it belongs before the event loop.
"""

from __future__ import annotations

import importlib
import importlib.util
import inspect
import json
import os
import re
import sys
from collections.abc import Iterable, Mapping, Sequence
from difflib import get_close_matches
from functools import partial
from hashlib import sha256
from pathlib import Path
from types import ModuleType
from typing import Any, NamedTuple

from langchain_core.runnables import Runnable
from langchain_core.tools import BaseTool
from langgraph.graph import StateGraph
from langgraph.pregel import Pregel

from agent_server.errors import TargetError
from agent_server.graph.agent import blaming

DEMO = "demo=agent_server.demo.agent:agent"
CONFIG_FILE = "langgraph.json"

_OBVIOUS = ("agent", "graph", "app")
_NAME = re.compile(r"[A-Za-z0-9][A-Za-z0-9._-]{0,63}")


class Target(NamedTuple):
    """One parsed target: a model by its scheme, a file where `place` ends in `.py` or holds a separator, else a
    module."""

    name: str
    place: str
    attribute: str

    @classmethod
    def parse(cls, text: str) -> Target:
        """`[name=]place[:attribute]`. Raises `TargetError` for a name that cannot be one."""
        name, equals, rest = text.partition("=")
        if not equals or re.search(r"[/\\:]", name):
            return cls._placed("", text)
        return cls._placed(_checked(name), rest)

    @classmethod
    def named(cls, name: str, text: str) -> Target:
        """`place[:attribute]` under a name of its own."""
        return cls._placed(_checked(name), text)

    @classmethod
    def _placed(cls, name: str, text: str) -> Target:
        place, _, attribute = text.rpartition(":")
        if not place or not all(part.isidentifier() for part in attribute.split(".")):
            place, attribute = text, ""
        if not place:
            raise TargetError("A target names a file or a module, and this one is empty.")
        return cls(name, place, attribute)

    @property
    def is_model(self) -> bool:
        return self.place.startswith(("models:/", "runs:/"))

    @property
    def is_elsewhere(self) -> bool:
        return self.place.startswith(("langgraph+http://", "langgraph+https://"))

    @property
    def is_file(self) -> bool:
        return self.place.endswith(".py") or "/" in self.place or os.sep in self.place

    def __str__(self) -> str:
        return f"{self.place}:{self.attribute}" if self.attribute else self.place


def _checked(name: str) -> str:
    if not _NAME.fullmatch(name):
        raise TargetError(f"{name!r} is no name for an agent: use letters, digits, '.', '_' and '-'.")
    return name


def load_targets(targets: Sequence[str], folder: Path) -> dict[str, Any]:
    """What to serve, by agent name, in the order named. Relative paths start at `folder`.

    An agent is named `name`, else after its attribute, or after its file or module where the attribute is
    `agent`, `graph` or `app`. Raises `TargetError`; an exception of the operator's own code is its cause.
    """
    if targets:
        parsed = [Target.parse(text) for text in targets]
    elif (folder / CONFIG_FILE).is_file():
        parsed = _configured(folder / CONFIG_FILE)
    else:
        parsed = [Target.parse(DEMO)]
    agents: dict[str, Any] = {}
    for target in parsed:
        name, value = _loaded(target, folder)
        if name in agents:
            raise TargetError(f"Two agents are named {name!r}: name one of them, as in 'other={target}'.")
        agents[name] = value
    return agents


class Located(NamedTuple):
    """Where an agent is in Python: `attribute` of `module` is `value`."""

    name: str
    module: ModuleType
    attribute: str
    value: Any


def _loaded(target: Target, folder: Path) -> tuple[str, Any]:
    if target.is_model:
        with blaming(f"The target {str(target)!r} needs MLflow"):
            from agent_server.mlflow_served import load_model  # an extra, and seconds to import

        return target.name or _model_name(target), load_model(target.place)
    if target.is_elsewhere:
        from agent_server.graph.elsewhere import Elsewhere

        key = os.environ.get("LANGGRAPH_API_KEY")
        elsewhere = Elsewhere.at(target.place, {"x-api-key": key} if key else None)
        return target.name or _cleaned(elsewhere.assistant, target), elsewhere
    if not target.attribute and (functions := _decorated(target, folder)) is not None:
        return target.name or _stem(target), functions
    found = locate(target, folder)
    return found.name, found.value


def _decorated(target: Target, folder: Path) -> Any:
    """The functions that a module has decorated for MLflow's AgentServer, if any."""
    before = sys.modules.get("agent_server.mlflow_functions")
    known = before.registered() if before is not None else (None, None)
    module = _imported(target, folder)
    if "mlflow.genai.agent_server" not in sys.modules:
        return None
    from agent_server.mlflow_functions import decorated  # an extra, which the module has imported itself

    return decorated(module, known)


def _imported(target: Target, folder: Path) -> ModuleType:
    return _from_file(target, folder) if target.is_file else _from_module(target, folder)


def locate(target: Target, folder: Path) -> Located:
    """Import what a target names in a file or module. Raises `TargetError`."""
    module = _imported(target, folder)
    attribute = target.attribute or _obvious(target, module)
    value: Any = module
    for part in attribute.split("."):
        if not hasattr(value, part):
            raise TargetError(f"{target.place} has no {attribute!r}.{_hint(part, dir(value))}")
        value = getattr(value, part)
    last = attribute.rpartition(".")[2]
    name = target.name or (_stem(target) if last in _OBVIOUS else last)
    return Located(name, module, attribute, value)


def _model_name(target: Target) -> str:
    """The name of a registered model, else the last part of the model's path."""
    scheme, *path = re.split(r":?/+|@", target.place)
    return _cleaned((path[:1] if scheme == "models" else path[-1:])[0], target)


def _stem(target: Target) -> str:
    """A name from the file or module: its last part."""
    path = Path(target.place).absolute().with_suffix("")
    file_stem = path.parent.name if path.name == "__init__" else path.name
    return _cleaned(file_stem if target.is_file else target.place.rpartition(".")[2], target)


def _cleaned(stem: str, target: Target) -> str:
    """A name without what a name cannot hold."""
    name = re.sub(r"[^A-Za-z0-9._-]+", "-", stem).lstrip("._-")[:64]
    if not name:
        raise TargetError(f"{target.place} makes no name for an agent: name it, as in 'name={target}'.")
    return name


def _hint(wrong: str, names: Iterable[str]) -> str:
    close = get_close_matches(wrong, [name for name in names if not name.startswith("_")])
    return f" Did you mean {' or '.join(map(repr, close))}?" if close else ""


# Modules


def _from_module(target: Target, folder: Path) -> ModuleType:
    _on_path(folder)
    with blaming(f"The target {str(target)!r} cannot be imported"):
        try:
            found = importlib.util.find_spec(target.place)
        except ModuleNotFoundError as error:
            if not f"{target.place}.".startswith(f"{error.name}."):
                raise
            found = None
        if found is not None:
            return importlib.import_module(target.place)
    raise TargetError(f"There is no module {target.place!r} on the path, nor in {folder}.")


def _from_file(target: Target, folder: Path) -> ModuleType:
    path = (folder / Path(target.place).expanduser()).resolve()
    if not path.is_file():
        near = [each.name for each in path.parent.glob("*.py")] if path.parent.is_dir() else []
        raise TargetError(f"There is no file {path}.{_hint(path.name, near)}")
    root, name = _importable(path)
    _on_path(root)
    importlib.invalidate_caches()
    with blaming(f"The target {str(target)!r} cannot be imported"):
        known = sys.modules.get(name)
        found = importlib.util.find_spec(name) if known is None else None
        origin = found.origin if found else getattr(known, "__file__", None)
        if origin and Path(origin).resolve() == path:
            return importlib.import_module(name)
        return _imported_apart(path)


def _importable(path: Path) -> tuple[Path, str]:
    """The folder to import a file from, and its module name there; a file of a package keeps its package."""
    parts = [] if path.stem == "__init__" else [path.stem]
    root = path.parent
    while (root / "__init__.py").is_file():
        parts.insert(0, root.name)
        root = root.parent
    return root, ".".join(parts)


def _imported_apart(path: Path) -> ModuleType:
    """A file whose own module name is taken, under a name that is the same in every process."""
    name = f"{path.stem}_{sha256(str(path).encode()).hexdigest()[:8]}"
    if name in sys.modules:
        return sys.modules[name]
    spec = importlib.util.spec_from_file_location(name, path)
    if spec is None or spec.loader is None:
        raise TargetError(f"{path} is no Python file.")
    module = sys.modules[name] = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


def _on_path(folder: Path) -> None:
    """Have a folder's modules found. A package `agent_server` there, as in Databricks' templates, joins this one."""
    if str(folder) not in sys.path:
        sys.path.insert(0, str(folder))
    ours = sys.modules["agent_server"]
    namesake = folder.resolve() / ours.__name__
    if (namesake / "__init__.py").is_file() and str(namesake) not in ours.__path__:
        ours.__path__.append(str(namesake))


# Attributes


def _obvious(target: Target, module: ModuleType) -> str:
    """The attribute meant when none is named: `agent`, `graph` or `app`, or the only graph or Runnable."""
    names = {name: value for name, value in vars(module).items() if not name.startswith("_")}
    for name in _OBVIOUS:
        value = names.get(name)
        if isinstance(value, Runnable | StateGraph | partial) or inspect.isroutine(value):
            return name
    for kind in (Pregel, StateGraph, Runnable):
        fit = [name for name, each in names.items() if isinstance(each, kind) and not isinstance(each, BaseTool)]
        if len({id(names[name]) for name in fit}) == 1:
            return fit[0]
        if fit:
            raise TargetError(
                f"{target.place} offers several agents: say which, as in '{target.place}:{fit[0]}'. "
                f"It has {', '.join(fit)}."
            )
    raise TargetError(f"{target.place} has no graph or Runnable; tried {', '.join(_OBVIOUS)} and all others.")


# langgraph.json


def _configured(path: Path) -> list[Target]:
    """The graphs of a `langgraph.json`. Its folders of `dependencies` and its `env` take effect here."""
    try:
        config = json.loads(path.read_text("utf-8"))
    except ValueError as error:
        raise TargetError(f"{path} is not JSON: {error}.") from error
    graphs = config.get("graphs") if isinstance(config, dict) else None
    if not isinstance(graphs, dict) or not graphs:
        raise TargetError(f"{path} names no graphs: 'graphs' is to be an object, name -> 'file.py:attribute'.")
    targets: list[Target] = []
    for name, entry in graphs.items():
        place = entry.get("path") if isinstance(entry, dict) else entry
        if not isinstance(place, str):
            raise TargetError(f"{path}: the graph {name!r} is to be 'file.py:attribute' or {{'path': ...}}.")
        targets.append(Target.named(name, place))
    for folder in reversed(config.get("dependencies") or []):
        if isinstance(folder, str) and folder.startswith("."):
            _on_path((path.parent / folder).resolve())
    for key, value in _environment(path, config.get("env")).items():
        os.environ.setdefault(key, value)
    return targets


def _environment(path: Path, env: Any) -> Mapping[str, str]:
    """`env` of a `langgraph.json`: an object, or the path of a dotenv file. What is set already stays."""
    if isinstance(env, dict):
        return {key: str(value) for key, value in env.items()}
    if not env:
        return {}
    file = path.parent / str(env)
    if not file.is_file():
        raise TargetError(f"{path}: there is no env file {file}.")
    from dotenv import dotenv_values

    return {key: value for key, value in dotenv_values(file).items() if value is not None}
