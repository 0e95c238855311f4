"""The server in docs, which stands on the codec alone, with a foreign client."""

from __future__ import annotations

import http.client
import socket
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest
import websockets.sync.client
from websockets.exceptions import ConnectionClosedError
from websockets.sync.client import ClientConnection

SERVER = Path(__file__).parents[2] / "docs" / "standalone_server.py"
DEADLINE = 5.0


@pytest.fixture(scope="module")
def twin() -> None:
    """Once is enough: the server chooses its twin itself."""


@pytest.fixture(scope="module")
def server() -> Iterator[subprocess.Popen[str]]:
    process = subprocess.Popen(
        [sys.executable, str(SERVER), "0"], stdout=subprocess.PIPE, text=True
    )
    yield process
    process.kill()
    process.communicate(timeout=DEADLINE)


@pytest.fixture(scope="module")
def url(server: subprocess.Popen[str]) -> str:
    assert server.stdout is not None
    return server.stdout.readline().split()[-1]


@pytest.fixture(params=[None, "deflate"], ids=["plain", "compressed"])
def client(url: str, request: pytest.FixtureRequest) -> Iterator[ClientConnection]:
    with websockets.sync.client.connect(
        url,
        compression=request.param,
        open_timeout=DEADLINE,
        close_timeout=DEADLINE,
        ping_interval=None,
    ) as client:
        yield client


def test_it_answers_text_binary_and_fragments(client: ClientConnection) -> None:
    client.send("höi")
    assert client.recv(DEADLINE) == "server got: höi"
    client.send(b"\x00\xff")
    assert client.recv(DEADLINE) == b"server got: \x00\xff"
    client.send(["in ", "three ", "fragments"])
    assert client.recv(DEADLINE) == "server got: in three fragments"
    client.send("x" * 100_000)
    assert client.recv(DEADLINE) == "server got: " + "x" * 100_000


def test_it_answers_pings(client: ClientConnection) -> None:
    assert client.ping().wait(DEADLINE)


def test_it_answers_a_close(
    client: ClientConnection, server: subprocess.Popen[str]
) -> None:
    client.close(4001, "enough")
    assert client.close_code == 4001
    assert server.stdout is not None
    lines = iter(server.stdout.readline, "")
    assert "closed: 4001 enough\n" in lines  # those of other tests come before


def test_it_refuses_what_is_no_handshake(url: str) -> None:
    host = url.removeprefix("ws://")
    web = http.client.HTTPConnection(host, timeout=DEADLINE)
    web.request("GET", "/")
    answer = web.getresponse()
    assert answer.status == 426
    assert b"connect with a WebSocket client" in answer.read()
    web.close()


def test_it_closes_on_faults(client: ClientConnection) -> None:
    client.socket.sendall(b"\x81\x00")  # not masked
    with pytest.raises(ConnectionClosedError, match="1002"):
        client.recv(DEADLINE)


def test_it_survives_those_who_leave(url: str) -> None:
    host, port = url.removeprefix("ws://").split(":")
    with socket.create_connection((host, int(port)), DEADLINE) as sock:
        sock.sendall(b"GET / HT")
    with websockets.sync.client.connect(url, open_timeout=DEADLINE) as client:
        client.send("still there?")
        assert client.recv(DEADLINE) == "server got: still there?"
