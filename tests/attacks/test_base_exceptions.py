"""What user code raises that is no ``Exception``: it ends its connection, no more."""

from __future__ import annotations

import argparse
import contextlib
import http.client
import json
import logging
from collections.abc import Callable, Iterator
from typing import Any

import gevent
import greenlet
import pytest
from flask import Flask, Response, got_request_exception, request

from flask_wschat import ChatListener, Listener, WebSocket, WSChat
from flask_wschat.client import Client, connect
from flask_wschat.codec import ClientHandshake
from flask_wschat.errors import ConnectionClosed, HandshakeError
from flask_wschat.transports.threaded import WORKERS
from tests.support.live import Serve
from tests.support.threaded import serve_threaded
from tests.support.waiting import DEADLINE, eventually


class Own(BaseException):
    """An application's own."""


class Unprintable(BaseException):
    """One that fails at saying what it is."""

    def __str__(self) -> str:
        raise ValueError("no words for it")

    __repr__ = __str__


def recurse() -> None:
    recurse()


def parse_arguments() -> None:
    argparse.ArgumentParser(exit_on_error=True).parse_args(["--no-such-option"])


def time_out() -> None:
    with gevent.Timeout(0.001):
        gevent.sleep(DEADLINE)


def raising(error: BaseException) -> Callable[[], None]:
    def do_raise() -> None:
        raise error

    return do_raise


FAULTS: dict[str, Callable[[], None]] = {
    "argparse": parse_arguments,
    "exit": raising(SystemExit(0)),
    "GreenletExit": raising(greenlet.GreenletExit()),
    "gevent.Timeout": raising(gevent.Timeout(1)),
    "own": raising(Own("oops")),
    "TimeoutError": raising(TimeoutError("the database took too long")),
    "BrokenPipeError": raising(BrokenPipeError("of somebody else")),
    "GeneratorExit": raising(GeneratorExit()),
    "StopIteration": raising(StopIteration("no more")),
    "RecursionError": recurse,
    "MemoryError": raising(MemoryError()),
    "KeyboardInterrupt": raising(KeyboardInterrupt()),
    "unprintable": raising(Unprintable()),
}
PLACES = ["view", "receiving", "new", "open", "message"]


@pytest.fixture(params=["greenlets", "threads"])
def connected(
    request: pytest.FixtureRequest, app: Flask, chat: WSChat, serve: Serve
) -> Iterator[Callable[[str], Client]]:
    """Connect to ``app`` under a server of each kind."""
    with contextlib.ExitStack() as stack:
        if request.param == "greenlets":
            url = serve(app).url
        else:
            port = stack.enter_context(serve_threaded(app))

            def url(path: str = "/", scheme: str = "ws") -> str:
                return f"{scheme}://127.0.0.1:{port}{path}"

        def open_client(path: str) -> Client:
            client = connect(url(path), compression=False, timeout=DEADLINE)
            stack.callback(client.abort)
            return client

        yield open_client


def add_routes(chat: WSChat, fault: Callable[[], None]) -> list[tuple[int, str]]:
    """Add a route that raises in each of the places; return what ``on_close`` heard."""
    closes: list[tuple[int, str]] = []

    @chat.route("/view/<name>")
    def view(ws: WebSocket, name: str) -> None:
        ws.join("room")
        fault()

    @chat.route("/receiving/<name>")
    def receiving(ws: WebSocket, name: str) -> None:
        ws.join("room")
        ws.receive()
        fault()

    class Listening(Listener):
        def on_open(self, ws: WebSocket, name: str) -> None:
            ws.join("room")

        def on_close(self, ws: WebSocket, code: int, reason: str) -> None:
            closes.append((code, reason))

    @chat.listener("/new/<name>")
    class New(Listening):
        def __init__(self) -> None:
            fault()

    @chat.listener("/open/<name>")
    class Open(Listening):
        def on_open(self, ws: WebSocket, name: str) -> None:
            super().on_open(ws, name)
            fault()

    @chat.listener("/message/<name>")
    class Message(Listening):
        def on_message(self, ws: WebSocket, message: str | bytes) -> None:
            fault()

    @chat.listener("/close/<name>")
    class Close(Listening):
        def on_close(self, ws: WebSocket, code: int, reason: str) -> None:
            super().on_close(ws, code, reason)
            fault()

    @chat.listener("/echo")
    class Echo(Listener):
        def on_message(self, ws: WebSocket, message: str | bytes) -> None:
            ws.send(message)

    @chat.authenticate
    def who() -> str:
        return "ann"

    return closes


def end_of(client: Client) -> ConnectionClosed:
    with pytest.raises(ConnectionClosed) as caught:
        client.receive(DEADLINE)
    return caught.value


def still_serves(connected: Callable[[str], Client]) -> None:
    client = connected("/echo")
    client.send("still there?")
    assert client.receive(DEADLINE) == "still there?"
    client.close()


@pytest.mark.parametrize("name", FAULTS)
def test_it_is_an_error_1011_logged_once(
    name: str,
    chat: WSChat,
    app: Flask,
    connected: Callable[[str], Client],
    caplog: pytest.LogCaptureFixture,
) -> None:
    closes = add_routes(chat, FAULTS[name])
    hub = app.extensions["wschat.hub"]
    told: list[BaseException] = []

    def tell(sender: Flask, exception: BaseException) -> None:
        told.append(exception)

    got_request_exception.connect(tell, app)
    for place in PLACES:
        caplog.clear()
        told.clear()
        client = connected(f"/{place}/lobby")
        if place in ("receiving", "message"):
            client.send("now")
        assert end_of(client).code == 1011
        eventually(lambda: hub.count() == 0 and hub.count("room:room") == 0)
        eventually(lambda: [r for r in caplog.records if r.levelno >= logging.ERROR])
        [record] = [r for r in caplog.records if r.levelno >= logging.ERROR]
        text = record.getMessage()
        assert (
            f"/{place}/<name>" in text and "user ann" in text and "connection" in text
        )
        assert "\n" not in text
        assert record.exc_info is not None
        assert told == [record.exc_info[1]]
    eventually(lambda: len(closes) == 2)
    assert closes == [(1011, "internal error")] * 2
    still_serves(connected)


@pytest.mark.parametrize(
    "name",
    ["argparse", "exit", "gevent.Timeout", "own", "GeneratorExit", "unprintable"],
)
def test_whoever_asks_who_it_is_may_raise_anything(
    name: str,
    chat: WSChat,
    app: Flask,
    connected: Callable[[str], Client],
    caplog: pytest.LogCaptureFixture,
) -> None:
    app.testing = False  # or errors are the server's to log
    add_routes(chat, FAULTS[name])

    @chat.authenticate
    def who() -> None:
        if request.path != "/echo":
            FAULTS[name]()

    for place in ("view", "open"):
        with pytest.raises(HandshakeError) as refused:
            connected(f"/{place}/lobby")
        assert refused.value.status == 500
    assert "@chat.authenticate raised" in caplog.text
    still_serves(connected)


HOOKS: dict[str, dict[str, object]] = {
    "can_join": {"type": "join", "room": "a"},
    "can_say": {"type": "say", "room": "b", "data": 1, "mid": "1"},
    "can_tell": {"type": "tell", "to": "ben", "data": 1, "mid": "1"},
    "can_vote": {"type": "vote", "poll": "Tea", "choice": "green"},
}


@pytest.mark.parametrize("name", ["ValueError", "MemoryError", "exit", "unprintable"])
def test_what_may_be_done_may_raise_anything(
    name: str,
    chat: WSChat,
    app: Flask,
    connected: Callable[[str], Client],
    caplog: pytest.LogCaptureFixture,
) -> None:
    """What is an ``Exception`` is the answer to that one request."""
    fault = FAULTS.get(name) or raising(ValueError("oops"))
    failing = ""

    def may(hook: str) -> Callable[..., bool]:
        def ask(self: ChatListener, *args: object) -> bool:
            if failing == hook:
                fault()
            return True

        return ask

    chat.listener("/chat")(type("Chat", (ChatListener,), {h: may(h) for h in HOOKS}))
    chat.poll("Tea", ["green", "black"])
    add_routes(chat, fault)

    def ask(client: Client, asked: dict[str, object]) -> Any:
        client.send(json.dumps({"ref": 1, **asked}))
        while (event := json.loads(client.receive(DEADLINE)))["type"] != "reply":
            pass
        return event

    bystander = connected("/chat")
    for hook, asked in HOOKS.items():
        client = connected("/chat")
        assert ask(client, {"type": "join", "room": "b"})["ok"]
        caplog.clear()
        failing = hook
        if name in ("ValueError", "MemoryError"):
            assert ask(client, asked)["error"]["code"] == "internal"
            failing = ""
            assert ask(client, asked)["ok"]
        else:
            client.send(json.dumps({"ref": 1, **asked}))
            with pytest.raises(ConnectionClosed) as caught:
                while True:
                    client.receive(DEADLINE)
            assert caught.value.code == 1011
            failing = ""
        [record] = [r for r in caplog.records if r.levelno >= logging.ERROR]
        assert "/chat (user ann, connection" in record.getMessage()
        client.abort()
    assert ask(bystander, {"type": "ping"})["ok"]


@pytest.mark.parametrize("name", ["ValueError", "exit", "unprintable"])
def test_each_message_is_torn_down_and_that_may_raise_anything(
    name: str,
    chat: WSChat,
    app: Flask,
    connected: Callable[[str], Client],
    caplog: pytest.LogCaptureFixture,
) -> None:
    fault = FAULTS.get(name) or raising(ValueError("oops"))
    add_routes(chat, fault)
    torn: list[BaseException | None] = []
    failing = False

    @app.teardown_appcontext
    def tear_down(error: BaseException | None) -> None:
        torn.append(error)
        if failing:
            fault()

    client = connected("/echo")
    eventually(lambda: len(torn) == 1)  # the opening's
    torn.clear()
    for number in range(3):
        client.send(str(number))
        client.receive(DEADLINE)
    eventually(lambda: torn == [None] * 3)
    torn.clear()
    other = connected("/message/lobby")
    eventually(lambda: len(torn) == 1)
    torn.clear()
    other.send("now")
    assert end_of(other).code == 1011
    # Of the message, and then of `on_close`.
    eventually(lambda: len(torn) == 2)
    assert torn[0] is not None and torn[1] is None
    caplog.clear()
    failing = True
    client.send("last")
    assert client.receive(DEADLINE) == "last"
    assert end_of(client).code == 1011
    eventually(lambda: len(torn) >= 4)
    failing = False
    errors = [r for r in caplog.records if r.levelno >= logging.ERROR]
    assert "/echo (user ann, connection" in errors[0].getMessage()
    still_serves(connected)


def test_on_close_may_raise_anything(
    chat: WSChat,
    app: Flask,
    connected: Callable[[str], Client],
    caplog: pytest.LogCaptureFixture,
) -> None:
    closes = add_routes(chat, FAULTS["exit"])
    client = connected("/close/lobby")
    client.close(4001, "bye")
    eventually(lambda: closes == [(4001, "bye")])
    eventually(lambda: "SystemExit" in caplog.text)
    still_serves(connected)


def test_many_do_not_use_up_what_serves_listeners(
    chat: WSChat, connected: Callable[[str], Client]
) -> None:
    closes = add_routes(chat, FAULTS["exit"])
    count = WORKERS + 8
    for number in range(count):
        client = connected("/message/lobby" if number % 2 else "/close/lobby")
        if number % 2:
            client.send("now")
            end_of(client)
        else:
            client.close()
    eventually(lambda: len(closes) == count)
    still_serves(connected)


def test_a_view_that_the_server_kills_ends_naturally(
    chat: WSChat, app: Flask, serve: Serve, caplog: pytest.LogCaptureFixture
) -> None:
    views: list[greenlet.greenlet] = []

    def wait() -> None:
        views.append(greenlet.getcurrent())
        gevent.sleep(10 * DEADLINE)

    add_routes(chat, wait)
    server = serve(app)
    for place in ("view", "open"):
        client = connect(
            server.url(f"/{place}/lobby"), compression=False, timeout=DEADLINE
        )
        eventually(lambda: len(views) == 1)
        loop = app.extensions["wschat.hub"].home.loop
        assert loop is not None
        loop.call(views.pop().throw, greenlet.GreenletExit())
        assert end_of(client).code == 1012
        client.abort()
    hub = app.extensions["wschat.hub"]
    eventually(lambda: hub.count() == 0)
    assert not [r for r in caplog.records if r.levelno >= logging.ERROR]


@pytest.mark.parametrize("server", ["greenlets"])
def test_the_old_interface_survives_an_exit(
    server: str, chat: WSChat, app: Flask, serve: Serve
) -> None:
    add_routes(chat, FAULTS["exit"])

    @app.route("/old")
    def old() -> str:
        request.environ["wsgi.websocket"].receive()
        raise SystemExit(2)

    live = serve(app)
    client = connect(live.url("/old"), compression=False, timeout=DEADLINE)
    client.send("now")
    assert end_of(client).code == 1011
    client.abort()
    other = connect(live.url("/echo"), compression=False, timeout=DEADLINE)
    other.send("still there?")
    assert other.receive(DEADLINE) == "still there?"
    other.abort()


@pytest.mark.parametrize("fault", ["argparse", "exit"])
def test_an_exit_in_a_page_or_before_the_answer_stops_nobody(
    fault: str, chat: WSChat, app: Flask, serve: Serve
) -> None:
    add_routes(chat, raising(Own()))
    chat.authenticate(FAULTS[fault])

    class Late:
        """A body that fails at its beginning, or once it was sent."""

        def __init__(self, place: str) -> None:
            self.place = place

        def __iter__(self) -> Iterator[bytes]:
            yield b"all of it"
            if self.place == "body":
                FAULTS[fault]()

        def close(self) -> None:
            if self.place == "close":
                FAULTS[fault]()

    @app.route("/page/<place>")
    def page(place: str) -> Response:
        if place == "view":
            FAULTS[fault]()
        return Response(Late(place), direct_passthrough=True)

    @app.after_request
    def after(response: Response) -> Response:
        if request.path == "/page/after":
            FAULTS[fault]()
        return response

    live = serve(app)

    def status(path: str, **headers: str) -> int:
        connection = http.client.HTTPConnection("127.0.0.1", live.port, DEADLINE)
        with contextlib.closing(connection):
            connection.request("GET", path, headers=headers)
            answer = connection.getresponse()
            with contextlib.suppress(http.client.IncompleteRead):
                answer.read()
            return answer.status

    asking = ClientHandshake("127.0.0.1", "/echo").request().decode().split("\r\n")
    upgrade = dict(line.split(": ") for line in asking[1:] if line)
    assert status("/echo", **upgrade) == 500
    for place in ("view", "after", "body", "close"):
        expected = 500 if place in ("view", "after") else 200
        assert status(f"/page/{place}") == expected
    assert status("/page/well") == 200
    assert live.log.getvalue().count("failed with SystemExit") == 4
    live.log.truncate(0)  # which the fixture wants to be without errors
