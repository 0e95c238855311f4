"""``Feeds``: those of a process, by topic."""

from __future__ import annotations

import time
from collections.abc import Callable, Collection
from typing import Any

from ..messages import EVERYONE, Delivery, Page, Receipt
from ..settings import Settings
from ..transports.patched import RLock
from ..websocket import WebSocket
from .feed import Feed
from .flights import Reader
from .growing import Growing
from .pages import Shelf
from .parcels import Parcel
from .tallies import Tallies


class Feeds:
    """Used in the loop only, but ``acknowledged``.

    ``later`` calls back after so many seconds; ``mend`` as in ``Common``.
    """

    def __init__(
        self,
        settings: Settings,
        later: Callable[[float, Callable[[], Any]], Any],
        mend: Callable[[Feed], None],
    ) -> None:
        self.limit = settings.MAX_QUEUE
        # It comes on top of what waits, up to a half; the last quarter is for what
        # others say meanwhile.
        self.budget = settings.MAX_QUEUE // 4
        self.size = settings.HISTORY_SIZE
        self._ttl = settings.HISTORY_TTL
        self._mend = mend
        self.tallies = Tallies(later, self._tell)
        self.growing = Growing(settings.presence_ttl, self.budget)
        self.noting = RLock()
        self.clear()

    def clear(self) -> None:
        """Forget everybody: this is another process now."""
        self._feeds: dict[str, Feed] = {}
        self.shelf = Shelf()
        self.tallies.clear()
        self.growing.clear()

    def __contains__(self, topic: object) -> bool:
        return topic in self._feeds

    @property
    def topics(self) -> Collection[str]:
        """Those that somebody reads."""
        return self._feeds.keys()

    def get(self, topic: str) -> Feed | None:
        return self._feeds.get(topic)

    def mend(self, feed: Feed) -> None:
        self._mend(feed)

    def members(self, topic: str) -> Collection[WebSocket]:
        feed = self._feeds.get(topic)
        return () if feed is None else feed.members

    def since(self) -> float:
        return time.time() - self._ttl

    def add(self, ws: WebSocket, topic: str, *, mute: bool = False) -> None:
        """Let ``ws`` have the news of ``topic``, but no messages before a page.

        ``mute``: no news either.
        """
        feed = self._feeds.get(topic)
        if feed is None:
            feed = self._feeds[topic] = Feed(topic, self)
        if ws not in feed.members:
            feed.members.add(ws)
            if mute:
                feed.reading[ws] = Reader(ws)

    def unmute(self, ws: WebSocket, topic: str) -> None:
        """Let ``ws`` have the news of ``topic`` from now on."""
        feed = self._feeds.get(topic)
        if feed is not None:
            feed.mute(ws)

    def let_hear(self, ws: WebSocket, topic: str) -> None:
        """Let ``ws``, which has not asked for a page, have the application's events."""
        feed = self._feeds.get(topic)
        reader = None if feed is None else feed.reading.get(ws)
        if reader is not None and reader.answer is None:
            reader.hears = True

    def discard(self, ws: WebSocket, topic: str) -> None:
        feed = self._feeds.get(topic)
        if feed is not None:
            feed.members.discard(ws)
            feed.mute(ws)
            if not feed.members:
                del self._feeds[topic]
                self.shelf.drop(topic)
                self.growing.forget(topic)

    def void(self, topic: str) -> None:
        """Ask the storage before anybody is sent a page of ``topic``."""
        feed = self._feeds.get(topic)
        if feed is not None:
            feed.void()

    def begin_anew(self, topic: str, epoch: str) -> None:
        """Do so, but where the page is of ``epoch``, which began just now.

        Mostly this process has made it by asking for that page: the first one who comes
        to a new room would ask twice.
        """
        feed = self._feeds.get(topic)
        if feed is not None:
            feed.begin_anew(epoch)

    def acknowledged(self, topic: str, receipt: Receipt) -> None:
        """Note what was stored: who asks from now on finds it. From any thread."""
        feed = self._feeds.get(topic)
        if feed is None or not receipt.seq:
            return
        if receipt.epoch == feed.epoch and receipt.seq <= feed.seq and not feed.flights:
            return  # it was delivered here, and so is in the newest page
        with self.noting:
            epoch, seq = feed.acked
            if epoch != receipt.epoch or seq < receipt.seq:
                feed.acked = receipt.epoch, receipt.seq

    def deliver(self, delivery: Delivery) -> None:
        feed = self._feeds.get(delivery.topic)
        if feed is None:
            return
        if delivery.message.event == "tally":
            self.tallies.put(delivery)
        else:
            feed.deliver(Parcel(delivery))

    def grown(self, topic: str, page: Page, since: float) -> None:
        """Tell the readers of ``topic`` what grows there, as far as it is new."""
        feed = self._feeds.get(topic)
        if feed is not None:
            feed.grown(page, since)

    def lose(self, topic: str) -> None:
        """Publications in ``topic`` may have been missed."""
        feed = self._feeds.get(topic)
        if feed is not None and topic != EVERYONE:
            feed.lose()

    def _tell(self, delivery: Delivery) -> None:
        feed = self._feeds.get(delivery.topic)
        if feed is not None:
            feed.deliver(Parcel(delivery))
