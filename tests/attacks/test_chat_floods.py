"""Clients of the ready-made chat that send too much, or what is no request."""

from __future__ import annotations

import itertools
import json
import time
from collections.abc import Callable
from typing import Any

import gevent
import pytest
from websockets.exceptions import ConnectionClosed

from flask_wschat import ChatListener, WebSocket, WSChat
from flask_wschat.chat.listener import PATIENCE
from tests.protocol.peers import Peer
from tests.support.following import make_chat, url
from tests.support.live import Serve
from tests.support.waiting import DEADLINE, eventually

__all__ = ["make_chat", "url"]

pytestmark = pytest.mark.parametrize("url", ["memory"], indirect=True)

JUNK: list[str | bytes] = [
    "no json",
    b"binary",
    "[]",
    '{"type":"who"}',
    '{"ref":-1}',
    "\ufeff{}",
    "[" * 999,
]


@pytest.mark.parametrize("config", [{}, {"RATE_LIMIT": (5, 10)}], ids=["", "limited"])
@pytest.mark.parametrize("junk", [*[[each] for each in JUNK], JUNK], ids=range(8))
def test_a_flood_of_junk_has_few_answers_and_an_end(
    make_chat: Callable[..., WSChat], serve: Serve, config: Any, junk: list[Any]
) -> None:
    ann = Peer(serve(make_chat(**config)._app()), "ann")
    answers = []
    with pytest.raises(ConnectionClosed) as end:
        for message in itertools.islice(itertools.cycle(junk), 5000):
            ann.client.send(message)
        while True:
            answers.append(json.loads(ann.client.recv(DEADLINE)))
    assert end.value.rcvd is not None and end.value.rcvd.code == 1008
    assert len(answers) <= PATIENCE
    assert all(answer["ref"] is None for answer in answers)


def test_junk_counts_as_much_as_requests(
    make_chat: Callable[..., WSChat], serve: Serve
) -> None:
    server = serve(make_chat(RATE_LIMIT=(0.1, 10))._app())
    ann = Peer(server, "ann")
    for number in range(10):
        ann.client.send(JUNK[number % len(JUNK)])
        assert ann.reply(None)["error"]["code"] in ("bad_json", "bad_request")
    assert ann.fail("leave", room="x")["code"] == "rate_limited"
    tab = Peer(server, "ann")
    tab.client.send("no json")
    assert tab.reply(None)["error"]["code"] == "rate_limited"


def test_a_client_with_some_bad_messages_stays(
    make_chat: Callable[..., WSChat], serve: Serve
) -> None:
    ann = Peer(serve(make_chat()._app()), "ann")
    for _ in range(3 * PATIENCE):
        ann.client.send("no json")
        ann.reply(None)
        ann.ask("leave", room="x")


def test_what_a_client_asked_is_not_done_once_it_is_gone(
    make_chat: Callable[..., WSChat], serve: Serve
) -> None:
    asked: list[Any] = []

    class Slow(ChatListener):
        def on_open(self, ws: WebSocket, *args: Any, **url_args: Any) -> None:
            super().on_open(ws)
            self.ws = ws

        def can_say(self, user: str | None, room: str, data: Any) -> Any:
            asked.append(data)
            until = time.monotonic() + DEADLINE
            while not self.ws.closed and time.monotonic() < until:
                gevent.sleep(0.005)
            return True

        def on_close(self, ws: WebSocket, code: int, reason: str) -> None:
            asked.append("closed")

    chat = make_chat(Slow)
    ann = Peer(serve(chat._app()), "ann")
    ann.ask("join", room="Lobby")
    for number in range(1000):
        ann.put("say", room="Lobby", data=number, mid=f"{number}")
    eventually(lambda: asked)
    ann.client.close_socket()
    eventually(lambda: asked[-1] == "closed")
    assert asked == [0, "closed"]
    assert len(chat.history("Lobby", limit=1000)) <= 1
