"""What messages cost that grow, and how soon their readers have them.

    python -m benchmarks.streams [--seconds N] [--url URL]

In each of a hundred rooms one grows by fifty tokens a second, and ten connections of
the ready-made chat read it: all in one worker, patched by gevent, on a core of its own.
Each token says when it was appended. Every text has to be whole, and in order.
"""

from __future__ import annotations

import argparse
import json
import selectors
import socket
import statistics
import struct
import sys
import threading
import time
import urllib.request

from benchmarks.harness import Failed, Server, cpu_seconds, two_cores
from benchmarks.report import machine

ROOMS, READERS, RATE = 100, 10, 50
CPU_BAR, FIRST_BAR = 0.6, 0.05
"""Of a core; seconds until the first token is there."""
HEAD = (
    "GET /chat?user=u{} HTTP/1.1\r\nHost: 127.0.0.1:{}\r\nUpgrade: websocket\r\n"
    "Connection: Upgrade\r\nSec-WebSocket-Version: 13\r\n"
    "Sec-WebSocket-Key: AAAAAAAAAAAAAAAAAAAAAA==\r\n\r\n"
)


class Reader:
    """One connection, in one room; the first one of a room looks into what comes."""

    def __init__(self, port: int, number: int) -> None:
        self.room = f"room {number % ROOMS}"
        self.looks = number < ROOMS
        self.sock = socket.create_connection(("127.0.0.1", port))
        self.sock.sendall(HEAD.format(number % 100, port).encode())
        self.rest = b""
        while b"\r\n\r\n" not in self.rest:
            self.rest += self.sock.recv(65536)
        self.rest = self.rest.split(b"\r\n\r\n", 1)[1]
        request = json.dumps({"type": "join", "ref": 1, "room": self.room}).encode()
        self.sock.sendall(bytes([0x81, 0x80 | len(request)]) + bytes(4) + request)
        self.frames = 0
        self.text = ""
        self.done = False
        self.first: float | None = None
        """Seconds until the first token was here."""
        self.waits: list[float] = []
        """The same of all, those that waited for others too."""

    def read(self) -> None:
        data = self.sock.recv(1 << 20)
        if not data:
            raise Failed("a connection was closed")
        now = time.monotonic()
        data = self.rest + data
        at = 0
        while len(data) - at >= 2:
            size, start = data[at + 1], at + 2
            if size == 126:
                size, start = struct.unpack_from(">H", data, start)[0], start + 2
            elif size == 127:
                size, start = struct.unpack_from(">Q", data, start)[0], start + 8
            if len(data) < start + size:
                break
            at = start + size
            self.frames += 1
            body = data[start:at]
            if body.startswith(b'{"type":"message"'):
                self.done = True
            if self.looks:
                self.look(json.loads(body), now)
        self.rest = data[at:]

    def look(self, event: dict[str, str], now: float) -> None:
        if event["type"] == "append":
            tokens = [float(token) for token in event["text"].split()]
            if self.first is None:
                self.first = now - tokens[0]
            self.waits += [now - token for token in tokens]
            self.text += event["text"]
        elif event["type"] == "message" and not event["data"].startswith(self.text):
            raise Failed("a text is not what its pieces were")


def measure(seconds: int, url: str) -> tuple[float, list[Reader]]:
    """Return the share of a core that it took, and the readers."""
    command = ["-m", "gevent.monkey", "--module", "benchmarks.servers.wschat"]
    with Server(
        [sys.executable, *command], two_cores()[0], environment={"WSCHAT_URL": url}
    ) as server:
        readers = [Reader(server.port, n) for n in range(ROOMS * READERS)]
        page = f"http://127.0.0.1:{server.port}/write/{ROOMS}/{RATE}/{RATE * seconds}"
        with selectors.DefaultSelector() as selector:
            for reader in readers:
                selector.register(reader.sock, selectors.EVENT_READ, reader)
            rest(selector)
            threading.Thread(target=urllib.request.urlopen, args=(page,)).start()
            # All of them write from the second on, until the last but one.
            began = run(selector, 1.5, server)
            ended = run(selector, seconds - 2, server)
            until = time.monotonic() + 20
            while not all(reader.done for reader in readers):
                if time.monotonic() > until:
                    raise Failed("a message did not come")
                run(selector, 0.1, server)
        for reader in readers:
            reader.sock.close()
    return (ended[1] - began[1]) / (ended[0] - began[0]), readers


def rest(selector: selectors.BaseSelector) -> None:
    while ready := selector.select(0.5):
        for key, _ in ready:
            key.data.read()


def run(
    selector: selectors.BaseSelector, seconds: float, server: Server
) -> tuple[float, float]:
    """Read for so long; return what the time is, and the server's CPU time."""
    until = time.monotonic() + seconds
    while (left := until - time.monotonic()) > 0:
        for key, _ in selector.select(left):
            key.data.read()
    return time.monotonic(), cpu_seconds(server.pid)


def main() -> int:
    parser = argparse.ArgumentParser(
        prog="python -m benchmarks.streams", description="Messages that grow."
    )
    parser.add_argument("--seconds", type=int, default=8)
    parser.add_argument("--url", default="memory://")
    arguments = parser.parse_args()
    print(machine(), file=sys.stderr)
    share, readers = measure(arguments.seconds, arguments.url)
    looking = [reader for reader in readers if reader.looks]
    firsts = sorted(reader.first or 0.0 for reader in looking)
    waits = sorted(wait for reader in looking for wait in reader.waits)
    pieces = statistics.mean(reader.frames for reader in looking) / arguments.seconds
    print(
        f"{ROOMS} messages growing by {RATE} tokens a second, {READERS} readers each:"
        f" {share:.0%} of a core (bar: {CPU_BAR:.0%}), {pieces:.1f} pieces a second"
    )
    print(
        f"the first token is there after {statistics.median(firsts) * 1000:.1f} ms, of"
        f" the slowest {firsts[-1] * 1000:.1f} ms (bar: {FIRST_BAR * 1000:.0f} ms); any"
        f" after {statistics.median(waits) * 1000:.0f} ms, 99 of 100 after"
        f" {waits[len(waits) * 99 // 100] * 1000:.0f} ms at most"
    )
    return 0 if share < CPU_BAR and statistics.median(firsts) < FIRST_BAR else 1


if __name__ == "__main__":
    try:
        sys.exit(main())
    except Failed as error:
        sys.exit(str(error))
