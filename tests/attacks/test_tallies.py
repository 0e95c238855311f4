"""The last tally comes, also where nothing follows it."""

from __future__ import annotations

import contextlib
import json
from collections.abc import Callable, Iterator
from typing import Any

import pytest
from flask import Flask

from flask_wschat import ChatListener, WSChat
from flask_wschat.chat.voting import Poll
from flask_wschat.client import connect
from tests.support.live import Serve, stop
from tests.support.redis_server import RedisServer
from tests.support.waiting import DEADLINE


@pytest.fixture
def process(redis: RedisServer) -> Iterator[Callable[[], tuple[Flask, Poll]]]:
    """Make an app and its poll, as each of several processes has them."""
    with contextlib.ExitStack() as stack:

        def make() -> tuple[Flask, Poll]:
            app = Flask("an_app")
            app.config["WSCHAT_URL"] = redis.url
            chat = WSChat(app)
            stack.callback(stop, app)
            chat.listener("/chat")(ChatListener)
            return app, chat.poll("Tea", ["Green", "Black"])

        yield make


def test_the_last_tally_comes_after_a_subscription_was_cut(
    redis: RedisServer, process: Callable[[], tuple[Flask, Poll]], serve: Serve
) -> None:
    app, _ = process()
    _, elsewhere = process()
    server = serve(app)
    with connect(server.url("/chat")) as client, redis.client() as cutter:
        for turn in range(1, 6):
            cutter.client_kill_filter(_type="pubsub")
            elsewhere.vote(f"voter {turn}", "Green")
            event: dict[str, Any] = {}
            while event.get("total") != turn:
                event = json.loads(client.receive(DEADLINE))


def test_votes_are_told_after_redis_has_forgotten_the_poll(
    redis: RedisServer, process: Callable[[], tuple[Flask, Poll]], serve: Serve
) -> None:
    """Over open connections: who sees a lower version takes it for an old one."""
    app, poll = process()
    with connect(serve(app).url("/chat")) as client, redis.client() as admin:

        def tally(total: int) -> dict[str, Any]:
            event: dict[str, Any] = {}
            while event.get("total") != total:
                event = json.loads(client.receive(DEADLINE))
            return event

        for turn in range(1, 6):
            poll.vote(f"voter {turn}", "Green")
        before = tally(5)
        admin.flushall()
        poll.vote("voter 1", "Black")
        assert tally(1)["version"] > before["version"]
