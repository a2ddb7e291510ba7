"""Every notebook, executed by a kernel of its own, in an empty folder, with no way to the network."""

from __future__ import annotations

import os
from collections.abc import Iterator
from pathlib import Path
from tempfile import TemporaryDirectory

import nbformat
import pytest
from jupyter_client.kernelspec import KernelSpecManager
from jupyter_client.manager import AsyncKernelManager
from nbclient import NotebookClient
from nbclient.exceptions import CellExecutionError
from nbformat import NotebookNode
from nbformat.v4 import new_code_cell, new_notebook

from agent_server.local.model_file import model_path

NOTEBOOKS = sorted((Path(__file__).parents[2] / "notebooks").glob("*.ipynb"))
CELL_SECONDS = 90

SHOWN = {
    "01-quickstart": ("text/plain", "get_weather("),
    "02-log-and-load-a-model": ("text/plain", "(agents: support)"),
    "03-evaluate": ("text/html", "looks_up_the_city/value"),
    "04-streaming-latency": ("image/png", "iVBORw0KGgo"),
}
"""Notebook -> an output that it is about: media type, and what is in it (the signature of a PNG, in base64)."""

LOOPBACK_ONLY = """
import sys


def refuse(event, arguments):
    if event == "socket.connect" and isinstance(arguments[1], tuple):
        host = arguments[1][0]
    elif event == "socket.getaddrinfo":
        host = arguments[0]
    else:
        return
    if host not in (None, "", "localhost", "127.0.0.1", "::1"):
        with open({refusals!r}, "a") as file:
            print(host, file=file)
        raise ConnectionError(f"{{host}} is not this machine")


sys.addaudithook(refuse)
"""
"""`sitecustomize.py` of the kernel and of the Python processes that it starts."""


class Sandbox:
    """What a notebook is executed in: an empty folder, and settings that are neither the user's nor this suite's."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder / "cwd"
        self._refusals = folder / "refusals.txt"
        self._site = folder / "site"
        self._ipython = folder / "ipython"
        for each in (self.folder, self._site):
            each.mkdir()
        (self._site / "sitecustomize.py").write_text(LOOPBACK_ONLY.format(refusals=str(self._refusals)))

    def execute(self, notebook: NotebookNode) -> NotebookNode:
        """The notebook with its outputs. Raises `CellExecutionError` for the first cell that fails."""
        with TemporaryDirectory(prefix="kernel-") as pipes:  # their paths must be short
            kernel = AsyncKernelManager(
                kernel_name="python3",
                kernel_spec_manager=KernelSpecManager(kernel_dirs=[]),  # this interpreter, whatever else is installed
                transport="ipc",
                ip=f"{pipes}/ipc",
                connection_file=f"{pipes}/kernel.json",
            )
            client = NotebookClient(
                notebook, km=kernel, timeout=CELL_SECONDS, resources={"metadata": {"path": str(self.folder)}}
            )
            return client.execute(env=self._environment(), cleanup_kc=True)

    def refusals(self) -> list[str]:
        """The hosts that somebody wanted to reach."""
        return self._refusals.read_text().splitlines() if self._refusals.exists() else []

    def _environment(self) -> dict[str, str]:
        foreign = ("AGENT_SERVER_TRACING", "MLFLOW_", "MPLBACKEND", "JPY_")
        return {
            **{name: value for name, value in os.environ.items() if not name.startswith(foreign)},
            "IPYTHONDIR": str(self._ipython),
            "MLFLOW_DISABLE_TELEMETRY": "true",
            "PYTHONPATH": str(self._site),
        }


@pytest.fixture
def sandbox(tmp_path: Path) -> Sandbox:
    return Sandbox(tmp_path)


def read(path: Path) -> NotebookNode:
    return nbformat.read(path, as_version=nbformat.NO_CONVERT)  # type: ignore[no-any-return, no-untyped-call]


def code_cells(notebook: NotebookNode) -> list[NotebookNode]:
    return [cell for cell in notebook.cells if cell.cell_type == "code"]


def shown(notebook: NotebookNode) -> Iterator[tuple[str, str]]:
    """Everything that the cells put out: media type and content."""
    for cell in code_cells(notebook):
        for output in cell.outputs:
            yield from output.data.items() if "data" in output else [("text/plain", output.text)]


def uses_model(path: Path) -> bool:
    return "LocalChatModel" in path.read_text()


def marks(path: Path) -> list[pytest.MarkDecorator]:
    return [pytest.mark.model, pytest.mark.xdist_group("model")] if uses_model(path) else []


@pytest.mark.parametrize("path", [pytest.param(path, id=path.stem, marks=marks(path)) for path in NOTEBOOKS])
def test_every_notebook_runs_offline_and_shows_what_it_is_about(path: Path, sandbox: Sandbox) -> None:
    if uses_model(path):
        model_path()  # fetched while there is a network
    notebook = sandbox.execute(read(path))
    assert [cell.execution_count for cell in code_cells(notebook)] == list(range(1, len(code_cells(notebook)) + 1))
    media_type, content = SHOWN[path.stem]
    assert content in "".join(text for kind, text in shown(notebook) if kind == media_type)
    assert sandbox.refusals() == []


@pytest.mark.parametrize("path", NOTEBOOKS, ids=lambda path: path.stem)
def test_notebooks_are_kept_without_outputs_and_without_traces_of_a_machine(path: Path) -> None:
    notebook = read(path)
    nbformat.validate(notebook)
    assert [cell.id for cell in code_cells(notebook) if cell.outputs or cell.execution_count is not None] == []
    assert [cell.id for cell in notebook.cells if cell.metadata] == []
    assert notebook.metadata == {
        "kernelspec": {"display_name": "Python 3", "language": "python", "name": "python3"},
        "language_info": {"name": "python"},
    }


@pytest.mark.parametrize("path", NOTEBOOKS, ids=lambda path: path.stem)
def test_notebooks_check_their_own_results(path: Path) -> None:
    assert any("assert " in cell.source for cell in code_cells(read(path)))


def test_there_is_an_expectation_for_every_notebook_and_no_other() -> None:
    assert [path.stem for path in NOTEBOOKS] == sorted(SHOWN)


def test_a_cell_that_goes_online_fails_and_is_told(sandbox: Sandbox) -> None:
    source = "import urllib.request\nurllib.request.urlopen('http://192.0.2.1/')"
    notebook: NotebookNode = new_notebook(cells=[new_code_cell(source)])  # type: ignore[no-untyped-call]
    with pytest.raises(CellExecutionError, match=r"192\.0\.2\.1 is not this machine"):
        sandbox.execute(notebook)
    assert sandbox.refusals() == ["192.0.2.1"]
