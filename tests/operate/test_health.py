"""``/_wschat/live`` and ``/_wschat/ready``: what operators' programs are told."""

from __future__ import annotations

import signal
from types import SimpleNamespace
from typing import Any

import pytest
from flask import Flask

from flask_wschat import Listener, WSChat
from flask_wschat.backends import MemoryBackend
from flask_wschat.backends.redis import RedisBackend
from flask_wschat.backends.redis.subscriber import Timings
from flask_wschat.errors import BackendError
from flask_wschat.messages import Attendance
from flask_wschat.operate import health
from tests.support.live import Serve, closed, stop
from tests.support.redis_server import RedisServer, Relay
from tests.support.waiting import LONG, eventually


class Storage(MemoryBackend):
    """A backend of the application's own, which may be out of reach."""

    asked = 0
    broken = False
    words: str | None = None

    def fault(self) -> str | None:
        return self.words

    def present(self, topic: str, *, heard: bool = False) -> Attendance:
        self.asked += 1
        if self.broken:
            raise BackendError("redis://chat:secret@host is not there")
        return super().present(topic)


@pytest.fixture
def storage(app: Flask) -> Storage:
    storage = app.config["WSCHAT_URL"] = Storage()
    WSChat(app)
    return storage


def ask(app: Flask, page: str = "ready") -> tuple[int, dict[str, Any]]:
    answer = app.test_client().get(f"/_wschat/{page}")
    assert answer.headers["Cache-Control"] == "no-store"
    assert "Set-Cookie" not in answer.headers
    assert ("Retry-After" in answer.headers) is (answer.status_code == 503)
    return answer.status_code, answer.get_json()


def test_all_is_well(app: Flask, storage: Storage) -> None:
    assert ask(app) == (200, {"ready": True, "reasons": []})
    assert ask(app, "live") == (200, {"live": True, "reasons": []})


def test_the_storage_is_asked_once_a_second(
    app: Flask, storage: Storage, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(health, "FRESH", LONG)  # what a slow machine makes of a second
    for _ in range(50):
        assert ask(app)[0] == 200
    assert storage.asked == 1
    storage.words = "nothing comes"
    assert ask(app) == (503, {"ready": False, "reasons": ["storage"]})
    storage.words = None
    assert ask(app)[0] == 200


def test_a_storage_that_does_not_answer_is_told_without_its_address(
    app: Flask, storage: Storage, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(health, "FRESH", 0)
    storage.broken = True
    assert ask(app) == (503, {"ready": False, "reasons": ["storage"]})
    assert ask(app, "live")[0] == 200
    storage.broken = False
    assert ask(app)[0] == 200


def test_who_is_asked_nothing_else_is_not_held_up(
    app: Flask, storage: Storage, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Whoever comes while one asks the storage gets the answer before."""
    monkeypatch.setattr(health, "FRESH", 0)
    assert ask(app)[0] == 200
    inner: list[int] = []

    def present(topic: str) -> dict[str, int]:
        inner.append(ask(app)[0])
        return {}

    monkeypatch.setattr(storage, "present", present)
    assert ask(app)[0] == 200
    assert inner == [200]


@pytest.mark.timeout(60)
def test_redis_goes_and_comes_back(app: Flask, redis: RedisServer) -> None:
    app.config["WSCHAT_URL"] = redis.url
    WSChat(app)
    assert ask(app)[0] == 200
    redis.kill()
    eventually(lambda: ask(app)[0] == 503, seconds=LONG)
    redis.start()
    eventually(lambda: ask(app)[0] == 200, seconds=LONG)
    stop(app)


@pytest.mark.timeout(60)
def test_a_redis_that_stands_still_is_no_storage(
    app: Flask, redis: RedisServer, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The subscription finds it out: the storage need not be asked for that."""
    timings = Timings(probe=0.1, deaf=0.4, answer=0.5)
    app.config["WSCHAT_URL"] = RedisBackend(redis.url, timings=timings)
    WSChat(app)
    assert ask(app)[0] == 200
    monkeypatch.setattr(health, "FRESH", LONG)
    redis.pause()
    eventually(lambda: ask(app)[1]["reasons"] == ["storage"], seconds=LONG)
    redis.resume()
    eventually(lambda: ask(app)[0] == 200, seconds=LONG)
    stop(app)


@pytest.mark.timeout(60)
def test_a_process_that_hears_nothing_is_deaf(app: Flask, redis: RedisServer) -> None:
    """What is swallowed is its subscriptions alone: commands are answered."""
    relay = Relay(redis.port)
    url = f"redis://127.0.0.1:{relay.port}/0"
    app.config["WSCHAT_URL"] = RedisBackend(url, timings=Timings(probe=0.1, deaf=0.4))
    WSChat(app)
    try:
        eventually(lambda: ask(app)[0] == 200, seconds=LONG)
        relay.freeze(also_new=True)
        eventually(lambda: ask(app)[0] == 503, seconds=LONG)
        assert ask(app) == (503, {"ready": False, "reasons": ["deaf"]})
        assert ask(app, "live")[0] == 200
        relay.thaw()
        eventually(lambda: ask(app)[0] == 200, seconds=LONG)
    finally:
        stop(app)
        relay.stop()


def test_a_storage_that_keeps_who_asks_waiting_is_none(
    app: Flask, storage: Storage, monkeypatch: pytest.MonkeyPatch
) -> None:
    """As a disk that hangs: the others are told, who do not wait for it."""
    monkeypatch.setattr(health, "FRESH", 0)
    monkeypatch.setattr(health, "PATIENCE", 0)
    inner: list[Any] = []

    def present(topic: str) -> Attendance:
        inner.append(ask(app))
        return Attendance(0, {}, {})

    monkeypatch.setattr(storage, "present", present)
    ask(app)
    assert inner == [(503, {"ready": False, "reasons": ["storage"]})]


def test_not_while_the_server_ends(app: Flask, chat: WSChat, serve: Serve) -> None:
    @chat.listener("/listen")
    class Listen(Listener):
        pass

    closing = app.extensions["wschat.hub"].closing
    with serve(app).connect("/listen") as client:
        opening = object()
        closing.under_way.add(opening)
        drain = closing.drain()
        assert closed(client)[0] == 1012
        assert ask(app) == (503, {"ready": False, "reasons": ["draining"]})
        closing.under_way.discard(opening)
        drain.wait()
    assert ask(app)[0] == 200


def test_not_once_gunicorns_worker_is_to_end(app: Flask, storage: Storage) -> None:
    class Worker:
        """As gunicorn's, by whose method SIGTERM is handled."""

        cfg = SimpleNamespace(workers=1)
        alive = True

        def handle_exit(self, *_: object) -> None:
            self.alive = False

    before = signal.signal(signal.SIGTERM, Worker().handle_exit)
    try:
        assert ask(app)[0] == 200
        signal.raise_signal(signal.SIGTERM)
        assert ask(app) == (503, {"ready": False, "reasons": ["draining"]})
        assert ask(app, "live")[0] == 200
    finally:
        signal.signal(signal.SIGTERM, before)


def test_the_applications_own_page_is_the_one(app: Flask, storage: Storage) -> None:
    @app.get("/_wschat/ready")
    def ready() -> str:
        return "my own"

    client = app.test_client()
    assert client.get("/_wschat/ready").text == "my own"
    assert client.get("/_wschat/live").status_code == 200
    with client.get("/_wschat/wschat.js") as module:
        assert module.status_code == 200
    assert client.get("/_wschat/else").status_code == 404
