"""WebSockets over a joined pair of transports in memory, with a codec as the peer."""

from __future__ import annotations

import json
from collections.abc import Callable
from typing import Any

from flask_wschat.backends.memory import MemoryBackend
from flask_wschat.codec import Connection, Event
from flask_wschat.hub.flights import Reader as asking
from flask_wschat.hub.hub import Hub
from flask_wschat.hub.pages import Position
from flask_wschat.messages import Entry, Page, room_topic
from flask_wschat.settings import Settings
from flask_wschat.transports.memory import MemoryTransport, pair
from flask_wschat.websocket import WebSocket

_REPLY = '{"type":"reply"}'


class Peer:
    """The other end: a client's codec on the other transport."""

    def __init__(self, transport: MemoryTransport) -> None:
        self.connection = Connection(client=True, max_message=1 << 30)
        self.transport = transport
        self.events: list[Event] = []
        self.lost = False

    def _data_received(self, data: bytes) -> None:
        self.events += self.connection.receive_data(data)
        if answer := self.connection.data_to_send():
            self.transport.write(answer)

    def _placed(self, size: int) -> None:
        raise AssertionError("nobody gave a place")

    def _connection_lost(self) -> None:
        self.lost = True

    def _drained(self) -> None:
        pass

    def _dropped(self, count: int) -> None:
        raise AssertionError("nothing is dropped here")

    def send(self, *messages: str | bytes) -> None:
        self.transport.write(b"".join(map(self.connection.send, messages)))

    def close(self, code: int = 1000, reason: str = "") -> None:
        self.transport.write(self.connection.close(code, reason))


Opened = tuple[WebSocket, Peer, Hub]
Open = Callable[..., Opened]


def open_pair(**config: Any) -> Opened:
    """Return an open WebSocket, its peer, and its hub with these settings."""
    settings = Settings(**config)
    hub = Hub(settings, MemoryBackend(), dumps=repr, loads=lambda text: eval(str(text)))
    ours, theirs = pair(
        max_queue=settings.MAX_QUEUE,
        policy=settings.SLOW_POLICY,
        allowance=hub.backlog.allowance,
    )
    peer = Peer(theirs)
    theirs.start(peer)
    ws = WebSocket(ours, hub, Connection(max_message=settings.MAX_MESSAGE))
    hub.register(ws, ours.loop)
    ws._start()
    return ws, peer, hub


def another(
    hub: Hub, user: str | None = None, *, plain: bool = True
) -> tuple[WebSocket, Peer]:
    """Return one more WebSocket of ``hub``, and its peer."""
    ours, theirs = pair(
        max_queue=hub.settings.MAX_QUEUE, allowance=hub.backlog.allowance
    )
    peer = Peer(theirs)
    theirs.start(peer)
    ws = WebSocket(ours, hub, Connection(), user=user)
    hub.register(ws, ours.loop, plain=plain)
    ws._start()
    return ws, peer


class Reader:
    """A connection of the ready-made chat that is in room ``a``."""

    def __init__(self, hub: Hub, user: str | None = None) -> None:
        ours, theirs = pair(
            max_queue=hub.settings.MAX_QUEUE, allowance=hub.backlog.allowance
        )
        self.peer = Peer(theirs)
        theirs.start(self.peer)
        self.hub = hub
        self.ws = WebSocket(ours, hub, Connection(), user=user)
        hub.register(self.ws, ours.loop, plain=False)
        self.ws._start()
        hub.attach(self.ws, sharing=True)
        hub.join(self.ws, "a")

    def ask(self, topic: str = room_topic("a")) -> None:
        """Ask for a page: it is read until ``land``."""
        self.feed = self.hub.feeds.get(topic)
        assert self.feed is not None
        asked = asking(self.ws, lambda view: _REPLY)
        own = Position(tag=self.ws.id)  # it shares none with others
        self.flight = self.feed.ask(asked, own, 1, False)

    def land(
        self, seq: int, epoch: str = "e", tag: str = "", *, more: bool = False
    ) -> bool:
        """Get the page, which ends with ``seq``; False: it is read again."""
        assert self.feed is not None and self.flight is not None
        entries = [Entry(seq - 1, "", 1.5)] if more else []
        landed = self.feed.land(self.flight, Page(epoch, seq, entries, more, tag=tag))
        if _REPLY in self.peer.events:
            self.peer.events.remove(_REPLY)
        return landed

    def read(self, seq: int, epoch: str = "e", tag: str = "") -> None:
        """Read a page that ends with ``seq``, and nothing meanwhile."""
        self.ask()
        assert self.land(seq, epoch, tag)

    @property
    def got(self) -> list[Any]:
        """Numbers of messages, names of rooms with a gap, other events whole."""
        found: list[Any] = []
        for text in self.peer.events:
            assert isinstance(text, str)
            event = json.loads(text)
            kind = event["type"]
            found.append(
                event["seq"]
                if kind == "message"
                else ("gap", event["room"])
                if kind == "gap"
                else kind
            )
        return found
