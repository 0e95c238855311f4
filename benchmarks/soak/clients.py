"""Clients of a soak: those that behave, and those that do not.

Each is a greenlet that goes on until ``Load.stop``; this process is patched by gevent.
"""

from __future__ import annotations

import collections
import contextlib
import http.client
import itertools
import json
import os
import random
import socket
import struct
import time
import zlib
from collections.abc import Callable, Iterator
from typing import Any

import gevent
import gevent.event

from flask_wschat.client import Client, open_over
from flask_wschat.codec import ClientHandshake
from flask_wschat.errors import ConnectionClosed, HandshakeError

PATIENCE = 20.0
"""Seconds that an answer may take."""
MOST_TOLD = 20
"""Faults that are shown."""
Json = dict[str, Any]


class Wrong(Exception):
    """The server did what it must not do."""


class Load:
    """All clients of one server; ``many`` of the well-behaved, of each kind.

    ``holes``: the storage fails now and then, so that broadcasts may be missing.
    """

    def __init__(self, port: int, many: int, seed: int, *, holes: bool) -> None:
        self.port = port
        self.counts: collections.Counter[str] = collections.Counter()
        self.faults: list[str] = []
        self.sockets: set[socket.socket] = set()
        self._seeds = itertools.count(seed)
        self._many = many
        self._holes = 1_000_000 if holes else 0
        self._ended = gevent.event.Event()
        self._running: list[gevent.Greenlet[..., Any]] = []
        self._visitor = itertools.count()

    def start(self) -> None:
        self._ended.clear()
        kinds: list[tuple[Callable[[random.Random, int], Any], int]] = [
            (self._echo, self._many),
            (self._fan, self._many),
            (self._member, self._many),
            (self._visit, 3),
            (self._slow, 3),
            (self._refused, 2),
            (self._half, 2),
            (self._junk, 2),
            (self._flood, 2),
            (self._killer, 1),
        ]
        for client, count in kinds:
            for number in range(count):
                self._running.append(gevent.spawn(self._go_on, client, number))

    def stop(self) -> None:
        """End every client, and their connections, in whatever they do."""
        self._ended.set()
        for sock in list(self.sockets):
            with contextlib.suppress(OSError):
                sock.shutdown(socket.SHUT_RDWR)
        gevent.joinall(self._running, timeout=PATIENCE + 5)
        left = [each for each in self._running if not each.ready()]
        if left:
            self.faults.append(f"{len(left)} clients wait for ever")
            gevent.killall(left)
        self._running.clear()

    def probe(self) -> None:
        """Be somebody who comes, says a word, and goes."""
        with self._open("/chat?user=probe") as (client, _):
            member = Member(client, {"probed": {}}, self.counts)
            member.act(random.Random(0), votes=False)
            client.close()

    def _go_on(self, client: Callable[[random.Random, int], Any], number: int) -> None:
        chance = random.Random(next(self._seeds))
        while not self._ended.is_set():
            try:
                client(chance, number)
            except HandshakeError as error:
                self.counts[f"refused {error.status}"] += 1
                if error.status == 500:  # 502: it was cut off on the way
                    self._note(client, error)
            except ConnectionClosed as error:
                self.counts[f"closed {error.code}"] += 1
                if error.code == 1011:
                    self._note(client, error)
            except OSError as error:
                self.counts[type(error).__name__] += 1
                if isinstance(error, TimeoutError) and not self._ended.is_set():
                    self._note(client, error)
            except Exception as error:
                if not self._ended.is_set():
                    self._note(client, error)
            self._ended.wait(chance.uniform(0.05, 0.5))

    def _note(self, client: Callable[..., Any], error: Exception) -> None:
        name = getattr(client, "__name__", "?")
        self.faults.append(f"{name}: {type(error).__name__}: {error}")
        if len(self.faults) <= MOST_TOLD:
            print(f"FAULT: {self.faults[-1]}", flush=True)

    # -- what they stand on

    @contextlib.contextmanager
    def _connected(self, **options: int) -> Iterator[socket.socket]:
        sock = socket.socket()
        try:
            for name, value in options.items():
                sock.setsockopt(socket.SOL_SOCKET, getattr(socket, name), value)
            sock.settimeout(PATIENCE)
            sock.connect(("127.0.0.1", self.port))
            self.sockets.add(sock)
            self.counts["connections"] += 1
            yield sock
        finally:
            self.sockets.discard(sock)
            sock.close()

    @contextlib.contextmanager
    def _open(
        self, path: str, *, compression: bool = False, **options: int
    ) -> Iterator[tuple[Client, socket.socket]]:
        with self._connected(**options) as sock:
            handshake = ClientHandshake("127.0.0.1", path, compression=compression)
            yield open_over(sock, handshake, PATIENCE, 1 << 24), sock

    def _leave(
        self, chance: random.Random, client: Client, sock: socket.socket
    ) -> None:
        """End in one of the ways in which connections end."""
        way = chance.random()
        if way < 0.4:
            client.close()
        elif way < 0.7:
            reset(sock)
        # else: without a word

    def _think(self, chance: random.Random, seconds: float) -> None:
        self._ended.wait(chance.expovariate(1 / seconds))

    # -- those that behave

    def _echo(self, chance: random.Random, number: int) -> None:
        path = chance.choice(["/echo", "/echo", "/block"])
        compression = chance.random() < 0.5
        with self._open(path, compression=compression) as (client, sock):
            for _ in range(chance.randrange(1, 60)):
                size = int(chance.paretovariate(0.5)) * 10 % 200_000
                data = (b"%08x" % chance.getrandbits(32) * (size // 8 + 1))[:size]
                said: str | bytes = data if chance.random() < 0.5 else data.decode()
                client.send(said)
                if client.receive(PATIENCE) != said:
                    raise Wrong("an echo of something else")
                self.counts["echoes"] += 1
                self._think(chance, 0.3)
                if self._ended.is_set():
                    return
            self._leave(chance, client, sock)

    def _fan(self, chance: random.Random, number: int) -> None:
        with self._open(f"/fan/{number % 4}") as (client, sock):
            mine, sent = os.urandom(4).hex(), 0
            heard: dict[str, int] = {}
            for _ in range(chance.randrange(10, 200)):
                if chance.random() < 0.2:
                    sent += 1
                    client.send(f"{mine} {sent}")
                with contextlib.suppress(TimeoutError):
                    until = time.monotonic() + chance.expovariate(2)
                    while (left := until - time.monotonic()) > 0:
                        who, _, count = str(client.receive(left)).partition(" ")
                        if who == "x":
                            continue  # of those that flood
                        newest = heard.get(who, int(count) - 1)
                        heard[who] = int(count)
                        # Those that Redis was not there for are lost, as is promised.
                        if not (newest < int(count) <= newest + 1 + self._holes):
                            raise Wrong(f"a broadcast: {count} follows {newest}")
                        self.counts["broadcasts heard"] += 1
                if self._ended.is_set():
                    return
            self._leave(chance, client, sock)

    def _member(self, chance: random.Random, number: int) -> None:
        """One who is cut off again and again, and takes up where it was."""
        places: dict[str, Json] = {f"room {number % 3}": {}, f"room {number % 5}": {}}
        while not self._ended.is_set():
            with (
                contextlib.suppress(ConnectionError),
                self._open(f"/chat?user=user{number}") as (client, sock),
            ):
                try:
                    member = Member(client, places, self.counts)
                    for _ in range(chance.randrange(1, 40)):
                        member.act(chance)
                        member.listen(chance.expovariate(2))
                        if self._ended.is_set():
                            return
                except ConnectionClosed as error:
                    # The killer's and `disconnect` are what it has to survive.
                    self.counts[f"closed {error.code}"] += 1
                    if error.code == 1011:
                        raise
                self._leave(chance, client, sock)

    def _visit(self, chance: random.Random, number: int) -> None:
        """Somebody new, in a room that nobody else has."""
        count = next(self._visitor)
        with self._open(f"/chat?user=visitor{count}") as (client, sock):
            member = Member(client, {f"passing {count}": {}}, self.counts)
            member.act(chance, votes=False)  # a vote is kept for ever
            self._leave(chance, client, sock)

    # -- those that do not

    def _slow(self, chance: random.Random, number: int) -> None:
        """Takes nothing of what it is sent."""
        with self._open(f"/fan/{number % 4}", SO_RCVBUF=4096):
            self._ended.wait(chance.uniform(2, 15))

    def _refused(self, chance: random.Random, number: int) -> None:
        for _ in range(20):
            path = chance.choice(["/refused", "/nowhere", "/echo"])
            way = chance.random()
            if way < 0.4:
                with contextlib.suppress(HandshakeError), self._open(path):
                    pass
            elif way < 0.7:
                connection = http.client.HTTPConnection(
                    "127.0.0.1", self.port, timeout=PATIENCE
                )
                connection.request("GET", path)
                connection.getresponse().read()
                connection.close()
            else:
                connection = http.client.HTTPConnection(
                    "127.0.0.1", self.port, timeout=PATIENCE
                )
                connection.request("POST", f"/disconnect/user{chance.randrange(20)}")
                connection.getresponse().read()
                connection.close()
            self.counts["refusals"] += 1
            self._think(chance, 0.5)
            if self._ended.is_set():
                return

    def _half(self, chance: random.Random, number: int) -> None:
        """A request that is cut off, reset, or never goes on."""
        head = ClientHandshake("127.0.0.1", "/chat?user=half").request()
        with self._connected() as sock:
            sock.sendall(head[: chance.randrange(len(head) + 1)])
            way = chance.random()
            if way < 0.5:
                reset(sock)
            elif way < 0.8:
                self._ended.wait(chance.uniform(0, 4))
        self.counts["half requests"] += 1

    def _junk(self, chance: random.Random, number: int) -> None:
        """Bytes that are no frames, and messages that are no requests."""
        path = chance.choice(
            ["/echo", "/block", "/fan/junk", "/chat", "/chat?user=junk"]
        )
        with self._open(path, compression=chance.random() < 0.5) as (client, sock):
            if chance.random() < 0.5:
                sock.sendall(junk_bytes(chance))
            else:
                for _ in range(chance.randrange(50)):
                    client.send(junk_request(chance))
            with contextlib.suppress(TimeoutError):
                while True:
                    client.receive(0.2)
        self.counts["junk"] += 1

    def _flood(self, chance: random.Random, number: int) -> None:
        """As much as goes, of one kind; nothing of the answers is read for a while."""
        kinds: dict[str, list[str | bytes]] = {
            "/echo": [b"x" * 100, b"", b"y" * 5000],
            "/fan/3": ["x 1", "x " + "2" * 4000],
            "/chat?user=flood": [
                '{"type":"ping","ref":1}',
                '{"type":"join","ref":1,"room":"flood"}',
                '{"type":"who","ref":2,"room":"flood"}',
            ],
        }
        path = chance.choice(list(kinds))
        until = time.monotonic() + 0.3
        with self._open(path) as (client, sock):
            message = chance.choice(kinds[path])
            frame = client._connection.send(message)
            ping = client._connection.ping(b"?" * 100)
            what = (frame if chance.random() < 0.8 else ping) * 50
            sock.settimeout(1)
            sent = 0
            with contextlib.suppress(OSError):
                while time.monotonic() < until and sent < 1 << 20:
                    sock.sendall(what)
                    sent += len(what)
            sock.settimeout(0)
            if chance.random() < 0.5:
                with contextlib.suppress(TimeoutError):
                    while True:
                        client.receive(0.5)
            self._leave(chance, client, sock)
        self.counts["floods"] += 1
        self._think(chance, 3)

    def _killer(self, chance: random.Random, number: int) -> None:
        """Resets the connection of any other client."""
        if self.sockets:
            victim = chance.choice(list(self.sockets))
            with contextlib.suppress(OSError):
                linger(victim)
                victim.shutdown(socket.SHUT_RDWR)
            self.counts["killed"] += 1
        self._think(chance, 0.5)


class Member:
    """A client of the ready-made chat that obeys its protocol.

    ``places``: where it was, by room. It shows each message once, in order, or is told
    that it cannot.
    """

    def __init__(
        self, client: Client, places: dict[str, Json], counts: collections.Counter[str]
    ) -> None:
        self._client = client
        self._places = places
        self._counts = counts
        self._ref = 0
        self._live: set[str] = set()
        self._again: set[str] = set()
        if self._hear(PATIENCE)["type"] != "hello":
            raise Wrong("no hello")
        for room in places:
            self._read(room)

    def act(self, chance: random.Random, *, votes: bool = True) -> None:
        room = chance.choice(list(self._places))
        say = {"data": "x" * chance.randrange(500), "mid": os.urandom(8).hex()}
        requests: list[Json] = [
            {"type": "say", "room": room, **say},
            {"type": "say", "room": room, **say},
            {"type": "tell", "to": f"user{chance.randrange(20)}", **say},
            {"type": "poll", "poll": "Tea"},
            {"type": "history", "room": room, "limit": 10},
            {"type": "who", "room": room},
            {"type": "inbox"},
            {"type": "ping"},
        ]
        if votes:
            choice = chance.choice(["Green", "Black"])
            requests.append({"type": "vote", "poll": "Tea", "choice": choice})
        request = chance.choice(requests)
        reply = self._ask(**request)
        self._counts[request["type"]] += 1
        if not reply["ok"]:
            self._counts[reply["error"]["code"]] += 1
            if reply["error"]["code"] not in ("unavailable", "not_joined"):
                raise Wrong(f"{request['type']}: {reply['error']}")
            if reply["error"]["code"] == "not_joined":
                self._again.add(room)

    def listen(self, seconds: float) -> None:
        """Take what comes for so long; read again where there was a gap."""
        until = time.monotonic() + seconds
        with contextlib.suppress(TimeoutError):
            while (left := until - time.monotonic()) > 0:
                self._take(self._hear(left))
        for room in list(self._again):
            self._read(room)

    def _read(self, room: str) -> None:
        self._again.discard(room)
        self._live.discard(room)
        place, more = self._places[room], True
        while more:
            page = self._ask(type="join", room=room, **place)
            if not page["ok"]:
                if page["error"]["code"] != "unavailable":
                    raise Wrong(f"join: {page['error']}")
                self._again.add(room)
                return
            more = page["more"]
            if page["recovered"]:
                for message in page["messages"]:
                    self._show(message)
            else:
                place.update(after=page["seq"], epoch=page["epoch"])
                more = False
                self._counts["read anew"] += 1
        self._live.add(room)

    def _show(self, message: Json) -> None:
        place = self._places[message["room"]]
        seq = message["seq"]
        if seq <= place["after"]:
            return
        if seq != place["after"] + 1:
            raise Wrong(f"{message['room']}: {seq} follows {place['after']}")
        place["after"] = seq
        self._counts["chat messages read"] += 1

    def _take(self, message: Json) -> None:
        kind = message["type"]
        if kind == "message" and message["room"] in self._live:
            self._show(message)
        elif kind == "gap" and message["room"] is not None:
            self._again.add(message["room"])
            self._live.discard(message["room"])
            self._counts["gaps"] += 1

    def _ask(self, **request: Any) -> Json:
        self._ref += 1
        self._client.send(json.dumps({"ref": self._ref, **request}))
        until = time.monotonic() + PATIENCE
        while True:
            message = self._hear(until - time.monotonic())
            if message["type"] == "reply":
                if message["ref"] != self._ref:
                    raise Wrong(f"the reply to {message['ref']}, not {self._ref}")
                return message
            self._take(message)

    def _hear(self, seconds: float) -> Json:
        message: Json = json.loads(self._client.receive(seconds))
        return message


def linger(sock: socket.socket) -> None:
    sock.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))


def reset(sock: socket.socket) -> None:
    """Close so that the other end is told by a reset."""
    with contextlib.suppress(OSError):
        linger(sock)
        sock.close()


def junk_bytes(chance: random.Random) -> bytes:
    """Return what is no WebSocket frame, or one that nobody may send."""
    mask = bytes(4)
    return chance.choice(
        [
            chance.randbytes(chance.randrange(1, 3000)),
            b"\x81\x05Hello",  # not masked
            b"\x81\xff" + b"\xff" * 8 + mask,  # a length that has no place
            b"\xc1\x85" + mask + b"\xff" * 5,  # compressed, and is not
            b"\x83\x80" + mask,
            b"\x09\x80" + mask,
            b"\x88\x81" + mask + b"\x03",
            b"\x81\x82" + mask + b"\xff\xfe",
            b"\x01\x81" + mask + b"a" + b"\x81\x81" + mask + b"b",
            b"\x89\xfe\x00\x7e" + mask + bytes(126),
            b"\xc2\xfe\x04\x00" + mask + zlib.compress(bytes(1 << 20))[2:][:1024],
            b"\x80\x80" + mask,
        ]
    )


def junk_request(chance: random.Random) -> str | bytes:
    """Return what is no request of the chat, or one that it does not grant."""
    texts: list[str | bytes] = [
        "",
        "[",
        "[" * 5000,
        "null",
        "1" * 5000,
        '{"type":"say"}',
        '{"type":"join","ref":1,"room":"\ud7ff\\ud800"}',
        '{"type":"join","ref":-1,"room":"a"}',
        '{"type":"history","ref":1e999}',
        '{"type":"vote","ref":5,"poll":"Tea","choice":"Coffee"}',
        '{"type":{},"ref":5}',
        chance.randbytes(20),
    ]
    return chance.choice(texts)
