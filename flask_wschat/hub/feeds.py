"""What connections of the ready-made chat read, and how far each one is.

A feed is a topic as these see it: its messages in their envelope, encoded once for all,
without a hole and each once. Whoever comes, or comes back, first gets a page of the
history; what is delivered meanwhile waits, and follows where the page ends. See
docs/decisions/13 and 19.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Collection, Iterable
from typing import Any

from .. import envelope
from ..codec import EncodedMessage
from ..messages import EVERYONE, Delivery
from ..websocket import WebSocket
from .audience import Audience, deliver

_COST = 256  # bytes that a delivery counts for besides its data
TALLY_INTERVAL = 0.1
"""Seconds between two tallies of a poll, whichever processes have them to tell."""
_TALLY_AGE = 5.0  # seconds after which an older tally must be news: of a new count

Later = Callable[[float, Callable[[], Any]], Any]


def framed(text: str | bytes) -> EncodedMessage:
    """Return ``text`` for sending, with what no UTF-8 can say replaced."""
    try:
        return EncodedMessage(text)
    except UnicodeEncodeError:
        assert isinstance(text, str)
        return EncodedMessage(text.encode("utf-8", "replace").decode())


def tell_gap(receivers: Collection[WebSocket], topic: str) -> None:
    """Tell ``receivers`` to read ``topic`` again."""
    deliver(receivers, framed(envelope.gap(topic)))


class _Parcel:
    """A delivery, and its frame for all who get it, made for the first one."""

    __slots__ = ("_frame", "delivery")

    def __init__(self, delivery: Delivery) -> None:
        self.delivery = delivery
        self._frame: EncodedMessage | None = None

    def send(self, receivers: Collection[WebSocket]) -> None:
        if not receivers:
            return
        topic, message, seq, at, _ = self.delivery
        if self._frame is None:
            news = message.event is not None
            text = message.data if news else envelope.message(topic, message, seq, at)
            self._frame = framed(text)
        deliver(receivers, self._frame, message.key)


class _Reading:
    """One connection's way from the history to what is live."""

    __slots__ = ("after", "broken", "buffer", "epoch", "size")

    def __init__(self) -> None:
        self.buffer: list[_Parcel] | None = []
        """What was delivered since it began to read; None: the page is sent."""
        self.size = 0
        self.broken = False
        """The buffer has a hole."""
        self.after = 0
        self.epoch = ""


class Feed:
    """One topic's readers."""

    __slots__ = ("_limit", "epoch", "live", "members", "reading", "seq", "topic")

    def __init__(self, topic: str, limit: int) -> None:
        self.topic = topic
        self.members = Audience()
        self.live = Audience()
        """Those who get each message as it comes."""
        self.reading: dict[WebSocket, _Reading] = {}
        """Those on their way there; all others get none until they ask for them."""
        self.epoch = ""
        """Of the last message delivered, or read where none was; "": unknown."""
        self.seq = 0
        self._limit = limit

    def hold(self, ws: WebSocket) -> None:
        """Send ``ws`` nothing more, and keep what comes until ``resume``."""
        self.live.discard(ws)
        self.reading[ws] = _Reading()

    def mute(self, ws: WebSocket) -> None:
        """Send ``ws`` no messages."""
        self.live.discard(ws)
        self.reading.pop(ws, None)

    def resume(self, ws: WebSocket, epoch: str, seq: int) -> None:
        """Go on after the page that ``ws`` was sent, which told of ``seq``."""
        reading = self.reading.get(ws)
        if reading is None or reading.buffer is None:
            return
        if reading.broken:
            self._gap([ws])
            return
        buffer, reading.buffer = reading.buffer, None
        reading.epoch, reading.after = epoch, seq
        if not self.epoch:
            self.epoch, self.seq = epoch, seq
        for parcel in buffer:
            if not self._follow(ws, reading, parcel):
                return
        if self.epoch == reading.epoch and reading.after < self.seq:
            # The page is older than what was delivered: the backend has lost messages.
            self._gap(self.live)
            self.seq = reading.after
        self._settle(ws, reading)

    def deliver(self, parcel: _Parcel) -> None:
        message, seq = parcel.delivery.message, parcel.delivery.seq
        if message.close_code is not None:
            for ws in list(self.members):
                ws.close(message.close_code, str(message.data))
            return
        if message.event is not None or self.topic == EVERYONE:
            self._spread(parcel)
            return
        if seq and not self._is_next(parcel.delivery):
            return
        receivers: Collection[WebSocket] = self.live
        if message.exclude is not None and not seq:
            # Who is left out of a numbered message would see a hole.
            receivers = [ws for ws in receivers if ws._id != message.exclude]
        parcel.send(receivers)
        # After it, as this may make them live.
        for ws, reading in list(self.reading.items()):
            if reading.buffer is not None:
                self._buffer(reading, parcel)
            else:
                self._follow(ws, reading, parcel)

    def lose(self) -> None:
        """Nobody knows what was missed: all must read again."""
        self.epoch, self.seq = "", 0
        lost = list(self.live)
        for ws, reading in self.reading.items():
            if reading.buffer is not None:
                reading.broken = True
            else:
                lost.append(ws)
        self._gap(lost)

    # -- within

    def _is_next(self, delivery: Delivery) -> bool:
        """Note where the topic stands; False: this was delivered before."""
        known = self.epoch != ""
        if delivery.epoch == self.epoch:
            if delivery.seq <= self.seq:
                return False
            known = delivery.seq > self.seq + 1
        self.epoch, self.seq = delivery.epoch, delivery.seq
        if known:
            self._gap(self.live)
        return True

    def _spread(self, parcel: _Parcel) -> None:
        """Send to every member, but not before the page that it waits for."""
        exclude = parcel.delivery.message.exclude
        if exclude is None and not self.reading:
            parcel.send(self.members)
            return
        receivers = []
        for ws in self.members:
            reading = self.reading.get(ws)
            if reading is not None and reading.buffer is not None:
                self._buffer(reading, parcel)
            elif exclude is None or ws._id != exclude:
                receivers.append(ws)
        parcel.send(receivers)

    def _buffer(self, reading: _Reading, parcel: _Parcel) -> None:
        if reading.broken or reading.buffer is None:
            return
        reading.buffer.append(parcel)
        reading.size += len(parcel.delivery.message.data) + _COST
        if reading.size > self._limit:
            reading.broken = True
            reading.buffer.clear()

    def _follow(self, ws: WebSocket, reading: _Reading, parcel: _Parcel) -> bool:
        """Send what comes after the page; False: there is a hole, ``ws`` knows."""
        _, _, seq, _, epoch = parcel.delivery
        if seq:
            if epoch == reading.epoch and seq <= reading.after:
                return True
            if epoch != reading.epoch or seq > reading.after + 1:
                self._gap([ws])
                return False
            reading.after = seq
        parcel.send([ws])
        self._settle(ws, reading)
        return True

    def _settle(self, ws: WebSocket, reading: _Reading) -> None:
        level = (self.epoch, self.seq) == (reading.epoch, reading.after)
        # It may just have been closed, and be here no more.
        if level and self.reading.pop(ws, None) is not None:
            self.live.add(ws)

    def _gap(self, receivers: Iterable[WebSocket]) -> None:
        """Tell of a hole; nothing more comes until they read again."""
        readers = list(receivers)
        if not readers:
            return
        for ws in readers:
            self.mute(ws)
        tell_gap(readers, self.topic)


class _Tally:
    """How far the tallies of one poll have come here."""

    __slots__ = ("at", "newest", "sent", "version")

    def __init__(self) -> None:
        self.version, self.at, self.sent = 0, 0.0, 0.0
        self.newest: Delivery | None = None
        """What waits until it may be sent."""


class Feeds:
    """The feeds of a process, by topic; used in the loop only.

    ``limit``: bytes that may wait for one connection's page. ``later`` calls back after
    so many seconds.
    """

    def __init__(self, limit: int, later: Later) -> None:
        self._limit = limit
        self._later = later
        self.clear()

    def clear(self) -> None:
        """Forget everybody: this is another process now."""
        self._feeds: dict[str, Feed] = {}
        self._tallies: dict[str, _Tally] = {}

    def __contains__(self, topic: object) -> bool:
        return topic in self._feeds

    @property
    def topics(self) -> Collection[str]:
        """Those that somebody reads."""
        return self._feeds.keys()

    def members(self, topic: str) -> Collection[WebSocket]:
        feed = self._feeds.get(topic)
        return () if feed is None else feed.members

    def add(self, ws: WebSocket, topic: str, *, mute: bool = False) -> None:
        """Let ``ws`` have the news of ``topic``, but no messages before ``resume``.

        ``mute``: no news either.
        """
        feed = self._feeds.get(topic)
        if feed is None:
            feed = self._feeds[topic] = Feed(topic, self._limit)
        if ws not in feed.members:
            feed.members.add(ws)
            if mute:
                feed.reading[ws] = reading = _Reading()
                reading.broken = True  # it asks for a page first, which has all this

    def discard(self, ws: WebSocket, topic: str) -> None:
        feed = self._feeds.get(topic)
        if feed is not None:
            feed.members.discard(ws)
            feed.mute(ws)
            if not feed.members:
                del self._feeds[topic]

    def hold(self, ws: WebSocket, topic: str) -> None:
        feed = self._feeds.get(topic)
        if feed is not None and ws in feed.members:
            feed.hold(ws)

    def resume(self, ws: WebSocket, topic: str, epoch: str, seq: int) -> None:
        feed = self._feeds.get(topic)
        if feed is not None:
            feed.resume(ws, epoch, seq)

    def release(self, ws: WebSocket, topic: str) -> None:
        """Undo ``hold``: no messages before another one."""
        feed = self._feeds.get(topic)
        if feed is not None:
            feed.mute(ws)

    def deliver(self, delivery: Delivery) -> None:
        feed = self._feeds.get(delivery.topic)
        if feed is None:
            return
        if delivery.message.event == "tally":
            self._conflate(delivery)
        else:
            feed.deliver(_Parcel(delivery))

    def lose(self, topic: str) -> None:
        """Tell the readers of ``topic`` that there may be a hole."""
        feed = self._feeds.get(topic)
        if feed is not None and topic != EVERYONE:
            feed.lose()

    def void_tallies(self) -> None:
        """Take the next tally of each poll for news: counts may have begun anew."""
        for tally in self._tallies.values():
            tally.version, tally.newest = 0, None

    def _conflate(self, delivery: Delivery) -> None:
        """Pass a poll's newest tally on, at once or when the last one is old enough."""
        message, now = delivery.message, time.monotonic()
        version = envelope.tally_version(message.data)
        tally = self._tallies.get(message.key or "")
        if tally is None:
            tally = self._tallies[message.key or ""] = _Tally()
        if version < tally.version and now - tally.at < _TALLY_AGE:
            return
        tally.version, tally.at = version, now
        waits = tally.newest is not None
        tally.newest = delivery
        if not waits:
            wait = tally.sent + TALLY_INTERVAL - now
            if wait > 0:
                self._later(wait, lambda: self._pass_on(tally))
            else:
                self._pass_on(tally)

    def _pass_on(self, tally: _Tally) -> None:
        delivery, tally.newest = tally.newest, None
        tally.sent = time.monotonic()
        if delivery is not None and delivery.topic in self._feeds:
            self._feeds[delivery.topic].deliver(_Parcel(delivery))
