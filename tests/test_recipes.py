"""Ways to say who connects, each as an application would write it."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
from flask import Flask, abort, redirect, request
from flask_login import (
    LoginManager,
    UserMixin,
    login_required,
    login_user,
    logout_user,
    user_logged_out,
)
from itsdangerous import BadSignature, TimestampSigner
from websockets.exceptions import InvalidStatus
from werkzeug.middleware.proxy_fix import ProxyFix

from flask_wschat import Listener, WebSocket, WSChat
from flask_wschat.testing import Refused, WSChatClient
from tests.support.live import Serve
from tests.support.readme import SNIPPETS


def with_me(app: Flask, **options: Any) -> WSChat:
    chat = WSChat(app)

    @chat.route("/me", **options)
    def me(ws: WebSocket) -> None:
        ws.send_json([ws.user, ws.subprotocol])
        ws.receive()

    return chat


def status(client: WSChatClient, path: str = "/me", **options: Any) -> int:
    with pytest.raises(Refused) as found, client.connect(path, **options):
        pass
    return found.value.response.status_code


# -- Flask-Login


ACCOUNTS = SNIPPETS["accounts.py", "", ""]


class User(UserMixin):  # type: ignore[misc]
    def __init__(self, name: str) -> None:
        self.id = name


def with_login(app: Flask) -> WSChat:
    app.secret_key = "for tests"
    manager = LoginManager(app)
    manager.user_loader(User)

    @app.post("/login/<name>")
    def login(name: str) -> str:
        login_user(User(name))
        return ""

    @app.post("/logout")
    def logout() -> str:
        logout_user()
        return ""

    chat = with_me(app)
    exec(ACCOUNTS.replace("from app import chat\n", ""), {"chat": chat})
    return chat


@pytest.fixture
def workers(tmp_path: Path) -> Iterator[list[Flask]]:
    """Applications as two processes have them."""
    apps = [Flask(f"worker_{number}") for number in range(2)]
    for app in apps:
        app.config["WSCHAT_URL"] = f"sqlite:///{tmp_path}/chat.db"
        with_login(app)
    yield apps
    for app in apps:
        app.extensions["wschat.hub"].backend.stop()


def test_flask_login_says_who_it_is(app: Flask) -> None:
    with_login(app)
    client = WSChatClient(app)
    with client.connect("/me") as ws:
        ws.assert_received([None, None])
    client.http.post("/login/ann")
    with client.connect("/me") as ws:
        ws.assert_received(["ann", None])


@pytest.mark.pain(13)
def test_a_logout_disconnects_at_once_everywhere(workers: list[Flask]) -> None:
    here, there = map(WSChatClient, workers)
    other = WSChatClient(workers[0])
    for client in (here, there):
        client.http.post("/login/ann")
    other.http.post("/login/bob")
    with (
        here.connect("/me") as one,
        there.connect("/me") as two,
        other.connect("/me") as bob,
    ):
        for ws in (one, two, bob):
            ws.receive()
        assert here.http.post("/logout").status_code == 200
        assert one.assert_closed() == (4001, "logged out")
        assert two.assert_closed() == (4001, "logged out")
        bob.assert_nothing_received()
    with here.connect("/me") as ws:
        ws.assert_received([None, None])


def test_who_is_not_logged_in_can_log_out(app: Flask) -> None:
    with_login(app)
    client = WSChatClient(app)
    with client.connect("/me") as ws:
        ws.receive()
        assert client.http.post("/logout").status_code == 200
        ws.assert_nothing_received()


def test_a_logout_of_another_application_is_none_of_ours(app: Flask) -> None:
    other = Flask("another")
    with_login(app)
    with_login(other)
    client, elsewhere = WSChatClient(app), WSChatClient(other)
    for one in (client, elsewhere):
        one.http.post("/login/ann")
    with client.connect("/me") as ws:
        ws.receive()
        elsewhere.http.post("/logout")
        ws.assert_nothing_received()
        client.http.post("/logout")
        ws.assert_closed(4001)


def test_a_logout_succeeds_though_the_storage_is_gone(
    app: Flask, caplog: pytest.LogCaptureFixture
) -> None:
    with_login(app)
    client = WSChatClient(app)
    client.http.post("/login/ann")
    app.extensions["wschat.hub"].backend.stop()
    assert client.http.post("/logout").status_code == 200
    assert "ann is logged out, but connected still" in caplog.text


def test_what_is_no_signal_is_told(app: Flask) -> None:
    with pytest.raises(TypeError, match="signal"):
        WSChat(app).disconnect_on(user_logged_out.send)


# -- decorators


@pytest.fixture(params=["route", "listener"])
def private(app: Flask, request: pytest.FixtureRequest) -> WSChat:
    """An app whose ``/mine`` and ``/asked`` are for who is logged in."""
    chat = with_login(app)

    def hello(ws: WebSocket) -> None:
        ws.send(f"hello {ws.user}")
        ws.receive()

    class Hello(Listener):
        def on_open(self, ws: WebSocket, *args: Any, **url_args: Any) -> None:
            ws.send(f"hello {ws.user}")

    guards = [login_required, noted]
    if request.param == "route":
        chat.route("/mine", decorators=guards)(hello)
    else:
        chat.listener("/mine", decorators=guards)(Hello)
    return chat


seen: list[str] = []


def noted(view: Callable[..., Any]) -> Callable[..., Any]:
    def noting(**url_args: Any) -> Any:
        seen.append(view.__name__)
        return view(**url_args)

    return noting


def test_a_decorator_refuses_before_the_101(app: Flask, private: WSChat) -> None:
    seen.clear()
    client = WSChatClient(app)
    assert status(client, "/mine") == 401
    assert [name.lower() for name in seen] == ["hello"]
    client.http.post("/login/ann")
    with client.connect("/mine") as ws:
        ws.assert_received("hello ann")


def test_the_refusals_are_http_on_a_real_server(
    app: Flask, private: WSChat, serve: Serve
) -> None:
    server = serve(app)
    with pytest.raises(InvalidStatus) as found, server.connect("/mine"):
        pass
    assert found.value.response.status_code == 401


@pytest.mark.parametrize("how", ["returned", "raised"])
def test_a_redirect_to_a_login_page_is_a_401(
    app: Flask, private: WSChat, how: str
) -> None:
    manager: LoginManager = app.login_manager  # type: ignore[attr-defined]
    if how == "returned":
        app.add_url_rule("/form", "form", lambda: "")
        manager.login_view = "form"
    else:
        manager.unauthorized_handler(lambda: abort(redirect("/form")))
    client = WSChatClient(app)
    assert status(client, "/mine") == 401
    client.http.post("/login/ann")
    with client.connect("/mine") as ws:
        ws.assert_received("hello ann")


def test_places_are_given_back_where_a_decorator_refuses(app: Flask) -> None:
    app.config["WSCHAT_MAX_CONNECTIONS"] = 1
    chat = with_login(app)
    chat.route("/mine", decorators=[login_required])(lambda ws: ws.receive())
    client = WSChatClient(app)
    for _ in range(3):
        assert status(client, "/mine") == 401
    client.http.post("/login/ann")
    with client.connect("/mine"):
        assert status(client, "/mine") == 503


def test_two_routes_over_one_view_may_have_other_decorators(app: Flask) -> None:
    chat = with_login(app)

    def view(ws: WebSocket) -> None:
        ws.receive()

    chat.route("/open", endpoint="open")(view)
    chat.route("/mine", endpoint="mine", decorators=[login_required])(view)
    client = WSChatClient(app)
    with client.connect("/open"):
        assert status(client, "/mine") == 401


@pytest.mark.parametrize("given", [login_required, [lambda view: None]])
def test_what_is_no_list_of_decorators_is_told(app: Flask, given: Any) -> None:
    with pytest.raises(TypeError, match="decorator"):
        WSChat(app).route("/mine", decorators=given)(lambda ws: None)


def test_the_applications_error_handlers_answer_for_a_decorator(
    app: Flask, private: WSChat
) -> None:
    @app.errorhandler(401)
    def mine(error: Exception) -> Any:
        return {"error": "log in"}, 401

    with pytest.raises(Refused) as found, WSChatClient(app).connect("/mine"):
        pass
    assert found.value.response.get_json() == {"error": "log in"}


def test_decorators_are_those_that_were_given(app: Flask) -> None:
    chat = with_login(app)

    def view(ws: WebSocket) -> None:
        ws.receive()

    given = [login_required]
    chat.route("/list", endpoint="list", decorators=given)(view)
    given.clear()
    chat.route("/iterated", endpoint="it", decorators=iter([login_required]))(view)  # type: ignore[arg-type]
    chat.route("/open", endpoint="open")(view)
    client = WSChatClient(app)
    assert status(client, "/list") == status(client, "/iterated") == 401
    with client.connect("/open"):
        pass


def test_a_method_decorates_two_rules_of_one_view(app: Flask) -> None:
    class Auth:  # as Flask-HTTPAuth's: each look at a method makes a new object
        def required(self, view: Callable[..., Any]) -> Callable[..., Any]:
            guarded: Callable[..., Any] = login_required(view)
            return guarded

    chat, auth = with_login(app), Auth()

    @chat.route("/a", decorators=[auth.required])
    @chat.route("/b", decorators=[auth.required])
    def view(ws: WebSocket) -> None:
        ws.receive()

    assert status(WSChatClient(app), "/a") == status(WSChatClient(app), "/b") == 401


def test_a_view_may_return_a_number(app: Flask) -> None:
    WSChat(app).route("/count")(lambda ws: 404)
    with WSChatClient(app).connect("/count") as ws:
        assert ws.assert_closed(1000) == (1000, "")


def test_at_the_view_itself_it_is_too_late_and_told(
    app: Flask, caplog: pytest.LogCaptureFixture
) -> None:
    chat = with_login(app)
    app.add_url_rule("/form", "form", lambda: "")
    ran: list[bool] = []
    chat.route("/late")(login_required(lambda ws: ran.append(True)))
    client = WSChatClient(app)
    with client.connect("/late") as ws:
        code, reason = ws.assert_closed(1008)
    assert code == 1008 and reason.startswith("401 Unauthorized")
    app.login_manager.login_view = "form"  # type: ignore[attr-defined]
    with client.connect("/late") as ws:
        assert ws.assert_closed(1008) == (1008, "302")
    assert "decorators=[...]" in caplog.text and "/late" in caplog.text
    assert not ran


# -- tokens that are the application's own


def read(token: str) -> str:
    """Return whose token it is, as PyJWT's ``decode`` would."""
    try:
        return TimestampSigner("for tests").unsign(token, max_age=60).decode()
    except BadSignature:
        abort(401, "this token is not good")


def test_a_bearer_token(app: Flask) -> None:
    chat = with_me(app)

    @chat.authenticate
    def who() -> str:
        kind, _, token = request.headers.get("Authorization", "").partition(" ")
        if kind != "Bearer":
            abort(401)
        return read(token)

    client = WSChatClient(app)
    token = TimestampSigner("for tests").sign("ann").decode()
    headers = [("Authorization", f"Bearer {token}")]
    with client.connect("/me", headers=headers) as ws:
        ws.assert_received(["ann", None])
    assert status(client) == 401
    assert status(client, headers=[("Authorization", f"Bearer {token}x")]) == 401


def test_a_token_among_the_subprotocols(app: Flask) -> None:
    """Of a page that has no ticket: it can set no other header."""
    chat = with_me(app, subprotocols=["v1"])

    @chat.authenticate
    def who() -> str:
        offered = request.headers.get("Sec-WebSocket-Protocol", "").split(",")
        tokens = [name.strip() for name in offered if name.strip().startswith("jwt.")]
        return read(tokens[0][4:]) if tokens else abort(401)

    client = WSChatClient(app)
    token = TimestampSigner("for tests").sign("ann").decode()
    with client.connect("/me", subprotocols=["v1", f"jwt.{token}"]) as ws:
        ws.assert_received(["ann", "v1"])
    assert status(client, subprotocols=["v1"]) == 401
    assert status(client, subprotocols=["v1", f"jwt.{token}x"]) == 401


# -- whose pages


@pytest.mark.pain(11)
def test_the_same_origin_behind_a_proxy_that_ends_tls(app: Flask) -> None:
    with_me(app)
    app.wsgi_app = ProxyFix(app.wsgi_app, x_proto=1, x_host=1)  # type: ignore[method-assign]
    client = WSChatClient(app)
    proxied = [("X-Forwarded-Proto", "https"), ("X-Forwarded-Host", "chat.example.org")]
    own = ("Origin", "https://chat.example.org")
    with client.connect("/me", headers=[*proxied, own]) as ws:
        ws.receive()
    assert status(client, headers=[("X-Forwarded-Proto", "https"), own]) == 403
    for foreign in ("http://chat.example.org", "https://example.org", "null"):
        assert status(client, headers=[*proxied, ("Origin", foreign)]) == 403


def test_origins_by_a_list_and_a_pattern(app: Flask) -> None:
    app.config["WSCHAT_ORIGINS"] = ["https://example.org", "https://*.example.org"]
    with_me(app)
    client = WSChatClient(app)
    for origin in ("https://example.org", "https://a.example.org:443"):
        with client.connect("/me", headers=[("Origin", origin)]) as ws:
            ws.receive()
    for origin in ("https://evilexample.org", "http://a.example.org", "null"):
        assert status(client, headers=[("Origin", origin)]) == 403
