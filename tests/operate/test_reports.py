"""What all processes of an application say when one asks."""

from __future__ import annotations

import contextlib
import json
import os
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from flask import Flask
from websockets.exceptions import ConnectionClosed
from websockets.sync.client import ClientConnection, connect

from flask_wschat import ChatListener, WebSocket, WSChat, operate
from flask_wschat.hub.figures import Figures, add_up
from flask_wschat.messages import OPERATE, Message
from flask_wschat.operate import here
from flask_wschat.operate.rates import COUNTERS, Rates, added
from flask_wschat.operate.reports import GONE, PULSE, Reports
from tests.support.chat_client import ChatClient
from tests.support.live import Serve, receive, stop
from tests.support.ports import free_port
from tests.support.processes import Process
from tests.support.redis_cluster import RedisCluster
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


def test_what_is_no_question_or_answer_of_ours_is_left_alone(cluster: Cluster) -> None:
    """Another version says more, somebody else anything."""
    reports, hub = cluster.reports, cluster.app.extensions["wschat.hub"]
    reports.ask("stats", 0)  # it listens to answers from now on
    whole = {"ask": "stats", "id": "x", "to": reports.id, "fields": {}, "new": [1]}
    wrong = [{**whole, key: [1]} for key in ("ask", "id", "to", "fields")]
    texts = ["", "{", "[]", "[" * 100_000, '{"ask": NaN}', "null", "5"]
    said = [*texts, *map(json.dumps, [{}, {"ask": 1}, {**whole, "to": "a b"}, *wrong])]
    answers = [{"to": 1}, {"to": "none"}, {"to": "x", "id": 1, "worker": 2}]
    for text in [*said, *map(json.dumps, answers)]:
        for topic in (OPERATE, f"{OPERATE}:{reports.id}"):
            hub.backend.publish(topic, Message(text, json=True, event=OPERATE))
    hub.backend.publish(OPERATE, Message(b"\xff", event=OPERATE))
    eventually(lambda: len(reports.ask("stats", 0.2)) == 2, seconds=LONG)
    found = reports.ask("of tomorrow", 0.2, enough=lambda answers: len(answers) == 2)
    assert {answer.error for answer in found} == {
        "this version has no answer to 'of tomorrow'"
    }
    for process in cluster.processes:
        assert "Traceback" not in process.log


@pytest.mark.parametrize("cluster", ["redis"], indirect=True)
def test_two_applications_of_one_process_are_two(
    cluster: Cluster, serve: Serve
) -> None:
    """And one that nobody connected to serves, once it is asked whether it may."""
    apps = [Flask("one"), Flask("two"), Flask("three")]
    for app in apps:
        app.config["WSCHAT_URL"] = cluster.app.config["WSCHAT_URL"]
        WSChat(app).listener("/chat")(ChatListener)
    try:
        with contextlib.ExitStack() as stack:
            for app in apps[:2]:
                stack.enter_context(ChatClient(serve(app).connect("/chat")))
            assert apps[2].test_client().get("/_wschat/ready").status_code == 200

            def ours() -> list[str]:
                found = cluster.reports.stats(0.2)["workers"]
                return [w["id"] for w in found if pid_of(w["worker"]) == os.getpid()]

            own = sorted(reports_of(app).id for app in apps)
            eventually(lambda: sorted(ours()) == own, seconds=LONG)
    finally:
        for app in apps:
            stop(app)


@pytest.mark.parametrize("cluster", ["redis"], indirect=True)
def test_who_is_killed_is_soon_gone_and_comes_back_from_zero(cluster: Cluster) -> None:
    killed, other = cluster.processes
    before, rates = killed.id, Rates()
    ended = gone = 0.0
    with cluster.people((0, "ann", ""), (1, "ben", "")):
        for workers in cluster.reports.watch():
            pids = {pid_of(each["worker"]) for each in workers}
            for each, rated in zip(workers, rates.of(workers), strict=True):
                assert all(rate is None or rate >= 0 for rate in rated.values())
                if ended and pid_of(each["worker"]) not in (before, other.id):
                    assert each["opened"] == 0 and set(rated.values()) == {None}
            if not ended and pids == {before, other.id}:
                killed.kill()
                ended = time.monotonic()
            if ended and not gone and before not in pids:
                gone = time.monotonic() - ended
                killed.start()
            if gone and len(pids) == 2:
                break
            assert not ended or time.monotonic() - ended < LONG
    assert gone < GONE + 2 * PULSE


# -- in one process


def test_an_answer_that_fails_is_told_and_bounded(
    app: Flask, chat: WSChat, caplog: pytest.LogCaptureFixture
) -> None:
    reports = reports_of(app)

    def broken(fields: dict[str, Any]) -> None:
        raise LookupError("x" * 1000)

    reports.answers["broken"] = broken
    reports.answers["endless"] = lambda fields: "x" * 2_000_000
    reports.answers["no json"] = lambda fields: {float("nan"), 1}
    (broken_one,) = reports.ask("broken")
    assert broken_one.error is not None and len(broken_one.error) == 300
    assert broken_one.error.startswith("LookupError: xxx")
    assert reports.ask("endless")[0].error == "too much to say: ask for less"
    assert str(reports.ask("no json")[0].error).startswith("TypeError")
    assert reports.ask("rooms", prefix=5, limit="many")[0].error
    assert len(caplog.records) == 1  # not one for each: anybody may ask for more
    assert reports.rooms() == ([], 0) == reports.users()


def test_memory_is_watched_and_kicked_alike(
    app: Flask, chat: WSChat, serve: Serve
) -> None:
    chat.listener("/chat")(ChatListener)
    chat.authenticate(lambda: "ann")
    reports = reports_of(app)
    with ChatClient(serve(app).connect("/chat")) as client:
        client.ask("join", room="a")
        assert reports.rooms().rows == [{"name": "a", "connections": 1, "people": 1}]
        watch = reports.watch(0.05)
        for number, (figures,) in enumerate(watch):
            assert figures["connections"] == 1
            if number == 2:
                watch.stop()
        assert watch.fault is None and not reports._asked
        (row,) = reports.connections("ann")
        assert reports.kick(row["id"], 4001, "enough")
        with pytest.raises(ConnectionClosed, match=r"4001.*enough"):
            client.expect("never")
    figures = chat.stats(everywhere=True)
    assert len(figures["workers"]) == 1
    assert figures["total"]["closed"] == {"4xxx": 1}


def test_nobody_is_kicked_where_nobody_is_named(
    app: Flask, chat: WSChat, serve: Serve
) -> None:
    """Most connections were never asked for their id, and have none yet."""

    @chat.route("/echo")
    def echo(ws: WebSocket) -> None:
        for message in ws:
            ws.send(message)

    with serve(app).connect("/echo") as client:
        for fields in ({}, {"id": None}, {"id": ""}):
            reports_of(app).ask("kick", **fields)  # as a version to come may
        client.send("a")
        assert receive(client) == "a"


@pytest.mark.parametrize(
    "said", [5, True, {"a": 1}, ["a", {}, {"since": None}, {"since": "now"}]]
)
def test_connections_of_another_version_are_none(
    app: Flask, chat: WSChat, said: Any
) -> None:
    reports = reports_of(app)
    reports.answers["connections"] = lambda fields: said
    assert reports.connections("ann") == []


def test_many_rooms_are_looked_at_in_parts(
    app: Flask, chat: WSChat, serve: Serve
) -> None:
    """Messages go on between them; the biggest are found among all."""

    @chat.route("/<int:rooms>")
    def join(ws: WebSocket, rooms: int) -> None:
        for number in range(rooms):
            ws.join(f"room {number:04}")
        ws.send("done")
        ws.receive()

    server = serve(app)
    with server.connect("/2500") as many, server.connect("/2") as few:
        assert receive(many, LONG) == receive(few, LONG) == "done"
        found = reports_of(app).rooms(limit=3)
    names = [(row["name"], row["connections"]) for row in found.rows]
    assert names == [("room 0000", 2), ("room 0001", 2), ("room 0002", 1)]
    assert found.total == 2500


def test_figures_of_other_versions_are_read_as_far_as_they_are_known() -> None:
    own = Figures().stats()
    newer = {**own, "invented": {"a": [1]}, "messages_in": 5}
    older = {key: own[key] for key in ("started", "uptime", "connections")}
    other_bounds = {"count": 1, "sum": 1.0, "buckets": [[1, 1], ["+Inf", 1]]}
    assert here.figures(newer) == {**own_told(own), "messages_in": 5}
    read = here.figures({**older, "handler_seconds": other_bounds})
    assert read is not None
    assert read["handler_seconds"] == own["handler_seconds"]
    assert add_up([read, own_told(own)])["messages_in"] == 0
    wrong: list[Any] = [
        None,
        [],
        "x",
        {},
        {**own, "users": "5"},
        {**own, "closed": {"1000": "x"}},
    ]
    wrong += [{**own, "uptime": True}, {**own, "handler_seconds": {"count": 1}}]
    assert [here.figures(each) for each in wrong] == [None] * len(wrong)
    assert not here.is_biggest({"total": 1, "rows": [{"name": 1, "connections": 1}]})
    assert not here.is_biggest([1])


def own_told(figures: dict[str, Any]) -> dict[str, Any]:
    return {key: value for key, value in figures.items() if key != "worker"}


def test_rates_are_by_the_clock_of_the_process() -> None:
    def figures(uptime: float, count: int, id: str = "a") -> dict[str, Any]:
        return {"id": id, "uptime": uptime, **dict.fromkeys(COUNTERS, count)}

    rates = Rates()
    assert rates.of([figures(1, 100)])[0]["messages_in"] is None
    assert rates.of([figures(3, 150)])[0]["messages_in"] == 25
    assert rates.of([figures(3, 150)])[0]["messages_in"] == 25  # it has not answered
    fresh, known = rates.of([figures(1, 5, "b"), figures(4, 150)])
    assert fresh["messages_in"] is None and known["messages_in"] == 0
    assert added([fresh, known])["messages_in"] == 0
    assert added([fresh])["messages_in"] is None
    assert rates.of([figures(5, 0)])[0]["messages_in"] is None  # less than before
    assert rates.of([figures(4, 9)])[0]["messages_in"] is None  # its clock was set


@pytest.mark.slow
@pytest.mark.timeout(60)
def test_processes_answer_over_a_redis_cluster_as_well() -> None:
    with RedisCluster(replicas=0) as started:
        serving, asking = apps = [Flask("serves"), Flask("asks")]
        for app in apps:
            app.config["WSCHAT_URL"] = started.url
            WSChat(app)
        try:
            assert serving.test_client().get("/_wschat/ready").status_code == 200

            def heard() -> list[str]:
                return [answer.id for answer in reports_of(asking).ask("stats", 0.2)]

            own = reports_of(serving).id
            eventually(lambda: heard() == [own], seconds=LONG)
        finally:
            for app in apps:
                stop(app)
