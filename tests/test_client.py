"""The client on real sockets: our server, a foreign one, and some that misbehave."""

from __future__ import annotations

import os
import re
import shutil
import socket
import ssl
import struct
import subprocess
import sys
import threading
import time
import tracemalloc
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import gevent.ssl
import pytest
import websockets.sync.server
from flask import Flask, Response, abort, redirect, request
from websockets.exceptions import ConnectionClosed as ForeignClosed
from websockets.sync.server import ServerConnection

import flask_wschat.client.client
from flask_wschat import ConnectionClosed, HandshakeError, WebSocket, WSChat
from flask_wschat.client import Client, connect
from flask_wschat.codec import (
    Closed,
    Connection,
    Deflate,
    accept_headers,
    check_request,
    encode_frame,
    explain,
    read_head,
    response,
)
from tests.support.live import LiveServer, Serve
from tests.support.waiting import DEADLINE, eventually

MEGABYTE = 1 << 20

Script = Callable[[socket.socket], None]
Peer = Callable[[Script], str]


@pytest.fixture
def chat(chat: WSChat) -> WSChat:
    @chat.route("/echo")
    def echo(ws: WebSocket) -> None:
        for message in ws:
            ws.send(message)

    @chat.route("/about", subprotocols=["v2", "v1"])
    def about(ws: WebSocket) -> None:
        names = ("Authorization", "Cookie", "X-Name", "Host")
        ws.send_json({name: request.headers.get(name) for name in names})
        ws.send_json(request.args)

    @chat.route("/count/<int:code>")
    def count(ws: WebSocket, code: int) -> None:
        for number in "123":
            ws.send(number)
        ws.close(code, "that is all")

    @chat.route("/forbidden")
    def forbidden(ws: WebSocket) -> None:
        raise AssertionError("nobody comes here")

    @chat.authenticate
    def who() -> None:
        if request.path == "/forbidden":
            abort(403)
        if request.path == "/full":
            abort(Response("come <b>later</b>", 503, {"Retry-After": "7"}))

    return chat


@pytest.fixture
def server(app: Flask, chat: WSChat, serve: Serve) -> LiveServer:
    chat.route("/full")(lambda ws: None)
    app.add_url_rule("/old", "old", lambda: redirect("/echo"), websocket=True)
    return serve(app)


@pytest.fixture
def foreign() -> Iterator[Callable[..., str]]:
    """Start a foreign server with a handler; returns its address."""
    servers = []

    def start(handler: Callable[[ServerConnection], None], **options: Any) -> str:
        server = websockets.sync.server.serve(
            handler, "127.0.0.1", 0, max_size=None, close_timeout=1, **options
        )
        thread = threading.Thread(target=server.serve_forever, daemon=True)
        thread.start()
        servers.append((server, thread))
        scheme = "wss" if "ssl" in options else "ws"
        return f"{scheme}://127.0.0.1:{server.socket.getsockname()[1]}/"

    yield start
    for server, thread in servers:
        server.shutdown()
        thread.join(DEADLINE)


@pytest.fixture
def peer() -> Iterator[Peer]:
    """Start a server that does what a script says with its one connection.

    What goes wrong in the script fails the test.
    """
    threads, faults = [], []

    def start(script: Script) -> str:
        listener = socket.create_server(("127.0.0.1", 0))
        listener.settimeout(DEADLINE)

        def run() -> None:
            try:
                with listener, listener.accept()[0] as sock:
                    sock.settimeout(DEADLINE)
                    script(sock)
            except BaseException as fault:
                faults.append(fault)

        thread = threading.Thread(target=run, daemon=True)
        thread.start()
        threads.append(thread)
        return f"ws://127.0.0.1:{listener.getsockname()[1]}/"

    yield start
    for thread in threads:
        thread.join(DEADLINE)
        assert not thread.is_alive()
    assert faults == []


def read_request(sock: socket.socket) -> str:
    """Return the key of the client's handshake."""
    data = b""
    while (found := read_head(data)) is None:
        data += sock.recv(4096)
    return check_request("GET", "HTTP/1.1", found[0].headers)


def accept(sock: socket.socket, more: bytes = b"") -> None:
    """Answer the handshake; ``more`` is sent along with it."""
    sock.sendall(response(101, accept_headers(read_request(sock))) + more)


def read_end(sock: socket.socket, connection: Connection | None = None) -> Closed:
    """Return the client's close, read to the end of TCP."""
    connection = connection or Connection(max_message=1 << 30)
    events = []
    while data := sock.recv(65536):
        events += connection.receive_data(data)
    closed = (events + connection.receive_eof())[-1]
    assert isinstance(closed, Closed)
    return closed


def peeked(sock: socket.socket) -> bytes:
    """Return what can be read, and leave it there."""
    try:
        return sock.recv(1 << 16, socket.MSG_PEEK)
    except BlockingIOError:
        return b""


def reset(sock: socket.socket) -> None:
    """Drop the connection without a word."""
    sock.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))


@pytest.fixture(params=["ours", "foreign"])
def echo_url(request: pytest.FixtureRequest) -> str:
    """An echo, on our server and on a foreign one."""
    if request.param == "ours":
        server: LiveServer = request.getfixturevalue("server")
        return server.url("/echo")

    def echo(ws: ServerConnection) -> None:
        for message in ws:
            ws.send(message)

    start: Callable[..., str] = request.getfixturevalue("foreign")
    return start(echo)


class TestTalking:
    @pytest.mark.parametrize("compression", [True, False])
    def test_messages_come_back(self, echo_url: str, compression: bool) -> None:
        with connect(echo_url, compression=compression) as ws:
            for message in ("", "höi 😀", b"", b"\x00\xff", "x" * 70_000, b"y" * 130):
                ws.send(message)
                assert ws.receive(DEADLINE) == message
        assert (ws.closed, ws.close_code, ws.close_reason) == (True, 1000, "")

    def test_compression_is_agreed_on(self, echo_url: str) -> None:
        seen = []
        with connect(echo_url, on_bytes=lambda *part: seen.append(part)) as ws:
            assert "permessage-deflate" in dict(ws.response_headers).get(
                "sec-websocket-extensions", ""
            )
            ws.send("x" * 70_000)
            assert ws.receive(DEADLINE) == "x" * 70_000
        for direction in ("sent", "received"):
            frame = explain(b"".join(data for way, data in seen if way == direction))
            assert frame.rsv[0]
            assert frame.length < 1000

    def test_what_goes_over_the_wire_can_be_watched(self, echo_url: str) -> None:
        wire = {"sent": bytearray(), "received": bytearray()}

        def watch(direction: str, data: bytes) -> None:
            wire[direction] += data

        with connect(echo_url, compression=False, on_bytes=watch) as ws:
            ws.send("hello")
            ws.receive(DEADLINE)
        server, client = Connection(), Connection(client=True)
        assert server.receive_data(bytes(wire["sent"])) == ["hello", Closed(1000, "")]
        assert client.receive_data(bytes(wire["received"]))[0] == "hello"

    def test_iteration_ends_with_the_connection(self, server: LiveServer) -> None:
        with connect(server.url("/count/4001")) as ws:
            assert list(ws) == ["1", "2", "3"]
            assert (ws.closed, ws.close_code) == (True, 4001)
            assert ws.close_reason == "that is all"
            for use in (ws.receive, lambda: ws.send(""), ws.ping):
                with pytest.raises(ConnectionClosed) as caught:
                    use()
                assert (caught.value.code, caught.value.reason) == (4001, "that is all")

    def test_the_request_says_what_it_was_told(self, server: LiveServer) -> None:
        url = server.url("/about?q=%20ü&r=a+b").replace("//", "//Ada:s%40fe@")
        with connect(
            url, headers={"Cookie": "a=b", "X-Name": "Ada"}, subprotocols=["v1", "v2"]
        ) as ws:
            assert ws.subprotocol == "v2"
            about = ws.receive(DEADLINE)
            assert '"Basic QWRhOnNAZmU="' in str(about)  # Ada:s@fe
            assert '"a=b"' in str(about)
            assert f'"127.0.0.1:{server.port}"' in str(about)
            assert ws.receive(DEADLINE) in (
                '{"q":" \\u00fc","r":"a b"}',
                '{"q": " \\u00fc", "r": "a b"}',
            )
        assert ("upgrade", "websocket") in ws.response_headers

    def test_a_header_of_ones_own_beats_the_url(self, server: LiveServer) -> None:
        url = server.url("/about").replace("//", "//Ada:secret@")
        with connect(url, headers=[("authorization", "Bearer x")]) as ws:
            assert "Bearer x" in str(ws.receive(DEADLINE))
            assert ws.subprotocol is None

    def test_what_comes_with_the_101_is_not_lost(self, peer: Peer) -> None:
        def script(sock: socket.socket) -> None:
            accept(sock, encode_frame(1, b"early") + encode_frame(8, b"\x03\xe8"))
            assert read_end(sock) == Closed(1000, "")

        with connect(peer(script)) as ws:
            assert ws.closed
            assert ws.receive() == "early"
            with pytest.raises(ConnectionClosed, match="1000"):
                ws.receive()

    def test_other_types_are_refused(self, echo_url: str) -> None:
        with connect(echo_url) as ws:
            with pytest.raises(TypeError, match="not dict"):
                ws.send({})  # type: ignore[arg-type]
            with pytest.raises(UnicodeEncodeError):
                ws.send("\ud800")
            ws.send("fine")
            assert ws.receive(DEADLINE) == "fine"


class TestWaiting:
    def test_a_timeout_loses_nothing(self, peer: Peer) -> None:
        frame = encode_frame(1, b"in three parts", fin=False) + encode_frame(0, b"!")
        go_on = threading.Event()

        def script(sock: socket.socket) -> None:
            accept(sock, frame[:1])
            for part in (frame[1:9], frame[9:]):
                assert go_on.wait(DEADLINE)
                go_on.clear()
                sock.sendall(part)
            read_end(sock)

        ws = connect(peer(script))
        for _ in range(2):
            with pytest.raises(TimeoutError, match=r"within 0\.05 s"):
                ws.receive(0.05)
            go_on.set()
        assert ws.receive(DEADLINE) == "in three parts!"
        assert ws.close(timeout=0.05) is False  # the script says nothing

    def test_traffic_without_messages_does_not_stretch_it(self, peer: Peer) -> None:
        done = threading.Event()

        def script(sock: socket.socket) -> None:
            accept(sock)
            while not done.is_set():
                sock.sendall(encode_frame(10, b"unasked") * 100)
            sock.sendall(encode_frame(8, b""))
            read_end(sock)

        with connect(peer(script)) as ws:
            start = time.monotonic()
            with pytest.raises(TimeoutError):
                ws.receive(0.1)
            assert time.monotonic() - start < 1
            done.set()
            assert list(ws) == []
            assert ws.close_code == 1005

    def test_select_and_receive(self, server: LiveServer) -> None:
        import select

        with connect(server.url("/echo")) as ws:
            with pytest.raises(TimeoutError):
                ws.receive(timeout=0)
            ws.send("hello")
            assert select.select([ws], [], [], DEADLINE)[0] == [ws]
            assert ws.receive(timeout=0) == "hello"

    def test_neither_waits_for_the_other_to_read(self, peer: Peer) -> None:
        big = bytes(16 * MEGABYTE)

        def script(sock: socket.socket) -> None:
            accept(sock, encode_frame(9, b"answer me"))
            sock.sendall(encode_frame(2, big))  # and only then is anything read
            connection = Connection(max_message=len(big))
            events: list[object] = []
            while big not in events:
                events += connection.receive_data(sock.recv(65536))
            assert events[-1] == big
            sock.sendall(connection.close())
            assert read_end(sock, connection) == Closed(1000, "")

        with connect(peer(script), max_message=len(big)) as ws:
            ws.send(big)
            assert ws.receive(DEADLINE) == big
            assert list(ws) == []
        assert ws.close_code == 1000

    def test_a_server_that_takes_nothing_is_left(self, peer: Peer) -> None:
        done = threading.Event()

        def script(sock: socket.socket) -> None:
            accept(sock)
            assert done.wait(DEADLINE)

        with connect(peer(script), timeout=0.2) as ws:
            with pytest.raises(ConnectionClosed, match=r"1006.*took nothing"):
                ws.send(bytes(64 * MEGABYTE))
            assert ws.closed
        done.set()

    def test_unread_messages_are_bounded(
        self, peer: Peer, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        monkeypatch.setattr(flask_wschat.client.client, "READ_AHEAD", MEGABYTE)
        sent = 0

        def script(sock: socket.socket) -> None:
            nonlocal sent
            accept(sock)
            sock.settimeout(0.3)
            with pytest.raises(TimeoutError):
                while sent < 64 * MEGABYTE:
                    sent += sock.send(encode_frame(2, bytes(1014)) * 64)
            sock.settimeout(DEADLINE)

        ws = connect(peer(script))
        with pytest.raises((TimeoutError, ConnectionClosed)):
            ws.ping(timeout=1)
        assert 0 < sum(1 for _ in ws._messages) * 1014 < 2 * MEGABYTE
        ws.close(timeout=0)

    def test_what_was_read_inflates_as_it_is_received(self, peer: Peer) -> None:
        zeros, count = bytes(MEGABYTE), 50
        small = Connection(deflate=Deflate(15, 15)).send(zeros)
        sent = small * count + encode_frame(1, b"last")
        agreed = "permessage-deflate; server_no_context_takeover"

        def script(sock: socket.socket) -> None:
            key = read_request(sock)
            sock.sendall(response(101, accept_headers(key, extension=agreed)))
            assert sock.recv(1 << 16)  # "go"
            sock.sendall(sent)
            read_end(sock)

        with connect(peer(script)) as ws:
            ws.send("go")
            with socket.socket(fileno=os.dup(ws.fileno())) as here:
                eventually(lambda: len(peeked(here)) == len(sent))
            tracemalloc.start()
            assert ws.receive() == zeros
            peak = tracemalloc.get_traced_memory()[1]
            tracemalloc.stop()
            assert peak < 8 * MEGABYTE
            # Of the others `fileno` tells nothing, so they come without waiting.
            assert all(ws.receive(timeout=0) == zeros for _ in range(count - 1))
            assert ws.receive(timeout=0) == "last"
            ws.close(timeout=0)


class TestPings:
    def test_the_round_trip_is_measured(self, echo_url: str) -> None:
        with connect(echo_url) as ws:
            ws.send("kept")
            assert 0 < ws.ping() < DEADLINE
            assert 0 < ws.ping(b"x" * 125) < DEADLINE
            assert ws.receive(DEADLINE) == "kept"
            with pytest.raises(ValueError, match="126"):
                ws.ping(b"x" * 126)

    def test_a_pong_may_not_come(self, peer: Peer) -> None:
        def script(sock: socket.socket) -> None:
            accept(sock)
            sock.sendall(encode_frame(10, b"another") + encode_frame(1, b"message"))
            read_end(sock)

        ws = connect(peer(script))
        with pytest.raises(TimeoutError, match="no pong"):
            ws.ping(b"one", timeout=0.1)
        assert ws.receive() == "message"
        ws.close(timeout=0)

    def test_the_end_may_come_instead(self, peer: Peer) -> None:
        def script(sock: socket.socket) -> None:
            accept(sock)
            assert sock.recv(1)
            sock.sendall(encode_frame(8, b"\x03\xe9"))
            read_end(sock)

        ws = connect(peer(script))
        with pytest.raises(ConnectionClosed, match="1001"):
            ws.ping()

    @pytest.mark.parametrize("act", ["receive", "send"])
    def test_the_servers_are_answered(
        self, foreign: Callable[..., str], act: str
    ) -> None:
        answered = threading.Event()

        def handler(ws: ServerConnection) -> None:
            pong = ws.ping("there?")
            for _ in ws:
                if pong.wait(0) and not answered.is_set():
                    ws.send("yes")
                    answered.set()

        with connect(foreign(handler)) as ws:
            until = time.monotonic() + DEADLINE
            while not answered.is_set() and time.monotonic() < until:
                ws.send("a message")
                if act == "receive":
                    try:
                        assert ws.receive(0.01) == "yes"
                    except TimeoutError:
                        continue
            assert answered.is_set()


class TestTheEnd:
    def test_the_server_learns_why(self, foreign: Callable[..., str]) -> None:
        ends: list[tuple[int, str]] = []

        def handler(ws: ServerConnection) -> None:
            with pytest.raises(ForeignClosed):
                ws.recv(DEADLINE)
            assert ws.protocol.close_rcvd is not None
            ends.append((ws.protocol.close_rcvd.code, ws.protocol.close_rcvd.reason))

        url = foreign(handler)
        ws = connect(url)
        assert ws.close(4001, "enough") is True
        assert ws.close() is True  # again does nothing
        assert (ws.closed, ws.close_code, ws.close_reason) == (True, 4001, "enough")
        with pytest.raises(KeyError), connect(url):
            raise KeyError
        with connect(url):
            pass
        eventually(lambda: len(ends) == 3)
        assert set(ends) == {(4001, "enough"), (1011, ""), (1000, "")}

    def test_a_code_must_be_sendable(self, echo_url: str) -> None:
        with connect(echo_url) as ws:
            with pytest.raises(ValueError, match="1005"):
                ws.close(1005)
            assert not ws.closed
            ws.send("still open")
            assert ws.receive(DEADLINE) == "still open"

    def test_a_server_may_not_answer(self, peer: Peer) -> None:
        def script(sock: socket.socket) -> None:
            accept(sock)
            assert read_end(sock) == Closed(1000, "")

        start = time.monotonic()
        ws = connect(peer(script), timeout=0.1)
        assert ws.close() is False
        assert time.monotonic() - start < 1
        assert ws.close_code == 1000

    def test_a_server_may_talk_on_while_we_close(self, peer: Peer) -> None:
        def script(sock: socket.socket) -> None:
            accept(sock)
            sock.sendall(encode_frame(2, bytes(MEGABYTE)) * 8)
            connection = Connection()
            while not connection.receive_data(sock.recv(65536)):
                pass
            sock.sendall(encode_frame(1, b"more") + connection.data_to_send())

        ws = connect(peer(script))
        assert ws.close() is True

    @pytest.mark.parametrize("answer", [b"", b"half a fr"], ids=["silent", "within"])
    def test_tcp_may_end_first(self, peer: Peer, answer: bytes) -> None:
        def script(sock: socket.socket) -> None:
            accept(sock, encode_frame(1, b"last words") + b"\x81\x7d"[: len(answer)])
            sock.sendall(answer)

        with connect(peer(script)) as ws:
            assert ws.receive(DEADLINE) == "last words"
            with pytest.raises(ConnectionClosed, match="1006"):
                ws.receive(DEADLINE)
            assert ws.close_code == 1006
            assert ws.close() is False

    def test_a_reset_is_an_end(self, peer: Peer) -> None:
        def script(sock: socket.socket) -> None:
            accept(sock)
            assert sock.recv(1)
            reset(sock)

        with connect(peer(script)) as ws:
            with pytest.raises(ConnectionClosed, match="1006"):
                while True:
                    ws.send(bytes(MEGABYTE))
            assert ws.closed

    def test_one_who_only_sends_learns_of_a_close(self, peer: Peer) -> None:
        def script(sock: socket.socket) -> None:
            accept(sock, encode_frame(8, b"\x0f\xa1bye"))
            assert read_end(sock) == Closed(4001, "")

        with connect(peer(script)) as ws, pytest.raises(ConnectionClosed, match="bye"):
            while True:
                ws.send("a message")

    @pytest.mark.parametrize(
        ("frames", "code"),
        [
            pytest.param(encode_frame(1, b"x", mask=b"1234"), 1002, id="masked"),
            pytest.param(b"\xf1\x00", 1002, id="reserved-bits"),
            pytest.param(b"\x00\x00", 1002, id="continuation-first"),
            pytest.param(encode_frame(1, b"\xff"), 1007, id="not-utf-8"),
            pytest.param(encode_frame(2, bytes(1025)), 1009, id="too-big"),
        ],
    )
    def test_faults_of_the_server_end_it(
        self, peer: Peer, frames: bytes, code: int
    ) -> None:
        def script(sock: socket.socket) -> None:
            accept(sock)
            sock.sendall(encode_frame(1, b"fine so far") + frames)
            sock.sendall(bytes(MEGABYTE))  # and on it talks
            assert read_end(sock).code == code

        with connect(peer(script), max_message=1024) as ws:
            assert ws.receive(DEADLINE) == "fine so far"
            with pytest.raises(ConnectionClosed) as caught:
                ws.receive(DEADLINE)
            assert caught.value.code == ws.close_code == code


class TestRefusals:
    @pytest.mark.parametrize(
        ("path", "status", "says"),
        [
            ("/forbidden", 403, "403 FORBIDDEN: Forbidden You don't have the perm"),
            ("/nowhere", 404, "404 NOT FOUND"),
            ("/old", 302, "redirects to /echo"),
            ("/full", 503, "come later"),
        ],
    )
    def test_refusals_say_why(
        self, server: LiveServer, path: str, status: int, says: str
    ) -> None:
        with pytest.raises(HandshakeError, match=re.escape(says)) as caught:
            connect(server.url(path))
        assert caught.value.status == status
        assert "<" not in str(caught.value)
        if path == "/full":
            assert ("retry-after", "7") in caught.value.headers

    @pytest.mark.parametrize(
        ("answer", "status", "says"),
        [
            pytest.param(b"SSH-2.0-OpenSSH\r\n", 502, "not HTTP", id="ssh"),
            pytest.param(b"\x15\x03\x01\x00\x02\x02", 502, "not HTTP", id="tls"),
            pytest.param(b"HT", 502, "hung up", id="half"),
            pytest.param(b"", 502, "hung up", id="nothing"),
            pytest.param(b"HTTP/1.1 403 No\r\n\r\n", 403, "403 No", id="bare"),
            pytest.param(
                b"HTTP/1.1 403 No\r\nContent-Length: 9\r\n\r\nhalf",
                403,
                "403 No",
                id="half-a-body",
            ),
            pytest.param(
                b"HTTP/1.1 403 No\r\nContent-Length: 999\r\n\r\n" + b"word " * 200,
                403,
                "word …",
                id="long",
            ),
            pytest.param(
                response(101, accept_headers("dGhlIHNhbXBsZSBub25jZQ==")),
                502,
                "Sec-WebSocket-Accept",
                id="wrong-accept",
            ),
            pytest.param(b"HTTP/1.0 200 OK\r\n\r\n", 502, "HTTP/1.1", id="1.0"),
            pytest.param(b"HTTP/1.1 200 OK\r\n\r\n", 200, "200 OK", id="200"),
        ],
    )
    def test_strange_answers(
        self, peer: Peer, answer: bytes, status: int, says: str
    ) -> None:
        def script(sock: socket.socket) -> None:
            read_request(sock)
            sock.sendall(answer)

        with pytest.raises(HandshakeError, match=says) as caught:
            connect(peer(script))
        assert caught.value.status == status
        assert len(str(caught.value)) < 400

    @pytest.mark.parametrize(
        "extra",
        [("Sec-WebSocket-Protocol", "odd"), ("Sec-WebSocket-Extensions", "odd")],
        ids=["subprotocol", "extension"],
    )
    def test_answers_to_what_was_not_asked(
        self, peer: Peer, extra: tuple[str, str]
    ) -> None:
        def script(sock: socket.socket) -> None:
            headers = [*accept_headers(read_request(sock)), extra]
            sock.sendall(response(101, headers))

        with pytest.raises(HandshakeError, match="not offered"):
            connect(peer(script), subprotocols=["even"])

    @pytest.mark.parametrize("drip", [b"", b"HTTP/1.1 403 "], ids=["silent", "slow"])
    def test_an_answer_must_come_in_time(self, peer: Peer, drip: bytes) -> None:
        gone = threading.Event()

        def script(sock: socket.socket) -> None:
            read_request(sock)
            sock.sendall(drip)
            try:
                while drip and not gone.wait(0.02):
                    sock.sendall(b"x")
            except OSError:  # the client had enough
                pass
            assert gone.wait(DEADLINE)

        url = peer(script)
        start = time.monotonic()
        with pytest.raises(TimeoutError):
            connect(url, timeout=0.2)
        assert time.monotonic() - start < 1
        gone.set()

    def test_a_body_may_be_slow(self, peer: Peer) -> None:
        def script(sock: socket.socket) -> None:
            read_request(sock)
            sock.sendall(b"HTTP/1.1 403 No\r\nContent-Length: 5\r\n\r\nwh")
            sock.sendall(b"y?!")

        with pytest.raises(HandshakeError, match="403 No: why"):
            connect(peer(script))

    def test_nobody_is_there(self) -> None:
        with socket.create_server(("127.0.0.1", 0)) as listener:
            port = listener.getsockname()[1]
        with pytest.raises(ConnectionRefusedError):
            connect(f"ws://127.0.0.1:{port}/")


class TestArguments:
    @pytest.mark.parametrize(
        ("url", "says"),
        [
            ("http://example.org/", "its scheme is http"),
            ("example.org/chat", "its scheme is missing"),
            ("", "its scheme is missing"),
            ("ws:///chat", "the host is missing"),
            ("ws://example.org:99999/", "[Pp]ort"),
            ("ws://example.org:x/", "[Pp]ort"),
            ("ws://example.org:0/", "port 0"),
            ("ws://example.org/#part", "fragment"),
            ("ws://example.org/a b", "spaces"),
            ("ws://example.org/\r\nX: y", "control characters"),
            ("ws://[::1/", "IPv6"),
            ("ws://" + "a" * 64 + "/", "label"),
        ],
    )
    def test_bad_urls(self, url: str, says: str) -> None:
        with pytest.raises(ValueError, match=says) as caught:
            connect(url)
        assert "ws://host[:port]/path or wss://… is expected" in str(caught.value)

    @pytest.mark.parametrize(
        ("options", "says"),
        [
            ({"headers": {"X-Evil": "a\r\nb: c"}}, "not a legal header"),
            ({"headers": {"Sec-WebSocket-Protocol": "a"}}, "by the handshake itself"),
            ({"headers": [("host", "a")]}, "by the handshake itself"),
            ({"subprotocols": ["a b"]}, "tokens"),
            ({"ssl_context": ssl.create_default_context()}, "for wss://"),
        ],
    )
    def test_bad_options(self, options: dict[str, Any], says: str) -> None:
        with pytest.raises(ValueError, match=says):
            connect("ws://127.0.0.1:1/", **options)

    def test_passwords_are_not_told(self) -> None:
        with pytest.raises(ValueError, match=r"ws://…@") as caught:
            connect("ws://Ada:secret@example.org:x/")
        assert "secret" not in str(caught.value)

    @pytest.mark.skipif(not socket.has_ipv6, reason="no IPv6 here")
    def test_ipv6(self) -> None:
        try:
            listener = socket.create_server(("::1", 0), family=socket.AF_INET6)
        except OSError as error:
            pytest.skip(f"no IPv6 here: {error}")
        heads = []

        def run() -> None:
            with listener.accept()[0] as sock:
                heads.append(sock.recv(4096))

        thread = threading.Thread(target=run, daemon=True)
        thread.start()
        port = listener.getsockname()[1]
        with listener, pytest.raises(HandshakeError, match="hung up"):
            connect(f"ws://[::1]:{port}/x")
        thread.join(DEADLINE)
        assert f"\r\nHost: [::1]:{port}\r\n".encode() in heads[0]


@pytest.fixture(scope="module")
def certificate(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A file with a key and a certificate for 127.0.0.1, made by openssl."""
    if shutil.which("openssl") is None:
        pytest.fail("the TLS tests need the openssl program: install it")
    folder = tmp_path_factory.mktemp("tls")
    made = subprocess.run(
        "openssl req -x509 -newkey ec -pkeyopt ec_paramgen_curve:prime256v1 -nodes"
        " -keyout key.pem -out certificate.pem -days 2 -subj /CN=test"
        " -addext subjectAltName=IP:127.0.0.1",
        shell=True,
        cwd=folder,
        capture_output=True,
        text=True,
    )
    assert made.returncode == 0, made.stderr
    return folder / "certificate.pem"


class TestTLS:
    @pytest.fixture(params=["ours", "foreign"])
    def tls_url(
        self,
        request: pytest.FixtureRequest,
        certificate: Path,
        app: Flask,
        chat: WSChat,
        serve: Serve,
        foreign: Callable[..., str],
    ) -> str:
        library = gevent.ssl if request.param == "ours" else ssl
        context = library.SSLContext(ssl.PROTOCOL_TLS_SERVER)
        context.load_cert_chain(certificate, certificate.with_name("key.pem"))
        if request.param == "ours":
            server = serve(app, ssl_context=context)
            return server.url("/echo", "wss")

        def echo(ws: ServerConnection) -> None:
            for message in ws:
                ws.send(message)

        return foreign(echo, ssl=context)

    @pytest.fixture
    def trusting(self, certificate: Path) -> ssl.SSLContext:
        return ssl.create_default_context(cafile=str(certificate))

    def test_messages_come_back(self, tls_url: str, trusting: ssl.SSLContext) -> None:
        with connect(tls_url, ssl_context=trusting) as ws:
            for message in ("hello", b"", "x" * 70_000, bytes(MEGABYTE)):
                ws.send(message)
                assert ws.receive(DEADLINE) == message
            assert ws.ping() < DEADLINE
            with pytest.raises(TimeoutError):
                ws.receive(0.01)
        assert ws.close() is True

    def test_neither_waits_for_the_other_to_read(
        self, tls_url: str, trusting: ssl.SSLContext
    ) -> None:
        # Not compressed, so that the echoes fill what the sockets hold.
        with connect(tls_url, ssl_context=trusting, compression=False) as ws:
            for _ in range(16):
                ws.send(bytes(MEGABYTE))
            for _ in range(16):
                assert len(ws.receive(DEADLINE)) == MEGABYTE

    # gevent's server prints a traceback for it.
    @pytest.mark.parametrize("tls_url", ["foreign"], indirect=True)
    def test_strangers_are_not_trusted(self, tls_url: str) -> None:
        with pytest.raises(ssl.SSLCertVerificationError):
            connect(tls_url)


GEVENT = """
from gevent import monkey; monkey.patch_all()
import ssl
import sys
import gevent
from flask import Flask
from gevent.pywsgi import WSGIServer
from flask_wschat import WSChat
from flask_wschat.client import connect
from flask_wschat.server import WebSocketHandler

app = Flask("app")
chat = WSChat(app)

@chat.route("/")
def echo(ws):
    for message in ws:
        ws.send(message)

context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
context.load_cert_chain(*sys.argv[1:])
for scheme, tls in ("ws", {}), ("wss", {"ssl_context": context}):
    server = WSGIServer(
        ("127.0.0.1", 0), app, handler_class=WebSocketHandler, log=None, **tls
    )
    server.start()
    ticks = []

    def tick():
        while True:
            ticks.append(1)
            gevent.sleep(0.01)

    ticking = gevent.spawn(tick)
    with connect(f"{scheme}://127.0.0.1:{server.server_port}/") as ws:
        for message in ("hello", bytes(1 << 20)):
            ws.send(message)
            assert ws.receive(5) == message
        try:
            ws.receive(0.2)
        except TimeoutError:
            pass
    assert len(ticks) > 5, ticks
    ticking.kill()
    server.stop(1)
print("fine")
"""


def test_other_greenlets_run_on_under_gevent(certificate: Path) -> None:
    done = subprocess.run(
        [sys.executable, "-c", GEVENT, certificate, certificate.with_name("key.pem")],
        env={"SSL_CERT_FILE": str(certificate)},
        cwd=Path(__file__).parents[1],
        capture_output=True,
        text=True,
        timeout=DEADLINE * 2,
    )
    assert (done.stdout, done.returncode) == ("fine\n", 0), done.stderr


def test_a_client_is_what_connect_returns(echo_url: str) -> None:
    with connect(echo_url) as ws:
        assert isinstance(ws, Client)
