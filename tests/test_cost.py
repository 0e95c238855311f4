"""What messages and connections cost, in numbers that no busy machine changes.

System calls, encodings and objects are counted here, by limits that what is slower
would exceed. How long it all takes is for the benchmarks.
"""

from __future__ import annotations

import collections
import contextlib
import json
import os
import re
import shutil
import socket
import statistics
import subprocess
import sys
import tempfile
from collections.abc import Iterator
from pathlib import Path
from typing import Any, NamedTuple

import gevent.event
import gevent.socket
import pytest
from flask import Flask

import flask_wschat.codec.connection
import flask_wschat.websocket
from flask_wschat import Listener, WebSocket, WSChat
from flask_wschat.backends.memory import MemoryBackend
from flask_wschat.client import Client, connect
from flask_wschat.codec import Connection, Opcode, encode_frame
from flask_wschat.codec.accelerated import ACCELERATED
from flask_wschat.hub.hub import Hub
from flask_wschat.messages import EVERYONE, Message
from flask_wschat.settings import Settings
from flask_wschat.transports import evented, loop
from flask_wschat.transports.queue import READ_SIZE
from tests.support.live import Serve
from tests.support.processes import Process
from tests.support.programs import missing

pytestmark = pytest.mark.timeout(60)

ROOT = Path(__file__).parent.parent
DEADLINE = 20.0
"""Seconds that anything may take; reached only by a failure."""

MEMBERS = 50
CONTROL = 1
"""Reads, and sends, of the orders themselves between two marks."""
FEW = 50
"""System calls that neither messages nor receivers cause: memory, the sweep's timer."""

SENDS = ("sendto", "sendmsg", "write", "writev")
READS = ("recvfrom", "recvmsg", "read", "readv")
NEEDLESS = ("getsockopt", "setsockopt", "epoll_ctl", "fcntl", "ioctl", "poll", "select")


class CostServer:
    """``tests.cost.server`` in a process of its own, and its clients.

    ``before`` and ``options`` stand around Python's name in the command.
    """

    def __init__(self, *before: str, options: tuple[str, ...] = ()) -> None:
        command = [*before, sys.executable, *options, "-m", "tests.cost.server"]
        self._folder = tempfile.TemporaryDirectory()
        log = Path(self._folder.name, "log")
        env = {"WSCHAT_SHORTCUTS": "1"}  # it is their cost
        self._process = Process(command, log, env, stdin=subprocess.PIPE)
        self._clients: list[Client] = []

    def __enter__(self) -> CostServer:
        self._process.start()
        self._port = int(self._process.heard("\n").split()[0])
        self._control = self.connect("/control")
        return self

    def connect(self, path: str) -> Client:
        url = f"ws://127.0.0.1:{self._port}{path}"
        client = connect(url, compression=False, timeout=DEADLINE)
        self._clients.append(client)
        return client

    def order(self, name: str, argument: Any = None) -> Any:
        self._control.send(json.dumps([name, argument]))
        return json.loads(self._control.receive(DEADLINE))

    def __exit__(self, *error: object) -> None:
        for client in self._clients:
            client.abort()
        try:
            self._process.stdin.close()  # and so it ends
            self._process.wait()
        finally:
            self._process.kill()
            self._folder.cleanup()


class Call(NamedTuple):
    """A system call; the last two of those that read or send, in bytes."""

    name: str
    asked: int
    result: int


class Calls(list[Call]):
    """System calls in the order made."""

    # `[pid] name(descriptor, ""..., asked, …) = result`, cut where a thread cuts in.
    _LINE = re.compile(r"^(?:\d+ +)?(\w+)\((?:\d+, [^,]*, (\d+).* = (-?\d+))?", re.M)

    def read(self, trace: str) -> None:
        for name, asked, result in self._LINE.findall(trace):
            self.append(Call(name, int(asked or 0), int(result or 0)))

    def of(self, names: tuple[str, ...]) -> list[Call]:
        return [call for call in self if call.name in names]

    @property
    def total(self) -> int:
        """How many there are, but for what the twin in Python asks its thread's id by.

        It does so for each delivery; the C twin looks it up without a call.
        """
        return len(self) - len(self.of(("gettid",)))

    def __repr__(self) -> str:
        return repr(collections.Counter(call.name for call in self))


class TracedServer(CostServer):
    """The server under strace."""

    def __init__(self, trace: Path) -> None:
        super().__init__("strace", "-f", "-qq", "-s", "0", "-o", str(trace))
        self._trace = trace

    @contextlib.contextmanager
    def calls(self) -> Iterator[Calls]:
        """Gather the system calls that are made meanwhile; once."""
        calls = Calls()
        self.order("mark", "begin")
        yield calls
        self.order("mark", "end")
        # A call's line is written before the call returns to the program.
        _, begin, trace = self._trace.read_text().partition('"/mark/begin"')
        trace, end, _ = trace.partition('"/mark/end"')
        assert begin and end, "the trace lacks a mark"
        _, _, trace = trace.partition("\n")  # what that call gave
        trace, _, _ = trace.rpartition("\n")  # and how this one began
        calls.read(trace)


def tracing_fault() -> str | None:
    """Return why no system call can be traced here; None: they can."""
    strace = shutil.which("strace")
    if strace is None:
        return "no strace: install the package `strace`"
    trial = subprocess.run(
        [strace, "-o", os.devnull, "true"], capture_output=True, text=True
    )
    return f"strace may not trace: {trial.stderr}" if trial.returncode else None


@pytest.fixture
def traced(tmp_path: Path) -> Iterator[TracedServer]:
    reason = tracing_fault()
    if reason is not None:
        missing(reason)
    server = TracedServer(tmp_path / "trace")
    with server:
        yield server


@pytest.mark.slow
def test_a_delivery_is_one_send(traced: TracedServer) -> None:
    """And nothing else: what a turn of the loop takes is for all 50 together."""
    members = [traced.connect("/all") for _ in range(MEMBERS)]
    broadcasts = 20
    with traced.calls() as calls:
        for number in range(broadcasts):
            members[0].send(str(number))
            for member in members:
                assert member.receive(DEADLINE) == str(number)
    deliveries = broadcasts * MEMBERS
    assert len(calls.of(SENDS)) <= deliveries + CONTROL, calls
    assert len(calls.of(READS)) <= broadcasts + CONTROL, calls
    assert calls.of(NEEDLESS) == [], calls
    # Wait, read, and libev asks each time whether this is a fork: that makes three.
    assert calls.total <= deliveries + 4 * broadcasts + FEW, calls


@pytest.mark.slow
def test_broadcasts_of_one_turn_share_their_sends(traced: TracedServer) -> None:
    members = [traced.connect("/all") for _ in range(MEMBERS)]
    broadcasts = 16
    with traced.calls() as calls:
        traced.order("burst", broadcasts)
        for member in members:
            for number in range(broadcasts):
                assert member.receive(DEADLINE) == str(number)
    # A sixteenth is one send for each member. Half of what is allowed remains.
    sends = broadcasts * MEMBERS // 8
    assert len(calls.of(SENDS)) <= sends, calls
    assert calls.of(NEEDLESS) == [], calls
    assert calls.total <= sends + FEW, calls


@pytest.mark.slow
def test_an_echo_is_one_read_and_one_send(traced: TracedServer) -> None:
    clients = [traced.connect("/echo") for _ in range(10)]
    rounds = 20
    with traced.calls() as calls:
        for number in range(rounds):
            for client in clients:
                client.send(str(number))
                assert client.receive(DEADLINE) == str(number)
    messages = rounds * len(clients)
    assert len(calls.of(READS)) <= messages + CONTROL, calls
    assert len(calls.of(SENDS)) <= messages + CONTROL, calls
    assert calls.of(NEEDLESS) == [], calls
    assert calls.total <= 4 * messages + FEW, calls  # wait, fork?, read, send


@pytest.mark.slow
def test_an_opening_and_close_are_few_calls(traced: TracedServer) -> None:
    """The listening socket has the options, and the server knows what it accepts.

    Today 17; up to 4 more where a request comes after its connection.
    """
    count = 50
    with traced.calls() as calls:
        for _ in range(count):
            client = traced.connect("/echo")
            client.close()
            assert client.close_code == 1000
    assert calls.of(("getsockopt", "setsockopt")) == [], calls
    assert len(calls.of(SENDS)) <= 2 * count + CONTROL, calls
    assert calls.total <= 24 * count + FEW, calls


@pytest.mark.slow
def test_a_large_echo_asks_for_all_there_is(traced: TracedServer) -> None:
    """How often a socket gives less than was asked for is the system's business.

    So the limit is for reads that got all they asked for, which may have asked for too
    little: the beginning, and the rest put in its place; in Python, which knows no such
    place, as many as it takes. Each send offers all that is left, and comes only once
    the socket has room.
    """
    client = traced.connect("/echo")
    message = bytes(1 << 20)
    frame = len(message) + 10
    messages = 4
    with traced.calls() as calls:
        for _ in range(messages):
            client.send(message)
            assert client.receive(DEADLINE) == message
    reads, sends = calls.of(READS), calls.of(SENDS)
    full = [call for call in reads if call.result == call.asked]
    wanted = 3 if ACCELERATED else 1 + frame // READ_SIZE + 1
    assert len(full) <= wanted * messages, full
    assert all(call.result > 0 for call in reads + sends), calls
    left = 0
    for call in sends[CONTROL:]:
        left = left or frame
        assert call.asked == left, sends
        left -= call.result
    assert left == 0
    # Loopback carries 64 KiB at a time, so there are hardly more than 17 short reads.
    assert len(reads) <= 64 * messages and len(sends) <= 64 * messages, calls


@pytest.mark.slow
def test_an_idle_connection_is_a_few_small_objects() -> None:
    """No greenlet, no thread, no timer; also after it was used.

    Today a connection is 8 to 10 objects that the garbage collector knows, and 1.10 to
    1.22 KiB, by Python's version and whether the C twins serve; and 60 bytes where its
    client's address is nobody else's. An empty deque more, or a dict with anything in
    it, is too much.
    """
    with CostServer(options=("-X", "tracemalloc")) as server:

        def use(count: int) -> dict[str, int]:
            for _ in range(count):
                client = server.connect("/echo")
                client.send("hello")
                assert client.receive(DEADLINE) == "hello"
            census: dict[str, int] = server.order("census")
            return census

        use(50)  # what is made only once, is made
        step = 50
        first, *others = [use(step) for _ in range(5)]
        last = others[-1]
        for kind in ("greenlets", "threads", "tasks", "timers"):
            assert last[kind] <= first[kind], (kind, first, last)
        more = step * len(others)
        assert last["watchers"] - first["watchers"] == more
        assert last["objects"] - first["objects"] <= 10 * more, (first, last)
        # The median, as a set of all connections grows by leaps.
        steps = zip([first, *others], others, strict=False)
        sizes = [(after["bytes"] - before["bytes"]) / step for before, after in steps]
        assert statistics.median(sizes) <= 1280, sizes


def test_a_broadcast_is_encoded_and_compressed_once(
    app: Flask, chat: WSChat, serve: Serve, monkeypatch: pytest.MonkeyPatch
) -> None:
    chat.listener("/all")(Listener)
    server = serve(app)
    text = "worth compressing " * 100
    counts: collections.Counter[str] = collections.Counter()

    def count(module: Any, name: str) -> None:
        function = getattr(module, name)

        def counted(*args: Any, **options: Any) -> Any:
            counts[name] += 1
            return function(*args, **options)

        monkeypatch.setattr(module, name, counted)

    def open_client(compression: bool) -> tuple[Client, list[bytes]]:
        parts: list[bytes] = []
        client = connect(
            server.url("/all"),
            compression=compression,
            timeout=DEADLINE,
            on_bytes=lambda direction, data: parts.append(data),
        )
        stack.callback(client.abort)
        return client, parts

    with contextlib.ExitStack() as stack:
        plain = [open_client(False) for _ in range(MEMBERS)]
        compressed = [open_client(True) for _ in range(MEMBERS)]
        for name in ("encode_message", "encode_frame", "deflate"):
            count(flask_wschat.codec.connection, name)
        count(flask_wschat.websocket, "encode_message")
        chat.broadcast(text)
        for client, _ in plain + compressed:
            assert client.receive(DEADLINE) == text
    # A compressed message has a bit in its header that `encode_message` does not set.
    assert counts == {"encode_message": 1, "deflate": 1, "encode_frame": 1}
    [frame] = {b"".join(parts) for _, parts in plain}
    [smaller] = {b"".join(parts) for _, parts in compressed}
    assert len(smaller) < len(text) < len(frame)


def test_a_large_fan_out_gives_others_a_turn(monkeypatch: pytest.MonkeyPatch) -> None:
    """A message that is here when the sending begins is handled before it ends."""
    monkeypatch.setattr(loop, "FLUSH_LIMIT", 4)
    settings = Settings()
    hub = Hub(settings, MemoryBackend(), dumps=json.dumps, loads=json.loads)
    handled = gevent.event.Event()
    served: list[int] = []

    def has_data(peer: socket.socket) -> bool:
        try:
            return bool(peer.recv(1, socket.MSG_PEEK | socket.MSG_DONTWAIT))
        except BlockingIOError:
            return False

    class Other(Listener):
        app_context = False

        def on_message(self, ws: WebSocket, message: str | bytes) -> None:
            served.append(sum(map(has_data, peers)))
            handled.set()

    def open_socket() -> tuple[socket.socket, WebSocket]:
        peer, ours = socket.socketpair()
        stack.callback(peer.close)
        ours.setblocking(False)
        transport = evented.EventedTransport(
            ours.detach(), max_queue=settings.MAX_QUEUE
        )
        stack.callback(transport.abort)
        ws = WebSocket(transport, hub, Connection())
        hub.register(ws, transport.loop)
        ws._start()
        return peer, ws

    with contextlib.ExitStack() as stack:
        peers = [open_socket()[0] for _ in range(40)]
        other, ws = open_socket()
        ws._listen(Other())
        # What is published comes here, from when this is done.
        gevent.spawn(hub.require_backend, ws._transport.loop).get(timeout=DEADLINE)
        other.sendall(encode_frame(Opcode.TEXT, b"me too", mask=b"mask"))
        hub.publish(EVERYONE, Message("all"))
        assert handled.wait(DEADLINE)
        assert 0 < served[0] < len(peers)
        for peer in peers:
            gevent.socket.wait_read(peer.fileno(), DEADLINE)
            assert peer.recv(100) == encode_frame(Opcode.TEXT, b"all")
