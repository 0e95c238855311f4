"""What stands still while a Redis takes connections and answers nothing."""

from __future__ import annotations

import contextlib
import json
import socket
import threading
import time
from collections.abc import Callable

from benchmarks.harness import Failed, Server, two_cores
from flask_wschat.client import connect
from tests.support.redis_server import RedisServer

from .verdicts import Part

BAR = 50.0
"""Milliseconds."""
PAUSE = 4.0
"""Seconds for which Redis hangs."""


class Probe(threading.Thread):
    """Does something over and over, and notes the longest time that it took."""

    def __init__(self, work: Callable[[], object]) -> None:
        super().__init__(daemon=True)
        self._work = work
        self._over = threading.Event()
        self.longest = 0.0
        self.count = 0
        self.fault: Exception | None = None

    def run(self) -> None:
        while not self._over.wait(0.005):
            began = time.monotonic()
            try:
                self._work()
            except Exception as error:
                self.fault = error
                return
            finally:
                self.longest = max(self.longest, time.monotonic() - began)
            self.count += 1

    def end(self) -> float | None:
        """Return the longest, in ms; None: it never came to an end."""
        self._over.set()
        self.join(10)
        return None if self.is_alive() or self.fault else 1000 * self.longest


def hung(rounds: int) -> Part:
    """What a hung Redis stops, beside what waits for it."""
    part = Part(
        f"Redis is stopped by SIGSTOP for {PAUSE:g} s, while a hundred clients say"
        " something in a room that it keeps. The longest time that something else"
        f" took meanwhile in the same process, the better of {rounds} tries: an echo,"
        " a page of the application; and, where the URL names two Redis, a `say` in"
        " a room that the other one keeps."
    )
    for pair in (False, True):
        tries = []
        for _ in range(rounds):
            try:
                tries.append(_tried(pair))
            except Failed as error:
                part.notes.append(f"two Redis by `redis://a,b`: {error}")
                tries.append({"another room": (None, 0)})
                break
        for name in tries[0]:
            times = [each[name] for each in tries]
            longest = min((ms for ms, _ in times if ms is not None), default=None)
            of = " (two Redis)" if pair else ""
            part.add(f"{name}{of}, longest", longest, BAR, "ms")
            part.notes.append(f"{name}{of}: {max(n for _, n in times)} in all")
    return part


def _tried(pair: bool) -> dict[str, tuple[float | None, int]]:
    with contextlib.ExitStack() as stack:
        servers = [stack.enter_context(RedisServer()) for _ in range(2 if pair else 1)]
        hosts = ",".join(f"127.0.0.1:{each.port}" for each in servers)
        environment = {"WSCHAT_URL": f"redis://{hosts}"}
        server = Server("wschat", two_cores()[0], environment=environment)
        stack.enter_context(server)
        address = f"ws://127.0.0.1:{server.port}"
        rooms = [_room_on(each, address) for each in servers]
        echo = stack.enter_context(connect(f"{address}/echo", compression=False))
        page = socket.create_connection(("127.0.0.1", server.port), 10)
        stack.callback(page.close)
        work: dict[str, Callable[[], object]] = {
            "an echo": lambda: _echoed(echo),
            "a page": lambda: _page(page),
        }
        if pair:
            other = Talker(stack, address, "other", rooms[1])
            work = {"another room": lambda: other.say(5.0), **work}
        talkers = [Talker(stack, address, f"u{n}", rooms[0]) for n in range(100)]
        for each in work.values():
            each()
        for talker in talkers:
            talker.send()
        probes = {name: Probe(each) for name, each in work.items()}
        servers[0].pause()
        try:
            for probe in probes.values():
                probe.start()
            until = time.monotonic() + PAUSE
            while time.monotonic() < until:
                for talker in talkers:
                    talker.send()
                    time.sleep(0.005)
        finally:
            found = {name: (probe.end(), probe.count) for name, probe in probes.items()}
            servers[0].resume()
        return found


def _echoed(client: object) -> None:
    client.send("x")  # type: ignore[attr-defined]
    client.receive(10)  # type: ignore[attr-defined]


def _page(sock: socket.socket) -> None:
    sock.sendall(b"GET /hello HTTP/1.1\r\nHost: 127.0.0.1\r\n\r\n")
    answer = b""
    while b"Hello." not in answer:
        data = sock.recv(65536)
        if not data:
            raise EOFError("the page ended")
        answer += data


class Talker:
    """A client in one room."""

    def __init__(
        self, stack: contextlib.ExitStack, address: str, user: str, room: str
    ) -> None:
        self._room = room
        self._user = user
        url = f"{address}/chat?user={user}"
        self._client = stack.enter_context(connect(url, compression=False))
        self._ref = 0
        self._ask("join")
        self._wait(10)

    def _ask(self, kind: str, **fields: object) -> None:
        self._ref += 1
        request = {"type": kind, "ref": self._ref, "room": self._room, **fields}
        self._client.send(json.dumps(request))

    def send(self) -> None:
        self._ask("say", data="x", mid=f"{self._user}-{self._ref}")

    def say(self, seconds: float) -> None:
        self.send()
        self._wait(seconds)

    def _wait(self, seconds: float) -> None:
        until = time.monotonic() + seconds
        while True:
            text = self._client.receive(max(until - time.monotonic(), 0.001))
            message = json.loads(text)
            if message.get("ref") == self._ref:
                if not message["ok"]:
                    raise ValueError(message["error"])
                return


def _room_on(redis: RedisServer, address: str) -> str:
    """Return a room that this Redis keeps."""
    with redis.client() as client:
        for number in range(64):
            room = f"room {number}"
            with contextlib.ExitStack() as stack:
                Talker(stack, address, f"seeker-{number}", room).say(10)
                if any(room.encode() in key for key in client.scan_iter()):
                    return room
    raise Failed("no room is kept there")
