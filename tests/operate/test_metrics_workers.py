"""The figures of several workers of gunicorn, as told by whichever is asked."""

from __future__ import annotations

import contextlib
import http.client
import os
import signal
import threading
import time
from collections import Counter
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from websockets.exceptions import InvalidStatus
from websockets.sync.client import ClientConnection

from tests.servers.serving import OUR_WORKER, STOCK_WORKER, Site, gunicorn_command
from tests.support.exposition import PAGE, values
from tests.support.ports import free_port
from tests.support.processes import Process
from tests.support.redis_server import RedisServer
from tests.support.waiting import LONG, eventually

APP = "tests.operate.counted:app"
WORKERS = 4
ROUNDS = 8


class Gunicorn(Process, Site):
    """Serves the application; files go to a temporary folder of its own."""

    def __init__(self, url: str, folder: Path, worker: str, *arguments: str) -> None:
        Site.__init__(self, free_port())
        command = gunicorn_command(worker, f"127.0.0.1:{self.port}", *arguments)
        command[2] = APP
        command += ["--workers", str(WORKERS)]
        forked = "plain"
        if worker == OUR_WORKER:
            forked = "patched"
            command += ["--config", "python:tests.processes.imports"]
        self.shared = folder / "shared"
        self.shared.mkdir()
        env = {"TEST_WSCHAT_URL": url, "TMPDIR": str(self.shared)}
        Process.__init__(self, command, folder / "log", env, forked=forked)

    def __enter__(self) -> Gunicorn:
        self.start()
        self.await_port(self.port)
        eventually(lambda: self.scrape()[1]["wschat_workers"] == WORKERS, seconds=LONG)
        return self

    def __exit__(self, *error: object) -> None:
        self.stop()

    def scrape(self) -> tuple[int, dict[str, float]]:
        """Return which process answered, and what."""
        connection = http.client.HTTPConnection("127.0.0.1", self.port, timeout=LONG)
        with contextlib.closing(connection):
            connection.request("GET", PAGE)
            answer = connection.getresponse()
            text = answer.read().decode()
        assert answer.status == 200, text
        return int(answer.headers["X-Pid"]), values(text)

    def scraped(self, workers: int = WORKERS) -> dict[str, float]:
        """Return what all workers tell, each of which tells the same."""
        found: dict[int, dict[str, float]] = {}
        for _ in range(500):
            pid, figures = self.scrape()
            # What is written at once.
            found[pid] = {
                name: value
                for name, value in figures.items()
                if name in ("wschat_workers", "wschat_connections", "wschat_backend_up")
                or "_total" in name
            }
            if len(found) == workers:
                break
        one, *others = found.values()
        for other in others:
            assert other == one
        assert one["wschat_workers"] == workers
        return one

    def files(self) -> list[Path]:
        return [path for path in self.shared.glob("wschat-*/*") if path.is_file()]

    def living(self) -> list[Path]:
        """Those of workers: whom others saw begin may have been added up as dead."""
        return [path for path in self.files() if "-" in path.name]


def refused(site: Site, path: str, **options: Any) -> int:
    """Return the status of a handshake that is refused."""
    with pytest.raises(InvalidStatus) as caught:
        site.connect(path, **options)
    return caught.value.response.status_code


@contextlib.contextmanager
def scraping(server: Gunicorn) -> Iterator[list[float]]:
    """Scrape all the time; yield the messages that were told of."""
    ended, seen = threading.Event(), [0.0]

    def scrape() -> None:
        while not ended.wait(0.01):
            seen.append(server.scrape()[1]["wschat_messages_sent_total"])

    thread = threading.Thread(target=scrape)
    thread.start()
    try:
        yield seen
    finally:
        ended.set()
        thread.join()


@pytest.mark.slow
@pytest.mark.timeout(120)
def test_sums_are_what_the_clients_have_counted(
    redis: RedisServer, tmp_path: Path
) -> None:
    with (
        Gunicorn(redis.url, tmp_path, OUR_WORKER) as server,
        contextlib.ExitStack() as s,
    ):
        pids: dict[ClientConnection, str] = {}
        listening: list[ClientConnection] = []
        told = Counter[str]()

        def connect(path: str) -> ClientConnection:
            client = server.connect(path)
            s.callback(client.close)
            pids[client] = str(client.recv(LONG))
            told.update(opened=1, out=1)
            return client

        while len(set(pids.values())) < WORKERS or len(pids) < 16:
            connect("/echo")
            listening.append(connect("/tell"))
            assert len(pids) < 200
        for path, options in (
            *[("/nothing", {})] * 3,
            *[("/echo", {"origin": "http://evil.example"})] * 2,
        ):
            status = refused(server, path, **options)
            told[f"refused {status}"] += 1

        with scraping(server) as seen:
            for number in range(ROUNDS):
                for client in pids:
                    client.send(f"{number}")
                    told.update({"in": 1})
                    if client not in listening:
                        assert client.recv(LONG) == f"{number}"
                        told.update(out=1)
            for client in listening:
                for _ in range(ROUNDS * len(listening)):
                    client.recv(LONG)
                    told.update(out=1, deliveries=1)
        told.update(published=ROUNDS * len(listening))
        assert told["deliveries"] == ROUNDS * len(listening) ** 2
        assert len(seen) > 1 and seen == sorted(seen)

        leaving = [client for client in pids if client not in listening][:3]
        for client in leaving:
            client.close()
            del pids[client]
        eventually(
            lambda: server.scrape()[1]["wschat_connections"] == len(pids), seconds=LONG
        )

        def is_told(found: dict[str, float], workers: int, connections: int) -> None:
            assert found["wschat_workers"] == workers
            assert found["wschat_connections"] == connections
            assert found["wschat_backend_up"] == 1
            assert found["wschat_connections_opened_total"] == told["opened"]
            assert found["wschat_connections_closed_total{code=1000}"] == len(leaving)
            assert found["wschat_messages_received_total"] == told["in"]
            assert found["wschat_messages_sent_total"] == told["out"]
            assert found["wschat_published_total"] == told["published"]
            assert found["wschat_deliveries_total"] == told["deliveries"]
            statuses = {
                name.partition("status=")[2][:-1]: count
                for name, count in found.items()
                if name.startswith("wschat_handshakes_refused_total") and count
            }
            assert statuses == {"404": 3, "403": 2}
            assert told["refused 404"] == 3 and told["refused 403"] == 2

        is_told(server.scraped(), WORKERS, len(pids))
        assert server.scrape()[1]["wschat_rooms"] <= WORKERS
        handled = server.scrape()[1]["wschat_handler_seconds_count"]
        assert handled == told["in"]

        victim = int(next(iter(pids.values())))
        left = [pid for pid in pids.values() if pid != str(victim)]
        os.kill(victim, signal.SIGKILL)
        begun = time.monotonic()
        eventually(
            lambda: server.scrape()[1]["wschat_connections"] == len(left), seconds=LONG
        )
        assert time.monotonic() - begun < 5
        eventually(
            lambda: server.scrape()[1]["wschat_workers"] == WORKERS, seconds=LONG
        )
        is_told(server.scraped(), WORKERS, len(left))
        # One for each worker, one for the dead, the lock.
        eventually(lambda: len(server.files()) == WORKERS + 2)


@pytest.mark.slow
@pytest.mark.timeout(60)
@pytest.mark.parametrize(
    "worker",
    [
        ("gthread", "--threads", "4", "--preload"),
        ("gevent", "--preload"),
        (STOCK_WORKER,),
    ],
    ids=" ".join,
)
def test_whatever_the_workers_are(
    redis: RedisServer, tmp_path: Path, worker: tuple[str, ...]
) -> None:
    """They are told of before anybody comes, and count together."""
    with Gunicorn(redis.url, tmp_path, *worker) as server:
        for _ in range(12):
            with server.connect("/echo") as client:
                client.recv(LONG)
                client.send("Hello")
                assert client.recv(LONG) == "Hello"
        name = "wschat_connections_closed_total{code=1000}"
        eventually(lambda: server.scrape()[1][name] == 12, seconds=LONG)
        figures = server.scrape()[1]
        assert figures["wschat_messages_received_total"] == 12
        assert figures["wschat_messages_sent_total"] == 24
        assert figures["wschat_connections"] == 0
        assert len(server.living()) == WORKERS


@pytest.mark.slow
@pytest.mark.timeout(60)
def test_workers_that_come_and_go_leave_what_they_counted_and_one_file(
    redis: RedisServer, tmp_path: Path
) -> None:
    arguments = ("sync", "--max-requests", "2")
    with Gunicorn(redis.url, tmp_path, *arguments) as server:
        begun = server.log.count("Booting worker")
        for _ in range(12):
            assert refused(server, "/nothing") == 404
        figures = server.scrape()[1]
        assert figures["wschat_handshakes_refused_total{status=404}"] == 12
        assert server.log.count("Booting worker") > begun + 3
        assert len(server.files()) <= 2 * WORKERS + 2
