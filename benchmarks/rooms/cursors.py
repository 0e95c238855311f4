"""How long the cursors of a few people take to each other."""

from __future__ import annotations

import contextlib
import json
import select
import socket
import statistics
import time

from benchmarks.harness import Server, cpu_seconds, two_cores
from flask_wschat.codec import Connection
from tests.support.redis_server import RedisServer

from .costs import MEMORY, REDIS
from .verdicts import Part

PEOPLE, RATE = 12, 30
SECONDS = 5.0
BARS = {MEMORY: 20.0, REDIS: 40.0}
"""Milliseconds, for the slowest one in a hundred."""


class _Person:
    """One who moves a cursor, and sees those of the others."""

    def __init__(self, port: int, number: int) -> None:
        self.sock = socket.create_connection(("127.0.0.1", port))
        self.sock.sendall(
            f"GET /board/a?user={number} HTTP/1.1\r\nHost: 127.0.0.1\r\n"
            "Upgrade: websocket\r\nConnection: Upgrade\r\nSec-WebSocket-Version: 13\r\n"
            "Sec-WebSocket-Key: AAAAAAAAAAAAAAAAAAAAAA==\r\n\r\n".encode()
        )
        head = b""
        while b"\r\n\r\n" not in head:
            head += self.sock.recv(65536)
        self.codec = Connection(client=True)
        self.take(head.partition(b"\r\n\r\n")[2])
        self.due = 0.0

    def move(self, now: float) -> None:
        request = {"type": "point", "ref": 1, "at": now, "x": 0.5, "y": 0.25}
        self.sock.sendall(self.codec.send(json.dumps(request)))

    def take(self, data: bytes) -> list[float]:
        """Return when what came was sent."""
        events = [json.loads(str(e)) for e in self.codec.receive_data(data)]
        return [e["at"] for e in events if e["type"] == "pointed"]


def _delays(people: list[_Person]) -> list[float]:
    """Return how many milliseconds each cursor took to each of the others."""
    poll = select.epoll()
    for person in people:
        poll.register(person.sock, select.EPOLLIN)
    by_number = {person.sock.fileno(): person for person in people}
    delays: list[float] = []
    begun = time.monotonic() + 0.5
    for number, person in enumerate(people):
        person.due = begun + number / len(people) / RATE
    while (now := time.monotonic()) < begun + SECONDS + 0.5:
        for person in people:
            if person.due <= now < begun + SECONDS:
                person.move(now)
                person.due += 1 / RATE
        next_due = min(person.due for person in people)
        for number, _ in poll.poll(max(next_due - time.monotonic(), 0.001)):
            sent = by_number[number].take(by_number[number].sock.recv(1 << 18))
            now = time.monotonic()
            delays += [(now - at) * 1e3 for at in sent]
    return delays


def cursors() -> Part:
    part = Part(
        f"{PEOPLE} people in a room, each of whom tells the others {RATE} times a"
        " second where the cursor is, by an event that emits with a `key`; one server"
        " in memory, two that share a Redis. From before it is sent until it is read."
    )
    for url, bar in BARS.items():
        with contextlib.ExitStack() as stack:
            redis = stack.enter_context(RedisServer()) if url == REDIS else None
            where = {"WSCHAT_URL": url if redis is None else redis.url}
            servers = [
                stack.enter_context(Server("wschat", two_cores()[0], environment=where))
                for _ in range(1 if redis is None else 2)
            ]
            people = []
            for number in range(PEOPLE):
                port = servers[number % len(servers)].port
                people.append(_Person(port, number))
                stack.callback(people[-1].sock.close)
            before = sum(cpu_seconds(server.pid) for server in servers)
            delays = sorted(_delays(people))
            cpu = sum(cpu_seconds(server.pid) for server in servers) - before
            name = "memory" if redis is None else "Redis"
            part.add(f"{name}: median", statistics.median(delays), None, "ms")
            part.add(f"{name}: p99", delays[len(delays) * 99 // 100], bar, "ms")
            part.add(f"{name}: servers' CPU", 100 * cpu / SECONDS, None, "% of a core")
            expected = PEOPLE * (PEOPLE - 1) * RATE * SECONDS
            part.add(f"{name}: seen", len(delays) / expected, 0.95, least=True)
            if redis is not None:
                with redis.client() as client:
                    kept = [*client.scan_iter("*:log"), *client.scan_iter("*:mids*")]
                part.add(f"{name}: keys with messages", len(kept), 0)
    return part
