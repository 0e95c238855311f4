"""What all processes of an application say when one asks."""

from __future__ import annotations

import os
from collections.abc import Iterator
from pathlib import Path

import pytest
from flask import Flask

from flask_wschat import ChatListener, WSChat
from flask_wschat.operate.reports import Reports
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


def test_idle_workers_answer_one_that_serves_nobody(cluster: Cluster) -> None:
    pids = {process.id for process in cluster.processes}

    def heard() -> set[int]:
        answers = cluster.reports.ask("stats", 0.2)
        assert all(answer.error is None for answer in answers)
        return {int(answer.worker.rpartition(":")[2]) for answer in answers}

    eventually(lambda: heard() == pids, seconds=LONG)
