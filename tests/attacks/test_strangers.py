"""Many who come and are no clients: refused, reset, or gone in the middle of a request.

``CLIENTS=20000 pytest -s tests/attacks/test_strangers.py`` does it with so many of each
kind, and prints what a server holds before and after.
"""

from __future__ import annotations

import contextlib
import json
import os
import socket
import struct
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
from flask import Flask, request

from flask_wschat import Listener, WebSocket, WSChat
from flask_wschat.transports.loop import IDLE_WORKERS
from flask_wschat.transports.threaded import OWN_WORKERS, WORKERS
from tests.support.live import Serve
from tests.support.redis_server import RedisServer

from ..servers.serving import (
    DEADLINE,
    OUR_WORKER,
    THREADS,
    Kind,
    Server,
    eventually,
    gunicorn_command,
)
from .raw import read_status, send_opening

CLIENTS = int(os.environ.get("CLIENTS", "240"))
SLACK = {"objects": 100, "memory": 4096, "descriptors": 3}
"""What may be more, of any number of clients; memory in KiB, kept by the allocator.

A descriptor may be that of the connection that asks."""
POOLS = {
    "greenlets": IDLE_WORKERS,
    "threads": THREADS + WORKERS + OWN_WORKERS + 2,  # the first one, and our loop's
}
"""What is made when it is needed, and stays, up to so many."""
PER_WORKER = 40
"""Objects that come with each of those."""

_SERVE = ("-m", "tests.servers.serve")
_GTHREAD = ("--threads", str(THREADS))
KINDS = [
    Kind("run", (*_SERVE, "run", "ADDRESS")),
    Kind("plain", (*_SERVE, "plain", "ADDRESS")),
    Kind("gthread", tuple(gunicorn_command("gthread", "127.0.0.1:ADDRESS", *_GTHREAD))),
    Kind("our-worker", tuple(gunicorn_command(OUR_WORKER, "127.0.0.1:ADDRESS"))),
    Kind(
        "flask", ("-m", "flask", "--app", "tests.servers.app", "run", "-p", "ADDRESS")
    ),
]


@pytest.fixture(scope="module", params=KINDS, ids=lambda kind: kind.name)
def server(
    request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory
) -> Iterator[Server]:
    nothing = Path(os.devnull)
    server = Server(
        request.param, tmp_path_factory.mktemp("server"), (nothing, nothing)
    )
    server.ensure()
    yield server
    server.stop()


def refused(server: Server, number: int) -> None:
    with contextlib.ExitStack() as stack:
        for path, header in (
            ("/listen", "Origin: http://evil.example"),
            ("/no", "A: b"),
        ):
            sock = stack.enter_context(server.socket())
            send_opening(sock, path, header, "Connection: close", host="a")
            answer = sock.recv(65536)
            assert answer[:12] in (b"HTTP/1.1 403", b"HTTP/1.1 404", b"HTTP/1.0 404")


def reset(server: Server, number: int) -> None:
    with contextlib.ExitStack() as stack:
        path = f"/room?user=u{number % 50}"
        for _ in range(2):
            sock = stack.enter_context(server.socket())
            send_opening(sock, path, host="a")
            assert sock.recv(65536).startswith(b"HTTP/1.1 101")
            linger = struct.pack("ii", 1, 0)
            sock.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, linger)


def left(server: Server, number: int) -> None:
    head = b"GET /listen HTTP/1.1\r\nHost: a\r\nUpgrade: websocket\r\nConnection: Upg"
    post = b"POST /said/1 HTTP/1.1\r\nHost: a\r\nContent-Length: 9\r\n\r\nhalf"
    for data in (head[: number % len(head)], post):
        with server.socket() as sock:
            sock.sendall(data)


STRANGERS: dict[str, Callable[[Server, int], None]] = {
    "refused": refused,
    "reset": reset,
    "half": left,
}


def held(server: Server) -> dict[str, int]:
    """Return what the server holds, once that is as little as it gets."""
    found: dict[str, int] = {}

    def nobody() -> bool:
        found.update(json.loads(server.http("/holds")[1]))
        return found["connections"] == 0

    eventually(nobody)
    status = Path(f"/proc/{server.pid}/status").read_text()
    found["memory"] = int(status.partition("VmRSS:")[2].split()[0])
    return found


@pytest.mark.slow
@pytest.mark.timeout(max(60, CLIENTS // 10))
@pytest.mark.parametrize("kind", STRANGERS)
def test_strangers_leave_nothing_behind(server: Server, kind: str) -> None:
    come = STRANGERS[kind]
    for number in range(60):  # what is made once is made now
        come(server, number)
    before = held(server)
    for number in range(CLIENTS // 2):
        come(server, number)

    def more() -> dict[str, tuple[int, int]]:
        after = held(server)
        workers = sum(after[name] - before[name] for name in POOLS)
        slack = SLACK | {"objects": SLACK["objects"] + PER_WORKER * max(workers, 0)}
        return {
            name: (count, after[name])
            for name, count in before.items()
            if after[name] > max(count + slack.get(name, 0), POOLS.get(name, 0))
        }

    with contextlib.suppress(AssertionError):
        # To look is 50 ms of the server's time, as it collects its garbage first.
        eventually(
            lambda: not more(), seconds=DEADLINE / 3, sleep=lambda _: time.sleep(0.2)
        )
    print(f"\n{server.kind.name}, {CLIENTS} {kind}: {before} -> {held(server)}")
    assert more() == {}


@pytest.mark.parametrize("kind", ["refused", "reset"])
def test_strangers_leave_no_keys_behind(
    app: Flask, serve: Serve, redis: RedisServer, kind: str
) -> None:
    app.config["WSCHAT_URL"] = redis.url
    chat = WSChat(app)
    chat.authenticate(lambda: request.args["user"])

    @chat.listener("/room")
    class Room(Listener):
        def on_open(self, ws: WebSocket) -> None:
            ws.join("room")

    server = serve(app)

    def come(number: int) -> None:
        with server.socket() as sock:
            header = "Origin: http://evil.example" if kind == "refused" else "A: b"
            path = f"/room?user=u{number}"
            send_opening(sock, path, header, host=f"127.0.0.1:{server.port}")
            assert read_status(sock) == (403 if kind == "refused" else 101)
            if kind == "reset":
                linger = struct.pack("ii", 1, 0)
                sock.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, linger)

    def keys() -> set[bytes | str]:
        with redis.client() as client:
            return set(client.keys("*"))

    with server.connect("/room?user=ann"):
        eventually(lambda: chat.online("room") == ["ann"])
    eventually(lambda: not chat.online() and not chat._hub().count())
    before = keys()
    for number in range(100):
        come(number)
    eventually(lambda: not chat._hub().count(), "all are gone")
    eventually(lambda: keys() <= before, lambda: f"no key of {keys() - before}")
    assert chat.online("room") == []
