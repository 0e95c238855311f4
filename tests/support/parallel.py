"""Tests at the same time, each file as a whole: what its tests share is started once.

    python -m pytest -p tests.support.parallel --jobs 6

They run in forks of the process that has collected them: to collect all takes a process
six seconds, and so it is done once.
"""

from __future__ import annotations

import atexit
import os
import random
import signal
import sys
import time
import traceback
from collections import Counter, deque
from collections.abc import Iterator
from multiprocessing.connection import Connection, Pipe, wait
from pathlib import Path
from typing import Any

import pytest

_GRACE = 10.0
"""Seconds that who runs a test has to end it, where all is interrupted."""


def pytest_addoption(parser: pytest.Parser) -> None:
    parser.addoption("--jobs", type=int, default=1, help="tests at the same time")


@pytest.hookimpl(tryfirst=True)
def pytest_runtestloop(session: pytest.Session) -> bool | None:
    options = session.config.option
    if options.jobs < 2 or options.collectonly or session.testsfailed:
        return None
    run = Run(session, options.jobs)
    try:
        run.go()
    finally:
        run.end()
    return True


def by_file(items: list[pytest.Item]) -> list[list[pytest.Item]]:
    """Begin with the files that may take longest, so that nobody waits for the last."""
    seconds: Counter[Path] = Counter()
    files: dict[Path, list[pytest.Item]] = {}
    for item in items:
        limit = item.get_closest_marker("timeout")
        seconds[item.path] += limit.args[0] if limit else 1
        files.setdefault(item.path, []).append(item)
    return [files[path] for path, _ in seconds.most_common()]


class Worker:
    """A fork, as its parent sees it."""

    def __init__(self, pid: int, pipe: Connection[Any, Any]) -> None:
        self.pid = pid
        self.pipe = pipe
        self.file = self.test = -1
        """What it runs: a file, and a test of that."""


class Run:
    """All the tests of a session, by so many forks."""

    def __init__(self, session: pytest.Session, jobs: int) -> None:
        self.session = session
        self.jobs = jobs
        self.files = by_file(session.items)
        self.left = deque((file, 0) for file in range(len(self.files)))
        self.workers: dict[Connection[Any, Any], Worker] = {}
        self.folder = session.config._tmp_path_factory.getbasetemp()  # type: ignore[attr-defined]
        self.count = 0

    def go(self) -> None:
        for _ in range(min(self.jobs, len(self.files))):
            self.fork()
        while self.workers:
            for pipe in wait(list(self.workers)):
                assert isinstance(pipe, Connection)
                self.hear(self.workers[pipe])

    def fork(self) -> None:
        sys.stdout.flush()
        pipe, theirs = Pipe()
        number, self.count = self.count, self.count + 1
        pid = os.fork()
        if pid == 0:
            for other in (pipe, *self.workers):
                other.close()
            Child(self, number, theirs).run()
        theirs.close()
        self.workers[pipe] = Worker(pid, pipe)

    def hear(self, worker: Worker) -> None:
        try:
            kind, what = worker.pipe.recv()
        except (EOFError, OSError):
            kind = "ended"
        if kind == "ended":
            self.ended(worker)
        elif kind == "asks":
            worker.file, worker.test = self.left.popleft() if self.left else (-1, -1)
            worker.pipe.send((worker.file, worker.test))
        elif kind == "begins":
            worker.test = what
        else:
            hook, config = self.session.config.hook, self.session.config
            self.tell(hook.pytest_report_from_serializable(config=config, data=what))

    def tell(self, report: pytest.TestReport) -> None:
        self.session.config.hook.pytest_runtest_logreport(report=report)
        if self.session.shouldfail:
            raise self.session.Failed(self.session.shouldfail)

    def ended(self, worker: Worker) -> None:
        """Go on in another one where it has not ended by itself."""
        del self.workers[worker.pipe]
        worker.pipe.close()
        status = os.waitstatus_to_exitcode(os.waitpid(worker.pid, 0)[1])
        if worker.file >= 0:
            file = self.files[worker.file]
            item, why = file[worker.test], f"the process ended by {status}"
            where = item.location
            self.tell(pytest.TestReport(item.nodeid, where, {}, "failed", why, "call"))
            if worker.test + 1 < len(file):
                self.left.appendleft((worker.file, worker.test + 1))
            if self.left:
                self.fork()
        elif status:
            raise self.session.Failed(f"a process ended by {status} after its tests")

    def end(self) -> None:
        """End those that run, as nobody will hear of them."""
        workers = list(self.workers.values())
        for worker in workers:
            worker.pipe.close()
            os.kill(worker.pid, signal.SIGINT)
        until = time.monotonic() + _GRACE
        for worker in workers:
            while os.waitpid(worker.pid, os.WNOHANG)[0] == 0:
                if time.monotonic() > until:
                    os.kill(worker.pid, signal.SIGKILL)
                time.sleep(0.05)


class Child:
    """What runs in a fork."""

    def __init__(self, run: Run, number: int, pipe: Connection[Any, Any]) -> None:
        self.session = run.session
        self.files = run.files
        self.pipe = pipe
        config: Any = run.session.config
        config.pluginmanager.register(self)
        # What was captured, and what is told at the terminal, is the parent's.
        capture = config.pluginmanager.get_plugin("capturemanager")
        capture.stop_global_capturing()
        capture.start_global_capturing()
        capture.suspend_global_capture()
        terminal = config.pluginmanager.get_plugin("terminalreporter")
        terminal._tw._file = open(os.devnull, "w")  # noqa: SIM115
        folder = run.folder / f"worker-{number}"
        folder.mkdir()
        config._tmp_path_factory._basetemp = folder
        os.environ["TESTS_WORKER"] = f"{number % run.jobs}/{run.jobs}"
        random.seed()

    def run(self) -> None:
        """Run tests while there are some, and end."""
        status = 1
        try:
            try:
                for item, following in self.tests():
                    hook = item.config.hook
                    hook.pytest_runtest_protocol(item=item, nextitem=following)
            finally:
                self.session._setupstate.teardown_exact(None)
            status = 0
        except (KeyboardInterrupt, BrokenPipeError):
            pass  # the parent has been interrupted
        except BaseException:
            traceback.print_exc()
        finally:
            atexit._run_exitfuncs()
            os._exit(status)

    def tests(self) -> Iterator[tuple[pytest.Item, pytest.Item | None]]:
        """Yield tests, and the one that follows: what both share is kept."""
        outside: Any = self.session  # of which every file is a part
        while True:
            self.pipe.send(("asks", None))
            number, first = self.pipe.recv()
            if number < 0:
                return
            file = self.files[number]
            for test in range(first, len(file)):
                self.pipe.send(("begins", test))
                yield file[test], file[test + 1] if test + 1 < len(file) else outside

    def pytest_runtest_logreport(self, report: pytest.TestReport) -> None:
        config = self.session.config
        data = config.hook.pytest_report_to_serializable(config=config, report=report)
        self.pipe.send(("reports", data))
