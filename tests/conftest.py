"""Fixtures: an app with sockets, real servers for it, clients to talk to them."""

from __future__ import annotations

import gc
import io
import os
import shutil
import threading
import time
from collections.abc import Callable, Iterator
from typing import Any

import gevent.event
import geventwebsocket.handler
import hypothesis
import pytest
import websockets.sync.client
from flask import Flask
from gevent.pywsgi import WSGIHandler, WSGIServer
from playwright.sync_api import Browser, sync_playwright
from websockets.sync.client import ClientConnection

from flask_wschat import WSChat
from flask_wschat.server import WebSocketHandler

hypothesis.settings.register_profile("dev", max_examples=50, deadline=None)
hypothesis.settings.register_profile("ci", max_examples=500, deadline=None)
hypothesis.settings.load_profile("ci" if os.environ.get("CI") == "true" else "dev")

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
HANDLERS = {
    "ours": WebSocketHandler,
    "stock": geventwebsocket.handler.WebSocketHandler,
}


class LiveServer:
    """pywsgi in a thread with a loop of its own, on a free port."""

    def __init__(
        self, app: Flask, handler_class: type[WSGIHandler], **options: Any
    ) -> None:
        self.log = io.StringIO()
        self._ready = threading.Event()
        self._thread = threading.Thread(
            target=self._serve, args=(app, handler_class, options), daemon=True
        )
        self._thread.start()
        assert self._ready.wait(DEADLINE)

    def _serve(
        self, app: Flask, handler_class: type[WSGIHandler], options: dict[str, Any]
    ) -> None:
        hub = gevent.get_hub()
        # What the loop reports of itself, to be asserted on.
        hub.exception_stream = self.log
        server = WSGIServer(
            ("127.0.0.1", 0),
            app,
            handler_class=handler_class,
            log=None,
            error_log=self.log,
            **options,
        )
        server.start()
        self.port = int(server.server_port or 0)
        self._loop = hub.loop
        self._stop = gevent.event.Event()
        self._ready.set()
        self._stop.wait()
        server.stop(timeout=1)
        gc.collect()  # sockets in cycles must go while there is a loop to tell
        hub.destroy()

    def call(self, function: Callable[[], Any]) -> None:
        """Call ``function`` in the server's loop, soon."""
        self._loop.run_callback_threadsafe(function)

    def url(self, path: str, scheme: str = "ws") -> str:
        return f"{scheme}://127.0.0.1:{self.port}{path}"

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

    def stop(self) -> None:
        self._loop.run_callback_threadsafe(self._stop.set)
        self._thread.join(DEADLINE)
        assert not self._thread.is_alive()


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
    """Start a live server for an app; stopped and checked after the test."""
    servers = []

    def start(app: Flask, handler: str = "ours", **options: Any) -> LiveServer:
        server = LiveServer(app, HANDLERS[handler], **options)
        servers.append(server)
        return server

    yield start
    for server in servers:
        server.stop()
        assert "Traceback" not in server.log.getvalue(), server.log.getvalue()


@pytest.fixture(params=list(HANDLERS))
def handler(request: pytest.FixtureRequest) -> str:
    """Each handler class that we support, by name."""
    name: str = request.param
    return name


@pytest.fixture
def server(app: Flask, chat: WSChat, serve: Serve) -> LiveServer:
    """The test's app on a live server, under our handler."""
    return serve(app)


def eventually(condition: Callable[[], object]) -> None:
    """Wait until ``condition`` holds; fail after the deadline."""
    until = time.monotonic() + DEADLINE
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
