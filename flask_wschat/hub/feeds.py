"""What connections of the ready-made chat read, and how far each one is.

A feed is a topic as these see it: its messages in their envelope, encoded once for all,
without a hole and each once. Whoever comes, or comes back, first gets a page of the
history; what is delivered meanwhile waits, and follows where the page ends. See
docs/decisions/13 and 19.
"""

from __future__ import annotations

from collections.abc import Callable, Collection, Iterable
from typing import Any

from .. import envelope
from ..codec import EncodedMessage
from ..messages import DELETED, EVERYONE, PRESENCE, Delivery, News, room_of
from ..websocket import WebSocket
from .audience import Audience, deliver
from .tallies import Tallies

_COST = 256  # bytes that a delivery counts for besides its data


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

    def send(
        self, receivers: Collection[WebSocket], exclude: str | None = None
    ) -> None:
        if not receivers:
            return
        topic, message, seq, at, *_ = self.delivery
        if self._frame is None:
            text = message.data
            if message.event == DELETED:
                text = envelope.deleted(topic, int(text))
            elif message.event is None:
                text = envelope.message(topic, message, seq, at)
            self._frame = framed(text)
        deliver(receivers, self._frame, message.key, exclude)


class _Reader:
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
        self.reading: dict[WebSocket, _Reader] = {}
        """Those on their way there; all others get none until they ask for them."""
        self.epoch = ""
        """Of the last message delivered, or read where none was; "": unknown."""
        self.seq = 0
        self._limit = limit

    def hold(self, ws: WebSocket) -> None:
        """Send ``ws`` nothing more, and keep what comes until ``resume``."""
        self.live.discard(ws)
        self.reading[ws] = _Reader()

    def mute(self, ws: WebSocket) -> None:
        """Send ``ws`` no messages."""
        self.live.discard(ws)
        self.reading.pop(ws, None)

    def resume(self, ws: WebSocket, epoch: str, seq: int) -> None:
        """Go on after the page that ``ws`` was sent, which told of ``seq``."""
        reader = self.reading.get(ws)
        if reader is None or reader.buffer is None:
            return
        if reader.broken:
            self._gap([ws])
            return
        buffer, reader.buffer = reader.buffer, None
        reader.epoch, reader.after = epoch, seq
        if not self.epoch:
            self.epoch, self.seq = epoch, seq
        for parcel in buffer:
            if not self._follow(ws, reader, parcel):
                return
        if self.epoch == reader.epoch and reader.after < self.seq:
            # The page is older than what was delivered: the backend has lost messages.
            self._gap(self.live)
            self.seq = reader.after
        self._settle(ws, reader)

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
        # Who is left out of a numbered message would see a hole.
        parcel.send(self.live, None if seq else message.exclude)
        # After it, as this may make them live.
        for ws, reader in list(self.reading.items()):
            if reader.buffer is not None:
                self._buffer(reader, parcel)
            else:
                self._follow(ws, reader, parcel)

    def lose(self) -> None:
        """Nobody knows what was missed: all must read again."""
        self.epoch, self.seq = "", 0
        lost = list(self.live)
        for ws, reader in self.reading.items():
            if reader.buffer is not None:
                reader.broken = True
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
        if not self.reading:
            parcel.send(self.members, exclude)
            return
        receivers = []
        for ws in self.members:
            reader = self.reading.get(ws)
            if reader is not None and reader.buffer is not None:
                self._buffer(reader, parcel)
            elif exclude is None or ws._id != exclude:
                receivers.append(ws)
        parcel.send(receivers)

    def _buffer(self, reader: _Reader, parcel: _Parcel) -> None:
        if reader.broken or reader.buffer is None:
            return
        reader.buffer.append(parcel)
        reader.size += len(parcel.delivery.message.data) + _COST
        if reader.size > self._limit:
            reader.broken = True
            reader.buffer.clear()

    def _follow(self, ws: WebSocket, reader: _Reader, parcel: _Parcel) -> bool:
        """Send what comes after the page; False: there is a hole, ``ws`` knows."""
        seq, epoch = parcel.delivery.seq, parcel.delivery.epoch
        if seq:
            if epoch == reader.epoch and seq <= reader.after:
                return True
            if epoch != reader.epoch or seq > reader.after + 1:
                self._gap([ws])
                return False
            reader.after = seq
        parcel.send([ws])
        self._settle(ws, reader)
        return True

    def _settle(self, ws: WebSocket, reader: _Reader) -> None:
        level = (self.epoch, self.seq) == (reader.epoch, reader.after)
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


class Feeds:
    """The feeds of a process, by topic; used in the loop only.

    ``limit``: bytes that may wait for one connection's page. ``later`` calls back after
    so many seconds.
    """

    def __init__(
        self, limit: int, later: Callable[[float, Callable[[], Any]], Any]
    ) -> None:
        self._limit = limit
        self.tallies = Tallies(later, self._tell)
        self.clear()

    def clear(self) -> None:
        """Forget everybody: this is another process now."""
        self._feeds: dict[str, Feed] = {}
        self.tallies.clear()

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
                feed.reading[ws] = reader = _Reader()
                reader.broken = True  # it asks for a page first, which has all this

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
            self.tallies.put(delivery)
        elif delivery.message.event == PRESENCE:
            feed.deliver(_Parcel(_of_people(delivery)))
        else:
            feed.deliver(_Parcel(delivery))

    def lose(self, topic: str) -> None:
        """Tell the readers of ``topic`` that there may be a hole."""
        feed = self._feeds.get(topic)
        if feed is not None and topic != EVERYONE:
            feed.lose()

    def _tell(self, delivery: Delivery) -> None:
        feed = self._feeds.get(delivery.topic)
        if feed is not None:
            feed.deliver(_Parcel(delivery))


def _of_people(delivery: Delivery) -> Delivery:
    """Return the news of who is there as clients get it."""
    news, room = News.of(delivery.message), room_of(delivery.topic) or ""
    text = envelope.presence(room, news.joined, news.left)
    return delivery._replace(message=delivery.message._replace(data=text))
