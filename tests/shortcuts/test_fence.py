"""Shortcuts are taken with versions that were checked, unless they are switched off."""

from __future__ import annotations

import importlib.metadata
import logging
import os
import subprocess
import sys
from collections.abc import Callable, Iterator
from typing import Any

import pytest
from flask import Flask, Response, request, session
from websockets.sync.client import ClientConnection

from flask_wschat import Listener, WSChat, shortcuts
from flask_wschat.servers.handler import WebSocketHandler
from flask_wschat.settings import Settings
from flask_wschat.shortcuts import CHECKED, are_checked, is_own, may_take
from flask_wschat.shortcuts.response import NoAnswer
from tests.support.live import Serve


@pytest.fixture
def installed(monkeypatch: pytest.MonkeyPatch) -> Iterator[dict[str, str]]:
    """Versions that seem to be installed."""
    versions: dict[str, str] = {}
    genuine = importlib.metadata.version

    def version(name: str) -> str:
        return versions.get(name) or genuine(name)

    monkeypatch.setattr(importlib.metadata, "version", version)
    are_checked.cache_clear()
    yield versions
    monkeypatch.undo()
    are_checked.cache_clear()


@pytest.mark.parametrize(
    ("version", "fits"),
    [
        *(("3.0", True), ("3.0.0", True), ("3.1.99", True), ("3.1.0rc1", True)),
        *(("2.3.9", False), ("3.2.0.dev0", False), ("3.2", False), ("3.10.1", False)),
        *(("4.0", False), ("30.1", False), ("unknown", False), ("3", False)),
    ],
)
def test_versions(installed: dict[str, str], version: str, fits: bool) -> None:
    assert CHECKED["flask"] == ("3.0", "3.1")
    installed["flask"] = version
    assert are_checked("flask") is fits
    assert may_take(True, "flask") is fits


def test_all_of_several_are_asked_for(installed: dict[str, str]) -> None:
    installed |= {"flask": "3.1.0", "werkzeug": "3.2.0"}
    assert are_checked("flask")
    assert not are_checked("flask", "werkzeug")


def test_what_has_no_version_was_not_checked(
    monkeypatch: pytest.MonkeyPatch, installed: dict[str, str]
) -> None:
    monkeypatch.setitem(CHECKED, "no-such-package", ("1.0", "2.0"))
    assert not are_checked("no-such-package")


def test_it_is_a_line_for_who_looks_for_it(
    installed: dict[str, str], caplog: pytest.LogCaptureFixture
) -> None:
    installed["werkzeug"] = "3.2.1"
    with caplog.at_level(logging.INFO):
        assert not are_checked("werkzeug")
    assert not caplog.text
    are_checked.cache_clear()
    with caplog.at_level(logging.DEBUG):
        for _ in range(3):
            assert not are_checked("werkzeug")
    assert caplog.text.count("no shortcuts with werkzeug 3.2.1") == 1


@pytest.mark.parametrize("setting", [True, False])
@pytest.mark.parametrize("switch", [True, False, None])
def test_the_environment_decides(
    monkeypatch: pytest.MonkeyPatch, setting: bool, switch: bool | None
) -> None:
    monkeypatch.setattr(shortcuts, "SWITCH", switch)
    assert may_take(setting) is (setting if switch is None else switch)


@pytest.mark.parametrize(("value", "switch"), [("0", "False"), ("1", "True")])
def test_the_environment_is_read(value: str, switch: str) -> None:
    answer = subprocess.run(
        [sys.executable, "-c", "import flask_wschat.shortcuts as s; print(s.SWITCH)"],
        env={**os.environ, "WSCHAT_SHORTCUTS": value},
        capture_output=True,
        check=True,
        text=True,
    )
    assert answer.stdout == f"{switch}\n"


@pytest.mark.parametrize("value", [0, 1, 0.0, False, True])
def test_the_setting_may_be_a_number(value: Any) -> None:
    settings = Settings.from_config({"WSCHAT_SHORTCUTS": value})
    assert settings.SHORTCUTS is bool(value)


@pytest.mark.shortcut
def test_what_is_flasks_own() -> None:
    app = Flask("app")
    assert is_own(app.app_context, "flask.app", "Flask.app_context")
    assert not is_own(app.app_context, "flask.app", "Flask.request_context")
    assert not is_own(None, "flask.app", "Flask.app_context")
    assert is_own(type(app.app_context()), "flask.ctx", "AppContext")

    class Mine(Flask):
        def app_context(self) -> Any:
            return super().app_context()

    assert not is_own(Mine("app").app_context, "flask.app", "Flask.app_context")
    app.app_context = lambda: None  # type: ignore
    assert not is_own(app.app_context, "flask.app", "Flask.app_context")


# -- each of them


def taken(app: Flask) -> set[str]:
    """Return which shortcuts ``app`` takes."""
    hooks = app.wsgi_app.__self__  # type: ignore[attr-defined]
    gate = hooks.gate
    assert gate.no_answer in (NoAnswer, Response)
    found = {
        "contexts": gate.hub.call_each.__self__._as_usual,
        "adapters": hooks._adapters._as_usual,
        "sessions": hooks._sessions._kind is not None,
        "response": gate.no_answer is NoAnswer,
    }
    return {name for name, whether in found.items() if whether}


ALL = {"contexts", "adapters", "sessions", "response"}


@pytest.mark.shortcut
def test_all_are_taken(app: Flask) -> None:
    WSChat(app)
    assert taken(app) == ALL


OFF: dict[str, set[str]] = {
    "flask": ALL,
    "werkzeug": {"adapters", "sessions", "response"},
    "itsdangerous": {"sessions"},
    "gevent": set(),
    "gevent-websocket": set(),
}


@pytest.mark.shortcut
@pytest.mark.parametrize(("package", "given_up"), OFF.items())
def test_a_version_that_nobody_has_checked(
    app: Flask, uncheck: Callable[[str], None], package: str, given_up: set[str]
) -> None:
    uncheck(package)
    WSChat(app)
    assert taken(app) == ALL - given_up


WAYS = ["on", "setting", "switch", *CHECKED]


@pytest.fixture(params=WAYS)
def way(
    request: pytest.FixtureRequest,
    app: Flask,
    uncheck: Callable[[str], None],
    monkeypatch: pytest.MonkeyPatch,
) -> str:
    name: str = request.param
    if name == "setting":
        app.config["WSCHAT_SHORTCUTS"] = False
    elif name == "switch":
        monkeypatch.setattr(shortcuts, "SWITCH", False)
    elif name in CHECKED:
        uncheck(name)
    return name


def note_readers(monkeypatch: pytest.MonkeyPatch) -> list[bool]:
    """Return where each handler tells whether it has pywsgi's reader."""
    made: list[bool] = []
    genuine = WebSocketHandler.__init__

    def note(self: Any, *args: Any, **options: Any) -> None:
        genuine(self, *args, **options)
        made.append("rfile" in vars(self))

    monkeypatch.setattr(WebSocketHandler, "__init__", note)
    return made


@pytest.mark.shortcut
def test_all_works_in_any_way(
    app: Flask, way: str, serve: Serve, monkeypatch: pytest.MonkeyPatch
) -> None:
    made = note_readers(monkeypatch)
    chat = WSChat(app)
    chat.authenticate(lambda: session.get("user"))

    @app.get("/login")
    def login() -> str:
        session["user"] = "ann"
        return "a page"

    @app.get("/old")
    def old() -> str:
        socket = request.environ["wsgi.websocket"]
        socket.send(f"{session['user']} {socket.receive()}")
        return ""

    @chat.route("/view")
    def view(ws: Any) -> None:
        for message in ws:
            ws.send(f"{session['user']} {message}")

    @chat.listener("/listener")
    class Echo(Listener):
        def on_message(self, ws: Any, message: Any) -> None:
            ws.send(f"{ws.user} {message}")

    page = app.test_client().get("/login")
    assert (page.status_code, page.text) == (200, "a page")
    cookie = page.headers["Set-Cookie"].partition(";")[0]
    server = serve(app)
    for path in ("/view", "/listener", "/old") * 2:
        client: ClientConnection
        with server.connect(path, additional_headers={"Cookie": cookie}) as client:
            client.send("hello")
            assert client.recv() == "ann hello"
    assert made == [way in ("setting", "switch", "gevent", "gevent-websocket")] * 6


def test_where_the_handler_finds_no_application(
    app: Flask, serve: Serve, monkeypatch: pytest.MonkeyPatch
) -> None:
    """One in a middleware is served, and the environment obeyed."""
    monkeypatch.setattr(shortcuts, "SWITCH", False)
    chat = WSChat(app)

    @chat.route("/view")
    def view(ws: Any) -> None:
        ws.send("hello")

    made = note_readers(monkeypatch)
    wrapped: Any = lambda environ, start: app(environ, start)  # noqa: E731
    with serve(wrapped).connect("/view") as client:
        assert client.recv() == "hello"
    assert made == [True]
