"""Programs in processes of their own, which end with the tests."""

from __future__ import annotations

import atexit
import contextlib
import os
import subprocess
import threading
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from signal import SIG_IGN, SIGINT, SIGTERM, Signals, default_int_handler, getsignal
from signal import signal as handle
from typing import IO

from .forked import Fork
from .ports import listens
from .waiting import LONG, eventually

ROOT = Path(__file__).parents[2]

_running: set[Process] = set()
_begun: list[Process] = []


class Process:
    """A program that runs from ``start`` to ``stop``, its output in the file ``log``.

    ``env`` is added to the environment, where None takes a name out. ``stdin`` is
    ``subprocess.DEVNULL`` or ``subprocess.PIPE``.

    ``forked``: "patched" by gevent, or "plain"; ``command`` is then what comes after
    ``python``, and begins with its imports done: 0.02 s of the processor's time until
    it listens, instead of 0.4, or of 0.8 for what ``chat.run`` starts again.
    """

    def __init__(
        self,
        command: Sequence[str],
        log: Path,
        env: Mapping[str, str | None] | None = None,
        *,
        cwd: Path = ROOT,
        stdin: int = subprocess.DEVNULL,
        forked: str = "",
    ) -> None:
        self.command = list(command)
        self._log = log
        given = {**os.environ, "PYTHONUNBUFFERED": "1", **(env or {})}
        self._env = {name: value for name, value in given.items() if value is not None}
        self._cwd = cwd
        self._stdin = stdin
        self._forked = forked
        self._process: subprocess.Popen[bytes] | Fork | None = None

    # -- what it is

    @property
    def log(self) -> str:
        """What it has said, on both streams."""
        return self._log.read_text(errors="replace") if self._log.exists() else ""

    @property
    def name(self) -> str:
        return " ".join(self.command)[:200]

    @property
    def running(self) -> bool:
        return self._process is not None and self._process.poll() is None

    @property
    def id(self) -> int:
        """The system's number for it."""
        return self._popen.pid

    @property
    def stdin(self) -> IO[bytes]:
        assert self._popen.stdin is not None
        return self._popen.stdin

    @property
    def _popen(self) -> subprocess.Popen[bytes] | Fork:
        assert self._process is not None, "it was not started"
        return self._process

    # -- its life

    def start(self) -> None:
        assert not self.running, "it runs already"
        with self._log.open("ab") as log:
            if self._forked:
                self._process = Fork(
                    self._forked, self.command, self._env, self._cwd, self._log
                )
            else:
                with hearing_interrupts():
                    self._process = subprocess.Popen(
                        self.command,
                        cwd=self._cwd,
                        env=self._env,
                        stdin=self._stdin,
                        stdout=log,
                        stderr=subprocess.STDOUT,
                    )
        _running.add(self)
        _begun.append(self)

    def signal(self, number: Signals) -> None:
        self._popen.send_signal(number)

    def heard(self, words: str, seconds: float = LONG) -> str:
        """Return what it has said, once ``words`` are among it."""

        def said() -> bool:
            running = self.running  # if it does not, all that it says is there
            found = words in self.log
            assert found or running, f"it ended:\n{self.log}"
            return found

        eventually(said, lambda: f"{words!r} in\n{self.log}", seconds)
        return self.log

    def await_port(self, port: int) -> None:
        """Wait until it listens on ``port``."""

        def found() -> bool:
            assert self.running, f"it ended:\n{self.log}"
            return listens(port)

        eventually(found, lambda: f"it listens on {port}\n{self.log}", LONG)

    def wait(self, seconds: float = LONG) -> int:
        """Wait until it has ended; return its exit code."""
        try:
            code = self._popen.wait(seconds)
        except subprocess.TimeoutExpired:
            raise AssertionError(f"it does not end:\n{self.log}") from None
        self._ended()
        return code

    def end(self, number: Signals = SIGTERM) -> int:
        """End it by a signal, by force if need be, which is a failure.

        Return its exit code.
        """
        self.signal(number)
        try:
            return self.wait()
        finally:
            self.kill()

    def stop(self) -> None:
        """End it, by force if need be, if it runs."""
        if self.running:
            self.signal(SIGTERM)
            with contextlib.suppress(subprocess.TimeoutExpired):
                self._popen.wait(LONG / 4)
        self.kill()

    def kill(self) -> None:
        """End it by SIGKILL, if it runs."""
        if self._process is not None:
            self._process.kill()
            self._process.wait()
            self._ended()

    def _ended(self) -> None:
        _running.discard(self)
        if self._popen.stdin is not None:
            with contextlib.suppress(BrokenPipeError):  # it has not read the last
                self._popen.stdin.close()


@contextlib.contextmanager
def hearing_interrupts() -> Iterator[None]:
    """Let programs that are begun meanwhile hear SIGINT.

    A shell's background job, pytest for one, hands down that interrupts are ignored. A
    ``preexec_fn`` could undo that, but with one the system copies this process first:
    that is 35 ms of 300 MB. What another thread begins stays deaf.
    """
    main = threading.current_thread() is threading.main_thread()
    if getsignal(SIGINT) != SIG_IGN or not main:
        yield
        return
    handle(SIGINT, default_int_handler)
    try:
        yield
    finally:
        handle(SIGINT, SIG_IGN)


def begun() -> list[Process]:
    """Return, and forget, what was started since the last call."""
    found, _begun[:] = list(_begun), []
    return found


@atexit.register
def _kill_all() -> None:
    for process in list(_running):
        process.kill()
