"""Programs in processes of their own, bounded in time and ended by their id."""

from __future__ import annotations

import os
import select
import signal
import subprocess
import threading
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path
from queue import Empty, Queue

PATIENCE = 60.0


class Program:
    """A running program; its output, both streams in one, is read line by line."""

    def __init__(self, process: subprocess.Popen[str]) -> None:
        self._process = process
        self._lines: Queue[str | None] = Queue()
        self.output = ""
        self.pid = process.pid
        threading.Thread(target=self._read, daemon=True).start()

    def _read(self) -> None:
        assert self._process.stdout is not None
        with self._process.stdout as lines:
            for line in lines:
                self._lines.put(line)
        self._lines.put(None)

    def line_with(self, text: str) -> str:
        """The first line from now on that holds this text."""
        while (line := self._next()) is not None:
            if text in line:
                return line
        raise AssertionError(f"no line with {text!r} in:\n{self.output}")

    def _next(self) -> str | None:
        try:
            line = self._lines.get(timeout=PATIENCE)
        except Empty:
            raise AssertionError(f"silence after:\n{self.output}") from None
        self.output += line or ""
        return line

    def ended(self) -> int:
        """The exit code, once it is there; `output` is whole then."""
        while self._next() is not None:
            pass
        return self._process.wait(PATIENCE)

    def stop(self) -> int:
        """SIGTERM, and the exit code."""
        self._process.send_signal(signal.SIGTERM)
        return self.ended()


@contextmanager
def running(command: Sequence[str], env: Mapping[str, str], folder: Path) -> Iterator[Program]:
    """The program, killed with the processes it started if the block leaves it running."""
    process = subprocess.Popen(
        command,
        cwd=folder,
        env=env,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
        start_new_session=True,
    )
    family = {process.pid}
    try:
        yield Program(process)
        family |= descendants(process.pid)
    except BaseException:
        family |= descendants(process.pid)
        raise
    finally:
        if process.poll() is None:
            for pid in sorted(family, reverse=True):
                os.kill(pid, signal.SIGKILL)
            process.wait(PATIENCE)


def descendants(pid: int) -> set[int]:
    """The ids of the processes that a process started, and that those started."""
    try:
        children = {int(each) for each in Path(f"/proc/{pid}/task/{pid}/children").read_text().split()}
    except FileNotFoundError:
        return set()
    return children.union(*map(descendants, children))


def end(pid: int) -> None:
    """SIGTERM, and wait until the process has ended; it need not be a child."""
    descriptor = os.pidfd_open(pid)
    try:
        signal.pidfd_send_signal(descriptor, signal.SIGTERM)
        assert select.select([descriptor], [], [], PATIENCE)[0], f"process {pid} is still there"
    finally:
        os.close(descriptor)
