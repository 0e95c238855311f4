"""Each kind of backend, and processes for it to serve."""

from __future__ import annotations

import atexit
import contextlib
import sqlite3
import tempfile
import threading
from collections.abc import Callable, Iterable
from pathlib import Path
from typing import Any, ClassVar, Protocol, TypeVar

from flask_wschat.backends import Backend
from flask_wschat.backends import open as open_backend
from flask_wschat.backends.memory import MemoryBackend
from flask_wschat.backends.redis import RedisBackend, RedisRing
from flask_wschat.backends.redis.slots import slot_of
from flask_wschat.backends.sqlite.backend import SQLiteBackend
from flask_wschat.messages import Delivery
from tests.support.processes import Process
from tests.support.redis_cluster import RedisCluster
from tests.support.redis_server import RedisServer
from tests.support.waiting import DEADLINE

T = TypeVar("T")
AnyBackend = TypeVar("AnyBackend", bound=Backend)


class RecordingHost:
    """A process without connections, that notes what reaches it."""

    def __init__(self) -> None:
        self.deliveries: list[Delivery] = []
        self.losses: list[list[str] | None] = []
        self.changed = threading.Condition()

    def deliver(self, delivery: Delivery) -> None:
        with self.changed:
            self.deliveries.append(delivery)
            self.changed.notify_all()

    def made(self, topic: str, epoch: str) -> None:
        pass

    def lost(self, topics: Iterable[str] | None) -> None:
        with self.changed:
            self.losses.append(None if topics is None else list(topics))
            self.changed.notify_all()

    def run_blocking(self, function: Callable[[], T]) -> T:
        return function()

    def event(self) -> threading.Event:
        return threading.Event()

    def start_thread(self, function: Callable[[], None]) -> None:
        threading.Thread(target=function, daemon=True).start()

    def wait_for(self, condition: Callable[[], Any]) -> None:
        """Wait until ``condition``, asked at each change, holds; fail after a time."""
        with self.changed:
            assert self.changed.wait_for(condition, DEADLINE), self.deliveries[-5:]

    def wait_for_count(self, count: int) -> list[Delivery]:
        """Return what was delivered, ``count`` at least; fail after a time."""
        self.wait_for(lambda: len(self.deliveries) >= count)
        return list(self.deliveries)

    def data(self, topic: str) -> list[str | bytes]:
        """Return what was delivered in ``topic``, in order."""
        return [d.message.data for d in list(self.deliveries) if d.topic == topic]


class Begin(Protocol):
    """See the fixture ``begin``."""

    def __call__(self, backend: AnyBackend) -> tuple[AnyBackend, RecordingHost]: ...


PROGRAMS = [
    "fork",
    "patched",
    "patched_end",
    "patched_fork",
    "patched_threads",
    "evented",
]
"""Those of programs.py."""


def run_program(name: str, url: str) -> None:
    """Run one of them with the backend at ``url``; fail if it does."""
    program = Path(__file__).with_name("programs.py")
    kind = "patched" if name.startswith("patched") else "plain"
    with tempfile.TemporaryDirectory() as folder:
        log = Path(folder, "log")
        process = Process([str(program), name, url], log, forked=kind)
        process.start()
        assert (process.wait(), process.log) == (0, "fine\n")


Start = Callable[..., tuple[SQLiteBackend, RecordingHost]]
"""One more process on a test's SQLite file: see the fixture ``start``."""


class Store(Protocol):
    """A kind of backend: what its instances share is made with it, fresh."""

    shared: bool
    """Whether several instances, as of several processes, have the same data."""

    def __init__(self, folder: Path) -> None: ...

    def make(
        self, *, size: int, max_bytes: int, ttl: float, presence_ttl: float
    ) -> Backend:
        """Return a new instance, not started."""

    def topics(self, backend: Backend) -> set[str]:
        """Return the topics of which anything at all is stored."""

    def tellers(self, backend: Backend, topic: str) -> int:
        """Return of how many it is stored what they told."""

    def close(self) -> None:
        """Undo what making it began; every instance is stopped by then."""


class MemoryStore:
    shared = False

    def __init__(self, folder: Path) -> None:
        pass

    def make(self, *, linger: float = 0.0, **options: Any) -> Backend:
        return MemoryBackend(**options)

    def topics(self, backend: Any) -> set[str]:
        parts = (backend._topics, backend._idle, backend._ended, backend._claimed)
        return {*backend._claimed_before, *(name for part in parts for name in part)}

    def tellers(self, backend: Any, topic: str) -> int:
        return len(backend._topics[topic].told)

    def close(self) -> None:
        pass


class SQLiteStore:
    shared = True

    def __init__(self, folder: Path) -> None:
        self.path = folder / "chat.db"

    def make(self, **options: Any) -> Backend:
        return SQLiteBackend(self.path, **options)

    def topics(self, backend: Backend) -> set[str]:
        with contextlib.closing(sqlite3.connect(self.path)) as db:
            found = db.execute("SELECT name FROM topics UNION SELECT topic FROM mids")
            return {name for (name,) in found}

    def tellers(self, backend: Backend, topic: str) -> int:
        with contextlib.closing(sqlite3.connect(self.path)) as db:
            question = "SELECT count(*) FROM told WHERE topic = ?"
            return int(db.execute(question, (topic,)).fetchone()[0])

    def close(self) -> None:
        pass


class RedisStore:
    shared = True

    def __init__(self, folder: Path) -> None:
        self.server = RedisServer()
        self.server.start()

    def make(self, *, linger: float = 0.0, **options: Any) -> Backend:
        return RedisBackend(self.server.url, **options)

    def topics(self, backend: Backend) -> set[str]:
        return _topics(self.server)

    def tellers(self, backend: Backend, topic: str) -> int:
        with self.server.client() as client:
            return int(client.hlen(f"wschat:{{{topic}}}:told"))

    def close(self) -> None:
        self.server.stop()


class RingStore:
    """Two Redis, whose data go and which stay for the next test."""

    shared = True
    servers: ClassVar[list[RedisServer]] = []

    def __init__(self, folder: Path) -> None:
        while len(self.servers) < 2:
            server = RedisServer()
            server.start()
            atexit.register(server.stop)
            self.servers.append(server)
        for server in self.servers:
            with server.client() as client:
                client.flushall()

    def make(self, *, linger: float = 0.0, **options: Any) -> Backend:
        hosts = ",".join(f"127.0.0.1:{server.port}" for server in self.servers)
        backend = open_backend(f"redis://{hosts}/0", **options)
        assert isinstance(backend, RedisRing)
        return backend

    def topics(self, backend: Backend) -> set[str]:
        return set().union(*(_topics(server) for server in self.servers))

    def tellers(self, backend: Backend, topic: str) -> int:
        counts = []
        for server in self.servers:
            with server.client() as client:
                counts.append(int(client.hlen(f"wschat:{{{topic}}}:told")))
        return sum(counts)

    def close(self) -> None:
        pass


class ClusterStore:
    """A cluster, whose data go and which stays for the next test."""

    shared = True
    nodes: ClassVar[RedisCluster | None] = None

    def __init__(self, folder: Path) -> None:
        if self.nodes is None:
            started = RedisCluster(replicas=0)
            started.start()
            atexit.register(started.stop)
            ClusterStore.nodes = started
        assert self.nodes is not None
        self.url, self.servers = self.nodes.url, self.nodes.servers
        for server in self.servers:
            with server.client() as client:
                client.flushall()

    def make(self, *, linger: float = 0.0, **options: Any) -> Backend:
        return open_backend(self.url, **options)

    def topics(self, backend: Backend) -> set[str]:
        return set().union(*(_topics(server) for server in self.servers))

    def tellers(self, backend: Backend, topic: str) -> int:
        assert self.nodes is not None
        key = f"wschat:{{{topic}}}:told"
        with self.nodes.primary_of(slot_of(key)).client() as client:
            return int(client.hlen(key))

    def close(self) -> None:
        pass


def _topics(server: RedisServer) -> set[str]:
    with server.client() as client:
        keys = [key.decode() for key in client.scan_iter()]
    names = {key.split("{", 1)[1].rpartition("}")[0] for key in keys}
    return {name for name in names if not name.startswith("presence")}


STORES: list[type[Store]] = [
    MemoryStore,
    SQLiteStore,
    RedisStore,
    RingStore,
    ClusterStore,
]
"""A new backend is added here, and nowhere else."""

GROWING: list[type[Store]] = STORES
"""Those in which messages grow."""


class Cluster:
    """Instances of one kind of backend over one store, each with its own process."""

    def __init__(self, store: Store) -> None:
        self.store = store
        self.options = {
            "size": 5,
            "max_bytes": 1_000_000,
            "ttl": 3600.0,
            "presence_ttl": 60.0,
        }
        self._started: list[Backend] = []

    def start(self, **options: Any) -> tuple[Backend, RecordingHost]:
        """Return one more process's backend, and that process."""
        backend = self.store.make(**(self.options | options))
        host = RecordingHost()
        backend.start(host)
        self._started.append(backend)
        return backend, host

    def close(self) -> None:
        for backend in self._started:
            backend.stop()
        self.store.close()
