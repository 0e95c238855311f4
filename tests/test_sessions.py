"""Sessions are what Flask makes of a cookie: no more, no less."""

from __future__ import annotations

import time
from datetime import timedelta
from typing import Any

import pytest
from flask import Flask, session
from flask.sessions import SecureCookieSessionInterface
from itsdangerous import URLSafeSerializer

from flask_wschat import WSChat
from flask_wschat.sessions import CookieSessions, NoAnswer

FLASKS = SecureCookieSessionInterface()
SECRET = {"user": "ann", "n": [1, {"t": True}], "pair": (1, 2), "long": "x" * 500}


@pytest.fixture
def app(app: Flask) -> Flask:
    app.secret_key = "new"
    app.config["SECRET_KEY_FALLBACKS"] = ["old"]
    WSChat(app)
    return app


def cookie(key: str, ago: float = 0, data: Any = SECRET) -> str:
    """Return a session cookie signed with ``key``, ``ago`` seconds old."""
    other = Flask("other")
    other.secret_key = key
    serializer: Any = FLASKS.get_signing_serializer(other)

    class Signer(serializer.signer):  # type: ignore[misc]
        def get_timestamp(self) -> int:
            return int(time.time() - ago)

    serializer.signer = Signer
    return str(serializer.dumps(data))


def untimed(data: Any) -> str:
    """Return what has the right key and salt, and no time."""
    options = {"key_derivation": "hmac"}
    made = URLSafeSerializer("new", salt="cookie-session", signer_kwargs=options)
    return str(made.dumps(data))


COOKIES = {
    "good": cookie("new"),
    "of the old key": cookie("old"),
    "of another key": cookie("foreign"),
    "old": cookie("new", 120),
    "of the future": cookie("new", -120),
    "untimed": untimed("x"),
    "empty": "",
    "junk": "a.b.c",
    "no dot": "abc",
    "not ASCII": "\xe9.\xe9.\xe9",
    "not a session": cookie("new", data="text"),
    "cut": cookie("new")[:-1],
    "longer": cookie("new") + "A",
    "other payload": "e30" + cookie("new")[3:],
    "signature only": cookie("new").rpartition(".")[2],
}


@pytest.mark.parametrize("value", COOKIES.values(), ids=COOKIES.keys())
def test_a_cookie_means_what_it_means_to_flask(app: Flask, value: str) -> None:
    assert type(app.session_interface) is CookieSessions
    app.permanent_session_lifetime = timedelta(seconds=60)
    headers = {"Cookie": f"first=1; session={value}; session=second; last"}
    seen: list[Any] = []
    for interface in (app.session_interface, FLASKS):
        asked = app.test_request_context("/", headers=headers).request
        try:
            seen.append((interface.open_session(app, asked), asked.cookies))
        except Exception as error:
            seen.append((type(error), asked.cookies))
    assert seen[0] == seen[1]


def test_keys_and_salts_may_change(app: Flask) -> None:
    def read(value: str) -> Any:
        with app.test_request_context("/", headers={"Cookie": f"session={value}"}):
            return session.get("user")

    rotates = "SECRET_KEY_FALLBACKS" in Flask.default_config  # Flask 3.1
    assert read(cookie("new")) == "ann"
    assert read(cookie("old")) == ("ann" if rotates else None)
    app.config["SECRET_KEY_FALLBACKS"] = None
    assert read(cookie("old")) is None
    app.secret_key = "newest"
    assert (read(cookie("new")), read(cookie("newest"))) == (None, "ann")
    interface: Any = app.session_interface
    interface.salt = "pepper"
    assert read(cookie("newest")) is None
    app.secret_key = None
    assert read(cookie("newest")) is None


def test_sessions_are_saved_as_ever(app: Flask) -> None:
    @app.get("/login")
    def login() -> str:
        session["user"] = "bob"
        return ""

    @app.get("/who")
    def who() -> str:
        return str(session.get("user"))

    client = app.test_client()
    client.get("/login")
    reply = client.get("/who")
    assert (reply.text, reply.headers["Vary"]) == ("bob", "Cookie")


def test_an_interface_of_ones_own_stays() -> None:
    class Mine(SecureCookieSessionInterface):
        pass

    app = Flask("mine")
    app.session_interface = mine = Mine()
    WSChat(app)
    assert app.session_interface is mine


def test_no_answer_is_a_response_like_others(app: Flask) -> None:
    """Functions after a request may do with it what they do with any."""
    first, second = NoAnswer(), NoAnswer()
    first.headers["X"] = "1"
    first.call_on_close(lambda: None)
    first.set_cookie("a", "b")
    assert first.status_code == second.status_code == 200
    assert "X" not in second.headers and first.get_data() == b""
    assert vars(first).keys() == vars(app.response_class()).keys()
    assert first._on_close != second._on_close
