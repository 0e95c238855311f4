"""Processes that serve now are asked how they are."""

from __future__ import annotations

import time
from typing import Any

import pytest
from flask import Flask

from flask_wschat import Listener, WSChat
from flask_wschat.operate.doctor import running
from flask_wschat.operate.doctor.finding import Setup
from flask_wschat.operate.reports import Answer
from tests.support.live import Serve
from tests.support.redis_server import RedisServer

KEY = "a key that all of them have in common"


def made(url: str, **config: Any) -> Flask:
    app = Flask("an_app")
    app.config.update({"WSCHAT_URL": url, "SECRET_KEY": KEY} | config)
    chat = WSChat(app)
    chat.listener("/chat")(type("Chat", (Listener,), {}))
    return app


def test_processes_that_differ_are_found(serve: Serve, redis: RedisServer) -> None:
    def names(**config: Any) -> list[str]:
        return [each.name for each in running.running(setup(**config))]

    def setup(**config: Any) -> Setup:
        return Setup(app=made(redis.url, **config))

    alone = setup()
    assert list(running.running(alone)) == []
    assert alone.unseen == ["the processes that serve: none answers"]
    first = serve(made(redis.url))
    with first.connect("/chat"):
        assert names() == []
        elsewhere = names(SECRET_KEY="another one", WSCHAT_HISTORY_SIZE=5)
        assert elsewhere == ["running-otherwise"] * 2
        other = made(redis.url, SECRET_KEY="x", WSCHAT_REDIS_WAIT=1, DEBUG=True)
        with serve(other).connect("/chat"):
            wanted = ["running-keys", "running-settings", "running-debug"]
            assert names() == wanted
    redis.kill()
    away = setup()
    assert list(running.running(away)) == []
    assert "cannot be reached" in away.unseen[0]


GOOD = {
    **{"version": "1", "lag": 0.01, "files": [100, 65536], "accelerated": True},
    **{"patched": True, "fault": None, "debug": False},
}


@pytest.mark.parametrize(
    ("name", "change", "words"),
    [
        ("", {}, ""),
        (
            "running-files",
            {"files": [10, 1024]},
            "10 files open, and may have 1024",
        ),
        ("running-files", {"files": [7900, 8192]}, "7900 files open"),
        ("running-without-c", {"accelerated": False}, "a:1 runs without"),
        ("running-patched-partly", {"fault": "gevent has: make"}, "a:1, gevent has"),
        ("running-blocked", {"lag": 2.5}, "stood still for 2.5 s"),
        ("clock-running", {"ahead": 60}, "60 s ahead of ours"),
        ("clock-running", {"ahead": -60}, "60 s behind ours"),
    ],
)
def test_a_process_that_is_not_well_is_found(
    name: str, change: dict[str, Any], words: str
) -> None:
    now = time.time() + change.get("ahead", 0)
    answer = Answer("id", "a:1", GOOD | {"now": now} | change)
    found = list(running._well(answer))
    assert [each.name for each in found] == [name] * bool(name)
    assert all(words in each.what for each in found)


def test_versions_that_differ_are_found() -> None:
    answers = [
        Answer(worker, worker, {"version": version, "key": "", "settings": {}})
        for worker, version in (("a:1", "1.0"), ("b:2", "1.1"))
    ]
    found = next(running._alike(Setup(), answers, ""))
    assert found.name == "running-versions"
    assert found.what.endswith("1.0 in a:1, 1.1 in b:2")
