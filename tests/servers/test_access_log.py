"""What ``chat.run`` shows of its requests and its sockets."""

from __future__ import annotations

import contextlib
import os
import re
from collections.abc import Iterator
from pathlib import Path

import pytest

from .serving import Kind, RawClient, Server, closed, eventually

pytestmark = [pytest.mark.slow, pytest.mark.timeout(60)]

STAMP = r"\[\d\d/\w{3}/\d{4} \d\d:\d\d:\d\d\]"


@contextlib.contextmanager
def running(folder: Path, options: str = "") -> Iterator[Server]:
    code = (
        "from tests.servers.app import app, chat;"
        f" chat.run(app, port=ADDRESS, patch=False{options})"
    )
    nothing = Path(os.devnull)
    server = Server(Kind("run", ("-c", code)), folder, (nothing, nothing))
    try:
        server.ensure()
        yield server
    finally:
        server.stop()


def lines(server: Server) -> list[str]:
    """Return the lines for requests, without their time."""
    found = re.findall(rf"^(.*) - - {STAMP} (.*)$", server.log, re.M)
    assert {address for address, _ in found} == {"127.0.0.1"}
    return [line for _, line in found if "/process" not in line]


def last(server: Server, line: str) -> None:
    eventually(lambda: lines(server)[-1] == line, line)


def test_requests_and_sockets_have_their_lines(tmp_path: Path) -> None:
    with running(tmp_path) as server:
        assert server.http("/page?a=b")[0] == 200
        assert server.http("/nowhere")[0] == 404
        assert server.http("/echo?a=b&ticket=s.e-c_ret&c=d")[0] == 401
        for path in ("/listen", "/echo"):
            with server.connect(path):
                last(server, f'"GET {path} HTTP/1.1" 101 -')
            last(server, f'"WebSocket {path} closed" 1000 -')
        with server.connect("/close/4001") as client:
            assert closed(client)[0] == 4001
        eventually(lambda: len(lines(server)) == 9, "nine lines")
        assert lines(server) == [
            '"GET /page?a=b HTTP/1.1" 200 -',
            '"GET /nowhere HTTP/1.1" 404 -',
            '"GET /echo?a=b&ticket=…&c=d HTTP/1.1" 401 -',
            '"GET /listen HTTP/1.1" 101 -',
            '"WebSocket /listen closed" 1000 -',
            '"GET /echo HTTP/1.1" 101 -',
            '"WebSocket /echo closed" 1000 -',
            '"GET /close/4001 HTTP/1.1" 101 -',
            '"WebSocket /close/4001 closed: kicked" 4001 -',
        ]


def test_clients_forge_no_lines(tmp_path: Path) -> None:
    with running(tmp_path) as server:
        for start in ("GET /a\x1b[2J HTTP/1.1", "GET /a\rb HTTP/1.1", "\x85"):
            with server.socket() as sock:
                sock.sendall(f"{start}\r\nHost: a\r\n\r\n".encode("latin-1"))
                assert b" 400 " in sock.recv(65536)
        server.http("/said/%0aforged%1b[2J%c2%85" + "a" * 2000)
        eventually(lambda: len(lines(server)) == 4, "four lines")
        assert lines(server)[:3] == ['"-" 400 -'] * 3
        assert max(map(len, lines(server))) < 600
        with RawClient(server) as client:
            client.open("/any/%0aforged%1b[2J%c2%85")
            close = client.connection.close(4400, 'x" 200 -\nforged\x1b[2J')
            client.socket.sendall(close)
        eventually(lambda: len(lines(server)) == 6, "six lines")
        line = lines(server)[-1]
        assert line.startswith('"WebSocket /any/\\nforged\\x1b[2J')
        assert line.endswith(" closed: x' 200 -\\nforged\\x1b[2J\" 4400 -")
        assert len(server.log.splitlines()) == len(server.log.split("\n")) - 1


def test_with_log_none_there_are_none(tmp_path: Path) -> None:
    with running(tmp_path, ", log=None") as server:
        assert server.http("/page")[0] == 200
        with server.connect("/listen"):
            pass
        assert re.findall(STAMP, server.log) == []
