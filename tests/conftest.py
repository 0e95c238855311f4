"""Fixtures: an app with sockets, real servers for it, clients to talk to them."""

from __future__ import annotations

import functools
import os
import shutil
import socket
import threading
import time
from collections.abc import Callable, Iterator
from typing import Any

import geventwebsocket.handler
import hypothesis
import pytest
import websockets.sync.client
from flask import Flask
from gevent.pywsgi import WSGIServer
from playwright.sync_api import Browser, sync_playwright
from websockets.sync.client import ClientConnection

import flask_wschat.server
from flask_wschat import WSChat
from flask_wschat.backends.redis import RedisBackend
from flask_wschat.backends.sqlite import SQLiteBackend
from flask_wschat.server import Server, WebSocketHandler

hypothesis.settings.register_profile("dev", max_examples=50, deadline=None)
hypothesis.settings.register_profile("ci", max_examples=500, deadline=None)
hypothesis.settings.load_profile("ci" if os.environ.get("CI") == "true" else "dev")

pytest_plugins = ["pytester"]

DEADLINE = 5.0
"""Seconds that anything in a test may take; reached only by a failure."""

CHROMIUM_ARGUMENTS = [
    "--headless",
    "--no-sandbox",
    "--disable-gpu",
    "--disable-quic",
    "--no-first-run",
    "--disable-background-networking",
    "--disable-component-update",
    "--disable-sync",
]
CHROMIUM_NAMES = ("chromium", "chromium-browser", "google-chrome")

Serve = Callable[..., "LiveServer"]
HANDLERS: dict[str, tuple[type, type[WSGIServer]]] = {
    "ours": (WebSocketHandler, Server),
    "ours on pywsgi": (WebSocketHandler, WSGIServer),
    "stock": (geventwebsocket.handler.WebSocketHandler, WSGIServer),
}


class LiveServer(flask_wschat.server.LiveServer):
    """A live server, and the foreign client to talk to it."""

    def socket(self, **options: int) -> socket.socket:
        """Return a connected socket; ``options`` are SOL_SOCKET's."""
        sock = socket.create_connection(("127.0.0.1", self.port), DEADLINE)
        for name, value in options.items():
            sock.setsockopt(socket.SOL_SOCKET, getattr(socket, name), value)
        return sock

    def connect(self, path: str, **options: Any) -> ClientConnection:
        """Open a connection with the foreign client; messages of any size."""
        options = {
            "compression": None,
            "max_size": None,
            "open_timeout": DEADLINE,
            "close_timeout": DEADLINE,
            "ping_interval": None,
        } | options
        client = websockets.sync.client.connect(self.url(path), **options)
        # It wants to be a context manager, at once; it may be entered again.
        return client.__enter__()


_made: list[RedisBackend | SQLiteBackend] = []


def _note_those_made(kind: type[RedisBackend] | type[SQLiteBackend]) -> None:
    init = kind.__init__

    @functools.wraps(init)
    def noting(self: Any, *args: Any, **options: Any) -> None:
        init(self, *args, **options)
        _made.append(self)

    kind.__init__ = noting  # type: ignore[method-assign]


_note_those_made(RedisBackend)
_note_those_made(SQLiteBackend)


@pytest.fixture(autouse=True)
def all_stopped() -> Iterator[None]:
    """Fail a test that leaves a backend with its thread, connections or file.

    One whose app is garbage would disturb a later test, which has nothing to do with
    it: an open socket is a warning, and so an error, wherever it is collected.
    """
    _made.clear()  # those of fixtures for several tests are theirs to stop
    yield
    left = [backend for backend in _made if _runs(backend)]
    _made.clear()
    for backend in left:
        backend.stop()
    assert not left, f"the test has not stopped {left}"


def _runs(backend: RedisBackend | SQLiteBackend) -> bool:
    process = backend._processes.get(os.getpid())
    return process is not None and not getattr(process, "_stopped", False)


@pytest.fixture
def app() -> Flask:
    app = Flask("an_app")
    app.secret_key = "for tests"
    return app


@pytest.fixture
def chat(app: Flask) -> WSChat:
    return WSChat(app)


@pytest.fixture
def serve() -> Iterator[Serve]:
    """Start a live server for an app; both stopped and checked after the test."""
    servers: list[LiveServer] = []
    apps: list[Flask] = []

    def start(app: Flask, handler: str = "ours", **options: Any) -> LiveServer:
        server = LiveServer(app, *HANDLERS[handler], **options)
        servers.append(server)
        apps.append(app)
        return server

    yield start
    for server in servers:
        server.stop()
    for app in apps:
        stop(app)
    for server in servers:
        assert "Traceback" not in server.log.getvalue(), server.log.getvalue()


def stop(app: Any) -> None:
    """Let go of what ``app`` shares with other processes, as the end of one does."""
    hub = getattr(app, "extensions", {}).get("wschat.hub")
    if hub is not None:
        hub.stop()


@pytest.fixture(params=list(HANDLERS))
def handler(request: pytest.FixtureRequest) -> str:
    """Each handler class that we support, and its server, by name."""
    name: str = request.param
    return name


@pytest.fixture
def server(app: Flask, chat: WSChat, serve: Serve) -> LiveServer:
    """The test's app on a live server, under our handler."""
    return serve(app)


def eventually(condition: Callable[[], object], seconds: float = DEADLINE) -> None:
    """Wait until ``condition`` holds; fail after the deadline."""
    until = time.monotonic() + seconds
    pause = threading.Event()
    while not condition():
        assert time.monotonic() < until, "it did not happen in time"
        pause.wait(0.005)


def find_chromium() -> str | None:
    """Return the path of the system's Chromium, None if there is none."""
    found = map(shutil.which, CHROMIUM_NAMES)
    return os.environ.get("CHROMIUM") or next(filter(None, found), None)


@pytest.fixture(scope="module")
def chromium() -> Iterator[Browser]:
    """The system's Chromium, without a screen."""
    path = find_chromium()
    if path is None:
        reason = "no Chromium: install the package `chromium`, or set CHROMIUM"
        pytest.fail(reason) if os.environ.get("CI") else pytest.skip(reason)
    with sync_playwright() as playwright:
        browser = playwright.chromium.launch(
            executable_path=path, args=CHROMIUM_ARGUMENTS
        )
        yield browser
        browser.close()
