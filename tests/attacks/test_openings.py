"""Opening requests meant to harm: each is answered, and costs what it should."""

from __future__ import annotations

import socket

import pytest
from flask import Flask

from flask_wschat import Listener, WSChat

from ..conftest import DEADLINE, LiveServer, Serve

KEY = "dGhlIHNhbXBsZSBub25jZQ=="


def ask(server: LiveServer, path: str, *headers: str, host: str | None = None) -> int:
    """Send a raw opening request; return the status of the answer."""
    with server.socket() as sock:
        send_opening(sock, path, *headers, host=host or f"127.0.0.1:{server.port}")
        return read_status(sock)


def send_opening(sock: socket.socket, path: str, *headers: str, host: str) -> None:
    lines = [
        f"GET {path} HTTP/1.1",
        f"Host: {host}",
        "Connection: Upgrade",
        "Upgrade: websocket",
        f"Sec-WebSocket-Key: {KEY}",
        "Sec-WebSocket-Version: 13",
        *headers,
        "",
        "",
    ]
    sock.sendall("\r\n".join(lines).encode("latin-1"))


def read_status(sock: socket.socket) -> int:
    sock.settimeout(DEADLINE)
    answer = b""
    while b"\r\n\r\n" not in answer and (data := sock.recv(65536)):
        answer += data
    return int(answer.split(b" ")[1])


@pytest.fixture
def listening(chat: WSChat, server: LiveServer) -> LiveServer:
    chat.listener("/listen")(Listener)
    return server


def test_refused_origins_flood_and_forge_no_log(
    listening: LiveServer, caplog: pytest.LogCaptureFixture
) -> None:
    for number in range(50):
        origin = f"Origin: http://evil{number}.example\x85ERROR forged"
        assert ask(listening, "/listen", origin) == 403
    [line] = caplog.messages
    assert r"http://evil0.example\x85ERROR forged" in line
    assert "WSCHAT_ORIGINS" in line


def test_a_full_server_says_so_once(
    app: Flask, serve: Serve, caplog: pytest.LogCaptureFixture
) -> None:
    app.config["WSCHAT_MAX_CONNECTIONS"] = 1
    WSChat(app).listener("/listen")(Listener)
    server = serve(app)
    with server.connect("/listen"):
        assert [ask(server, "/listen") for _ in range(50)] == [503] * 50
    assert len(caplog.messages) == 1
