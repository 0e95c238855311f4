"""Sessions are what Flask makes of a cookie: no more, no less."""

from __future__ import annotations

import threading
import time
from datetime import timedelta
from typing import Any

import pytest
from flask import Flask, Request, request, session
from flask.json.tag import TaggedJSONSerializer
from flask.sessions import SecureCookieSessionInterface
from itsdangerous import BadSignature, URLSafeSerializer
from itsdangerous.url_safe import URLSafeTimedSerializer
from werkzeug.sansio.http import parse_cookie

from flask_wschat import WSChat
from flask_wschat.servers.offers import UPGRADE
from flask_wschat.shortcuts import sessions
from flask_wschat.shortcuts.sessions import CookieSessions, NoAnswer

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
    "untimed, but for what looks like a time": untimed("abc"),
    "empty": "",
    "junk": "a.b.c",
    "no dot": "abc",
    "not ASCII": "\xe9.\xe9.\xe9",
    "not a session": cookie("new", data="text"),
    "cut": cookie("new")[:-1],
    "longer": cookie("new") + "A",
    "other payload": "e30" + cookie("new")[3:],
    "signature only": cookie("new").rpartition(".")[2],
    "empty parts": "..",
    "quoted": f'"{cookie("new")}"',
}
GOOD = cookie("new", data={"user": "ann"})
COOKIES |= {
    f"tampered at {n}": GOOD[:n] + ("A" if GOOD[n] != "A" else "B") + GOOD[n + 1 :]
    for n in range(len(GOOD))
}


def opened(interface: Any, app: Flask, value: str) -> tuple[Any, Any]:
    """Return the session, and the cookies, of a handshake with a cookie."""
    headers = {"Cookie": f"first=1; session={value}; session=second; last"}
    base = {UPGRADE: object()}
    context = app.test_request_context("/", headers=headers, environ_base=base)
    try:
        return interface.open_session(app, context.request), context.request.cookies
    except Exception as error:
        return type(error), context.request.cookies


@pytest.mark.parametrize("lifetime", [60, 100 * 365 * 24 * 3600])
@pytest.mark.parametrize("value", COOKIES.values(), ids=COOKIES.keys())
def test_a_cookie_means_what_it_means_to_flask(
    app: Flask, value: str, lifetime: int
) -> None:
    app.permanent_session_lifetime = timedelta(seconds=lifetime)
    assert opened(app.session_interface, app, value) == opened(FLASKS, app, value)


@pytest.mark.shortcut
def test_a_handshakes_good_cookie_takes_the_short_way(
    app: Flask, monkeypatch: pytest.MonkeyPatch
) -> None:
    def fail(*args: Any) -> Any:
        raise AssertionError("the long way")

    monkeypatch.setattr(SecureCookieSessionInterface, "open_session", fail)
    interface = app.session_interface
    assert type(interface) is CookieSessions
    assert opened(interface, app, GOOD)[0] == {"user": "ann"}
    assert opened(interface, app, "")[0] == {}
    app.testing = True  # errors come out
    with pytest.raises(AssertionError, match="the long way"):
        app.test_client().get("/")


class Seldom(URLSafeTimedSerializer):
    """A serializer of one's own, in which nothing is signed."""

    def loads(self, s: Any, *args: Any, **options: Any) -> Any:
        if s != "open sesame":
            raise BadSignature("no")
        return {"user": "ali"}


@pytest.mark.parametrize("name", ["serializer", "signer", "key_derivation", "digest"])
def test_what_was_changed_of_flasks_own_stays_so(
    app: Flask, monkeypatch: pytest.MonkeyPatch, name: str
) -> None:
    ours: Any = app.session_interface
    flasks: Any = SecureCookieSessionInterface()
    if name == "serializer":
        for interface in (ours, flasks):
            monkeypatch.setattr(
                interface, "get_signing_serializer", lambda app: Seldom("key")
            )
    for interface in (ours, flasks):
        if name == "signer":
            interface.serializer = TaggedJSONSerializer()
        elif name == "key_derivation":
            interface.key_derivation = "django-concat"
        elif name == "digest":
            interface.digest_method = __import__("hashlib").sha256
    values = ["open sesame", GOOD, flasks.get_signing_serializer(app).dumps({"n": 1})]
    for value in values:
        assert opened(ours, app, value) == opened(flasks, app, value)


def next_parse_cookie(cookie: str | None = None) -> Any:
    return parse_cookie(cookie)


def no_parse_cookie(*args: Any, **options: Any) -> Any:
    raise RuntimeError("it is elsewhere now")


@pytest.mark.parametrize("parse", [next_parse_cookie, no_parse_cookie])
def test_a_werkzeug_with_another_parse_cookie(
    app: Flask, monkeypatch: pytest.MonkeyPatch, parse: Any
) -> None:
    monkeypatch.setattr(sessions, "parse_cookie", parse)
    for value in COOKIES.values():
        assert opened(app.session_interface, app, value) == opened(FLASKS, app, value)


def test_a_werkzeug_without_that_class_for_cookies(
    app: Flask, monkeypatch: pytest.MonkeyPatch
) -> None:
    class Next(Request):
        @property
        def dict_storage_class(self) -> Any:  # type: ignore[override]
            raise AttributeError("gone")

        @property
        def cookies(self) -> Any:
            return parse_cookie(self.environ.get("HTTP_COOKIE", ""))

    monkeypatch.setattr(app, "request_class", Next)
    monkeypatch.setattr(sessions, "Request", Next)
    assert opened(app.session_interface, app, GOOD)[0] == {"user": "ann"}


def test_plain_pages_are_none_of_its_business(
    app: Flask, monkeypatch: pytest.MonkeyPatch
) -> None:
    def fail(*args: Any, **options: Any) -> Any:
        raise AssertionError("this request did not ask to upgrade")

    for name in ("parse_cookie", "_Reader"):
        monkeypatch.setattr(sessions, name, fail)

    @app.get("/")
    def page() -> dict[str, object]:
        session["n"] = session.get("n", 0) + 1
        return {"n": session["n"], "cookies": sorted(request.cookies)}

    client = app.test_client()
    assert client.get("/").json == {"n": 1, "cookies": []}
    assert client.get("/").json == {"n": 2, "cookies": ["session"]}


def test_two_apps_may_share_it(app: Flask) -> None:
    other = Flask("other")
    other.secret_key = "theirs"
    other.session_interface = shared = app.session_interface
    values = {app: GOOD, other: cookie("theirs", data={"user": "bob"})}
    wrong: list[Any] = []
    stop = threading.Event()

    def read(mine: Flask, foreign: Flask, user: str) -> None:
        while not stop.is_set() and not wrong:
            got = [opened(shared, mine, values[which])[0] for which in (mine, foreign)]
            if got != [{"user": user}, {}]:
                wrong.append(got)

    threads = [
        threading.Thread(target=read, args=(app, other, "ann")),
        threading.Thread(target=read, args=(other, app, "bob")),
    ]
    for thread in threads:
        thread.start()
    stop.wait(1)
    stop.set()
    for thread in threads:
        thread.join()
    assert wrong == []


def test_keys_and_salts_may_change(app: Flask) -> None:
    def read(value: str) -> Any:
        base = {UPGRADE: object(), "HTTP_COOKIE": f"session={value}"}
        with app.test_request_context("/", environ_base=base):
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


def test_no_answer_is_closed_like_others() -> None:
    answer, told = NoAnswer(), list[str]()
    answer.call_on_close(lambda: told.append("closed"))
    assert answer({}, None) == ()
    assert told == ["closed"]
