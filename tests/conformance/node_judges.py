"""Runs the JavaScript clients in `node/`: each takes a list of tasks and returns a list of verdicts."""

from __future__ import annotations

import fcntl
import json
import os
import shutil
import subprocess
from pathlib import Path
from typing import Any

import pytest

FOLDER = Path(__file__).parent / "node"
PATIENCE = 100

Task = dict[str, Any]
Verdict = dict[str, Any]


def ready(folder: Path = FOLDER) -> None:
    """Install the clients of a folder where they are missing or older than its lock file.

    Skips the test where there is no Node; with CI=true that is a failure instead.
    """
    missing = [name for name in ("node", "npm") if shutil.which(name) is None]
    if missing:
        reason = f"{' and '.join(missing)} not found: the JavaScript clients cannot judge"
        if os.environ.get("CI") == "true":
            pytest.fail(reason)
        pytest.skip(reason)
    with (folder / "package-lock.json").open() as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)  # parallel test workers share the folder
        if _stale(folder):
            install = ["npm", "ci", "--no-audit", "--no-fund"]
            subprocess.run(install, cwd=folder, check=True, timeout=PATIENCE)


def _stale(folder: Path) -> bool:
    installed = folder / "node_modules" / ".package-lock.json"
    return not installed.exists() or installed.stat().st_mtime < (folder / "package-lock.json").stat().st_mtime


def verdicts(judge: str, tasks: list[Task], folder: Path = FOLDER) -> list[Verdict]:
    """Let the client in `node/<judge>.mjs` do these tasks, one after the other."""
    done = subprocess.run(
        ["node", f"{judge}.mjs"],
        cwd=folder,
        input=json.dumps(tasks),
        capture_output=True,
        text=True,
        check=False,
        timeout=PATIENCE,
    )
    assert done.returncode == 0, done.stderr
    found: list[Verdict] = json.loads(done.stdout)
    assert len(found) == len(tasks)
    return found
