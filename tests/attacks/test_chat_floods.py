"""Clients of the ready-made chat that send too much, or what is no request."""

from __future__ import annotations

import contextlib
import itertools
import json
import time
from collections.abc import Callable
from typing import Any

import gevent
import gevent.event
import pytest
from websockets.exceptions import ConnectionClosed

from flask_wschat import ChatListener, WebSocket, WSChat
from flask_wschat.backends import MemoryBackend
from flask_wschat.chat.events import PATIENCE
from flask_wschat.codec import Opcode, encode_frame
from flask_wschat.incoming import INBOX_LIMIT
from flask_wschat.messages import Message, Receipt
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


class Hung(MemoryBackend):
    """Storage that does not answer until it is let."""

    def __init__(self) -> None:
        super().__init__()
        self.asked = 0
        self.answers = gevent.event.Event()

    def publish(self, topic: str, message: Message, *, keep: bool = False) -> Receipt:
        if keep:
            self.asked += 1
            self.answers.wait(DEADLINE)
        return super().publish(topic, message, keep=keep)


def test_requests_that_wait_for_hung_storage_hold_little_and_end_with_who_asked(
    make_chat: Callable[..., WSChat], serve: Serve
) -> None:
    hung = Hung()
    chat = make_chat(URL=hung)
    hub = chat._hub()
    server = serve(chat._app())
    peers = [Peer(server, f"user-{number}") for number in range(16)]
    for peer in peers:
        peer.ask("join", room="Lobby")
    sockets = [ws for ws in hub.everyone() if ws.user is not None]
    for peer in peers:
        text = '{"type":"say","ref":1,"room":"Lobby","mid":"m","data":1}'
        frame = encode_frame(Opcode.TEXT, text.encode(), mask=b"mask")
        peer.client.socket.settimeout(0.05)
        with contextlib.suppress(OSError):  # the server takes no more
            for _ in range(200):
                peer.client.socket.sendall(frame * 1000)
    eventually(lambda: all(ws._paused for ws in sockets))
    # What one read brought may come on top, and none is read again.
    assert all(len(ws._inbox or ()) < 2 * INBOX_LIMIT // 100 for ws in sockets)
    with contextlib.closing(Peer(server, "healthy")) as healthy:
        healthy.ask("ping")
    assert hung.asked == 16
    for peer in peers:
        peer.client.close_socket()
    sockets[0]._transport.loop.call_threadsafe(hung.answers.set)
    eventually(lambda: hub.count() == 0)
    # That they are gone shows when they are answered; some thousands wait of each.
    assert hung.asked < 16 * 100
