"""Servers as subprocesses, and clients that speak to them over TCP, TLS and Unix."""

from __future__ import annotations

import contextlib
import dataclasses
import functools
import http.client
import json
import os
import selectors
import signal
import socket
import ssl
import struct
import sys
import threading
from collections.abc import Iterator
from pathlib import Path
from typing import Any, Protocol

import gunicorn.config
import pytest
import websockets.sync.client
from websockets.exceptions import ConnectionClosed
from websockets.sync.client import ClientConnection

from flask_wschat.codec import ClientHandshake, Closed, Connection, Event
from flask_wschat.transports.loop import IDLE_WORKERS
from tests.support import waiting
from tests.support.ports import free_port
from tests.support.processes import Process

DEADLINE = waiting.LONG
"""Seconds that anything may take; reached only by a failure."""
eventually = functools.partial(waiting.eventually, seconds=DEADLINE)

THREADS = 8
"""Requests that a server with a pool of threads works on at the same time."""

APP = "tests.servers.app:app"
NO_CONTROL_SOCKET: list[str] = []
"""What keeps gunicorn from having one, which all processes of this user would share."""
if "control_socket_disable" in gunicorn.config.make_settings():
    NO_CONTROL_SOCKET.append("--no-control-socket")


@dataclasses.dataclass(frozen=True)
class Kind:
    """A way to serve the application."""

    name: str
    command: tuple[str, ...]
    """Arguments for Python; ADDRESS, CERTIFICATE and KEY stand for what they say."""
    tls: bool = False
    unix: bool = False
    env: tuple[tuple[str, str], ...] = ()
    views: int = 16
    """Views that it can run at the same time, as far as a test should go."""
    gevent: bool = False
    """gevent's own stream server takes its connections."""
    frail: bool = False
    """It prints a traceback itself where a client vanishes in the middle of HTTP."""
    litters: bool = False
    """As Werkzeug with TLS: where it cannot answer it reads on. What that raises, as of
    OpenSSL 3.5, is printed, and holds the socket until garbage is collected."""
    promises: bool = False
    """It answers 101 before the application is asked, so a refusal is a close."""
    stop: signal.Signals = signal.SIGTERM
    stops_worker: bool = False
    """The signal is for the process that serves, not for the one that was started."""
    forked: str = ""
    """As for `Process`: it begins with its imports done. For those whose own beginning
    is no matter here, as they patch nothing and start nothing again."""


def _pywsgi(name: str, handler: str, **options: Any) -> Kind:
    command = ["-m", "tests.servers.serve", handler, "ADDRESS"]
    if options.get("tls"):
        command += ["CERTIFICATE", "KEY"]
    return Kind(
        name,
        tuple(command),
        gevent=True,
        frail=handler in ("stock", "plain"),
        promises=handler == "stock",
        forked="" if handler == "run" else "patched" if "env" in options else "plain",
        **options,
    )


def _flask(name: str, *arguments: str, **options: Any) -> Kind:
    command = ["-m", "flask", "--app", "tests.servers.app", "run"]
    command += ["--port", "ADDRESS", *arguments]
    if options.get("tls"):
        command += ["--cert", "CERTIFICATE", "--key", "KEY"]
    return Kind(name, tuple(command), **options)


def gunicorn_command(worker: str, address: str, *arguments: str) -> list[str]:
    """Return the arguments for Python that make gunicorn serve the application."""
    command = ["-m", "gunicorn", APP, "--worker-class", worker, "--bind", address]
    return [*command, "--graceful-timeout", "2", *arguments, *NO_CONTROL_SOCKET]


def _gunicorn(name: str, worker: str, *arguments: str, **options: Any) -> Kind:
    unix = options.get("unix")
    command = gunicorn_command(
        worker, "unix:ADDRESS" if unix else "127.0.0.1:ADDRESS", *arguments
    )
    if options.get("tls"):
        command += ["--certfile", "CERTIFICATE", "--keyfile", "KEY"]
    return Kind(name, tuple(command), **options)


STOCK_WORKER = "geventwebsocket.gunicorn.workers.GeventWebSocketWorker"
OUR_WORKER = "flask_wschat.gunicorn.GeventWebSocketWorker"
_PATCHED = (("PATCHED", "1"),)
_GTHREAD = ("gthread", "--threads", str(THREADS))

KINDS = [
    _pywsgi("run", "run"),
    _pywsgi("run-patched", "run", env=_PATCHED),
    _pywsgi("stock", "stock"),
    _pywsgi("stock-patched", "stock", env=_PATCHED),
    _pywsgi("plain", "plain"),
    _flask("flask", stop=signal.SIGINT, forked="plain"),
    _flask("flask-patched", stop=signal.SIGINT, env=_PATCHED),
    _flask(
        "flask-debug",
        "--debug",
        "--exclude-patterns=*",  # whoever edits the package while this runs
        stop=signal.SIGINT,
        stops_worker=True,
    ),
    _gunicorn("gthread", *_GTHREAD, views=THREADS, forked="plain"),
    _gunicorn("gevent", "gevent"),
    _gunicorn("sync", "sync", views=1, forked="plain"),
    _gunicorn("stock-worker", STOCK_WORKER, frail=True, promises=True),
    _gunicorn("our-worker", OUR_WORKER),
    _pywsgi("ours-tls", "ours", tls=True),
    _pywsgi("plain-tls", "plain", tls=True),
    _flask("flask-tls", stop=signal.SIGINT, tls=True, litters=True, forked="plain"),
    _gunicorn("gthread-tls", *_GTHREAD, views=THREADS, tls=True, forked="plain"),
    _gunicorn("gevent-tls", "gevent", gevent=True, tls=True),
    _pywsgi("ours-unix", "ours", unix=True),
    _gunicorn("gthread-unix", *_GTHREAD, views=THREADS, unix=True, forked="plain"),
    _gunicorn("our-worker-unix", OUR_WORKER, unix=True),
]


def with_settings(name: str, **settings: float) -> Kind:
    """Return a way to serve the application, with settings for it."""
    kind = next(kind for kind in KINDS if kind.name == name)
    given = [(f"FLASK_WSCHAT_{key}", str(value)) for key, value in settings.items()]
    return dataclasses.replace(kind, env=(*kind.env, *given))


RETURNS = ["connections", "descriptors", "greenlets", "threads", "topics", "users"]
KEPT = {"threads": 48, "greenlets": IDLE_WORKERS, "descriptors": 2}
"""What a server keeps for those who come next: its workers, and ours."""


class Site:
    """Where to connect to: TCP or Unix, with TLS or without."""

    def __init__(
        self,
        port: int,
        *,
        path: Path | None = None,
        certificate: Path | None = None,
        source: str = "127.0.0.1",
    ) -> None:
        self.port = port
        self.path = path
        self.source = source
        self.tls: ssl.SSLContext | None = None
        if certificate is not None:
            self.tls = ssl.create_default_context(cafile=str(certificate))

    def raw_socket(self, **options: int) -> socket.socket:
        """Return a connected socket; ``options`` are SOL_SOCKET's."""
        sock = socket.socket(socket.AF_UNIX if self.path else socket.AF_INET)
        try:
            for name, value in options.items():
                sock.setsockopt(socket.SOL_SOCKET, getattr(socket, name), value)
            sock.settimeout(DEADLINE)
            if self.path is None:
                sock.bind((self.source, 0))
            sock.connect(str(self.path) if self.path else ("127.0.0.1", self.port))
        except OSError:
            sock.close()
            raise
        return sock

    def socket(self, **options: int) -> socket.socket:
        """Return a connected socket, behind TLS where the server speaks it."""
        sock = self.raw_socket(**options)
        if self.tls is None:
            return sock
        try:
            return self.tls.wrap_socket(sock, server_hostname="127.0.0.1")
        except OSError:
            sock.close()
            raise

    def http(self, path: str, **headers: str) -> tuple[int, str]:
        """Return the status and the body of an ordinary request's answer."""
        connection = http.client.HTTPConnection(f"127.0.0.1:{self.port}")
        connection.sock = self.socket()
        try:
            names = {name.replace("_", "-"): value for name, value in headers.items()}
            connection.request("GET", path, headers=names)
            answer = connection.getresponse()
            return answer.status, answer.read().decode()
        finally:
            connection.close()

    def connect(self, path: str, **options: Any) -> ClientConnection:
        """Open a connection with the foreign client; messages of any size."""
        options = {
            "compression": None,
            "max_size": None,
            "max_queue": None,
            "open_timeout": DEADLINE,
            "close_timeout": DEADLINE,
            "ping_interval": None,
        } | options
        sock = self.socket()
        if isinstance(sock, ssl.SSLSocket):
            sock = tunnel(sock)
        if sock.family == socket.AF_UNIX:
            options["unix"] = True  # up to 16 it sets an option of TCP's otherwise
        client = websockets.sync.client.connect(
            f"ws://127.0.0.1:{self.port}{path}", sock=sock, **options
        )
        # It wants to be a context manager, at once; it may be entered again.
        return client.__enter__()


def tunnel(far: ssl.SSLSocket) -> socket.socket:
    """Return a plain socket to the other end of a TLS one.

    The foreign client reads in one thread and writes in another, which a TLS socket
    survives since CPython 3.12.8 and 3.13.1 only (python/cpython#124984); before, a
    request now and then never leaves.
    """
    near, ours = socket.socketpair()
    threading.Thread(target=_pump, args=(far, near), daemon=True).start()
    return ours


def _pump(far: ssl.SSLSocket, near: socket.socket) -> None:
    """Pass bytes between two sockets until one of them ends."""
    up, down = bytearray(), bytearray()
    far.setblocking(False)
    near.setblocking(False)
    with far, near, selectors.DefaultSelector() as selector:
        selector.register(far, selectors.EVENT_READ)
        selector.register(near, selectors.EVENT_READ)
        try:
            while _fill(far, down) and _fill(near, up):
                for sock, data in ((near, down), (far, up)):
                    _empty(sock, data)
                    writing = selectors.EVENT_WRITE if data else 0
                    selector.modify(sock, selectors.EVENT_READ | writing)
                selector.select(DEADLINE)
            near.settimeout(DEADLINE)
            near.sendall(down)
            far.settimeout(DEADLINE)
            far.sendall(up)
        except OSError:
            pass  # one end is gone, so the other one goes, too
        finally:
            far.close()


_WAIT = (ssl.SSLWantReadError, ssl.SSLWantWriteError, BlockingIOError)


def _fill(sock: socket.socket, data: bytearray) -> bool:
    with contextlib.suppress(*_WAIT):
        while more := sock.recv(1 << 18):
            data += more
        return False
    return True


def _empty(sock: socket.socket, data: bytearray) -> None:
    with contextlib.suppress(*_WAIT):
        while data:
            del data[: sock.send(data[: 1 << 18])]


class Server(Process, Site):
    """The application served in one of the ways, on an address of its own."""

    def __init__(self, kind: Kind, folder: Path, pair: tuple[Path, Path]) -> None:
        self.kind = kind
        Site.__init__(
            self,
            free_port(),
            path=folder / "socket" if kind.unix else None,
            certificate=pair[0] if kind.tls else None,
        )
        address = str(self.path or self.port)
        words = {"CERTIFICATE": str(pair[0]), "KEY": str(pair[1])}
        command = [
            words.get(word, word.replace("ADDRESS", address)) for word in kind.command
        ]
        if not kind.forked:
            command.insert(0, sys.executable)
        Process.__init__(
            self, command, folder / "log", dict(kind.env), forked=kind.forked
        )
        self.pid = 0
        self._seen = 0

    def ensure(self) -> None:
        """Start it if it does not run, and wait until it answers."""
        if not self.running:
            if self.path is not None:
                self.path.unlink(missing_ok=True)
            self.pid = 0
            self.start()
        if not self.pid:
            eventually(self._answers, lambda: f"the server answers\n{self.log}")

    def _answers(self) -> bool:
        assert self.running, f"it ended:\n{self.log}"
        try:
            self.pid = json.loads(self.http("/process")[1])["pid"]
        except OSError:
            return False
        return True

    def open_files(self) -> int:
        return len(os.listdir(f"/proc/{self.pid}/fd"))

    def threads(self) -> int:
        return len(os.listdir(f"/proc/{self.pid}/task"))

    def holds(self) -> dict[str, int]:
        """Return what it holds, garbage apart."""
        found: dict[str, int] = json.loads(self.http("/holds")[1])
        return found

    def left(self, before: dict[str, int]) -> dict[str, int]:
        """Return what it holds beyond what it held ``before``, and what it keeps."""
        now = self.holds()
        return {
            name: now[name] - before[name]
            for name in RETURNS
            if now[name] > before[name] + KEPT.get(name, 0)
        }

    def memory(self) -> int:
        """Return the bytes that it has; from here on it is the most it had."""
        Path(f"/proc/{self.pid}/clear_refs").write_text("5")
        return self.most_memory()

    def most_memory(self) -> int:
        status = Path(f"/proc/{self.pid}/status").read_text()
        return int(status.partition("VmHWM:")[2].split()[0]) << 10

    def is_idle(self) -> bool:
        """Whether it waits for something to happen."""
        stat = Path(f"/proc/{self.pid}/stat").read_text()
        return stat.rpartition(")")[2].split()[0] == "S"

    def forget_log(self) -> None:
        """Leave what was logged so far out of the next ``check_log``."""
        eventually(self.is_idle, "all that happened is dealt with")
        self._seen = len(self.log)

    def check_log(self) -> None:
        """Fail if there is an error in what was logged since the last look."""
        log = self.log
        new, self._seen = log[self._seen :], len(log)
        for word in ("Traceback", "Exception", "Error"):
            assert word not in new, new


class Reachable(Protocol):
    """What can be connected to."""

    def socket(self, **options: int) -> socket.socket: ...


class RawClient:
    """A socket and our codec: for what a well-behaved client does not do."""

    def __init__(self, server: Reachable, **options: int) -> None:
        self.socket = server.socket(**options)
        self.connection = Connection(client=True, max_message=1 << 30)
        self.first: list[Event] = []

    def open(self, path: str, behind: bytes = b"") -> RawClient:
        """Handshake; ``behind`` is sent in the same segment as the request."""
        handshake = ClientHandshake("127.0.0.1", path)
        self.socket.sendall(handshake.request() + behind)
        data = b""
        while (size := handshake.receive_data(data)) is None:
            more = self.socket.recv(65536)
            assert more, f"the end, after {data!r}"
            data += more
        self.first = self.connection.receive_data(data[size:])
        return self

    def events(self) -> Iterator[Event]:
        """Yield what arrives, until the server ends the stream."""
        yield from self.first
        while data := self.socket.recv(65536):
            yield from self.connection.receive_data(data)

    def closed(self) -> Closed:
        """Return how the connection ends; what comes before is passed over."""
        for event in self.events():
            if isinstance(event, Closed):
                return event
        raise AssertionError("the stream ended without a close frame")

    def reset(self) -> None:
        """Vanish with a reset, as a killed process does."""
        linger = struct.pack("ii", 1, 0)
        self.socket.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, linger)
        self.socket.close()

    def __enter__(self) -> RawClient:
        return self

    def __exit__(self, *error: object) -> None:
        self.socket.close()


def receive(client: ClientConnection) -> Any:
    return client.recv(timeout=DEADLINE)


def closed(client: ClientConnection) -> tuple[int, str]:
    """Return the code and the reason that the server closes with."""
    with pytest.raises(ConnectionClosed) as caught:
        while True:
            receive(client)
    frame = caught.value.rcvd
    assert frame is not None, "the stream ended without a close frame"
    return frame.code, frame.reason
