"""``flask wschat stats`` and ``top``: tables, lines, JSON, and how they end."""

from __future__ import annotations

import contextlib
import fcntl
import json
import os
import pty
import re
import signal
import struct
import sys
import termios
import time
from collections.abc import Iterator
from pathlib import Path

import pytest
from click.testing import Result

from flask_wschat.cli import table, wschat
from flask_wschat.cli.table import COLUMNS, lines
from tests.support.operated import create_app
from tests.support.ports import free_port
from tests.support.processes import ROOT, Process
from tests.support.waiting import LONG, eventually

pytestmark = pytest.mark.timeout(60)


class Served:
    """Two processes that share a file, and the application in a third: this one."""

    def __init__(self, folder: Path) -> None:
        self.url = f"sqlite:///{folder}/chat.db"
        self.processes = []
        for port in (free_port(), free_port()):
            env = {"WSCHAT_URL": self.url, "PORT": str(port)}
            command = ["tests/support/chat_server.py"]
            process = Process(command, folder / f"{port}", env, forked="patched")
            process.start()
            process.await_port(port)
            self.processes.append(process)
        self.app = create_app(self.url)

    @property
    def workers(self) -> list[str]:
        host = os.uname().nodename
        return sorted(f"{host}:{process.id}" for process in self.processes)

    def command(self, *words: str) -> Result:
        return self.app.test_cli_runner().invoke(wschat, words)


@pytest.fixture(scope="module")
def served(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Served]:
    served = Served(tmp_path_factory.mktemp("served"))
    yield served
    served.app.extensions["wschat.hub"].stop()
    for process in served.processes:
        process.stop()


def test_figures_for_people_and_for_scripts(served: Served) -> None:
    def all_of_them() -> bool:
        said = served.command("stats", "--wait", "0.2").stdout
        return said.startswith("workers\t2\n")

    eventually(all_of_them, seconds=LONG)
    lines = dict(
        line.split("\t") for line in served.command("stats").stdout.splitlines()
    )
    assert lines["connections"] == "0" and lines["backend_up"] == "True"
    assert lines["handler_seconds count"] == "0"
    told = json.loads(served.command("stats", "--json").stdout)
    assert [each["worker"] for each in told["workers"]] == served.workers
    assert told["total"]["connections"] == 0


def test_a_table_of_all_workers_in_a_pipe_and_as_json(served: Served) -> None:
    done = served.command("top", "--once", "--interval", "0.3")
    assert done.exit_code == 0
    rows = [line.split("\t") for line in done.stdout.splitlines()]
    assert [row[0] for row in rows] == [*served.workers, "total"]
    assert {len(row) for row in rows} == {len(COLUMNS) + 1}
    done = served.command("top", "--once", "--json", "--interval", "0.3")
    told = json.loads(done.stdout)
    assert [each["worker"] for each in told["workers"]] == served.workers
    assert told["fault"] is None and abs(told["at"] - time.time()) < LONG
    assert told["total"]["in_per_second"] == 0 == told["workers"][0]["in_per_second"]


def test_one_table_on_a_terminal_fits_it(
    served: Served, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(
        "click.testing._NamedTextIOWrapper.isatty", lambda self: True, raising=False
    )
    monkeypatch.setenv("COLUMNS", "60")
    done = served.command("top", "--once", "--interval", "0.3")
    heading, *rows = done.stdout.splitlines()
    assert heading.split()[:3] == ["worker", "conns", "in/s"] and len(rows) == 3
    assert max(map(len, (heading, *rows))) <= 60 and "\033" not in done.stdout


def test_who_has_no_workers_is_told_why(tmp_path: Path) -> None:
    app = create_app("memory://")
    for command in ("stats", "top"):
        done = app.test_cli_runner().invoke(wschat, [command])
        assert done.exit_code == 1 and "memory://" in done.stderr
    app = create_app(f"sqlite:///{tmp_path}/none.db")
    done = app.test_cli_runner().invoke(wschat, ["stats"])
    assert done.exit_code == 1 and "no server has used it" in done.stderr
    (tmp_path / "none.db").touch()
    for words in (["stats", "--wait", "0.1"], ["top", "--once", "--interval", "0.2"]):
        done = app.test_cli_runner().invoke(wschat, words)
        assert done.exit_code == 1
        assert "Error: no worker answers: is a server up" in done.stderr
    app.extensions["wschat.hub"].stop()


def test_a_redis_that_is_gone_is_told_at_once() -> None:
    app = create_app(f"redis://127.0.0.1:{free_port()}/0")
    for words in (["stats"], ["top", "--once", "--interval", "0.2"]):
        began = time.monotonic()
        done = app.test_cli_runner().invoke(wschat, words)
        assert done.exit_code == 1
        assert "cannot be reached; does it run?" in done.stderr
        assert time.monotonic() - began < 5
    app.extensions["wschat.hub"].stop()


class Terminal:
    """``flask wschat top`` on a terminal of its own."""

    def __init__(self, url: str, columns: int, rows: int) -> None:
        command = [sys.executable, "-m", "flask", "--app", "tests.support.operated"]
        self.pid, self.fd = pty.fork()
        if not self.pid:
            try:
                # A shell's background job hands down that interrupts are ignored.
                signal.signal(signal.SIGINT, signal.default_int_handler)
                os.chdir(ROOT)
                env = {**os.environ, "TERM": "xterm", "WSCHAT_URL": url}
                words = [*command, "wschat", "top", "--interval", "0.2"]
                os.execve(command[0], words, env)
            finally:
                os._exit(1)
        self.said = ""
        self.resize(columns, rows)

    def resize(self, columns: int, rows: int) -> None:
        size = struct.pack("HHHH", rows, columns, 0, 0)
        fcntl.ioctl(self.fd, termios.TIOCSWINSZ, size)

    def frame(self) -> list[str]:
        """Return the lines of the next whole table, without what steers."""
        before = self.said.count("\033[J")
        while self.said.count("\033[J") < before + 2:
            self.said += os.read(self.fd, 65536).decode()
        whole = self.said.split("\033[H")[-2]
        return re.sub("\033\\[[0-9;]*[A-Za-z]", "", whole).splitlines()

    def end(self) -> int:
        """Press Ctrl-C; return the exit code."""
        os.write(self.fd, b"\x03")
        until = time.monotonic() + LONG
        with contextlib.suppress(OSError):  # it has ended
            while data := os.read(self.fd, 65536):
                self.said += data.decode()
                assert time.monotonic() < until, "it goes on after Ctrl-C"
        os.close(self.fd)
        return os.waitstatus_to_exitcode(os.waitpid(self.pid, 0)[1])


def test_it_fits_the_terminal_and_ends_clean(served: Served) -> None:
    terminal = Terminal(served.url, 80, 24)
    try:

        def shows(width: int, least: int) -> bool:
            """Whether two workers are there, with so many columns that fit."""
            shown = terminal.frame()
            fits = all(len(line) <= width for line in shown)
            return fits and len(shown) == 5 and len(shown[1].split()) >= least

        eventually(lambda: shows(80, 7), seconds=LONG)
        title, _, first, second, total = terminal.frame()
        assert title == "2 workers, every 0.2 s, Ctrl-C ends"
        assert [first.split()[0], second.split()[0]] == served.workers
        assert total.split()[:3] == ["total", "0", "0"]
        terminal.resize(40, 24)
        eventually(lambda: shows(40, 3), seconds=LONG)
        terminal.resize(300, 24)
        eventually(lambda: shows(300, len(COLUMNS) + 1), seconds=LONG)
        terminal.resize(300, 4)  # the total stays where there is no room
        eventually(lambda: terminal.frame()[2].endswith(" 2 more"), seconds=LONG)
        assert terminal.end() == 0
    except BaseException:
        os.kill(terminal.pid, signal.SIGKILL)
        raise
    assert "Traceback" not in terminal.said and "Aborted" not in terminal.said


# -- how it is written


def row(worker: str, number: float | None) -> dict[str, object]:
    return {"worker": worker, **{column.key: number for column in COLUMNS}}


@pytest.mark.parametrize("width", [20, 27, 40, 80, 132, 500])
def test_no_line_is_longer_than_the_terminal_is_wide(width: int) -> None:
    longest = "a" * 70 + ":4194304"
    rows = [row(longest, 123456789.0), row("b\033[2J:1", None), row("total", 0)]
    written = lines(rows, width)
    assert max(map(len, written)) <= width
    assert len({len(line) for line in written if not line.endswith(" ")}) <= 2
    assert "\033" not in "".join(written)
    assert written[1].split()[0].endswith(":4194304")
    if width >= 40:
        assert "conns" in written[0] and "123M" in written[1]
    if width == 500:
        assert written[0].split() == ["worker", *(column.title for column in COLUMNS)]


def test_numbers_are_short() -> None:
    some = (0, 7.25, 812, 999.7, 12_345, 4_500_000, 123_456_789, 7e12)
    counts = ["0", "7.2", "812", "1000", "12345", "4.5M", "123M", "7000G"]
    assert table.count(812_345) == "812k"
    assert list(map(table.count, some)) == counts
    sizes = [table.size(n) for n in (0, 1023, 1536, 65_536, 1 << 20, 1 << 40)]
    assert sizes == ["0B", "1023B", "1.5K", "64K", "1.0M", "1024G"]
    times = [table.seconds(n) for n in (0, 0.0004, 0.025, 1.5, 90)]
    assert times == ["0.0ms", "0.4ms", "25ms", "1.5s", "90.0s"]
    ages = [table.age(n) for n in (5, 119, 7200, 40 * 86400)]
    assert ages == ["5s", "2m", "2h", "40d"]
