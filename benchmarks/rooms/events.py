"""What a typed event costs, beside a listener that reads JSON by itself."""

from __future__ import annotations

import contextlib
import json
import select
import socket
import statistics
from collections.abc import Iterator

from benchmarks.harness import Server, cpu_seconds, our_server
from flask_wschat import envelope
from flask_wschat.codec import Opcode, encode_frame

from .verdicts import Part

RATIO = 1.3

CONNECTIONS = 50
MOVE = '{"type":"move","ref":7,"room":"Lobby","x":1.5,"y":2}'
RESULT = {"room": "Lobby", "x": 3.0}
ANSWERS = {
    "/echo": MOVE,
    "/untyped": json.dumps({"ref": 7, "result": RESULT}),
    "/checked": json.dumps({"ref": 7, "result": RESULT}),
    "/typed": envelope.result(7, envelope.encode(RESULT)),
}
"""What comes back for it, by path."""


@contextlib.contextmanager
def _connected(
    server: Server, path: str, frame: bytes, answer: bytes
) -> Iterator[list[socket.socket]]:
    """Yield connections to ``path``, each after ``frame`` and the ``answer`` to it."""
    with contextlib.ExitStack() as stack:
        found = []
        for number in range(CONNECTIONS):
            sock = socket.create_connection(("127.0.0.1", server.port))
            stack.enter_context(sock)
            sock.sendall(
                f"GET {path}?user={number} HTTP/1.1\r\nHost: 127.0.0.1\r\n"
                "Upgrade: websocket\r\nConnection: Upgrade\r\n"
                "Sec-WebSocket-Version: 13\r\n"
                "Sec-WebSocket-Key: AAAAAAAAAAAAAAAAAAAAAA==\r\n\r\n".encode()
            )
            found.append(sock)
        for sock in found:
            sock.settimeout(20)
            came = b""
            while b"\r\n\r\n" not in came:
                came += sock.recv(65536)
            sock.sendall(frame)
            while not came.endswith(answer):
                came += sock.recv(65536)
        yield found


def _cost(server: Server, path: str, count: int) -> float:
    """Return the server's CPU µs for each of ``count`` messages to ``path``."""
    frame = encode_frame(Opcode.TEXT, MOVE.encode(), mask=bytes(4))
    answer = encode_frame(Opcode.TEXT, ANSWERS[path].encode())
    with _connected(server, path, frame, answer) as socks:
        poll = select.epoll()
        by_number = {sock.fileno(): sock for sock in socks}
        for number in by_number:
            poll.register(number, select.EPOLLIN)
        before = cpu_seconds(server.pid)
        for sock in socks:
            sock.sendall(frame)
        left, sent = count, CONNECTIONS
        while left > 0:
            for number, _ in poll.poll(20):
                got = by_number[number].recv(65536)
                assert got == answer
                left -= 1
                if sent < count:
                    sent += 1
                    by_number[number].sendall(frame)
        return (cpu_seconds(server.pid) - before) / count * 1e6


def events(rounds: int) -> Part:
    part = Part(
        f"{CONNECTIONS} clients, each with one request of {len(MOVE)} B under way that"
        " names a room and two numbers, and gets a reply. *Untyped*: a `Listener` that"
        " reads and writes it by `json`, and trusts that it is right. *Checked*: one"
        " that looks at each field and catches what goes wrong. *Typed*: an `Events`"
        " class. *Echo*: what comes is sent back unread. The server's CPU, for a"
        f" message, the median of {rounds} rounds in turn."
    )
    found: dict[str, list[float]] = {path: [] for path in ANSWERS}
    with our_server() as server:
        for path in found:
            _cost(server, path, 5_000)
        for _ in range(rounds):
            for path, costs in found.items():
                costs.append(_cost(server, path, 20_000))
    for path, costs in found.items():
        part.add(path.removeprefix("/"), statistics.median(costs), None, "µs")
    for path, bar in (("/untyped", RATIO), ("/checked", None), ("/echo", None)):
        pairs = zip(found["/typed"], found[path], strict=True)
        ratio = statistics.median(typed / other for typed, other in pairs)
        part.add(f"typed, of {path.removeprefix('/')}", ratio, bar)
    return part
