"""Start servers and load, each on a core of its own, and read what they cost."""

from __future__ import annotations

import json
import os
import subprocess
import sys
import time
from pathlib import Path
from types import TracebackType
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from typing_extensions import Self

HERE = Path(__file__).parent
BUILD = HERE.parent / "build"


def two_cores() -> tuple[int, int]:
    """Return the cores for server and load: the same one if there is only one."""
    cores = sorted(os.sched_getaffinity(0))
    return cores[0], cores[-1]


def build_loadgen() -> Path:
    """Return the load generator's path; compile it if the source is newer."""
    source, program = HERE / "loadgen.c", BUILD / "loadgen"
    if not program.exists() or program.stat().st_mtime < source.stat().st_mtime:
        BUILD.mkdir(exist_ok=True)
        compiler = os.environ.get("CC", "cc")
        try:
            subprocess.run([compiler, "-O2", "-o", program, source], check=True)
        except FileNotFoundError:
            sys.exit(f"No {compiler}. On Debian and Ubuntu: apt-get install gcc")
    return program


def family(pid: int) -> list[int]:
    """Return ``pid`` and its descendants."""
    pids = [pid]
    for parent in pids:
        for task in Path(f"/proc/{parent}/task").iterdir():
            pids += map(int, (task / "children").read_text().split())
    return pids


def cpu_seconds(pid: int) -> float:
    """Return the user and system time of ``pid`` and its descendants so far.

    From the processes' CPU clocks: /proc/PID/stat has the same sum in steps of 10 ms.
    """
    return sum(time.clock_gettime(~each << 3 | 2) for each in family(pid))


def memory_bytes(pid: int) -> int:
    """Return the proportional set size of ``pid`` and its descendants."""
    total = 0
    for each in family(pid):
        rollup = Path(f"/proc/{each}/smaps_rollup").read_text()
        total += sum(
            int(line.split()[1]) * 1024
            for line in rollup.splitlines()
            if line.startswith("Pss:")
        )
    return total


class Process:
    """A program that we started, on one core, with pipes; it ends when stdin does."""

    def __init__(self, command: list[str], core: int) -> None:
        self._process = subprocess.Popen(
            command,
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            text=True,
            cwd=HERE.parent,
        )
        self.name = " ".join(command)
        self.pid = self._process.pid
        os.sched_setaffinity(self.pid, {core})

    def read_line(self) -> str:
        assert self._process.stdout
        line = self._process.stdout.readline()
        if not line:
            sys.exit(f"{self.name}: ended with status {self._process.wait()}")
        return line

    def write_line(self, text: str) -> None:
        assert self._process.stdin
        self._process.stdin.write(text + "\n")
        self._process.stdin.flush()

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        assert self._process.stdin and self._process.stdout
        self._process.stdin.close()
        try:
            self._process.wait(5)
        except subprocess.TimeoutExpired:
            self._process.kill()
            self._process.wait()
        self._process.stdout.close()


class Server(Process):
    """One of `benchmarks.servers`, listening on `port`."""

    def __init__(self, module: str, core: int) -> None:
        super().__init__([sys.executable, "-m", f"benchmarks.servers.{module}"], core)
        self.module = module
        self.port = int(self.read_line())


class Load(Process):
    """The load generator, connected and warm; see `loadgen.c` for the arguments."""

    def __init__(
        self,
        server: Server,
        core: int,
        *,
        scenario: str,
        conns: int,
        size: int = 64,
        window: int = 1,
        seconds: float = 1.0,
        kind: str = "text",
    ) -> None:
        path = "/fan" if scenario == "fan" else "/echo"
        numbers = map(str, (conns, size, window, seconds))
        super().__init__(
            [
                *(str(build_loadgen()), "127.0.0.1", str(server.port), path),
                *(scenario, *numbers, kind),
            ],
            core,
        )
        self.read_line()

    def run(self) -> dict[str, Any]:
        """Start the load, wait until it is over and return what was counted."""
        self.write_line("go")
        result: dict[str, Any] = json.loads(self.read_line())
        return result
