"""``Parcel``: what was delivered, as readers of the ready-made chat get it."""

from __future__ import annotations

from collections.abc import Collection

from .. import envelope
from ..codec import EncodedMessage
from ..messages import APPEND, DELETED, DISCARD, Delivery, Entry, Grown, Message
from ..websocket import WebSocket
from .audience import deliver, publish
from .pages import Kept, kept

_COST = 256  # bytes that a delivery counts for besides its data
_FEW = 50  # who need not wait for each other after a gap
_A_SECOND = 1000  # of more than these
_SPREAD = 10.0  # seconds that they wait at most


def framed(text: str | bytes) -> EncodedMessage:
    """Return ``text`` for sending, with what no UTF-8 can say replaced."""
    try:
        return EncodedMessage(text)
    except UnicodeEncodeError:
        assert isinstance(text, str)
        return EncodedMessage(text.encode("utf-8", "replace").decode())


def tell_gap(receivers: Collection[WebSocket], topic: str) -> None:
    """Tell ``receivers`` to read ``topic`` again; many, not all at once."""
    count = len(receivers)
    spread = 0.0 if count <= _FEW else min(round(count / _A_SECOND, 2), _SPREAD)
    deliver(receivers, framed(envelope.gap(topic, spread)))


class Parcel:
    """A delivery; its text and its frame are made for the first one who gets it.

    ``item``: it, where it was read from a page.
    """

    __slots__ = ("_frame", "_said", "delivery")

    def __init__(self, delivery: Delivery, item: Kept | None = None) -> None:
        self.delivery = delivery
        self._said = None if item is None else item.text
        self._frame: EncodedMessage | None = None

    @property
    def size(self) -> int:
        return len(self.delivery.message.data) + _COST

    @property
    def said(self) -> str:
        """Its text, where it is a message."""
        if self._said is None:
            topic, message, seq, at, _, tag, _ = self.delivery
            self._said = envelope.message(topic, message, seq, at, tag)
        return self._said

    @property
    def kept(self) -> Kept:
        """What it is in pages."""
        delivery = self.delivery
        return Kept(delivery.seq, delivery.at, delivery.tag, self.said)

    def taken_back(self) -> Parcel:
        """Return what is left of it where it was deleted."""
        delivery = self.delivery._replace(message=Message(""))
        topic, seq, at, tag = delivery.topic, delivery.seq, delivery.at, delivery.tag
        entry = Entry(seq, "null", at, json=True, tag=tag, deleted=True)
        return Parcel(delivery, kept(topic, entry))

    def send(
        self, receivers: Collection[WebSocket], exclude: str | None = None
    ) -> None:
        if not receivers:
            return
        message = self.delivery.message
        if self._frame is None:
            self._frame = framed(self.said if message.event is None else self._news())
        publish(receivers, self._frame, message.key, exclude)

    def _news(self) -> str | bytes:
        topic, message = self.delivery.topic, self.delivery.message
        event, growth, data = message.event, message.growth, message.data
        if event == DELETED:
            return envelope.deleted(topic, int(data))
        if growth is None:
            return data
        if event == APPEND:
            return envelope.append(topic, growth.id, growth.n, str(data))
        if event == DISCARD:
            return envelope.discard(topic, growth.id, str(data))
        grown = Grown(growth.id, message.sender, self.delivery.at, 0, "")
        return envelope.stream(topic, grown)
