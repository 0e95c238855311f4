"""Processes forked from one that has done its imports, see `tests.support.forking`."""

from __future__ import annotations

import atexit
import functools
import json
import os
import signal
import subprocess
import sys
import time
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

ROOT = Path(__file__).parents[2]


class Fork:
    """A process that runs a program, as `subprocess.Popen` shows one that it began.

    ``command``: what comes after ``python``, a script's path or ``-m`` and a module's
    name, and the arguments. ``kind``: "patched" by gevent, or "plain".
    """

    stdin = None

    def __init__(
        self,
        kind: str,
        command: Sequence[str],
        env: Mapping[str, str],
        cwd: Path,
        log: Path,
    ) -> None:
        self._code: int | None = None
        self._parent = _parent(kind)
        question = [list(command), dict(env), str(cwd.resolve()), str(log.resolve())]
        self.pid: int = self._parent.ask(question)

    def poll(self) -> int | None:
        if self._code is None:
            self._code = self._parent.ask(self.pid)
        return self._code

    def wait(self, timeout: float | None = None) -> int:
        begun = time.monotonic()
        while (code := self.poll()) is None:
            waited = time.monotonic() - begun
            if waited > (timeout or 60):
                raise subprocess.TimeoutExpired(f"process {self.pid}", timeout or 60)
            # To ask is 0.2 ms of two processes; the longer it takes, the less often.
            time.sleep(min(max(0.002, waited / 10), 0.05))
        return code

    def send_signal(self, sig: int) -> None:
        if self.poll() is None:
            os.kill(self.pid, sig)

    def kill(self) -> None:
        self.send_signal(signal.SIGKILL)


class _Parent:
    def __init__(self, kind: str) -> None:
        self._process = subprocess.Popen(
            [sys.executable, "-u", "-m", "tests.support.forking", kind],
            cwd=ROOT,
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
        )

    def ask(self, question: Any) -> Any:
        assert self._process.stdin is not None and self._process.stdout is not None
        self._process.stdin.write(json.dumps(question).encode() + b"\n")
        self._process.stdin.flush()
        return json.loads(self._process.stdout.readline())

    def end(self) -> None:
        self._process.communicate()


@functools.cache
def _parent(kind: str) -> _Parent:
    """The process to fork, begun by the first who needs it; it ends with this one."""
    parent = _Parent(kind)
    atexit.register(parent.end)
    return parent
