"""``WebSocket`` over a joined pair in memory, with a codec as the peer."""

from __future__ import annotations

import contextlib
import logging

import pytest
from flask import Flask

from flask_wschat import WSChat
from flask_wschat.codec import (
    Closed,
    EncodedMessage,
    Ping,
    Pong,
)
from flask_wschat.errors import ConnectionClosed
from flask_wschat.hub.audience import deliver
from flask_wschat.incoming import INBOX_LIMIT
from flask_wschat.transports.memory import MemoryTransport
from flask_wschat.websocket import Listener, WebSocket
from tests.support.in_memory import Open
from tests.support.live import Serve
from tests.support.waiting import DEADLINE


class Recorder(Listener):
    app_context = False

    def __init__(self) -> None:
        self.messages: list[str | bytes] = []
        self.closes: list[tuple[int, str]] = []

    def on_message(self, ws: WebSocket, message: str | bytes) -> None:
        self.messages.append(message)

    def on_close(self, ws: WebSocket, code: int, reason: str) -> None:
        self.closes.append((code, reason))


def test_messages_pass_both_ways(opened: Open) -> None:
    ws, peer, _ = opened()
    ws.send("text")
    ws.send(b"binary")
    ws.send(bytearray(b"more"))
    ws.send({"a": 1})
    ws.send_json("quoted")
    assert peer.events == ["text", b"binary", b"more", "{'a': 1}", "'quoted'"]
    peer.send("hello", b"\x00", "[1]")
    assert ws.receive() == "hello"
    assert ws.receive(timeout=0) == b"\x00"
    assert ws.receive_json() == [1]


def test_receive_times_out_and_loses_nothing(opened: Open) -> None:
    ws, peer, _ = opened()
    with pytest.raises(TimeoutError, match="no message within"):
        ws.receive(timeout=0.01)
    peer.send("late")
    assert ws.receive(timeout=0) == "late"


def test_a_look_into_the_inbox_lets_others_run(
    app: Flask, chat: WSChat, serve: Serve
) -> None:
    """In a loop of them, nothing else would ever come."""
    rounds: list[int] = []

    @chat.route("/")
    def poll(ws: WebSocket) -> None:
        while True:
            rounds.append(1)
            with contextlib.suppress(TimeoutError):
                ws.send(ws.receive(timeout=0))

    server = serve(app)
    with server.connect("/") as client, server.connect("/") as other:
        for number in range(5):
            client.send(str(number))
            other.send(str(number))
            assert client.recv(DEADLINE) == other.recv(DEADLINE) == str(number)
    assert len(rounds) > 10


def test_what_came_before_the_end_is_received(opened: Open) -> None:
    ws, peer, _ = opened()
    peer.send("one", "two")
    peer.close(4001, "bye")
    assert ws.closed
    assert (ws.close_code, ws.close_reason) == (4001, "bye")
    assert list(ws) == ["one", "two"]
    with pytest.raises(ConnectionClosed) as caught:
        ws.receive()
    assert (caught.value.code, caught.value.reason) == (4001, "bye")
    with pytest.raises(ConnectionClosed):
        ws.send("x")
    assert peer.lost


def test_our_close_is_said_once_and_answered(opened: Open) -> None:
    ws, peer, hub = opened()
    ws.send("before")
    ws.close(4002, "enough")
    ws.close(4003)
    assert peer.events == ["before", Closed(4002, "enough")]
    assert ws.closed and ws.close_code == 4002
    assert peer.lost
    assert hub.count() == 0


def test_a_code_that_may_not_be_sent_is_refused(opened: Open) -> None:
    ws, _, _ = opened()
    with pytest.raises(ValueError, match="1005"):
        ws.close(1005)
    assert not ws.closed


def test_a_peer_that_never_answers_our_close_is_cut_off(opened: Open) -> None:
    ws, peer, _ = opened(CLOSE_TIMEOUT=3)
    peer.transport.pause()
    ws.close()
    transport = ws._transport
    assert isinstance(transport, MemoryTransport) and transport.open
    [cut] = [callback for seconds, callback in transport.loop.timers if seconds == 3]
    cut()
    assert not transport.open


def test_a_protocol_fault_becomes_a_close_code(opened: Open) -> None:
    ws, peer, _ = opened()
    peer.transport.write(bytes.fromhex("810548656c6c6f"))  # unmasked
    assert [type(event) for event in peer.events] == [Closed]
    assert ws.close_code == 1002
    with pytest.raises(ConnectionClosed):
        ws.receive()


def test_a_message_over_the_limit_ends_with_1009(opened: Open) -> None:
    ws, peer, _ = opened(MAX_MESSAGE=10)
    peer.send("x" * 10, "y" * 11)
    assert list(ws) == ["x" * 10]
    assert ws.close_code == 1009


def test_a_lost_connection_is_1006(opened: Open) -> None:
    ws, peer, hub = opened()
    ws.join("room")
    peer.transport.abort()
    assert ws.closed and ws.close_code == 1006
    assert hub.count() == 0 and hub.count("room:room") == 0


def test_pings_are_answered_and_pongs_ignored(opened: Open) -> None:
    ws, peer, _ = opened()
    peer.transport.write(peer.connection.ping(b"are you there"))
    assert [tuple(event) for event in peer.events] == [(b"are you there",)]
    assert ws._inbox is None


def test_a_listener_gets_everything_in_order_and_one_close(opened: Open) -> None:
    ws, peer, _ = opened()
    peer.send("early")
    listener = Recorder()
    ws._listen(listener)
    peer.send("one", b"two")
    peer.close(4000, "done")
    peer.transport.abort()
    ws.close()
    assert listener.messages == ["early", "one", b"two"]
    assert listener.closes == [(4000, "done")]


def test_a_listener_that_closes_hears_no_more(opened: Open) -> None:
    class Once(Recorder):
        def on_message(self, ws: WebSocket, message: str | bytes) -> None:
            super().on_message(ws, message)
            ws.close(4100, "enough")

    ws, peer, _ = opened()
    listener = Once()
    ws._listen(listener)
    peer.send("one", "two", "three")
    assert listener.messages == ["one"]
    assert listener.closes == [(4100, "enough")]


def test_an_error_in_a_listener_is_logged_and_ends_its_connection(
    opened: Open, caplog: pytest.LogCaptureFixture
) -> None:
    class Broken(Recorder):
        def on_message(self, ws: WebSocket, message: str | bytes) -> None:
            raise ZeroDivisionError("oops")

    ws, peer, _ = opened()
    listener = Broken()
    ws._listen(listener)
    with caplog.at_level(logging.ERROR):
        peer.send("x")
    assert "ZeroDivisionError: oops" in caplog.text
    assert peer.events == [Closed(1011, "internal error")]
    assert listener.closes == [(1011, "internal error")]


def test_unread_messages_stop_the_reading(opened: Open) -> None:
    ws, peer, _ = opened()
    big = b"x" * (INBOX_LIMIT // 4)
    for _ in range(20):
        peer.send(big)
    assert ws._waiting < INBOX_LIMIT * 2
    assert peer.transport.queued > 0
    assert [ws.receive(timeout=0) for _ in range(20)] == [big] * 20
    assert peer.transport.queued == 0


def test_a_peer_that_makes_us_answer_and_does_not_read_is_not_read(
    opened: Open,
) -> None:
    ws, peer, _ = opened(MAX_QUEUE=1000)
    peer.transport.pause()
    for number in range(1000):
        peer.transport.write(peer.connection.ping(b"%0100d" % number))
    assert ws._transport.queued < 2500
    peer.transport.resume()
    answers = [event.payload for event in peer.events if isinstance(event, Pong)]
    # Of many that come at once, not each is answered: RFC 6455 §5.5.3.
    assert answers == sorted(answers)
    assert int(answers[-1]) == 999


def test_a_slow_peer_is_closed_with_1013(
    opened: Open, caplog: pytest.LogCaptureFixture
) -> None:
    ws, peer, hub = opened(MAX_QUEUE=100)
    peer.transport.pause()
    message = EncodedMessage("x" * 60)
    for _ in range(5):
        deliver([ws], message)
    assert ws.closed and ws.close_code == 1013
    assert "WSCHAT_MAX_QUEUE" in caplog.text
    assert hub.figures["slow_closes"] == 1
    peer.transport.resume()
    assert peer.events[-1] == Closed(1013, "too slow")


def test_a_slow_peer_loses_the_oldest_if_so_chosen_and_the_log_says_so(
    opened: Open, caplog: pytest.LogCaptureFixture
) -> None:
    ws, peer, hub = opened(MAX_QUEUE=100, SLOW_POLICY="drop_oldest")
    peer.transport.pause()
    for number in range(50):
        deliver([ws], EncodedMessage(f"{number:020}"))
    assert not ws.closed
    peer.transport.resume()
    assert peer.events[-1] == f"{49:020}"
    assert len(peer.events) < 10
    assert hub.figures["dropped"] == 50 - len(peer.events)
    (line,) = (r.getMessage() for r in caplog.records)
    assert "the oldest 1 messages to it are lost" in line and ws.id in line


@pytest.mark.pain(7)
def test_the_sweep_pings_and_ends_who_does_not_answer(opened: Open) -> None:
    ws, peer, hub = opened(PING_INTERVAL=10, PING_TIMEOUT=4)
    ws._sweep(100, 10, 4)
    assert peer.events == [Ping(b"")]  # and its codec has answered
    ws._sweep(104, 10, 4)
    assert not ws.closed and ws._sweep_at == 110
    peer.transport.pause()
    ws._sweep(110, 10, 4)
    assert ws._sweep_at == 114
    ws._sweep(114, 10, 4)
    assert ws.closed and (ws.close_code, ws.close_reason) == (1006, "ping timeout")
    assert hub.count() == 0


def test_ids_are_unique_and_stay(opened: Open) -> None:
    one, _, _ = opened()
    other, _, _ = opened()
    assert one.id == one.id != other.id


def test_completion_shows_what_users_call_and_nothing_else(opened: Open) -> None:
    ws, _, _ = opened()
    shown = {name for name in dir(ws) if not name.startswith("_")}
    assert shown == {
        *("id", "user", "route", "address", "subprotocol", "rooms"),
        *("join", "leave"),
        *("send", "send_json", "receive", "receive_json", "close"),
        *("closed", "close_code", "close_reason"),
    }
    attributes = shown - vars(WebSocket).keys()
    assert attributes == WebSocket.__annotations__.keys()
    assert not hasattr(ws, "__dict__")


def test_an_inbox_emptied_while_the_queue_is_full_is_filled_again(
    opened: Open,
) -> None:
    ws, peer, _ = opened(MAX_QUEUE=1000)
    peer.send("x" * INBOX_LIMIT)  # all that is read until it is taken
    peer.transport.pause()  # it only talks, for now
    ws.send("y" * 1000)
    assert len(ws.receive(0)) == INBOX_LIMIT
    peer.transport.resume()
    peer.send("more")
    assert ws.receive(0) == "more"
