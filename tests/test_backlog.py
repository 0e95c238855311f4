"""``WSCHAT_MAX_QUEUED``: what waits for all peers together."""

from __future__ import annotations

import contextlib
import logging
import socket
import threading
from collections.abc import Iterable
from typing import Any

import gevent
import pytest

from flask_wschat.backends.memory import MemoryBackend
from flask_wschat.codec import CloseCode, Connection
from flask_wschat.errors import ConnectionClosed
from flask_wschat.hub.hub import Hub
from flask_wschat.messages import EVERYONE, Delivery, Message
from flask_wschat.settings import Settings
from flask_wschat.transports.evented import EventedTransport
from flask_wschat.websocket import WebSocket
from tests.support.in_memory import Peer, another, open_pair
from tests.support.waiting import DEADLINE, eventually

MIB = 1 << 20
Pair = tuple[WebSocket, Peer]


def stalled(hub: Hub, count: int) -> list[Pair]:
    """Return connections whose peers read nothing."""
    pairs = [another(hub) for _ in range(count)]
    for _, peer in pairs:
        peer.transport.pause()
    return pairs


def say(ws: WebSocket, data: str | bytes) -> None:
    """Send, unless it is closed, or has to be for this."""
    if not ws.closed:
        with contextlib.suppress(ConnectionClosed):
            ws.send(data)


def closed(pairs: Iterable[Pair]) -> list[int | None]:
    return [ws.close_code for ws, _ in pairs if ws.closed]


def test_the_total_is_kept_by_closing_the_slowest(
    caplog: pytest.LogCaptureFixture,
) -> None:
    ws, peer, hub = open_pair(MAX_QUEUE=100_000, MAX_QUEUED=MIB)
    slow = stalled(hub, 40)
    with caplog.at_level(logging.WARNING):
        for number in range(5):
            for each, _ in slow:
                say(each, b"%d" % number + bytes(15_000))
                assert hub.backlog.held() < MIB
            ws.send(str(number))
    assert peer.events == list("01234")
    gone = closed(slow)
    assert 0 < len(gone) < 40, "the others go on"
    assert set(gone) == {CloseCode.TRY_AGAIN_LATER}
    assert hub.figures["slow_closes"] == len(gone)
    [line] = caplog.messages
    assert "WSCHAT_MAX_QUEUED" in line and "1013" in line
    assert hub.backlog.queued() == sum(
        each._transport.queued for each in (*hub.everyone(), *hub.leaving)
    )


def test_who_is_closed_is_told_so(caplog: pytest.LogCaptureFixture) -> None:
    _, _, hub = open_pair(MAX_QUEUE=500_000, MAX_QUEUED=MIB)
    slow = stalled(hub, 4)
    for ws, _ in slow:
        ws.send(bytes(250_000))
    hub.publish(EVERYONE, Message("now it is too much"))
    [(ws, peer)] = [(ws, peer) for ws, peer in slow if ws.closed]
    peer.transport.resume()
    [end] = peer.events
    assert getattr(end, "code", None) == 1013
    assert ws.close_code == 1013


def test_a_frame_that_many_wait_for_counts_once() -> None:
    _, _, hub = open_pair(MAX_QUEUE=MIB, MAX_QUEUED=8 * MIB)
    slow = stalled(hub, 300)
    for _ in range(5):
        hub.publish(EVERYONE, Message(bytes(MIB // 5)))
    assert not closed(slow)
    assert MIB < hub.backlog.held() < 1.2 * MIB
    assert hub.backlog.queued() > 300 * MIB


def test_who_is_left_with_old_frames_goes_before_who_is_behind_a_little() -> None:
    _, _, hub = open_pair(MAX_QUEUE=MIB, MAX_QUEUED=MIB)
    far, near = stalled(hub, 1), stalled(hub, 20)
    for _ in range(8):
        hub.publish(EVERYONE, Message(bytes(100_000)))
        for _, peer in near:
            peer.transport.resume()
            peer.transport.pause()
    hub.publish(EVERYONE, Message(bytes(100_000)))
    for _ in range(8):
        hub.publish(EVERYONE, Message(bytes(1000)))
        hub.publish(EVERYONE, Message(bytes(20_000)))
    assert closed(far) == [1013]
    assert not closed(near)


def test_who_takes_nothing_goes_before_who_has_more(
    caplog: pytest.LogCaptureFixture,
) -> None:
    _, _, hub = open_pair(MAX_QUEUE=MIB, MAX_QUEUED=MIB)
    standing, moving = stalled(hub, 1), stalled(hub, 1)
    standing[0][0].send(bytes(200_000))
    standing[0][0]._sweep(0.0, 25.0, 20.0)
    moving[0][0].send(bytes(600_000))
    hub.publish(EVERYONE, Message(bytes(200_000)))
    hub.publish(EVERYONE, Message("see"))
    assert closed(standing) == [1013]
    assert not closed(moving)


def test_slow_but_steady_readers_are_not_closed_at_once() -> None:
    """They get less than is said; each turn some have to go, and the rest goes on."""
    _, _, hub = open_pair(MAX_QUEUE=200_000, MAX_QUEUED=2 * MIB)
    slow = stalled(hub, 100)
    left = [100]
    for number in range(30):
        for index, (ws, peer) in enumerate(slow):
            say(ws, bytes(5_000))
            if (number + index) % 3 == 0:
                peer.transport.resume()
                peer.transport.pause()
        left.append(100 - len(closed(slow)))
        assert hub.backlog.held() < 2 * MIB
        assert left[-1] > left[-2] * 2 // 3
    assert left[-1] == 100, "they take what is said to them in time"
    for _ in range(30):
        for ws, _ in slow:
            say(ws, bytes(5_000))
        left.append(100 - len(closed(slow)))
        assert left[-1] > left[-2] * 2 // 3
    assert 0 < left[-1] < 100


@pytest.mark.parametrize("count", [1, 10])
def test_a_limit_smaller_than_a_frame_lets_those_who_read_go_on(count: int) -> None:
    ws, peer, hub = open_pair(MAX_QUEUE=10, MAX_QUEUED=10)
    slow = stalled(hub, count)
    for number in range(20):
        hub.publish(EVERYONE, Message(f"{number:01000}"))
        ws.send(bytes(100))
    assert len([e for e in peer.events if isinstance(e, str)]) == 20
    assert closed(slow) == [1013] * count
    hub.backlog.allowance.left = -1
    hub.backlog.look()
    assert hub.backlog.allowance.left >= 0
    assert not hub.backlog.held()


def test_those_that_ended_count_and_go_first() -> None:
    """A peer that never takes its last words."""
    ws, _, hub = open_pair(MAX_QUEUE=MIB, MAX_QUEUED=MIB)
    leaving, slow = stalled(hub, 5), stalled(hub, 1)
    for each, _ in leaving:
        each.send(bytes(170_000))
        each.close()
    assert len(hub.leaving) == 5
    assert hub.backlog.held() > 5 * 170_000
    slow[0][0].send(bytes(300_000))
    ws.send("look")
    hub.backlog.allowance.left = -1
    hub.backlog.look()
    assert hub.backlog.held() < MIB * 7 // 8
    assert not slow[0][0].closed
    assert 0 < len(hub.leaving) < 5


def test_tiny_frames_count_for_what_they_take() -> None:
    _, _, hub = open_pair(MAX_QUEUE=MIB, MAX_QUEUED=2 * MIB)
    [(ws, _)] = stalled(hub, 1)
    ws.send("")
    ws.send("x")
    count = 2
    while not ws.closed:
        say(ws, "xy")
        count += 1
        assert hub.backlog.held() < 2 * MIB
    assert count * 4 < 200_000, "long before its own queue was full"


def test_keys_count_too() -> None:
    _, _, hub = open_pair(MAX_QUEUE=MIB, MAX_QUEUED=2 * MIB)
    stalled(hub, 10)
    for number in range(1000):
        hub.publish(EVERYONE, Message("x", key=str(number)))
    assert hub.backlog.held() > 10 * 1000 * 100


def test_pongs_count() -> None:
    _, _, hub = open_pair(MAX_QUEUE=50_000, MAX_QUEUED=100_000)
    slow = stalled(hub, 10)
    for _ in range(30):
        for ws, peer in slow:
            if not ws.closed:
                for _ in range(10):
                    peer.transport.write(peer.connection.ping(bytes(120)))
            assert hub.backlog.held() < 150_000
    assert closed(slow)


def test_each_application_has_its_own() -> None:
    _, _, full = open_pair(MAX_QUEUE=100_000, MAX_QUEUED=100_000)
    _, _, other = open_pair(MAX_QUEUE=100_000, MAX_QUEUED=100_000)
    bystanders = stalled(other, 2)
    for ws, _ in bystanders:
        ws.send(bytes(30_000))
    slow = stalled(full, 20)
    for ws, _ in slow:
        ws.send(bytes(30_000))
    assert closed(slow)
    assert not closed(bystanders)
    assert other.figures["slow_closes"] == 0


def test_another_process_begins_anew() -> None:
    _, _, hub = open_pair(MAX_QUEUE=100, MAX_QUEUED=16_000)
    hub.backlog.allowance.left = -5
    hub.backlog.posted = 12
    hub.forget_all()
    assert hub.backlog.allowance.left == 15_000
    assert hub.backlog.posted == 0
    hub.backlog.look()
    assert hub.backlog.queued() == hub.backlog.held() == 0


def test_nobody_looks_while_there_is_room(monkeypatch: pytest.MonkeyPatch) -> None:
    """What is queued and sent costs no look at the others, however many there are."""
    _, peer, hub = open_pair(MAX_QUEUED=MIB)
    for _ in range(50):
        another(hub)
    looks = []
    held = hub.backlog._held

    def look() -> list[tuple[WebSocket, int]]:
        looks.append(held())
        return looks[-1]

    monkeypatch.setattr(hub.backlog, "_held", look)
    for _ in range(2000):
        hub.publish(EVERYONE, Message("x" * 300))
    # In memory each receiver takes the whole frame from the allowance.
    assert 0 < len(looks) <= 2000 * 51 * (304 + 64) // (MIB * 15 // 16)
    assert len(peer.events) == 2000


# -- what the backend delivers, and the loop has had no time for


def deliver_elsewhere(hub: Hub, count: int, size: int) -> None:
    """Deliver from another thread, while the loop does not turn."""

    def deliver() -> None:
        for number in range(count):
            hub.deliver(Delivery(EVERYONE, Message(f"{number:0{size}}")))

    thread = threading.Thread(target=deliver)
    thread.start()
    thread.join(DEADLINE)
    assert not thread.is_alive()


def evented_hub(**config: Any) -> tuple[Hub, WebSocket, socket.socket]:
    settings = Settings(**config)
    hub = Hub(settings, MemoryBackend(), dumps=repr, loads=repr)
    ours, theirs = socket.socketpair()
    ours.setblocking(False)
    transport = EventedTransport(
        ours.detach(),
        max_queue=settings.MAX_QUEUE,
        allowance=hub.backlog.allowance,
    )
    ws = WebSocket(transport, hub, Connection())
    hub.register(ws, transport.loop)
    ws._start()
    return hub, ws, theirs


def test_deliveries_that_wait_are_bounded_in_bytes(
    caplog: pytest.LogCaptureFixture,
) -> None:
    hub, ws, theirs = evented_hub(MAX_QUEUE=1000, MAX_QUEUED=MIB)
    with contextlib.closing(theirs):
        waiting = hub._deliveries.waiting
        deliver_elsewhere(hub, 9, 100_000)
        assert len(waiting) == 9
        assert hub._deliveries.behind
        deliver_elsewhere(hub, 3, 100_000)
        assert sum(isinstance(each, Delivery) for each in waiting) < 3
        assert "11 deliveries waited" in caplog.text
        deliver_elsewhere(hub, 4, 1000)
        assert not hub._deliveries.behind
        gevent.sleep(0)
        eventually(lambda: not waiting, sleep=gevent.sleep)
        assert hub._deliveries._size == 0
        ws._transport.abort()


def test_what_waited_is_given_back_as_it_is_passed_on() -> None:
    hub, ws, theirs = evented_hub()
    with contextlib.closing(theirs):
        deliver_elsewhere(hub, 20, 1000)
        assert hub._deliveries._size > 20_000
        eventually(lambda: not hub._deliveries.waiting, sleep=gevent.sleep)
        assert hub._deliveries._size == 0
        assert len(theirs.recv(1 << 20)) == 20 * 1004
        ws._transport.abort()


# -- real sockets


def test_who_reads_is_not_slow_for_want_of_a_turn() -> None:
    """One view says more than the limit to many, and lets nobody have a turn."""
    hub, ws, theirs = evented_hub(MAX_QUEUE=MIB, MAX_QUEUED=MIB)
    with contextlib.ExitStack() as stack:
        stack.callback(ws._transport.abort)
        stack.callback(theirs.close)
        pairs = []
        for _ in range(40):
            ours, peer = socket.socketpair()
            stack.callback(peer.close)
            ours.setblocking(False)
            transport = EventedTransport(
                ours.detach(), max_queue=MIB, allowance=hub.backlog.allowance
            )
            stack.callback(transport.abort)
            pairs.append((WebSocket(transport, hub, Connection()), peer))
            hub.register(pairs[-1][0], transport.loop)
        for each, _ in pairs:
            each.send(bytes(60_000))
        assert not any(each.closed for each, _ in pairs)
        eventually(lambda: hub.backlog.queued() == 0, sleep=gevent.sleep)


def test_a_broadcast_takes_its_frame_once_from_the_allowance() -> None:
    hub, ws, theirs = evented_hub(MAX_QUEUED=MIB)
    with contextlib.closing(theirs):
        before = hub.backlog.allowance.left
        hub.deliver(Delivery(EVERYONE, Message("x" * 5000)))
        assert before - hub.backlog.allowance.left == 5004 + 8
        ws.send("y")
        assert before - hub.backlog.allowance.left == 5012 + 3 + 64
        ws._transport.abort()
