"""Bytes to a server, and what it answers."""

from __future__ import annotations

import contextlib
import re
import socket

from tests.support.waiting import DEADLINE

from ..servers.serving import Server

KEY = "dGhlIHNhbXBsZSBub25jZQ=="
PATIENCE = 3
"""Seconds that a client has to say what it wants, of the servers here."""


def converse(server: Server, *parts: bytes) -> bytes:
    """Send ``parts`` and the end; return all that comes back."""
    answer = b""
    with server.socket() as sock:
        with contextlib.suppress(OSError):  # it had enough before we were done
            for part in parts:
                sock.sendall(part)
            sock.shutdown(socket.SHUT_WR)
        with contextlib.suppress(ConnectionError):
            while data := sock.recv(65536):
                answer += data
    return answer


def statuses(answer: bytes) -> list[int]:
    """Return the status codes of responses."""
    return [int(code) for code in re.findall(rb"HTTP/1\.1 ([0-9]{3}) [A-Z]", answer)]


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
