"""What every server must do: one contract, over real processes and sockets."""

from __future__ import annotations

import contextlib
import http.client
import json
import os
import shutil
import subprocess
import sys
from collections.abc import Iterator

import pytest
from websockets.exceptions import ConnectionClosed, InvalidStatus
from websockets.sync.client import ClientConnection

from flask_wschat.codec import ClientHandshake
from flask_wschat.transports.evented import UNSENT_LIMIT
from tests.support.programs import missing

from .serving import (
    DEADLINE,
    THREADS,
    Kind,
    RawClient,
    Server,
    closed,
    eventually,
    receive,
)

pytestmark = [pytest.mark.slow, pytest.mark.timeout(90)]

STYLES = ["/echo", "/listen", "/old"]
KEY = "dGhlIHNhbXBsZSBub25jZQ=="
FOREIGN = "http://evil.example"
MIB = 1 << 20


def is_tcp(kind: Kind) -> bool:
    return not kind.unix


def knows_the_route(kind: Kind) -> bool:
    """Whether the 101 comes after the routing."""
    return not kind.promises


def speaks_tls(kind: Kind) -> bool:
    return kind.tls


def ask(server: Server, path: str, *headers: str) -> str:
    """Send a raw opening request; return the head of the answer."""
    lines = [
        f"GET {path} HTTP/1.1",
        "Host: 127.0.0.1",
        "Connection: Upgrade",
        "Upgrade: websocket",
        f"Sec-WebSocket-Key: {KEY}",
        "Sec-WebSocket-Version: 13",
        *headers,
        "",
        "",
    ]
    with server.socket() as sock:
        sock.sendall("\r\n".join(lines).encode())
        answer = b""
        while b"\r\n\r\n" not in answer and (data := sock.recv(65536)):
            answer += data
    return answer.decode("latin-1").partition("\r\n\r\n")[0]


def plain(
    server: Server, asked: str, *headers: str, body: bytes = b""
) -> tuple[int, bytes]:
    """Send a raw request; return the status and the body of the answer."""
    lines = [f"{asked} HTTP/1.1", "Host: 127.0.0.1", *headers, "", ""]
    with server.socket() as sock:
        sock.sendall("\r\n".join(lines).encode() + body)
        answer = http.client.HTTPResponse(sock)
        answer.begin()
        return answer.status, answer.read()


def refusal(server: Server, path: str, origin: str | None = None) -> int:
    """Return the HTTP status of a refused opening, however it is told."""
    if server.kind.promises:
        with server.connect(path, origin=origin) as client:
            code, reason = closed(client)
            assert code == 1008
            return int(reason.split()[0])
    with pytest.raises(InvalidStatus) as caught:
        server.connect(path, origin=origin)
    return caught.value.response.status_code


def has_room_beside_sockets(kind: Kind) -> bool:
    return kind.views > 1


# -- the handshake


@pytest.mark.pain(12)
def test_refusals_come_before_the_upgrade(server: Server) -> None:
    assert refusal(server, "/nowhere") == 404
    assert refusal(server, "/listen", FOREIGN) == 403
    assert refusal(server, "/old", FOREIGN) == 403
    assert refusal(server, "/listen?user=mallory") == 401
    assert refusal(server, "/old?user=mallory") == 401


def test_the_same_origin_is_let_in(server: Server) -> None:
    scheme = "http" if server.tls is None else "https"
    with server.connect("/listen", origin=f"{scheme}://127.0.0.1:{server.port}"):
        pass


def test_http_on_a_socket_route_is_426(server: Server) -> None:
    status, body = server.http("/echo")
    assert status == 426
    assert "new WebSocket(" in body
    assert server.http("/old")[0] == 400
    assert server.http("/page") == (200, "a page")


H2C = ["Connection: Upgrade, HTTP2-Settings", "Upgrade: h2c", "HTTP2-Settings: AAMAAA"]
KEPT = ["Connection: keep-alive, Upgrade", "Upgrade: h2c"]
OTHER_UPGRADES = {
    "h2c": H2C,
    "h2c, keep-alive": KEPT,
    "TLS": ["Connection: Upgrade", "Upgrade: TLS/1.0"],
    "several": ["Connection: Upgrade", "Upgrade: TLS/1.0, h2c, websocketish"],
    "empty": ["Connection: Upgrade", "Upgrade:"],
    "no connection": ["Upgrade: websocket"],
    "other connection": ["Connection: keep-alive", "Upgrade: websocket"],
}


@pytest.mark.parametrize("asked", OTHER_UPGRADES.values(), ids=OTHER_UPGRADES.keys())
def test_who_asks_for_no_websocket_is_served_as_ever(
    server: Server, asked: list[str]
) -> None:
    assert plain(server, "GET /page", *asked) == (200, b"a page")
    assert plain(server, "GET /_wschat/wschat.js", *asked)[0] == 200
    assert json.loads(plain(server, "GET /ours", *asked)[1]) == []
    assert plain(server, "GET /listen", *asked)[0] == 426
    assert plain(server, "GET /nowhere", *asked)[0] == 404
    if server.kind.frail and asked not in (H2C, KEPT):
        return  # pywsgi's own handler lets Werkzeug wait for the end of the stream
    body = ["Content-Type: text/plain", "Content-Length: 5"]
    status, said = plain(server, "POST /said/it", *asked, *body, body=b"hello")
    assert (status, json.loads(said)) == (200, ["POST", "/said/it", "hello"])


def test_only_a_get_asks_for_a_websocket(server: Server) -> None:
    asked = ["Connection: Upgrade", "Upgrade: websocket", f"Sec-WebSocket-Key: {KEY}"]
    asked += ["Sec-WebSocket-Version: 13", "Content-Length: 0"]
    assert plain(server, "POST /listen", *asked)[0] == 405
    # As Werkzeug answers for pages by itself.
    assert plain(server, "POST /said/it", *asked)[0] == 400


@pytest.mark.kinds.with_args(lambda kind: not (kind.tls or kind.unix))
def test_curl_with_http2_gets_the_page(server: Server) -> None:
    curl = shutil.which("curl")
    command = [str(curl), "--http2", "--silent", "--show-error", "--max-time", "10"]
    if curl is None or b"HTTP2" not in subprocess.check_output([curl, "--version"]):
        reason = "no curl that knows HTTP/2: install the package `curl`"
        missing(reason)
    url = f"http://127.0.0.1:{server.port}"
    assert subprocess.check_output([*command, f"{url}/page"]) == b"a page"
    assert b"export class" in subprocess.check_output(
        [*command, f"{url}/_wschat/wschat.js"]
    )
    said = subprocess.check_output([*command, "--data", "hello", f"{url}/said/it"])
    assert json.loads(said) == ["POST", "/said/it", "hello"]


def test_the_answer_is_exact(server: Server) -> None:
    status, *lines = ask(server, "/listen").split("\r\n")
    pairs = [line.lower().split(":", 1) for line in lines]
    headers = {name: value.strip() for name, value in pairs}
    assert status == "HTTP/1.1 101 Switching Protocols"
    assert headers["upgrade"] == "websocket"
    assert headers["connection"] == "upgrade"
    assert headers["sec-websocket-accept"] == "s3pplmbitxaq9kygzzhzrbk+xoo="
    assert len(headers) == len(pairs)
    assert not {"content-length", "transfer-encoding"} & set(headers)


@pytest.mark.kinds.with_args(is_tcp)
@pytest.mark.skipif(sys.platform != "linux", reason="the option is Linux's")
def test_the_kernel_takes_half_a_megabyte_of_what_is_not_sent(server: Server) -> None:
    with server.connect("/who") as client:
        assert json.loads(receive(client))["unsent"] == UNSENT_LIMIT


@pytest.mark.kinds.with_args(is_tcp)
def test_small_messages_wait_for_no_acknowledgement(server: Server) -> None:
    with server.connect("/who") as client:
        assert json.loads(receive(client))["no_delay"] is True


@pytest.mark.kinds.with_args(knows_the_route)
def test_a_subprotocol_is_chosen(server: Server) -> None:
    with server.connect("/echo", subprotocols=["v0", "v1", "v2"]) as client:
        assert client.subprotocol == "v2"


def test_compression(server: Server) -> None:
    offer = "Sec-WebSocket-Extensions: permessage-deflate; client_max_window_bits"
    agreed = "permessage-deflate" in ask(server, "/listen", offer)
    # The stock handler answers for itself, and knows no extensions.
    assert agreed is not server.kind.promises
    assert "permessage-deflate" not in ask(server, "/listen")
    text = "hello, " * 20_000
    for path in STYLES:
        with server.connect(path, compression="deflate") as client:
            client.send(text)
            client.send(text.encode())
            assert receive(client) == text
            assert receive(client) == text.encode()


def test_frames_behind_the_request_are_not_lost(server: Server) -> None:
    for path in STYLES:
        with RawClient(server) as client:
            # As much as one TLS record holds; a server's parser reads less at once.
            behind = client.connection.send("first")
            behind += client.connection.send("x" * 15_000)
            client.open(path, behind)
            events = client.events()
            assert [next(events), next(events)] == ["first", "x" * 15_000]
            client.socket.sendall(client.connection.send("after"))
            assert next(events) == "after"


@pytest.mark.parametrize("way", ["at once", "unusual", "in two"])
def test_no_frame_behind_any_request_is_lost(server: Server, way: str) -> None:
    """However a server reads: more than any of its buffers holds comes behind."""
    for path in STYLES:
        with RawClient(server) as client:
            messages = [str(number) * 4000 for number in range(10, 35)]
            frames = b"".join(map(client.connection.send, messages))
            request = ClientHandshake(
                "127.0.0.1", path, headers=[("X", "1"), ("X", "2")] * (way != "at once")
            )
            data = request.request() + frames
            if way == "in two":
                client.socket.sendall(data[:30])
                server.http("/page") if server.kind.views > 1 else None
                data = data[30:]
            client.socket.sendall(data)
            answer = b""
            while (size := request.receive_data(answer)) is None:
                more = client.socket.recv(65536)
                assert more, answer
                answer += more
            client.first = client.connection.receive_data(answer[size:])
            events = client.events()
            assert [next(events) for _ in messages] == messages


def test_half_a_handshake_harms_nobody(server: Server) -> None:
    request = b"GET /echo HTTP/1.1\r\nHost: 127.0.0.1\r\nUpgrade: webso"
    with contextlib.ExitStack() as stack:
        if server.kind.views > 1:  # else it waits for the one that is first
            for _ in range(3):
                waiting = stack.enter_context(server.socket())
                waiting.sendall(request)
        for size in (0, 1, 20, len(request)):
            with server.socket() as leaver:
                leaver.sendall(request[:size])
            rude = RawClient(server)
            rude.socket.sendall(request[:size])
            rude.reset()
        with server.connect("/listen") as client:
            client.send("still there?")
            assert receive(client) == "still there?"
    if server.kind.frail:
        server.forget_log()


@pytest.mark.kinds.with_args(speaks_tls)
def test_no_tls_where_it_is_expected(server: Server) -> None:
    for data in (b"", b"\x16\x03\x01", b"GET / HTTP/1.1\r\nHost: a\r\n\r\n"):
        with server.raw_socket() as sock:
            sock.sendall(data)
    with server.connect("/listen") as client:
        client.send("still there?")
        assert receive(client) == "still there?"
    if server.kind.gevent:
        server.forget_log()  # its stream server prints a TLS handshake that fails


# -- messages


@pytest.mark.parametrize("path", STYLES)
def test_echo_of_every_size(server: Server, path: str) -> None:
    with server.connect(path) as client:
        for size in (1, 125, 126, 65535, 65536, MIB):
            client.send("é" * (size // 2) + "x" * (size % 2))
            client.send(b"\xff" * size)
            assert receive(client) == "é" * (size // 2) + "x" * (size % 2)
            assert receive(client) == b"\xff" * size


AS_BIG = {"run", "gevent-tls", "gthread-tls", "gthread-unix"}
"""Loops and threads, TLS and Unix: what else is big is so by the same code."""


@pytest.mark.pain(3)
def test_echo_of_32_mib(server: Server) -> None:
    """By our codec, which masks and reads that much six times as fast.

    A quarter of it is more than any buffer of the system's, too.
    """
    path = "/echo" if server.kind.views == 1 else "/listen"
    size = 32 * MIB if server.kind.name in AS_BIG else 8 * MIB
    text = "0123456789abcdef" * (size // 16)
    for where, message in ((path, text.encode()), ("/listen", text)):
        with RawClient(server).open(where) as client:
            client.socket.sendall(client.connection.send(message))
            assert next(client.events()) == message


@pytest.mark.parametrize("path", STYLES)
def test_order_fragments_and_pings(server: Server, path: str) -> None:
    with server.connect(path) as client:
        client.send(["frag", "", "ments"])
        assert client.ping("x" * 125).wait(DEADLINE)
        client.send([b"a", b"b"])
        for number in range(500):
            client.send(str(number))
        assert client.ping().wait(DEADLINE)
        assert receive(client) == "fragments"
        assert receive(client) == b"ab"
        assert [receive(client) for _ in range(500)] == [str(n) for n in range(500)]


def test_a_broadcast_reaches_everyone_in_order(server: Server) -> None:
    with contextlib.ExitStack() as stack:
        clients = [stack.enter_context(server.connect("/room")) for _ in range(5)]
        for client in clients:
            assert receive(client) == "joined"
        for number in range(100):
            clients[number % 5].send(f"{number % 5} {number}")
        heard = [[receive(client) for _ in range(100)] for client in clients]
    assert all(one == heard[0] for one in heard)
    for sender in range(5):
        assert [m for m in heard[0] if m[0] == str(sender)] == [
            f"{sender} {number}" for number in range(sender, 100, 5)
        ]


@contextlib.contextmanager
def slow_reader(server: Server, path: str) -> Iterator[RawClient]:
    """Someone whose receive buffer is tiny, and who never looks into it."""
    with RawClient(server, SO_RCVBUF=4096) as slow:
        yield slow.open(path)


def test_a_slow_reader_blocks_nobody_else(server: Server) -> None:
    paths = ["/room", "/listen"] + ["/echo", "/old"] * (server.kind.views > 1)
    with contextlib.ExitStack() as stack:
        for path in paths:
            slow = stack.enter_context(slow_reader(server, path))
            slow.socket.settimeout(0.2)
            with contextlib.suppress(TimeoutError):  # it is not read at the end
                for _ in range(40):
                    slow.socket.sendall(slow.connection.send(b"x" * 100_000))
        with server.connect("/room") as client, server.connect("/listen") as other:
            while receive(client) != "joined":
                pass  # what the slow one says meanwhile
            for number in range(30):
                message = f"{number}:" + "x" * 100_000
                client.send(message)
                while receive(client) != message:
                    pass
                other.send("and you?")
                assert receive(other) == "and you?"


# -- what a socket holds


@pytest.mark.kinds.with_args(has_room_beside_sockets)
@pytest.mark.parametrize("style", ["view", "listener"])
@pytest.mark.pain(17)
def test_sockets_do_not_exhaust_the_database_pool(server: Server, style: str) -> None:
    """A pool of five, more sockets than that, and the pages still have theirs."""
    count = min(15, server.kind.views - 1)
    with contextlib.ExitStack() as stack:
        clients = [
            stack.enter_context(server.connect(f"/pooled/{style}/{number}"))
            for number in range(count)
        ]
        for number, client in enumerate(clients):
            path = f"/pooled/{style}/{number}"
            assert json.loads(receive(client)) == [number, path, False]
        status, body = server.http("/pooled/page")
        assert (status, body.split()[0]) == (200, "connection")
        for client in clients:
            client.send("a query")
            assert receive(client) == "a query over a connection"


# -- the end of a connection


def test_close_codes_pass_both_ways(server: Server) -> None:
    for code in (1000, 1008, 4001):
        with server.connect(f"/close/{code}") as client:
            assert closed(client) == (code, "kicked")
    with server.connect("/listen?user=ann") as client:
        client.close(4002, "bye")

    def told() -> object:
        return json.loads(server.http("/ended/ann")[1])

    eventually(lambda: told() == {"code": 4002, "reason": "bye"}, "on_close")


def test_a_lost_client_is_told_as_1006(server: Server) -> None:
    with RawClient(server) as client:
        client.open("/listen?user=bob")
        client.socket.sendall(client.connection.send("here"))
        assert next(client.events()) == "here"  # it was opened, not only accepted
        client.reset()

    def code() -> object:
        return json.loads(server.http("/ended/bob")[1])["code"]

    eventually(lambda: code() == 1006, "on_close")


def test_a_broken_frame_is_1002(server: Server) -> None:
    for path in STYLES:
        with RawClient(server) as client:
            client.open(path)
            client.socket.sendall(b"\xff\xff" + bytes(20))
            assert client.closed().code == 1002


MASK = bytes(4)  # a mask that changes nothing
MALFORMED = {
    "no mask": (b"\x81\x01x", 1002),
    "a reserved bit": (b"\xa1\x80" + MASK, 1002),
    "a reserved opcode": (b"\x83\x80" + MASK, 1002),
    "a reserved control opcode": (b"\x8b\x80" + MASK, 1002),
    "a long ping": (b"\x89\xfe\x00\x7e" + MASK + bytes(126), 1002),
    "a ping in parts": (b"\x09\x80" + MASK, 1002),
    "a continuation of nothing": (b"\x80\x80" + MASK, 1002),
    "a message within a message": (b"\x01\x80" + MASK + b"\x81\x80" + MASK, 1002),
    "a length with its highest bit": (b"\x82\xff" + b"\xff" * 8 + MASK, 1002),
    "a length that is too much": (b"\x82\xff\x00\x00\x00\x7f" + bytes(4) + MASK, 1009),
    "no UTF-8": (b"\x81\x81" + MASK + b"\xff", 1007),
    "half a close code": (b"\x88\x81" + MASK + b"\x03", 1002),
    "a close code that nobody may send": (b"\x88\x82" + MASK + b"\x03\xed", 1002),
}


def test_malformed_frames_end_their_connection_alone(server: Server) -> None:
    with server.connect("/listen") as bystander:
        for what, (frame, code) in MALFORMED.items():
            with RawClient(server) as client:
                client.open("/listen")
                client.socket.sendall(frame)
                assert client.closed().code == code, what
            bystander.send(what)
            assert receive(bystander) == what


FLOODS = {
    "pings": b"\x89\xfd" + MASK + bytes(125),
    "pongs": b"\x8a\xfd" + MASK + bytes(125),
    "empty messages": b"\x81\x80" + MASK,
    "messages of a byte": b"\x82\x81" + MASK + b"x",
    "empty fragments": b"\x00\x80" + MASK,
}


def test_a_flood_of_any_frame_keeps_nobody_waiting(server: Server) -> None:
    """Of who does not read, or not at once; the connection may end by that."""
    with contextlib.ExitStack() as stack:
        bystander = stack.enter_context(server.connect("/listen"))
        for what, frame in FLOODS.items():
            client = stack.enter_context(RawClient(server))
            client.open("/listen")
            client.socket.settimeout(0.2)
            begin = b"\x01\x80" + MASK if what == "empty fragments" else b""
            with contextlib.suppress(OSError):  # it is read no more, or ended
                client.socket.sendall(begin + frame * 20_000)
            bystander.send(what)
            assert receive(bystander) == what
            client.reset()


GET = "GET /listen HTTP/1.1"
ABUSES = {
    "no key": (GET, ""),
    "a short key": (GET, "Sec-WebSocket-Key: AAAA"),
    "a key that is no base64": (GET, "Sec-WebSocket-Key: ?" + "A" * 23),
    "another version": (GET, "Sec-WebSocket-Version: 12"),
    "HTTP/1.0": ("GET /listen HTTP/1.0", ""),
    "another method": ("PUT /listen HTTP/1.1", ""),
    "a body": (GET, "Content-Length: 3"),
}


def test_a_malformed_opening_opens_nothing(server: Server) -> None:
    for what, (first, other) in ABUSES.items():
        headers = {
            "Host": "127.0.0.1",
            "Connection": "Upgrade",
            "Upgrade": "websocket",
            "Sec-WebSocket-Key": KEY,
            "Sec-WebSocket-Version": "13",
        }
        if what == "no key":
            del headers["Sec-WebSocket-Key"]
        if other:
            name, _, value = other.partition(": ")
            headers[name] = value
        lines = [f"{name}: {value}" for name, value in headers.items()]
        with server.socket() as sock:
            sock.sendall("\r\n".join([first, *lines, "", ""]).encode())
            status = sock.recv(65536).partition(b"\r\n")[0]
        # gevent-websocket's handler answers before it looks at all of that.
        assert b" 101 " not in status or server.kind.promises, what
        with server.connect("/listen") as client:
            client.send(what)
            assert receive(client) == what
    if server.kind.frail:
        server.forget_log()


@pytest.mark.pain(18)
def test_connects_and_resets_leak_nothing(server: Server) -> None:
    paths = ["/listen"] if server.kind.views == 1 else STYLES

    def storm(count: int) -> None:
        for number in range(count):
            client = RawClient(server)
            if number % 4:
                client.open(paths[number % len(paths)])
                if number % 8 == 1:
                    client.socket.sendall(client.connection.send(b"x" * 100_000))
            else:
                client.socket.sendall(b"GET /listen HTTP/1.1\r\nHost: a\r\n\r\n")
            client.reset()

    storm(20)  # whatever is made only once
    eventually(lambda: server.http("/page")[0] == 200, "the server is free")
    before = server.open_files()
    storm(48)
    assert server.running

    def are_closed() -> bool:
        if server.kind.litters:
            assert server.http("/collect")[0] == 200
        return server.open_files() <= before

    eventually(are_closed, f"no more than {before} open files")
    eventually(lambda: server.threads() < 64, "the threads of the connections end")
    all_views_are_free(server)
    if server.kind.frail or server.kind.litters:
        server.forget_log()


@pytest.mark.kinds.with_args(lambda kind: kind.name in ("run", "our-worker"))
def test_garbage_is_not_looked_for_in_the_program(server: Server) -> None:
    assert json.loads(server.http("/process")[1])["frozen"] > 10_000


def all_views_are_free(server: Server) -> None:
    """Run as many views at the same time as the server has threads."""
    with contextlib.ExitStack() as stack:
        count = min(server.kind.views, THREADS)
        clients = [stack.enter_context(server.connect("/echo")) for _ in range(count)]
        for client in clients:
            client.send("here")
            assert receive(client) == "here"


def test_a_graceful_stop_says_1012(server: Server) -> None:
    """The last test of a server: the next one would start it anew."""
    paths = ["/listen", "/room"] + ["/echo", "/old"] * (server.kind.views > 1)
    with contextlib.ExitStack() as stack:
        clients = [stack.enter_context(server.connect(path)) for path in paths]
        for path, client in zip(paths, clients, strict=True):
            client.send(path)
            while receive(client) != path:
                pass
        eventually(server.is_idle, "the server rests")
        stop(server)
        codes = {
            path: ending(client) for path, client in zip(paths, clients, strict=True)
        }
    assert set(codes.values()) <= {1001, 1012}, codes
    server.wait()


def stop(server: Server) -> None:
    if server.kind.stops_worker:
        os.kill(server.pid, server.kind.stop)
    else:
        server.signal(server.kind.stop)


def ending(client: ClientConnection) -> int | str:
    try:
        while True:
            receive(client)
    except TimeoutError:
        return "still open"
    except ConnectionClosed as error:
        return error.rcvd.code if error.rcvd else "no close frame"
