"""The rules of the house, held by the syntax tree."""

from __future__ import annotations

import ast
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]
PACKAGE = ROOT / "agent_server"
FILES = sorted(PACKAGE.rglob("*.py"))


def broad_handlers(tree: ast.AST) -> Iterator[ast.ExceptHandler]:
    for node in ast.walk(tree):
        if isinstance(node, ast.ExceptHandler):
            names = ast.walk(node.type) if node.type is not None else ()
            if node.type is None or any(isinstance(n, ast.Name) and n.id == "Exception" for n in names):
                yield node


def test_exactly_one_broad_except_and_it_is_where_agents_run() -> None:
    found = [file.relative_to(ROOT).as_posix() for file in FILES for _ in broad_handlers(ast.parse(file.read_text()))]
    assert found == ["agent_server/runs/execute.py"]


def test_a_broad_except_would_be_found() -> None:
    for text in ("except Exception:", "except:", "except (OSError, Exception) as e:"):
        assert list(broad_handlers(ast.parse(f"try:\n  pass\n{text}\n  pass")))


def test_the_floors_hold() -> None:
    command = [str(Path(sys.executable).with_name("lint-imports")), "--config", str(ROOT / "pyproject.toml")]
    done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stdout + done.stderr


@pytest.mark.parametrize("file", FILES, ids=lambda f: f.relative_to(PACKAGE).as_posix())
def test_files_stay_small_enough_to_read(file: Path) -> None:
    assert len(file.read_text().splitlines()) <= 420


def functions() -> Iterator[tuple[str, int]]:
    for file in FILES:
        for node in ast.walk(ast.parse(file.read_text())):
            if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef):
                yield f"{file.relative_to(PACKAGE)}:{node.name}", (node.end_lineno or 0) - node.lineno + 1


def test_functions_stay_small_enough_to_read() -> None:
    assert [name for name, lines in functions() if lines > 55] == []


def public(tree: ast.Module) -> Iterator[ast.ClassDef | ast.FunctionDef | ast.AsyncFunctionDef]:
    for node in tree.body:
        if isinstance(node, ast.ClassDef | ast.FunctionDef | ast.AsyncFunctionDef) and not node.name.startswith("_"):
            yield node


def test_every_module_and_everything_public_in_it_says_what_it_is() -> None:
    silent = []
    for file in FILES:
        tree = ast.parse(file.read_text())
        if tree.body and ast.get_docstring(tree) is None:
            silent.append(str(file.relative_to(PACKAGE)))
        silent += [f"{file.relative_to(PACKAGE)}:{n.name}" for n in public(tree) if ast.get_docstring(n) is None]
    assert silent == []


def test_nobody_says_manager_helper_or_service() -> None:
    words = ("Manager", "Helper", "Util", "Service")
    found = [
        f"{file.name}:{node.name}"
        for file in FILES
        for node in ast.walk(ast.parse(file.read_text()))
        if isinstance(node, ast.ClassDef) and any(word in node.name for word in words)
    ]
    assert found == []


def test_the_core_imports_no_extra() -> None:
    script = (
        "import sys, agent_server.app, agent_server.cli, agent_server.loader\n"
        "print(sorted({'mlflow', 'openai', 'xllamacpp', 'langchain_openai'} & set(sys.modules)))"
    )
    done = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True, check=True, cwd=ROOT)
    assert done.stdout.strip() == "[]"
