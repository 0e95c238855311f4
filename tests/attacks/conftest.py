"""The servers that read HTTP by our rules, each as a process of its own."""

from __future__ import annotations

import contextlib
import os
import re
import socket
from collections.abc import Iterator
from pathlib import Path

import pytest

from ..servers.serving import OUR_WORKER, Kind, Server, gunicorn_command

PATIENCE = 3
"""Seconds that a client has to say what it wants, in these servers."""

_SERVE = ("-m", "tests.servers.serve")
WAYS = {
    "run": (*_SERVE, "run", "ADDRESS"),
    "ours": (*_SERVE, "ours", "ADDRESS"),
    "our-worker": (
        *gunicorn_command(OUR_WORKER, "127.0.0.1:ADDRESS"),
        *("--access-logfile", "-"),
    ),
}


@pytest.fixture(scope="module", params=WAYS)
def started_way(
    request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory
) -> Iterator[Server]:
    nothing = Path(os.devnull)
    env = (("HANDSHAKE_TIMEOUT", str(PATIENCE)),)
    kind = Kind(request.param, WAYS[request.param], env=env)
    server = Server(kind, tmp_path_factory.mktemp("server"), (nothing, nothing))
    yield server
    server.stop()


@pytest.fixture
def way(started_way: Server) -> Iterator[Server]:
    """``chat.run``, our handler on pywsgi, our gunicorn worker; none logs an error."""
    started_way.ensure()
    yield started_way
    assert started_way.running
    started_way.check_log()


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
