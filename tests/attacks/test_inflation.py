"""Few bytes that are much work, or become many: deflate bombs, pings, tiny frames."""

from __future__ import annotations

import contextlib
import functools
import json
import socket
import ssl
import subprocess
import sys
import threading
import urllib.request
import zlib
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import gevent
import pytest

from flask_wschat import ConnectionClosed, Listener, WebSocket
from flask_wschat.backends.memory import MemoryBackend
from flask_wschat.client import connect
from flask_wschat.codec import (
    ClientHandshake,
    Connection,
    Deflate,
    Opcode,
    connection,
    encode_frame,
)
from flask_wschat.hub.hub import Hub
from flask_wschat.incoming import INBOX_LIMIT
from flask_wschat.settings import Settings
from flask_wschat.transports.evented import EventedTransport
from flask_wschat.transports.tls import TLSSocket
from tests.codec.twins import TWINS
from tests.support import waiting
from tests.support.processes import Process
from tests.support.waiting import DEADLINE

MASK = b"mask"
eventually = functools.partial(waiting.eventually, sleep=gevent.sleep)
SIZE = (1 << 20) - 1
"""Of a bomb, inflated: all that the default limit lets pass."""


def packed(data: bytes) -> bytes:
    compressor = zlib.compressobj(wbits=-15)
    return (compressor.compress(data) + compressor.flush(zlib.Z_SYNC_FLUSH))[:-4]


BOMB = encode_frame(Opcode.TEXT, packed(b"x" * SIZE), rsv1=True, mask=MASK)
BOMBS = 60  # in one read
PING = encode_frame(Opcode.PING, b"", mask=MASK)
EMPTY = encode_frame(Opcode.CONTINUATION, b"", fin=False, mask=MASK)
LAST_BLOCKS = encode_frame(
    Opcode.BINARY, b"\x03\x00" * 30_000 + b"\0", rsv1=True, mask=MASK
)
FLOODS = {
    "bombs": BOMB * BOMBS,
    "pings": PING * 10_000,
    "fragments": encode_frame(Opcode.TEXT, b"", fin=False, mask=MASK)
    + EMPTY * 10_000
    + encode_frame(Opcode.CONTINUATION, b"", mask=MASK),
    "last-blocks": LAST_BLOCKS,
}
END = encode_frame(Opcode.TEXT, b"end", mask=MASK)
CLOSE = encode_frame(Opcode.CLOSE, b"\x03\xe8", mask=MASK)


class Noting(Listener):
    """Notes what comes, and that it is over."""

    app_context = False

    def __init__(self, name: str, notes: list[str]) -> None:
        self.name = name
        self.notes = notes

    def on_message(self, ws: WebSocket, message: str | bytes) -> None:
        if message == "end":
            self.notes.append(self.name)

    def on_close(self, ws: WebSocket, code: int, reason: str) -> None:
        self.notes.append(f"{self.name} {code}")


Open = Callable[[], tuple[socket.socket, WebSocket]]


@pytest.fixture(params=["plain", "tls"])
def open_socket(
    request: pytest.FixtureRequest, pair: tuple[Path, Path]
) -> Iterator[Open]:
    """A function that returns a client's socket and the server's end of it."""
    settings = Settings()
    hub = Hub(settings, MemoryBackend(), dumps=json.dumps, loads=json.loads)
    wrap = None
    if request.param == "tls":
        certificate, key = pair
        server = ssl.create_default_context(ssl.Purpose.CLIENT_AUTH)
        server.load_cert_chain(certificate, key)
        client = ssl.create_default_context(cafile=str(certificate))

        def wrap(
            peer: socket.socket, ours: socket.socket
        ) -> tuple[socket.socket, TLSSocket]:
            tls = server.wrap_socket(
                ours, server_side=True, do_handshake_on_connect=False
            )
            thread = threading.Thread(target=tls.do_handshake)
            thread.start()
            peer = client.wrap_socket(peer, server_hostname="127.0.0.1")
            thread.join()
            return peer, TLSSocket(tls, tls.close)

    with contextlib.ExitStack() as stack:

        def open_one() -> tuple[socket.socket, WebSocket]:
            peer, ours = socket.socketpair()
            sock: int | TLSSocket
            if wrap is None:
                ours.setblocking(False)
                sock = ours.detach()
            else:
                peer, sock = wrap(peer, ours)
            stack.callback(peer.close)
            transport = EventedTransport(sock, max_queue=settings.MAX_QUEUE)
            stack.callback(transport.abort)
            ws = WebSocket(transport, hub, Connection(deflate=Deflate(15, 15)))
            hub.register(ws, transport.loop)
            ws._start()
            return peer, ws

        yield open_one


@pytest.fixture(params=list(TWINS), autouse=True)
def twin(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> str:
    """The codec in C, where it is built, and in Python."""
    name: str = request.param
    module = TWINS[name]
    for attribute in ("FrameParser", "encode_frame"):
        monkeypatch.setattr(connection, attribute, getattr(module, attribute))
    return name


@pytest.mark.parametrize("kind", FLOODS)
def test_others_are_served_before_a_flood_is(open_socket: Open, kind: str) -> None:
    """Before any of three floods is over, as each takes many turns."""
    notes: list[str] = []
    clients = []
    for name in ("flood", "flood", "other", "flood"):
        client, ws = open_socket()
        ws._listen(Noting(name, notes))
        client.sendall(FLOODS[kind] + END if name == "flood" else END)
        clients.append(client)
    eventually(lambda: notes)
    assert notes[0] == "other"


def test_a_full_inbox_inflates_nothing(open_socket: Open) -> None:
    client, ws = open_socket()
    client.sendall(BOMB * BOMBS + END)
    for _ in range(BOMBS):
        eventually(lambda: ws._paused)
        gevent.sleep(0)
        assert ws._inbox is not None
        assert sum(map(len, ws._inbox)) <= INBOX_LIMIT + SIZE
        assert len(ws.receive(DEADLINE)) == SIZE
    assert ws.receive(DEADLINE) == "end"


def test_the_rest_of_a_read_stays_in_order(open_socket: Open) -> None:
    """With what is read later, and what is put in its place."""
    client, ws = open_socket()
    large = "large" * 60_000
    messages = ["a", "x" * SIZE, "b", large, "x" * SIZE, "c", large, "d"] * 3
    stream = b"".join(
        BOMB
        if len(message) == SIZE
        else encode_frame(Opcode.TEXT, message.encode(), mask=MASK)
        for message in messages
    )
    thread = threading.Thread(target=client.sendall, args=(stream + CLOSE,))
    thread.start()
    assert list(ws) == messages
    assert ws.close_code == 1000
    thread.join()


def test_the_end_comes_after_the_rest(open_socket: Open) -> None:
    client, ws = open_socket()
    client.sendall(BOMB * 5 + END)
    client.close()
    assert [len(message) for message in ws] == [SIZE] * 5 + [3]
    assert ws.close_code == 1006
    eventually(lambda: ws._gone)


def test_our_close_finds_the_answer_behind_the_rest(open_socket: Open) -> None:
    client, ws = open_socket()
    client.sendall(BOMB * BOMBS + PING * 3000 + CLOSE)
    eventually(lambda: ws._paused)
    ws.close(4000)
    eventually(lambda: ws._connection.state.value == "closed")
    with pytest.raises(ConnectionClosed):
        ws.receive()


def test_a_peer_may_vanish_amid_the_rest(open_socket: Open) -> None:
    client, ws = open_socket()
    client.sendall(BOMB * BOMBS + END)
    eventually(lambda: ws._paused)
    ws._transport.abort()
    assert not ws._connection.has_more
    assert [len(message) for message in ws] == [SIZE]
    notes: list[str] = []
    ws._listen(Noting("flood", notes))
    eventually(lambda: notes == ["flood 1006"])


class Flooded(Process):
    """``tests.attacks.flooded`` in a process of its own."""

    def __init__(self, twin: str, log: Path) -> None:
        env = {"WSCHAT_PUREPYTHON": "1"} if twin == "python" else {}
        command = [sys.executable, "-m", "tests.attacks.flooded"]
        super().__init__(command, log, env, stdin=subprocess.PIPE)
        self.start()
        self.address = f"127.0.0.1:{int(self.heard(chr(10)).split()[0])}"

    def ask(self, path: str, data: bytes | None = None) -> str:
        url = f"http://{self.address}{path}"
        with urllib.request.urlopen(url, data, timeout=DEADLINE) as answer:
            return str(answer.read().decode())

    def open(self, path: str) -> socket.socket:
        """Return the socket of an open connection with compression."""
        host, _, port = self.address.partition(":")
        sock = socket.create_connection((host, int(port)), timeout=DEADLINE)
        handshake = ClientHandshake(self.address, path, compression=True)
        sock.sendall(handshake.request())
        data = b""
        while handshake.receive_data(data) is None:
            data += sock.recv(1 << 16)
        return sock


@pytest.fixture
def flooded(twin: str, tmp_path: Path) -> Iterator[Flooded]:
    server = Flooded(twin, tmp_path / "log")
    yield server
    server.stdin.close()
    server.wait()


@pytest.mark.slow
@pytest.mark.timeout(120)
@pytest.mark.parametrize("path", ["/listen", "/block", "/legacy"])
def test_many_bombs_take_little_memory(flooded: Flooded, path: str) -> None:
    """120 MiB in 125 kB, while nobody reads them: it is as if they were not sent.

    A sixth of them would be too much: more connections have that in proportion.
    """
    before = int(flooded.ask("/peak"))
    sockets = []
    for _ in range(2):
        sock = flooded.open(f"{path}?count={BOMBS}")
        sock.sendall(BOMB * BOMBS)
        sockets.append(sock)
    client = connect(f"ws://{flooded.address}/echo", timeout=DEADLINE)
    for number in range(100):
        client.send(str(number))
        assert client.receive(DEADLINE) == str(number)
    flooded.ask("/go", b"")
    for sock in sockets:
        sock.settimeout(60)
        answer = connection.Connection(client=True).receive_data(sock.recv(1000))
        assert answer[0] == json.dumps([BOMBS, BOMBS * SIZE])
        sock.close()
    client.close()
    assert int(flooded.ask("/peak")) - before < 20 << 20


def test_what_is_not_whole_is_not_inflated(flooded: Flooded) -> None:
    before = int(flooded.ask("/peak"))
    begun = encode_frame(
        Opcode.TEXT, packed(b"x" * SIZE), fin=False, rsv1=True, mask=MASK
    )
    sockets = [flooded.open("/echo") for _ in range(50)]
    for sock in sockets:
        sock.sendall(begun + PING)
    for sock in sockets:
        assert sock.recv(2) == encode_frame(Opcode.PONG, b"")
        sock.close()
    assert int(flooded.ask("/peak")) - before < 20 << 20


def answers(client: socket.socket, last: bytes) -> bytes:
    """Return what comes up to ``last``; the server is in this thread."""
    client.settimeout(0)
    data = bytearray()

    def ended() -> bool:
        with contextlib.suppress(BlockingIOError, ssl.SSLWantReadError):
            data.extend(client.recv(1 << 16))
        return data.endswith(last)

    eventually(ended)
    return bytes(data)


def pings(numbers: range) -> bytes:
    return b"".join(
        encode_frame(Opcode.PING, b"%05d" % number, mask=MASK) for number in numbers
    )


def test_a_flood_of_pings_has_few_answers(open_socket: Open) -> None:
    client, _ = open_socket()
    client.sendall(pings(range(1900)))
    found = answers(client, b"01899")
    assert found.startswith(encode_frame(Opcode.PONG, b"00000"))
    assert len(found) < len(pings(range(1900))) // 4


def test_ten_pings_of_one_read_have_ten_answers(open_socket: Open) -> None:
    """Autobahn's case 2.10."""
    client, _ = open_socket()
    client.sendall(pings(range(10)))
    found = answers(client, b"00009")
    events: list[Any] = Connection(client=True).receive_data(found)
    assert [int(event.payload) for event in events] == list(range(10))
