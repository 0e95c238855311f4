"""A client that says it has seen what nobody said yet."""

from __future__ import annotations

import contextlib
import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from flask import Flask, request

from flask_wschat import ChatListener, WSChat
from flask_wschat.client import Client, connect
from tests.support.live import Serve
from tests.support.redis_server import RedisServer
from tests.support.waiting import DEADLINE

MEMBERS = 60


@pytest.fixture(params=["memory", "sqlite", "redis"])
def url(request: pytest.FixtureRequest, tmp_path: Path) -> Iterator[str]:
    if request.param == "memory":
        yield "memory://"
    elif request.param == "sqlite":
        yield f"sqlite:///{tmp_path}/chat.db"
    else:
        server: RedisServer = request.getfixturevalue("redis")
        yield server.url


def ask(client: Client, kind: str, **fields: Any) -> dict[str, Any]:
    """Send a request, and return its reply; what comes before it is dropped."""
    client.send(json.dumps({"type": kind, "ref": 1, **fields}))
    return until(client, "reply")


def until(client: Client, kind: str) -> dict[str, Any]:
    while True:
        event: dict[str, Any] = json.loads(client.receive(DEADLINE))
        assert event["type"] != "gap"
        if event["type"] == kind:
            return event


@pytest.mark.timeout(60)
def test_a_number_yet_to_come_resets_nobody_else(
    app: Flask, serve: Serve, url: str
) -> None:
    app.config["WSCHAT_URL"] = url
    chat = WSChat(app)
    chat.authenticate(lambda: request.args["user"])
    chat.listener("/chat")(ChatListener)
    server = serve(app)
    with contextlib.ExitStack() as stack:

        def come(user: str) -> Client:
            return stack.enter_context(connect(server.url(f"/chat?user={user}")))

        members = [come(f"user-{n}") for n in range(MEMBERS)]
        for member in members:
            epoch = ask(member, "join", room="a")["epoch"]
        ask(members[0], "say", room="a", data="first", mid="1")
        bad = come("bad")
        for after in (2, 1 << 52, (1 << 53) - 1):
            reply = ask(bad, "join", room="a", after=after, epoch=epoch)
            assert (reply["ok"], reply["recovered"]) == (True, False)
            assert (reply["epoch"], reply["seq"]) == (epoch, 1)
            ask(bad, "history", room="a", before=after, limit=after)
            ask(bad, "inbox", after=after, epoch=epoch)
        for wrong in (-1, 1.5, 1e300, 1 << 53, 1 << 63, "1", True, None):
            reply = ask(bad, "join", room="a", after=wrong, epoch=epoch)
            assert reply["error"]["code"] == "bad_request"
        ask(bad, "say", room="a", data="second", mid="2")
        for member in members:
            # `until` fails where a gap comes before it.
            while until(member, "message")["data"] != "second":
                pass
        resumed = ask(members[1], "join", room="a", after=1, epoch=epoch)
        assert resumed["recovered"]
