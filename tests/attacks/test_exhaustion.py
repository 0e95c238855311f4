"""A process that may have no more open files, or no more threads."""

from __future__ import annotations

import contextlib
import os
import resource
import threading
from collections.abc import Iterator
from pathlib import Path

import pytest
from flask import Flask

from flask_wschat import Listener, WSChat
from flask_wschat.testing import Refused, WSChatClient

from ..servers.serving import (
    DEADLINE,
    OUR_WORKER,
    Kind,
    RawClient,
    Server,
    eventually,
    gunicorn_command,
    receive,
)

WAYS = {
    "run": ("-m", "tests.servers.serve", "run", "ADDRESS"),
    "our-worker": tuple(gunicorn_command(OUR_WORKER, "127.0.0.1:ADDRESS")),
}
SPARE = 8
"""Descriptors that the server is left with."""
PAGE = b"GET /page HTTP/1.1\r\nHost: a\r\nConnection: close\r\n\r\n"
WATCHED = 1.0
"""Seconds for which it has none."""


@pytest.fixture(params=WAYS)
def way(request: pytest.FixtureRequest, tmp_path: Path) -> Iterator[Server]:
    kind = Kind(request.param, WAYS[request.param])
    server = Server(kind, tmp_path, (Path(os.devnull), Path(os.devnull)))
    server.ensure()
    yield server
    server.stop()
    server.check_log()


def cpu_seconds(pid: int) -> float:
    """Return the time for which a process had a processor."""
    fields = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()
    return (int(fields[11]) + int(fields[12])) / os.sysconf("SC_CLK_TCK")


@contextlib.contextmanager
def descriptors_left(server: Server, count: int) -> Iterator[None]:
    soft, hard = resource.prlimit(server.pid, resource.RLIMIT_NOFILE)
    used = {int(name) for name in os.listdir(f"/proc/{server.pid}/fd")}
    free = (number for number in range(hard) if number not in used)
    for _ in range(count):
        last = next(free)
    resource.prlimit(server.pid, resource.RLIMIT_NOFILE, (last + 1, hard))
    yield
    resource.prlimit(server.pid, resource.RLIMIT_NOFILE, (soft, hard))


@pytest.mark.slow
@pytest.mark.timeout(60)
def test_without_descriptors_a_server_waits_and_goes_on(way: Server) -> None:
    files = way.open_files()
    with contextlib.ExitStack() as stack:
        old = stack.enter_context(way.connect("/listen"))
        others: list[RawClient] = []
        with descriptors_left(way, SPARE):
            for _ in range(SPARE):
                others.append(stack.enter_context(RawClient(way).open("/listen")))
            late = [stack.enter_context(way.socket()) for _ in range(20)]
            for sock in late:
                sock.sendall(PAGE)
            before = cpu_seconds(way.pid)
            late[0].settimeout(WATCHED)
            with pytest.raises(TimeoutError):
                late[0].recv(1)
            assert cpu_seconds(way.pid) - before < WATCHED / 5
            old.send("still there")
            assert receive(old) == "still there"
            for client in others:
                client.reset()
            for sock in late:
                sock.settimeout(DEADLINE)
                assert b" 200 " in sock.recv(65536)
        assert way.log.count("no connection can be accepted now") == 1
        assert "ulimit -n" in way.log
        assert way.http("/page") == (200, "a page")
    eventually(lambda: way.open_files() <= files, f"no more than {files} open files")
