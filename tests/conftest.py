"""Fixtures: an app with sockets, real servers for it, clients to talk to them."""

from __future__ import annotations

import functools
import gc
import itertools
import os
from collections.abc import Generator, Iterator
from pathlib import Path
from typing import Any

import gevent.hub
import hypothesis
import pytest
from flask import Flask
from playwright.sync_api import Browser, sync_playwright

from flask_wschat import WSChat
from flask_wschat.backends.redis import RedisBackend
from flask_wschat.backends.sqlite import SQLiteBackend

from .support import chromium as installed
from .support import in_memory, processes
from .support.certificate import make_pair
from .support.live import HANDLERS, LiveServer, Serve, stop
from .support.programs import missing
from .support.redis_server import RedisServer

hypothesis.settings.register_profile("dev", max_examples=50, deadline=None)
hypothesis.settings.register_profile("ci", max_examples=500, deadline=None)
# For a long run, not for every change: `make fuzz`.
hypothesis.settings.register_profile("fuzz", max_examples=5_000, deadline=None)
hypothesis.settings.load_profile("ci" if os.environ.get("CI") == "true" else "dev")

pytest_plugins = ["pytester"]

# A time limit is an exception, which gevent's loop is to raise where the test waits.
gevent.hub.Hub.SYSTEM_ERROR = (*gevent.hub.Hub.SYSTEM_ERROR, pytest.fail.Exception)

_made: list[RedisBackend | SQLiteBackend] = []


def _note_those_made(kind: type[RedisBackend] | type[SQLiteBackend]) -> None:
    init: Any = kind.__init__

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


@pytest.hookimpl(tryfirst=True)
def pytest_collection() -> None:
    """Do not look for garbage while there is none: a fifth of what collecting takes."""
    gc.disable()


@pytest.hookimpl(trylast=True)
def pytest_collection_finish() -> None:
    """Spare the collector the 300,000 objects that five thousand tests are.

    A live server's end collects: 150 ms each time, and none so.
    """
    gc.enable()
    gc.collect()
    gc.freeze()


@pytest.hookimpl(wrapper=True)
def pytest_runtest_teardown() -> Generator[None, None, None]:
    """Spare it as well, now and then, what tests leave behind for ever.

    gevent (26.9) keeps the hub of a thread that has ended, and so the app of each live
    server: 600 objects, which every later collection would look at.
    """
    yield
    if next(_ended) % 25 == 0:
        gc.collect()
        gc.freeze()


_ended = itertools.count(1)


@pytest.hookimpl(wrapper=True)
def pytest_runtest_makereport(
    item: pytest.Item, call: pytest.CallInfo[None]
) -> Generator[None, pytest.TestReport, pytest.TestReport]:
    """Show with a failure what the processes said that the test began."""
    report = yield
    if report.failed:
        for process in processes.begun():
            report.sections.append((f"Said by {process.name}", process.log[-10_000:]))
    elif call.when == "teardown":
        processes.begun()
    return report


@pytest.fixture(scope="session")
def pair(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, Path]:
    """A certificate for 127.0.0.1, and its key."""
    return make_pair(tmp_path_factory.mktemp("tls"))


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


@pytest.fixture(params=list(HANDLERS))
def handler(request: pytest.FixtureRequest) -> str:
    """Each handler class that we support, and its server, by name."""
    name: str = request.param
    return name


@pytest.fixture
def redis() -> Iterator[RedisServer]:
    """A Redis that runs."""
    with RedisServer() as server:
        yield server


@pytest.fixture
def opened() -> in_memory.Open:
    """Make a WebSocket over a joined pair in memory."""
    return in_memory.open_pair


@pytest.fixture
def server(app: Flask, chat: WSChat, serve: Serve) -> LiveServer:
    """The test's app on a live server, under our handler."""
    return serve(app)


@pytest.fixture(scope="module")
def chromium() -> Iterator[Browser]:
    """The system's Chromium, without a screen."""
    path = installed.find_chromium()
    if path is None:
        missing("no Chromium: install the package `chromium`, or set CHROMIUM")
    with sync_playwright() as playwright:
        browser = playwright.chromium.launch(
            executable_path=path, args=installed.ARGUMENTS
        )
        yield browser
        browser.close()
