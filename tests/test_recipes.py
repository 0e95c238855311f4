"""Ways to say who connects, each as an application would write it."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from flask import Flask, abort, request
from flask_login import (
    LoginManager,
    UserMixin,
    login_user,
    logout_user,
    user_logged_out,
)
from itsdangerous import BadSignature, TimestampSigner
from werkzeug.middleware.proxy_fix import ProxyFix

from flask_wschat import WebSocket, WSChat
from flask_wschat.testing import Refused, WSChatClient
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
