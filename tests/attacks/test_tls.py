"""Clients that connect to a TLS port, and do not speak TLS, or hardly."""

from __future__ import annotations

import contextlib
import os
import socket
import ssl
import time
from collections.abc import Iterator

import pytest

from tests.support.certificate import make_pair

from ..servers.serving import (
    DEADLINE,
    OUR_WORKER,
    Kind,
    Server,
    eventually,
    gunicorn_command,
)

pytestmark = [pytest.mark.slow, pytest.mark.timeout(60)]

_SERVE = ("-m", "tests.servers.serve", "server", "ADDRESS", "CERTIFICATE", "KEY")
_WORKER = tuple(gunicorn_command(OUR_WORKER, "127.0.0.1:ADDRESS"))
_PAIR = ("--certfile", "CERTIFICATE", "--keyfile", "KEY")


@pytest.fixture(scope="module", params=["server", "our-worker"])
def started(
    request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory
) -> Iterator[Server]:
    command = _SERVE if request.param == "server" else (*_WORKER, *_PAIR)
    env = (("FLASK_WSCHAT_HANDSHAKE_TIMEOUT", "1"),)
    forked = "plain" if request.param == "server" else "patched"
    kind = Kind(request.param, command, tls=True, env=env, forked=forked)
    folder = tmp_path_factory.mktemp("tls")
    server = Server(kind, folder, make_pair(folder))
    yield server
    server.stop()


@pytest.fixture
def server(started: Server) -> Iterator[Server]:
    started.ensure()
    yield started
    started.check_log()


def hello() -> bytes:
    """Return what a TLS client says first."""
    incoming, outgoing = ssl.MemoryBIO(), ssl.MemoryBIO()
    tls = ssl.create_default_context().wrap_bio(incoming, outgoing, server_hostname="a")
    with contextlib.suppress(ssl.SSLWantReadError):
        tls.do_handshake()
    return outgoing.read()


@pytest.mark.parametrize("size", [0, 1, 100, 10_000])
def test_half_a_tls_handshake_is_given_up(server: Server, size: int) -> None:
    files = server.open_files()
    with contextlib.ExitStack() as stack:
        socks = [stack.enter_context(server.raw_socket()) for _ in range(10)]
        for sock in socks:
            sock.sendall(hello()[:size])
        assert server.http("/page") == (200, "a page")
        for sock in socks:
            with contextlib.suppress(ConnectionError):
                while sock.recv(65536):
                    pass
    eventually(lambda: server.open_files() <= files, f"no more than {files} open files")


def test_a_tls_handshake_that_drips_is_given_up(server: Server) -> None:
    """Each byte comes in time."""
    until = time.monotonic() + DEADLINE
    with server.raw_socket() as sock, contextlib.suppress(ConnectionError):
        sock.settimeout(0.02)
        for byte in hello() * 100:
            assert time.monotonic() < until
            sock.sendall(bytes([byte]))
            with contextlib.suppress(TimeoutError):
                assert sock.recv(65536) == b""
                break


@pytest.mark.parametrize(
    "data", [b"GET / HTTP/1.1\r\nHost: a\r\n\r\n", b"\0" * 9999, os.urandom(9999)]
)
def test_what_is_not_tls_is_nothing_for_the_log(server: Server, data: bytes) -> None:
    for _ in range(20):
        with server.raw_socket() as sock, contextlib.suppress(ConnectionError):
            sock.sendall(data)
            with contextlib.suppress(OSError):  # not connected: it was reset already
                sock.shutdown(socket.SHUT_WR)
            while sock.recv(65536):
                pass
    assert server.http("/page") == (200, "a page")
