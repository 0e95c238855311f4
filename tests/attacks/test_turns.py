"""Whoever does much takes turns with those who do little."""

from __future__ import annotations

import collections
import contextlib
import functools
import json
import socket
from collections.abc import Callable, Iterator
from typing import Any

import gevent
import pytest

from flask_wschat import Listener, WebSocket
from flask_wschat.backends.memory import MemoryBackend
from flask_wschat.codec import Connection, Opcode, encode_frame
from flask_wschat.hub.hub import Hub
from flask_wschat.server import Server
from flask_wschat.settings import Settings
from flask_wschat.transports.evented import EventedTransport
from tests.support import waiting
from tests.support.waiting import DEADLINE

eventually = functools.partial(waiting.eventually, sleep=gevent.sleep)
MESSAGE = encode_frame(Opcode.TEXT, b"x", mask=b"mask")

Hear = Callable[[WebSocket], object]
Open = Callable[[Hear], socket.socket]


class Hearing(Listener):
    def __init__(self, hear: Hear) -> None:
        self._hear = hear

    def on_message(self, ws: WebSocket, message: str | bytes) -> None:
        self._hear(ws)


@pytest.fixture
def open_one() -> Iterator[Open]:
    """A function that returns a client's socket, and is told of what that says."""
    settings = Settings()
    hub = Hub(settings, MemoryBackend(), dumps=json.dumps, loads=json.loads)
    with contextlib.ExitStack() as stack:

        def open_one(hear: Hear) -> socket.socket:
            client, ours = socket.socketpair()
            stack.callback(client.close)
            ours.setblocking(False)
            transport = EventedTransport(ours.detach(), max_queue=settings.MAX_QUEUE)
            stack.callback(transport.abort)
            ws = WebSocket(transport, hub, Connection())
            hub.register(ws, transport.loop)
            ws._listen(Hearing(hear))
            ws._start()
            return client

        yield open_one


def test_answers_to_one_who_has_gone(
    open_one: Open, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Each is an error; it was as if a turn began with it."""
    monkeypatch.setattr("flask_wschat.incoming._TURN", 0)
    heard: list[str] = []

    def answer(ws: WebSocket) -> None:
        if ws.closed and "too late" not in heard:
            other.sendall(MESSAGE)
        heard.append("too late" if ws.closed else "in time")
        ws.send("x")

    gone, other = open_one(answer), open_one(lambda ws: heard.append("other"))
    gone.sendall(MESSAGE * 500)
    gone.close()
    eventually(lambda: len(heard) == 501)
    assert heard.index("other") < heard.index("too late") + 10


def test_who_sends_as_much_as_it_can(
    open_one: Open, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Of ten, one or two are read in a turn that is over at once."""
    monkeypatch.setattr("flask_wschat.transports.loop.SHARE", 0)
    heard: list[str] = []

    def hear(ws: WebSocket) -> None:
        if len(heard) == 10:  # each was read once
            other.sendall(MESSAGE)
        heard.append("flood")

    whole = encode_frame(Opcode.TEXT, bytes(60_000), mask=b"mask")
    floods = [open_one(hear) for _ in range(10)]
    other = open_one(lambda ws: heard.append("other"))
    for flood in floods:
        flood.sendall(whole * 3)
    eventually(lambda: len(heard) == 31)
    assert heard.index("other") < 15


def test_many_messages_are_heard_after_one(open_one: Open) -> None:
    heard: list[str] = []
    flood = open_one(lambda ws: heard.append("flood"))
    other = open_one(lambda ws: heard.append("other"))
    again = open_one(lambda ws: heard.append("flood"))
    for client, count in ((flood, 65), (other, 64), (again, 65)):
        client.sendall(MESSAGE * count)
    eventually(lambda: len(heard) == 194)
    assert heard[:64] == ["other"] * 64


def test_one_who_was_given_up_is_read_slowly(
    open_one: Open, monkeypatch: pytest.MonkeyPatch
) -> None:
    """It may have not seen yet that it was; until then it costs next to nothing."""
    monkeypatch.setattr("flask_wschat.transports.evented.REST", 60)
    heard: list[WebSocket] = []
    client = open_one(heard.append)
    client.sendall(MESSAGE + encode_frame(Opcode.TEXT, b"\xff", mask=b"mask"))
    eventually(lambda: heard and heard[0].closed)
    client.setblocking(False)

    def fill() -> int:
        sent = 0
        with contextlib.suppress(BlockingIOError):
            while True:
                sent += client.send(bytes(1 << 14))
        return sent

    fill()
    gevent.sleep(0.01)
    fill()
    for _ in range(20):
        gevent.sleep(0.001)
        assert fill() == 0


def test_openings_come_a_few_at_a_time() -> None:
    """Or those who are open wait for a hundred of them."""
    hub: Any = gevent.get_hub()
    turns: collections.Counter[int] = collections.Counter()

    class Counting(Server):
        def do_handle(self, sock: socket.socket, address: object) -> None:
            turns[hub.loop.iteration] += 1
            sock.close()

    server = Counting(("127.0.0.1", 0), lambda environ, start_response: [])
    server.init_socket()
    with contextlib.ExitStack() as stack:
        for _ in range(30):
            place = ("127.0.0.1", int(server.address[1]))
            stack.enter_context(socket.create_connection(place, DEADLINE))
        server.start()
        stack.callback(server.stop)
        eventually(lambda: turns.total() == 30)
    assert max(turns.values()) <= Server.max_accept < 10
