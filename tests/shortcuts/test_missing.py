"""What the short ways lean on may be gone in a version to come: all works without."""

from __future__ import annotations

import os
import subprocess
import sys

import pytest

from flask_wschat.running import debugging
from flask_wschat.server import prepare

PROGRAM = """
import importlib, sys, types
import flask, flask.sessions, gevent.pywsgi, werkzeug.test, werkzeug.wrappers

module, _, name = {gone!r}.rpartition(".")
others = importlib.import_module(module)
if others is sys:
    del sys.getrefcount
else:  # they go on with what they have
    sys.modules[module] = types.ModuleType(module)
    sys.modules[module].__path__ = getattr(others, "__path__", [])
    vars(sys.modules[module]).update(vars(others))
    delattr(sys.modules[module], name)

from flask import Flask, g, session
import flask_wschat.server, flask_wschat.running.debugging
from flask_wschat import Listener, WSChat
from flask_wschat.testing import WSChatClient

app = Flask("app")
app.secret_key = "key"
chat = WSChat(app)
chat.authenticate(lambda: session.get("user"))

@app.get("/login")
def login():
    session["user"] = "ann"
    return "a page"

@chat.listener("/echo")
class Echo(Listener):
    def on_message(self, ws, message):
        ws.send(f"{{ws.user}} {{message}} {{'seen' in g}}")
        g.seen = True

person = WSChatClient(app)
page = person.http.get("/login")
assert (page.status_code, page.text) == (200, "a page")
with person.connect("/echo") as client:
    for text in ("one", "two"):
        client.send(text)
        client.assert_received(f"ann {{text}} False")
print("fine")
"""


@pytest.mark.parametrize(
    "gone",
    [
        "sys.getrefcount",
        "flask.ctx.RequestContext",
        "flask.globals._cv_app",
        "gevent.pywsgi._NoopLog",
        "itsdangerous.HMACAlgorithm",
        "werkzeug._reloader.StatReloaderLoop",
        "werkzeug.sansio.http.parse_cookie",
    ],
)
def test_all_works_without(gone: str) -> None:
    answer = subprocess.run(
        [sys.executable, "-W", "error", "-c", PROGRAM.format(gone=gone)],
        env={**os.environ, "WSCHAT_SHORTCUTS": "1"},
        capture_output=True,
        text=True,
    )
    assert answer.stdout == "fine\n", answer.stderr


def test_a_werkzeug_with_another_reloader(
    monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    assert debugging.has_reloader()
    for other in (None, object):
        monkeypatch.setattr(debugging, "StatReloaderLoop", other)
        caplog.clear()
        assert not debugging.has_reloader()
        assert "no reloading" in caplog.text


def test_without_a_reloader_the_program_is_served_all_the_same(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(debugging, "StatReloaderLoop", None)
    prepare(reload=True, patch=False)
