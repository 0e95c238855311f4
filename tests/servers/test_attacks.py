"""Hostile clients, by each way that bytes take: nobody else notices, nothing is left.

The ways are: gevent's server, threads, threads of a limited number behind TLS that the
server keeps, gevent behind TLS. What else the contract's servers differ in is how a
socket is found.
"""

from __future__ import annotations

import contextlib
import functools
import itertools
import json
import math
import os
import signal
import socket
import ssl
import threading
import time
import zlib
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from flask_wschat.codec import ClientHandshake, Closed, Opcode, encode_frame

from .serving import (
    DEADLINE,
    KINDS,
    THREADS,
    Kind,
    RawClient,
    Server,
    eventually,
    with_settings,
)

pytestmark = [
    pytest.mark.slow,
    pytest.mark.timeout(90),
    pytest.mark.skipif(
        not Path("/proc/self/clear_refs").exists(), reason="/proc is Linux's"
    ),
]

MIB = 1 << 20
SANE = 0.5
"""Seconds that 99 of 100 answers take at most, on a machine that has more to do."""
frame = functools.partial(encode_frame, mask=bytes(4))
text = functools.partial(frame, Opcode.TEXT)


ATTACKED = [
    with_settings(name, MAX_MESSAGE=MIB, MAX_QUEUE=MIB // 4)
    for name in ("plain", "flask", "ours-tls", "gthread-tls")
]
attacked = pytest.mark.parametrize(
    "started", ATTACKED, indirect=True, ids=lambda kind: kind.name, scope="module"
)


def at_most(kind: Kind, count: int) -> int:
    """Return how many connections to try, of ``count``.

    gunicorn's thread keeps a TLS socket, so that each of its few has one.
    """
    return min(count, THREADS - 2) if kind.name == "gthread-tls" else count


class Healthy:
    """A client that says something fifty times a second, and has each answered."""

    def __init__(self, server: Server) -> None:
        self._client = RawClient(server).open("/listen")
        self._ended = threading.Event()
        self._thread = threading.Thread(target=self._talk)
        self._took: list[float] = []

    def __enter__(self) -> Healthy:
        self._thread.start()
        return self

    def __exit__(self, *error: object) -> None:
        self._ended.set()
        self._thread.join()
        self._client.socket.close()

    def _talk(self) -> None:
        events = self._client.events()
        for number in itertools.count():
            began, took = time.monotonic(), math.inf
            with contextlib.suppress(OSError):
                self._client.socket.sendall(self._client.connection.send(f"{number}"))
                if next(events, None) == f"{number}":
                    took = time.monotonic() - began
            self._took.append(took)
            if self._ended.wait(0.02) or took == math.inf:
                return

    @property
    def p99(self) -> float:
        return sorted(self._took)[int(0.99 * (len(self._took) - 1))]


@contextlib.contextmanager
def under_attack(server: Server, memory: int) -> Iterator[None]:
    """See that a healthy client is served meanwhile, and what is left afterwards.

    ``memory``: bytes that the attack may cost, in all.
    """
    with RawClient(server) as client:  # whatever is made only once
        client.open("/listen")
    # To look is 50 ms of the server's time, as it collects its garbage first.
    rarely = functools.partial(eventually, sleep=lambda _: time.sleep(0.2))
    rarely(lambda: server.holds()["connections"] == 0, "those before are gone")
    before = server.holds()
    size = server.memory()
    with Healthy(server) as healthy:
        yield
    assert server.running, server.log
    assert healthy.p99 < SANE
    assert server.most_memory() - size < memory
    rarely(lambda: not server.left(before), lambda: f"{server.left(before)} goes")
    if server.kind.gevent:  # it prints openings that were cut off
        assert "/flask_wschat/" not in server.log, server.log
        server.forget_log()


def send_all(client: RawClient, *parts: bytes) -> None:
    """Send until the other side has had enough, or takes nothing for a moment."""
    client.socket.settimeout(0.5)
    with contextlib.suppress(OSError):
        for part in parts:
            client.socket.sendall(part)
    client.socket.settimeout(DEADLINE)


def at_once(calls: list[Callable[[], None]]) -> None:
    threads = [threading.Thread(target=call) for call in calls]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()


def end_of(client: RawClient) -> int | None:
    """Return the code of the close frame, None if it was lost in a reset.

    Of which OpenSSL 3.5 sees the end alone.
    """
    with contextlib.suppress(ConnectionError, ssl.SSLError):
        for event in client.events():
            if isinstance(event, Closed):
                return event.code
    return None


@attacked
def test_bombs(server: Server) -> None:
    """Each is a message of 1 GiB, of which no more than the limit is inflated."""
    deflate = zlib.compressobj(wbits=-15)
    part = deflate.compress(bytes(MIB)) + deflate.flush(zlib.Z_FULL_FLUSH)
    bomb = frame(Opcode.BINARY, part * 1024, rsv1=True)
    offer = ("Sec-WebSocket-Extensions", "permessage-deflate")
    with under_attack(server, 32 * MIB):
        for _ in range(20):
            with RawClient(server) as client:
                request = ClientHandshake("127.0.0.1", "/listen", headers=[offer])
                client.socket.sendall(request.request())
                answer = b""
                while b"\r\n\r\n" not in answer:
                    answer += client.socket.recv(65536)
                assert b"permessage-deflate" in answer
                send_all(client, bomb)
                assert end_of(client) in (1009, None)


PING, PONG = frame(Opcode.PING, b"x" * 9), frame(Opcode.PONG, b"x" * 9)
BEGIN = frame(Opcode.TEXT, b"", fin=False)
EMPTY = frame(Opcode.CONTINUATION, b"", fin=False)
FLOODS = [
    ("/listen", b"", PING, 1008),
    ("/listen", b"", PONG, 1008),
    ("/listen", BEGIN, EMPTY, 1008),
    ("/listen", b"", text(b"x"), 0),  # it is answered until its client has to read
    ("/chat?user=eve", b"", text(b"no json"), 1008),
    ("/chat?user=eve", b"", text(b'{"type":"who","ref":1,"room":"a"}'), 1008),
]


@attacked
def test_floods_of_frames(server: Server) -> None:
    with under_attack(server, 32 * MIB), contextlib.ExitStack() as stack:
        for path, first, more, code in FLOODS:
            clients = [
                stack.enter_context(RawClient(server).open(path)) for _ in range(3)
            ]
            parts = [first, *[more * 500] * 40]
            at_once([functools.partial(send_all, each, *parts) for each in clients])
            for client in clients:
                assert not code or end_of(client) in (code, None)
                client.reset()


@attacked
def test_slow_clients(server: Server) -> None:
    """A byte now and then, of frames and openings; and large frames only begun."""
    large, small = frame(Opcode.BINARY, bytes(MIB)), text(b"drip")
    opening = ClientHandshake("127.0.0.1", "/listen").request()
    count = at_most(server.kind, 100)
    with under_attack(server, (count // 2 + 16) * MIB), contextlib.ExitStack() as stack:
        clients = [
            stack.enter_context(RawClient(server).open("/listen")) for _ in range(count)
        ]
        for client in clients[::2]:
            client.socket.sendall(large[:5000])
        for at in range(len(small)):
            for client in clients[1::2]:
                client.socket.sendall(small[at : at + 1])
        for client in clients[1::2]:
            assert next(client.events()) == "drip"
        for number in range(at_most(server.kind, 50) if count == 100 else 0):
            sock = stack.enter_context(server.socket())
            sock.sendall(opening[: number + 1])
        assert server.http("/page") == (200, "a page")


@attacked
def test_resets(server: Server) -> None:
    """In openings, in messages, and with answers under way."""
    cut = b"\x16\x03\x01\x02\x00\x01" if server.kind.tls else b"GET /listen HT"
    join = text(b'{"type":"join","ref":1,"room":"a"}')
    with under_attack(server, 32 * MIB):
        for number in range(200 if server.kind.tls else 500):
            if number % 5 == 0:
                with server.raw_socket() as sock:
                    sock.sendall(cut)
                continue
            client = RawClient(server)
            client.open("/room" if number % 2 else "/chat?user=ann")
            with contextlib.suppress(OSError):
                if number % 5 == 1:
                    client.socket.sendall(text(b"x" * 100_000)[:50_000])
                elif number % 5 == 2:
                    client.socket.sendall(join * 3)
            client.reset()


@attacked
def test_two_hundred_who_never_read(server: Server) -> None:
    """While one speaks 5,000 times to all, and reads."""
    said = "x" * 500
    with under_attack(server, 64 * MIB), contextlib.ExitStack() as stack:
        unread = [
            stack.enter_context(RawClient(server, SO_RCVBUF=4096).open("/room"))
            for _ in range(at_most(server.kind, 200) - 1)
        ]
        speaker = stack.enter_context(RawClient(server).open("/room"))
        events = speaker.events()
        assert next(events) == "joined"
        for _ in range(50):
            speaker.socket.sendall(text(said.encode()) * 100)
            assert [next(events) for _ in range(100)] == [said] * 100
        assert end_of(unread[0]) == 1013


class Talker(RawClient):
    """A client of the ready-made chat."""

    def __init__(self, server: Server, user: str) -> None:
        super().__init__(server)
        self.open(f"/chat?user={user}")
        self._events = self.events()
        self._ref = 0

    def __enter__(self) -> Talker:
        return self

    def request(self, kind: str, **fields: Any) -> bytes:
        self._ref += 1
        return text(json.dumps({"type": kind, "ref": self._ref, **fields}).encode())

    def ask(self, kind: str, **fields: Any) -> dict[str, Any]:
        self.socket.sendall(self.request(kind, **fields))
        for event in self._events:
            assert isinstance(event, str), event
            answer: dict[str, Any] = json.loads(event)
            if answer.get("ref") == self._ref:
                return answer
        raise AssertionError("the end")

    def flood(self, kind: str, count: int, **fields: Any) -> None:
        """Send so many, each with a number for ``#``, and read nothing."""
        send_all(
            self,
            b"".join(
                self.request(
                    kind,
                    **{
                        key: value.replace("#", f"{n}") for key, value in fields.items()
                    },
                )
                for n in range(count)
            ),
        )


CHAT_FLOODS: list[tuple[str, int, dict[str, str], int]] = [
    ("say", 500, {"room": "Lobby", "data": "x", "mid": "#"}, 1008),
    ("join", 500, {"room": "room #"}, 1008),
    ("tell", 500, {"to": "ann", "data": "x" * 500, "mid": "#"}, 1008),
    ("say", 64, {"room": "Den", "data": "x" * 16_000, "mid": "#"}, 0),
]


@attacked
def test_floods_of_the_chat(server: Server) -> None:
    """Over all limits, and within them by who does not read what comes of it."""
    with under_attack(server, 32 * MIB), contextlib.ExitStack() as stack:
        ann, bob = (
            stack.enter_context(Talker(server, name)) for name in ("ann", "bob")
        )
        for each in (ann, bob):
            assert each.ask("join", room="Lobby")["ok"]
        for number, (kind, count, fields, code) in enumerate(CHAT_FLOODS):
            with contextlib.ExitStack() as floods:
                eves = [
                    floods.enter_context(Talker(server, f"eve-{number}-{name}"))
                    for name in range(at_most(server.kind, 8) // 2 - 1)
                ]
                for eve in eves:
                    assert eve.ask("join", room="Den" if not code else "Lobby")["ok"]
                at_once(
                    [
                        functools.partial(eve.flood, kind, count, **fields)
                        for eve in eves
                    ]
                )
                assert bob.ask("tell", to="ann", data=kind, mid=f"{number}")["ok"]
                assert ann.ask("say", room="Lobby", data=kind, mid=f"{number}")["ok"]
                for eve in eves:
                    assert not code or end_of(eve) in (code, None)


DRAIN = 2
CLOSE = b"\x88\x11\x03\xf4service restart"
# All with a socket of this process, which may have no more than 1,024.
CROWDS = {"run": 900, "flask": 500, "gthread": 500, "flask-tls": 100}
CROWD = int(os.environ.get("CROWD", "0"))
if CROWD:
    plain = (kind for kind in KINDS if not (kind.tls or kind.unix))
    CROWDS = {kind.name: CROWD for kind in plain if not kind.stops_worker}


@pytest.mark.parametrize("name", CROWDS)
@pytest.mark.pain(19)
def test_sigterm_tells_a_crowd(
    name: str, tmp_path: Path, request: pytest.FixtureRequest
) -> None:
    """And does not wait for those of them who do not listen.

    ``CROWD=2000 pytest tests/servers/test_attacks.py -k sigterm``: so many, on each
    server.
    """
    kind = with_settings(name, DRAIN=DRAIN)
    pair = request.getfixturevalue("pair") if kind.tls else (tmp_path, tmp_path)
    server = Server(kind, tmp_path, pair)
    server.ensure()
    with contextlib.ExitStack() as stack:
        deaf = [
            stack.enter_context(RawClient(server, SO_RCVBUF=4096).open("/room"))
            for _ in range(20)
        ]
        crowd = [
            stack.enter_context(RawClient(server).open("/listen"))
            for _ in range(CROWDS[name])
        ]
        for client in deaf:
            send_all(client, text(b"x" * 1000) * 100)
        server.signal(signal.SIGTERM)
        began = time.monotonic()
        ends = {everything(client.socket) for client in crowd}
        server.wait()
        assert time.monotonic() - began < DRAIN + 3
    assert ends == {CLOSE}
    server.check_log()


def everything(sock: socket.socket) -> bytes:
    """Return what comes until the end, and let go."""
    data = b""
    with sock, contextlib.suppress(ConnectionError):
        while more := sock.recv(65536):
            data += more
    return data
