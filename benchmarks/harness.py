"""Start servers and load, each on a core of its own, and read what they cost."""

from __future__ import annotations

import contextlib
import json
import os
import select
import shutil
import socket
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from types import TracebackType
from typing import TYPE_CHECKING, Any, Protocol

if TYPE_CHECKING:
    from typing_extensions import Self

HERE = Path(__file__).parent
ROOT = HERE.parent
BUILD = ROOT / "build"

PATIENCE = 100.0
"""Seconds that a program may take to say its next line."""


class Failed(Exception):
    """A server or a load did not do its part; the message says what happened."""


def two_cores() -> tuple[int, int]:
    """Return the cores for server and load: the same one if there is only one."""
    cores = sorted(os.sched_getaffinity(0))
    return cores[0], cores[-1]


def compiled(source: Path) -> Path:
    """Return the program made of a C file; compile it if the source is newer."""
    program = BUILD / source.stem
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
            with contextlib.suppress(FileNotFoundError):  # a thread that just ended
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
    """A program that we started, on one core, with pipes; it ends when stdin does.

    ``core``: None leaves the choice to the kernel, or to the program.
    ``log``: a file for what it says to stderr, else it is ours.
    """

    def __init__(
        self,
        command: Sequence[str | Path],
        core: int | None,
        *,
        log: Path | None = None,
        nice: int = 0,
        environment: Mapping[str, str] | None = None,
    ) -> None:
        def prepare() -> None:
            # Before the exec: threads inherit it, but only those that come later.
            if core is not None:
                os.sched_setaffinity(0, {core})
            os.nice(nice)

        self.name = Path(command[0]).name + " " + " ".join(map(str, command[1:4]))
        self._log = None if log is None else log.open("wb")
        self._process = subprocess.Popen(
            command,
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=self._log,
            cwd=ROOT,
            env={**os.environ, **(environment or {})},
            bufsize=0,
            preexec_fn=prepare,
        )
        self.pid = self._process.pid
        self._said = b""

    def read_line(self, patience: float = PATIENCE) -> str:
        """Return the next line of its output.

        :raises Failed: it ended, or said nothing for ``patience`` seconds.
        """
        assert self._process.stdout
        until = time.monotonic() + patience
        while b"\n" not in self._said:
            left = max(until - time.monotonic(), 0)
            if not select.select([self._process.stdout], [], [], left)[0]:
                raise Failed(f"{self.name}: nothing for {patience:.0f} s")
            data = os.read(self._process.stdout.fileno(), 65536)
            if not data:
                raise Failed(f"{self.name}: ended with status {self._process.wait()}")
            self._said += data
        line, self._said = self._said.split(b"\n", 1)
        return line.decode()

    def write_line(self, text: str) -> None:
        """Send it a line.

        :raises Failed: it has ended.
        """
        assert self._process.stdin
        try:
            self._process.stdin.write(text.encode() + b"\n")
        except BrokenPipeError:
            raise Failed(f"{self.name}: gone") from None

    def is_running(self) -> bool:
        return self._process.poll() is None

    def terminate(self) -> None:
        """Ask it by SIGTERM, as it does not know of its stdin."""
        self._process.terminate()

    def close(self) -> None:
        assert self._process.stdin and self._process.stdout
        self._process.stdin.close()
        try:
            self._process.wait(5)
        except subprocess.TimeoutExpired:
            self._process.kill()
            self._process.wait()
        self._process.stdout.close()
        if self._log is not None:
            self._log.close()

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        self.close()


class Server(Process):
    """A program that prints the port it listens on; a name is one of our servers."""

    def __init__(
        self,
        program: str | Sequence[str | Path],
        core: int | None,
        *,
        log: Path | None = None,
        environment: Mapping[str, str] | None = None,
    ) -> None:
        if isinstance(program, str):
            program = [sys.executable, "-m", f"benchmarks.servers.{program}"]
        super().__init__(program, core, log=log, environment=environment)
        try:
            self.port = int(self.read_line(20))
        except (Failed, ValueError):
            self.close()
            raise Failed(f"{self.name}: did not start") from None


@contextlib.contextmanager
def redis_server(core: int | None) -> Iterator[tuple[int, str]]:
    """Yield the process id and address of a redis-server that keeps nothing on disk.

    :raises Failed: there is none, or it does not answer.
    """
    with tempfile.TemporaryDirectory(prefix="wschat-redis-") as folder:
        place = f"{folder}/socket"
        program = shutil.which("redis-server") or "valkey-server"
        command = [program, "--port", "0", "--unixsocket", place]
        command += ["--save", "", "--dir", folder, "--loglevel", "warning"]
        with socket.create_server(("127.0.0.1", 0)) as free:
            port = free.getsockname()[1]
        command[2] = str(port)
        try:
            process = Process(command, core)
        except FileNotFoundError:
            raise Failed("no redis-server and no valkey-server to be found") from None
        try:
            until = time.monotonic() + 5
            while not os.path.exists(place):
                if time.monotonic() > until or not process.is_running():
                    raise Failed("redis-server did not start")
                time.sleep(0.01)
            yield process.pid, f"redis://127.0.0.1:{port}/0"
        finally:
            process.terminate()
            process.close()


class Listening(Protocol):
    """What a load connects to."""

    port: int


def our_server(*settings: str) -> Server:
    """Return ours, with settings as ``KEY=NUMBER``."""
    return Server(
        [sys.executable, "-m", "benchmarks.servers.wschat", *settings], two_cores()[0]
    )


class Load(Process):
    """The load generator, connected and warm; see `loadgen.c` for the options.

    `ready_seconds` is how long all connections took. They go to `ports` in turn, if
    these are given, else to the server's.
    """

    def __init__(
        self,
        server: Listening,
        core: int | None,
        *,
        scenario: str,
        path: str | None = None,
        headers: Sequence[str] = (),
        socketio: bool = False,
        nice: int = 0,
        conns: int,
        size: int = 64,
        window: int = 1,
        rate: float = 0,
        seconds: float = 1,
        chat: int = 0,
        lazy: bool = False,
        ports: Sequence[int] = (),
    ) -> None:
        if path is None and chat:
            path = "/chat"
        elif path is None:
            path = "/fan" if scenario in ("fan", "stall") else "/echo"
        command: list[str | Path] = [compiled(HERE / "loadgen.c")]
        command.append(",".join(map(str, ports or [server.port])))
        command += [scenario, "--path", path, "--conns", str(conns)]
        command += ["--size", str(size), "--window", str(window)]
        command += ["--rate", str(rate), "--seconds", str(seconds)]
        for header in headers:
            command += ["--header", header]
        if socketio:
            command.append("--socketio")
        if chat:
            command += ["--chat", str(chat)]
        if lazy:
            command.append("--lazy")
        super().__init__(command, core, nice=nice)
        try:
            self.ready_seconds: float = json.loads(self.read_line())["seconds"]
        except Failed:
            self.close()
            raise

    def run(self) -> dict[str, Any]:
        """Start the load, wait until it is over and return what was counted.

        :raises Failed: the server did not do what it should.
        """
        self.start()
        return self.result()

    def start(self) -> None:
        """Start the load; `result` waits for it."""
        self.write_line("go")

    def result(self) -> dict[str, Any]:
        result: dict[str, Any] = json.loads(self.read_line())
        return result
