"""What all processes of an application say when one asks."""

from __future__ import annotations

import contextlib
import json
import os
import time
from collections.abc import Iterator
from pathlib import Path

import pytest
from flask import Flask
from websockets.exceptions import ConnectionClosed
from websockets.sync.client import ClientConnection, connect

from flask_wschat import ChatListener, WSChat, operate
from flask_wschat.operate.reports import Reports
from tests.support.chat_client import ChatClient
from tests.support.live import Serve, stop
from tests.support.ports import free_port
from tests.support.processes import Process
from tests.support.redis_server import RedisServer
from tests.support.waiting import LONG, eventually


def reports_of(app: Flask) -> Reports:
    found: Reports = app.extensions["wschat.reports"]
    return found


def test_one_process_answers_itself(app: Flask, chat: WSChat, serve: Serve) -> None:
    chat.listener("/chat")(ChatListener)
    server = serve(app)
    with server.connect("/chat"), server.connect("/chat"):
        (figures,) = [answer.value for answer in reports_of(app).ask("stats")]
    assert figures["connections"] == 2
    assert figures["worker"].endswith(f":{os.getpid()}")


def open_at(url: str) -> ClientConnection:
    return connect(url, proxy=None).__enter__()


class Cluster:
    """Processes of the chat that share a storage, and an application that asks them."""

    def __init__(self, url: str, folder: Path, count: int = 2) -> None:
        self.ports = [free_port() for _ in range(count)]
        self.processes = [
            Process(
                ["tests/support/chat_server.py"],
                folder / f"log{port}",
                {"WSCHAT_URL": url, "PORT": str(port)},
                forked="patched",
            )
            for port in self.ports
        ]
        for process in self.processes:
            process.start()
        for process, port in zip(self.processes, self.ports, strict=True):
            process.await_port(port)
        self.app = Flask("asks")
        self.app.config["WSCHAT_URL"] = url
        self.chat = WSChat(self.app)
        self.reports = reports_of(self.app)

    @contextlib.contextmanager
    def people(self, *where: tuple[int, str, str]) -> Iterator[list[ChatClient]]:
        """Connect to a process's port, as a user, and be in rooms."""
        with contextlib.ExitStack() as stack:
            clients = []
            for index, user, rooms in where:
                url = f"ws://127.0.0.1:{self.ports[index]}/chat?user={user}"
                client = stack.enter_context(ChatClient(open_at(url)))
                for room in rooms.split():
                    client.ask("join", room=room)
                clients.append(client)
            yield clients

    def stop(self) -> None:
        stop(self.app)
        for process in self.processes:
            process.stop()


@pytest.fixture(scope="module")
def redis_of_all() -> Iterator[RedisServer]:
    with RedisServer() as server:
        yield server


@pytest.fixture(scope="module", params=["redis", "sqlite"])
def cluster(
    request: pytest.FixtureRequest,
    redis_of_all: RedisServer,
    tmp_path_factory: pytest.TempPathFactory,
) -> Iterator[Cluster]:
    folder = tmp_path_factory.mktemp("cluster")
    urls = {"redis": redis_of_all.url, "sqlite": f"sqlite:///{folder}/chat.db"}
    cluster = Cluster(urls[request.param], folder)
    yield cluster
    cluster.stop()


def pid_of(worker: str) -> int:
    return int(worker.rpartition(":")[2])


def test_idle_workers_answer_one_that_serves_nobody(cluster: Cluster) -> None:
    pids = {process.id for process in cluster.processes}

    def heard() -> set[int]:
        answers = cluster.reports.ask("stats", 0.2)
        assert all(answer.error is None for answer in answers)
        return {pid_of(answer.worker) for answer in answers}

    eventually(lambda: heard() == pids, seconds=LONG)
    # None of them is kept waiting by those who ask no more.
    assert not cluster.reports._asked


def test_who_is_where_in_all_processes(
    cluster: Cluster, monkeypatch: pytest.MonkeyPatch
) -> None:
    reports = cluster.reports
    with cluster.people(
        (0, "ann", "big middle \u0436\u4e2d\u0639"),
        (0, "ann", "big"),
        (0, "ben", "big middle"),
        (1, "ann", "small middle two"),
        (1, "zoe", "small two"),
        (1, "zoe", "small middle two"),
    ):
        rows = reports.rooms(wait=0.3)
        assert rows.total == 5
        assert [(r["name"], r["connections"], r["people"]) for r in rows.rows] == [
            ("middle", 4, 4),  # ann counts once in each process
            ("big", 3, 2),
            ("small", 3, 2),
            ("two", 3, 2),
            ("\u0436\u4e2d\u0639", 1, 1),
        ]
        # Each process has another one that is bigger there: they are asked again.
        monkeypatch.setattr(operate.reports, "DEPTH", 1)
        (first,) = reports.rooms(limit=1, wait=0.3).rows
        assert (first["name"], first["connections"]) == ("middle", 4)
        found = reports.rooms(prefix="s", wait=0.3).rows
        assert [row["name"] for row in found] == ["small"]
        found = reports.rooms(part="ID", wait=0.3).rows
        assert [row["name"] for row in found] == ["middle"]
        users = reports.users(wait=0.3)
        assert [(row["name"], row["connections"]) for row in users.rows] == [
            ("ann", 3),
            ("zoe", 2),
            ("ben", 1),
        ]

        connections = reports.connections("ann", wait=0.3)
        assert [row["since"] for row in connections] == sorted(
            row["since"] for row in connections
        )
        pids = [process.id for process in cluster.processes]
        assert [pid_of(row["worker"]) for row in connections] == [
            pids[0],
            pids[0],
            pids[1],
        ]
        here = connections[2]
        assert here["user"] == "ann" and here["route"] == "/chat"
        assert here["address"] == "127.0.0.1" and here["queued"] == 0
        assert here["rooms"] == ["middle", "small", "two"] and here["room_count"] == 3
        assert 0 <= time.time() - here["since"] < LONG
        assert reports.connections("nobody", wait=0.1) == []


def test_one_connection_is_closed_wherever_it_is(cluster: Cluster) -> None:
    with cluster.people((0, "ann", ""), (1, "ann", "")) as (first, second):
        old, young = cluster.reports.connections("ann", wait=0.3)
        began = time.monotonic()
        assert cluster.reports.kick(young["id"], 4001, "enough", wait=LONG)
        assert time.monotonic() - began < LONG  # it ends with the one that had it
        with pytest.raises(ConnectionClosed, match=r"4001.*enough"):
            second.expect("never")
        assert first.ask("ping")["ok"]
        assert not cluster.reports.kick("none has this", wait=0.1)
        with pytest.raises(ValueError, match="1006"):
            cluster.reports.kick(old["id"], 1006)


def test_figures_of_all_processes_are_added_up(cluster: Cluster) -> None:
    with cluster.people((0, "ann", "a"), (1, "ben", "a"), (1, "zoe", "b")) as clients:
        for client in clients:
            client.ask("ping")
        figures = cluster.chat.stats(everywhere=True, wait=0.3)
        workers, total = figures["workers"], figures["total"]
        assert sorted(each["connections"] for each in workers) == [1, 2]
        assert total["connections"] == 3
        for name in ("messages_in", "opened", "published"):
            assert total[name] == sum(each[name] for each in workers)
        count = total["handler_seconds"]["count"]
        assert count == sum(each["handler_seconds"]["count"] for each in workers)
        assert len({each["id"] for each in workers}) == 2
        assert json.loads(json.dumps(figures)) == figures
        assert cluster.chat.stats()["worker"].endswith(f":{os.getpid()}")


def test_nobody_answers_for_one_who_does_not_serve(cluster: Cluster) -> None:
    own = f":{os.getpid()}"
    found = cluster.chat.stats(everywhere=True, wait=0.2)["workers"]
    assert [each for each in found if each["worker"].endswith(own)] == []
