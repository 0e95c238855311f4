"""A process that may have no more open files, or no more threads."""

from __future__ import annotations

import contextlib
import os
import resource
import socket
import threading
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
from flask import Flask
from werkzeug.serving import make_server

from flask_wschat import Listener, WSChat
from flask_wschat.server import LiveServer
from flask_wschat.transports.threaded import ThreadedLoop
from tests.support.live import stop

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
from .raw import read_status, send_opening

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
    kind = Kind(request.param, WAYS[request.param], forked="patched")
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


THREADS: dict[str, str] = {
    "memory": "memory://",
    "sqlite": "sqlite:///{folder}/chat.db",
    "redis": "{redis}",
}


@pytest.fixture
def no_threads(monkeypatch: pytest.MonkeyPatch) -> Iterator[Callable[[bool], None]]:
    """Take away, and give back, what a new thread needs.

    RLIMIT_NPROC does not bind root; that the system has no place for the stack, does.
    """
    monkeypatch.setattr(ThreadedLoop, "_shared", None)  # it has a thread already
    before = threading.stack_size()

    def limit(none: bool) -> None:
        threading.stack_size(1 << 46 if none else before)

    yield limit
    threading.stack_size(before)


@contextlib.contextmanager
def serving(app: Flask, kind: str) -> Iterator[int]:
    """Serve on a port; no thread is needed for one more request."""
    if kind == "gevent":
        live = LiveServer(app)
        yield live.port
        live.stop()
        return
    server = make_server("127.0.0.1", 0, app)
    thread = threading.Thread(target=server.serve_forever, args=(0.01,))
    thread.start()
    yield server.server_port
    server.shutdown()
    thread.join()
    server.server_close()


@pytest.mark.parametrize("url", THREADS)
@pytest.mark.parametrize("kind", ["gevent", "threads"])
def test_without_threads_openings_get_503_until_there_are_some(
    request: pytest.FixtureRequest,
    app: Flask,
    url: str,
    kind: str,
    tmp_path: Path,
    no_threads: Callable[[bool], None],
    caplog: pytest.LogCaptureFixture,
) -> None:
    redis = request.getfixturevalue("redis").url if url == "redis" else ""
    app.config["WSCHAT_URL"] = THREADS[url].format(folder=tmp_path, redis=redis)
    WSChat(app).listener("/listen")(Listener)
    needs_none = (kind, url) == ("gevent", "memory")
    with serving(app, kind) as port:
        no_threads(True)
        assert {status(port) for _ in range(20)} == {101 if needs_none else 503}
        no_threads(False)
        assert "Traceback" not in caplog.text
        assert caplog.text.count("can't start new thread") == (not needs_none)
        eventually(lambda: status(port) == 101, "it goes on")
    stop(app)


def status(port: int) -> int:
    with socket.create_connection(("127.0.0.1", port), DEADLINE) as sock:
        send_opening(sock, "/listen", host="localhost")
        return read_status(sock)


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
