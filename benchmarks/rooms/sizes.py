"""What each thing takes that a backend keeps, and what fifty workers would do."""

from __future__ import annotations

import contextlib
import gc
import sqlite3
import statistics
import tempfile
import threading
import time
import tracemalloc
from collections.abc import Callable, Iterable, Iterator
from pathlib import Path
from typing import Any, TypeVar

from benchmarks.harness import ROOT, cpu_seconds
from flask_wschat.backends import Backend
from flask_wschat.backends import open as open_backend
from flask_wschat.messages import Delivery, Message, Receipt
from tests.support.redis_server import RedisServer
from tests.support.waiting import LONG, eventually

from .verdicts import Part

T = TypeVar("T")

MEMORY, SQLITE, REDIS = "memory", "SQLite", "Redis"
OPTIONS: dict[str, Any] = {
    "size": 256,
    "max_bytes": 1 << 20,
    "ttl": 86_400.0,
    "presence_ttl": 45.0,
}
"""As ``WSCHAT_*`` have it where nothing else is said."""
DATA = '"' + "x" * 62 + '"'
"""What a ``say`` of 62 letters is stored as."""
COUNT = 10_000
WORKERS, SAYS = 50, 2000
"""Of the simulation: processes, and messages."""
CHUNK = 1000


class Host:
    """A process without connections, that counts what reaches it."""

    def __init__(self) -> None:
        self.count = 0

    def deliver(self, delivery: Delivery) -> None:
        self.count += 1

    def made(self, topic: str, epoch: str) -> None:
        pass

    def lost(self, topics: Iterable[str] | None) -> None:
        pass

    def run_blocking(self, function: Callable[[], T]) -> T:
        return function()

    def event(self) -> threading.Event:
        return threading.Event()

    def start_thread(self, function: Callable[[], None]) -> None:
        threading.Thread(target=function, daemon=True).start()


@contextlib.contextmanager
def kept(kind: str) -> Iterator[tuple[Backend, Callable[[], int]]]:
    """Yield a backend, and what returns how many bytes its storage has in use."""
    with (
        tempfile.TemporaryDirectory(dir=ROOT / "build") as folder,
        contextlib.ExitStack() as stack,
    ):
        place = Path(folder) / "chat.db"
        if kind == MEMORY:
            tracemalloc.start()
            stack.callback(tracemalloc.stop)
            backend = open_backend("memory://", **OPTIONS)
            used = _traced
        elif kind == SQLITE:
            backend = open_backend(f"sqlite:///{place}", **OPTIONS)

            def used() -> int:
                with contextlib.closing(sqlite3.connect(place)) as db:
                    numbers = [
                        db.execute(f"PRAGMA {name}").fetchone()[0]
                        for name in ("page_count", "freelist_count", "page_size")
                    ]
                return int((numbers[0] - numbers[1]) * numbers[2])
        else:
            redis = stack.enter_context(RedisServer("stream-node-max-bytes 512"))
            client = stack.enter_context(redis.client())
            backend = open_backend(redis.url, **OPTIONS)

            def used() -> int:
                return int(client.info("memory")["used_memory"])

        backend.start(Host())
        stack.callback(backend.stop)
        yield backend, used


def _traced() -> int:
    gc.collect()
    return tracemalloc.get_traced_memory()[0]


def _submitted(backend: Backend, messages: Iterable[tuple[str, Message]]) -> None:
    """Store all of them, a thousand under way."""
    free, faults = threading.Semaphore(CHUNK), list[Exception]()

    def done(outcome: Receipt | Exception) -> None:
        if isinstance(outcome, Exception):
            faults.append(outcome)
        free.release()

    for topic, message in messages:
        free.acquire()
        backend.submit(topic, message, done, keep=True)
    for _ in range(CHUNK):
        free.acquire()
    if faults:
        raise faults[0]


def _said(number: int) -> Message:
    user = f"user-{number % 100:04}"
    return Message(DATA, sender=user, mid=f"{number:012x}", event="say")


def _messages(backend: Backend) -> None:
    """256 in each of some rooms: as many as are kept."""
    rooms = COUNT // 256
    _submitted(backend, ((f"room:r{n % rooms}", _said(n)) for n in range(rooms * 256)))


def _mids(backend: Backend) -> None:
    """Many more than are kept, in one room."""
    _submitted(backend, (("room:r", _said(n)) for n in range(COUNT + 256)))


def _rooms(backend: Backend) -> None:
    _submitted(backend, ((f"room:number-{n}", _said(n)) for n in range(COUNT)))


def _looks(backend: Backend) -> None:
    for number in range(COUNT):
        backend.history(f"room:number-{number}")


def _users(backend: Backend) -> None:
    for start in range(0, COUNT, CHUNK):
        backend.attend(
            [("room:r", f"user-{n:06}", 1) for n in range(start, start + CHUNK)]
        )


def _places(backend: Backend) -> None:
    for start in range(0, COUNT, CHUNK):
        backend.attend(
            [(f"room:r{n}", "user-000001", 1) for n in range(start, start + CHUNK)]
        )


def _votes(backend: Backend) -> None:
    for number in range(COUNT // 10):
        backend.vote("Biscuits", f"user-{number:06}", "Ginger")


THINGS: dict[str, tuple[Callable[[Backend], None], int]] = {
    "a message of 64 B, of 256 that a room keeps": (_messages, COUNT // 256 * 256),
    "a room with one message": (_rooms, COUNT),
    "a message that is kept no more, for its `mid`": (_mids, COUNT),
    "a room that was only looked at": (_looks, COUNT),
    "a user in a room of 10,000": (_users, COUNT),
    "a room with one user in it": (_places, COUNT),
    "a vote": (_votes, COUNT // 10),
}


def sizes() -> Part:
    part = Part(
        f"Bytes that {COUNT:,} of each take in a fresh storage, each. Redis: its"
        " `used_memory`, with `stream-node-max-bytes 512`; SQLite: pages in"
        " use, with the log's rows, which go after some seconds; memory: what Python"
        " allocates for it."
    )
    for name, (fill, count) in THINGS.items():
        for kind in (MEMORY, SQLITE, REDIS):
            with kept(kind) as (backend, used):
                _submitted(backend, [("room:first", _said(0))])
                before = used()
                fill(backend)
                part.add(f"{name}: {kind}", (used() - before) / count, None, "B")
    return part


def fifty(each: int) -> Part:
    """Many processes' backends in one: what that costs Redis, and each of them."""
    part = Part(
        f"{WORKERS} processes with {each:,} members each, all in one room, simulated:"
        f" {WORKERS} backends with connections of their own in one process, without"
        " the members' own connections. CPU of redis-server, and of a process for"
        f" each of {SAYS:,} messages that reach all of them."
    )
    with RedisServer() as redis, contextlib.ExitStack() as stack:
        hosts, backends = [Host() for _ in range(WORKERS)], []
        for host in hosts:
            backend = open_backend(redis.url, **OPTIONS)
            backend.start(host)
            stack.callback(backend.stop)
            backends.append(backend)

        def measured(work: Callable[[], object]) -> tuple[float, float]:
            """Return the CPU seconds of Redis, and of all backends."""
            before = cpu_seconds(redis.pid), time.process_time()
            work()
            return cpu_seconds(redis.pid) - before[0], time.process_time() - before[1]

        def enter() -> None:
            for number, backend in enumerate(backends):
                for start in range(0, each, CHUNK):
                    backend.attend(
                        [
                            ("room:r", f"user-{number:03}-{n:05}", 1)
                            for n in range(start, start + CHUNK)
                        ]
                    )

        with redis.client() as client:
            empty = int(client.info("memory")["used_memory"])
            theirs, ours = measured(enter)
            memory = int(client.info("memory")["used_memory"]) - empty
        people = WORKERS * each
        part.add("a user comes: redis-server", theirs / people * 1e6, None, "µs")
        part.add("a user comes: its process", ours / people * 1e6, None, "µs")
        part.add("all users: memory of Redis", memory / 2**20, None, "MiB")
        rounds = 3
        theirs, ours = measured(
            lambda: [backend.refresh() for _ in range(rounds) for backend in backends]
        )
        part.add(
            "all processes say that they live: redis-server",
            theirs / rounds * 1e3,
            None,
            "ms",
        )
        theirs, ours = measured(lambda: backends[0].present("room:r"))
        part.add("who is there, read once: redis-server", theirs * 1e3, None, "ms")
        part.add("who is there, read once: the process", ours * 1e3, None, "ms")
        for backend in backends:
            backend.subscribe(["room:r"])
        for title, subscribers in (("one process", 1), (f"{WORKERS} processes", 0)):
            if subscribers:
                for backend in backends[1:]:
                    backend.unsubscribe(["room:r"])
            else:
                for backend in backends:
                    backend.subscribe(["room:r"])
            _publications(part, title, backends, hosts, measured)
    return part


def _publications(
    part: Part,
    title: str,
    backends: list[Backend],
    hosts: list[Host],
    measured: Callable[[Callable[[], object]], tuple[float, float]],
) -> None:
    """Add what a message costs Redis that goes to some processes: alone, and many."""
    hears = len(hosts) if title[0] != "o" else 1
    numbers = iter(range(1 << 30))
    for how, count in (("alone", SAYS // 4), ("many under way", SAYS)):
        costs = []
        for turn in range(3):
            before = sum(host.count for host in hosts[:hears])

            def publish(turn: int = turn, before: int = before) -> None:
                messages = (
                    (
                        "room:r",
                        Message(DATA, sender="ann", mid=f"{title}-{next(numbers)}"),
                    )
                    for _ in range(count)  # noqa: B023
                )
                if how == "alone":  # noqa: B023
                    for topic, message in messages:
                        backends[0].publish(topic, message, keep=True)
                else:
                    _submitted(backends[0], messages)
                whole = before + count * hears  # noqa: B023
                eventually(
                    lambda: sum(host.count for host in hosts[:hears]) >= whole,
                    seconds=LONG,
                )

            costs.append(measured(publish))
        theirs = statistics.median(cost for cost, _ in costs) / count * 1e6
        ours = statistics.median(cost for _, cost in costs) / count / hears * 1e6
        part.add(f"a message to {title}, {how}: redis-server", theirs, None, "µs")
        part.add(f"a message to {title}, {how}: each process", ours, None, "µs")
