"""``Hub``: who is here, who gets what, and what is left when they go."""

from __future__ import annotations

import json
import threading
import time
from collections.abc import Sequence
from typing import Any

import pytest
from flask import Flask, request
from websockets.exceptions import ConnectionClosed, InvalidStatus

from flask_wschat import WSChat
from flask_wschat.backends.memory import MemoryBackend
from flask_wschat.codec import Connection
from flask_wschat.errors import BackendError
from flask_wschat.errors import ConnectionClosed as Closed
from flask_wschat.hub.deliveries import MOST
from flask_wschat.hub.hub import Hub
from flask_wschat.hub.pages import Position, View
from flask_wschat.hub.subscriptions import LINGER
from flask_wschat.messages import (
    EVERYONE,
    OPERATE,
    Delivery,
    Message,
    room_topic,
    user_topic,
)
from flask_wschat.settings import Settings
from flask_wschat.testing import WSChatClient
from flask_wschat.transports.memory import pair
from flask_wschat.websocket import Listener, WebSocket
from tests.support.in_memory import Open, Opened, Peer, another
from tests.support.live import LiveServer, Serve
from tests.support.waiting import DEADLINE, eventually


def test_a_publication_reaches_its_topic_in_order(opened: Open) -> None:
    ws, peer, hub = opened()
    other, other_peer = another(hub, "ann")
    other.join("a")
    hub.publish(EVERYONE, Message("1"))
    hub.publish(room_topic("a"), Message("2"))
    hub.publish(user_topic("ann"), Message(b"3"))
    hub.publish(room_topic("empty"), Message("nobody"))
    assert peer.events == ["1"]
    assert other_peer.events == ["1", "2", b"3"]
    hub.publish(EVERYONE, Message("4", exclude=ws.id))
    assert peer.events == ["1"]
    assert other_peer.events[-1] == "4"


def test_rooms_and_users_are_cleaned_up(opened: Open) -> None:
    ws, _, hub = opened()
    other, other_peer = another(hub, "ann")
    assert ws.join("a") and not ws.join("a")
    assert other.join("a") and other.join("b")
    assert ws.rooms == {"a"} and other.rooms == {"a", "b"}
    assert hub.users() == ["ann"] and hub.users(room_topic("b")) == ["ann"]
    assert ws.leave("a") and not ws.leave("a")
    other_peer.close()
    assert hub.users() == [] and other.rooms == frozenset()
    assert not other.join("a")
    assert set(hub.members.plain) == {EVERYONE}


def test_whoever_ends_is_out_of_everything_whatever_fails(opened: Open) -> None:
    _, _, hub = opened()
    reports: list[Exception] = []
    hub.report = reports.append
    ann, _ = another(hub, "ann")
    ann.join("a")
    ann.join("b")

    def tired(task: Any) -> None:
        raise RuntimeError("can't start new thread")

    loop: Any = ann._transport.loop
    loop.run = loop.run_own = tired
    hub.forget(ann)
    assert ann.rooms == frozenset()
    assert hub.users() == [] and set(hub.members.plain) == {EVERYONE}
    assert {str(error) for error in reports} == {"can't start new thread"}
    assert {room_topic("a"), room_topic("b"), user_topic("ann")} == set(
        hub._topics._idle
    )


def test_claims_are_renewed_where_the_storage_may_have_lost_them(opened: Open) -> None:
    ws, _, hub = opened()
    ws.join("a")
    backend: Any = hub.backend
    assert backend.history(room_topic("a")).plain
    timers = ws._transport.loop.timers  # type: ignore[attr-defined]

    def sweep() -> None:
        [(_, each)] = [timer for timer in timers if timer[0] == 1]
        timers.clear()
        each()

    sweep()
    backend._claimed.clear()
    sweep()  # once in a while is enough, as long as nothing is known to be lost
    assert not backend.history(room_topic("a")).plain
    hub.lost(None)
    assert backend.history(room_topic("a")).plain
    backend._claimed.clear()
    sweep()
    assert backend.history(room_topic("a")).plain
    assert not backend.history(room_topic("b")).plain


def test_users_are_counted_once(opened: Open) -> None:
    _, _, hub = opened()
    tabs = [another(hub, "ann") for _ in range(3)]
    another(hub, "bob")
    assert hub.users() == ["ann", "bob"]
    assert hub.count(user_topic("ann")) == 3
    tabs[0][1].close()
    assert hub.users() == ["ann", "bob"]


def test_an_order_to_close_reaches_a_user(opened: Open) -> None:
    _, peer, hub = opened()
    _, ann = another(hub, "ann")
    hub.publish(user_topic("ann"), Message("banned", close_code=4003))
    assert [tuple(e) for e in ann.events if not isinstance(e, str)] == [
        (4003, "banned")
    ]
    assert peer.events == []


def test_what_a_delivery_causes_comes_after_it(opened: Open) -> None:
    """A peer that overflows leaves, and its listener tells the others so."""

    class Leaver(Listener):
        app_context = False

        def on_close(self, ws: WebSocket, code: int, reason: str) -> None:
            hub.publish(EVERYONE, Message(f"left {code}"))

    _, peer, hub = opened(MAX_QUEUE=10)
    slow, slow_peer = another(hub)
    slow._listen(Leaver())
    slow_peer.transport.pause()
    for number in range(3):
        hub.publish(EVERYONE, Message(f"message {number}"))
    assert peer.events == ["message 0", "message 1", "left 1013", "message 2"]


def test_the_sweep_stops_when_nobody_is_left(opened: Open) -> None:
    opened_pair: Opened = opened(PING_INTERVAL=4, PING_TIMEOUT=4)
    ws, peer, hub = opened_pair
    timers = ws._transport.loop.timers  # type: ignore[attr-defined]
    [(seconds, sweep)] = timers
    assert seconds == 1
    timers.clear()
    ws._sweep_at = 0
    sweep()
    assert ws._pinged and len(timers) == 1
    peer.transport.abort()
    timers.pop()[1]()
    assert timers == []
    again, _ = another(hub)
    assert len(again._transport.loop.timers) == 1  # type: ignore[attr-defined]


def test_a_connection_that_cannot_be_swept_costs_no_other_its_sweep(
    opened: Open, caplog: pytest.LogCaptureFixture
) -> None:
    ws, _, hub = opened()
    ours, theirs = pair()
    theirs.start(Peer(theirs))
    other = WebSocket(ours, hub, Connection())
    hub.register(other, ours.loop)
    other._start()
    for one in (ws, other):
        one._sweep_at = 0.0
    ws._transport.standing = None  # type: ignore[method-assign, assignment]
    hub._sweep._sweep()
    assert "TypeError" in caplog.text
    assert ws._gone and not other.closed
    assert other._pinged and ours.loop.timers
    other.close()


def test_a_topic_is_given_up_after_its_last_member(opened: Open) -> None:
    ws, _, hub = opened()
    topics, loop = hub._topics, ws._transport.loop
    ws.join("a")
    assert room_topic("a") in topics._delivered
    ws.leave("a")
    far = time.monotonic() + LINGER
    assert topics.tick(loop, far - LINGER / 2)
    assert room_topic("a") in topics._delivered  # people reload pages
    ws.join("a")
    assert not topics.tick(loop, far + 1)
    assert room_topic("a") in topics._delivered
    ws.leave("a")
    topics._idle[room_topic("a")] = 0
    assert not topics.tick(loop, far + 1)
    assert topics._delivered == {EVERYONE, OPERATE}
    ws.join("a")
    assert room_topic("a") in topics._delivered


class Deaf(MemoryBackend):
    """One whose subscriptions fail as long as it is ``down``."""

    down = False

    def __init__(self) -> None:
        super().__init__()
        self.wanted: set[str] = set()

    def unsubscribe(self, topics: Sequence[str]) -> None:
        self.wanted.difference_update(topics)
        super().unsubscribe(topics)

    def subscribe(self, topics: Sequence[str]) -> None:
        self.wanted.update(topics)
        if self.down:
            raise BackendError("down")
        super().subscribe(topics)


def test_a_topic_whose_join_failed_is_let_go() -> None:
    """The backend goes on to want it, until it is told not to."""
    backend = Deaf()
    hub = Hub(Settings(), backend, dumps=json.dumps, loads=json.loads)
    ws, _ = another(hub)
    topics, loop = hub._topics, ws._transport.loop
    backend.down = True
    hub.rooms._enter(ws, "a")
    assert backend.wanted == {EVERYONE, OPERATE, room_topic("a")}
    assert room_topic("a") in topics._failed
    hub.leave(ws, "a")
    assert topics.tick(loop, time.monotonic())
    topics._idle[room_topic("a")] = 0
    assert not topics.tick(loop, time.monotonic())
    assert backend.wanted == {EVERYONE, OPERATE} == topics._subscribed


def test_what_cannot_be_subscribed_is_not_joined(app: Flask, serve: Serve) -> None:
    app.config["WSCHAT_URL"] = backend = Deaf()
    chat = WSChat(app)

    @chat.route("/<room>")
    def join(ws: WebSocket, room: str) -> None:
        try:
            ws.send(str(ws.join(room)))
        except BackendError as error:
            ws.send(f"{error} {sorted(ws.rooms)}")
        ws.receive()

    server = serve(app)
    with server.connect("/a") as client:
        assert client.recv(DEADLINE) == "True"
        backend.down = True
        with server.connect("/a") as other:
            assert other.recv(DEADLINE) == "True"  # it is subscribed
        with server.connect("/b") as other:
            assert other.recv(DEADLINE) == "down []"
        backend.down = False
        with server.connect("/b") as other:
            assert other.recv(DEADLINE) == "True"
            chat.broadcast("hi", room="b")
            assert other.recv(DEADLINE) == "hi"


def test_who_connects_while_nothing_would_come_is_sent_away(
    app: Flask, serve: Serve, caplog: pytest.LogCaptureFixture
) -> None:
    """And is served later: all that is wanted is tried again by the sweep."""
    app.config["WSCHAT_PING_TIMEOUT"] = 0.2
    app.config["WSCHAT_URL"] = backend = Deaf()
    chat = WSChat(app)
    backend.down = True

    chat.authenticate(lambda: request.args.get("user"))

    @chat.route("/")
    def view(ws: WebSocket) -> None:
        ws.send("ready")
        ws.receive()

    server = serve(app)
    for _ in range(3):
        with pytest.raises(InvalidStatus) as refused:
            server.connect("/")
        assert refused.value.response.status_code == 503
        assert refused.value.response.headers["Retry-After"] == "2"
    assert caplog.text.count("connections are refused with 503: down") == 1
    backend.down = False
    with server.connect("/") as client:
        assert client.recv(DEADLINE) == "ready"
        chat.broadcast("hi")
        assert client.recv(DEADLINE) == "hi"
        # What is for all comes, but not what is for a user who is new here.
        backend.down = True
        with (
            server.connect("/?user=ann") as ann,
            pytest.raises(ConnectionClosed) as end,
        ):
            ann.recv(DEADLINE)
        assert end.value.rcvd is not None and end.value.rcvd.code == 1013
        assert "new connections are closed with 1013: down" in caplog.text


def test_more_than_the_loop_can_deliver_is_lost_aloud(
    opened: Open, caplog: pytest.LogCaptureFixture
) -> None:
    _, peer, hub = opened()
    hub._deliveries.waiting.extend([Delivery(EVERYONE, Message("old"))] * (MOST + 1))
    hub.deliver(Delivery(EVERYONE, Message("new")))
    assert "are lost" in caplog.text
    assert peer.events == []
    hub.publish(EVERYONE, Message("next"))
    assert peer.events == ["next"]


def test_a_loop_that_has_ended_is_told_nothing(app: Flask, serve: Serve) -> None:
    chat = WSChat(app)

    @chat.route("/")
    def view(ws: WebSocket) -> None:
        ws.receive()

    server = LiveServer(app)
    with server.connect("/"):
        chat.broadcast("hi")
    server.stop()
    chat.broadcast("too late")
    chat._hub().shutdown()


def test_a_flood_of_deliveries_gives_the_others_their_turn(
    opened: Open, monkeypatch: pytest.MonkeyPatch
) -> None:
    ws, peer, hub = opened()
    timers = ws._transport.loop.timers  # type: ignore[attr-defined]
    timers.clear()
    monkeypatch.setattr("flask_wschat.hub.deliveries.TURN", 0)
    hub._deliveries.waiting.extend(
        Delivery(EVERYONE, Message(str(number))) for number in range(5)
    )
    hub.deliver(Delivery(EVERYONE, Message("5")))
    assert peer.events == ["0"]
    hub.deliver(Delivery(EVERYONE, Message("6")))  # comes in the same turn
    for turn in range(1, 7):
        assert len(peer.events) == turn
        ((seconds, go_on),) = timers
        assert seconds == 0
        timers.clear()
        go_on()
    assert peer.events == [str(number) for number in range(7)]


def test_a_greenlet_waits_where_deliveries_pile_up(app: Flask, serve: Serve) -> None:
    """Others of its loop have their turn, so nothing else would hold it back."""
    chat = WSChat(app)
    hub = chat._hub()

    @chat.listener("/")
    class Crowd(Listener):
        def on_message(self, ws: WebSocket, message: str | bytes) -> None:
            # As those of other processes come, in a loop that has too much to do.
            deliveries = hub._deliveries
            deliveries._resting = hub.home.stay
            deliveries.waiting.extend([Delivery("room:none", Message(""))] * 5000)
            hub.home.later(0.05, deliveries._go_on)
            hub.publish("room:none", Message(""))
            ws.send(str(len(deliveries.waiting)))

    with serve(app).connect("/") as client:
        client.send("publish")
        assert int(client.recv(DEADLINE)) <= 1000


def test_a_delivery_that_fails_leaves_the_others_alone(
    opened: Open, monkeypatch: pytest.MonkeyPatch
) -> None:
    # However busy this machine is, none is left for later.
    monkeypatch.setattr("flask_wschat.hub.deliveries.TURN", DEADLINE)
    _, peer, hub = opened()
    errors: list[BaseException] = []
    hub.report = errors.append
    chatting, chat_peer = another(hub, plain=False)
    hub.attach(chatting)
    hub._deliveries.waiting.extend(
        [
            Delivery(EVERYONE, Message("", close_code=1005)),  # may not be sent
            Delivery(EVERYONE, Message("half a pair: \ud800")),
            Delivery(EVERYONE, Message(None)),  # type: ignore[arg-type]
        ]
    )
    hub.publish(EVERYONE, Message("next"))
    assert peer.events == ["half a pair: ?", "next"]
    texts = [json.loads(str(event))["data"] for event in chat_peer.events]
    assert [text for text in texts if text] == ["half a pair: ?", "next"]
    assert 2 <= len(errors) <= 4


def test_who_left_is_read_nothing(opened: Open) -> None:
    _, _, hub = opened()
    ws, peer = another(hub, plain=False)
    hub.attach(ws)
    hub.join(ws, "a")
    peer.close()

    def answer(view: View) -> str:
        raise AssertionError("it would be sent")

    with pytest.raises(Closed):
        hub.readings.read(ws, room_topic("a"), Position(), 9, answer)


def test_a_thread_that_outlives_the_loop_is_not_held_up(app: Flask) -> None:
    chat = WSChat(app)

    @chat.route("/")
    def view(ws: WebSocket) -> None:
        ws.receive()

    server = LiveServer(app)
    with server.connect("/"):
        eventually(lambda: chat._hub().count() == 1)
    server.stop()
    for number in range(3000):
        chat.broadcast(str(number))


def test_the_connections_home_is_where_the_first_one_came_to(
    app: Flask, chat: WSChat, serve: Serve
) -> None:
    """And another loop once there is none; see tests/test_two_loops.py."""

    @chat.route("/")
    def view(ws: WebSocket) -> None:
        ws.join("a")
        for message in ws:
            chat.broadcast(message, room="a")

    one, other = serve(app), serve(app)
    for server in (other, one):
        with server.connect("/") as first:
            first.send("hi")
            assert first.recv(DEADLINE) == "hi"
            assert chat._hub()._sweep._planned
        eventually(lambda: not chat._hub().count())
    with WSChatClient(app).connect("/") as client:
        client.send("hi")
        client.assert_received("hi")


def test_a_loop_that_ended_with_its_connections_leaves_room(
    app: Flask, chat: WSChat, serve: Serve
) -> None:
    @chat.route("/")
    def view(ws: WebSocket) -> None:
        ws.join("a")
        ws.receive()

    server = LiveServer(app)
    client = server.connect("/")
    eventually(lambda: chat._hub().count(room_topic("a")) == 1)
    chat.broadcast("hi", room="a")
    assert client.recv(DEADLINE) == "hi"
    server.stop()
    with serve(app).connect("/") as client:
        eventually(lambda: chat._hub().count(room_topic("a")) == 1)
        chat.broadcast("hi", room="a")
        assert client.recv(DEADLINE) == "hi"


def test_events_and_threads_are_those_of_the_caller(
    app: Flask, chat: WSChat, server: LiveServer
) -> None:
    """A greenlet waits without its loop, a thread by itself; both for any thread."""
    hub = chat._hub()
    answers: list[Any] = []

    def wait() -> None:
        event = hub.event()
        assert not event.wait(0.001)
        hub.start_thread(event.set)
        assert event.wait()
        event.clear()
        assert not event.wait(0.001)
        event.set()
        event.set()
        assert event.wait(1)
        answers.append(hub.run_blocking(threading.get_ident))
        with pytest.raises(ZeroDivisionError):
            hub.run_blocking(lambda: 1 / 0)

    @chat.route("/")
    def view(ws: WebSocket) -> None:
        wait()
        answers.append(threading.get_ident())
        ws.send("done")

    with server.connect("/") as client:
        assert client.recv(DEADLINE) == "done"
    in_pool, in_loop = answers
    assert in_pool != in_loop
    wait()
    assert answers[2] == threading.get_ident()
