"""A handshake's session is what Flask makes of a cookie: no more, no less."""

from __future__ import annotations

import threading
import time
from collections.abc import Callable
from contextvars import copy_context
from datetime import timedelta
from typing import Any

import pytest
from flask import Flask, Request, Response, request, session
from flask.json.tag import TaggedJSONSerializer
from flask.sessions import (
    SecureCookieSession,
    SecureCookieSessionInterface,
    SessionInterface,
)
from hypothesis import given
from hypothesis import strategies as st
from itsdangerous import BadSignature, URLSafeSerializer
from itsdangerous.url_safe import URLSafeTimedSerializer
from werkzeug.sansio.http import parse_cookie
from werkzeug.test import EnvironBuilder

from flask_wschat import WSChat
from flask_wschat.servers.offers import UPGRADE
from flask_wschat.shortcuts import sessions
from flask_wschat.shortcuts.sessions import Sessions

FLASKS = SecureCookieSessionInterface()
SECRET = {"user": "ann", "n": [1, {"t": True}], "pair": (1, 2), "long": "x" * 500}


def made() -> Flask:
    app = Flask("app")
    app.secret_key = "new"
    app.config["SECRET_KEY_FALLBACKS"] = ["old"]
    WSChat(app)
    return app


@pytest.fixture
def app() -> Flask:
    return made()


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
    "permanent": cookie("new", data={"_permanent": True, "user": "ann"}),
    "of nothing": cookie("new", data={}),
    "empty": "",
    "junk": "a.b.c",
    "no dot": "abc",
    "not ASCII": "\xe9.\xe9.\xe9",
    "not a session": cookie("new", data="text"),
    "a list": cookie("new", data=[["user", "ann"]]),
    "cut": cookie("new")[:-1],
    "longer": cookie("new") + "A",
    "padded": cookie("new") + "=",
    "a line in it": cookie("new") + "\t",
    "other payload": "e30" + cookie("new")[3:],
    "signature only": cookie("new").rpartition(".")[2],
    "empty parts": "..",
    "quoted": f'"{cookie("new")}"',
    "quoted, with an escape": f'"\\{ord(cookie("new")[0]):03o}{cookie("new")[1:]}"',
}
GOOD = cookie("new", data={"user": "ann"})
COOKIES |= {
    f"tampered at {n}": GOOD[:n] + ("A" if GOOD[n] != "A" else "B") + GOOD[n + 1 :]
    for n in range(len(GOOD))
}


def opened(make: Callable[[Any], Any], header: str) -> tuple[Any, ...]:
    """Return what an application sees of a handshake with this ``Cookie`` header."""
    # Where a session cannot be opened Flask leaves the app context where it was put.
    return copy_context().run(_opened, make, header)


def _opened(make: Callable[[Any], Any], header: str) -> tuple[Any, ...]:
    builder = EnvironBuilder("/", environ_base={UPGRADE: object()})
    builder.headers["Cookie"] = header
    try:
        with make(builder.get_environ()):
            now: Any = session._get_current_object()  # type: ignore[attr-defined]
            seen = type(now), dict(now), now.permanent, now.new, now.modified
            return (*seen, now.accessed, request.cookies, type(request.cookies))
    except Exception as error:
        return (type(error),)


def compare(app: Flask, value: str) -> tuple[Any, ...]:
    """Return what both ways see, having compared them."""
    header = f"first=1; session={value}; session=second; last"
    quick = opened(app.request_context, header)
    assert quick == opened(lambda environ: Flask.request_context(app, environ), header)
    return quick


def seen(app: Flask, value: str) -> Any:
    return compare(app, value)[1]


@pytest.mark.parametrize("lifetime", [60, 100 * 365 * 24 * 3600])
@pytest.mark.parametrize("value", COOKIES.values(), ids=COOKIES.keys())
def test_a_cookie_means_what_it_means_to_flask(
    app: Flask, value: str, lifetime: int
) -> None:
    app.permanent_session_lifetime = timedelta(seconds=lifetime)
    compare(app, value)


TEXT = st.text(st.characters(max_codepoint=255, exclude_characters="\r\n\0"))
HEADERS = {
    "none": "",
    "twice, the first good": f"session={GOOD}; session=other",
    "twice, the second good": f"session=other; session={GOOD}",
    "in other letters": f"Session={GOOD}",
    "with spaces": f"  session = {GOOD} ;",
    "by commas": f"a=b, session={GOOD}",
    "without a name": GOOD,
    "beside one that is not ASCII": f"caf\xe9=\xe9; session={GOOD}",
    "beside one with quotes": f'a="b;c"; session={GOOD}',
    "behind what does not end": f'a="b; session={GOOD}',
}


@pytest.mark.parametrize("header", HEADERS.values(), ids=HEADERS.keys())
def test_a_header_means_what_it_means_to_flask(app: Flask, header: str) -> None:
    quick = opened(app.request_context, header)
    assert quick == opened(lambda environ: Flask.request_context(app, environ), header)


SHARED = made()


@given(st.one_of(TEXT, TEXT.map(lambda text: f"{text}; session={GOOD}")))
def test_any_header_means_what_it_means_to_flask(header: str) -> None:
    quick = opened(SHARED.request_context, header)
    assert quick == opened(lambda e: Flask.request_context(SHARED, e), header)


@given(
    st.dictionaries(st.text(), st.one_of(st.text(), st.integers(), st.booleans())),
    st.sampled_from(["new", "old", "foreign"]),
    st.integers(-100, 100),
)
def test_any_session_is_read(data: dict[str, Any], key: str, ago: int) -> None:
    SHARED.permanent_session_lifetime = timedelta(seconds=60)
    compare(SHARED, cookie(key, ago, data))


def fail(*args: Any, **options: Any) -> Any:
    raise AssertionError("the other way")


@pytest.mark.shortcut
def test_a_handshakes_good_cookie_takes_the_short_way(
    app: Flask, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(SecureCookieSessionInterface, "open_session", fail)
    assert opened(app.request_context, f"session={GOOD}")[1] == {"user": "ann"}
    assert opened(app.request_context, "")[1] == {}
    app.testing = True  # errors come out
    with pytest.raises(AssertionError, match="the other way"):
        app.test_client().get("/")


def test_plain_pages_are_none_of_its_business(
    app: Flask, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(Sessions, "context", fail)
    monkeypatch.setattr(sessions, "parse_cookie", fail)

    @app.get("/")
    def page() -> dict[str, object]:
        session["n"] = session.get("n", 0) + 1
        return {"n": session["n"], "cookies": sorted(request.cookies)}

    client = app.test_client()
    assert client.get("/").json == {"n": 1, "cookies": []}
    reply = client.get("/")
    assert reply.json == {"n": 2, "cookies": ["session"]}
    assert reply.headers["Vary"] == "Cookie"


class Seldom(URLSafeTimedSerializer):
    """A serializer of one's own, in which nothing is signed."""

    def loads(self, s: Any, *args: Any, **options: Any) -> Any:
        if s != "open sesame":
            raise BadSignature("no")
        return {"user": "ali"}


class Own(SecureCookieSessionInterface):
    def open_session(self, app: Flask, request: Request) -> Any:
        return self.session_class({"user": "own"})


class Salted(SecureCookieSessionInterface):
    salt = "pepper"


class Kept(SessionInterface):
    """One that reads no cookie."""

    def open_session(self, app: Flask, request: Request) -> Any:
        return SecureCookieSession({"user": request.environ["PATH_INFO"]})

    def save_session(self, app: Flask, session: Any, response: Response) -> None:
        pass


class Loud(SecureCookieSession):
    pass


def set_serializer(interface: Any) -> None:
    interface.serializer = TaggedJSONSerializer()


def set_derivation(interface: Any) -> None:
    interface.key_derivation = "django-concat"


def set_no_derivation(interface: Any) -> None:
    interface.key_derivation = "none"


def set_digest(interface: Any) -> None:
    interface.digest_method = __import__("hashlib").sha256


def set_salt(interface: Any) -> None:
    interface.salt = "pepper"


def set_signing(interface: Any) -> None:
    interface.get_signing_serializer = lambda app: Seldom("key")


def set_opening(interface: Any) -> None:
    interface.open_session = lambda app, request: Loud({"user": "loud"})


def set_class(interface: Any) -> None:
    interface.session_class = Loud


def set_name(interface: Any) -> None:
    interface.get_cookie_name = lambda app: "last"


CHANGES = [
    *(set_serializer, set_derivation, set_no_derivation, set_digest, set_salt),
    *(set_signing, set_opening, set_class, set_name),
]


@pytest.mark.parametrize("when", ["before", "after"])
@pytest.mark.parametrize("change", CHANGES)
def test_what_was_changed_of_flasks_own_stays_so(
    change: Callable[[Any], None], when: str
) -> None:
    app = Flask("app")
    app.secret_key = "new"
    app.session_interface = interface = SecureCookieSessionInterface()
    if when == "before":
        change(interface)
    WSChat(app)
    compare(app, GOOD)
    if when == "after":
        change(interface)
    signed: Any = interface.get_signing_serializer(app)
    values = ["open sesame", GOOD, *COOKIES.values(), signed.dumps({"n": 1})]
    for value in values:
        compare(app, value)


@pytest.mark.parametrize("own", [Own, Salted, Kept])
@pytest.mark.parametrize("when", ["before", "after"])
def test_an_interface_of_ones_own_is_asked(
    own: type[SessionInterface], when: str
) -> None:
    app = Flask("mine")
    app.secret_key = "new"
    if when == "before":
        app.session_interface = mine = own()
    WSChat(app)
    if when == "after":
        compare(app, GOOD)
        app.session_interface = mine = own()
    assert app.session_interface is mine
    for value in COOKIES.values():
        compare(app, value)


def test_who_has_changed_the_class_is_asked(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(
        SecureCookieSessionInterface, "open_session", lambda *_: Loud({"user": "loud"})
    )
    app = made()
    assert seen(app, GOOD) == {"user": "loud"}


def test_a_request_context_of_ones_own_is_made() -> None:
    class Mine(Flask):
        def request_context(self, environ: Any) -> Any:
            environ["mine"] = True
            return super().request_context(environ)

    app = Mine("mine")
    app.secret_key = "new"
    WSChat(app)
    environ = EnvironBuilder("/", environ_base={UPGRADE: object()}).get_environ()
    with app.request_context(environ):
        assert request.environ["mine"]


def test_a_request_class_of_ones_own_is_made_once(app: Flask) -> None:
    made: list[Request] = []

    class Mine(Request):
        def __init__(self, environ: Any) -> None:
            super().__init__(environ)
            made.append(self)

    app.request_class = Mine
    for value in (GOOD, COOKIES["cut"]):
        environ = EnvironBuilder("/", environ_base={UPGRADE: object()}).get_environ()
        environ["HTTP_COOKIE"] = f"session={value}"
        with app.request_context(environ) as context:
            assert made == [context.request]
            assert made[0].json_module is app.json
        made.clear()


def test_a_failing_request_class_fails_as_ever(app: Flask) -> None:
    class Broken(Request):
        def __init__(self, environ: Any) -> None:
            raise ZeroDivisionError

    app.request_class = Broken
    assert compare(app, GOOD) == (ZeroDivisionError,)


def next_parse_cookie(cookie: str | None = None) -> Any:
    return parse_cookie(cookie)


def no_parse_cookie(*args: Any, **options: Any) -> Any:
    raise RuntimeError("it is elsewhere now")


@pytest.mark.parametrize("parse", [next_parse_cookie, no_parse_cookie, None])
def test_a_werkzeug_with_another_parse_cookie(
    app: Flask, monkeypatch: pytest.MonkeyPatch, parse: Any
) -> None:
    monkeypatch.setattr(sessions, "parse_cookie", parse)
    for value in COOKIES.values():
        compare(app, value)


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
    assert seen(app, GOOD) == {"user": "ann"}


def test_keys_and_salts_may_change_while_others_read(app: Flask) -> None:
    """One thread's reader is never another's."""
    wrong: list[Any] = []
    stop = threading.Event()
    header = f"session={cookie('new', data={'user': 'ann'})}"

    def read() -> None:
        while not stop.is_set() and not wrong:
            got = opened(app.request_context, header)[1]
            if got not in ({"user": "ann"}, {}):
                wrong.append(got)

    threads = [threading.Thread(target=read) for _ in range(2)]
    for thread in threads:
        thread.start()
    until = time.monotonic() + 0.5
    while time.monotonic() < until:
        app.secret_key = "theirs"
        app.secret_key = "new"
    stop.set()
    for thread in threads:
        thread.join()
    assert wrong == []
    assert seen(app, GOOD) == {"user": "ann"}


def test_keys_and_salts_may_change(app: Flask) -> None:
    def read(value: str) -> Any:
        return seen(app, value).get("user")

    rotates = "SECRET_KEY_FALLBACKS" in Flask.default_config  # Flask 3.1
    assert read(cookie("new")) == "ann"
    assert read(cookie("old")) == ("ann" if rotates else None)
    app.config["SECRET_KEY_FALLBACKS"] = None
    assert read(cookie("old")) is None
    app.secret_key = "newest"
    assert (read(cookie("new")), read(cookie("newest"))) == (None, "ann")
    interface: Any = SecureCookieSessionInterface()
    app.session_interface = interface
    interface.salt = "pepper"
    assert read(cookie("newest")) is None
    app.secret_key = None
    assert read(cookie("newest")) is None


def test_two_apps_may_share_an_interface(app: Flask) -> None:
    other = Flask("other")
    other.secret_key = "theirs"
    other.session_interface = app.session_interface
    WSChat(other)
    for _ in range(2):
        assert seen(app, GOOD) == {"user": "ann"}
        assert seen(other, GOOD) == {}
        assert seen(other, cookie("theirs", data={"user": "bob"})) == {"user": "bob"}


def test_switched_off_nothing_is_read_here(
    app: Flask, monkeypatch: pytest.MonkeyPatch
) -> None:
    environ = EnvironBuilder("/").get_environ()
    assert Sessions(app, quickly=False).context(environ) is None
