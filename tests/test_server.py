"""Handshakes, bytes and dying peers on live servers: raw sockets, foreign clients."""

from __future__ import annotations

import json
import socket
import threading
import urllib.request
from contextvars import ContextVar
from typing import Any

import gevent
import pytest
from flask import Flask, abort, request
from gevent.pywsgi import WSGIServer
from websockets.exceptions import ConnectionClosed as ForeignClosed
from websockets.exceptions import InvalidStatus

from flask_wschat import Listener, WebSocket, WSChat, shortcuts
from flask_wschat.server import Server, WebSocketHandler
from tests.support.live import HANDLERS, LiveServer, Serve, closed, receive
from tests.support.waiting import DEADLINE, eventually

from .servers.serving import RawClient

KEY = "dGhlIHNhbXBsZSBub25jZQ=="
UPGRADE = {
    "Host": "127.0.0.1",
    "Upgrade": "websocket",
    "Connection": "Upgrade",
    "Sec-WebSocket-Key": KEY,
    "Sec-WebSocket-Version": "13",
}


@pytest.fixture
def app(app: Flask) -> Flask:
    app.config["WSCHAT_MAX_MESSAGE"] = 1 << 25
    return app


@pytest.fixture
def chat(app: Flask) -> WSChat:
    chat = WSChat(app)

    @chat.route("/echo")
    def echo(ws: WebSocket) -> None:
        for message in ws:
            ws.send(message)

    @chat.listener("/listen")
    class Echo(Listener):
        def on_message(self, ws: WebSocket, message: str | bytes) -> None:
            ws.send(message)

    @chat.listener("/room")
    class Room(Listener):
        def on_open(self, ws: WebSocket) -> None:
            ws.join("room")

        def on_message(self, ws: WebSocket, message: str | bytes) -> None:
            chat.broadcast(message, room="room")

    @app.get("/page")
    def page() -> str:
        return "a page"

    return chat


@pytest.fixture
def any_server(chat: WSChat, app: Flask, serve: Serve, handler: str) -> LiveServer:
    """The app under each handler in turn."""
    return serve(app, handler)


def ask(server: LiveServer, path: str, **headers: str | None) -> tuple[int, bytes]:
    """Send an opening request with some headers changed; return status and answer."""
    merged = dict(UPGRADE, Host=f"127.0.0.1:{server.port}")
    for name, value in headers.items():
        merged[name.replace("_", "-")] = value  # type: ignore[assignment]
    lines = [f"{k}: {v}" for k, v in merged.items() if v is not None]
    head = "\r\n".join([f"GET {path} HTTP/1.1", *lines, "", ""])
    with socket.create_connection(("127.0.0.1", server.port), DEADLINE) as sock:
        sock.sendall(head.encode())
        sock.shutdown(socket.SHUT_WR)
        answer = b""
        while data := sock.recv(65536):
            answer += data
    return int(answer.split()[1]), answer


def http(server: LiveServer, path: str) -> str:
    url = server.url(path, "http")
    with urllib.request.urlopen(url, timeout=DEADLINE) as reply:
        return str(reply.read().decode())


# -- the handshake


@pytest.mark.parametrize(
    ("path", "headers", "status", "says"),
    [
        ("/echo", {}, 101, b"s3pPLMBiTxaQ9kYGzzhZRbK+xOo="),
        ("/echo", {"Connection": "keep-alive, Upgrade"}, 101, b"Sec-WebSocket-Accept"),
        ("/nowhere", {}, 404, b""),
        ("/echo", {"Origin": "http://evil.example"}, 403, b"origin"),
        ("/echo", {"Origin": "null"}, 403, b"origin"),
        ("/echo", {"Upgrade": None}, 426, b"Upgrade: websocket"),
        ("/echo", {"Connection": "close"}, 426, b"new WebSocket("),
        ("/echo", {"Sec_WebSocket_Version": "8"}, 426, b"Sec-WebSocket-Version: 13"),
        ("/echo", {"Sec_WebSocket_Version": None}, 400, b"Sec-WebSocket-Version"),
        ("/echo", {"Sec_WebSocket_Key": None}, 400, b"Sec-WebSocket-Key"),
        ("/echo", {"Sec_WebSocket_Key": "short"}, 400, b"Sec-WebSocket-Key"),
        ("/echo", {"Sec_WebSocket_Key": "%%%"}, 400, b"Sec-WebSocket-Key"),
        ("/echo", {"Sec_WebSocket_Key": "é" * 12}, 400, b"Sec-WebSocket-Key"),
        ("/page", {}, 200, b"a page"),
        ("/page", {"Origin": "http://evil.example"}, 403, b"origin"),
    ],
)
def test_refusals_are_http_before_the_101(
    chat: WSChat,
    server: LiveServer,
    path: str,
    headers: dict[str, str | None],
    status: int,
    says: bytes,
) -> None:
    got, answer = ask(server, path, **headers)
    assert got == status
    assert says in answer


@pytest.mark.pain(12)
def test_authenticate_refuses_before_the_101(chat: WSChat, server: LiveServer) -> None:
    @chat.authenticate
    def nobody() -> None:
        abort(401)

    assert ask(server, "/echo")[0] == 401
    assert ask(server, "/page")[0] == 401
    assert http(server, "/page") == "a page"


def test_the_same_origin_is_let_in(
    app: Flask, chat: WSChat, server: LiveServer, caplog: pytest.LogCaptureFixture
) -> None:
    origin = f"http://127.0.0.1:{server.port}"
    assert ask(server, "/echo", Origin=origin)[0] == 101
    assert ask(server, "/echo", Origin=origin.upper())[0] == 101
    assert ask(server, "/echo", Origin="http://127.0.0.1:1")[0] == 403
    assert "'http://127.0.0.1:1'" in caplog.text
    assert origin in caplog.text
    assert "WSCHAT_ORIGINS" in caplog.text


@pytest.mark.parametrize(
    ("allowed", "origin", "status"),
    [
        ("*", "http://any.example", 101),
        (["https://a.example"], "https://a.example:443", 101),
        (["https://a.example"], "https://b.example", 403),
        (["https://a.example"], "http://a.example", 403),
        ("https://a.example", "https://a.example", 101),
        ("https://a.example", "https://a.example:x", 403),
    ],
)
@pytest.mark.pain(11)
def test_allowed_origins(
    app: Flask, serve: Serve, allowed: Any, origin: str, status: int
) -> None:
    app.config["WSCHAT_ORIGINS"] = allowed
    chat = WSChat(app)
    chat.route("/")(lambda ws: None)
    assert ask(serve(app), "/", Origin=origin)[0] == status


def test_a_full_house_is_503(app: Flask, serve: Serve) -> None:
    app.config["WSCHAT_MAX_CONNECTIONS"] = 1
    chat = WSChat(app)
    chat.listener("/")(Listener)
    server = serve(app)
    with server.connect("/") as client:
        status, answer = ask(server, "/")
        assert status == 503
        assert b"Retry-After" in answer
        client.close()
    eventually(lambda: chat._hub().count() == 0)
    with server.connect("/"):
        pass


def test_custom_error_pages_see_a_refusal(
    app: Flask, chat: WSChat, server: LiveServer
) -> None:
    @app.errorhandler(403)
    def mine(error: Exception) -> tuple[str, int]:
        return "my own page", 403

    assert b"my own page" in ask(server, "/echo", Origin="http://evil.example")[1]


def test_under_the_stock_handler_a_refusal_is_a_close(
    app: Flask, chat: WSChat, serve: Serve
) -> None:
    server = serve(app, "stock")
    with server.connect("/nowhere") as client:
        assert closed(client) == (1008, "404 Not Found")
    with server.connect("/echo", origin="http://evil.example") as client:
        reason = "403 Forbidden: this origin is not allowed"
        assert closed(client) == (1008, reason)
    with server.connect("/page") as client:
        assert closed(client) == (1000, "")


def test_frames_right_behind_the_request_are_not_lost(
    chat: WSChat, any_server: LiveServer
) -> None:
    with RawClient(any_server) as client:
        behind = client.connection.send("first") + client.connection.send("x" * 9000)
        client.open("/echo", behind)
        events = client.events()
        assert [next(events), next(events)] == ["first", "x" * 9000]


# -- messages


@pytest.mark.parametrize("path", ["/echo", "/listen"])
@pytest.mark.parametrize("size", [0, 1, 125, 126, 65535, 65536, 1 << 20, 1 << 24])
def test_echo_of_every_size(
    chat: WSChat, any_server: LiveServer, path: str, size: int
) -> None:
    with any_server.connect(path) as client:
        client.send("é" * (size // 2))
        client.send(b"\xff" * size)
        assert receive(client) == "é" * (size // 2)
        assert receive(client) == b"\xff" * size


def test_fragments_pings_and_order(chat: WSChat, any_server: LiveServer) -> None:
    with any_server.connect("/echo") as client:
        client.send(["frag", "", "ments"])
        assert client.ping("x" * 125).wait(DEADLINE)
        client.send([b"a", b"b"])
        for number in range(500):
            client.send(str(number))
        assert receive(client) == "fragments"
        assert receive(client) == b"ab"
        assert [receive(client) for _ in range(500)] == [str(n) for n in range(500)]


def test_close_codes_pass_both_ways(
    app: Flask, chat: WSChat, handler: str, serve: Serve
) -> None:
    ended: list[tuple[int | None, str]] = []

    @chat.route("/close/<int:code>")
    def close(ws: WebSocket, code: int) -> None:
        if code:
            ws.close(code, "kicked")
        else:
            for _ in ws:
                pass
        ended.append((ws.close_code, ws.close_reason))

    server = serve(app, handler)
    with server.connect("/close/4001") as client:
        assert closed(client) == (4001, "kicked")
    with server.connect("/close/0") as client:
        client.close(1012, "bye bye")
        # Our answer carries the same code, and nothing made up.
        assert client.protocol.close_rcvd is not None
        assert client.protocol.close_rcvd.code == 1012
    eventually(lambda: len(ended) == 2)
    assert ended == [(4001, "kicked"), (1012, "bye bye")]


def test_an_unmasked_frame_and_a_giant_header_are_refused(
    chat: WSChat, any_server: LiveServer
) -> None:
    for data, code in (
        ("810548656c6c6f", 1002),
        ("82ff0000000080000000" + "00000000", 1009),
    ):
        with RawClient(any_server).open("/echo") as client:
            client.socket.sendall(bytes.fromhex(data))
            [event] = client.events()
            assert isinstance(event, tuple) and event[0] == code


@pytest.mark.pain(2)
def test_many_greenlets_and_one_slow_reader(
    app: Flask, chat: WSChat, handler: str, serve: Serve
) -> None:
    """Byte-exact: the codec at the other end fails on one foreign byte in a frame."""

    @chat.route("/mixed")
    def mixed(ws: WebSocket) -> None:
        def send(number: int) -> None:
            for step in range(8):
                size = (number * 7919 + step * 104729) % 90_000
                ws.send(f"{number}:{step}:" + chr(97 + number % 26) * size)

        gevent.joinall([gevent.spawn(send, n) for n in range(50)], raise_error=True)

    with RawClient(serve(app, handler), SO_RCVBUF=32768).open("/mixed") as client:
        seen: dict[int, int] = dict.fromkeys(range(50), 0)
        for event in client.events():
            if not isinstance(event, str):
                assert isinstance(event, tuple) and event[0] == 1000
                break
            number, step, body = event.split(":")
            size = (int(number) * 7919 + int(step) * 104729) % 90_000
            assert seen[int(number)] == int(step)
            assert body == chr(97 + int(number) % 26) * size
            seen[int(number)] += 1
        assert set(seen.values()) == {8}


@pytest.mark.pain(1)
def test_half_of_the_room_dies_and_the_other_half_gets_everything(
    chat: WSChat, any_server: LiveServer
) -> None:
    clients = [any_server.connect("/room") for _ in range(5)]
    doomed = [RawClient(any_server).open("/room") for _ in range(5)]
    eventually(lambda: chat._hub().count() == 10)

    def publish() -> None:
        for number in range(2000):
            if number % 400 == 200:
                doomed.pop().reset()
            clients[0].send(f"{number} " + "x" * 500)

    publisher = threading.Thread(target=publish)
    publisher.start()
    for number in range(2000):
        for client in clients:
            assert receive(client) == f"{number} " + "x" * 500
    publisher.join()
    for client in clients:
        client.close()
    eventually(lambda: chat._hub().count() == 0)
    assert doomed == []


@pytest.mark.pain(4)
def test_a_stalled_reader_is_closed_and_nobody_else_notices(
    app: Flask, chat: WSChat, serve: Serve
) -> None:
    server = serve(app)
    with (
        RawClient(server, SO_RCVBUF=4096).open("/room"),
        server.connect("/room") as healthy,
    ):
        eventually(lambda: chat._hub().count() == 2)
        for number in range(300):
            message = str(number) + "x" * 50_000
            chat.broadcast(message, room="room")
            assert receive(healthy) == message
        eventually(lambda: chat._hub().count() == 1)


@pytest.mark.parametrize("count", [1100, 1500])  # a little over the limit, and far
@pytest.mark.pain(5)
def test_a_burst_that_never_yields_is_not_taken_for_a_slow_reader(
    app: Flask, chat: WSChat, server: LiveServer, count: int
) -> None:
    """A view may publish megabytes in one go: what the peer can take leaves at once."""

    @app.get("/burst")
    def burst() -> str:
        for number in range(count):
            chat.broadcast(str(number) + "x" * 1000, room="room")
        return "done"

    with server.connect("/room", max_queue=None) as client:
        eventually(lambda: chat._hub().count() == 1)
        assert http(server, "/burst") == "done"
        for number in range(count):
            assert receive(client) == str(number) + "x" * 1000


def test_an_idle_listener_holds_no_greenlet(chat: WSChat, server: LiveServer) -> None:
    import gc

    import greenlet

    def count() -> int:
        gc.collect()
        return sum(
            isinstance(found, greenlet.greenlet) and not found.dead
            for found in gc.get_objects()
        )

    with server.connect("/room") as first:
        first.send("x")
        assert receive(first) == "x"
        before = count()
        clients = [server.connect("/room") for _ in range(20)]
        eventually(lambda: chat._hub().count() == 21)
        eventually(lambda: count() <= before)
        for client in clients:
            client.close()


# -- old code


def test_a_plain_view_that_never_touches_the_socket_answers_http(
    app: Flask, chat: WSChat, server: LiveServer
) -> None:
    @app.route("/maybe")
    def maybe() -> str:
        ws = request.environ.get("wsgi.websocket")
        return "closed" if ws is not None and ws.closed else "a page"

    assert http(server, "/maybe") == "a page"
    with pytest.raises(InvalidStatus) as caught:
        server.connect("/maybe")
    assert caught.value.response.status_code == 200


def test_the_legacy_object(
    app: Flask, chat: WSChat, handler: str, serve: Serve
) -> None:
    from geventwebsocket.exceptions import WebSocketError

    notes: list[Any] = []

    @app.route("/legacy")
    def legacy() -> str:
        ws = request.environ["wsgi.websocket"]
        notes.append((ws.path, ws.version, ws.origin, ws.protocol, ws.closed))
        ws.send("text")
        assert ws.handler.active_client.ws is ws
        ws.send(b"bytes")
        ws.send(bytearray(b"array"), binary=True)
        ws.send(b"as text", binary=False)
        for wrong in (None, "text"):
            with pytest.raises(TypeError):
                ws.send(wrong, binary=True)
        notes.append(ws.receive())
        notes.append(ws.receive())
        notes.append([ws.receive(), ws.receive(), ws.receive(), ws.closed])
        with pytest.raises(WebSocketError, match="Socket is dead"):
            ws.send("anyone?")
        ws.close()
        return "ignored"

    server = serve(app, handler)
    with server.connect("/legacy") as client:
        got = [receive(client) for _ in range(4)]
        client.send("hi")
        client.send(b"\x01")
    assert got == ["text", b"bytes", b"array", "as text"]
    eventually(lambda: len(notes) == 4)
    assert notes == [
        ("/legacy", "13", None, None, False),
        "hi",
        bytearray(b"\x01"),
        [None, None, None, True],
    ]
    assert isinstance(notes[2], bytearray)


def test_the_legacy_close_carries_its_code(
    app: Flask, chat: WSChat, handler: str, serve: Serve
) -> None:
    @app.route("/kick/<int:code>")
    def kick(code: int) -> str:
        request.environ["wsgi.websocket"].close(code, b"kicked")
        return ""

    @app.route("/fail")
    def fail() -> str:
        request.environ["wsgi.websocket"].send("one")
        abort(404)

    server = serve(app, handler)
    with server.connect("/kick/4001") as client:
        assert closed(client) == (4001, "kicked")
    with server.connect("/kick/1006") as client:
        assert closed(client) == (1000, "kicked")
    with server.connect("/fail") as client:
        assert receive(client) == "one"
        assert closed(client) == (1008, "404 Not Found")


def test_json_of_the_tutorials(app: Flask, chat: WSChat, server: LiveServer) -> None:
    """Text goes out as given: a JSON string that the view made is not quoted again."""

    @app.route("/vote")
    def vote() -> str:
        ws = request.environ.get("wsgi.websocket")
        assert ws is not None
        ws.send(json.dumps({"cid": int(ws.receive()), "count": 1}))
        return ""

    with server.connect("/vote") as client:
        client.send("2")
        assert json.loads(receive(client)) == {"cid": 2, "count": 1}
        with pytest.raises(ForeignClosed):
            receive(client)


# -- the head of a request


def converse(server: LiveServer, *parts: bytes) -> bytes:
    """Send ``parts`` and return all that comes back until the server closes."""
    with socket.create_connection(("127.0.0.1", server.port), DEADLINE) as sock:
        answer = b""
        try:
            for part in parts:
                sock.sendall(part)
            while data := sock.recv(65536):
                answer += data
        except ConnectionResetError:
            pass  # it had enough before we had said all
    return answer


def request_of(*lines: str, start: str = "GET /echo HTTP/1.1") -> bytes:
    return "\r\n".join([start, *lines, "", ""]).encode("latin-1")


FULL = [f"{name}: {value}" for name, value in UPGRADE.items()]


@pytest.mark.parametrize(
    ("request_head", "status"),
    [
        pytest.param(request_of(*FULL, FULL[0]), 400, id="two hosts"),
        pytest.param(request_of(*FULL[1:]), 400, id="no host"),
        pytest.param(request_of(*FULL, FULL[3]), 400, id="two keys"),
        pytest.param(request_of(*FULL, FULL[4]), 400, id="two versions"),
        pytest.param(request_of(*FULL[:4], "Sec-WebSocket-Version: 13, 8"), 400),
        pytest.param(request_of(*FULL, start="GET /echo HTTP/1.0"), 400, id="1.0"),
        pytest.param(request_of(*FULL, start="POST /echo HTTP/1.1"), 405, id="POST"),
        pytest.param(request_of(*FULL, "Content-Length: 9") + b"123456789", 400),
        pytest.param(request_of(*FULL, "Content-Length: x"), 400),
        pytest.param(request_of(*FULL, "Content-Length: -1"), 400),
        pytest.param(
            request_of(*FULL, "Transfer-Encoding: chunked") + b"0\r\n\r\n", 400
        ),
        pytest.param(request_of(*FULL, "no colon"), 400),
        pytest.param(request_of(*FULL, "Bad Name: x"), 400),
        pytest.param(request_of(*FULL, "Name : x"), 400),
        pytest.param(request_of(*FULL, "Name: \x00"), 400),
        pytest.param(request_of(*FULL, " folded"), 400),
        pytest.param(request_of(*FULL, "Name: a\nb"), 400),
        pytest.param(b"GET /echo HTTP/1.1\nHost: x\n\n", 400, id="LF"),
        pytest.param(b"nonsense\r\n\r\n", 400),
        pytest.param(b"GET /echo\r\n\r\n", 400, id="0.9"),
        pytest.param(b"GET /echo HTTP/3.0\r\nHost: x\r\n\r\n", 505),
        pytest.param(b"GET /echo HTTP/x.y\r\nHost: x\r\n\r\n", 400),
        pytest.param(b"\x16\x03\x01\x02\x00\x01\x00\r\n\r\n", 400, id="TLS"),
        pytest.param(request_of(*FULL, *["A: b"] * 200), 431, id="lines"),
        pytest.param(request_of(*FULL, "A: " + "b" * 70_000), 431, id="bytes"),
        pytest.param(
            request_of(*FULL, start=f"GET /{'a' * 8180} HTTP/1.1"), 414, id="target"
        ),
        pytest.param(b"\r\n" * 5 + request_of(*FULL), 400, id="empty lines"),
        pytest.param(
            request_of(*FULL, start="GET http://b/echo HTTP/1.1"), 101, id="absolute"
        ),
        pytest.param(request_of(*FULL, start="CONNECT b:80 HTTP/1.1"), 501),
        pytest.param(request_of(*FULL, start="OPTIONS * HTTP/1.1"), 404),
        pytest.param(request_of(*FULL, start="GET * HTTP/1.1"), 400),
        pytest.param(request_of("Host: a b", *FULL[1:]), 400, id="host"),
        pytest.param(request_of(*FULL, start="GET /%ff%00 HTTP/1.1"), 404),
        pytest.param(
            request_of(*FULL[:1], "Upgrade: x, websocket, y", *FULL[2:]), 101, id="list"
        ),
        pytest.param(
            request_of(*FULL[:1], "Upgrade: xwebsocket", *FULL[2:]), 426, id="token"
        ),
        pytest.param(request_of(*FULL[:2], "Connection: notupgrade", *FULL[3:]), 426),
    ],
)
def test_a_malformed_head_is_refused(
    chat: WSChat, server: LiveServer, request_head: bytes, status: int
) -> None:
    # Where the connection stays open, what follows is a request, and never frames.
    behind = request_of("Host: x", "Connection: close", start="GET /page HTTP/1.1")
    answer = converse(server, request_head, behind)
    assert int(answer.split()[1]) == status
    assert status == 101 or b"101 Switching" not in answer


@pytest.mark.parametrize("handler", ["ours", "ours on pywsgi"])
@pytest.mark.parametrize(
    "head",
    [
        pytest.param(request_of(*FULL, start="GET /environ HTTP/1.1"), id="plain"),
        pytest.param(
            request_of(
                *FULL,
                "X-Spaces:\t a  b \t",
                "x-latin: \xe9\xa0",
                "X_Under: 1",
                "Empty:",
                "Cookie: a=1; b=2",
                start="GET /environ?a=%20b&c HTTP/1.1",
            ),
            id="fields",
        ),
        pytest.param(
            request_of(*FULL, "Cookie: a=1", "Cookie: b=2", "X: 1", "x: 2").replace(
                b"/echo", b"/env%69ron"
            ),
            id="repeated",
        ),
    ],
)
def test_a_head_in_one_piece_makes_the_same_environ(
    app: Flask, chat: WSChat, any_server: LiveServer, head: bytes
) -> None:
    """In one piece it takes a shorter way through the server."""
    seen: list[dict[str, Any]] = []
    changing = ("REMOTE_PORT", "wsgi.input", "wschat.", "werkzeug.")

    @app.get("/environ")
    def environ() -> str:
        seen.append(
            {
                key: value
                for key, value in request.environ.items()
                if not key.startswith(changing) and key != "wsgi.websocket"
            }
        )
        return "a page"

    behind = request_of("Host: x", "Connection: close", start="GET /page HTTP/1.1")
    whole = converse(any_server, head + behind)
    parts = converse(any_server, *(bytes([byte]) for byte in head), behind)
    assert len(seen) == 2 and seen[0] == seen[1]
    assert whole.count(b"a page") == parts.count(b"a page") == 2


def test_an_opening_that_comes_after_its_connection_takes_the_short_way(
    chat: WSChat, server: LiveServer, monkeypatch: pytest.MonkeyPatch
) -> None:
    waiting = threading.Event()
    wait = WebSocketHandler._await_request

    def await_request(handler: WebSocketHandler, sock: Any) -> None:
        waiting.set()
        wait(handler, sock)

    def fail(handler: WebSocketHandler) -> None:
        raise AssertionError("the long way")

    monkeypatch.setattr(shortcuts, "SWITCH", True)
    monkeypatch.setattr(WebSocketHandler, "_await_request", await_request)
    monkeypatch.setattr(WebSocketHandler, "_read_head", fail)
    with socket.create_connection(("127.0.0.1", server.port), DEADLINE) as sock:
        assert waiting.wait(DEADLINE)
        sock.sendall(request_of(*FULL))
        assert sock.recv(100).startswith(b"HTTP/1.1 101 ")


def test_what_a_request_sets_is_not_seen_by_the_next(
    app: Flask, server: LiveServer
) -> None:
    """They may share a greenlet, not its context."""
    number = ContextVar("number", default=0)

    @app.get("/count")
    def count() -> str:
        number.set(number.get() + 1)
        return str(number.get())

    assert [http(server, "/count") for _ in range(3)] == ["1", "1", "1"]


def test_a_handler_that_has_its_own_environ_is_asked_for_it(
    app: Flask, chat: WSChat, serve: Serve, monkeypatch: pytest.MonkeyPatch
) -> None:
    class Handler(WebSocketHandler):
        def get_environ(self) -> Any:
            return super().get_environ() | {"own": "yes"}

    @app.get("/own")
    def own() -> str:
        return str(request.environ.get("own"))

    for server_class in (Server, WSGIServer):
        monkeypatch.setitem(HANDLERS, "own", (Handler, server_class))
        server = serve(app, "own")
        head = request_of(*FULL, start="GET /own HTTP/1.1")
        behind = request_of("Host: x", "Connection: close", start="GET /own HTTP/1.1")
        assert converse(server, head + behind).count(b"yes") == 2
        with server.connect("/echo") as client:
            client.send("x")
            assert receive(client) == "x"


def test_a_head_in_pieces_and_keep_alive(chat: WSChat, server: LiveServer) -> None:
    page = request_of("Host: x", start="GET /page HTTP/1.1")
    last = request_of("Host: x", "Connection: close", start="GET /page HTTP/1.1")
    pieces = [bytes([byte]) for byte in page]
    answer = converse(server, *pieces, b"\r\n" + page + page, last)
    assert answer.count(b"200 OK") == 4
    assert answer.endswith(b"a page")


def test_a_head_has_limited_time(app: Flask, serve: Serve) -> None:
    app.config["WSCHAT_HANDSHAKE_TIMEOUT"] = 0.2
    WSChat(app).route("/")(lambda ws: None)
    server = serve(app)
    assert b" 408 " in converse(server, b"GET / HTTP/1.1\r\nHost: x\r\n")
    assert converse(server) == b""
    # Who is done in time has all the time.
    with server.connect("/"):
        pass


def test_an_error_in_the_log_is_never_the_clients(
    chat: WSChat, server: LiveServer
) -> None:
    for junk in (b"", b"\r\n", b"GET", b"GET / HTTP/1.1\r\nHost: x", b"\x00" * 100):
        with socket.create_connection(("127.0.0.1", server.port), DEADLINE) as sock:
            sock.sendall(junk)
        with RawClient(server) as client:
            client.socket.sendall(junk)
            client.reset()
    assert http(server, "/page") == "a page"


# -- compression


@pytest.mark.parametrize("path", ["/echo", "/room"])
def test_messages_are_compressed_where_agreed(
    chat: WSChat, server: LiveServer, path: str
) -> None:
    text, noise = "again and " * 10_000, bytes(range(256)) * 400
    with (
        server.connect(path, compression="deflate") as client,
        server.connect(path) as plain,
    ):
        assert client.response is not None and plain.response is not None
        agreed = client.response.headers["Sec-WebSocket-Extensions"]
        assert agreed.startswith("permessage-deflate; server_no_context_takeover")
        assert "Sec-WebSocket-Extensions" not in plain.response.headers
        for message in (text, noise, "short"):
            client.send(message)
            assert receive(client) == message
            if path == "/room":
                assert receive(plain) == message


def test_compression_can_be_switched_off(app: Flask, serve: Serve) -> None:
    app.config["WSCHAT_COMPRESSION"] = False
    WSChat(app).route("/")(lambda ws: None)
    with serve(app).connect("/", compression="deflate") as client:
        assert client.response is not None
        assert "Sec-WebSocket-Extensions" not in client.response.headers


def test_a_malformed_offer_of_extensions_is_refused(
    chat: WSChat, server: LiveServer
) -> None:
    offer = "permessage-deflate; a=="
    assert ask(server, "/echo", Sec_WebSocket_Extensions=offer)[0] == 400


def test_a_bomb_ends_with_1009(app: Flask, serve: Serve) -> None:
    app.config["WSCHAT_MAX_MESSAGE"] = 1 << 20
    WSChat(app).route("/")(lambda ws: ws.receive())
    server = serve(app)
    with server.connect("/", compression="deflate") as client:
        client.send(b"\0" * (1 << 25))
        assert closed(client)[0] == 1009


def test_the_legacy_object_of_a_client_that_is_gone(app: Flask) -> None:
    """It reset the connection while its request was on the way to the view."""
    from geventwebsocket.exceptions import WebSocketError

    from flask_wschat.opening.legacy import LegacyWebSocket
    from flask_wschat.servers.offers import ClientLeft
    from flask_wschat.transports.memory import InlineLoop

    def gone() -> WebSocket:
        raise ClientLeft

    ws = LegacyWebSocket({}, None, gone, InlineLoop())
    assert not ws.closed and not ws.accepted
    assert ws.receive() is None and ws.receive() is None
    with pytest.raises(WebSocketError, match="already closed"):
        ws.send("x")
    ws.close()
    assert ws.closed and not ws.accepted


# -- servers' limits, and their end


def test_a_server_without_a_socket_gets_a_501_that_names_others(
    app: Flask, chat: WSChat
) -> None:
    reply = app.test_client().get("/echo", headers=UPGRADE)
    assert reply.status_code == 501
    assert "chat.run(app)" in reply.text
    # Its plain HTTP is not disturbed.
    assert app.test_client().get("/page").text == "a page"
    assert app.test_client().get("/echo").status_code == 426


def test_threads_running_out_are_warned_of(
    app: Flask, chat: WSChat, caplog: pytest.LogCaptureFixture
) -> None:
    """The count is of views under way: the same that gunicorn's threads are."""
    from flask_wschat.testing import WSChatClient

    client = WSChatClient(app)
    gate = app.wsgi_app.__self__.gate  # type: ignore[attr-defined]
    for _ in range(2):
        gate.count_thread(10, 1)
    with client.connect("/listen"), client.connect("/listen"):
        assert caplog.text == ""
    for _ in range(6):
        gate.count_thread(10, 1)
    assert "8 of this worker's 10 threads" in caplog.text
    assert "--threads" in caplog.text
    gate.count_thread(10, 1)
    for change in (-1, -1, 1, -1, 1):  # as where many come at once
        gate.count_thread(10, change)
    assert caplog.text.count("threads are held") == 1


def test_a_shutdown_waits_for_openings_and_lets_nobody_else_in(
    app: Flask, chat: WSChat, server: LiveServer
) -> None:
    """One that was answered 101 is no connection of the hub's before a while."""
    hub = chat._hub()
    opening = object()
    hub.closing.under_way.add(opening)
    shutdown = threading.Thread(target=hub.shutdown, args=(DEADLINE,))
    with server.connect("/listen") as first:
        eventually(hub.count)
        shutdown.start()
        assert closed(first) == (1012, "service restart")
        status, answer = ask(server, "/listen")
        assert (status, b"Retry-After: 2" in answer) == (503, True)
        assert shutdown.is_alive()
        hub.closing.under_way.discard(opening)
        shutdown.join(DEADLINE)
    assert not shutdown.is_alive()
    with server.connect("/listen"):
        eventually(hub.count)


def test_a_shutdown_says_goodbye_to_everyone(
    app: Flask, chat: WSChat, any_server: LiveServer
) -> None:
    with any_server.connect("/echo") as view, any_server.connect("/listen") as listener:
        eventually(lambda: chat._hub().count() == 2)
        chat._hub().shutdown(DEADLINE)
        assert closed(view) == (1012, "service restart")
        assert closed(listener) == (1012, "service restart")
        assert chat._hub().count() == 0
