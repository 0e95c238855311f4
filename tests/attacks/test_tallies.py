"""The last tally comes, also where nothing follows it."""

from __future__ import annotations

import json
from collections.abc import Iterator
from typing import Any

import pytest
from flask import Flask

from flask_wschat import ChatListener, WSChat
from flask_wschat.client import connect
from flask_wschat.voting import Poll
from tests.backends.redis_server import RedisServer
from tests.conftest import DEADLINE, Serve


@pytest.fixture
def redis() -> Iterator[RedisServer]:
    server = RedisServer()
    server.start()
    yield server
    server.stop()


def chat_on(url: str) -> tuple[Flask, Poll]:
    """Return an app and its poll, as one of several processes has it."""
    app = Flask("an_app")
    app.config["WSCHAT_URL"] = url
    chat = WSChat(app)
    chat.listener("/chat")(ChatListener)
    return app, chat.poll("Tea", ["Green", "Black"])


def test_the_last_tally_comes_after_a_subscription_was_cut(
    redis: RedisServer, serve: Serve
) -> None:
    app, _ = chat_on(redis.url)
    _, elsewhere = chat_on(redis.url)
    server = serve(app)
    with connect(server.url("/chat")) as client, redis.client() as cutter:
        for turn in range(1, 6):
            cutter.client_kill_filter(_type="pubsub")
            elsewhere.vote(f"voter {turn}", "Green")
            event: dict[str, Any] = {}
            while event.get("total") != turn:
                event = json.loads(client.receive(DEADLINE))
