from __future__ import annotations

from flask_wschat.codec import Connection
from flask_wschat.hub import EVERYONE, Hub, room_topic, user_topic
from flask_wschat.messages import Message
from flask_wschat.websocket import Listener, WebSocket

from .test_websocket import Open, Opened, Peer, opened

__all__ = ["opened"]


def another(hub: Hub, user: str | None = None) -> tuple[WebSocket, Peer]:
    from flask_wschat.transports.memory import pair

    ours, theirs = pair(max_queue=hub.settings.MAX_QUEUE)
    peer = Peer(theirs)
    theirs.start(peer)
    ws = WebSocket(ours, hub, Connection(), user=user)
    hub.register(ws, ours.loop)
    ws.start()
    return ws, peer


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
    assert set(hub._members) == {EVERYONE}


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
    slow.listen(Leaver())
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
    ws.due = 0
    sweep()
    assert ws.pinged and len(timers) == 1
    peer.transport.abort()
    timers.pop()[1]()
    assert timers == [] and not hub._sweeping
