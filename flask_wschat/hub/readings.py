"""``Readings``: pages of what is kept, for those who ask for them.

See docs/decisions/44.
"""

from __future__ import annotations

from collections.abc import Callable

from ..backends import Backend
from ..errors import BackendError
from ..messages import Page
from ..transports import Loop
from ..transports.loop import new_event
from ..websocket import WebSocket
from .feed import Feed
from .feeds import Feeds
from .flights import Flight, Reader
from .pages import Position, View, fitting, has_hole, view
from .subscriptions import Subscriptions


class Readings:
    """Called in workers, where they may wait for the backend."""

    def __init__(
        self, feeds: Feeds, subscriptions: Subscriptions, backend: Backend
    ) -> None:
        self._feeds = feeds
        self._subscriptions = subscriptions
        self._backend = backend

    def read(
        self,
        ws: WebSocket,
        topic: str,
        position: Position,
        limit: int,
        answer: Callable[[View], str],
    ) -> View | None:
        """Send ``ws``, which is in ``topic``, a page of it, and then what follows.

        ``answer`` makes the reply that has the page; it is called in the loop, and
        where it raises, nothing is sent. Nothing follows a page of which there is
        ``more``. None: ``ws`` has left meanwhile. See docs/decisions/19 and 44.

        :raises BackendError: the page cannot be read, or nothing would follow.
        :raises ConnectionClosed: ``ws`` has ended.
        """
        loop, reader = ws._transport.loop, Reader(ws, answer)
        feed, flight = loop.call(self._ask, topic, reader, position, limit)
        if flight is not None and flight.readers[0] is reader:
            self._fetch(loop, feed, flight)
        elif flight is not None:
            ready = new_event()
            loop.call(reader.tell, ready)
            ready.wait()
        if reader.error is not None:
            raise reader.error
        if reader.view is None and ws.closed:
            raise ws._closed_error()
        return reader.view

    def newest(self, loop: Loop, topic: str, limit: int) -> View | None:
        """Return the newest messages of ``topic`` if they are known here."""

        def find() -> View | None:
            feed = self._feeds.get(topic)
            heard = feed is not None and self._subscriptions.delivers(topic)
            return feed.newest(limit) if feed is not None and heard else None

        return loop.call(find)

    def earlier(self, topic: str, before: int | None, limit: int) -> View:
        """Return the newest messages of ``topic`` under ``before``.

        :raises BackendError: they cannot be read.
        """
        most = self._feeds.budget
        page = self._backend.history(
            topic, before=before, limit=limit, max_bytes=most, growing=False
        )
        return view(page, fitting(topic, page, most))

    def _ask(
        self, topic: str, reader: Reader, position: Position, limit: int
    ) -> tuple[Feed | None, Flight | None]:
        feed = self._feeds.get(topic)
        if feed is None or reader.ws not in feed.members:
            return feed, None
        heard = self._subscriptions.delivers(topic)
        return feed, feed.ask(reader, position, limit, heard)

    def _fetch(self, loop: Loop, feed: Feed | None, flight: Flight) -> None:
        """Read the page that all who are in ``flight`` wait for."""
        assert feed is not None
        try:
            # In this order nothing falls between them: what is delivered waits.
            self._subscriptions.wait(loop, [feed.topic])
            landed = False
            while not landed:
                if all(reader.ws.closed for reader in flight.readers):
                    raise flight.readers[0].ws._closed_error()
                page = self._page(feed.topic, flight.position, flight.limit)
                landed = loop.call(feed.land, flight, page)
        except BaseException as error:
            loop.call_threadsafe(feed.fail, flight, BackendError(str(error)))
            raise

    def _page(self, topic: str, position: Position, limit: int) -> Page:
        """Return what follows the position, where that can be had; else the newest."""
        (after, epoch, tag), history = position, self._backend.history
        most = self._feeds.budget
        if after is not None and epoch is None:
            # Who does not say whose numbers it has is believed to have today's.
            now = history(topic, limit=1, growing=False)
            epoch, after = now.epoch, after if after <= now.seq else None
        page = history(
            topic, after=after, epoch=epoch, tag=tag, limit=limit, max_bytes=most
        )
        if after is not None and page.recovered and has_hole(page, after):
            # It is told once, and passed: the next page begins behind it.
            page = history(topic, limit=limit, max_bytes=most)
        return page
