"""Wires change nothing by themselves, can be spoilt, and leave nothing behind."""

from __future__ import annotations

import contextlib
import json
import signal
import socket
import ssl
import struct
import sys
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any
from urllib.request import urlopen

import gevent.ssl
import pytest
from websockets.exceptions import ConnectionClosedError
from websockets.sync.client import ClientConnection
from websockets.sync.client import connect as foreign

from tests.servers.serving import gunicorn_command
from tests.support.live import Serve
from tests.support.ports import free_port
from tests.support.processes import Process
from tests.support.waiting import LONG, eventually

pytestmark = [pytest.mark.slow, pytest.mark.timeout(30)]

MODULE = "tests.demos.wired"
OURS = gunicorn_command("flask_wschat.gunicorn.GeventWebSocketWorker", "127.0.0.1:PORT")
COMMANDS = {
    "gevent": ("patched", ["-m", MODULE]),
    "threads": ("plain", ["-m", "flask", "--app", MODULE, "run", "-p", "PORT"]),
    "gunicorn": ("", ["-m", "gunicorn", f"{MODULE}:app", *OURS[3:]]),
}
RESET = struct.pack("ii", 1, 0)


class Wired(Process):
    def __init__(self, way: str, log: Path) -> None:
        self.port = free_port()
        forked, command = COMMANDS[way]
        command = [word.replace("PORT", str(self.port)) for word in command]
        if not forked:
            command = [sys.executable, *command]
        super().__init__(command, log, {"PORT": str(self.port)}, forked=forked)
        self.start()
        self.await_port(self.port)

    def get(self, path: str) -> bytes:
        with urlopen(f"http://127.0.0.1:{self.port}{path}", timeout=LONG) as answer:
            data: bytes = answer.read()
            return data

    def ask(self, path: str) -> Any:
        return json.loads(self.get(path))

    def connect(self, path: str = "/ws/echo") -> ClientConnection:
        client = foreign(
            f"ws://127.0.0.1:{self.port}{path}",
            proxy=None,
            compression=None,
            max_size=None,
            ping_interval=None,
        ).__enter__()
        host, port = client.local_address
        assert client.recv(LONG) == f"you are {host}:{port}"
        return client


@pytest.fixture(scope="module", params=list(COMMANDS))
def wired(
    request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory
) -> Iterator[Wired]:
    server = Wired(request.param, tmp_path_factory.mktemp("wired") / "log")
    yield server
    server.end(signal.SIGINT if request.param == "threads" else signal.SIGTERM)
    # Of the tap that fails, as is wanted, once.
    assert server.log.count("Traceback") == server.log.count("a tap failed") <= 1, (
        server.log
    )


def test_bytes_pass_as_they_are(wired: Wired) -> None:
    with wired.connect() as client:
        for size in (0, 1, 125, 126, 65_535, 65_536, 900_000):
            client.send(b"x" * size)
            assert client.recv(LONG) == b"x" * size
        client.send("wire")
        assert client.recv(LONG) == "True"
        client.send("bye")
        with pytest.raises(Exception, match=r"1000.*bye"):
            client.recv(LONG)
    assert wired.get("/ws/http") == b"no wire: True"
    with wired.connect("/plain") as client:
        client.send("wire")
        assert client.recv(LONG) == "False"


def test_taps_hear_every_byte(wired: Wired) -> None:
    with wired.connect("/ws/tapped") as client:
        client.send("hello")
        assert client.recv(LONG) == "hello"
        seen = wired.ask("/seen")
        client.send("bad")
        assert client.recv(LONG) == "fun"  # what a tap has made of it
        host, port = client.local_address
    greeting = f"you are {host}:{port}".encode()
    assert bytes.fromhex(seen["sent"]) == (
        b"\x81%c%s\x81\x05hello" % (len(greeting), greeting)
    )
    frame = bytes.fromhex(seen["received"])
    assert frame[:2] == b"\x81\x85"
    unmasked = bytes(byte ^ frame[2 + at % 4] for at, byte in enumerate(frame[6:]))
    assert unmasked == b"hello"


def test_a_cut_is_a_reset_for_both(wired: Wired) -> None:
    client = wired.connect()
    client.send("cut")
    with pytest.raises(ConnectionClosedError) as caught:
        client.recv(LONG)
    assert isinstance(caught.value.__cause__, ConnectionResetError)


def test_what_was_frozen_comes_later(wired: Wired) -> None:
    with wired.connect() as client:
        begun = time.monotonic()
        client.send("freeze 0.3")
        for number in range(10):
            client.send(str(number))
        words = [client.recv(LONG) for _ in range(11)]
        assert words == ["freeze 0.3", *map(str, range(10))]
        assert time.monotonic() - begun >= 0.3


def test_what_was_swallowed_never_comes(wired: Wired) -> None:
    client = wired.connect()
    client.send("swallow 0.3")
    client.send("lost")
    begun = time.monotonic()
    with pytest.raises(ConnectionClosedError):  # then it is cut
        client.recv(LONG)
    assert time.monotonic() - begun >= 0.2


def test_nothing_is_left(wired: Wired) -> None:
    def open_and_leave(count: int) -> None:
        for number in range(count):
            sock = socket.create_connection(("127.0.0.1", wired.port), LONG)
            sock.sendall(HANDSHAKE + [b"", *ENDS][number % (len(ENDS) + 1)])
            with contextlib.suppress(OSError):  # it asked for that
                assert sock.recv(1024).startswith(b"HTTP/1.1 101")
                if number % 3 == 0:
                    sock.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, RESET)
                elif number % 3 == 1:
                    sock.shutdown(socket.SHUT_WR)
                    while sock.recv(1024):
                        pass
            sock.close()

    def left() -> tuple[int, int]:
        found = wired.ask("/left")
        return found["wires"], found["descriptors"]

    open_and_leave(20)  # servers keep threads and more for those who come next
    eventually(lambda: left()[0] == 0, "no wire is left", LONG)
    most = left()[1] + 5  # what the last ones give back just now
    open_and_leave(200)
    eventually(
        lambda: left() <= (0, most), lambda: f"{left()} is more than (0, {most})", LONG
    )


def test_tls_has_no_wire(serve: Serve, pair: tuple[Path, Path]) -> None:
    from tests.demos.wired import app  # it is of this process only where it is here

    ours = gevent.ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    ours.load_cert_chain(*pair)
    url = serve(app, ssl_context=ours).url("/ws/echo", "wss")
    context = ssl.create_default_context(cafile=str(pair[0]))
    with foreign(url, ssl=context, proxy=None, ping_interval=None) as client:
        client.recv(LONG)
        client.send("wire")
        assert client.recv(LONG) == "False"


HANDSHAKE = (
    b"GET /ws/echo HTTP/1.1\r\nHost: 127.0.0.1\r\nUpgrade: websocket\r\n"
    b"Connection: Upgrade\r\nSec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==\r\n"
    b"Sec-WebSocket-Version: 13\r\n\r\n"
)
ENDS = [
    b"\x81\x83\0\0\0\0cut",
    b"\x81\x83\0\0\0\0bye",
    b"\x81\x8a\0\0\0\0freeze 0.1",
    b"\x81\x8b\0\0\0\0swallow 0.2",
    b"\xff",
]
"""What comes with the handshake, in its packet."""
