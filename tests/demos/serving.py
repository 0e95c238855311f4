"""The demos in a process of their own, and a foreign client to talk to them."""

from __future__ import annotations

import http.client
import json
import os
import signal
import socket
import subprocess
import sys
import threading
import time
from pathlib import Path
from typing import Any
from urllib.parse import urlencode

import websockets.sync.client

ROOT = Path(__file__).parents[2]

DEADLINE = 10.0
"""Seconds that anything may take; reached only by a failure."""


def free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])


class DemoServer:
    """``python example_app.py`` on a port that stays the same over restarts."""

    def __init__(self, log: Path) -> None:
        self.port = free_port()
        self.url = f"http://127.0.0.1:{self.port}"
        self._log = log
        self.start()

    def start(self) -> None:
        with self._log.open("a") as log:
            self._process = subprocess.Popen(
                [sys.executable, str(ROOT / "example_app.py")],
                cwd=ROOT,
                env={**os.environ, "PORT": str(self.port), "PYTHONUNBUFFERED": "1"},
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

    def freeze(self) -> None:
        """Stop it from doing anything; the system still takes what it is sent."""
        self._process.send_signal(signal.SIGSTOP)

    def kill(self) -> None:
        self._process.kill()
        self._process.wait(DEADLINE)

    def stop(self) -> None:
        self._process.terminate()
        try:
            self._process.wait(DEADLINE)
        except subprocess.TimeoutExpired:
            self._process.kill()
            self._process.wait()
            raise

    @property
    def log(self) -> str:
        return self._log.read_text()


class Person:
    """A browser without a screen: it keeps one cookie."""

    def __init__(self, server: DemoServer) -> None:
        self.server = server
        self.cookie = ""

    def http(
        self, method: str, path: str, form: dict[str, str] | None = None
    ) -> tuple[int, str]:
        """Return the answer's status and body; redirects are not followed."""
        connection = http.client.HTTPConnection(
            "127.0.0.1", self.server.port, timeout=DEADLINE
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
            f"ws://127.0.0.1:{person.server.port}{path}",
            additional_headers={"Cookie": person.cookie},
            compression=None,
            open_timeout=DEADLINE,
            close_timeout=DEADLINE,
            ping_interval=None,
        )
        # It wants to be a context manager, at once.
        self.client = client.__enter__()

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
        assert answer["error"]["code"] == "bad_type"
        return heard

    def close(self) -> None:
        self.client.close()
