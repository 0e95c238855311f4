"""Signals: what applications hear of connections, in order, once, and harmlessly."""

from __future__ import annotations

import contextlib
import threading
from typing import Any

import pytest
from blinker import NamedSignal
from flask import Flask, abort, current_app, g, got_request_exception, request
from websockets.exceptions import InvalidStatus

import flask_wschat
from flask_wschat import Events, Listener, WebSocket, WSChat, event, signals
from flask_wschat.transports.loop import EventedLoop
from tests.support.in_memory import open_pair
from tests.support.live import LiveServer, Serve, closed, receive
from tests.support.waiting import eventually

NAMES = ("connected", "disconnected", "message_received", "refused", "slow_peer")

Told = tuple[str, dict[str, Any]]


class Heard(list[Told]):
    """All that an app's signals have told, as names and what came with them."""

    def __init__(self, app: Any) -> None:
        self.receivers: list[Any] = []
        for name in NAMES:
            self.add(getattr(signals, name), app)

    def add(self, signal: NamedSignal, app: Any) -> None:
        def receive(sender: Any, **told: Any) -> None:
            assert sender is app
            self.append((signal.name, told))

        self.receivers.append(receive)  # a signal does not hold them
        signal.connect(receive, app)

    def of(self, ws: WebSocket) -> list[str]:
        return [name for name, told in self if told.get("ws") is ws]

    def names(self) -> list[str]:
        return [name for name, _ in self]


@pytest.fixture
def heard(app: Flask) -> Heard:
    return Heard(app)


@pytest.fixture
def sockets(chat: WSChat) -> None:
    """Routes of each kind: they answer "bye" and close, else they echo."""

    def answer(ws: WebSocket, message: str | bytes) -> None:
        with contextlib.suppress(flask_wschat.ConnectionClosed):
            ws.send(message)
        if message == "bye":
            ws.close(4001, "bye")

    @chat.listener("/listen")
    class Listen(Listener):
        def on_message(self, ws: WebSocket, message: str | bytes) -> None:
            answer(ws, message)

    @chat.listener("/bare")
    class Bare(Listen):
        app_context = False

    @chat.route("/view")
    def view(ws: WebSocket) -> None:
        for message in ws:
            answer(ws, message)


@pytest.fixture
def old(app: Flask, sockets: None) -> None:
    @app.get("/old")
    def old() -> str:
        ws = request.environ["wsgi.websocket"]
        while (message := ws.receive()) is not None:
            with contextlib.suppress(Exception):
                ws.send(message)
            if message == "bye":
                ws.close(4001, "bye")
        return ""


KINDS = ["listen", "bare", "view", "old"]


def test_they_are_public() -> None:
    for name in NAMES:
        signal = getattr(flask_wschat, name)
        assert signal is getattr(signals, name) and name in flask_wschat.__all__
        assert isinstance(signal, NamedSignal) and signal.name == name
        assert signal.__doc__ and "``(app, " in signal.__doc__
    assert sorted(signals.__all__) == sorted(NAMES)


def test_each_connection_is_told_of_in_order(
    server: LiveServer, old: None, heard: Heard
) -> None:
    for kind in KINDS:
        with server.connect(f"/{kind}") as client:
            for word in ("a", "b", "bye"):
                client.send(word)
                assert receive(client) == word
            assert closed(client) == (4001, "bye")
        eventually(lambda: "disconnected" in heard.names(), kind)
        assert heard.names() == ["connected", *["message_received"] * 3, "disconnected"]
        assert [told.get("message") for _, told in heard[1:4]] == ["a", "b", "bye"]
        ws = heard[0][1]["ws"]
        assert all(told["ws"] is ws for _, told in heard) and ws.closed
        assert heard[-1][1] == {"ws": ws, "code": 4001, "reason": "bye"}
        heard.clear()


def test_what_was_sent_right_before_the_end_comes_before_it(
    server: LiveServer, old: None, heard: Heard
) -> None:
    words = [str(number) for number in range(12)]
    clients = [server.connect(f"/{kind}") for kind in KINDS]
    for client in clients:
        for word in words:
            client.send(word)
        client.close(3000, "done")
    eventually(lambda: heard.names().count("disconnected") == len(KINDS), "ends")
    for ws in [told["ws"] for name, told in heard if name == "connected"]:
        told = [told for _, told in heard if told["ws"] is ws]
        assert [each["message"] for each in told[1:-1]] == words
        assert (told[-1]["code"], told[-1]["reason"]) == (3000, "done")


def test_who_leaves_while_receivers_of_connected_run_is_told_of_once(
    app: Flask, server: LiveServer, sockets: None, heard: Heard
) -> None:
    @flask_wschat.connected.connect_via(app)
    def wait(app: Flask, ws: WebSocket) -> None:
        eventually(lambda: ws.closed, sleep=lambda _: ws._transport.loop.give_turn())
        heard.append(("waited", {"ws": ws}))

    for path in ("/listen", "/view"):
        with server.socket() as sock:
            sock.sendall(
                b"GET %b HTTP/1.1\r\nHost: localhost\r\nUpgrade: websocket\r\n"
                b"Connection: Upgrade\r\nSec-WebSocket-Version: 13\r\n"
                b"Sec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==\r\n\r\n" % path.encode()
            )
            assert sock.recv(12) == b"HTTP/1.1 101"
        eventually(lambda: "disconnected" in heard.names(), "the end")
        assert sorted(heard.names()[:-1]) == ["connected", "waited"]
        assert heard.pop()[0] == "disconnected"
        heard.clear()


def test_a_view_that_hangs_delays_nobodys_end(
    chat: WSChat, server: LiveServer, heard: Heard
) -> None:
    over = threading.Event()

    @chat.route("/hang")
    def hang(ws: WebSocket) -> None:
        ws.receive()
        eventually(over.is_set, sleep=lambda _: ws._transport.loop.give_turn())

    client = server.connect("/hang")
    client.send("once")
    eventually(lambda: "message_received" in heard.names())
    client.close()
    eventually(lambda: "disconnected" in heard.names(), "the end, though the view runs")
    over.set()
    assert len(heard) == 3
    assert heard.names() == ["connected", "message_received", "disconnected"]


def test_what_nobody_took_is_told_of_by_nobody(
    chat: WSChat, server: LiveServer, heard: Heard
) -> None:
    @chat.route("/deaf")
    def deaf(ws: WebSocket) -> None:
        eventually(lambda: ws.closed, sleep=lambda _: ws._transport.loop.give_turn())

    client = server.connect("/deaf")
    client.send("never read")
    client.close()
    eventually(lambda: "disconnected" in heard.names())
    assert heard.names() == ["connected", "disconnected"]


def test_receivers_run_in_a_fresh_context_and_never_in_the_loop(
    app: Flask, server: LiveServer, sockets: None
) -> None:
    heard: list[tuple[str, str, bool]] = []
    ended: list[object] = []

    @app.teardown_appcontext
    def end(error: object) -> None:
        ended.append(error)

    def check(app: Flask, **told: Any) -> None:
        assert not hasattr(g, "mark") or "request" in told
        g.mark = 1
        assert EventedLoop.current().may_wait()
        heard.append((current_app.name, request.path if request else "", True))

    for name in ("connected", "disconnected", "refused", "message_received"):
        getattr(signals, name).connect(check, app)
    with server.connect("/listen") as client:
        client.send("a")
        receive(client)
    with pytest.raises(InvalidStatus, match="404"):
        server.connect("/nowhere")
    eventually(lambda: len(heard) == 4)
    assert sorted(path for _, path, _ in heard) == ["", "", "", "/listen"]
    assert len(ended) >= 4


def test_a_receiver_that_waits_keeps_nobody_else_waiting(
    app: Flask, server: LiveServer, sockets: None
) -> None:
    let_go = threading.Event()

    @flask_wschat.message_received.connect_via(app)
    def wait(app: Flask, ws: WebSocket, message: str) -> None:
        while message == "wait" and not let_go.is_set():
            ws._transport.loop.give_turn()

    with server.connect("/listen") as slow, server.connect("/listen") as quick:
        slow.send("wait")
        quick.send("a")
        assert receive(quick) == "a"
        let_go.set()
        assert receive(slow) == "wait"


def test_what_receivers_raise_is_reported_and_harms_nobody(
    app: Flask,
    server: LiveServer,
    old: None,
    heard: Heard,
    caplog: pytest.LogCaptureFixture,
) -> None:
    errors: list[BaseException] = []

    def note(sender: Flask, exception: BaseException, **_: Any) -> None:
        errors.append(exception)

    def fail(app: Flask, **told: Any) -> None:
        raise SystemExit("a receiver's")

    async def late(app: Flask, **told: Any) -> None: ...

    got_request_exception.connect(note, app)
    for name in NAMES:
        getattr(signals, name).connect(fail, app)
    flask_wschat.connected.connect(late, app)
    with pytest.raises(InvalidStatus, match="404"):
        server.connect("/nowhere")
    for kind in KINDS:
        with server.connect(f"/{kind}") as client:
            client.send("a")
            assert receive(client) == "a"
    eventually(lambda: len(errors) == 4 * 4 + 1, lambda: repr(errors))
    assert heard.names().count("disconnected") == 4
    assert "a receiver of connected of /listen (user None, connection" in caplog.text
    assert "a receiver of refused" in caplog.text
    assert sum(isinstance(error, TypeError) for error in errors) == 4


REFUSALS = [
    ("/nowhere", {}, 404, "Not Found"),
    ("/listen", {"Origin": "https://evil.example"}, 403, "this origin is not allowed"),
    ("/stop", {}, 401, "Unauthorized"),
    ("/moved", {}, 302, "Found"),  # some clients follow, to the same address
    ("/broken", {}, 500, "Internal Server Error"),
]


def test_each_refused_handshake_is_told_of(
    app: Flask, chat: WSChat, serve: Serve, handler: str, sockets: None, heard: Heard
) -> None:
    @app.before_request
    def refuse() -> Any:
        if request.path == "/stop":
            abort(401)
        if request.path == "/broken":
            raise ValueError("oops")
        if request.path == "/moved":
            return "", 302, {"Location": "/moved"}
        return None

    server = serve(app, handler)
    for path, headers, status, reason in REFUSALS:
        with contextlib.suppress(Exception):
            client = server.connect(path, additional_headers=headers)
            closed(client)
        eventually(lambda: heard, path)
        name, told = heard[0]
        assert name == "refused" and told["environ"]["PATH_INFO"] == path
        assert (told["status"], told["reason"]) == (status, reason)
        assert len(heard) == 1 or status == 302
        heard.clear()
    assert app.test_client().get("/listen").status_code == 426
    assert not heard  # it was no handshake


def test_a_server_without_sockets_refuses(
    app: Flask, sockets: None, heard: Heard
) -> None:
    upgrade = {"Upgrade": "websocket", "Connection": "Upgrade"}
    assert app.test_client().get("/listen", headers=upgrade).status_code == 501
    [(name, told)] = heard
    assert (name, told["status"]) == ("refused", 501)


@pytest.mark.parametrize("policy", ["close", "drop_oldest"])
def test_a_slow_peer_is_told_of(policy: str) -> None:
    ws, peer, _ = open_pair(MAX_QUEUE=100, SLOW_POLICY=policy)
    heard = Heard(None)
    peer.transport.pause()
    for _ in range(5):
        with contextlib.suppress(flask_wschat.ConnectionClosed):
            if not ws._transport.write(ws._connection.send("x" * 50)):
                ws._overflow()
    eventually(lambda: "slow_peer" in heard.names())
    why = heard[0][1]["why"]
    assert why == (
        "is too slow: over 100 bytes wait"
        if policy == "close"
        else "the oldest 1 messages to it are lost"
    )


# -- around handlers


class Around:
    """A context manager that notes when it is entered and left."""

    def __init__(self, notes: list[Any], name: str) -> None:
        self.notes, self.name = notes, name

    def __enter__(self) -> None:
        self.notes.append(self.name)

    def __exit__(self, *error: Any) -> bool:
        self.notes.append(error[0])
        return True  # it would swallow the error


@pytest.fixture
def handlers(chat: WSChat) -> None:
    @chat.listener("/all")
    class All(Listener):
        def on_open(self, ws: WebSocket) -> None: ...
        def on_close(self, ws: WebSocket, code: int, reason: str) -> None: ...
        def on_message(self, ws: WebSocket, message: str | bytes) -> None:
            ws.send(message)
            if message == "fail":
                raise ValueError("oops")

    @chat.listener("/events")
    class Board(Events):
        @event
        def move(self, x: int) -> int:
            return x

    @chat.route("/blocking")
    def blocking(ws: WebSocket) -> None:
        ws.send(ws.receive())


def test_each_call_of_a_handler_is_instrumented(
    chat: WSChat, server: LiveServer, handlers: None, caplog: pytest.LogCaptureFixture
) -> None:
    calls: list[Any] = []

    @chat.instrument
    def around(ws: WebSocket, event: str, message: Any) -> Around:
        calls.append(message)
        return Around(calls, f"{event} {ws.route}")

    assert around.__name__ == "around"
    with server.connect("/all") as client:
        client.send("fail")
        assert receive(client) == "fail"
        assert closed(client) == (1011, "internal error")
    eventually(lambda: len(calls) == 9)
    assert calls == [
        *(None, "on_open /all", None),
        *("fail", "on_message /all", ValueError),
        *(None, "on_close /all", None),
    ]
    calls.clear()
    with server.connect("/events") as client:
        receive(client)
        client.send('{"type":"move","ref":1,"x":2}')
        assert '"result":2' in receive(client)
        client.send('{"type":"move","ref":2,"x":"2"}')
        assert '"bad_request"' in receive(client)
    move = {"type": "move", "ref": 1, "x": 2}
    assert calls[:3] == [move, "move /events", None]
    assert [each.__name__ for each in calls[5:]] == ["RequestError"]
    calls.clear()
    with server.connect("/blocking") as client:
        client.send("a")
        assert receive(client) == "a"
        assert closed(client) == (1000, "")
    eventually(lambda: calls == [None, "view /blocking", None])
    [failed] = caplog.records
    assert failed.exc_info is not None and str(failed.exc_info[1]) == "oops"


def test_what_instruments_raise_harms_nothing(
    chat: WSChat, server: LiveServer, handlers: None, caplog: pytest.LogCaptureFixture
) -> None:
    calls: list[Any] = []

    @chat.instrument
    def fails(ws: WebSocket, event: str, message: Any) -> Around:
        raise ValueError("no manager")

    @chat.instrument
    def none(ws: WebSocket, event: str, message: Any) -> Any:
        return None

    @chat.instrument
    @contextlib.contextmanager
    def badly_left(ws: WebSocket, event: str, message: Any) -> Any:
        yield
        raise ValueError("no end")

    chat.instrument(lambda ws, event, message: Around(calls, event))
    for path, word in (("/all", "a"), ("/blocking", "a")):
        with server.connect(path) as client:
            client.send(word)
            assert receive(client) == word
    eventually(lambda: calls.count(None) == 4)
    assert calls[::2] == ["on_open", "on_message", "on_close", "view"]
    for words in ("no manager", "no end", "Exception in instrument of /all (user"):
        assert words in caplog.text
    with pytest.raises(TypeError, match="instrument needs a function, unlike None"):
        chat.instrument(None)  # type: ignore[arg-type]
