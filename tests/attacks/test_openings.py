"""Opening requests meant to harm: each is answered, and costs what it should."""

from __future__ import annotations

import contextlib
import socket
from collections.abc import Callable, Iterator
from http.client import HTTPResponse
from typing import Any

import gevent
import pytest
from flask import Flask, Response, abort, redirect, request
from flask.sessions import SecureCookieSessionInterface
from websockets.exceptions import ConnectionClosed

from flask_wschat import Listener, WebSocket, WSChat
from flask_wschat.codec import Connection
from tests.support.live import LiveServer, Serve
from tests.support.waiting import DEADLINE, eventually

from ..servers.serving import RawClient
from .raw import KEY, read_status, send_opening


def ask(server: LiveServer, path: str, *headers: str, host: str | None = None) -> int:
    """Send a raw opening request; return the status of the answer."""
    with server.socket() as sock:
        send_opening(sock, path, *headers, host=host or f"127.0.0.1:{server.port}")
        return read_status(sock)


@pytest.fixture
def listening(chat: WSChat, server: LiveServer) -> LiveServer:
    chat.listener("/listen")(Listener)
    return server


@pytest.fixture
def start(caplog: pytest.LogCaptureFixture) -> Iterator[Callable[[Flask], LiveServer]]:
    """As ``serve``, where tracebacks in the server's own log are to be expected."""
    servers: list[LiveServer] = []

    def begin(app: Flask) -> LiveServer:
        servers.append(LiveServer(app))
        return servers[-1]

    yield begin
    # Tracebacks keep what the server holds, and that must go before its loop.
    caplog.get_records("call").clear()
    for server in servers:
        server.stop()


def test_refused_origins_flood_and_forge_no_log(
    listening: LiveServer, caplog: pytest.LogCaptureFixture
) -> None:
    for number in range(50):
        origin = f"Origin: http://evil{number}.example\x85ERROR forged"
        assert ask(listening, "/listen", origin) == 403
    [line] = caplog.messages
    assert r"http://evil0.example\x85ERROR forged" in line
    assert "WSCHAT_ORIGINS" in line


def test_a_full_server_says_so_once(
    app: Flask, serve: Serve, caplog: pytest.LogCaptureFixture
) -> None:
    app.config["WSCHAT_MAX_CONNECTIONS"] = 1
    WSChat(app).listener("/listen")(Listener)
    server = serve(app)
    with server.connect("/listen"):
        assert [ask(server, "/listen") for _ in range(50)] == [503] * 50
    assert len(caplog.messages) == 1


class Waiting:
    """An ``authenticate`` whose first five callers wait for how they are to go on."""

    def __init__(self) -> None:
        self.callers = 0
        self.then: Callable[[], Any] | None = None

    def __call__(self) -> Any:
        self.callers += 1
        if self.callers > 5:
            return None
        while self.then is None:
            gevent.sleep(0.005)
        return self.then()


def raise_(error: BaseException) -> None:
    raise error


ENDS: dict[str, Callable[[], Any]] = {
    "comes in": lambda: None,
    "is refused": lambda: abort(401),
    "an error": lambda: raise_(ZeroDivisionError()),
    "a time limit": lambda: raise_(gevent.Timeout(1)),
    "a bad user": lambda: False,
}


@pytest.mark.parametrize("end", ENDS)
@pytest.mark.parametrize("leaves", [False, True], ids=["stays", "leaves"])
@pytest.mark.parametrize(
    ("limit", "full"),
    [("MAX_CONNECTIONS", 503), ("MAX_CONNECTIONS_PER_ADDRESS", 429)],
)
def test_no_more_are_let_in_than_there_are_places(
    app: Flask,
    start: Callable[[Flask], LiveServer],
    end: str,
    leaves: bool,
    limit: str,
    full: int,
) -> None:
    app.config[f"WSCHAT_{limit}"] = 5
    chat = WSChat(app)
    chat.listener("/listen")(Listener)
    waiting = Waiting()
    chat.authenticate(waiting)
    server = start(app)
    host = f"127.0.0.1:{server.port}"
    with contextlib.ExitStack() as stack:
        clients = [stack.enter_context(server.socket()) for _ in range(40)]
        for client in clients:
            send_opening(client, "/listen", host=host)
        eventually(lambda: waiting.callers >= 5)
        refused = stack.enter_context(server.socket())
        send_opening(refused, "/listen", host=host)
        assert read_status(refused) == full
        assert waiting.callers == 5
        if leaves:
            for client in clients:
                client.close()
        waiting.then = ENDS[end]
        if end == "comes in" and not leaves:
            statuses = sorted(map(read_status, clients))
            assert statuses == [101] * 5 + [full] * 35
        for client in clients:
            client.close()
        opened: list[socket.socket] = []

        def fill() -> bool:
            client = stack.enter_context(server.socket())
            send_opening(client, "/listen", host=host)
            if read_status(client) == 101:
                opened.append(client)
            return len(opened) == 5

        eventually(fill)
        assert ask(server, "/listen") == full


@pytest.mark.parametrize("value", [False, True, "", 0, b"ann", object(), ("no", 401)])
def test_strangers_are_no_user(
    app: Flask,
    chat: WSChat,
    start: Callable[[Flask], LiveServer],
    caplog: pytest.LogCaptureFixture,
    value: object,
) -> None:
    server = start(app)
    chat.authenticate(lambda: value)
    chat.listener("/listen")(Listener)
    app.add_url_rule("/old", "old", lambda: str(request.environ["wsgi.websocket"]))
    assert ask(server, "/listen") == 500
    assert ask(server, "/old") == 500
    assert "Return None for somebody without one, and abort(401)" in caplog.text
    assert chat.online() == []


def raise_again(error: BaseException | None) -> None:
    raise ZeroDivisionError


FAILURES: dict[str, Callable[[Flask], Any]] = {
    "after_request": lambda app: app.after_request(lambda response: 1 / 0),
    "teardown_request": lambda app: app.teardown_request(raise_again),
    "teardown_appcontext": lambda app: app.teardown_appcontext(raise_again),
    "after_request aborts": lambda app: app.after_request(lambda response: abort(403)),
    "response": lambda app: app.after_request(lambda response: Failing()),
    "session": lambda app: setattr(app, "session_interface", Unsaved()),
}


class Unsaved(SecureCookieSessionInterface):
    def save_session(self, *args: Any) -> None:
        raise ZeroDivisionError


class Failing(Response):
    def __call__(self, *args: Any) -> Any:
        raise ZeroDivisionError


@pytest.mark.parametrize("shown", ["as ever", "as a page"])
@pytest.mark.parametrize("failure", FAILURES)
@pytest.mark.parametrize("path", ["/listen", "/view", "/old"])
def test_a_socket_whose_request_fails_at_last_is_closed(
    app: Flask,
    chat: WSChat,
    start: Callable[[Flask], LiveServer],
    failure: str,
    path: str,
    shown: str,
) -> None:
    viewed: list[WebSocket] = []

    @chat.route("/view")
    def view(ws: WebSocket) -> None:
        viewed.append(ws)
        ws.receive()

    chat.listener("/listen")(Listener)

    @app.route("/old")
    def old() -> str:
        request.environ["wsgi.websocket"].send("hello")
        return ""

    if shown == "as a page":
        app.register_error_handler(Exception, lambda error: ("sorry", 200))
    FAILURES[failure](app)
    with start(app).connect(path) as client:
        if path == "/old":
            assert client.recv(DEADLINE) == "hello"
        with pytest.raises(ConnectionClosed) as ended:
            client.recv(DEADLINE)
        assert ended.value.rcvd is not None and ended.value.rcvd.code == 1011
    eventually(lambda: chat._hub().count() == 0)


EVIL = "evil.example"
VOUCHED: dict[str, dict[str, Any]] = {
    "ORIGINS": {"WSCHAT_ORIGINS": [f"http://{EVIL}"]},
    "TRUSTED_HOSTS": {"TRUSTED_HOSTS": [EVIL]},
    "SERVER_NAME": {"SERVER_NAME": EVIL},
}


@pytest.mark.parametrize("path", ["/listen", "/old"])
def test_a_name_that_was_led_to_a_loopback_address_is_refused(
    app: Flask, listening: LiveServer, caplog: Any, path: str
) -> None:
    @app.route("/old")
    def old() -> str:
        request.environ["wsgi.websocket"].send("hello")
        return ""

    assert ask(listening, path, f"Origin: http://{EVIL}", host=EVIL) == 403
    [line] = caplog.messages
    assert EVIL in line and "TRUSTED_HOSTS" in line and "X-Forwarded-For" in line
    assert ask(listening, path, host=EVIL) == 101  # not a browser
    proxied = [f"Origin: http://{EVIL}", "X-Forwarded-For: 192.0.2.7"]
    assert ask(listening, path, *proxied, host=EVIL) == 101
    port = listening.port
    for host in (f"localhost:{port}", f"127.0.0.1:{port}", f"a.localhost:{port}"):
        assert ask(listening, path, f"Origin: http://{host}", host=host) == 101


@pytest.mark.parametrize("name", VOUCHED)
def test_a_name_that_is_vouched_for_is_let_in(
    app: Flask, serve: Serve, name: str
) -> None:
    if name == "TRUSTED_HOSTS" and name not in Flask.default_config:
        pytest.skip("Flask 3.1 is the first to know it")
    app.config.update(VOUCHED[name])
    WSChat(app).listener("/listen")(Listener)
    server = serve(app)
    assert ask(server, "/listen", f"Origin: http://{EVIL}", host=EVIL) == 101


def test_null_allows_null_and_nothing_else(app: Flask, serve: Serve) -> None:
    app.config["WSCHAT_ORIGINS"] = ["null"]
    WSChat(app).listener("/listen")(Listener)
    server = serve(app)
    statuses = {
        origin: ask(server, "/listen", f"Origin: {origin}")
        for origin in ("null", "evil", "", "http://evil.example", "about:blank")
    }
    assert [origin for origin, status in statuses.items() if status == 101] == ["null"]


def test_what_was_answered_by_http_opens_no_more(
    app: Flask, chat: WSChat, server: LiveServer
) -> None:
    kept: list[Any] = []

    @app.route("/old")
    def old() -> str:
        kept.append(request.environ["wsgi.websocket"])
        return "another time"

    @app.route("/late")
    def late() -> str:
        return f"{kept[0].receive()} {kept[0].closed}"

    host = f"127.0.0.1:{server.port}"
    with server.socket() as sock:
        send_opening(sock, "/old", host=host)
        answer = HTTPResponse(sock)
        answer.begin()
        assert (answer.status, answer.read()) == (200, b"another time")
        sock.sendall(f"GET /late HTTP/1.1\r\nHost: {host}\r\n\r\n".encode())
        answer = HTTPResponse(sock)
        answer.begin()
        assert (answer.status, answer.read()) == (200, b"None True")
    assert chat._hub().count() == 0


def test_a_refused_opening_that_asks_for_a_close_gets_it(
    listening: LiveServer,
) -> None:
    lines = [
        "GET /listen HTTP/1.1",
        f"Host: 127.0.0.1:{listening.port}",
        "Connection: Upgrade, Close",
        "Upgrade: websocket",
        f"Sec-WebSocket-Key: {KEY}",
        "Sec-WebSocket-Version: 12",
        "",
        "",
    ]
    with listening.socket() as sock:
        sock.sendall("\r\n".join(lines).encode())
        answer = b""
        while data := sock.recv(4096):
            answer += data
    assert answer.startswith(b"HTTP/1.1 426 ")


@pytest.mark.parametrize("leaves", [False, True])
@pytest.mark.parametrize("limit", [None, (10, 10)])
@pytest.mark.parametrize("how", ["abort", "redirect", "close", "error"])
def test_who_is_refused_as_it_opens_is_not_heard(
    app: Flask, serve: Serve, how: str, limit: Any, leaves: bool
) -> None:
    heard: list[Any] = []
    ended: list[Any] = []

    def refuse(ws: WebSocket) -> Any:
        if how == "abort":
            abort(403)
        if how == "redirect":
            return redirect("/login")  # as a login_required there does
        if how == "error":
            raise ValueError("for tests")
        return ws.close(4001)

    class Private(Listener):
        def on_open(self, ws: WebSocket, **_: Any) -> Any:
            return refuse(ws)

        def on_message(self, ws: WebSocket, message: Any) -> None:
            heard.append(message)

        def on_close(self, ws: WebSocket, code: int, reason: str) -> None:
            ended.append(code)

    WSChat(app).listener("/private", limit=limit)(Private)
    sent = Connection(client=True)
    said = b"".join(sent.send("for those who may") for _ in range(3))
    if leaves:
        said += sent.close(1000)
    with RawClient(serve(app)).open("/private", behind=said) as client:
        client.closed()
        eventually(lambda: ended)
    assert not heard
    assert len(ended) == 1
