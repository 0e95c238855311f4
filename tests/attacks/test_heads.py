"""Request heads meant to hold the server up: floods, drips, no pause between them."""

from __future__ import annotations

import contextlib
import re
import socket
import threading
import time

import pytest

from tests.attacks.raw import PATIENCE, converse, statuses

from ..servers.serving import DEADLINE, Server, eventually

pytestmark = [pytest.mark.slow, pytest.mark.timeout(60)]


@pytest.mark.parametrize("line", [b"\r\n", b"\n", b"\r"], ids=repr)
def test_line_ends_for_ever_stop_nobody(way: Server, line: bytes) -> None:
    """Once they were taken away again with each that came: minutes for these."""
    flood = line * (1 << 17)
    with contextlib.ExitStack() as stack:
        for _ in range(5):
            sock = stack.enter_context(way.socket())
            with contextlib.suppress(ConnectionError):
                sock.sendall(flood)
        assert way.http("/page") == (200, "a page")
    assert statuses(converse(way, flood)) in ([400], [414], [])


def test_a_few_empty_lines_are_no_fault(way: Server) -> None:
    page = b"GET /page HTTP/1.1\r\nHost: a\r\n\r\n"
    assert statuses(converse(way, b"\r\n\r\n" + page, b"\r\n" + page)) == [200, 200]


@pytest.mark.parametrize(
    ("begin", "again", "status"),
    [
        (b"GET /", b"a", 414),
        (b"GET / HTTP/1.1\r\nHost: a\r\nA: ", b"b", 431),
        (b"GET / HTTP/1.1\r\nHost: a\r\n", b"A:\r\n", 431),
    ],
)
@pytest.mark.parametrize("size", [8, 700, 20_000])
def test_a_head_without_an_end_is_refused_in_time(
    way: Server, begin: bytes, again: bytes, status: int, size: int
) -> None:
    with way.socket() as sock:
        with contextlib.suppress(ConnectionError):
            sock.sendall(begin)
            for _ in range(80_000 // size):
                sock.sendall(again * (size // len(again) or 1))
        # What a reset takes away of the answer is nobody's fault.
        with contextlib.suppress(ConnectionError):
            assert statuses(sock.recv(65536)) in ([status], [])
    assert way.http("/page") == (200, "a page")


@pytest.mark.parametrize("drop", [b"", b"\r\n", b"GET / HTTP/1.1\r\nHost: a\r\n"])
def test_a_slow_head_is_given_up(way: Server, drop: bytes) -> None:
    with way.socket() as sock:
        sock.sendall(drop)
        expected = [408] if drop.strip() else []
        assert statuses(sock.recv(65536)) == expected


def test_a_head_that_drips_is_given_up(way: Server) -> None:
    """Each byte comes in time."""
    until = time.monotonic() + DEADLINE
    answer = b""
    with way.socket() as sock, contextlib.suppress(ConnectionError):
        sock.settimeout(0.05)
        for byte in b"GET / HTTP/1.1\r\nHost: a\r\nA: " + b"b" * 8000:
            assert time.monotonic() < until
            sock.sendall(bytes([byte]))
            with contextlib.suppress(TimeoutError):
                answer = sock.recv(65536)
                break
    assert statuses(answer) == [408]


def test_a_head_that_comes_just_in_time_is_answered(way: Server) -> None:
    page = b"GET /page HTTP/1.1\r\nHost: a\r\n\r\n"
    began = time.monotonic()
    with way.socket() as sock:
        sock.settimeout(PATIENCE / 20)
        for byte in page:
            sock.sendall(bytes([byte]))
            if time.monotonic() - began < PATIENCE * 0.7:
                with pytest.raises(TimeoutError):
                    sock.recv(1)
        sock.settimeout(DEADLINE)
        assert statuses(sock.recv(65536)) == [200]


def test_who_asks_without_a_pause_leaves_the_others_their_turn(way: Server) -> None:
    count = 2000
    page = b"GET /page HTTP/1.1\r\nHost: a\r\n\r\n"
    last = b"GET /page HTTP/1.1\r\nHost: a\r\nConnection: close\r\n\r\n"
    seen: list[int] = []
    begun = threading.Event()

    def read(sock: socket.socket) -> None:
        while data := sock.recv(65536):
            seen.append(data.count(b"a page"))
            begun.set()

    with way.socket() as sock:
        reader = threading.Thread(target=read, args=(sock,))
        reader.start()
        writer = threading.Thread(target=sock.sendall, args=(page * count + last,))
        writer.start()
        assert begun.wait(DEADLINE)
        assert way.http("/page") == (200, "a page")
        assert sum(seen) < count, "it was answered when all the others were"
        writer.join()
        reader.join()
    assert sum(seen) == count + 1


def test_each_request_has_its_own_line_in_the_log(way: Server) -> None:
    """What is refused before there is a request, and what becomes a WebSocket, too."""
    begun = len(way.log)
    good = b"GET /page HTTP/1.1\r\nHost: a\r\n\r\n"
    assert statuses(converse(way, good, b"GET\0/ HTTP/1.1\r\n\r\n")) == [200, 400]
    assert statuses(converse(way, b"\x1b[2J\r\n\r\n")) == [400]
    with way.connect("/listen"):
        pass

    def requests() -> list[str]:
        found = re.findall(r'"([^"]*)" ([0-9]{3}) ', way.log[begun:])
        return [f"{line} {status}" for line, status in found if "closed" not in line]

    eventually(lambda: len(requests()) == 4, "four lines")
    expected = ["GET /page HTTP/1.1 200", "- 400", "- 400", "GET /listen HTTP/1.1 101"]
    assert [line.replace("- - -", "-") for line in requests()] == expected
