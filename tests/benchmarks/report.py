"""Figures, their targets, the table on standard output, and the JSON file beside it."""

from __future__ import annotations

import os
import platform
import re
from collections.abc import Sequence
from dataclasses import dataclass, field
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from typing import Any, Literal

import orjson

RESULTS = Path(__file__).parent / "results" / "latest.json"
PACKAGES = "langchain langchain-core langgraph mlflow fastapi starlette uvicorn uvloop httptools orjson msgspec"
Verdict = Literal["pass", "fail", "skipped", "error", ""]


@dataclass(frozen=True)
class Target:
    """A bound that a figure must keep, and the better one it aims at."""

    sense: Literal[">=", "<="]
    bound: float
    aim: float | None = None

    def met_by(self, value: float) -> bool:
        """Whether the value keeps the bound."""
        return value >= self.bound if self.sense == ">=" else value <= self.bound

    def __str__(self) -> str:
        aim = "" if self.aim is None else f" (aim {self.aim:g})"
        return f"{self.sense} {self.bound:g}{aim}"


TARGETS = {
    "ours/limit": Target(">=", 0.75, aim=0.9),
    "ours/bare": Target(">=", 1.25),
    "ours/mlflow_off": Target(">=", 2.0),
    "ours_sqlite/ours": Target(">=", 0.8),
    "ours_postgres/ours": Target(">=", 0.7),
    "first byte, SQLite over memory": Target("<=", 5),
    "first byte, Postgres over memory": Target("<=", 5),
    "ours/ours_traced, tracing": Target("<=", 1 / 0.85),
    "first byte over bare": Target("<=", 3.0),
    "cost per token, ours: dearest/cheapest": Target("<=", 1.2),
    "memory, ours: stopped less reading": Target("<=", 16.0),
    "start/import": Target("<=", 1.5),
}


@dataclass(frozen=True)
class Figure:
    """One measured number. Without a value it was skipped, or it failed: then `note` says why."""

    name: str
    value: float | None
    unit: str = ""
    note: str = ""
    failed: bool = False
    samples: Sequence[float] = field(default=())

    @property
    def target(self) -> Target | None:
        """The target that the project set for a figure of this name."""
        return TARGETS.get(self.name)

    @property
    def verdict(self) -> Verdict:
        """Whether the target is met. A figure that could not be measured never passes."""
        if self.failed:
            return "error"
        if self.target is None:
            return ""
        if self.value is None:
            return "skipped"
        return "pass" if self.target.met_by(self.value) else "fail"

    def as_json(self) -> dict[str, Any]:
        """The figure as it stands in the results file."""
        return {
            "name": self.name,
            "value": self.value,
            "unit": self.unit,
            "target": str(self.target) if self.target else None,
            "verdict": self.verdict,
            "note": self.note,
            "samples": list(self.samples),
        }


def machine() -> dict[str, Any]:
    """What the figures were measured on."""
    model = re.search(r"^model name\s*: (.*)$", Path("/proc/cpuinfo").read_text(), re.MULTILINE)
    memory = re.search(r"^MemTotal:\s+(\d+) kB", Path("/proc/meminfo").read_text(), re.MULTILINE)
    return {
        "cpu": model[1] if model else platform.processor(),
        "cores": os.cpu_count(),
        "memory_gb": round(int(memory[1]) * 1024 / 1e9, 1) if memory else None,
        "system": platform.platform(),
        "python": platform.python_version(),
    }


def versions() -> dict[str, str]:
    """Versions of the packages that matter, "not installed" where they are not."""
    found = {}
    for name in PACKAGES.split():
        try:
            found[name] = version(name)
        except PackageNotFoundError:
            found[name] = "not installed"
    return found


def row(figure: Figure) -> str:
    """One line of the table."""
    value = "-" if figure.value is None else f"{figure.value:,.{_decimals(figure.value)}f} {figure.unit}".strip()
    target = str(figure.target) if figure.target else ""
    return f"{figure.name:<42} {value:>18}  {target:<18} {figure.verdict:<8} {figure.note}".rstrip()


def _decimals(value: float) -> int:
    return 0 if abs(value) >= 1000 else 1 if abs(value) >= 100 else 2


def write(figures: Sequence[Figure], conditions: dict[str, Any]) -> Path:
    """Write the results file and return where it is."""
    RESULTS.parent.mkdir(exist_ok=True)
    content = {
        "machine": machine(),
        "versions": versions(),
        "conditions": conditions,
        "figures": [figure.as_json() for figure in figures],
    }
    RESULTS.write_bytes(orjson.dumps(content, option=orjson.OPT_INDENT_2))
    return RESULTS
