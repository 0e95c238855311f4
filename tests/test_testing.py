"""The test client, as an application's own tests would use it."""

from __future__ import annotations

import threading
from collections.abc import Callable
from typing import Any

import pytest
from flask import Flask, abort, request, session

from flask_wschat import ConnectionClosed, Listener, WebSocket, WSChat
from flask_wschat.server import LiveServer
from flask_wschat.testing import Refused, WSChatClient
from tests.support.waiting import DEADLINE


@pytest.fixture
def left() -> list[tuple[str | None, int]]:
    return []


@pytest.fixture
def ended() -> threading.Event:
    return threading.Event()


@pytest.fixture
def chat(
    app: Flask, left: list[tuple[str | None, int]], ended: threading.Event
) -> WSChat:
    chat = WSChat(app)

    @chat.authenticate
    def who() -> str | None:
        if request.args.get("key") == "wrong":
            abort(401, "a wrong key")
        if request.args.get("key") == "broken":
            raise ZeroDivisionError("in authenticate")
        return session.get("user")

    @chat.route("/echo", subprotocols=["v2", "v1"])
    def echo(ws: WebSocket) -> None:
        for message in ws:
            ws.send(message)

    @chat.listener("/rooms/<room>")
    class Room(Listener):
        def on_open(self, ws: WebSocket, room: str) -> None:
            self.room = room
            ws.join(room)

        def on_message(self, ws: WebSocket, message: str | bytes) -> None:
            if message == "fail":
                raise ZeroDivisionError("in on_message")
            chat.broadcast({"from": ws.user, "data": str(message)}, room=self.room)

        def on_close(self, ws: WebSocket, code: int, reason: str) -> None:
            left.append((ws.user, code))
            ended.set()

    @app.get("/login/<user>")
    def login(user: str) -> str:
        session["user"] = user
        return ""

    return chat


def test_several_users_in_a_room(chat: WSChat, wschat_client: WSChatClient) -> None:
    connect = wschat_client.connect
    with (
        connect("/rooms/lobby", user="ann") as ann,
        connect("/rooms/lobby", user=7) as seven,
        connect("/rooms/other") as nobody,
    ):
        assert chat.online("lobby") == ["7", "ann"]
        ann.send("hello")
        for ws in (ann, seven):
            ws.assert_received({"from": "ann", "data": "hello"})
        nobody.assert_nothing_received()
        assert chat.send_to_user(7, b"\x00") == 1
        assert seven.receive() == b"\x00"
        chat.disconnect_user("ann", 4001, "bye")
        assert ann.assert_closed(4001) == (4001, "bye")
    assert chat.online() == []


def test_a_view_runs_until_its_connection_ends(
    chat: WSChat, wschat_client: WSChatClient
) -> None:
    with wschat_client.connect("/echo", subprotocols=["v1"], compression=True) as ws:
        assert ws.subprotocol == "v1"
        ws.send("x" * 500_000)
        ws.assert_received("x" * 500_000)
        ws.send({"a": [1]})
        assert ws.receive_json() == {"a": [1]}
        with pytest.raises(TimeoutError):
            ws.receive(0.01)
        with pytest.raises(AssertionError, match="expected 'this'"):
            ws.send("that")
            ws.assert_received("this")
        ws.close(4000, "done")
        assert (ws.close_code, ws.close_reason) == (4000, "done")


def test_refusals_are_http_responses(chat: WSChat, wschat_client: WSChatClient) -> None:
    for path, status, text in (
        ("/nowhere", 404, "Not Found"),
        ("/echo?key=wrong", 401, "a wrong key"),
    ):
        with pytest.raises(Refused) as caught, wschat_client.connect(path):
            pass
        assert caught.value.response.status_code == status
        assert text in caught.value.response.text
    origin = [("Origin", "http://evil.example")]
    with (
        pytest.raises(Refused, match="403"),
        wschat_client.connect("/echo", headers=origin),
    ):
        pass


def test_logging_in_there_logs_in_here(
    chat: WSChat, wschat_client: WSChatClient
) -> None:
    wschat_client.http.get("/login/ann")
    with wschat_client.connect("/rooms/a") as ws:
        ws.send("x")
        ws.assert_received({"from": "ann", "data": "x"})


def test_errors_of_the_application_are_raised_here(
    app: Flask, chat: WSChat, wschat_client: WSChatClient
) -> None:
    with (
        pytest.raises(ZeroDivisionError, match="in on_message"),
        wschat_client.connect("/rooms/a") as ws,
    ):
        ws.send("fail")
        ws.receive()
    with (
        pytest.raises(ZeroDivisionError, match="in on_message"),
        wschat_client.connect("/rooms/a") as ws,
    ):
        ws.send("fail")
        ws.assert_closed(1011)
    app.testing = True  # else Flask answers 500
    with (
        pytest.raises(ZeroDivisionError, match="in authenticate"),
        wschat_client.connect("/echo?key=broken"),
    ):
        pass


def test_a_client_may_vanish(
    chat: WSChat,
    wschat_client: WSChatClient,
    left: list[tuple[str | None, int]],
    ended: threading.Event,
) -> None:
    with wschat_client.connect("/rooms/a", user="ann") as ws:
        ws.vanish()
        assert ended.wait(DEADLINE)
        with pytest.raises(ConnectionClosed):
            ws.receive()
    assert left == [("ann", 1006)]


def test_a_live_server(
    app: Flask, chat: WSChat, wschat_server: Callable[..., LiveServer]
) -> None:
    from flask_wschat.client import connect

    server = wschat_server(app)
    with connect(server.url("/echo")) as ws:
        ws.send("over a port")
        assert ws.receive(DEADLINE) == "over a port"


@pytest.mark.slow
def test_the_plugin_costs_other_projects_nothing(pytester: pytest.Pytester) -> None:
    """Where nobody uses it, nothing is imported but pytest, which is there anyway."""
    pytester.makepyfile(
        """
        import sys

        def test_nothing_is_here():
            ours = {name for name in sys.modules if name.startswith("flask_wschat")}
            assert ours <= {
                "flask_wschat", "flask_wschat.errors", "flask_wschat.testing"
            }
            others = {"flask", "werkzeug", "gevent", "greenlet", "geventwebsocket"}
            assert not others & set(sys.modules)

        def test_the_fixtures_are(request):
            assert request.config.pluginmanager.get_plugin("flask_wschat")
            request.getfixturevalue("wschat_server")
            assert "gevent" in sys.modules
        """
    )
    result: Any = pytester.runpytest_subprocess(
        *("-p", "no:cacheprovider", "-p", "no:playwright", "-p", "no:flask")
    )
    result.assert_outcomes(passed=2)


@pytest.mark.slow
def test_the_plugin_needs_nothing_but_the_package(
    pytester: pytest.Pytester, monkeypatch: pytest.MonkeyPatch
) -> None:
    pytester.makepyfile(
        """
        import pytest
        from flask import Flask
        from flask_wschat import WSChat

        @pytest.fixture
        def app():
            app = Flask("users_app")
            chat = WSChat(app)

            @chat.route("/echo")
            def echo(ws):
                for message in ws:
                    ws.send(message)

            return app

        def test_echo(wschat_client):
            with wschat_client.connect("/echo") as ws:
                ws.send("hi")
                ws.assert_received("hi")
        """
    )
    result: Any = pytester.runpytest_subprocess("-p", "no:cacheprovider")
    result.assert_outcomes(passed=1)


@pytest.mark.slow
def test_both_fixtures_in_one_test_of_a_patched_process(
    pytester: pytest.Pytester,
) -> None:
    """As where the application's first line patches: it is imported by the test."""
    pytester.makepyfile(
        """
        from gevent import monkey; monkey.patch_all()

        import pytest
        from flask import Flask
        from flask_wschat import WSChat
        from flask_wschat.client import connect

        @pytest.fixture
        def app():
            app = Flask("users_app")
            chat = WSChat(app)

            @chat.route("/echo")
            def echo(ws):
                for message in ws:
                    chat.broadcast(message)

            return app

        @pytest.mark.parametrize("again", [False, True])
        def test_echo(app, wschat_client, wschat_server, again):
            server = wschat_server(app)
            with connect(server.url("/echo")) as ann:
                with wschat_client.connect("/echo") as bob:
                    for ws in (ann, bob):
                        ws.send("hi")
                        assert ann.receive(5) == bob.receive(5) == "hi"
        """
    )
    result: Any = pytester.runpytest_subprocess("-p", "no:cacheprovider")
    result.assert_outcomes(passed=2)
