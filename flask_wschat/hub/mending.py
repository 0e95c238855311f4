"""``Mender``: reads what this process has missed, once for all its readers.

See docs/decisions/44.
"""

from __future__ import annotations

import heapq
import itertools
import logging
import random
import time
from collections.abc import Callable

from ..backends import Backend
from ..errors import BackendError
from ..messages import DELETED, Delivery, Message
from ..transports import Loop
from .feed import Feed
from .home import Home

logger = logging.getLogger("flask_wschat")

WORKERS = 4
"""Topics read at the same time: those who come need the backend, too."""
_FIRST, _LONGEST = 0.2, 2.0  # seconds until it is asked again, while it is away
_LIMIT = 1000  # messages asked for at once
_TURN = 0.005  # seconds that it delivers until others have their turn
_random = random.Random()  # the application's own may be seeded


class Mender:
    """Feeds that wait for what they have missed, those with most readers first.

    Changes in the loop only.
    """

    def __init__(
        self,
        home: Home,
        backend: Backend,
        budget: int,
        deliver: Callable[[Delivery], None],
    ) -> None:
        self._home = home
        self._deliver = deliver
        self._backend = backend
        self._budget = budget
        self._order = itertools.count()
        self.clear()

    def clear(self) -> None:
        """Forget everything: another loop is home now, or this is another process."""
        self._stay = object()
        self._waiting: list[tuple[int, int, Feed]] = []
        self._workers = 0
        self._paused = False
        self._pause = _FIRST

    def add(self, feed: Feed) -> None:
        """Have read what ``feed`` is ``missing``."""
        heapq.heappush(self._waiting, (-len(feed.live), next(self._order), feed))
        self._work_soon()

    def _work_soon(self) -> None:
        loop, stay = self._home.loop, self._stay
        if loop is None or self._paused:
            return
        for _ in range(min(WORKERS, len(self._waiting)) - self._workers):
            self._workers += 1
            loop.run_own(lambda: self._work(loop, stay))

    def _next(self, stay: object) -> Feed | None:
        if stay is not self._stay:
            return None
        if self._waiting and not self._paused:
            return heapq.heappop(self._waiting)[-1]
        self._workers -= 1
        return None

    def _failed(self, stay: object, feed: Feed | None, error: BaseException) -> None:
        """A worker has ended. While the storage is away, it is asked now and then."""
        if stay is not self._stay:
            return
        self._workers -= 1
        if feed is None or not isinstance(error, BackendError):
            if feed is not None:
                feed.give_up()
            self._work_soon()
            return
        self.add(feed)
        if not self._paused:
            self._paused = True
            self._home.later(self._pause * _random.uniform(0.5, 1), self._go_on)
            self._pause = min(2 * self._pause, _LONGEST)

    def _go_on(self) -> None:
        self._paused = False
        self._work_soon()

    # -- in a worker

    def _work(self, loop: Loop, stay: object) -> None:
        feed: Feed | None = None
        try:
            while (feed := loop.call(self._next, stay)) is not None:
                self._mend(loop, feed)
                feed = None
        except BaseException as error:  # else its readers would wait for ever
            if not isinstance(error, BackendError):
                logger.exception("error in reading what was missed")
            loop.call_threadsafe(self._failed, stay, feed, error)

    def _mend(self, loop: Loop, feed: Feed) -> None:
        told = False
        while (position := loop.call(feed.missing)) is not None:
            page = self._backend.history(
                feed.topic,
                **position._asdict(),
                limit=_LIMIT,
                max_bytes=self._budget,
            )
            if not told:
                told = True
                numbers = self._backend.taken_back(feed.topic)
                for number in loop.call(feed.untold, numbers):
                    news = Message(str(number), event=DELETED)
                    self._deliver(Delivery(feed.topic, news))
            self._pause = _FIRST
            until = time.monotonic() + _TURN
            for parcel in loop.call(feed.found, page):
                loop.call(feed.catch_up, parcel)
                if time.monotonic() > until:
                    loop.give_turn()
                    until = time.monotonic() + _TURN
            if loop.call(feed.is_mended, page.seq):
                return
