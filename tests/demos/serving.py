"""The demos in a process of their own, and a foreign client to talk to them."""

from __future__ import annotations

import contextlib
import http.client
import json
import os
import signal
import socket
import subprocess
import sys
import threading
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any
from urllib.parse import urlencode

import websockets.sync.client
from websockets.typing import Origin

ROOT = Path(__file__).parents[2]

DEADLINE = 10.0
"""Seconds that anything may take; reached only by a failure."""


def free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])


class DemoServer:
    """What ``make demo`` starts, on a port that stays the same over restarts.

    ``workers`` and ``redis`` as there; ``url``: a ``WSCHAT_URL``.
    """

    def __init__(
        self,
        log: Path,
        *,
        workers: int = 1,
        redis: bool = False,
        url: str = "",
        host: str = "",
    ) -> None:
        self.port = free_port()
        self.url = f"http://127.0.0.1:{self.port}"
        self._log = log
        self._env = {"PORT": str(self.port), "WORKERS": str(workers or 1), "HOST": host}
        self._env |= {"REDIS": "1" if redis else "", "WSCHAT_URL": url}
        self._count = workers
        self.start()

    def start(self) -> None:
        with self._log.open("a") as log:
            self._process = subprocess.Popen(
                [sys.executable, "-m", "tools.demo"],
                cwd=ROOT,
                env={**os.environ, **self._env, "PYTHONUNBUFFERED": "1"},
                stdin=subprocess.DEVNULL,
                stdout=log,
                stderr=subprocess.STDOUT,
            )
        until = time.monotonic() + DEADLINE
        pause = threading.Event()
        while True:
            try:
                socket.create_connection(("127.0.0.1", self.port), 1).close()
                return
            except OSError:
                if self._process.poll() is not None or time.monotonic() > until:
                    raise AssertionError(f"no server:\n{self.log}") from None
                pause.wait(0.02)

    def workers(self) -> list[int]:
        """Return the processes that serve, once all are there."""
        until = time.monotonic() + DEADLINE
        pause = threading.Event()
        while time.monotonic() < until:
            for child in children(self._process.pid):
                if b"gunicorn" in Path(f"/proc/{child}/cmdline").read_bytes():
                    found = children(child)
                    if len(found) == self._count:
                        return found
            pause.wait(0.02)
        raise AssertionError(f"not all workers are there:\n{self.log}")

    @contextlib.contextmanager
    def only(self, worker: int) -> Iterator[None]:
        """Let no other worker take what is new."""
        others = [pid for pid in self.workers() if pid != worker]
        for pid in others:
            os.kill(pid, signal.SIGSTOP)
        try:
            yield
        finally:
            for pid in others:
                os.kill(pid, signal.SIGCONT)

    def freeze(self) -> None:
        """Stop it from doing anything; the system still takes what it is sent."""
        self._process.send_signal(signal.SIGSTOP)

    def kill(self) -> None:
        self._process.kill()
        self._process.wait(DEADLINE)

    def stop(self) -> None:
        self._process.terminate()
        self._wait()

    def interrupt(self) -> None:
        """End it as Ctrl-C does."""
        self._process.send_signal(signal.SIGINT)
        self._wait()

    def heard(self, words: str) -> str:
        """Return what it said, once these words are there."""
        until = time.monotonic() + DEADLINE
        pause = threading.Event()
        while words not in self.log:
            assert time.monotonic() < until, self.log
            pause.wait(0.02)
        return self.log

    def _wait(self) -> None:
        try:
            self._process.wait(DEADLINE)
        except subprocess.TimeoutExpired:
            self._process.kill()
            self._process.wait()
            raise

    @property
    def log(self) -> str:
        return self._log.read_text()


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
        self, method: str, path: str, form: dict[str, str] | None = None
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


class Tab:
    """One socket of a person."""

    def __init__(self, person: Person, path: str) -> None:
        self._ref = 0
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
        self.client = client.__enter__()
        self.user = self.expect("hello")["user"]

    def receive(self) -> dict[str, Any]:
        message: dict[str, Any] = json.loads(self.client.recv(timeout=DEADLINE))
        return message

    def expect(self, kind: str) -> dict[str, Any]:
        """Return the next message of a type; others are passed over."""
        while True:
            message = self.receive()
            if message["type"] == kind:
                return message

    def ask(self, kind: str, **fields: Any) -> dict[str, Any]:
        """Return the answer to a request."""
        return self.ask_and_hear(kind, **fields)[0]

    def ask_and_hear(
        self, kind: str, **fields: Any
    ) -> tuple[dict[str, Any], list[dict[str, Any]]]:
        """Return the answer to a request, and what came before it."""
        self._ref += 1
        self.client.send(json.dumps({"type": kind, "ref": self._ref, **fields}))
        heard: list[dict[str, Any]] = []
        while True:
            message = self.receive()
            if message.get("ref") == self._ref:
                return message, heard
            heard.append(message)

    def heard(self) -> list[dict[str, Any]]:
        """Return all that has been sent to this socket and not been read.

        The server answers in order, so nothing from before can come after the answer.
        """
        answer, heard = self.ask_and_hear("no such request")
        assert answer["error"]["code"] == "unknown_type"
        return heard

    def close(self) -> None:
        self.client.close()
