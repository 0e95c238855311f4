"""The demos in a process of their own, and a foreign client to talk to them."""

from __future__ import annotations

import contextlib
import http.client
import os
import re
import signal
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any
from urllib.parse import urlencode

import websockets.sync.client
from websockets.typing import Origin

from tests.support.chat_client import ChatClient, Json
from tests.support.ports import free_port
from tests.support.processes import Process
from tests.support.waiting import LONG, eventually

DEADLINE = LONG
"""Seconds that anything may take; reached only by a failure."""


LOCKS = Path("/proc/locks")  # of all processes


class DemoServer(Process):
    """What ``make demo`` starts, on a port that stays the same over restarts.

    ``workers`` and ``redis`` as there; ``url``: a ``WSCHAT_URL``; ``crowded``: one user
    may speak for many. One process without these begins as a fork; with
    ``started_anew`` as it does for a user.
    """

    def __init__(
        self,
        log: Path,
        *,
        workers: int = 1,
        redis: bool = False,
        url: str = "",
        host: str = "",
        crowded: bool = False,
        started_anew: bool = False,
    ) -> None:
        self.port = free_port()
        self.url = f"http://127.0.0.1:{self.port}"
        env = {"PORT": str(self.port), "WORKERS": str(workers or 1), "HOST": host}
        env |= {"REDIS": "1" if redis else "", "WSCHAT_URL": url}
        if crowded:
            env["FLASK_WSCHAT_RATE_LIMIT"] = "null"
        forked = workers == 1 and not (redis or host or started_anew)
        command = [sys.executable, "-m", "tools.demo"]
        if forked:
            command = ["example_app.py"]
        super().__init__(command, log, env, forked="patched" * forked)
        self._count = workers
        self.start()

    def start(self) -> None:
        super().start()
        self.await_port(self.port)

    def workers(self) -> list[int]:
        """Return the processes that serve, once all are there."""
        eventually(
            lambda: len(self._workers()) == self._count,
            lambda: f"all workers are there:\n{self.log}",
            DEADLINE,
        )
        return self._workers()

    def _workers(self) -> list[int]:
        for child in children(self.id):
            if b"gunicorn" in Path(f"/proc/{child}/cmdline").read_bytes():
                return children(child)
        return []

    @contextlib.contextmanager
    def only(self, worker: int) -> Iterator[None]:
        """Let no other worker take what is new."""
        others = [pid for pid in self.workers() if pid != worker]
        for pid in others:
            stop_between_writes(pid)
        try:
            yield
        finally:
            for pid in others:
                os.kill(pid, signal.SIGCONT)

    def freeze(self) -> None:
        """Stop it from doing anything; the system still takes what it is sent."""
        self.signal(signal.SIGSTOP)

    def interrupt(self) -> None:
        """End it as Ctrl-C does."""
        self.end(signal.SIGINT)


def stop_between_writes(pid: int) -> None:
    """Stop a process, but not while others wait for what it has locked."""

    def stopped() -> bool:
        os.kill(pid, signal.SIGSTOP)
        threads = list(Path(f"/proc/{pid}/task").glob("*/stat"))
        eventually(lambda: all(") T " in stat.read_text() for stat in threads))
        # SQLite locks a few bytes; a file as a whole is had for a process's whole life.
        written = rf" POSIX +ADVISORY +WRITE +{pid} \S+ (?!0 EOF)"
        if re.search(written, LOCKS.read_text()) is None:
            return True
        os.kill(pid, signal.SIGCONT)
        return False

    eventually(stopped, f"{pid} does not write", DEADLINE)


@contextlib.contextmanager
def serving(log: Path, **options: Any) -> Iterator[DemoServer]:
    """A ``DemoServer`` with these options, checked for tracebacks at its end."""
    server = DemoServer(log, **options)
    try:
        yield server
    finally:
        server.stop()
    assert "Traceback" not in server.log, server.log


def children(pid: int) -> list[int]:
    text = Path(f"/proc/{pid}/task/{pid}/children").read_text()
    return [int(child) for child in text.split()]


class Person:
    """A browser without a screen: it keeps one cookie."""

    def __init__(self, server: DemoServer) -> None:
        self.server = server
        self.cookie = ""
        self.host = "127.0.0.1"

    def http(
        self,
        method: str,
        path: str,
        form: dict[str, str] | list[tuple[str, str]] | None = None,
    ) -> tuple[int, str]:
        """Return the answer's status and body; redirects are not followed."""
        connection = http.client.HTTPConnection(
            self.host, self.server.port, timeout=DEADLINE
        )
        headers = {"Content-Type": "application/x-www-form-urlencoded"}
        if self.cookie:
            headers["Cookie"] = self.cookie
        try:
            connection.request(method, path, urlencode(form or {}), headers)
            answer = connection.getresponse()
            for line in answer.headers.get_all("Set-Cookie", []):
                self.cookie = line.partition(";")[0]
            return answer.status, answer.read().decode()
        finally:
            connection.close()

    def login(self, name: str) -> int:
        return self.http("POST", "/private/login", {"name": name})[0]

    def connect(self, path: str) -> Tab:
        return Tab(self, path)


class Tab(ChatClient):
    """One socket of a person; what comes before a reply is not kept."""

    escapes = True

    def __init__(self, person: Person, path: str) -> None:
        client = websockets.sync.client.connect(
            f"ws://{person.host}:{person.server.port}{path}",
            additional_headers={"Cookie": person.cookie},
            origin=Origin(f"http://{person.host}:{person.server.port}"),
            proxy=None,
            compression=None,
            open_timeout=DEADLINE,
            close_timeout=DEADLINE,
            ping_interval=None,
        )
        # It wants to be a context manager, at once.
        super().__init__(client.__enter__(), DEADLINE)

    def ask(self, kind: str, **fields: Any) -> Json:
        return self.ask_and_hear(kind, **fields)[0]

    def ask_and_hear(self, kind: str, **fields: Any) -> tuple[Json, list[Json]]:
        """Return the answer to a request, and what came before it."""
        answer = super().ask(kind, **fields)
        heard, self.events = self.events, []
        return answer, heard

    def heard(self) -> list[Json]:
        """Return all that has been sent to this socket and not been read.

        The server answers in order, so nothing from before can come after the answer.
        """
        answer, heard = self.ask_and_hear("no such request")
        assert answer["error"]["code"] == "unknown_type"
        return heard


def speaker(server: DemoServer, name: str, *rooms: str) -> Tab:
    """Somebody new, who is in these rooms of the group chat."""
    person = Person(server)
    assert person.login(name) == 302
    tab = person.connect("/ws/chat")
    for room in rooms:
        assert tab.ask("join", room=room)["ok"]
    return tab
