"""Peers that do not read, or read slowly, and senders that outrun those who do read."""

from __future__ import annotations

import contextlib
import socket
import threading
import time
from collections.abc import Callable, Iterator
from typing import Any

import gevent
import pytest
from flask import Flask

from flask_wschat import ChatListener, Listener, WebSocket, WSChat
from flask_wschat.client import Client, connect, open_over
from flask_wschat.codec import ClientHandshake
from flask_wschat.errors import ConnectionClosed
from flask_wschat.transports.threaded import WORKERS
from tests.support.live import Serve
from tests.support.threaded import serve_threaded
from tests.support.waiting import DEADLINE, eventually

TIMES = {"WSCHAT_PING_INTERVAL": 0.4, "WSCHAT_PING_TIMEOUT": 0.3}
Connect = Callable[..., Client]


@pytest.fixture
def app(request: pytest.FixtureRequest) -> Flask:
    app = Flask("an_app")
    app.config.update(TIMES, WSCHAT_MAX_QUEUE=20_000)
    app.config.update(getattr(request, "param", {}))
    return app


def config(**values: float | str) -> pytest.MarkDecorator:
    settings = {f"WSCHAT_{name}": value for name, value in values.items()}
    return pytest.mark.parametrize("app", [settings], indirect=True, ids=[""])


@pytest.fixture(params=["greenlets", "threads"])
def kind(request: pytest.FixtureRequest) -> str:
    """What the server gives each request."""
    name: str = request.param
    return name


@pytest.fixture
def connected(kind: str, app: Flask, chat: WSChat, serve: Serve) -> Iterator[Connect]:
    """Connect to ``app``; ``buffer`` is the client's receive buffer, in bytes."""
    with contextlib.ExitStack() as stack:
        if kind == "greenlets":
            port = serve(app).port
        else:
            port = stack.enter_context(serve_threaded(app))

        def open_client(path: str, buffer: int = 0) -> Client:
            sock = socket.socket()
            if buffer:
                sock.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, buffer)
            sock.connect(("127.0.0.1", port))
            handshake = ClientHandshake("127.0.0.1", path)
            client = open_over(sock, handshake, DEADLINE)
            stack.callback(client.abort)
            return client

        yield open_client


@pytest.fixture
def patient() -> Iterator[None]:
    """All sockets made from now on wait a minute, as an application may wish."""
    before = socket.getdefaulttimeout()
    socket.setdefaulttimeout(60)
    yield
    socket.setdefaulttimeout(before)


class Quiet(Listener):
    """Says nothing by itself."""


def flood(
    client: Client,
    frame: bytes,
    seconds: float = 0.3,
    ended: Callable[[], bool] = lambda: False,
) -> None:
    """Send ``frame`` again and again until the server takes no more, or has ``ended``.

    That one reads on for a while, and takes no more notice.
    """
    sock = client._link._socket
    sock.settimeout(seconds)
    with contextlib.suppress(OSError):
        while not ended():
            sock.sendall(frame * 100)


@pytest.mark.parametrize("talking", [False, True])
def test_who_fills_the_queue_with_pongs_is_found_dead(
    talking: bool, app: Flask, chat: WSChat, connected: Connect
) -> None:
    chat.listener("/")(Quiet)
    hub = app.extensions["wschat.hub"]
    client = connected("/", 4096)
    eventually(lambda: hub.count() == 1)
    ping = client._connection.ping(b"x" * 120)
    flood(client, ping, ended=lambda: hub.count() == 0)
    if talking:
        # It takes nothing, and never stops to say something.
        stop = threading.Event()

        def talk() -> None:
            while not stop.is_set():
                flood(client, ping, 0.05)

        thread = threading.Thread(target=talk)
        thread.start()
        try:
            eventually(lambda: hub.count() == 0)
        finally:
            stop.set()
            thread.join()
    eventually(lambda: hub.count() == 0)


def test_who_does_not_read_is_found_whatever_it_says(
    app: Flask, chat: WSChat, connected: Connect
) -> None:
    """Its queue is far from full; it just stands."""
    chat.listener("/")(Quiet)
    hub = app.extensions["wschat.hub"]
    client = connected("/", 4096)
    eventually(lambda: hub.count() == 1)
    [ws] = hub.everyone()

    def fill() -> None:
        while ws._transport.standing() is None and ws._transport.queued == 0:
            ws._transport.write(ws._connection.send("x" * 5_000))
            ws._transport.flush()

    ws._transport.loop.call_threadsafe(fill)
    until = time.monotonic() + DEADLINE
    with contextlib.suppress(OSError):
        while hub.count():
            client._link._socket.sendall(client._connection.ping(b"still here"))
            assert time.monotonic() < until
            threading.Event().wait(0.02)
    assert ws.close_code == 1013


def test_who_reads_slowly_is_kept(app: Flask, chat: WSChat, connected: Connect) -> None:
    """It never answers a ping in time, as those are behind what it reads."""

    @chat.route("/")
    def pour(ws: WebSocket) -> None:
        for _ in range(120):
            ws.send(b"x" * 10_000)
        ws.receive()

    hub = app.extensions["wschat.hub"]
    client = connected("/", 4096)
    sock = client._link._socket
    sock.settimeout(DEADLINE)
    pause, taken, until = threading.Event(), 0, time.monotonic() + 2.5
    while time.monotonic() < until:
        taken += len(sock.recv(1500))
        pause.wait(0.02)
        assert hub.count() == 1, taken
    assert taken > 20_000


def test_an_inbox_that_the_application_does_not_empty_is_an_excuse(
    app: Flask, chat: WSChat, connected: Connect
) -> None:
    go_on = threading.Event()

    @chat.route("/")
    def late(ws: WebSocket) -> None:
        while not go_on.is_set():
            gevent.sleep(0.02) if kind_is_greenlets(ws) else go_on.wait(0.02)
        for message in ws:
            ws.send(message[:1])

    hub = app.extensions["wschat.hub"]
    client = connected("/")
    for _ in range(40):
        client._link._socket.sendall(client._connection.send(b"x" * 10_000))
    threading.Event().wait(3 * sum(TIMES.values()))
    assert hub.count() == 1
    go_on.set()
    for _ in range(40):
        assert client.receive(DEADLINE) == b"x"


def kind_is_greenlets(ws: WebSocket) -> bool:
    return ws._transport.loop.is_current()


# -- the ready-made chat


@config(MAX_QUEUE=400_000, PING_TIMEOUT=60)
def test_unread_replies_wait_at_half_the_queue(
    app: Flask, chat: WSChat, connected: Connect
) -> None:
    """And what others say is let through meanwhile."""
    limit = 400_000
    chat.listener("/chat")(ChatListener)
    hub = app.extensions["wschat.hub"]
    client = connected("/chat", 4096)
    for number in range(100):
        chat.broadcast(f"{number:03} " + "x" * 3000, room="Lobby")
    link = client._link._socket
    link.sendall(client._connection.send('{"type":"join","ref":0,"room":"Lobby"}'))
    for ref in range(1, 60):
        ask = f'{{"type":"history","ref":{ref},"room":"Lobby"}}'
        link.sendall(client._connection.send(ask))
    eventually(hub.count)
    [ws] = hub.everyone()
    eventually(lambda: ws._transport.queued > limit // 2)
    most = 0
    for number in range(20):
        chat.broadcast(f"live {number}", room="Lobby")
        most = max(most, ws._transport.queued)
    assert not ws.closed
    assert most < limit * 7 // 8
    for _ in range(60 + 20):
        client.receive(DEADLINE)
    assert not ws.closed


@config(MAX_QUEUE=100_000, PING_TIMEOUT=60)
def test_waiting_replies_hold_no_worker(
    app: Flask, chat: WSChat, connected: Connect
) -> None:
    """More who do not read than there are threads."""
    limit = 100_000
    chat.listener("/chat")(ChatListener)
    for number in range(100):
        chat.broadcast(f"{number:03} " + "x" * 3000, room="Lobby")
    hub = app.extensions["wschat.hub"]
    for _ in range(40):
        client = connected("/chat", 4096)
        link = client._link._socket
        link.sendall(client._connection.send('{"type":"join","ref":0,"room":"Lobby"}'))
        for ref in range(1, 40):
            ask = f'{{"type":"history","ref":{ref},"room":"Lobby"}}'
            link.sendall(client._connection.send(ask))
    eventually(
        lambda: sum(ws._transport.queued > limit // 2 for ws in hub.everyone()) == 40
    )
    other = connected("/chat")
    other.send('{"type":"ping","ref":1}')
    while '"ref":1' not in str(other.receive(DEADLINE)):
        pass


# -- those who send


@config(MAX_QUEUE=1 << 20, PING_TIMEOUT=20)
@pytest.mark.parametrize("threads", [1, 4])
def test_a_thread_that_sends_waits_for_a_peer_that_reads(
    threads: int, app: Flask, chat: WSChat, connected: Connect
) -> None:
    count, size = 400, 60_000
    errors: list[BaseException] = []

    def pour(ws: WebSocket, first: int) -> None:
        try:
            for number in range(first, count, threads):
                ws.send(b"%04d" % number + bytes(size))
        except BaseException as error:
            errors.append(error)

    @chat.route("/")
    def view(ws: WebSocket) -> None:
        started = [
            threading.Thread(target=pour, args=(ws, first)) for first in range(threads)
        ]
        for thread in started:
            thread.start()
        for _ in ws:
            pass

    client = connected("/")
    came = [client.receive(DEADLINE) for _ in range(count)]
    numbers = [int(message[:4]) for message in came]
    assert sorted(numbers) == list(range(count))
    for first in range(threads):
        assert [n for n in numbers if n % threads == first] == list(
            range(first, count, threads)
        )
    assert not errors


def test_a_thread_that_sends_to_nobody_who_reads_is_told(
    app: Flask, chat: WSChat, connected: Connect
) -> None:
    ended: list[BaseException] = []
    most: list[int] = []

    def pour(ws: WebSocket) -> None:
        try:
            while True:
                ws.send(b"x" * 9_000)
                most.append(ws._transport.queued + ws._posted)
        except BaseException as error:
            ended.append(error)

    @chat.route("/")
    def view(ws: WebSocket) -> None:
        thread = threading.Thread(target=pour, args=(ws,))
        thread.start()
        for _ in ws:
            pass

    connected("/", 4096)
    eventually(lambda: ended)
    assert isinstance(ended[0], ConnectionClosed) and ended[0].code == 1013
    assert max(most) < 20_000 + 2 * 9_010


def test_drop_oldest_drops_nothing_of_who_reads(
    app: Flask, kind: str, chat: WSChat, serve: Serve
) -> None:
    app = Flask("another")
    app.config.update(WSCHAT_SLOW_POLICY="drop_oldest", WSCHAT_MAX_QUEUE=10_000)
    chat = WSChat(app)
    chat.listener("/")(Quiet)
    count = 3_000

    @chat.route("/pour")
    def pour(ws: WebSocket) -> None:
        for number in range(count):
            chat.broadcast(f"{number:0100}")

    server = serve(app)
    client = connect(server.url("/"), compression=False, timeout=DEADLINE)
    came: list[Any] = []

    def read() -> None:
        with contextlib.suppress(ConnectionClosed):
            came.extend(client)

    thread = threading.Thread(target=read)
    thread.start()
    if kind == "greenlets":
        connect(server.url("/pour"), compression=False, timeout=DEADLINE).abort()
    else:
        for number in range(count):
            chat.broadcast(f"{number:0100}")
    with contextlib.suppress(AssertionError):
        eventually(lambda: len(came) >= count)
    client._link._socket.shutdown(socket.SHUT_RDWR)
    thread.join()
    client.abort()
    assert [int(message) for message in came] == list(range(count))


@config(PING_INTERVAL=60, PING_TIMEOUT=60)
def test_many_full_inboxes_keep_nobody_waiting_until_they_are_empty(
    chat: WSChat, connected: Connect
) -> None:
    """With threads there are fewer workers than connections that could use one."""
    count = 1000
    begun: set[str] = set()
    emptied: list[str] = []
    enough = threading.Event()

    @chat.listener("/busy")
    class Busy(Listener):
        left = count

        def on_message(self, ws: WebSocket, message: str | bytes) -> None:
            begun.add(ws.id)
            self.left -= 1
            if not self.left:
                emptied.append(ws.id)
            elif not enough.is_set():
                time.sleep(0.001)

    @chat.listener("/echo")
    class Echo(Listener):
        def on_message(self, ws: WebSocket, message: str | bytes) -> None:
            ws.send(message)

    busy = [connected("/busy") for _ in range(WORKERS + 8)]
    for client in busy:
        for _ in range(count):
            client.send("")
    eventually(lambda: len(begun) >= WORKERS)
    client = connected("/echo")
    client.send("my turn?")
    assert client.receive(DEADLINE) == "my turn?"
    assert not emptied, "it came when others had nothing more to do"
    enough.set()
    eventually(lambda: len(emptied) == len(busy))


@config(SLOW_POLICY="drop_oldest")
@pytest.mark.usefixtures("patient")
def test_a_default_timeout_of_sockets_does_not_stop_the_loop(
    chat: WSChat, connected: Connect
) -> None:
    """The loop itself would wait for whoever reads slowly."""

    @chat.route("/quiet")
    def be_quiet(ws: WebSocket) -> None:
        ws.join("all")
        ws.send("joined")
        ws.receive()

    @chat.route("/echo")
    def echo(ws: WebSocket) -> None:
        for message in ws:
            ws.send(message)

    other = connected("/echo")
    slow = connected("/quiet", buffer=4096)
    assert slow.receive(timeout=DEADLINE) == "joined"
    for _ in range(20):
        chat.broadcast(b"x" * 1_000_000, room="all")
    other.send("still there?")
    assert other.receive(timeout=DEADLINE) == "still there?"
