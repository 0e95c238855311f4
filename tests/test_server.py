"""Handshakes, bytes and dying peers on live servers: raw sockets, foreign clients."""

from __future__ import annotations

import json
import socket
import struct
import threading
import urllib.request
from collections.abc import Iterator
from typing import Any

import gevent
import pytest
from flask import Flask, abort, request
from websockets.exceptions import ConnectionClosed as ForeignClosed
from websockets.exceptions import InvalidStatus

from flask_wschat import Listener, WebSocket, WSChat
from flask_wschat.codec import ClientHandshake, Connection, Event

from .conftest import DEADLINE, LiveServer, Serve, eventually
from .test_extension import closed, receive

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


class RawClient:
    """A socket and our codec: for what a well-behaved client does not do."""

    def __init__(self, server: LiveServer, **options: Any) -> None:
        self.socket = socket.create_connection(("127.0.0.1", server.port), DEADLINE)
        for name, value in options.items():
            self.socket.setsockopt(socket.SOL_SOCKET, getattr(socket, name), value)
        self.connection = Connection(client=True, max_message=1 << 30)

    def open(self, path: str, behind: bytes = b"") -> RawClient:
        """Handshake; ``behind`` is sent in the same segment as the request."""
        handshake = ClientHandshake("127.0.0.1", path)
        self.socket.sendall(handshake.request() + behind)
        data = b""
        while (size := handshake.receive_data(data)) is None:
            data += self.socket.recv(65536)
        self.first = self.connection.receive_data(data[size:])
        return self

    def events(self) -> Iterator[Event]:
        """Yield what arrives, until the server ends the stream."""
        yield from self.first
        while data := self.socket.recv(65536):
            yield from self.connection.receive_data(data)

    def reset(self) -> None:
        """Vanish with a reset, as a killed process does."""
        linger = struct.pack("ii", 1, 0)
        self.socket.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, linger)
        self.socket.close()

    def __enter__(self) -> RawClient:
        return self

    def __exit__(self, *error: object) -> None:
        self.socket.close()


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


def test_a_burst_that_never_yields_is_not_taken_for_a_slow_reader(
    app: Flask, chat: WSChat, server: LiveServer
) -> None:
    """A view may publish megabytes in one go: what the peer can take leaves at once."""

    @app.get("/burst")
    def burst() -> str:
        for number in range(1500):
            chat.broadcast(str(number) + "x" * 1000, room="room")
        return "done"

    with server.connect("/room", max_queue=None) as client:
        eventually(lambda: chat._hub().count() == 1)
        assert http(server, "/burst") == "done"
        for number in range(1500):
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
        assert closed(client) == (1008, "")


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
