"""``WSCHAT_MAX_QUEUED`` on real sockets: with greenlets, with threads, over TLS."""

from __future__ import annotations

import contextlib
import socket
import ssl
import threading
from collections.abc import Callable, Iterator

import pytest
from flask import Flask

from flask_wschat import Listener, WebSocket, WSChat
from flask_wschat.client import Client, open_over
from flask_wschat.codec import ClientHandshake
from flask_wschat.errors import ConnectionClosed
from flask_wschat.hub.hub import Hub
from tests.support.live import Serve
from tests.support.threaded import serve_threaded
from tests.support.waiting import DEADLINE, LONG, eventually

LIMIT = 4 << 20
Connect = Callable[..., Client]


@pytest.fixture
def app() -> Flask:
    app = Flask("an_app")
    app.config.update(WSCHAT_MAX_QUEUE=1 << 20, WSCHAT_MAX_QUEUED=LIMIT)
    return app


@pytest.fixture
def hub(app: Flask, chat: WSChat) -> Hub:
    hub: Hub = app.extensions["wschat.hub"]
    return hub


@pytest.fixture(params=["greenlets", "threads", "TLS"])
def connected(
    request: pytest.FixtureRequest,
    app: Flask,
    chat: WSChat,
    serve: Serve,
) -> Iterator[Connect]:
    with contextlib.ExitStack() as stack:
        trust = None
        if request.param == "greenlets":
            port = serve(app).port
        else:
            files = None
            if request.param == "TLS":
                certificate, key = request.getfixturevalue("pair")
                files = str(certificate), str(key)
                trust = ssl.create_default_context(cafile=str(certificate))
            port = stack.enter_context(serve_threaded(app, files))

        def open_client(path: str, buffer: int = 0) -> Client:
            sock = socket.socket()
            if buffer:
                sock.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, buffer)
            sock.connect(("127.0.0.1", port))
            if trust is not None:
                sock = trust.wrap_socket(sock, server_hostname="127.0.0.1")
            client = open_over(sock, ClientHandshake("127.0.0.1", path), LONG)
            stack.callback(client.abort)
            return client

        yield open_client


class Quiet(Listener):
    """Says nothing by itself."""


def held(hub: Hub) -> int:
    """Return what is held, as the loop sees it between two turns."""
    loop = hub.home.loop
    assert loop is not None
    return loop.call(hub.backlog.held)


def test_threads_that_send_to_each_stay_under_it(
    hub: Hub, chat: WSChat, connected: Connect
) -> None:
    """Each queue has room for what it gets; all of them have not."""
    chat.listener("/")(Quiet)
    slow = 24
    for _ in range(slow):
        connected("/", 4096)
    eventually(lambda: hub.count() == slow)
    sockets: list[WebSocket] = list(hub.everyone())

    def pour(ws: WebSocket) -> None:
        with contextlib.suppress(ConnectionClosed):
            for _ in range(30):  # 0.7 MB of it is in the kernel
                ws.send(bytes(60_000))

    threads = [threading.Thread(target=pour, args=(ws,)) for ws in sockets]
    for thread in threads:
        thread.start()
    most = 0
    while any(thread.is_alive() for thread in threads):
        most = max(most, held(hub))
        if hub.figures["slow_closes"]:
            break
    eventually(lambda: hub.figures["slow_closes"] > 0)
    codes = [ws.close_code for ws in sockets if ws.closed]
    assert most < LIMIT
    assert held(hub) < LIMIT
    assert set(codes) == {1013}
    assert len(codes) < slow
    loop = hub.home.loop
    assert loop is not None
    for ws in sockets:
        loop.call(ws._transport.abort)
    for thread in threads:
        thread.join(DEADLINE)
        assert not thread.is_alive()
    assert hub.backlog.posted == 0


def test_who_reads_gets_all_while_others_read_nothing(
    hub: Hub, chat: WSChat, connected: Connect
) -> None:
    chat.listener("/")(Quiet)
    count, slow = 60, 8
    for _ in range(slow):
        connected("/", 4096)
    reader = connected("/")
    eventually(lambda: hub.count() == slow + 1)
    came: list[str | bytes] = []

    def read() -> None:
        with contextlib.suppress(ConnectionClosed):
            while len(came) < count:
                came.append(reader.receive())

    thread = threading.Thread(target=read)
    thread.start()
    for number in range(count):
        chat.broadcast(b"%03d" % number + bytes(100_000))
        while len(came) <= number:
            thread.join(0.001)
            assert thread.is_alive() or len(came) > number
        assert held(hub) < LIMIT
    thread.join(LONG)
    reader.close()
    assert [int(message[:3]) for message in came] == list(range(count))
