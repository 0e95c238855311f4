"""The whole app with limits of a few hundred bytes and of milliseconds, and a client
that does anything: ``python -m tests.fuzz.tiny [--seeds 100] [--first 1]``.

Real sockets with the smallest buffers there are, written and read by a byte or a few:
so each limit is reached, and each system call is cut short, within a tenth of a second.
What happens is chosen by a seed, which a failure names; ``--first`` begins with it.
``WSCHAT_PUREPYTHON=1`` takes the Python twins.

The server and its clients share one loop, so that nothing is left to the machine.
"""

from __future__ import annotations

import argparse
import contextlib
import gc
import io
import json
import logging
import os
import random
import socket
import struct
import sys
import threading
import time
from collections.abc import Callable, Iterator
from typing import Any

import gevent
from flask import Flask, request
from greenlet import greenlet

from flask_wschat import ChatListener, Listener, WebSocket, WSChat
from flask_wschat.codec import ClientHandshake, Closed, Connection
from flask_wschat.errors import HandshakeError
from flask_wschat.messages import EVERYONE
from flask_wschat.server import Server
from flask_wschat.transports.accelerated import ACCELERATED
from flask_wschat.transports.loop import EventedLoop

Json = dict[str, Any]
ROOMS = ("a", "b")
USERS = ("ann", "bob", "cy")
EXPECTED = {1000, 1001, 1002, 1006, 1007, 1008, 1009, 1012, 1013, 4001}
STEPS = 80
"""Things that happen with each seed."""
PATIENCE = 5.0
"""Seconds until all is over; reached only by a failure."""


def limits(chance: random.Random) -> Json:
    """Return tiny settings."""
    return {
        "MAX_MESSAGE": chance.choice([150, 300]),
        "MAX_QUEUE": chance.choice([300, 900, 3000]),
        "MAX_CONNECTIONS": chance.choice([3, 8]),
        "RATE_LIMIT": chance.choice([(50, 10), (1000, 100), None]),
        "HISTORY_SIZE": chance.choice([1, 4, 20]),
        "HANDSHAKE_TIMEOUT": 0.05,
        "CLOSE_TIMEOUT": 0.02,
        "PING_INTERVAL": chance.choice([0.02, 0.1]),
        "PING_TIMEOUT": chance.choice([0.02, 0.1]),
        "SLOW_POLICY": chance.choice(["close", "drop_oldest"]),
    }


def make_app(config: Json, alive: set[WebSocket]) -> tuple[Flask, WSChat]:
    """Return an app, whose listeners say in ``alive`` who has not ended yet."""
    app = Flask("tiny")
    app.config.update({f"WSCHAT_{key}": value for key, value in config.items()})
    chat = WSChat(app)
    chat.authenticate(lambda: request.args.get("user"))
    chat.listener("/chat")(type("Chat", (ChatListener,), {"anonymous": "say"}))

    @chat.listener("/fan")
    class Fan(Listener):
        def on_open(self, ws: WebSocket, *args: Any, **url_args: Any) -> None:
            alive.add(ws)
            ws.join("fan")

        def on_message(self, ws: WebSocket, message: str | bytes) -> None:
            chat.broadcast(message, room="fan")

        def on_close(self, ws: WebSocket, code: int, reason: str) -> None:
            alive.remove(ws)  # once

    @chat.route("/echo")
    def echo(ws: WebSocket) -> None:
        for message in ws:
            ws.send(message)

    return app, chat


class World:
    """One seed's server, its clients, and what they have heard of each other."""

    def __init__(self, seed: int) -> None:
        self.chance = random.Random(seed)
        self.alive: set[WebSocket] = set()
        self.app, self.chat = make_app(limits(self.chance), self.alive)
        self.hub = self.app.extensions["wschat.hub"]
        self.server = Server(("127.0.0.1", 0), self.app, log=None, error_log=None)
        self.server.init_socket()
        # What the kernel holds for a peer is the least it can be.
        self.server.socket.setsockopt(socket.SOL_SOCKET, socket.SO_SNDBUF, 1)
        self.server.start()
        self.clients: list[Client] = []
        self.said: dict[str, dict[int, str]] = {room: {} for room in ROOMS}
        """What is known to be stored, by room and number."""
        self.count = 0

    def run(self) -> None:
        actions: list[Callable[[], Any]] = [
            *[self.open] * 6,
            *[self.say] * 8,
            *[self.join] * 4,
            *[self.send] * 4,
            *[self.broadcast] * 3,
            *[self.wait] * 3,
            self.half_open,
            self.leave,
            self.resume,
            self.fragment,
            self.junk,
            self.cut,
            self.half_close,
            self.close,
            self.pause,
            self.read_on,
            self.disconnect,
            self.tell,
        ]
        for _ in range(STEPS):
            self.chance.choice(actions)()
            for _ in range(self.chance.randrange(4)):
                self.turn()
        self.settle()
        self.end()

    # -- what happens

    def any(self, path: str = "") -> Client | None:
        """Return an open client, of one route if it is named."""
        found = [c for c in self.clients if c.connection and path in c.path]
        return self.chance.choice(found) if found else None

    def open(self) -> None:
        path = self.chance.choice(["/chat", "/chat", "/chat", "/fan", "/echo"])
        user = self.chance.choice([*USERS, None])
        self.clients.append(Client(self, path, user))

    def half_open(self) -> None:
        """Ask for a connection, and never to the end."""
        client = Client(self, "/chat", None)
        del client.out[self.chance.randrange(len(client.out)) :]
        self.clients.append(client)

    def resume(self) -> None:
        """Come again where somebody was cut off."""
        gone = [c for c in self.clients if c.ended and c.places]
        if gone:
            client = self.chance.choice(gone)
            again = Client(self, "/chat", client.user)
            again.places = {room: dict(at) for room, at in client.places.items()}
            again.wanted = list(again.places)
            self.clients.append(again)

    def join(self) -> None:
        if client := self.any("/chat"):
            client.join(self.chance.choice(ROOMS))

    def leave(self) -> None:
        if client := self.any("/chat"):
            room = self.chance.choice(ROOMS)
            client.live.discard(room)
            client.ask("leave", room=room)

    def say(self) -> None:
        if client := self.any("/chat"):
            self.count += 1
            data = f"{self.count}:" + "x" * self.chance.choice([0, 9, 60, 200])
            room = self.chance.choice(ROOMS)
            client.ask("say", room=room, data=data, mid=str(self.count))

    def tell(self) -> None:
        if client := self.any("/chat"):
            user = self.chance.choice(USERS)
            client.ask("tell", to=user, data="x", mid=str(self.chance.random()))
            client.ask("inbox")

    def send(self) -> None:
        if client := self.any():
            size = self.chance.choice([0, 1, 125, 126, 149, 299, 301, 5000])
            client.send("y" * size if self.chance.random() < 0.5 else b"z" * size)

    def fragment(self) -> None:
        if client := self.any():
            for first in (0x01, 0x00, 0x89, 0x00, 0x80)[: self.chance.randrange(6)]:
                client.out += bytes([first, 0x82, 0, 0, 0, 0]) + b"ab"

    def junk(self) -> None:
        if client := self.any():
            size = self.chance.randrange(40)
            if self.chance.random() < 0.5:
                client.out += self.chance.randbytes(size)
            else:
                client.send(self.chance.choice(["{}", "[", "null", '{"ref":1}']))

    def cut(self) -> None:
        if client := self.any():
            client.drop(reset=self.chance.random() < 0.5)

    def half_close(self) -> None:
        if client := self.any():
            with contextlib.suppress(OSError):
                client.sock.shutdown(socket.SHUT_WR)

    def close(self) -> None:
        if (client := self.any()) and client.connection:
            client.out += client.connection.close(1000)

    def pause(self) -> None:
        if client := self.any():
            client.paused = True

    def read_on(self) -> None:
        for client in self.clients:
            client.paused = False

    def broadcast(self) -> None:
        room = self.chance.choice(["fan", None])
        data = "w" * self.chance.choice([1, 100, 1000])
        for _ in range(self.chance.choice([1, 1, 30])):
            key = self.chance.choice([None, "k"])
            self.chat.broadcast(data, room=room, key=key)

    def disconnect(self) -> None:
        self.chat.disconnect_user(self.chance.choice(USERS), 4001, "bye")

    def wait(self) -> None:
        gevent.sleep(self.chance.choice([0.001, 0.01, 0.04]))

    # -- what must hold

    def turn(self) -> None:
        """Let everybody do a little."""
        for client in self.clients:
            client.step(self.chance.choice([1, 7, 50, 4000]))
        gevent.sleep(0)

    def until(self, done: Callable[[], object], what: Callable[[], object]) -> None:
        until = time.monotonic() + PATIENCE
        while not done():
            if time.monotonic() > until:
                raise AssertionError(f"after {PATIENCE} s: {what()}")
            self.turn()

    def settle(self) -> None:
        """See that who is here has all that is known to be stored, or was told."""
        self.read_on()
        self.until(
            lambda: all(client.has_all() for client in self.clients),
            lambda: [vars(c) for c in self.clients if not c.has_all()],
        )

    def end(self) -> None:
        for client in self.clients:
            client.drop(reset=False)
        self.server.close()
        for _ in range(10):  # turns: who is gone already may only be coming in
            self.until(lambda: not self.left(), self.left)
            self.turn()
        self.server.stop(timeout=1)
        self.hub.stop()

    def left(self) -> Json:
        """Return what the server still holds of its clients."""
        hub = self.hub
        held = {
            "openings": len(hub.closing.under_way),
            "connections": hub.count(),
            "on their way out": len(hub.leaving),
            "readers of": [*hub.feeds.topics],
            "plain members of": [*(set(hub.members.plain) - {EVERYONE})],
            "to be told": hub.is_busy(),
            "present": hub.backend._people._topics,
            "without on_close": len(self.alive),
            "unsent": len(EventedLoop.current().unflushed),
            "requests": len(self.server.requests),
        }
        return {name: value for name, value in held.items() if value}


class Client:
    """A connection to the server, in what state soever."""

    def __init__(self, world: World, path: str, user: str | None) -> None:
        self.world, self.path, self.user = world, path, user
        self.sock = socket.socket()
        self.sock.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 1)
        self.sock.connect(("127.0.0.1", world.server.server_port))
        self.sock.setblocking(False)
        query = "" if user is None else f"?user={user}"
        compression = world.chance.random() < 0.3
        self.handshake = ClientHandshake("a", path + query, compression=compression)
        self.out = bytearray(self.handshake.request())
        self.got = b""
        self.connection: Connection | None = None
        self.ended = self.paused = False
        self.places: dict[str, Json] = {}
        self.wanted: list[str] = []
        self.live: set[str] = set()
        self.reading: set[str] = set()
        self.asked: dict[int, Json] = {}

    def step(self, most: int) -> None:
        """Send and read up to so many bytes."""
        if self.ended:
            return
        try:
            if self.out:
                del self.out[: self.sock.send(self.out[:most])]
        except BlockingIOError:
            pass
        except OSError:
            self.out.clear()
        if self.paused:
            return
        try:
            data = self.sock.recv(most)
        except BlockingIOError:
            return
        except OSError:
            data = b""
        if data:
            self.take(data)
        else:
            self.drop(reset=False)

    def take(self, data: bytes) -> None:
        if self.connection is None:
            self.got += data
            try:
                size = self.handshake.receive_data(self.got)
            except HandshakeError as error:
                assert error.status in (408, 429, 503), error
                self.drop(reset=False)
                return
            if size is None:
                return
            data = self.got[size:]
            deflate = self.handshake.deflate
            self.connection = Connection(
                client=True, max_message=1 << 20, deflate=deflate
            )
            for room in self.wanted:
                self.join(room)
        for event in self.connection.receive_data(data):
            if isinstance(event, Closed):
                assert event.code in EXPECTED, event
            elif isinstance(event, str) and self.path == "/chat":
                self.hear(json.loads(event))
        self.out += self.connection.data_to_send()

    def drop(self, *, reset: bool) -> None:
        if not self.ended:
            self.ended, self.connection = True, None
            if reset:
                linger = struct.pack("ii", 1, 0)
                self.sock.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, linger)
            self.sock.close()

    # -- the ready-made chat

    def send(self, message: str | bytes) -> None:
        if self.connection is not None and self.connection.state.value == "open":
            self.out += self.connection.send(message)

    def ask(self, kind: str, **fields: Any) -> None:
        ref = len(self.asked)
        self.asked[ref] = {"type": kind, **fields}
        self.send(json.dumps({"ref": ref, **self.asked[ref]}))

    def join(self, room: str) -> None:
        self.live.discard(room)
        self.reading.add(room)
        self.ask("join", room=room, **self.places.get(room, {}))

    def hear(self, message: Json) -> None:
        kind = message["type"]
        if kind == "message" and message["room"] in self.live:
            self.show(message)
        elif kind == "gap" and message["room"] in self.live:
            self.join(message["room"])
        elif kind == "reply" and message["ref"] in self.asked:
            # None: to junk; and what junk was numbered may be answered, too.
            asked = self.asked[message["ref"]]
            if message["ok"] and asked["type"] == "say" and "seq" in message:
                known = self.world.said[asked["room"]]
                assert known.setdefault(message["seq"], asked["data"]) == asked["data"]
            elif asked["type"] == "join":
                self.joined(asked, message)

    def joined(self, asked: Json, page: Json) -> None:
        room = asked["room"]
        if not page["ok"] or "epoch" not in page:
            self.reading.discard(room)
            return
        if page["recovered"]:
            assert "after" in asked
            self.live.add(room)
            for message in page["messages"]:
                self.show(message)
            if page["more"]:
                self.join(room)
                return
        else:
            self.places[room] = {"after": page["seq"], "epoch": page["epoch"]}
        self.live.add(room)
        self.reading.discard(room)

    def show(self, message: Json) -> None:
        place, seq = self.places[message["room"]], message["seq"]
        if seq <= place["after"]:
            return
        assert seq == place["after"] + 1, f"{message} after {place}"
        place["after"] = seq
        known = self.world.said[message["room"]]
        assert known.setdefault(seq, message["data"]) == message["data"]

    def has_all(self) -> bool:
        if self.ended or self.connection is None or self.out:
            return self.ended or self.connection is None
        newest = {room: max(said, default=0) for room, said in self.world.said.items()}
        return not self.reading and all(
            self.places[room]["after"] >= newest[room] for room in self.live
        )


class Watched(logging.Handler):
    """Collects what must not be: errors in the log, and of the loop."""

    def __init__(self) -> None:
        super().__init__(logging.ERROR)
        self.errors: list[str] = []
        self.setFormatter(logging.Formatter())

    def emit(self, record: logging.LogRecord) -> None:
        self.errors.append(self.format(record))


@contextlib.contextmanager
def watched() -> Iterator[Callable[[], str]]:
    """Yield what tells of errors in the block."""
    handler, stream, hub = Watched(), io.StringIO(), gevent.get_hub()
    logging.getLogger().addHandler(handler)
    before, hub.exception_stream = hub.exception_stream, stream
    try:
        yield lambda: "\n".join(handler.errors) + stream.getvalue()
    finally:
        hub.exception_stream = before
        logging.getLogger().removeHandler(handler)


def held() -> dict[str, int]:
    """Return what this process holds, but for what waits to be used again."""
    gc.collect()
    idle = len(EventedLoop.current()._idle)
    greenlets = sum(isinstance(each, greenlet) for each in gc.get_objects())
    return {
        "greenlets": greenlets - idle,
        "threads": threading.active_count(),
        "descriptors": len(os.listdir("/proc/self/fd")),
    }


def play(seeds: range) -> None:
    """Play each seed; fail with the number of the first that goes wrong."""
    before: dict[str, int] = {}
    for seed in seeds:
        with watched() as errors:
            try:
                World(seed).run()
                assert not errors(), errors()
            except BaseException:
                print(f"python -m tests.fuzz.tiny --first {seed} --seeds 1")
                print(errors(), flush=True)
                raise
        before = before or held()  # of the first, which begins what stays
    after = held()
    assert all(after[name] <= before[name] for name in before), (before, after)


def main() -> None:
    parser = argparse.ArgumentParser()
    parser.add_argument("--seeds", type=int, default=100)
    parser.add_argument("--first", type=int, default=1)
    options = parser.parse_args()
    began = time.monotonic()
    play(range(options.first, options.first + options.seeds))
    twins = "C" if ACCELERATED else "Python"
    seconds = time.monotonic() - began
    print(f"{options.seeds} seeds passed, {twins} twins, {seconds:.0f} s")
    sys.stdout.flush()


if __name__ == "__main__":
    main()
