"""Figures of a live server, against what its clients did: exactly."""

from __future__ import annotations

import collections
import json
import socket
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
from flask import Flask, Response, abort, redirect, request
from websockets.exceptions import InvalidStatus
from websockets.sync.client import ClientConnection, connect

from flask_wschat import ChatListener, Listener, WebSocket, WSChat
from flask_wschat.hub.figures import read
from tests.support.live import LiveServer, Serve, closed, receive, stop
from tests.support.threaded import serve_threaded
from tests.support.waiting import eventually

MANY = 25
Change = dict[str, Any]
NUMBERS = ("messages_in", "messages_out", "deliveries", "published", "errors")


def make_app() -> tuple[Flask, WSChat]:
    app = Flask(__name__)
    app.config.update(WSCHAT_MAX_MESSAGE=100_000, WSCHAT_HANDSHAKE_TIMEOUT=0.5)
    chat = WSChat(app)

    @chat.authenticate
    def who() -> str | None:
        if status := request.args.get("status"):
            abort(int(status))
        if "raise" in request.args:
            raise OSError("no such table")
        return request.args.get("user")

    @chat.route("/view")
    def view(ws: WebSocket) -> None:
        for message in ws:
            ws.send(message)

    @chat.listener("/listener")
    class Echo(Listener):
        def on_message(self, ws: WebSocket, message: str | bytes) -> None:
            if message == "raise":
                raise ValueError("as asked")
            ws.send(message)

    @chat.listener("/fan")
    class Fan(Listener):
        def on_open(self, ws: WebSocket) -> None:
            ws.join("fan")

        def on_message(self, ws: WebSocket, message: str | bytes) -> None:
            chat.broadcast(message, room="fan")

    @chat.listener("/chat")
    class Room(ChatListener):
        anonymous = "say"

    def login_required(view: Callable[..., Any]) -> Callable[..., Any]:
        return lambda **kwargs: redirect("/login")

    @chat.listener("/members", decorators=[login_required])
    class Members(Echo):
        pass

    @app.get("/old")
    def old() -> str:
        ws = request.environ["wsgi.websocket"]
        while (message := ws.receive()) is not None:
            ws.send(message)
        return ""

    @app.get("/page")
    def page() -> Response:
        return Response("a page")

    return app, chat


class Counted:
    """A live server, and what has changed of its figures."""

    def __init__(self) -> None:
        self.app, self.chat = make_app()
        self.server = LiveServer(self.app)
        self.begin()

    def stats(self) -> dict[str, Any]:
        with self.app.app_context():
            return self.chat.stats()

    def begin(self) -> None:
        self._before = self.stats()

    def change(self) -> Change:
        """Return what has changed, but no zeros."""
        before, after = self._before, self.stats()
        changes: Change = {name: after[name] - before[name] for name in NUMBERS}
        changes["opened"] = after["opened"] - before["opened"]
        changes["handled"] = (
            after["handler_seconds"]["count"] - before["handler_seconds"]["count"]
        )
        for name in ("closed", "refused"):
            changes[name] = {
                label: more
                for label, count in after[name].items()
                if (more := count - before[name].get(label, 0))
            }
        return {name: change for name, change in changes.items() if change}

    def expect(self, **change: Any) -> None:
        eventually(
            lambda: self.change() == change,
            lambda: f"{change}, but it is {self.change()}",
        )
        assert self.stats()["connections"] == 0
        self.begin()

    def connect(self, path: str, **options: Any) -> ClientConnection:
        return self.server.connect(path, **options)


@pytest.fixture(scope="module")
def served() -> Iterator[Counted]:
    served = Counted()
    yield served
    served.server.stop()
    stop(served.app)


@pytest.fixture
def counted(served: Counted) -> Counted:
    """The server, where nothing is under way, and nothing has changed so far."""
    eventually(lambda: served.stats()["connections"] == 0)
    served.begin()
    return served


@pytest.mark.parametrize(
    ("path", "options"),
    [
        ("/view", {}),
        ("/view", {"compression": "deflate"}),
        ("/listener", {}),
        ("/listener", {"compression": "deflate"}),
        ("/old", {}),
    ],
)
def test_echoes_are_counted(
    counted: Counted, path: str, options: dict[str, Any]
) -> None:
    for size in (0, 64, 70_000):
        with counted.connect(path, **options) as client:
            for number in range(MANY):
                client.send(str(number % 10) * size)
            for number in range(MANY):
                assert receive(client) == str(number % 10) * size
            client.ping().wait(5)
    handled = {"handled": 3 * MANY} if path == "/listener" else {}
    counted.expect(
        opened=3,
        closed={"1000": 3},
        messages_in=3 * MANY,
        messages_out=3 * MANY,
        **handled,
    )


@pytest.mark.parametrize("options", [{}, {"compression": "deflate"}])
def test_a_broadcast_is_a_delivery_for_each(
    counted: Counted, options: dict[str, Any]
) -> None:
    clients = [counted.connect("/fan", **options) for _ in range(3)]
    clients.append(counted.connect("/fan"))
    for number in range(MANY):
        clients[0].send(str(number))
    for client in clients:
        assert [receive(client) for _ in range(MANY)] == list(map(str, range(MANY)))
    found = counted.stats()
    assert (found["connections"], found["users"], found["rooms"]) == (4, 0, 1)
    for client in clients:
        client.close()
    counted.expect(
        opened=4,
        closed={"1000": 4},
        messages_in=MANY,
        handled=MANY,
        published=MANY,
        messages_out=4 * MANY,
        deliveries=4 * MANY,
    )


def test_the_ready_made_chat_is_counted(counted: Counted) -> None:
    """Each request has a reply; what is said, or emitted, is delivered to each."""
    options: dict[str, Any] = {"subprotocols": ["wschat.v1.json"]}
    clients = [counted.connect(f"/chat?user=u{n}", **options) for n in range(3)]
    heard: collections.Counter[str] = collections.Counter()
    asked = 0

    def ask(client: ClientConnection, kind: str, **fields: Any) -> None:
        nonlocal asked
        asked += 1
        client.send(json.dumps({"type": kind, "ref": asked, **fields}))

    def hear_all() -> bool:
        for client in clients:
            ask(client, "ping")
            while (found := json.loads(receive(client))).get("ref") != asked:
                heard[found["type"]] += 1
            heard["reply"] += 1
        all_out = counted.change()["messages_out"] == heard.total()
        return all_out and heard["message"] >= 3 * MANY

    for client in clients:
        ask(client, "join", room="talk")
    hear_all()
    for number in range(MANY):
        ask(clients[0], "say", room="talk", mid=f"m{number}", data=number)
    with counted.app.app_context():
        counted.chat.emit("moved", room="talk", x=1)
        counted.chat.send_to_user("u1", "for an inbox that nobody has asked for")
    eventually(hear_all)
    found = counted.stats()
    assert (found["connections"], found["users"], found["rooms"]) == (3, 3, 1)
    change = counted.change()
    assert heard["message"] == 3 * MANY
    assert heard["moved"] == 3
    assert change["messages_in"] == change["handled"] == heard["reply"] == asked
    assert change["published"] == MANY + 2
    assert change["messages_out"] == heard.total()
    assert change["deliveries"] == heard.total() - heard["reply"] - heard["hello"]
    for client in clients:
        client.close()
    eventually(lambda: counted.stats()["connections"] == 0)


def frame(opcode: int, payload: bytes) -> bytes:
    return bytes([0x80 | opcode, 0x80 | len(payload), 0, 0, 0, 0]) + payload


def test_each_end_has_its_code(counted: Counted) -> None:
    for code in (1000, 1001, 3123, 4321):
        with counted.connect("/view") as client:
            client.close(code)
    counted.expect(opened=4, closed={"1000": 1, "1001": 1, "3xxx": 1, "4xxx": 1})
    cases: list[tuple[str, bytes | None]] = [
        ("1006", None),
        ("1002", frame(3, b"")),
        ("1005", frame(8, b"")),
        ("1007", frame(1, b"\xff")),
        ("1009", bytes([0x82, 0xFF]) + (1 << 20).to_bytes(8, "big") + bytes(4)),
    ]
    for _, data in cases:
        client = counted.connect("/listener")
        if data is not None:
            client.socket.sendall(data)
        client.socket.shutdown(socket.SHUT_RDWR)
    counted.expect(opened=5, closed={code: 1 for code, _ in cases})
    with counted.connect("/listener") as client:
        client.send("raise")
        assert closed(client)[0] == 1011
    counted.expect(opened=1, closed={"1011": 1}, messages_in=1, handled=1, errors=1)


def test_each_refusal_is_counted(counted: Counted) -> None:
    cases = {
        "/nowhere": 404,
        "/view?status=401": 401,
        "/view?status=418": 418,
        "/view?raise": 500,
        "/members": 401,
    }
    for path, status in cases.items():
        with pytest.raises(InvalidStatus) as refused:
            counted.connect(path)
        assert refused.value.response.status_code == status
    with pytest.raises(InvalidStatus):
        counted.connect("/view", origin="https://elsewhere.example")
    counted.expect(refused={"404": 1, "401": 2, "4xx": 1, "500": 1, "403": 1})


ASKS = b"GET /view HTTP/1.1\r\nHost: x\r\nUpgrade: websocket\r\nConnection: Upgrade\r\n"


@pytest.mark.parametrize(
    ("head", "status"),
    [
        (ASKS + b"Sec-WebSocket-Version: 7\r\n\r\n", "426"),
        (ASKS + b"Sec-WebSocket-Version: 13\r\n\r\n", "400"),
        (ASKS + b"bad field: x\r\n\r\n", "400"),
        (ASKS + b"A: " + b"a" * 70_000, "431"),
        (ASKS, "408"),
        (b"GET /view HTTP/1.1\r\nHost: x\r\n\r\n", None),
        (b"GET /nowhere HTTP/1.1\r\nHost: x\r\n\r\n", None),
        (ASKS.replace(b"/view", b"/page") + b"\r\n", "400"),
    ],
    ids=["version", "no-key", "bad-line", "large", "slow", "plain", "page", "not-ours"],
)
def test_handshakes_that_are_none_are_refused(
    counted: Counted, head: bytes, status: str | None
) -> None:
    with counted.server.socket() as sock:
        sock.sendall(head)
        assert sock.recv(12).startswith(b"HTTP/1.1 ")
    counted.expect(**({"refused": {status: 1}} if status else {}))


def test_what_waits_is_seen_by_the_sweep(app: Flask, serve: Serve) -> None:
    """And who is let go of, or loses messages, for being slow."""
    config = {"MAX_QUEUE": 300_000, "PING_TIMEOUT": 0.4, "PING_INTERVAL": 0.4}
    config["CLOSE_TIMEOUT"] = 0.1
    app.config.update({f"WSCHAT_{name}": value for name, value in config.items()})
    app.config["WSCHAT_SLOW_POLICY"] = "drop_oldest"
    chat = WSChat(app)

    @chat.listener("/fan")
    class Fan(Listener):
        def on_open(self, ws: WebSocket) -> None:
            ws.join("fan")

    server = serve(app)
    reader, sleeper = server.connect("/fan"), server.socket(SO_RCVBUF=4096)
    sleeper.sendall(HANDSHAKE)
    eventually(lambda: chat.stats()["rooms"] and chat.stats()["connections"] == 2)

    def found() -> Any:
        return read(app.extensions["wschat.hub"].figures._memory)  # as others do

    while not found()["queued_bytes"]:
        chat.broadcast(bytes(200_000), room="fan")
        receive(reader)
    assert chat.stats()["queued_bytes"] >= 200_000
    sizes = found()["queue_bytes"]
    assert sizes["sum"] > 200_000
    none, all_ = sizes["buckets"][0][1], sizes["count"]
    assert 0 < none < all_
    while not found()["dropped"]:
        chat.broadcast(bytes(200_000), room="fan")
        receive(reader)
    eventually(lambda: found()["slow_closes"] == 1)
    eventually(lambda: found()["queued_bytes"] == 0)
    assert found()["closed"] == {"1013": 1}
    assert found()["connections"] == 1
    sleeper.close()
    reader.close()
    eventually(lambda: found()["rooms"] == 0)


HANDSHAKE = (
    b"GET /fan HTTP/1.1\r\nHost: x\r\nUpgrade: websocket\r\nConnection: Upgrade\r\n"
    b"Sec-WebSocket-Version: 13\r\nSec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==\r\n\r\n"
)


def test_a_loop_that_stands_still_is_late(app: Flask, serve: Serve) -> None:
    app.config["WSCHAT_PING_TIMEOUT"] = 0.2  # it is looked at twenty times a second
    chat = WSChat(app)

    @chat.listener("/stop")
    class Stop(Listener):
        def on_message(self, ws: WebSocket, message: str | bytes) -> None:
            time.sleep(0.4)

    assert chat.stats()["loop_lag"] == 0.0
    with serve(app).connect("/stop") as client:
        client.send("now")
        eventually(lambda: chat.stats()["lag_seconds"]["sum"] > 0.3)
        found = chat.stats()
    assert 0.3 < found["loop_lag"] < 4
    assert found["lag_seconds"]["buckets"][-1][1] == found["lag_seconds"]["count"]
    under = dict(map(tuple, found["lag_seconds"]["buckets"]))
    assert found["lag_seconds"]["count"] - under[0.25] == 1
    assert found["handler_seconds"]["count"] == 1
    assert 0.4 <= found["handler_seconds"]["sum"] < 4


@pytest.mark.parametrize("url", ["memory://", "sqlite"])
def test_what_waits_for_the_storage_is_timed(
    app: Flask, serve: Serve, url: str, tmp_path: Path
) -> None:
    if url == "sqlite":
        url = f"sqlite:///{tmp_path}/chat.db"
    app.config["WSCHAT_URL"] = url
    chat = WSChat(app)
    app.add_url_rule("/", "index", lambda: str(chat.broadcast("x", room="a")))
    server = serve(app)
    for _ in range(3):
        with server.socket() as sock:
            sock.sendall(b"GET / HTTP/1.0\r\n\r\n")
            assert sock.makefile("rb").read().startswith(b"HTTP/1.1 200")
    found = chat.stats()
    assert found["published"] == 3
    if url.startswith("memory"):
        assert found["backend_seconds"]["count"] == 0
        assert found["backend_latency"] is None
    else:
        assert found["backend_seconds"]["count"] == 3
        mean = found["backend_seconds"]["sum"] / 3
        assert found["backend_latency"] == pytest.approx(mean)


def test_threads_lose_no_figure() -> None:
    """Handlers run in threads of their own, and a thread may send."""
    app, chat = make_app()
    with serve_threaded(app) as port:
        url = f"ws://127.0.0.1:{port}"
        clients = [
            connect(url + path, compression=None, ping_interval=None).__enter__()
            for path in ("/listener", "/view") * 4
        ]
        for number in range(MANY):
            for client in clients:
                client.send(str(number))
        for client in clients:
            for number in range(MANY):
                assert receive(client) == str(number)
            client.close()
        for path in ("/nowhere", "/view?status=403"):
            with pytest.raises(InvalidStatus):
                connect(url + path)
        with app.app_context():
            eventually(lambda: not chat.stats()["connections"])
            found = chat.stats()
    assert found["messages_in"] == found["messages_out"] == 8 * MANY
    assert found["handler_seconds"]["count"] == 4 * MANY
    assert found["opened"] == 8
    assert found["closed"] == {"1000": 8}
    assert found["refused"] == {"404": 1, "403": 1}
