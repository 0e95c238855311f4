"""One process that attacks a server: ``python -m benchmarks.attacks.attacker PORT``.

A line on stdin is the name of an attack: it begins, and is told when it is under way.
The next line, whatever it says, ends it; then comes a line with how often it was
carried out. It ends with stdin.
"""

from __future__ import annotations

import contextlib
import functools
import itertools
import random
import socket
import sys
import threading
import time
import zlib
from collections.abc import Callable, Iterator

from benchmarks.soak.clients import junk_bytes, reset
from flask_wschat.codec import ClientHandshake, Opcode, encode_frame

MIB = 1 << 20
BEGINNING = 0.2
"""Seconds until an attack is under way."""
PATIENCE = 2.0
"""Seconds that an attacker waits for anything."""

frame = functools.partial(encode_frame, mask=bytes(4))
text = functools.partial(frame, Opcode.TEXT)


class Attack:
    """Threads that do the same again and again, until it is over."""

    def __init__(self, port: int, name: str) -> None:
        self.count = 0
        self._port = port
        self._over = threading.Event()
        turn, threads = ATTACKS[name]
        self._threads = [
            threading.Thread(target=self._repeat, args=(turn, number), daemon=True)
            for number in range(threads)
        ]
        for thread in self._threads:
            thread.start()

    def end(self) -> int:
        self._over.set()
        for thread in self._threads:
            thread.join(2 * PATIENCE)
        return self.count

    def _repeat(self, turn: Callable[[Attack, int], None], number: int) -> None:
        while not self._over.is_set():
            with contextlib.suppress(OSError):
                turn(self, number)
                self.count += 1

    # -- what they stand on

    @contextlib.contextmanager
    def _connected(self) -> Iterator[socket.socket]:
        with socket.socket() as sock:
            sock.settimeout(PATIENCE)
            # One source address has 28,000 ports, and a closed one rests for a minute.
            sock.bind((f"127.0.2.{random.randrange(1, 250)}", 0))
            sock.connect(("127.0.0.1", self._port))
            yield sock

    @contextlib.contextmanager
    def _opened(self, path: str, *offer: tuple[str, str]) -> Iterator[socket.socket]:
        with self._connected() as sock:
            sock.sendall(ClientHandshake("127.0.0.1", path, headers=offer).request())
            read_head(sock)
            yield sock

    def _send_until_the_end(self, sock: socket.socket, data: bytes) -> None:
        """Send it again and again, reading nothing."""
        sock.settimeout(0.2)
        sent = 0
        while not self._over.is_set():
            try:
                sent = (sent + sock.send(data[sent:])) % len(data)
            except TimeoutError:
                return

    # -- the attacks

    def handshakes(self, number: int) -> None:
        """Openings that are none, or may not be."""
        with self._connected() as sock:
            sock.sendall(next(_openings))
            sock.settimeout(0.1)
            with contextlib.suppress(TimeoutError):
                sock.recv(65536)

    def malformed(self, number: int) -> None:
        """Bytes that are no frames."""
        with self._opened("/listen") as sock:
            sock.sendall(junk_bytes(_chance))
            sock.settimeout(0.05)
            while sock.recv(65536):
                pass

    def frames(self, number: int) -> None:
        """Each thread one kind, as fast as they are taken; nothing is read."""
        first, more = FLOODS[number % len(FLOODS)]
        with self._opened("/listen") as sock:
            sock.sendall(first)
            self._send_until_the_end(sock, more)

    def requests(self, number: int) -> None:
        """Of the chat, and junk in their place."""
        with self._opened(f"/chat?user=eve{number}") as sock:
            self._send_until_the_end(sock, text(REQUESTS[number % len(REQUESTS)]) * 500)

    def talkers(self, number: int) -> None:
        """Messages that are answered, and the answers are read, as fast as it goes."""
        with self._opened("/listen") as sock:
            data = text(b"x" * 100) * 100
            while not self._over.is_set():
                sock.sendall(data)
                left = 102 * 100
                while left > 0 and (come := len(sock.recv(65536))):
                    left -= come

    def bombs(self, number: int) -> None:
        """Messages of a GiB, compressed to one MiB."""
        offer = ("Sec-WebSocket-Extensions", "permessage-deflate")
        with self._opened("/listen", offer) as sock:
            sock.sendall(BOMB)
            while sock.recv(65536):
                pass

    def slow(self, number: int) -> None:
        """A byte now and then, of openings and of frames; a hundred for each thread."""
        with contextlib.ExitStack() as stack:
            opening = ClientHandshake("127.0.0.1", "/listen").request()
            half = [stack.enter_context(self._connected()) for _ in range(50)]
            drip = [stack.enter_context(self._opened("/listen")) for _ in range(50)]
            message = text(b"drip" * 20)
            for at in itertools.count():
                for sock, data in zip(
                    [*half, *drip], [opening] * 50 + [message] * 50, strict=True
                ):
                    at_most = len(data) - (data is opening)
                    sock.sendall(data[at % at_most : at % at_most + 1])
                if self._over.wait(0.02):
                    return

    def resets(self, number: int) -> None:
        """In openings, in messages, and with answers under way."""
        way = _chance.randrange(3)
        if not way:
            with self._connected() as sock:
                sock.sendall(b"GET /listen HTTP/1.1\r\nHost")
                reset(sock)
            return
        with self._opened("/listen" if way == 1 else "/chat?user=ann") as sock:
            data = text(b"x" * 100_000)[:50_000] if way == 1 else text(REQUESTS[0]) * 3
            sock.sendall(data)
            reset(sock)


def read_head(sock: socket.socket) -> None:
    answer = b""
    while b"\r\n\r\n" not in answer:
        data = sock.recv(65536)
        if not data:
            raise EOFError
        answer += data


def _bomb() -> bytes:
    deflate = zlib.compressobj(wbits=-15)
    part = deflate.compress(bytes(MIB)) + deflate.flush(zlib.Z_FULL_FLUSH)
    return frame(Opcode.BINARY, part * 1024, rsv1=True)


def _abuse() -> list[bytes]:
    """Return openings that are none, or may not be."""
    good = ClientHandshake("127.0.0.1", "/listen").request()
    head = good[:-2]
    return [
        good.replace(b"/listen", b"/nowhere"),
        good.replace(b"Version: 13", b"Version: 12"),
        good.replace(b"Sec-WebSocket-Key: ", b"Sec-WebSocket-Key: x"),
        head + b"Origin: http://evil.example\r\n\r\n",
        good.replace(b"GET", b"POST"),
        good.replace(b"HTTP/1.1", b"HTTP/0.9"),
        head + b"X: y\r\n" * 4000 + b"\r\n",
        head + b"X: " + b"y" * 100_000 + b"\r\n\r\n",
        b"\x16\x03\x01\x02\x00\x01" + bytes(500),
        b"\r\n" * 500,
        _chance.randbytes(500),
    ]


_chance = random.Random(1)
_openings = itertools.cycle(_abuse())
BOMB = _bomb()
BEGIN, CLOSE = frame(Opcode.TEXT, b"x", fin=False), frame(Opcode.CLOSE, b"\x03\xe8")
FLOODS = [
    (b"", text(b"x") * 500),
    (b"", frame(Opcode.BINARY, b"x" * 4096) * 50),
    (b"", frame(Opcode.BINARY, b"") * 500),
    (b"", frame(Opcode.PING, b"x" * 9) * 500),
    (b"", frame(Opcode.PONG, b"x" * 9) * 500),
    (BEGIN, frame(Opcode.CONTINUATION, b"", fin=False) * 500),
    (b"", (BEGIN + frame(Opcode.CONTINUATION, b"x")) * 500),
    (CLOSE, CLOSE * 500),
]
"""What comes first, and then again and again."""
REQUESTS = [
    b'{"type":"join","ref":1,"room":"a"}',
    b"no json",
    b'{"type":"who","ref":1,"room":"a"}',
    b'{"type":"say","ref":1,"room":"a","data":"x","mid":"1"}',
    b'{"type":"history","ref":1,"room":"a"}',
    b'{"type":"ping","ref":1}',
]
ATTACKS: dict[str, tuple[Callable[[Attack, int], None], int]] = {
    "handshakes": (Attack.handshakes, 4),
    "malformed": (Attack.malformed, 4),
    "frames": (Attack.frames, len(FLOODS)),
    "requests": (Attack.requests, len(REQUESTS)),
    "talkers": (Attack.talkers, 4),
    "bombs": (Attack.bombs, 4),
    "slow": (Attack.slow, 4),
    "resets": (Attack.resets, 4),
}


def main() -> None:
    port = int(sys.argv[1])
    for line in sys.stdin:
        attack = Attack(port, line.strip())
        time.sleep(BEGINNING)
        print("under way", flush=True)
        sys.stdin.readline()
        print(attack.end(), flush=True)


if __name__ == "__main__":
    main()
