"""One app, whose sockets come to more than one loop: they live in one, all together."""

from __future__ import annotations

import contextlib
import json
import threading
from collections.abc import Callable, Iterator
from typing import Any

import pytest
from flask import Flask

from flask_wschat import ChatListener, Listener, WebSocket, WSChat
from flask_wschat.client import Client, connect
from flask_wschat.errors import ConnectionClosed
from flask_wschat.server import LiveServer
from flask_wschat.testing import Refused, WSChatClient
from flask_wschat.transports import loop as loops
from tests.support.waiting import DEADLINE, eventually

Serve = Callable[..., LiveServer]
Way = Callable[[str, str], contextlib.AbstractContextManager[Any]]


@pytest.fixture
def chat(app: Flask) -> WSChat:
    chat = WSChat(app)

    @chat.authenticate
    def who() -> str | None:
        from flask import request

        return request.args.get("user")

    @chat.route("/echo")
    def echo(ws: WebSocket) -> None:
        ws.join("a")
        for message in ws:
            if message == "poll":
                with contextlib.suppress(TimeoutError):
                    ws.receive(timeout=0)
            chat.broadcast(message, room="a")

    @chat.listener("/listener")
    class Room(Listener):
        def on_open(self, ws: WebSocket) -> None:
            ws.join("a")

        def on_message(self, ws: WebSocket, message: str | bytes) -> None:
            chat.broadcast(message, room="a")

    @chat.listener("/chat")
    class Chat(ChatListener):
        pass

    return chat


@pytest.fixture
def by_port(app: Flask, chat: WSChat, wschat_server: Serve) -> Way:
    server: list[LiveServer] = []

    def way(path: str, user: str) -> Client:
        if not server:
            server.append(wschat_server(app))
        return connect(server[0].url(f"{path}?user={user}"))

    return way


@pytest.fixture
def by_pair(chat: WSChat, wschat_client: WSChatClient) -> Way:
    return lambda path, user: wschat_client.connect(path, user=user)


@pytest.fixture(params=["client first", "server first", "two servers"])
def ways(
    request: pytest.FixtureRequest, app: Flask, by_port: Way, by_pair: Way
) -> tuple[Way, Way]:
    if request.param == "client first":
        return by_pair, by_port
    if request.param == "server first":
        return by_port, by_pair
    serve: Serve = request.getfixturevalue("wschat_server")
    other = serve(app)
    return by_port, lambda path, user: connect(other.url(f"{path}?user={user}"))


@pytest.mark.parametrize("path", ["/echo", "/listener"])
def test_they_hear_each_other(ways: tuple[Way, Way], chat: WSChat, path: str) -> None:
    one, other = ways
    with one(path, "ann") as ann, other(path, "bob") as bob, other(path, "eve") as eve:
        eventually(lambda: chat.online("a") == ["ann", "bob", "eve"])
        everyone = (ann, bob, eve)
        for sender in everyone:
            for number in range(50):
                sender.send(f"{sender is ann} {number}")
                for ws in everyone:
                    got = ws.receive(DEADLINE)
                    assert got == f"{sender is ann} {number}"
        assert chat.send_to_user("bob", "for you") == 1
        assert bob.receive(DEADLINE) == "for you"
        chat.broadcast("to all")
        assert [ws.receive(DEADLINE) for ws in everyone] == ["to all"] * 3
        chat.disconnect_user("eve", 4001, "bye")
        with pytest.raises(ConnectionClosed) as ended:
            eve.receive(DEADLINE)
        assert ended.value.code == 4001
        eventually(lambda: chat.online() == ["ann", "bob"])
        big = "x" * 500_000
        bob.send(big)
        assert ann.receive(DEADLINE) == bob.receive(DEADLINE) == big
    eventually(lambda: chat.online() == [])


def hear(ws: Any, kind: str) -> Any:
    """Return the next message of a ``kind`` that ``ws`` is sent."""
    while (message := json.loads(ws.receive(DEADLINE)))["type"] != kind:
        pass
    return message


def test_the_ready_made_chat_is_one(ways: tuple[Way, Way], chat: WSChat) -> None:
    one, other = ways
    with one("/chat", "ann") as ann, other("/chat", "bob") as bob:
        for ws in (ann, bob):
            ws.send('{"type":"join","ref":1,"room":"Lobby"}')
            assert hear(ws, "reply")["ok"]
        # What was read of the room may be older than she is: then she is news as well.
        while "bob" not in hear(ann, "presence")["joined"]:
            pass
        for number in range(50):
            sender = (ann, bob)[number % 2]
            said = {"ref": 2, "room": "Lobby", "data": number, "mid": str(number)}
            sender.send(json.dumps({"type": "say", **said}))
            for ws in (ann, bob):
                heard = hear(ws, "message")
                assert (heard["seq"], heard["data"]) == (number + 1, number)


def test_one_that_ends_keeps_the_others(ways: tuple[Way, Way], chat: WSChat) -> None:
    one, other = ways
    with one("/echo", "ann") as ann:
        with other("/echo", "bob"):
            eventually(lambda: len(chat.online("a")) == 2)
        eventually(lambda: chat.online("a") == ["ann"])
        with other("/listener", "bob") as bob:
            eventually(lambda: len(chat.online("a")) == 2)
            ann.send("still here")
            assert bob.receive(DEADLINE) == ann.receive(DEADLINE) == "still here"
            ann.close()
            eventually(lambda: chat.online("a") == ["bob"])
            bob.send("alone")
            assert bob.receive(DEADLINE) == "alone"
            with one("/echo", "ann") as again:
                eventually(lambda: len(chat.online("a")) == 2)
                again.send("back")
                assert bob.receive(DEADLINE) == again.receive(DEADLINE) == "back"


def test_a_view_that_only_looks_lets_the_others_run(
    ways: tuple[Way, Way], chat: WSChat
) -> None:
    one, other = ways
    with one("/echo", "ann") as ann, other("/echo", "bob") as bob:
        eventually(lambda: len(chat.online("a")) == 2)
        for ws in (ann, bob):
            ws.send("poll")
            assert ann.receive(DEADLINE) == bob.receive(DEADLINE) == "poll"


@pytest.mark.parametrize("home_first", [False, True])
def test_a_server_that_stops_ends_its_own(
    app: Flask, chat: WSChat, home_first: bool
) -> None:
    servers = [LiveServer(app), LiveServer(app)]
    home, other = servers
    with (
        connect(home.url("/echo?user=ann")) as ann,
        connect(other.url("/listener?user=bob")) as bob,
    ):
        stopped, left = (home, bob) if home_first else (other, ann)
        gone = ann if home_first else bob
        eventually(lambda: len(chat.online("a")) == 2)
        stopped.stop()
        with pytest.raises(ConnectionClosed) as ended:
            gone.receive(DEADLINE)
        assert ended.value.code == 1012
        left.send("still here")
        assert left.receive(DEADLINE) == "still here"
        with WSChatClient(app).connect("/echo") as late:
            late.send("new")
            late.assert_received("new")
            assert left.receive(DEADLINE) == "new"
    for server in servers:
        if server is not stopped:
            server.stop()
        server._thread.join(DEADLINE)
        assert not server._thread.is_alive()
        assert "Traceback" not in server.log.getvalue()


def test_two_that_open_at_once_find_one_loop(app: Flask, chat: WSChat) -> None:
    started = threading.Barrier(4)

    def slowly() -> str | None:
        with contextlib.suppress(threading.BrokenBarrierError):
            started.wait(DEADLINE)
        return None

    chat.authenticate(slowly)
    servers = [LiveServer(app) for _ in range(4)]
    found: list[Client] = []
    threads = [
        threading.Thread(target=lambda s=s: found.append(connect(s.url("/echo"))))
        for s in servers
    ]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(DEADLINE)
    assert len(found) == 4
    eventually(lambda: chat._hub().count("room:a") == 4)
    found[0].send("hi")
    assert [ws.receive(DEADLINE) for ws in found] == ["hi"] * 4
    for ws in found:
        ws.close()
    for server in servers:
        server.stop()


@pytest.fixture
def stuck(app: Flask, chat: WSChat) -> Iterator[threading.Event]:
    """What the loop of a server waits for that nobody has patched."""
    go_on = threading.Event()

    @chat.route("/stuck")
    def wait(ws: WebSocket) -> None:
        go_on.wait(DEADLINE)

    yield go_on
    go_on.set()


def test_a_loop_that_does_not_turn_is_named(
    app: Flask,
    chat: WSChat,
    stuck: threading.Event,
    wschat_server: Serve,
    monkeypatch: pytest.MonkeyPatch,
    caplog: pytest.LogCaptureFixture,
) -> None:
    monkeypatch.setattr(loops, "ANSWER", 0.2)
    server = wschat_server(app)
    with connect(server.url("/stuck")):
        eventually(lambda: chat._hub().count() == 1)
        with pytest.raises(Refused) as refused:
            WSChatClient(app).connect("/echo").__enter__()
        assert refused.value.response.status_code == 500
        for text in (refused.value.response.text, caplog.text):
            assert f"the loop of thread {server._thread.name}" in text
            assert "the loop of thread wschat-loop" in text
            assert "an app for each" in text
        stuck.set()
        with WSChatClient(app).connect("/echo") as ws:
            ws.send("hi")
            ws.assert_received("hi")
