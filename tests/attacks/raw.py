"""Bytes to a server, and what it answers."""

from __future__ import annotations

import contextlib
import re
import socket

from ..servers.serving import Server


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
