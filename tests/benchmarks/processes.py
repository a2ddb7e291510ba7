"""Processes of the benchmark: started on the server's core, watched through /proc, ended by pid (Linux)."""

from __future__ import annotations

import http.client
import os
import re
import socket
import subprocess
import tempfile
import time
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path
from types import TracebackType
from typing import Any

import orjson

from tests.benchmarks.catalogue import ROOT, Program
from tests.support import postgres

# Servers have their bytecode at hand; so have the processes of the benchmark, after their first start.
ENVIRONMENT = {name: value for name, value in os.environ.items() if name != "PYTHONDONTWRITEBYTECODE"}
CORES = sorted(os.sched_getaffinity(0))
SERVER_CORE, LOAD_CORE = CORES[0], CORES[-1]
START_SECONDS = 60.0
DURABLE = "-c listen_addresses="  # everything else as Postgres has it: a commit is on the disk


class ProcessFailed(Exception):
    """A peer did not start, or ended before it was told to."""


@dataclass(frozen=True)
class CpuTimes:
    """What the cores did so far, in seconds: proc_stat(5). Stolen is what the host gave to others."""

    used: float
    stolen: float

    @classmethod
    def now(cls, core: int | None = None) -> CpuTimes:
        """The times since boot of one core, or of all."""
        label = "cpu" if core is None else f"cpu{core}"
        lines = (line.split() for line in Path("/proc/stat").read_text().splitlines())
        fields = next(line for line in lines if line[0] == label)
        user, nice, system, _, _, _, _, steal = (int(field) / os.sysconf("SC_CLK_TCK") for field in fields[1:9])
        return cls(used=user + nice + system, stolen=steal)

    def others(self, own: float) -> float:
        """What others took of a core, in seconds, when `own` is the CPU time of the process of interest."""
        return max(0.0, self.used - own) + self.stolen

    def __sub__(self, other: CpuTimes) -> CpuTimes:
        return CpuTimes(self.used - other.used, self.stolen - other.stolen)


@contextmanager
def on_core(core: int) -> Iterator[None]:
    """Run on one core inside the block; processes started inside stay there."""
    before = os.sched_getaffinity(0)
    os.sched_setaffinity(0, {core})
    try:
        yield
    finally:
        os.sched_setaffinity(0, before)


def free_port() -> int:
    """A loopback port nobody listens on right now."""
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])


def get_status(port: int, path: str, timeout: float = 5.0) -> int:
    """HTTP status of a GET, or 0 when nobody answers."""
    connection = http.client.HTTPConnection("127.0.0.1", port, timeout=timeout)
    try:
        connection.request("GET", path)
        return connection.getresponse().status
    except OSError:
        return 0
    finally:
        connection.close()


class Process:
    """A started program, pinned to the server's core."""

    def __init__(self, program: Program) -> None:
        self.program = program
        self.port = free_port()
        self._stack = ExitStack()
        scratch = self._stack.enter_context(tempfile.TemporaryDirectory(prefix="benchmark-"))
        self._log = Path(scratch, "output.log")
        fill = {"{port}": str(self.port), "{scratch}": scratch}
        if program.needs_postgres:
            fill["{postgres}"] = self._stack.enter_context(postgres.cluster(DURABLE)).url
        environment = {name: _filled(value, fill) for name, value in program.environment.items()}
        self.started = time.perf_counter()
        with on_core(SERVER_CORE), self._log.open("wb") as log:
            self._popen = subprocess.Popen(
                [_filled(word, fill) for word in program.command],
                cwd=ROOT,
                env={**ENVIRONMENT, **environment},
                stdin=subprocess.DEVNULL if program.ready else subprocess.PIPE,
                stdout=log if program.ready else subprocess.PIPE,
                stderr=log,
            )

    def __enter__(self) -> Process:
        return self

    def __exit__(self, *_: type[BaseException] | BaseException | TracebackType | None) -> None:
        self._popen.terminate()
        try:
            self._popen.communicate(timeout=10)
        except subprocess.TimeoutExpired:
            self._popen.kill()
            self._popen.communicate()
        self._stack.close()

    def wait_ready(self) -> float:
        """Wait until it says it is ready; the seconds that took since it was started."""
        if not self.program.ready:
            self.read_line()
            return time.perf_counter() - self.started
        while time.perf_counter() - self.started < START_SECONDS:
            if self._popen.poll() is not None:
                raise ProcessFailed(f"{self.program.name} ended with {self._popen.returncode}: {self._last_words()}")
            if get_status(self.port, self.program.ready) == 200:
                return time.perf_counter() - self.started
            time.sleep(0.002)
        raise ProcessFailed(f"{self.program.name} was not ready in {START_SECONDS:.0f} s: {self._last_words()}")

    def read_line(self) -> str:
        """The next line of its standard output."""
        assert self._popen.stdout is not None
        if line := self._popen.stdout.readline():
            return line.decode().strip()
        raise ProcessFailed(f"{self.program.name} closed its output: {self._last_words()}")

    def obey(self, **order: Any) -> dict[str, Any]:
        """Send one order as a line of JSON and read the answer."""
        assert self._popen.stdin is not None
        self._popen.stdin.write(orjson.dumps(order) + b"\n")
        self._popen.stdin.flush()
        answer: dict[str, Any] = orjson.loads(self.read_line())
        return answer

    def cpu_seconds(self) -> float:
        """CPU time of all its threads and its children's so far: clock_getcpuclockid(3)."""
        return sum(time.clock_gettime((~pid << 3) | 2) for pid in self._family())

    def _family(self) -> list[int]:
        """It and its children, such as an exporter of traces."""
        pids = {self._popen.pid}
        for task in Path(f"/proc/{self._popen.pid}/task").iterdir():
            with suppress(FileNotFoundError):  # a thread that ended meanwhile
                pids.update(int(pid) for pid in (task / "children").read_text().split())
        return sorted(pids)

    def peak_memory(self) -> float:
        """The most resident memory it ever had, MB (10^6 bytes): VmHWM of proc(5)."""
        status = Path(f"/proc/{self._popen.pid}/status").read_text()
        match = re.search(r"^VmHWM:\s+(\d+) kB", status, re.MULTILINE)
        assert match is not None
        return int(match[1]) * 1024 / 1e6

    def wait_idle(self, timeout: float = 120.0) -> bool:
        """Wait until it has used next to nothing, and all its threads slept, for a while; whether that came in time.

        The while is 0.3 s, or 2 s for one with children: an exporter sends its batches a second apart.
        """
        enough = 6 if len(self._family()) == 1 else 40
        deadline, calm, cpu = time.monotonic() + timeout, 0, self.cpu_seconds()
        while calm < enough and time.monotonic() < deadline:
            time.sleep(0.05)
            before, cpu = cpu, self.cpu_seconds()
            calm = calm + 1 if self._asleep() and cpu - before < 0.0015 else 0
        return calm == enough

    def _asleep(self) -> bool:
        """Whether no thread runs or would like to: the state field of proc_pid_stat(5)."""
        tasks = (task for pid in self._family() for task in Path(f"/proc/{pid}/task").iterdir())
        try:
            return all((task / "stat").read_text().rpartition(")")[2].split()[0] == "S" for task in tasks)
        except FileNotFoundError:  # a thread that ended meanwhile
            return False

    def _last_words(self) -> str:
        return self._log.read_text(errors="replace")[-1500:].strip() or "no output"


def _filled(text: str, values: dict[str, str]) -> str:
    for placeholder, value in values.items():
        text = text.replace(placeholder, value)
    return text
