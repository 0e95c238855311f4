"""Threads that share a connection, switched at each line of what they run."""

from __future__ import annotations

import sys
from collections.abc import Callable
from typing import Any

import pytest

from flask_wschat import incoming
from flask_wschat.codec import Closed
from flask_wschat.errors import ConnectionClosed
from flask_wschat.websocket import Listener, WebSocket
from tests.support.interleaving import Explorer, Gate, Threads
from tests.support.stepped import Pair, SteppedLoop, loop

__all__ = ["loop"]

pytestmark = [pytest.mark.slow, pytest.mark.timeout(60)]

FILES = ["websocket.py", "peer.py", "incoming.py", "transports/waiting.py"]


@pytest.fixture
def explorer(loop: SteppedLoop) -> Explorer:
    return Explorer(loop, files=FILES)


class Places:
    """One that is given to two, by who looks and acts as if nobody were there."""

    def __init__(self) -> None:
        self.free = 1

    def take(self) -> None:
        if self.free:
            self.free -= 1


def test_a_race_is_found_and_said(loop: SteppedLoop) -> None:
    def scenario() -> Threads:
        places = Places()
        yield [places.take, places.take]
        assert places.free == 0

    with pytest.raises(AssertionError) as caught:
        Explorer(loop, files=[__file__]).explore(scenario)
    if sys.version_info >= (3, 11):
        [note] = caught.value.__notes__
        assert "thread 1 stops before line" in note and "of take in" in note


def test_a_deadlock_is_found_and_said(loop: SteppedLoop) -> None:
    def scenario() -> Threads:
        first, second = Gate(), Gate()

        def one() -> None:
            first.wait()
            second.open()

        def other() -> None:
            second.wait()
            first.open()

        yield [one, other]

    with pytest.raises(AssertionError, match="they wait for ever"):
        Explorer(loop, files=[__file__]).explore(scenario)


@pytest.mark.pain(2)
def test_sends_of_two_threads_all_arrive_in_order(
    explorer: Explorer, loop: SteppedLoop
) -> None:
    def scenario() -> Threads:
        with Pair(loop) as pair:
            send = pair.ws.send
            yield [lambda: (send("a1"), send("a2")), lambda: (send("b1"), send("b2"))]
            heard = [str(event) for event in pair.hear()]
            assert sorted(heard) == ["a1", "a2", "b1", "b2"]
            assert heard.index("a1") < heard.index("a2")
            assert heard.index("b1") < heard.index("b2")

    explorer.explore(scenario)


class Hearing(Listener):
    """Notes what it is told, and whether two calls overlap."""

    app_context = False

    def __init__(self, then: Callable[[WebSocket], Any] = lambda ws: None) -> None:
        self.told: list[Any] = []
        self._then = then
        self._inside = False

    def on_message(self, ws: WebSocket, message: str | bytes) -> None:
        assert not self._inside
        self._inside = True
        self.told.append(message)
        self._then(ws)
        self._inside = False

    def on_close(self, ws: WebSocket, code: int, reason: str) -> None:
        assert not self._inside
        self.told.append((code, reason))


def test_senders_that_wait_for_room_all_get_it(
    explorer: Explorer, loop: SteppedLoop
) -> None:
    message = "x" * 60

    def scenario() -> Threads:
        with Pair(loop, MAX_QUEUE=100) as pair:

            def send() -> None:
                for _ in range(2):
                    pair.ws.send(message)

            yield [send, send]
            assert pair.hear() == [message] * 4
            assert not pair.ws.closed

    explorer.explore(scenario)


def test_no_more_than_a_frame_over_the_limit_ever_waits(
    explorer: Explorer, loop: SteppedLoop
) -> None:
    message, limit = "x" * 60, 100
    frame = len(message) + 2

    def scenario() -> Threads:
        with Pair(loop, MAX_QUEUE=limit) as pair:
            ws, most = pair.ws, 0

            def look() -> None:
                nonlocal most
                most = max(most, ws._posted + ws._transport.queued)

            explorer.always = look

            def send() -> None:
                for _ in range(2):
                    ws.send(message)

            yield [send, send]
            assert limit <= most < limit + frame

    explorer.explore(scenario)


def test_what_was_sent_before_a_close_arrives_before_it(
    explorer: Explorer, loop: SteppedLoop
) -> None:
    def scenario() -> Threads:
        with Pair(loop) as pair:
            ws = pair.ws
            refused: list[str] = []

            def send_and_close() -> None:
                ws.send("before")
                ws.close(4001, "bye")
                try:
                    ws.send("late")
                except ConnectionClosed as error:
                    assert (error.code, error.reason) == (4001, "bye")
                    refused.append("late")

            def send() -> None:
                try:
                    ws.send("other")
                except ConnectionClosed as error:
                    assert (error.code, error.reason) == (4001, "bye")
                    refused.append("other")

            yield [send_and_close, send]
            *messages, end = pair.hear()
            assert "before" in messages
            assert end == Closed(4001, "bye")
            assert not set(messages) & set(refused)

    explorer.explore(scenario)


def test_one_of_two_closes_is_the_one(explorer: Explorer, loop: SteppedLoop) -> None:
    def scenario() -> Threads:
        with Pair(loop) as pair:
            ws, listener = pair.ws, Hearing()
            loop.do(ws._listen, listener)
            yield [lambda: ws.close(4001, "a"), lambda: ws.close(4002, "b")]
            [end] = pair.hear()
            assert isinstance(end, Closed)
            assert (end.code, end.reason) in [(4001, "a"), (4002, "b")]
            assert listener.told == [(end.code, end.reason)]
            assert (ws.close_code, ws.close_reason) == (end.code, end.reason)

    explorer.explore(scenario)


def test_an_end_that_is_seen_has_its_code(
    explorer: Explorer, loop: SteppedLoop
) -> None:
    def scenario() -> Threads:
        with Pair(loop) as pair:
            ws = pair.ws

            def look() -> None:
                assert not ws.closed or (ws.close_code, ws.close_reason) == (4001, "x")

            explorer.always = look

            def receive() -> None:
                with pytest.raises(ConnectionClosed) as caught:
                    ws.receive()
                assert caught.value.code == 4001

            end = pair.codec.close(4001, "x")
            yield [receive, lambda: pair.peer.sendall(end)]

    explorer.explore(scenario)


def test_a_view_receives_all_in_order(explorer: Explorer, loop: SteppedLoop) -> None:
    def scenario() -> Threads:
        with Pair(loop) as pair:
            received: list[str | bytes] = []

            def talk() -> None:
                pair.say("1")
                pair.say("2", "3")
                pair.peer.sendall(pair.codec.close())

            yield [lambda: received.extend(pair.ws), talk]
            assert received == ["1", "2", "3"]

    explorer.explore(scenario)


def test_whoever_empties_a_full_inbox_is_sent_more(
    explorer: Explorer, loop: SteppedLoop, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(incoming, "INBOX_LIMIT", 200)

    def scenario() -> Threads:
        with Pair(loop) as pair:
            received: list[str | bytes] = []

            def talk() -> None:
                for number in range(5):
                    pair.say(str(number) * 100)
                pair.peer.sendall(pair.codec.close())

            yield [lambda: received.extend(pair.ws), talk]
            assert received == [str(number) * 100 for number in range(5)]

    explorer.explore(scenario)


def test_a_view_that_waits_is_woken_by_a_close(
    explorer: Explorer, loop: SteppedLoop
) -> None:
    def scenario() -> Threads:
        with Pair(loop) as pair:
            received: list[str | bytes] = []

            def talk() -> None:
                pair.say("1")
                pair.say("2")

            close = pair.ws.close
            yield [lambda: received.extend(pair.ws), talk, lambda: close(4001)]
            assert received == ["1", "2"][: len(received)]
            assert pair.hear() == [Closed(4001, "")]
            assert pair.ws.close_code == 4001

    explorer.explore(scenario)


def test_a_listener_that_begins_while_messages_come_hears_all(
    explorer: Explorer, loop: SteppedLoop
) -> None:
    def scenario() -> Threads:
        with Pair(loop) as pair:
            listener = Hearing()

            def talk() -> None:
                pair.say("1")
                pair.say("2", "3")
                pair.peer.sendall(pair.codec.close(4001, "bye"))

            yield [lambda: pair.ws._listen(listener), talk]
            assert listener.told == ["1", "2", "3", (4001, "bye")]

    explorer.explore(scenario)


def test_a_listener_that_closes_hears_no_more(
    explorer: Explorer, loop: SteppedLoop
) -> None:
    def scenario() -> Threads:
        with Pair(loop) as pair:
            ws, inside, more = pair.ws, Gate(), Gate()

            def close(ws: WebSocket) -> None:
                inside.open()
                more.wait()
                ws.close(4100, "enough")

            def talk() -> None:
                pair.say("1")
                inside.wait()
                pair.say("2")
                more.open()

            listener = Hearing(close)
            loop.do(ws._listen, listener)
            yield [talk]
            assert listener.told == ["1", (4100, "enough")]
            assert pair.hear() == [Closed(4100, "enough")]

    explorer.explore(scenario)


def test_a_listener_answers_within_its_room(
    explorer: Explorer, loop: SteppedLoop
) -> None:
    def scenario() -> Threads:
        with Pair(loop, MAX_QUEUE=100) as pair:
            answer = "x" * 60
            listener = Hearing(lambda ws: ws.send(answer))
            listener.awaits_room = True
            loop.do(pair.ws._listen, listener)
            yield [lambda: pair.say("1", "2"), lambda: pair.ws.send(answer)]
            assert listener.told == ["1", "2"]
            assert pair.hear() == [answer] * 3

    explorer.explore(scenario)


def test_a_connection_has_one_name(explorer: Explorer, loop: SteppedLoop) -> None:
    def scenario() -> Threads:
        with Pair(loop) as pair:
            names: list[str] = []
            yield [lambda: names.append(pair.ws.id)] * 3
            assert names == [pair.ws.id] * 3

    explorer.explore(scenario)
