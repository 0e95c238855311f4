"""Many rooms in one process: what each one costs, the first and the last."""

from __future__ import annotations

import contextlib
import json
import statistics
import tempfile
import time
import urllib.request
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path

from benchmarks.harness import (
    ROOT,
    Failed,
    Server,
    cpu_seconds,
    memory_bytes,
    redis_server,
    two_cores,
)
from benchmarks.measure import wait_until_quiet
from flask_wschat.client import Client, connect

ROOMS, JOINS, CLIENTS = 100_000, 10_000, 100
TENTHS = 10
FLAT = 1.5
"""How much more CPU the last ones may cost than the first: times."""


@dataclass
class Place:
    """A server, and what it keeps elsewhere."""

    server: Server
    elsewhere: Callable[[], int]
    pids: list[int]

    def cpu(self) -> float:
        return sum(map(cpu_seconds, self.pids))


@contextlib.contextmanager
def place(backend: str) -> Iterator[Place]:
    """Yield a fresh server with a backend of its own."""
    core, other = two_cores()
    with (
        tempfile.TemporaryDirectory(dir=ROOT / "build") as folder,
        contextlib.ExitStack() as stack,
    ):
        pids: list[int] = []
        url, elsewhere = backend, _nothing
        if backend.startswith("redis"):
            redis, url = stack.enter_context(redis_server(other))
            pids.append(redis)

            def elsewhere() -> int:
                return memory_bytes(redis)
        elif backend.startswith("sqlite"):
            url = f"sqlite:///{folder}/chat.db"

            def elsewhere() -> int:
                return sum(each.stat().st_size for each in Path(folder).iterdir())

        server = Server("wschat", core, environment={"WSCHAT_URL": url})
        stack.enter_context(server)
        yield Place(server, elsewhere, [*pids, server.pid])


def _nothing() -> int:
    return 0


def joined_and_filled(backend: str) -> tuple[list[str], bool]:
    """Return a row of the table, and whether the last cost as little as the first."""
    with place(backend) as here:
        _fill(here.server, ROOMS, 100)  # what is imported and allocated once
        filling, kept, beside = _measured(
            here, ROOMS, lambda first, count: _fill(here.server, first, count)
        )
        with contextlib.ExitStack() as stack:
            address = f"ws://127.0.0.1:{here.server.port}/rooms"
            clients = [
                stack.enter_context(connect(f"{address}?user=u{i}", compression=False))
                for i in range(CLIENTS)
            ]
            for number, client in enumerate(clients):
                _join(client, ROOMS + number)
            started = time.monotonic()

            def join(first: int, count: int) -> None:
                for number in range(first, first + count):
                    _join(clients[number % CLIENTS], number)

            joining, held, _ = _measured(here, JOINS, join)
            wall = (time.monotonic() - started) / JOINS
    flat = filling[-1] <= FLAT * filling[0] and joining[-1] <= FLAT * joining[0]
    return [
        backend,
        f"{filling[0]:.0f}",
        f"{filling[-1]:.0f}",
        f"{kept:.2f}",
        f"{beside:.2f}" if beside else "",
        f"{joining[0]:.0f}",
        f"{joining[-1]:.0f}",
        f"{wall * 1000:.2f}",
        f"{held:.2f}",
        "pass" if flat else "FAIL",
    ], flat


def _measured(
    here: Place, count: int, work: Callable[[int, int], object]
) -> tuple[list[float], float, float]:
    """Do ``work`` in tenths; return what it cost, and the KiB, here and there.

    The cost is the CPU in µs of the first three and of the last three, by their
    medians: the collector's pass over all there is falls into one of them.
    """
    wait_until_quiet(here.server)
    memory, elsewhere = memory_bytes(here.server.pid), here.elsewhere()
    costs, tenth = [], count // TENTHS
    for number in range(TENTHS):
        used = here.cpu()
        work(number * tenth, tenth)
        costs.append((here.cpu() - used) / tenth * 1e6)
    wait_until_quiet(here.server)
    grown = memory_bytes(here.server.pid) - memory
    costs = [statistics.median(costs[:3]), statistics.median(costs[-3:])]
    return costs, grown / count / 1024, (here.elsewhere() - elsewhere) / count / 1024


def _fill(server: Server, first: int, count: int) -> None:
    url = f"http://127.0.0.1:{server.port}/fill/{first}/{count}"
    with urllib.request.urlopen(url, timeout=120) as response:
        response.read()


def _join(client: Client, number: int) -> None:
    """Join a room and wait for the reply."""
    client.send(json.dumps({"type": "join", "ref": number, "room": f"room {number}"}))
    while True:
        answer = json.loads(client.receive(30))
        if answer["type"] == "reply":
            if not answer["ok"]:
                raise Failed(f"not joined: {answer['error']}")
            return
