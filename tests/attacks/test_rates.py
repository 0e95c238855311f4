"""How many messages a user may send: ``limit=`` of each style, and its buckets."""

from __future__ import annotations

import random
import types
from collections.abc import Iterator
from typing import Any

import pytest
from flask import Flask, request

import flask_wschat.rate
from flask_wschat import ChatListener, Listener, WebSocket, WSChat
from flask_wschat.codec import Opcode, encode_frame
from flask_wschat.rate import Bucket, Buckets
from flask_wschat.testing import WSChatClient
from tests.protocol.peers import Peer
from tests.support.live import LiveServer, Serve, closed, receive
from tests.support.waiting import eventually

LIMIT = (0.01, 5)
"""One more comes after 100 s: in no test."""


@pytest.fixture
def heard() -> list[Any]:
    """What the handlers were given, and how it ended."""
    return []


@pytest.fixture
def chat(app: Flask, heard: list[Any]) -> WSChat:
    chat = WSChat(app)
    chat.authenticate(lambda: request.args.get("user"))

    @chat.route("/view", limit=LIMIT)
    def view(ws: WebSocket) -> None:
        for message in ws:
            heard.append(message)
            ws.send(message)
        heard.append((ws.close_code, ws.close_reason))

    @chat.listener("/listener", limit=LIMIT)
    class Hall(Listener):
        def on_message(self, ws: WebSocket, message: str | bytes) -> None:
            heard.append(message)
            ws.send(message)

        def on_close(self, ws: WebSocket, code: int, reason: str) -> None:
            heard.append((code, reason))

    @chat.route("/free")
    def free(ws: WebSocket) -> None:
        for message in ws:
            ws.send(message)

    chat.listener("/chat", limit=(0.01, 9))(ChatListener)
    chat.listener("/as-configured", endpoint="other")(ChatListener)
    return chat


both = pytest.mark.parametrize("path", ["/view", "/listener"])


@both
def test_up_to_the_burst_all_is_heard_and_one_more_is_the_end(
    server: LiveServer, path: str, heard: list[Any], caplog: pytest.LogCaptureFixture
) -> None:
    client = server.connect(path)
    for number in range(5):
        client.send(f"{number}")
        assert receive(client) == f"{number}"
    client.send("6")
    assert closed(client) == (1008, "rate limit")
    with server.connect(path) as another:  # of nobody, too: it has its own
        another.send("again")
        assert receive(another) == "again"
    assert heard[:6] == [*"01234", (1008, "rate limit")]
    (line,) = [r.message for r in caplog.records if "closed with 1008" in r.message]
    assert path in line and "more than 0.01 messages a second and 5 at once" in line


@both
def test_of_a_flood_that_comes_at_once_the_first_are_heard(
    server: LiveServer, path: str, heard: list[Any]
) -> None:
    client = server.connect(path)
    frame = encode_frame(Opcode.TEXT, b"x", mask=b"mask")
    client.socket.sendall(frame * 5000)
    assert [receive(client) for _ in range(5)] == ["x"] * 5
    assert closed(client) == (1008, "rate limit")
    assert heard == ["x"] * 5 + [(1008, "rate limit")]


@both
def test_fragmented_and_compressed_messages_count_as_one_each(
    server: LiveServer, path: str
) -> None:
    client = server.connect(path, compression="deflate")
    client.send(["a", "b", "c"])
    for _ in range(4):
        client.send("x" * 300)
    assert [receive(client) for _ in range(5)] == ["abc", *["x" * 300] * 4]
    client.send(["a", "b"])
    assert closed(client) == (1008, "rate limit")


@both
def test_the_tabs_of_a_user_share_a_limit_and_others_have_their_own(
    server: LiveServer, path: str
) -> None:
    tabs = [server.connect(f"{path}?user=ann") for _ in range(3)]
    for tab in (*tabs, *tabs[:2]):
        tab.send("x")
        assert receive(tab) == "x"
    tabs[2].send("x")
    assert closed(tabs[2])[0] == 1008
    with server.connect(f"{path}?user=ann") as again:  # coming back brings nothing
        again.send("x")
        assert closed(again)[0] == 1008
    other = "/view" if path == "/listener" else "/listener"
    for url in (f"{path}?user=ben", f"{other}?user=ann", "/free?user=ann"):
        with server.connect(url) as client:
            client.send("x")
            assert receive(client) == "x"


def test_the_ready_made_chat_says_its_route_s_limit_and_keeps_to_it(
    server: LiveServer,
) -> None:
    peer = _Chat(server, "/chat?user=ann")
    assert peer.hello["limits"]["rate"] == {"per_second": 0.01, "burst": 9}
    for _ in range(9):
        peer.ask("ping")
    assert peer.fail("ping")["code"] == "rate_limited"
    other = _Chat(server, "/as-configured?user=ann")
    assert other.hello["limits"]["rate"] == {"per_second": 50, "burst": 200}
    for _ in range(200):
        other.put("ping")
    for _ in range(200):
        assert other.hear()["ok"]


class _Chat(Peer):
    def __init__(self, server: LiveServer, path: str) -> None:
        super(Peer, self).__init__(server.connect(path, max_queue=None))


def test_a_route_without_a_limit_has_none(server: LiveServer) -> None:
    client = server.connect("/free", max_queue=None)
    for _ in range(3000):
        client.send("x")
    for _ in range(3000):
        assert receive(client) == "x"


def test_the_test_client_has_the_limit_too(app: Flask, chat: WSChat) -> None:
    with WSChatClient(app).connect("/listener") as client:
        for number in range(6):
            client.send(f"{number}")
        for number in range(5):
            client.assert_received(f"{number}")
        client.assert_closed(1008)


def test_two_apps_do_not_share_it(serve: Serve) -> None:
    chat = WSChat()
    chat.authenticate(lambda: "ann")

    @chat.route("/", limit=(0.01, 1))
    def view(ws: WebSocket) -> None:
        for message in ws:
            ws.send(message)

    for name in "ab":
        app = Flask(name)
        chat.init_app(app)
        with serve(app).connect("/") as client:
            client.send(name)
            assert receive(client) == name


@pytest.mark.parametrize(
    "limit",
    [
        10,
        "10/s",
        (10,),
        (10, 50, 1),
        (0, 5),
        (-1, 5),
        (5, 0),
        (5, 0.5),
        (5, 2.0),
        ("5", 10),
        (True, 5),
        (5, True),
        (float("nan"), 5),
        (float("inf"), 5),
        (5, float("inf")),
        (10**400, 5),
        (5e-324, 5),
        {5, 10},
        {"per_second": 5, "burst": 10},
        False,
        0,
    ],
    ids=repr,
)
def test_what_is_no_limit_is_told_where_it_stands(chat: WSChat, limit: Any) -> None:
    with pytest.raises(ValueError, match="limit is \\(messages a second"):
        chat.route("/x", limit=limit)
    with pytest.raises(ValueError, match="limit is \\(messages a second"):
        chat.listener("/x", limit=limit)


# ---- buckets ------------------------------------------------------------------------


class Clock:
    def __init__(self) -> None:
        self.now = 0.0

    def monotonic(self) -> float:
        return self.now


@pytest.fixture
def clock(monkeypatch: pytest.MonkeyPatch) -> Iterator[Clock]:
    """The only clock that buckets look at; it has no other hands."""
    clock = Clock()
    shown = types.SimpleNamespace(monotonic=clock.monotonic)
    monkeypatch.setattr(flask_wschat.rate, "time", shown)
    yield clock


def test_less_than_one_a_second(clock: Clock) -> None:
    bucket = Bucket(0.5, 1)
    assert bucket.take() == 0
    assert bucket.take() == 2
    clock.now = 1
    assert bucket.take() == 1  # to ask costs nothing
    clock.now = 2
    assert bucket.take() == 0
    clock.now = 1000  # a night brings no more than the burst
    assert [bucket.take_some(1) for _ in range(3)] == [1, 0, 0]


def test_over_time_it_is_the_rate_and_never_more_than_the_burst(clock: Clock) -> None:
    chance = random.Random(12)
    bucket, taken, most = Bucket(50, 200), 0, 0
    while clock.now < 100:
        clock.now += chance.random() / 10
        got = bucket.take_some(chance.randrange(400))
        taken, most = taken + got, max(most, got)
    assert most <= 200
    assert taken <= 200 + 50 * clock.now
    assert taken > 0.9 * 50 * clock.now


@pytest.mark.slow
def test_of_a_hundred_thousand_users_only_the_busy_are_kept(clock: Clock) -> None:
    buckets = Buckets()
    for number in range(100_000):
        clock.now += 0.001
        assert buckets.of(f"user {number}", (1.0, 10)).take() == 0
        # Full again after a second: a thousand of them.
        assert len(buckets._kept) <= 4000
    one = buckets.of("ann", (1.0, 10))
    for _ in range(5000):  # she has them all pruned, and asks again
        clock.now += 1
        buckets.of(f"{clock.now}", (1.0, 10)).take()
    assert buckets.of("ann", (1.0, 10)) is one


def test_who_comes_back_finds_what_was_left(clock: Clock) -> None:
    buckets = Buckets()
    assert buckets.of("ann", (0.001, 2)).take_some(5) == 2
    for number in range(3000):
        buckets.of(f"user {number}", (0.001, 2)).take()
    assert buckets.of("ann", (0.001, 2)).take() > 900
    assert buckets.of("ann", (0.001, 2), "/other").take() == 0


def test_to_connect_again_brings_nobody_anything(clock: Clock) -> None:
    buckets = Buckets()
    first = buckets.of_nobody("192.0.2.1", (1.0, 10))
    beside = buckets.of_nobody("192.0.2.1", (1.0, 10))
    assert first.take_some(99) == beside.take_some(99) == 10
    del first
    again = buckets.of_nobody("192.0.2.1", (1.0, 10))
    clock.now += 3
    assert again.take_some(99) == 3
    assert buckets.of_nobody("192.0.2.2", (1.0, 10)).take_some(99) == 10
    del again, beside
    clock.now += 10
    assert buckets.of_nobody("192.0.2.1", (1.0, 10)).take_some(99) == 10


def test_addresses_that_have_gone_are_forgotten(clock: Clock) -> None:
    buckets = Buckets()
    for number in range(10_000):
        clock.now += 0.1
        buckets.of_nobody(f"address {number}", (1.0, 10)).take()
        assert len(buckets._rests) <= 2000


def test_a_stranger_who_comes_again_and_again_stores_no_more(
    app: Flask, serve: Serve
) -> None:
    app.config["WSCHAT_BYTE_LIMIT"] = (1.0, 1000)
    chat = WSChat(app)
    chat.listener("/chat")(ChatListener)
    server = serve(app)
    rests = app.extensions["wschat.chat"]._buckets._rests
    for number in range(5):
        stranger = Peer(server)
        stranger.ask("join", room="all")
        said = {"room": "all", "data": "x" * 598, "mid": f"{number}"}
        if number == 0:
            stranger.ask("say", **said)
        else:
            assert stranger.fail("say", **said)["code"] == "rate_limited"
        stranger.close()
        eventually(lambda: any(rests.values()))
