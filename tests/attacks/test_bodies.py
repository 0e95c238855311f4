"""Request bodies that are too slow, too long, too chopped, or never read."""

from __future__ import annotations

import contextlib
import json
import socket
from collections.abc import Iterator
from typing import Any

import pytest
from flask import Flask, request

import flask_wschat.servers.bodies
from flask_wschat import WSChat
from tests.attacks.raw import converse, statuses
from tests.support.live import LiveServer, Serve
from tests.support.waiting import DEADLINE

from ..servers.serving import Server

POST = b"POST /said/1 HTTP/1.1\r\nHost: a\r\n"
CHUNKED = POST + b"Transfer-Encoding: chunked\r\n\r\n"
PAGE = b"GET /page HTTP/1.1\r\nHost: a\r\nConnection: close\r\n\r\n"


@pytest.mark.slow
@pytest.mark.timeout(60)
@pytest.mark.parametrize(
    ("body", "status"),
    [
        pytest.param(POST + b"Content-Length: 9\r\n\r\nhello", 400, id="too short"),
        pytest.param(POST + b"Content-Length: 99999999999999999999\r\n\r\n", 413),
        pytest.param(POST + b"Content-Length: 99999999999999999\r\n\r\n", 400),
        pytest.param(CHUNKED + b"ffffffffffffffff\r\nhello", 400, id="16 digits"),
        pytest.param(CHUNKED + b"fffffffffffffffff\r\nhello", 400, id="17 digits"),
        pytest.param(CHUNKED + b"hello", 400, id="no size"),
        pytest.param(CHUNKED + b"5\r\nhello!", 400, id="no end"),
        pytest.param(CHUNKED + b"5\r\nhello\r\n", 400, id="no last"),
        pytest.param(CHUNKED + b"1;" + b"a" * 5000 + b"\r\nx\r\n", 400, id="extension"),
        pytest.param(CHUNKED + b"1;aaaaaaaaaa\r\nx\r\n" * 9000, 400, id="extensions"),
        pytest.param(CHUNKED + b"0\r\n" + b"a:b\r\n" * 200, 400, id="trailers"),
        pytest.param(CHUNKED + b"0\r\nA:" + b"a" * 5000, 400, id="trailer"),
        pytest.param(
            POST + b"Expect: 200-ok\r\nContent-Length: 1\r\n\r\na", 417, id="expect"
        ),
    ],
)
def test_a_malformed_body_is_the_clients_fault(
    way: Server, body: bytes, status: int
) -> None:
    assert statuses(converse(way, body)) == [status]


@pytest.mark.slow
@pytest.mark.timeout(60)
def test_single_byte_chunks_leave_the_others_their_turn(way: Server) -> None:
    with way.socket() as sock:
        sock.sendall(CHUNKED)
        for _ in range(10):
            sock.sendall(b"1\r\nx\r\n" * 10_000)
            assert way.http("/page") == (200, "a page")
        sock.sendall(b"0\r\n\r\n" + PAGE)
        answer = b""
        while data := sock.recv(1 << 16):
            answer += data
    assert statuses(answer) == [200, 200]
    assert answer.count(b"x" * 100_000) == 1


@pytest.fixture
def app(app: Flask) -> Flask:
    @app.post("/read")
    def read() -> str:
        return str(len(request.get_data()))

    @app.post("/part")
    def part() -> str:
        return str(len(request.stream.read(3)))

    @app.post("/lines")
    def lines() -> list[str]:
        return [line.decode() for line in request.stream]

    @app.route("/leave", methods=["GET", "POST"])
    def leave() -> str:
        return "left"

    WSChat(app)
    return app


@pytest.fixture(params=["ours", "ours on pywsgi"])
def server(request: pytest.FixtureRequest, app: Flask, serve: Serve) -> LiveServer:
    return serve(app, request.param)


@pytest.fixture
def hasty(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(flask_wschat.servers.bodies, "PATIENCE", 0.3)
    monkeypatch.setattr(flask_wschat.servers.bodies, "LINGER", 0.3)
    monkeypatch.setattr(flask_wschat.servers.bodies, "RATE", 1000)


def talk(server: LiveServer, *parts: bytes) -> bytes:
    """Send ``parts`` and return all that comes until the server closes."""
    answer = b""
    with socket.create_connection(("127.0.0.1", server.port), DEADLINE) as sock:
        with contextlib.suppress(ConnectionError):
            for part in parts:
                sock.sendall(part)
        with contextlib.suppress(ConnectionError):
            while data := sock.recv(65536):
                answer += data
    return answer


def post(path: str, *fields: str) -> bytes:
    lines = [f"POST {path} HTTP/1.1", "Host: a", *fields, "", ""]
    return "\r\n".join(lines).encode()


@pytest.mark.parametrize(
    "begin",
    [
        post("/read", "Content-Length: 9") + b"hello",
        post("/read", "Transfer-Encoding: chunked"),
        post("/read", "Transfer-Encoding: chunked") + b"5\r\nhe",
        post("/read", "Transfer-Encoding: chunked") + b"5\r\nhello\r\n0\r\nA",
    ],
    ids=["length", "size", "chunk", "trailer"],
)
@pytest.mark.usefixtures("hasty")
def test_a_body_that_stops_is_given_up(server: LiveServer, begin: bytes) -> None:
    assert statuses(talk(server, begin)) == [408]


@pytest.mark.usefixtures("hasty")
def test_a_body_that_drips_is_given_up(server: LiveServer) -> None:
    """Each byte comes in time, and all of them would take an hour."""

    def drip(sock: socket.socket) -> Iterator[bytes]:
        sock.settimeout(0.01)
        for _ in range(int(DEADLINE / 0.01)):
            with contextlib.suppress(ConnectionError):
                sock.sendall(b"x")
            with contextlib.suppress(TimeoutError):
                yield sock.recv(65536)
                return

    with socket.create_connection(("127.0.0.1", server.port), DEADLINE) as sock:
        sock.sendall(post("/read", "Content-Length: 400000"))
        [answer] = drip(sock)
    assert statuses(answer) == [408]


@pytest.mark.usefixtures("hasty")
def test_a_body_that_nobody_reads_is_given_up(server: LiveServer) -> None:
    assert statuses(talk(server, post("/leave", "Content-Length: 9"))) == [200]
    endless = post("/leave", "Transfer-Encoding: chunked"), *[b"5\r\nhello\r\n"] * 5
    assert statuses(talk(server, *endless)) == [200]


@pytest.mark.parametrize("upgrade", [(), ("Connection: upgrade", "Upgrade: h2c")])
@pytest.mark.parametrize("path", ["/read", "/part", "/lines", "/leave"])
def test_the_next_request_begins_where_the_body_ends(
    server: LiveServer, path: str, upgrade: tuple[str, ...]
) -> None:
    body = b"one\ntwo\n" * 20_000
    length = post(path, *upgrade, f"Content-Length: {len(body)}") + body
    chunks = b"".join(
        b"%x\r\n%b\r\n" % (len(body[at : at + 999]), body[at : at + 999])
        for at in range(0, len(body), 999)
    )
    chunked = post(path, *upgrade, "Transfer-Encoding: chunked") + chunks + b"0\r\n\r\n"
    last = b"GET /leave HTTP/1.1\r\nHost: a\r\nConnection: x, close\r\n\r\n"
    answer = talk(server, length, chunked, last)
    assert statuses(answer) == [200, 200, 200]
    expected: dict[str, Any] = {
        "/read": str(len(body)),
        "/part": "3",
        "/lines": json.dumps(["one\n", "two\n"] * 20_000, separators=(",", ":")),
        "/leave": "left",
    }
    found = [part.partition(b"\r\n\r\n")[2] for part in answer.split(b"HTTP/1.1 ")]
    assert [each.strip().decode() for each in found[1:]] == [
        *[expected[path]] * 2,
        "left",
    ]


@pytest.mark.usefixtures("hasty")
def test_a_client_that_asks_first_is_told_to_go_on(server: LiveServer) -> None:
    asks = post("/read", "Expect: 100-Continue", "Content-Length: 5")
    with socket.create_connection(("127.0.0.1", server.port), DEADLINE) as sock:
        sock.sendall(asks)
        assert sock.recv(65536) == b"HTTP/1.1 100 Continue\r\n\r\n"
        sock.sendall(b"hello")
        answer = sock.recv(65536)
        while not answer.endswith(b"\r\n\r\n5"):
            answer += sock.recv(65536)
    # Where nobody reads it, it is not waited for, and not taken for a request.
    answer = talk(server, asks.replace(b"/read", b"/leave"))
    assert statuses(answer) == [200]
    assert b"Connection: close" in answer
