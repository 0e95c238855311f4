"""gunicorn with several workers, any of which can be killed."""

from __future__ import annotations

import asyncio
import contextlib
import json
import os
import re
import signal
from collections.abc import AsyncIterator, Callable
from pathlib import Path
from typing import Any

from tests.servers.serving import (
    APP,
    DEADLINE,
    OUR_WORKER,
    eventually,
    gunicorn_command,
)
from tests.support.ports import free_port
from tests.support.processes import Process

from .member import Member

OUR_APP = "tests.processes.app:app"


class Cluster:
    """A master and its ``workers``, which share what ``url`` names.

    ``settings`` are ``WSCHAT_*`` keys, without the prefix. Any worker may get any
    connection.
    """

    def __init__(self, url: str, folder: Path, workers: int = 4, **settings: Any):
        port = free_port()
        self.address = f"ws://127.0.0.1:{port}/chat"
        given = {"URL": url, **settings}
        env = {f"TEST_WSCHAT_{key}": str(value) for key, value in given.items()}
        command = gunicorn_command(OUR_WORKER, f"127.0.0.1:{port}")
        command = [OUR_APP if part == APP else part for part in command]
        command += ["--config", "python:tests.processes.imports"]
        command += ["--workers", str(workers)]
        self.env = env
        """What tells a process where all of this is shared."""
        log = folder / "gunicorn.log"
        self._master = Process(command, log, env, forked="patched")
        self._folder = folder
        self._tasks = 0
        self._workers = workers
        self.killed: list[int] = []

    def __enter__(self) -> Cluster:
        self._master.start()
        try:
            eventually(self.is_whole, "all workers serve")
        except BaseException:
            self._master.stop()
            raise
        return self

    def __exit__(self, *error: object) -> None:
        self._master.stop()

    @property
    def log(self) -> str:
        return self._master.log

    def pids(self) -> list[int]:
        """Return the workers that have loaded the application, the oldest first."""
        found = re.findall(r"^process (\d+) has the app$", self.log, re.MULTILINE)
        return [pid for pid in map(int, found) if pid not in self.killed]

    async def recovery(self) -> None:
        """Wait until the master has replaced whom ``kill`` has ended."""
        await asyncio.to_thread(eventually, self.is_whole, "a new worker serves")

    async def logged(self, words: str, times: int) -> None:
        """Wait until ``words`` are in that many lines of the log."""

        def enough() -> bool:
            return sum(words in line for line in self.log.splitlines()) >= times

        await asyncio.to_thread(eventually, enough, f"{words!r} in {times} lines")

    def is_whole(self) -> bool:
        return len(self.pids()) == self._workers

    async def task(self, *calls: Any) -> list[Any]:
        """Run ``tests.processes.task`` with the same URL; return its results."""
        self._tasks += 1
        process = Process(
            ["-m", "tests.processes.task", json.dumps(calls)],
            self._folder / f"task-{self._tasks}.log",
            self.env,
            forked="plain",
        )
        process.start()
        assert await asyncio.to_thread(process.wait, DEADLINE) == 0, process.log
        return [json.loads(line) for line in process.log.splitlines()]

    def kill(self, pid: int | None = None) -> int:
        """End a worker, the oldest if none is named, by SIGKILL."""
        pid = pid or self.pids()[0]
        self.killed.append(pid)
        os.kill(pid, signal.SIGKILL)
        return pid


@contextlib.asynccontextmanager
async def connected(*members: Member) -> AsyncIterator[None]:
    """Keep ``members`` connected, at the same time."""
    for member in members:
        member.start()
    try:
        for member in members:
            await member.until(member.ready.is_set, "it is connected")
        yield
    finally:
        await asyncio.gather(*(member.stop() for member in members))


@contextlib.asynccontextmanager
async def spread(
    make: Callable[[], Member], processes: int
) -> AsyncIterator[list[Member]]:
    """Keep as many connected as it takes to have ``processes`` at their other ends."""
    async with contextlib.AsyncExitStack() as stack:
        members: list[Member] = []
        while len({member.pid for member in members}) < processes:
            assert len(members) < 100, "no more processes take connections"
            more = [make() for _ in range(processes)]
            await stack.enter_async_context(connected(*more))
            members += more
        yield members
