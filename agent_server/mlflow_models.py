"""Agents as logged MLflow models: models from code, with their code and pinned requirements.

What is logged is a small Python file that imports the agent and makes an `AgentModel` of it, beside the modules of
the agent's own that it needs. Which those are, and which distributions, is read off the imports in its source.
"""

from __future__ import annotations

import ast
import importlib.util
import shutil
import sys
import sysconfig
from collections.abc import Iterable, Iterator, Mapping, Sequence
from importlib.metadata import distribution, packages_distributions
from pathlib import Path
from tempfile import TemporaryDirectory
from textwrap import dedent
from typing import Any, NamedTuple

import mlflow
from mlflow.models.model import ModelInfo
from packaging.requirements import Requirement
from packaging.utils import canonicalize_name
from packaging.version import Version

from agent_server.errors import TargetError
from agent_server.loader import Located, Target, locate
from agent_server.mlflow_agent import unasked

OURS = Path(__file__).parent
TASK = "agent/v1/responses"
INPUT_EXAMPLE: dict[str, Any] = {"input": [{"role": "user", "content": "Hello!"}]}

_ALWAYS = ("agent-server", "langchain", "langgraph", "mlflow")
_INSTALLED = tuple({sysconfig.get_path("purelib"), sysconfig.get_path("platlib")})
_LEFT_OUT = shutil.ignore_patterns("__pycache__", "*.pyc", ".*", "node_modules")


def log_agent(
    target: str,
    *,
    name: str = "agent",
    registered_model_name: str | None = None,
    input_example: Mapping[str, Any] | None = None,
    run_example: bool = False,
    code_paths: Sequence[str | Path] = (),
    pip_requirements: Sequence[str] | None = None,
    extra_pip_requirements: Sequence[str] = (),
    metadata: Mapping[str, Any] | None = None,
    folder: Path | None = None,
    **options: Any,
) -> ModelInfo:
    """Log the agent at `target` (`file.py:attribute` or `module:attribute`) as an MLflow model.

    MLflow runs a model on its input example while it is logged. By default the agent is not asked then, so that
    logging needs neither network nor keys: the model answers that nothing was completed, and the answer is
    dropped. `run_example=True` asks the agent itself.

    `code_paths` and `extra_pip_requirements` come on top of what the agent's imports show; `pip_requirements`
    replaces all of the latter. Relative targets start at `folder`, the current one by default. `options` go to
    `mlflow.pyfunc.log_model`.

    Raises `TargetError` for a target that cannot be logged.
    """
    parsed = Target.parse(target)
    if parsed.is_model:
        raise TargetError(f"{target!r} is a logged model already.")
    found = locate(parsed, (folder or Path.cwd()).resolve())
    needs = needs_of(found.module.__name__, _file(found))
    requirements = list(pip_requirements) if pip_requirements is not None else pinned(needs.distributions)
    with TemporaryDirectory() as scratch:
        code = _staged([*needs.code, *map(Path, code_paths)], Path(scratch, "code"))
        model = Path(scratch, "agent_model.py")
        model.write_text(_model_code(target, found), "utf-8")
        token = unasked.set(not run_example)
        try:
            info: ModelInfo = mlflow.pyfunc.log_model(
                name=name,
                python_model=str(model),
                code_paths=code or None,
                pip_requirements=[*requirements, *extra_pip_requirements],
                input_example=dict(input_example or INPUT_EXAMPLE),
                registered_model_name=registered_model_name,
                metadata={"task": TASK, **(metadata or {})},
                **options,
            )
        finally:
            unasked.reset(token)
    return info


def _file(found: Located) -> Path:
    """The file of the agent's module, which must be importable by its own name from beside the model."""
    name = getattr(found.module, "__file__", None)
    if name is None:
        raise TargetError(f"The agent {found.name!r} cannot be logged: its module is no file.")
    file = Path(name)
    package, _, last = found.module.__name__.rpartition(".")
    stem = file.parent.name if file.stem == "__init__" else file.stem
    if last != stem:
        raise TargetError(f"The agent {found.name!r} cannot be logged: another module is named {stem!r} already.")
    if package.partition(".")[0] == OURS.name and not file.is_relative_to(OURS):
        raise TargetError(f"The agent {found.name!r} cannot be logged: its package must not be named {OURS.name!r}.")
    return file


def _model_code(target: str, found: Located) -> str:
    return dedent(
        f'''\
        """The agent {found.name} as an MLflow model; agent-server made this of {target}."""

        from mlflow.models import set_model

        from {found.module.__name__} import {found.attribute.partition(".")[0]}
        from agent_server.mlflow_agent import AgentModel

        set_model(AgentModel({found.attribute}, name={found.name!r}))
        '''
    )


# What an agent's source needs


class Needs(NamedTuple):
    """Files and folders of the agent's own code, and the names of installed distributions."""

    code: list[Path]
    distributions: set[str]


def needs_of(module: str, file: Path) -> Needs:
    """What the source of a module imports, and what of its own code that imports, and so on.

    A package is taken whole. Imports that are not in the source, as of plugins by name, are not seen.
    """
    known = packages_distributions()
    needs = Needs([], set())
    seen = {"agent_server", "__future__", "__main__", *sys.stdlib_module_names}
    names = [module.partition(".")[0], *_imports(file)]
    while names:
        name = names.pop()
        if name in seen or not (place := _place(name)):
            continue
        seen.add(name)
        if any(place.is_relative_to(folder) for folder in _INSTALLED):
            needs.distributions.update(known.get(name, ()))
        else:
            needs.code.append(place)
            names += [each for source in _sources(place) for each in _imports(source)]
    return needs


def _place(name: str) -> Path | None:
    """The file or folder of a top-level module, if it has one."""
    spec = importlib.util.find_spec(name)
    if spec is None:
        return None
    if spec.submodule_search_locations:
        return Path(next(iter(spec.submodule_search_locations)))
    return Path(spec.origin) if spec.has_location and spec.origin else None


def _sources(place: Path) -> Iterator[Path]:
    if place.is_file():
        yield from [place] if place.suffix == ".py" else []
        return
    entries = list(place.iterdir())
    for entry in entries:
        if entry.name not in _LEFT_OUT(str(place), [each.name for each in entries]):
            yield from _sources(entry)


def _imports(source: Path) -> set[str]:
    """The top-level names that a file imports, wherever in it."""
    names: set[str] = set()
    for node in ast.walk(ast.parse(source.read_bytes())):
        if isinstance(node, ast.Import):
            names |= {alias.name.partition(".")[0] for alias in node.names}
        elif isinstance(node, ast.ImportFrom) and node.module and not node.level:
            names.add(node.module.partition(".")[0])
    return names


def pinned(distributions: Iterable[str]) -> list[str]:
    """These distributions, and what every logged agent needs, each at the version that is installed."""
    ours = [Requirement(each) for each in distribution("agent-server").requires or ()]
    direct = [each.name for each in ours if each.marker is None or each.marker.evaluate()]
    names = {canonicalize_name(each) for each in (*_ALWAYS, *direct, *distributions)}
    return [f"{name}=={Version(distribution(name).version).public}" for name in sorted(names)]


def _staged(places: Iterable[Path], folder: Path) -> list[str]:
    """Copies of the code without what no model needs, for MLflow copies folders as they are."""
    folder.mkdir()
    for place in places:
        if place.is_dir():
            shutil.copytree(place, folder / place.name, ignore=_LEFT_OUT, dirs_exist_ok=True)
        else:
            shutil.copy(place, folder)
    return [str(each) for each in sorted(folder.iterdir())]
