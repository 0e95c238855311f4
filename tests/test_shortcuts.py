"""What the short ways lean on may be gone in a version to come: all works without."""

from __future__ import annotations

import subprocess
import sys

import pytest

PROGRAM = """
import importlib, sys
import flask, flask.sessions, werkzeug.wrappers

module, _, name = {gone!r}.rpartition(".")
delattr(importlib.import_module(module), name)

from flask import Flask, g, session
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
        "flask.globals._cv_app",
        "itsdangerous.HMACAlgorithm",
    ],
)
def test_all_works_without(gone: str) -> None:
    answer = subprocess.run(
        [sys.executable, "-c", PROGRAM.format(gone=gone)],
        capture_output=True,
        text=True,
    )
    assert answer.stdout == "fine\n", answer.stderr
