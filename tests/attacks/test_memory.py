"""What connections cost at most: computed as in docs/deploy/memory.md, and measured."""

from __future__ import annotations

import contextlib
import json
import platform
import socket
import subprocess
import sys
import threading
import time
import urllib.request
from collections.abc import Iterator
from pathlib import Path
from typing import NamedTuple

import pytest

from flask_wschat.client import Client, open_over
from flask_wschat.codec import ClientHandshake, Opcode, encode_frame
from flask_wschat.incoming import INBOX_LIMIT
from flask_wschat.transports.queue import READ_SIZE
from tests.support.processes import Process

pytestmark = [
    pytest.mark.slow,
    pytest.mark.timeout(90),
    pytest.mark.skipif(
        not Path("/proc/self/clear_refs").exists(), reason="/proc is Linux's"
    ),
]
DEADLINE = 20.0
MIB = 1 << 20
MAX_QUEUE, MAX_QUEUED, MAX_MESSAGE = MIB, 24 * MIB, 256 * 1024
SPARE = 12 * MIB
"""What the allocator holds in pieces that are too small, and Python's own."""
MASK = b"mask"


def comes_in(count: int) -> int:
    """Return what may wait of what ``count`` connections sent, in bytes of memory."""
    # A part of a message, a read, the inbox; and the message that filled it, which may
    # be text of four bytes a character.
    return count * (MAX_MESSAGE + READ_SIZE + INBOX_LIMIT + 4 * MAX_MESSAGE)


class Memory(NamedTuple):
    peak: int
    held: int
    queued: int
    slow: int
    members: int


class Hoard:
    """The server, and clients that read nothing."""

    def __init__(self, folder: Path) -> None:
        settings = {
            "MAX_QUEUE": MAX_QUEUE,
            "MAX_QUEUED": MAX_QUEUED,
            "MAX_MESSAGE": MAX_MESSAGE,
            "PING_TIMEOUT": 60,
        }
        self._process = Process(
            [sys.executable, "-m", "tests.attacks.hoarding"],
            folder / "log",
            {f"FLASK_WSCHAT_{key}": str(value) for key, value in settings.items()},
            stdin=subprocess.PIPE,
        )
        self._process.start()
        self._port = int(self._process.heard("\n").split()[0])
        self._clients: list[Client] = []

    def ask(self, path: str = "/memory") -> Memory:
        url = f"http://127.0.0.1:{self._port}{path}"
        with urllib.request.urlopen(url, timeout=DEADLINE) as answer:
            return Memory(**json.load(answer))

    def connect(self, path: str, *, reads: bool = False) -> socket.socket:
        sock = socket.socket()
        if not reads:
            sock.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 4096)
        sock.connect(("127.0.0.1", self._port))
        handshake = ClientHandshake("127.0.0.1", path)
        self._clients.append(open_over(sock, handshake, DEADLINE))
        sock.setblocking(False)
        return sock

    def close(self) -> None:
        for client in self._clients:
            client.abort()
        self._process.stdin.close()
        self._process.wait()


@pytest.fixture
def hoard(tmp_path: Path) -> Iterator[Hoard]:
    hoard = Hoard(tmp_path)
    yield hoard
    hoard.close()


def pour(socks: list[socket.socket], data: bytes, seconds: float) -> None:
    """Send ``data`` again and again over each, until none takes any for a while.

    Whole, unless the server ends it.
    """
    left = {sock: data for sock in socks}
    quiet = time.monotonic()
    until = quiet + 20 * seconds
    while left and time.monotonic() < min(quiet + seconds, until):
        for sock, rest in list(left.items()):
            with contextlib.suppress(BlockingIOError):
                try:
                    count = sock.send(rest)
                except OSError:
                    del left[sock]
                    continue
                quiet = time.monotonic()
                left[sock] = rest[count:] or data
        threading.Event().wait(0.001)


@pytest.mark.parametrize(("size", "count"), [(1, 4), (300, 40), (100_000, 60)])
def test_answers_that_nobody_reads(size: int, count: int, hoard: Hoard) -> None:
    socks = [hoard.connect("/echo") for _ in range(count)]
    before = hoard.ask("/begin")
    frame = encode_frame(Opcode.BINARY, b"x" * size, mask=MASK)
    until = time.monotonic() + 2 * DEADLINE
    while (after := hoard.ask()).held < MAX_QUEUED // 2 and not after.slow:
        pour(socks, frame * max(65536 // len(frame), 1), 0.3)
        assert time.monotonic() < until, f"it was not put to the test: {after}"
    pour(socks, frame * max(65536 // len(frame), 1), 0.3)
    after = hoard.ask()
    assert after.held < MAX_QUEUED
    waiting = count * (READ_SIZE + INBOX_LIMIT + 2 * size)
    assert after.peak - before.peak < MAX_QUEUED + waiting + SPARE, after


@pytest.mark.pain(4)
def test_broadcasts_that_nobody_reads(hoard: Hoard) -> None:
    count = 300
    for _ in range(count):
        hoard.connect("/fan")
    speaker = hoard.connect("/fan", reads=True)
    before = hoard.ask("/begin")
    frame = encode_frame(Opcode.TEXT, b"x" * 64, mask=MASK) * 100
    speaker.setblocking(True)
    speaker.settimeout(DEADLINE)
    for _ in range(300):
        speaker.sendall(frame)
        got = 0
        while got < 100 * 66:
            got += len(speaker.recv(65536))
    after = hoard.ask()
    assert after.peak - before.peak < MAX_QUEUED + SPARE, after
    assert after.slow or after.members < count + 1


def test_what_comes_in_and_is_not_asked_for(hoard: Hoard) -> None:
    count = 40
    socks = [hoard.connect("/never") for _ in range(count)]
    before = hoard.ask("/begin")
    # Text of which one character makes all others take four bytes, and a half message.
    text = ("x" * (MAX_MESSAGE - 4) + "\N{PARTY POPPER}").encode()
    whole = encode_frame(Opcode.TEXT, text, mask=MASK)
    half = encode_frame(Opcode.BINARY, bytes(MAX_MESSAGE), mask=MASK)[:-1]
    for sock in socks:
        sock.settimeout(DEADLINE)
        sock.sendall(whole)
        sock.setblocking(False)
    pour(socks, half, 1.0)
    after = hoard.ask()
    assert after.members == count
    assert after.peak - before.peak < comes_in(count) + SPARE, after
    assert after.peak - before.peak > comes_in(count) // 3, "it was put to the test"


KEEPING = """
from pathlib import Path
from flask_wschat.transports import evented

def most():
    status = Path("/proc/self/status").read_text()
    return int(status.partition("VmHWM:")[2].split()[0])

def mappings():
    return Path("/proc/self/maps").read_text().count("\\n")

Path("/proc/self/clear_refs").write_text("5")
before = most()
evented._keep_memory()
print(most() - before)
before = mappings()
message = bytearray(5 << 20)
print(mappings() - before)
"""


@pytest.mark.skipif(
    platform.libc_ver()[0] != "glibc", reason="it is about glibc's allocator"
)
def test_to_keep_memory_for_large_messages_takes_none() -> None:
    """In KiB; and they get no mapping of their own, which is what it is for."""
    done = subprocess.run(
        [sys.executable, "-c", KEEPING], capture_output=True, text=True, check=True
    )
    taken, mapped = map(int, done.stdout.split())
    assert taken < 4096
    assert mapped == 0
